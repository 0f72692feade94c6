"""Lists of tokens and of words so far that tell the firing of a unit best, of each size one."""

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.atoms import set_atom
from neuronaut.agent.proposers.base import Firing
from neuronaut.agent.proposers.counts import Target
from neuronaut.agent.proposers.families import Family
from neuronaut.agent.proposers.features import Features
from neuronaut.agent.proposers.found import Found
from neuronaut.agent.proposers.search import MIN_GAIN
from neuronaut.agent.proposers.tables import FOLDS, Counted, Table, best_tables
from neuronaut.tools.tokens import Tokens

LIST_SIZES = (5, 20, 100)  # items
MIN_MARGIN = 0.8  # of the precision and of the coverage that a SUPPORTED claim needs


def lists(tokens: Tokens, activations: NDArray[np.floating], rule: Firing) -> list[Found]:
    """Of each size the list, of tokens or of words so far, that tells the firing best; none that does not come near what a
    SUPPORTED claim needs on documents from which it was not drawn up."""
    features = Features.of(tokens)
    values = np.asarray(features.at_places(activations), dtype=np.float64)
    target = Target.of(values, features.documents, rule.threshold, rule.median)
    at = np.flatnonzero(target.fires)
    fold = features.documents % FOLDS
    best: dict[int, tuple[Family, Table]] = {}
    for family, places in features.lists:
        counted = Counted.of(family.keys, places, at, fold[at], target.mass[at])
        sizes = [(size - family.own_cost) // family.item_cost for size in LIST_SIZES]
        for size, table in zip(LIST_SIZES, best_tables(counted, sizes), strict=True):
            if len(table.keys) and (size not in best or table.margin > best[size][1].margin + MIN_GAIN):
                best[size] = (family, table)
    found = []
    for family, table in best.values():
        if table.margin >= MIN_MARGIN:
            atom = set_atom(family, table.keys)
            found.append(Found.scored(atom.node, target.counts(atom.mask), table.f1, len(family.names)))
    return found

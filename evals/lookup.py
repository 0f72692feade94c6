"""Lookup tables as baselines: which tokens, or short token sequences, tell a unit's firing best within so many items."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.tables import FOLDS, Counted, best_tables
from neuronaut.evals.heldout import Bools, Firing, Floats, Ints, Places

WIDTHS = {"token": 1, "token and previous": 2, "token and two previous": 3}  # items an entry


@dataclass(frozen=True)
class Keys:
    """Token sequences of one width as numbers, on the text that tables are fitted on and on unseen text.

    fit, unseen: (n_places,), equal where the sequences are; n_keys where unseen text has one that the other lacks.
    places: (n_keys, FOLDS) how often each occurs in each fold of the fitting documents. names: (n_keys, width), the
    current token last.
    """

    width: int
    names: Ints
    fit: Ints
    unseen: Ints
    places: Floats = field(repr=False)

    @classmethod
    def of(cls, width: int, fit: Places, unseen: Places) -> "Keys":
        """The sequences of `width` tokens that end at each place."""
        here, there = (
            np.stack([text.tokens_before(offset) for offset in range(width - 1, -1, -1)], axis=1)
            for text in (fit, unseen)
        )
        base = int(max(here.max(initial=0), there.max(initial=0))) + 2  # NO_TOKEN is -1
        powers = base ** np.arange(width - 1, -1, -1)
        known, codes = np.unique((here + 1) @ powers, return_inverse=True)
        others = (there + 1) @ powers
        at = np.minimum(np.searchsorted(known, others), len(known) - 1)
        names = known[:, None] // powers % base - 1
        spread = np.bincount(codes * FOLDS + folds(fit), minlength=len(known) * FOLDS).reshape(len(known), FOLDS)
        return cls(width, names, codes, np.where(known[at] == others, at, len(known)), spread.astype(np.float64))

    def held(self, chosen: NDArray[np.integer]) -> Bools:
        """(n_places,) of the unseen text where its sequence is one of the chosen."""
        table = np.zeros(len(self.names) + 1, dtype=bool)
        table[chosen] = True
        return table[self.unseen]


def folds(places: Places) -> Ints:
    """(n_places,) fold of each place, whole documents to each."""
    return places.documents % FOLDS


def fit_tables(keys: Keys, firing: Firing, fit: Places, budgets: Sequence[int]) -> list[NDArray[np.intp]]:
    """For each budget of items the keys of the best table, found as the proposer's own lists are."""
    at = np.flatnonzero(firing.fires)
    counted = Counted.of(keys.fit, keys.places, at, folds(fit)[at], firing.mass[at])
    return [table.keys for table in best_tables(counted, [budget // keys.width for budget in budgets])]


def entries(keys: Keys, chosen: NDArray[np.intp]) -> Iterator[tuple[int, ...]]:
    """The token ids of each entry, the current token last."""
    for row in keys.names[chosen].tolist():
        yield tuple(row)

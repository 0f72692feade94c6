"""Does the unit follow the predicate when the text is edited? Pairs are run, and each document bets."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.predicates.edits import EditedText, Pair
from neuronaut.tools.stats import e_value
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.units import Unit

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Bets:
    """Results of the pairs. scores: (wins − losses) / discordant of each document with a discordant pair, in test order."""

    scores: tuple[float, ...]
    wins: int
    losses: int
    pairs: int
    documents: int
    leaf_e: dict[int, float]

    @property
    def discordant(self) -> int:
        """Pairs in which the unit fired on one arm only."""
        return self.wins + self.losses

    @property
    def e(self) -> float:
        """The e-value after all documents."""
        return e_value(self.scores)


def edited_activations(
    target: TargetModel, unit: Unit, texts: Sequence[EditedText]
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """(n,) the unit's activation (its sign applied) at the judged position of each edited text."""
    site, values = Site("neurons", unit.layer), np.zeros(len(texts), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: texts[i].position)
    at = 0
    while at < len(order):
        end = at + 1
        while end < len(order) and (end + 1 - at) * (texts[order[end]].position + 1) <= BATCH_TOKENS:
            end += 1
        chosen = order[at:end]
        width = max(texts[i].position for i in chosen) + 1
        ids = torch.zeros(len(chosen), width, dtype=torch.long)
        for row, i in enumerate(chosen):
            part = texts[i].ids[: texts[i].position + 1]
            ids[row, : len(part)] = torch.tensor(part)
        read = target.run(ids, read=[site], stop=unit.layer + 1).read[site][:, :, unit.index]
        values[chosen] = read[torch.arange(len(chosen)), [texts[i].position for i in chosen]].float().numpy()
        at = end
    if not np.isfinite(values).all():
        raise ToolFailed(f"neuron {unit.address} has activations that are not finite on edited text")
    return unit.sign * values


def run_pairs(target: TargetModel, unit: Unit, pairs: Sequence[Pair], rule: FiringRule) -> Bets:
    """The bets of all pairs. Discordant: fires on one arm only (dense units: activations differ by half the spread)."""
    true = edited_activations(target, unit, [pair.true for pair in pairs])
    false = edited_activations(target, unit, [pair.false for pair in pairs])
    if rule.dense:
        outcome = np.where(np.abs(true - false) > rule.spread / 2, np.sign(true - false), 0.0)
    else:
        outcome = (true > rule.threshold).astype(float) - (false > rule.threshold)
    scores = _by_document(pairs, outcome)
    per_leaf = {
        leaf: e_value(_by_document([p for p in pairs if p.leaf == leaf], outcome[[p.leaf == leaf for p in pairs]]))
        for leaf in sorted({pair.leaf for pair in pairs})
    }
    return Bets(
        tuple(scores),
        int((outcome > 0).sum()),
        int((outcome < 0).sum()),
        len(pairs),
        len({p.document for p in pairs}),
        per_leaf,
    )


def _by_document(pairs: Sequence[Pair], outcome: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    found: dict[int, list[float]] = defaultdict(list)
    for pair, value in zip(pairs, outcome, strict=True):
        if value:
            found[pair.document].append(float(value))
    return [float(np.mean(values)) for values in found.values()]

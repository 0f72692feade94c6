"""Leaves with their best parameters: the token set or range that raises a score most, given what holds already."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.counts import Counts, Floats, Inside, Mask, Tally, f1_of
from neuronaut.agent.proposers.families import Family
from neuronaut.agent.proposers.features import Features
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import canonical_json

ITEM_PENALTY = 0.003  # F1 that an item must bring; 20 items cost 0.06
MIN_DOCUMENTS = 2  # documents in which a key must fire before it may enter a set
RATES = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
SILENT_RATES = (0.02, 0.1, 0.3)
_PRIOR = 2.0  # places at the base rate that are added to each key's own, against luck in small counts
_EDGES = 48


@dataclass(frozen=True)
class Leaf:
    """A leaf without a set of keys, and its cost in items. held: gives its (n_places,) mask, which is asked for once."""

    node: Predicate
    cost: int
    held: Callable[[], Mask] = field(repr=False, compare=False)
    family: str = field(default="", init=False)
    keys: tuple[int, ...] = field(default=(), init=False)
    negated: bool = field(default=False, init=False)

    @cached_property
    def mask(self) -> Mask:
        """(n_places,) where it holds."""
        return self.held()

    @cached_property
    def label(self) -> str:
        """Equal for atoms that say the same."""
        return repr(("", (), False, canonical_json(self.node)))


@dataclass(frozen=True)
class KeySet:
    """The leaf that holds where the key of a family is one of `keys`, in rising order (not, if negated). Its node and mask
    are made when they are asked for: most sets are only scored."""

    family: str
    keys: tuple[int, ...]
    negated: bool
    of: Family = field(repr=False, compare=False)

    @cached_property
    def node(self) -> Predicate:
        """The predicate."""
        node = self.of.node(tuple(self.of.names[key] for key in self.keys))
        return nodes.Not(inner=node) if self.negated else node

    @cached_property
    def mask(self) -> Mask:
        """(n_places,) where it holds."""
        table = np.zeros(len(self.of.names) + 1, dtype=bool)
        table[np.array(self.keys, dtype=np.intp) + 1] = True
        mask = table[self.of.slots]
        return ~mask if self.negated else mask

    @property
    def cost(self) -> int:
        """Items of its complexity."""
        return self.of.own_cost + self.of.item_cost * len(self.keys) + self.negated

    @cached_property
    def label(self) -> str:
        """Equal for atoms that say the same."""
        return repr((self.family, self.keys, self.negated, ""))


Atom = Leaf | KeySet
Scored = dict[Atom, Counts]  # atoms with what they find inside a mask


def set_atom(family: Family, keys: NDArray[np.integer], *, negated: bool = False) -> KeySet:
    """The atom that holds where the family's key is one of `keys` (not, if negated)."""
    return KeySet(family.name, tuple(np.sort(keys).tolist()), negated, family)


def _per_key(family: Family, inside: Inside) -> tuple[Floats, Floats, Floats]:
    """(n_keys,) places, firing places and firing mass of each key inside a mask."""
    size, firing = len(family.names) + 1, family.slots[inside.firing]
    places = np.bincount(family.slots[inside.places], minlength=size)[1:].astype(np.float64)
    fires = np.bincount(firing, minlength=size)[1:].astype(np.float64)
    mass = np.bincount(firing, weights=inside.mass, minlength=size)[1:].astype(np.float64)
    return places, fires, mass


def _told(family: Family, inside: Inside) -> NDArray[np.intp]:
    """The keys that fire in at least MIN_DOCUMENTS documents inside a mask."""
    slots, size = family.slots[inside.firing], len(family.names) + 1
    seen = np.unique(slots * inside.n_documents + inside.documents)
    return np.flatnonzero(np.bincount(seen // inside.n_documents, minlength=size)[1:] >= MIN_DOCUMENTS)


def best_sets(family: Family, inside: Inside, limits: tuple[int, ...], *, beside: Counts, tally: Tally) -> Scored:
    """For each limit the set of at most so many keys with the best score, inside the mask and beside what is covered.

    A key needs MIN_DOCUMENTS firing documents. Sets are prefixes in order of mass among the keys above a firing rate.
    """
    admitted = _told(family, inside)
    if not len(admitted):
        return {}
    places, fires, mass = _per_key(family, inside)
    base = fires.sum() / max(places.sum(), 1.0)
    admitted = admitted[np.argsort(-mass[admitted], kind="stable")]
    counts = np.stack([places[admitted], fires[admitted], mass[admitted]])
    rate = (counts[1] + _PRIOR * base) / (counts[0] + _PRIOR)
    most = min(max(limits), family.max_keys)
    above = rate >= RATES[rate.max() >= RATES][:, None]
    n_above = np.cumsum(above, axis=1)
    above &= n_above <= most
    tally.tried += int(above.sum())
    sums = np.cumsum(np.where(above, counts[:, None, :], 0.0), axis=2)
    scores = f1_of(sums[0] + beside.places, sums[1] + beside.fires, sums[2] + beside.mass)
    scores = np.where(above, scores - ITEM_PENALTY * family.item_cost * n_above, -np.inf)
    found: Scored = {}
    for limit in limits:
        level, at = _first_best(np.where(n_above <= limit, scores, -np.inf))
        keys = admitted[: at + 1][above[level, : at + 1]]
        found.setdefault(set_atom(family, keys), Counts(*sums[:, level, at].tolist()))
    return found


def _first_best(scores: Floats) -> tuple[int, int]:
    """Row and column of the best score; of rows that are as good within 1e-9 the first."""
    columns = scores.argmax(axis=1)
    best = 0
    values = scores[np.arange(len(scores)), columns].tolist()
    for row, value in enumerate(values):
        if value > values[best] + 1e-9:
            best = row
    return best, int(columns[best])


def right_keys(family: Family, inside: Inside, least: float) -> NDArray[np.intp]:
    """The keys that fire at `least` that share of their places inside a mask."""
    places, fires, _ = _per_key(family, inside)
    return np.flatnonzero(fires >= least * np.maximum(places, 1))


def best_exclusion(family: Family, inside: Inside, *, beside: Counts, tally: Tally, limit: int = 10) -> Scored:
    """The negated set of at most `limit` keys whose removal from the mask raises the score most; empty if none does."""
    places, fires, mass = _per_key(family, inside)
    whole = inside.whole.plus(beside)
    rate = fires / np.maximum(places, 1)
    silent = np.flatnonzero((places >= 3) & (rate < 0.5))
    silent = silent[np.argsort(-(places - fires)[silent], kind="stable")]
    best: tuple[float, NDArray[np.intp], Counts] | None = None
    for level in SILENT_RATES:
        chosen = silent[rate[silent] <= level][:limit]
        if not len(chosen):
            continue
        gone = [np.cumsum(counts[chosen]) for counts in (places, fires, mass)]
        left = [total - lost for total, lost in zip((whole.places, whole.fires, whole.mass), gone, strict=True)]
        scores = f1_of(left[0], left[1], left[2]) - ITEM_PENALTY * family.item_cost * np.arange(1, len(chosen) + 1)
        tally.tried += len(chosen)
        at = int(np.argmax(scores))
        if scores[at] > whole.f1 and (best is None or scores[at] > best[0]):
            own = inside.whole
            kept = Counts(own.places - gone[0][at], own.fires - gone[1][at], own.mass - gone[2][at])
            best = (float(scores[at]), chosen[: at + 1], kept)
    return {} if best is None else {set_atom(family, best[1], negated=True): best[2]}


def best_range(features: Features, inside: Inside, *, beside: Counts, tally: Tally) -> Scored:
    """The range of token positions with the best score inside the mask."""
    size = features.longest
    steps = np.arange(size + 1) if size <= _EDGES else np.unique(np.geomspace(1, size + 1, _EDGES).astype(int) - 1)
    of_all, of_firing = features.order[inside.places], features.order[inside.firing]
    running = [
        np.append(0.0, np.cumsum(np.bincount(order, weights, minlength=size)))
        for order, weights in ((of_all, None), (of_firing, None), (of_firing, inside.mass))
    ]

    def best(lows: NDArray[np.int64], pasts: NDArray[np.int64]) -> tuple[int, int]:
        """First position and the one past the last with the best score, of those given."""
        ranges = lows[:, None] < pasts[None, :]
        ranges &= ~((lows[:, None] == 0) & (pasts[None, :] >= size))
        sums = [np.where(ranges, total[pasts][None, :] - total[lows][:, None], 0.0) for total in running]
        scores = f1_of(sums[0] + beside.places, sums[1] + beside.fires, sums[2] + beside.mass)
        tally.tried += int(ranges.sum())
        at = np.unravel_index(int(np.argmax(np.where(ranges, scores, -1.0))), ranges.shape)
        return int(lows[at[0]]), int(pasts[at[1]])

    if size < 2:
        return {}
    low, high = best(steps[:-1], steps[1:])
    low, high = best(_around(low, steps), _around(high, steps))
    open_end = high >= size
    node = nodes.Position(first=low, last=nodes.MAX_POSITION if open_end else high - 1)
    counts = Counts(*(float(total[high] - total[low]) for total in running))
    return {Leaf(node, 3, lambda: (features.order >= low) & (features.order < high)): counts}


def _around(step: int, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """All positions from the step before to the one after."""
    at = int(np.searchsorted(steps, step))
    return np.arange(int(steps[max(0, at - 1)]), int(steps[min(len(steps) - 1, at + 1)]) + 1)

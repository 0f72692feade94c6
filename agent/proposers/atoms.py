"""Leaves with their best parameters: the token set or range that raises a score most, given what holds already."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.features import Family, Features
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import canonical_json

ITEM_PENALTY = 0.003  # F1 that an item must bring; 20 items cost 0.06
MIN_DOCUMENTS = 2  # documents in which a key must fire before it may enter a set
RATES = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
_PRIOR = 2.0  # places at the base rate that are added to each key's own, against luck in small counts
_EDGES = 48

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Target:
    """What a predicate should find: per place of the text a weight in each of the three counts.

    counted: 1 where the place belongs to the documents in use. fires: 1 where it also fires. mass: its share of all
    firing mass, activation above the median. All (n_places,).
    """

    counted: Floats
    fires: Floats
    mass: Floats
    documents: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        activations: NDArray[np.floating],
        documents: NDArray[np.int64],
        threshold: float,
        median: float,
        *,
        among: Mask | None = None,
    ) -> "Target":
        """The target of a unit with activations (n_places,); only the places `among` count."""
        counted = np.ones(len(activations)) if among is None else among.astype(np.float64)
        fires = (activations > threshold) * counted
        mass = fires * (activations - median)
        return cls(counted, fires, mass / max(float(mass.sum()), 1e-12), documents)

    def counts(self, mask: Mask) -> "Counts":
        """Places, firing places and firing mass inside a mask."""
        return Counts(float(self.counted[mask].sum()), float(self.fires[mask].sum()), float(self.mass[mask].sum()))

    def without(self, covered: Mask) -> "Target":
        """The same where the covered places no longer count."""
        left = ~covered
        return Target(self.counted * left, self.fires * left, self.mass * left, self.documents)

    def alone(self) -> "Target":
        """The same with the mass that is left counted as all there is."""
        return Target(self.counted, self.fires, self.mass / max(float(self.mass.sum()), 1e-12), self.documents)


@dataclass(frozen=True)
class Counts:
    """Places where a predicate holds, those among them that fire, and the share of firing mass there."""

    places: float = 0.0
    fires: float = 0.0
    mass: float = 0.0

    @property
    def precision(self) -> float:
        """Share of the places that fire, one silent place added."""
        return self.fires / (self.places + 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and coverage."""
        return 2 * self.precision * self.mass / max(self.precision + self.mass, 1e-12)

    def plus(self, other: "Counts") -> "Counts":
        """The counts of two masks that share no place."""
        return Counts(self.places + other.places, self.fires + other.fires, self.mass + other.mass)


def f1_of(places: Floats, fires: Floats, mass: Floats) -> Floats:
    """F1 of precision (one silent place added) and coverage."""
    precision = fires / (places + 1)
    return np.asarray(2 * precision * mass / np.maximum(precision + mass, 1e-12))


@dataclass(frozen=True)
class Atom:
    """A leaf with its parameters, its (n_places,) mask and its cost in items.

    family and keys: where it came from, for fitting again; family "" cannot be fitted again.
    """

    node: Predicate
    mask: Mask = field(repr=False, compare=False)
    cost: int
    family: str = ""
    keys: tuple[int, ...] = ()
    negated: bool = False

    @property
    def label(self) -> tuple[str, tuple[int, ...], bool, str]:
        """Equal for atoms that say the same."""
        return (self.family, self.keys, self.negated, "" if self.family else canonical_json(self.node))


@dataclass
class Tally:
    """How many predicates have been scored."""

    tried: int = 0


def set_atom(family: Family, keys: NDArray[np.integer], *, negated: bool = False) -> Atom:
    """The atom that holds where the family's key is one of `keys` (not, if negated)."""
    chosen = np.sort(keys)
    table = np.zeros(len(family.names) + 1, dtype=bool)
    table[chosen] = True
    mask = table[family.keys]
    node = family.node(tuple(family.names[key] for key in chosen.tolist()))
    cost = family.own_cost + family.item_cost * len(chosen) + negated
    return Atom(
        nodes.Not(inner=node) if negated else node,
        ~mask if negated else mask,
        cost,
        family.name,
        tuple(chosen.tolist()),
        negated,
    )


def _per_key(family: Family, inside: NDArray[np.intp], target: Target) -> tuple[Floats, Floats, Floats, Floats]:
    """(n_keys,) places, firing places, firing mass, and documents with a firing place, of each key inside a mask."""
    keys, size = family.keys[inside] + 1, len(family.names) + 1
    places, fires, mass = (
        np.bincount(keys, weights=weights[inside], minlength=size)[1:].astype(np.float64)
        for weights in (target.counted, target.fires, target.mass)
    )
    firing = inside[target.fires[inside] > 0]
    n_documents = int(target.documents.max(initial=0)) + 1
    seen = np.unique((family.keys[firing].astype(np.int64) + 1) * n_documents + target.documents[firing])
    documents = np.bincount(seen // n_documents, minlength=size)[1:].astype(np.float64)
    return places, fires, mass, documents


def best_sets(
    family: Family, inside: NDArray[np.intp], target: Target, limits: tuple[int, ...], *, beside: Counts, tally: Tally
) -> list[Atom]:
    """For each limit the set of at most so many keys with the best score, inside the mask and beside what is covered.

    A key needs MIN_DOCUMENTS firing documents. Sets are prefixes in order of mass among the keys above a firing rate.
    """
    places, fires, mass, documents = _per_key(family, inside, target)
    base = fires.sum() / max(places.sum(), 1.0)
    admitted = np.flatnonzero(documents >= MIN_DOCUMENTS)
    admitted = admitted[np.argsort(-mass[admitted], kind="stable")]
    if not len(admitted):
        return []
    rate = (fires[admitted] + _PRIOR * base) / (places[admitted] + _PRIOR)
    best: dict[int, tuple[float, NDArray[np.intp]]] = {}
    for level in RATES[rate.max() >= RATES]:
        chosen = admitted[rate >= level][: min(max(limits), family.max_keys)]
        sums = [np.cumsum(counts[chosen]) for counts in (places, fires, mass)]
        scores = f1_of(sums[0] + beside.places, sums[1] + beside.fires, sums[2] + beside.mass)
        scores = scores - ITEM_PENALTY * family.item_cost * np.arange(1, len(chosen) + 1)
        tally.tried += len(chosen)
        for limit in limits:
            at = int(np.argmax(scores[:limit]))
            if limit not in best or scores[at] > best[limit][0] + 1e-9:
                best[limit] = (float(scores[at]), chosen[: at + 1])
    atoms = [set_atom(family, keys) for _, keys in best.values()]
    return list({atom.label: atom for atom in atoms}.values())


def right_keys(family: Family, inside: NDArray[np.intp], target: Target, least: float) -> NDArray[np.intp]:
    """The keys that fire at `least` that share of their places inside a mask."""
    places, fires, _, _ = _per_key(family, inside, target)
    return np.flatnonzero(fires >= least * np.maximum(places, 1))


def best_exclusion(
    family: Family, inside: NDArray[np.intp], target: Target, *, beside: Counts, tally: Tally, limit: int = 10
) -> list[Atom]:
    """The negated set of at most `limit` keys whose removal from the mask raises the score most; empty if none does."""
    places, fires, mass, _ = _per_key(family, inside, target)
    whole = Counts(*(float(weights[inside].sum()) for weights in (target.counted, target.fires, target.mass))).plus(
        beside
    )
    rate = fires / np.maximum(places, 1)
    silent = np.flatnonzero((places >= 3) & (rate < 0.5))
    silent = silent[np.argsort(-(places - fires)[silent], kind="stable")]
    best: tuple[float, NDArray[np.intp]] | None = None
    for level in (0.02, 0.1, 0.3):
        chosen = silent[rate[silent] <= level][:limit]
        if not len(chosen):
            continue
        left = [
            total - np.cumsum(counts[chosen])
            for total, counts in ((whole.places, places), (whole.fires, fires), (whole.mass, mass))
        ]
        scores = f1_of(left[0], left[1], left[2]) - ITEM_PENALTY * family.item_cost * np.arange(1, len(chosen) + 1)
        tally.tried += len(chosen)
        at = int(np.argmax(scores))
        if scores[at] > whole.f1 and (best is None or scores[at] > best[0]):
            best = (float(scores[at]), chosen[: at + 1])
    return [] if best is None else [set_atom(family, best[1], negated=True)]


def best_range(
    features: Features, inside: NDArray[np.intp], target: Target, *, beside: Counts, tally: Tally
) -> list[Atom]:
    """The range of token positions with the best score inside the mask."""
    order = features.order[inside]
    size = int(features.order.max(initial=0)) + 1
    steps = np.arange(size + 1) if size <= _EDGES else np.unique(np.geomspace(1, size + 1, _EDGES).astype(int) - 1)
    running = [
        np.concatenate([[0.0], np.cumsum(np.bincount(order, weights=weights[inside], minlength=size))])
        for weights in (target.counted, target.fires, target.mass)
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
        return []
    low, high = best(steps[:-1], steps[1:])
    low, high = best(_around(low, steps), _around(high, steps))
    open_end = high >= size
    node = nodes.Position(first=low, last=nodes.MAX_POSITION if open_end else high - 1)
    return [Atom(node, (features.order >= low) & (features.order < high), 3)]


def _around(step: int, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """All positions from the step before to the one after."""
    at = int(np.searchsorted(steps, step))
    return np.arange(int(steps[max(0, at - 1)]), int(steps[min(len(steps) - 1, at + 1)]) + 1)

"""What a predicate should find, and what it finds: places, firing places and firing mass inside masks."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Mask = NDArray[np.bool_]
Words = NDArray[np.uint64]

_WORD = 64  # places of a packed word


@dataclass(frozen=True)
class Target:
    """What a predicate should find: per place of the text a weight in each of the three counts.

    counted: 1 where the place belongs to the documents in use, else 0. fires: 1 where it also fires. mass: its share of all
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

    @cached_property
    def among(self) -> Mask:
        """(n_places,) the places that count."""
        return np.asarray(self.counted > 0)

    @cached_property
    def firing(self) -> Ints:
        """The places that fire."""
        return np.flatnonzero(self.fires)

    @cached_property
    def mass_firing(self) -> Floats:
        """The mass of each of them."""
        return np.asarray(self.mass[self.firing])

    def counts(self, mask: Mask) -> "Counts":
        """Places, firing places and firing mass inside a mask."""
        held = mask[self.firing]
        places = float(np.count_nonzero(mask & self.among))
        return Counts(places, float(np.count_nonzero(held)), float(self.mass_firing[held].sum()))

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


@dataclass
class Tally:
    """How many predicates have been scored."""

    tried: int = 0


@dataclass(frozen=True)
class Inside:
    """The places inside a mask that count.

    places: (n,) their numbers. firing: (n_firing,) the numbers of those that fire; mass: (n_firing,) of each of them;
    documents: (n_firing,) of each of them. whole: their counts together.
    """

    places: Ints
    firing: Ints
    mass: Floats
    documents: NDArray[np.int64]

    @classmethod
    def of(cls, mask: Mask, target: Target) -> "Inside":
        """What counts of a mask (n_places,)."""
        held = mask[target.firing]
        firing = target.firing[held]
        return cls(np.flatnonzero(mask & target.among), firing, target.mass_firing[held], target.documents[firing])

    @cached_property
    def whole(self) -> Counts:
        """The counts of all of it."""
        return Counts(float(len(self.places)), float(len(self.firing)), float(self.mass.sum()))

    @cached_property
    def n_documents(self) -> int:
        """One more than the largest number of a document that fires here."""
        return int(self.documents.max(initial=0)) + 1


def packed(masks: Mask) -> Words:
    """(…, n_words) the masks (…, n), 64 places a word, filled up with False."""
    bits = np.packbits(masks, axis=-1)
    short = -bits.shape[-1] % (_WORD // 8)
    return np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, short)]).view(np.uint64)


def sizes(words: Words) -> NDArray[np.int64]:
    """(…,) places of packed masks (…, n_words)."""
    return np.bitwise_count(words).sum(axis=-1, dtype=np.int64)

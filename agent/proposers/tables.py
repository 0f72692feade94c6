"""Lists of keys that tell when a unit fires: within so many items, those that hold up on documents they were not chosen on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
NEEDED_PRECISION, NEEDED_COVERAGE = 0.6, 0.5  # what a SUPPORTED claim needs
PRICES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 5.0)  # mass that a silent place held costs, in firing places
LEAST = (1, 2, 3, 5)  # firing places of an entry

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def margin(precision: Floats, coverage: Floats) -> Floats:
    """The smaller of the two, each in parts of what a SUPPORTED claim needs."""
    return np.minimum(precision / NEEDED_PRECISION, coverage / NEEDED_COVERAGE)


@dataclass(frozen=True)
class Counted:
    """Per candidate and fold, (n_candidates, FOLDS): places, firing places, firing mass; and (FOLDS,) of the whole text.

    keys: (n_candidates,) the key of each.
    """

    keys: NDArray[np.intp]
    places: Floats
    fires: Floats
    mass: Floats
    all_fires: Floats
    all_mass: Floats

    @classmethod
    def of(cls, keys: NDArray[np.integer], places: Floats, at: NDArray[np.intp], fold: Ints, mass: Floats) -> "Counted":
        """The keys at which a unit fires, and their counts.

        keys: (n_places,). places: (n_keys, FOLDS) places of each key. at: the firing places; fold, mass: of each of them.
        """
        found = np.unique(keys[at])
        found = found[found >= 0]
        known = keys[at] >= 0
        cell = np.searchsorted(found, keys[at][known]) * FOLDS + fold[known]
        shape = (len(found), FOLDS)
        return cls(
            found.astype(np.intp),
            places[found],
            np.bincount(cell, minlength=shape[0] * FOLDS).reshape(shape).astype(np.float64),
            np.bincount(cell, weights=mass[known], minlength=shape[0] * FOLDS).reshape(shape).astype(np.float64),
            np.bincount(fold, minlength=FOLDS).astype(np.float64),
            np.bincount(fold, weights=mass, minlength=FOLDS).astype(np.float64),
        )

    def without(self, fold: int | None) -> tuple[Floats, Floats, Floats]:
        """Per candidate outside a fold: silent places in parts of all firing ones, firing places, share of the mass."""
        kept = [f for f in range(FOLDS) if f != fold]
        fires, mass = max(float(self.all_fires[kept].sum()), 1.0), max(float(self.all_mass[kept].sum()), 1e-12)
        n, b, m = (part[:, kept].sum(axis=1) for part in (self.places, self.fires, self.mass))
        return (n - b) / fires, b, m / mass


@dataclass(frozen=True)
class Table:
    """The keys of a table, best first; precision and coverage on documents that its entries were not chosen on."""

    keys: NDArray[np.intp]
    precision: float = 0.0
    coverage: float = 0.0

    @property
    def margin(self) -> float:
        """As `margin`: at least 1 where it would be enough."""
        return min(self.precision / NEEDED_PRECISION, self.coverage / NEEDED_COVERAGE)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and coverage."""
        return 2 * self.precision * self.coverage / max(self.precision + self.coverage, 1e-12)


def best_tables(counted: Counted, entries: Sequence[int]) -> list[Table]:
    """For each number of entries the best table of at most so many; empty where no key fits or nothing fires.

    A table takes the entries of largest gain: mass less a price for each silent place held. The price, the firing places
    that an entry needs, and the number of entries are those of the best margin when the entries are chosen on four fifths
    of the documents and scored on the fifth, over five folds.
    """
    none, most = Table(np.zeros(0, dtype=np.intp)), max(entries, default=0)
    if not most or not len(counted.keys):
        return [none] * len(entries)
    settings = [(price, least) for price in PRICES for least in LEAST]
    precision, coverage = np.stack([_validated(counted, price, least, most) for price, least in settings], axis=1)
    curves = margin(precision, coverage)
    tables = []
    for size in entries:
        if not size:
            tables.append(none)
            continue
        which, last = np.unravel_index(int(np.argmax(curves[:, :size])), (len(settings), size))
        order = _order(counted, *settings[int(which)], None, most)
        chosen = counted.keys[order[: int(last) + 1]]
        tables.append(Table(chosen, float(precision[which, last]), float(coverage[which, last])))
    return tables


def _order(counted: Counted, price: float, least: int, fold: int | None, most: int) -> NDArray[np.intp]:
    """At most `most` candidates that gain outside a fold, the largest gain first."""
    silent, fires, mass = counted.without(fold)
    gain = np.where(fires >= least, mass - price * silent, 0.0)
    order = np.argsort(-gain, kind="stable")[:most]
    return order[gain[order] > 0]


def _validated(counted: Counted, price: float, least: int, most: int) -> Floats:
    """(2, most) precision and coverage of the tables of 1, 2, … entries on the folds that they were not chosen on, taken
    together."""
    sums = np.zeros((3, most))
    for fold in range(FOLDS):
        order = _order(counted, price, least, fold, most)
        for row, part in enumerate((counted.places, counted.fires, counted.mass)):
            sums[row] += _extended(np.cumsum(part[order, fold]), most)
    precision = np.divide(sums[1], sums[0], out=np.zeros(most), where=sums[0] > 0)
    return np.stack([precision, sums[2] / max(float(counted.all_mass.sum()), 1e-12)])


def _extended(running: Floats, size: int) -> Floats:
    """The running sums with the last one repeated up to `size`; zeros for none."""
    last = running[-1] if len(running) else 0.0
    return np.concatenate([running, np.full(size - len(running), last)])

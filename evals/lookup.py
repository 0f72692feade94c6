"""Lookup tables as baselines: which tokens, or short token sequences, tell a unit's firing best within so many items."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuronaut.evals.heldout import COVERAGE, PRECISION, Bools, Firing, Floats, Ints, Places

WIDTHS = {"token": 1, "token and previous": 2, "token and two previous": 3}  # items an entry
FOLDS = 5
PRICES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 5.0)  # mass that a silent place held costs, in firing places
LEAST = (1, 2, 3, 5)  # firing places of an entry


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


def margin(places: Floats, fires: Floats, mass: Floats) -> Floats:
    """The smaller of precision and coverage, each in parts of what a SUPPORTED claim needs. mass: share of all."""
    precision = np.divide(fires, places, out=np.zeros_like(places), where=places > 0)
    return np.minimum(precision / PRECISION, mass / COVERAGE)


def f1(places: Floats, fires: Floats, mass: Floats) -> Floats:
    """Harmonic mean of precision and coverage. mass: share of all."""
    precision = np.divide(fires, places, out=np.zeros_like(places), where=places > 0)
    total = precision + mass
    return np.divide(2 * precision * mass, total, out=np.zeros_like(places), where=total > 0)


@dataclass(frozen=True)
class _Counted:
    """Per candidate and fold, (n_candidates, FOLDS): places, firing places, firing mass; and (FOLDS,) of the whole text."""

    places: Floats
    fires: Floats
    mass: Floats
    all_fires: Floats
    all_mass: Floats

    def without(self, fold: int | None) -> tuple[Floats, Floats, Floats]:
        """Per candidate outside a fold: places, firing places, share of the mass; firing places in parts of all."""
        kept = [f for f in range(FOLDS) if f != fold]
        fires, mass = max(float(self.all_fires[kept].sum()), 1.0), max(float(self.all_mass[kept].sum()), 1e-12)
        n, b, m = (part[:, kept].sum(axis=1) for part in (self.places, self.fires, self.mass))
        return (n - b) / fires, b, m / mass


def fit_tables(keys: Keys, firing: Firing, fit: Places, budgets: Sequence[int]) -> list[NDArray[np.intp]]:
    """For each budget of items the keys of the best table; empty where no entry fits or nothing fires.

    A table takes the entries of largest gain: mass less a price for each silent place held. The price, the firing places
    that an entry needs, and the number of entries are those of the best margin when the entries are chosen on four fifths
    of the documents and scored on the fifth, over five folds.
    """
    most = max(budgets) // keys.width
    found, counted = _counted(keys, firing, fit)
    if not most or not len(found):
        return [np.zeros(0, dtype=np.intp)] * len(budgets)
    settings = [(price, least) for price in PRICES for least in LEAST]
    curves = np.stack([_validated(counted, price, least, most) for price, least in settings])
    tables = []
    for budget in budgets:
        entries = budget // keys.width
        if not entries:
            tables.append(np.zeros(0, dtype=np.intp))
            continue
        which, last = np.unravel_index(int(np.argmax(curves[:, :entries])), (len(settings), entries))
        order = _order(counted, *settings[int(which)], None, most)
        tables.append(found[order[: int(last) + 1]])
    return tables


def _counted(keys: Keys, firing: Firing, fit: Places) -> tuple[NDArray[np.intp], _Counted]:
    """The keys at which the unit fires, and their counts."""
    at = np.flatnonzero(firing.fires)
    fold, found = folds(fit)[at], np.unique(keys.fit[at])
    cell = np.searchsorted(found, keys.fit[at]) * FOLDS + fold
    shape, mass = (len(found), FOLDS), firing.mass[at]
    return found.astype(np.intp), _Counted(
        keys.places[found],
        np.bincount(cell, minlength=shape[0] * FOLDS).reshape(shape).astype(np.float64),
        np.bincount(cell, weights=mass, minlength=shape[0] * FOLDS).reshape(shape).astype(np.float64),
        np.bincount(fold, minlength=FOLDS).astype(np.float64),
        np.bincount(fold, weights=mass, minlength=FOLDS).astype(np.float64),
    )


def _order(counted: _Counted, price: float, least: int, fold: int | None, most: int) -> NDArray[np.intp]:
    """At most `most` candidates that gain outside a fold, the largest gain first."""
    silent, fires, mass = counted.without(fold)
    gain = np.where(fires >= least, mass - price * silent, 0.0)
    order = np.argsort(-gain, kind="stable")[:most]
    return order[gain[order] > 0]


def _validated(counted: _Counted, price: float, least: int, most: int) -> Floats:
    """(most,) margin of the tables of 1, 2, … entries on the folds that they were not chosen on, taken together."""
    sums = np.zeros((3, most))
    for fold in range(FOLDS):
        order = _order(counted, price, least, fold, most)
        for row, part in enumerate((counted.places, counted.fires, counted.mass)):
            running = np.cumsum(part[order, fold])
            sums[row] += _extended(running, most)
    return margin(sums[0], sums[1], sums[2] / max(float(counted.all_mass.sum()), 1e-12))


def _extended(running: Floats, size: int) -> Floats:
    """The running sums with the last one repeated up to `size`; zeros for none."""
    last = running[-1] if len(running) else 0.0
    return np.concatenate([running, np.full(size - len(running), last)])


def entries(keys: Keys, chosen: NDArray[np.intp]) -> Iterator[tuple[int, ...]]:
    """The token ids of each entry, the current token last."""
    for row in keys.names[chosen].tolist():
        yield tuple(row)

"""Leaves about what came some tokens earlier: within a window, or since another token."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.atoms import Leaf, Scored
from neuronaut.agent.proposers.counts import Counts, Floats, Inside, Mask, Tally, Words, f1_of, packed, sizes
from neuronaut.agent.proposers.features import Features
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.tree import canonical_json

WINDOWS = (4, 8, 16, 32)
CANDIDATES = 10  # tokens, of those most frequent before firing places, whose exact masks are tried
_SET = 5
_LEAST_GAIN = 0.005  # F1 that a token must bring


def _candidates(features: Features, inside: Inside) -> dict[int, list[int]]:
    """For each window the token keys whose presence before a place tells most of the unit's firing."""
    size = len(features.pieces[1]) + 1
    places, fires, mass = np.zeros(size), np.zeros(size), np.zeros(size)
    base = 1.3 * len(inside.firing) / max(float(len(inside.places)), 1.0)
    whole = max(inside.whole.mass, 1e-12)
    found: dict[int, list[int]] = {}
    for offset in range(1, min(max(WINDOWS), features.piece_grid.shape[1] - 1) + 1):
        places += np.bincount(features.piece_before(inside.places, offset) + 1, minlength=size)
        earlier = features.piece_before(inside.firing, offset) + 1
        fires += np.bincount(earlier, minlength=size)
        mass += np.bincount(earlier, weights=inside.mass, minlength=size)
        if offset in WINDOWS:
            precision = fires / np.maximum(places, 1)
            share = np.minimum(mass / whole, 1.0)
            lift = (precision > base) & (fires >= 3)
            score = np.where(lift, 2 * precision * share / np.maximum(precision + share, 1e-12), 0.0)
            score[0] = 0.0
            order = np.argsort(-score, kind="stable")[:CANDIDATES]
            found[offset] = [int(key) - 1 for key in order if score[key] > 0]
    return found


@dataclass(frozen=True)
class _Masks:
    """Masks of the same places. all: (n, n_words) packed; firing: (n, n_firing) at the firing places."""

    all: Words
    firing: Mask

    def beside(self, number: int) -> "_Masks":
        """Each together with the mask of that number."""
        return _Masks(self.all | self.all[number], self.firing | self.firing[number])


@dataclass(frozen=True)
class _Ago:
    """Tokens since each of some keys last stood before a place, (n_keys, n) of all places inside and of the firing ones."""

    all: NDArray[np.int32]
    firing: NDArray[np.int32]

    @classmethod
    def of(cls, features: Features, keys: list[int], inside: Inside) -> "_Ago":
        since = [features.since(key) for key in keys]
        return cls(np.stack([one[inside.places] for one in since]), np.stack([one[inside.firing] for one in since]))

    def below(self, window: int) -> _Masks:
        """Where they are at most `window`."""
        return _Masks(packed(self.all <= window), self.firing <= window)

    def later_than(self, last: int, of: list[int]) -> _Masks:
        """Where they are fewer than those of key number `last`, for the keys of some numbers."""
        return _Masks(packed(self.all[of] < self.all[last]), self.firing[of] < self.firing[last])


@dataclass(frozen=True)
class _Grower:
    """Grows unions of masks inside a mask. beside: what is covered already."""

    inside: Inside
    beside: Counts
    tally: Tally

    def counts(self, masks: _Masks) -> tuple[Floats, Floats, Floats]:
        """(n,) each: places, firing places and firing mass."""
        return (
            sizes(masks.all).astype(np.float64),
            masks.firing.sum(axis=1, dtype=np.float64),
            masks.firing @ self.inside.mass,
        )

    def grown(self, masks: _Masks) -> tuple[list[int], float, Counts]:
        """The masks chosen greedily by the F1 of their union beside what is covered, that F1, and the counts of the union."""
        best, chosen, found = self.beside.f1, list[int](), Counts()
        union = masks
        while len(chosen) < min(_SET, len(masks.all)):
            places, fires, mass = self.counts(union)
            self.tally.tried += len(places)
            scores = f1_of(places + self.beside.places, fires + self.beside.fires, mass + self.beside.mass)
            scores[chosen] = -1.0
            at = int(np.argmax(scores))
            if scores[at] < best + _LEAST_GAIN:
                break
            best, found = float(scores[at]), Counts(float(places[at]), float(fires[at]), float(mass[at]))
            union = union.beside(at)
            chosen.append(at)
        return chosen, best, found


def context_atoms(features: Features, inside: Inside, *, beside: Counts, tally: Tally) -> Scored:
    """The best leaves of both kinds."""
    candidates = _candidates(features, inside)
    grower = _Grower(inside, beside, tally)
    return _within(features, grower, candidates) | _since(features, grower, candidates)


def within_atoms(features: Features, inside: Inside, *, beside: Counts, tally: Tally) -> Scored:
    """The best leaves about a window before the place."""
    return _within(features, _Grower(inside, beside, tally), _candidates(features, inside))


def _within(features: Features, grower: _Grower, candidates_of: dict[int, list[int]]) -> Scored:
    """For each window the token set, grown greedily, whose presence in it scores best inside the mask."""
    atoms: Scored = {}
    for window, candidates in candidates_of.items():
        if not candidates:
            continue
        chosen, _, counts = grower.grown(_Ago.of(features, candidates, grower.inside).below(window))
        if chosen:
            keys = sorted(candidates[at] for at in chosen)
            inner = nodes.Token(any_of=tuple(features.pieces[1][key] for key in keys))
            held = partial(_came, features, tuple(keys), window)
            atoms[Leaf(nodes.Within(window=window, inner=inner), 2 + len(keys), held)] = counts
    return atoms


def _since(features: Features, grower: _Grower, candidates_of: dict[int, list[int]]) -> Scored:
    """The best three of: one of a token set came since the last end of a line, clause or sentence, or since another token;
    the sets are grown greedily."""
    widest = list(candidates_of.values())[-1:]
    starts = widest[0] if widest else []
    keys = sorted({*starts, *features.ends})
    if not starts or not keys:
        return {}
    names, ago = features.pieces[1], _Ago.of(features, keys, grower.inside)
    found = list[tuple[float, Leaf, Counts]]()
    for last, end in enumerate(keys):
        left = [keys.index(start) for start in starts if start != end]
        if not left:
            continue
        chosen, score, counts = grower.grown(ago.later_than(last, left))
        if chosen:
            set_ = sorted(keys[left[at]] for at in chosen)
            inner = nodes.Token(any_of=tuple(names[key] for key in set_))
            node = nodes.Since(inner=inner, last=nodes.Token(any_of=(names[end],)))
            found.append((score, Leaf(node, 3 + len(set_), partial(_came_after, features, tuple(set_), end)), counts))
    found.sort(key=lambda one: (-one[0], canonical_json(one[1].node)))
    return {atom: counts for _, atom, counts in found[:3]}


def _came(features: Features, keys: tuple[int, ...], window: int) -> Mask:
    return np.asarray(_nearest(features, keys) <= window)


def _came_after(features: Features, keys: tuple[int, ...], end: int) -> Mask:
    return np.asarray(_nearest(features, keys) < features.since(end))


def _nearest(features: Features, keys: tuple[int, ...]) -> NDArray[np.int32]:
    """(n_places,) tokens since the last of some tokens."""
    return np.asarray(np.minimum.reduce([features.since(key) for key in keys]))

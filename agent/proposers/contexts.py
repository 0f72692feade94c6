"""Leaves about what came some tokens earlier: within a window, or since another token."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.atoms import Atom, Counts, Floats, Mask, Tally, Target, f1_of
from neuronaut.agent.proposers.features import Features
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.tree import canonical_json

WINDOWS = (4, 8, 16, 32)
CANDIDATES = 10  # tokens, of those most frequent before firing places, whose exact masks are tried
_ENDS = frozenset("\n.,;!?")
_N_ENDS = 4
_SET = 5
_LEAST_GAIN = 0.005  # F1 that a token must bring


def _candidates(features: Features, inside: NDArray[np.intp], target: Target) -> dict[int, list[int]]:
    """For each window the token keys whose presence before a place tells most of the unit's firing."""
    grid, size = features.piece_grid, len(features.pieces[1]) + 1
    rows, cols = features.rows[inside], features.cols[inside]
    weights_of = [weights[inside] for weights in (target.counted, target.fires, target.mass)]
    places, fires, mass = np.zeros(size), np.zeros(size), np.zeros(size)
    found: dict[int, list[int]] = {}
    for offset in range(1, max(WINDOWS) + 1):
        if offset >= grid.shape[1]:
            break
        earlier = np.where(cols >= offset, grid[rows, np.maximum(cols - offset, 0)], -1) + 1
        for counts, weights in zip((places, fires, mass), weights_of, strict=True):
            counts += np.bincount(earlier, weights=weights, minlength=size)
        if offset in WINDOWS:
            precision = fires / np.maximum(places, 1)
            share = np.minimum(mass / max(float(target.mass[inside].sum()), 1e-12), 1.0)
            lift = precision > 1.3 * target.fires[inside].sum() / max(float(target.counted[inside].sum()), 1.0)
            score = np.where(lift & (fires >= 3), 2 * precision * share / np.maximum(precision + share, 1e-12), 0.0)
            score[0] = 0.0
            order = np.argsort(-score, kind="stable")[:CANDIDATES]
            found[offset] = [int(key) - 1 for key in order if score[key] > 0]
    return found


@dataclass(frozen=True)
class _Inside:
    """The places inside a mask. weights: (n_inside, 3) what they add to each count."""

    places: NDArray[np.intp]
    weights: NDArray[np.float32]
    beside: Counts
    tally: Tally

    @classmethod
    def of(cls, inside: NDArray[np.intp], target: Target, beside: Counts, tally: Tally) -> "_Inside":
        weights = np.stack([target.counted[inside], target.fires[inside], target.mass[inside]], axis=1)
        return cls(inside, weights.astype(np.float32), beside, tally)

    def scores(self, masks: Mask) -> Floats:
        """(n,) F1 of masks (n, n_inside) beside what is covered."""
        self.tally.tried += len(masks)
        sums = (masks.astype(np.float32) @ self.weights).astype(np.float64)
        return f1_of(sums[:, 0] + self.beside.places, sums[:, 1] + self.beside.fires, sums[:, 2] + self.beside.mass)

    def grown(self, ago: NDArray[np.int32], limit: NDArray[np.int32] | int) -> tuple[list[int], float]:
        """The rows of `ago` (n, n_inside) chosen greedily, by the F1 of the places where one of them is below the limit."""
        masks = ago < limit
        held, best, chosen = np.zeros(len(self.places), dtype=bool), self.beside.f1, list[int]()
        while len(chosen) < min(_SET, len(masks)):
            scores = self.scores(masks | held)
            scores[chosen] = -1.0
            at = int(np.argmax(scores))
            if scores[at] < best + _LEAST_GAIN:
                break
            best, held = float(scores[at]), held | masks[at]
            chosen.append(at)
        return chosen, best


def context_atoms(
    features: Features, inside: NDArray[np.intp], target: Target, *, beside: Counts, tally: Tally
) -> list[Atom]:
    """The best leaves of both kinds."""
    candidates = _candidates(features, inside, target)
    here = _Inside.of(inside, target, beside, tally)
    return _within(features, here, candidates) + _since(features, here, candidates)


def within_atoms(
    features: Features, inside: NDArray[np.intp], target: Target, *, beside: Counts, tally: Tally
) -> list[Atom]:
    """The best leaves about a window before the place."""
    return _within(features, _Inside.of(inside, target, beside, tally), _candidates(features, inside, target))


def _within(features: Features, here: _Inside, candidates_of: dict[int, list[int]]) -> list[Atom]:
    """For each window the token set, grown greedily, whose presence in it scores best inside the mask."""
    atoms = []
    for window, candidates in candidates_of.items():
        if not candidates:
            continue
        chosen, _ = here.grown(np.stack([features.since(key)[here.places] for key in candidates]), window + 1)
        if chosen:
            keys = sorted(candidates[at] for at in chosen)
            inner = nodes.Token(any_of=tuple(features.pieces[1][key] for key in keys))
            mask = _nearest(features, keys) <= window
            atoms.append(Atom(nodes.Within(window=window, inner=inner), mask, 2 + len(keys)))
    return atoms


def _since(features: Features, here: _Inside, candidates_of: dict[int, list[int]]) -> list[Atom]:
    """The best three of: one of a token set came since the last end of a line, clause or sentence, or since another token;
    the sets are grown greedily."""
    keys, names = features.pieces
    widest = list(candidates_of.values())[-1:]
    starts = widest[0] if widest else []
    frequent = np.argsort(-np.bincount(keys, minlength=len(names)), kind="stable")
    ends = [int(key) for key in frequent if names[key].strip(" ") in _ENDS][:_N_ENDS]
    found = list[tuple[float, Atom]]()
    for end in sorted({*starts, *ends}):
        left = [start for start in starts if start != end]
        if not left:
            continue
        last = features.since(end)
        chosen, score = here.grown(np.stack([features.since(key)[here.places] for key in left]), last[here.places])
        if chosen:
            set_ = sorted(left[at] for at in chosen)
            inner = nodes.Token(any_of=tuple(names[key] for key in set_))
            node = nodes.Since(inner=inner, last=nodes.Token(any_of=(names[end],)))
            found.append((score, Atom(node, _nearest(features, set_) < last, 3 + len(set_))))
    found.sort(key=lambda pair: (-pair[0], canonical_json(pair[1].node)))
    return [atom for _, atom in found[:3]]


def _nearest(features: Features, keys: list[int]) -> NDArray[np.int32]:
    """(n_places,) tokens since the last of some tokens."""
    return np.asarray(np.minimum.reduce([features.since(key) for key in keys]))

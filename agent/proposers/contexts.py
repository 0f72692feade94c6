"""Leaves about what came some tokens earlier: within a window, or since another token."""

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.atoms import Atom, Counts, Mask, Tally, Target
from neuronaut.agent.proposers.features import Features
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.nodes import canonical_json

WINDOWS = (4, 8, 16, 32)
CANDIDATES = 10  # tokens, of those most frequent before firing places, whose exact masks are tried
_ENDS = frozenset("\n.,;!?")
_N_ENDS = 4
_SET = 5
_FAR = 10**6


def _since_last(grid: Mask) -> NDArray[np.int64]:
    """(n_windows, n_pos) tokens since `grid` was true, the current one left out; more than _FAR if it never was."""
    columns = np.arange(grid.shape[1])
    last = np.full(grid.shape, -2 * _FAR)
    last[:, 1:] = np.maximum.accumulate(np.where(grid, columns, -2 * _FAR), axis=1)[:, :-1]
    return np.asarray(columns - last)


def _candidates(features: Features, inside: NDArray[np.intp], target: Target) -> dict[int, list[int]]:
    """For each window the token keys whose presence before a place tells most of the unit's firing."""
    keys, names = features.pieces
    grid, size = features.grid(keys), len(names) + 1
    places, fires, mass = np.zeros(size), np.zeros(size), np.zeros(size)
    found: dict[int, list[int]] = {}
    for offset in range(1, max(WINDOWS) + 1):
        if offset >= grid.shape[1]:
            break
        earlier = np.asarray(features.shifted(grid, offset, -1))[inside] + 1
        for counts, weights in ((places, target.counted), (fires, target.fires), (mass, target.mass)):
            counts += np.bincount(earlier, weights=weights[inside], minlength=size)
        if offset in WINDOWS:
            precision = fires / np.maximum(places, 1)
            share = np.minimum(mass / max(float(target.mass[inside].sum()), 1e-12), 1.0)
            lift = precision > 1.3 * target.fires[inside].sum() / max(float(target.counted[inside].sum()), 1.0)
            score = np.where(lift & (fires >= 3), 2 * precision * share / np.maximum(precision + share, 1e-12), 0.0)
            score[0] = 0.0
            order = np.argsort(-score, kind="stable")[:CANDIDATES]
            found[offset] = [int(key) - 1 for key in order if score[key] > 0]
    return found


def within_atoms(
    features: Features, inside: NDArray[np.intp], target: Target, *, beside: Counts, tally: Tally
) -> list[Atom]:
    """For each window the token set, grown greedily, whose presence in it scores best inside the mask."""
    keys, names = features.pieces
    grid, atoms = features.grid(keys), []
    here = np.zeros(len(features), dtype=bool)
    here[inside] = True
    for window, candidates in _candidates(features, inside, target).items():
        chosen: list[int] = []
        mask, best = np.zeros(len(features), dtype=bool), beside.f1
        masks = {
            key: np.asarray(features.at_places(_since_last(grid == key) <= window), dtype=bool) for key in candidates
        }
        while len(chosen) < _SET and len(chosen) < len(masks):
            left = [key for key in candidates if key not in chosen]
            scores = [target.counts((mask | masks[key]) & here).plus(beside).f1 for key in left]
            tally.tried += len(left)
            at = int(np.argmax(scores))
            if scores[at] < best + 0.005:
                break
            best, mask = scores[at], mask | masks[left[at]]
            chosen.append(left[at])
        if chosen:
            inner = nodes.Token(any_of=tuple(names[key] for key in sorted(chosen)))
            atoms.append(Atom(nodes.Within(window=window, inner=inner), mask, 2 + len(chosen)))
    return atoms


def since_atoms(
    features: Features, inside: NDArray[np.intp], target: Target, *, beside: Counts, tally: Tally
) -> list[Atom]:
    """The best three of: one of a token set came since the last end of a line, clause or sentence, or since another token;
    the sets are grown greedily."""
    keys, names = features.pieces
    grid = features.grid(keys)
    widest = list(_candidates(features, inside, target).values())[-1:]
    starts = widest[0] if widest else []
    frequent = np.argsort(-np.bincount(keys, minlength=len(names)), kind="stable")
    ends = [int(key) for key in frequent if names[key].strip(" ") in _ENDS][:_N_ENDS]
    ago = {key: _since_last(grid == key) for key in {*starts, *ends}}
    here = np.zeros(len(features), dtype=bool)
    here[inside] = True
    found: list[tuple[float, Atom]] = []

    def since(chosen: tuple[int, ...], end: int) -> tuple[float, Mask]:
        recent = np.minimum.reduce([ago[start] for start in chosen])
        mask = np.asarray(features.at_places((recent < ago[end]) & (recent < _FAR)), dtype=bool)
        tally.tried += 1
        return target.counts(mask & here).plus(beside).f1, mask

    for end in {*starts, *ends}:
        left = [start for start in starts if start != end]
        chosen: tuple[int, ...] = ()
        best, held = beside.f1, np.zeros(len(features), dtype=bool)
        while left and len(chosen) < _SET:
            scored = [since((*chosen, start), end) for start in left]
            at = max(range(len(left)), key=lambda i: scored[i][0])
            if scored[at][0] < best + 0.005:
                break
            (best, held), chosen = scored[at], (*chosen, left.pop(at))
        if chosen:
            inner = nodes.Token(any_of=tuple(names[start] for start in sorted(chosen)))
            node = nodes.Since(inner=inner, last=nodes.Token(any_of=(names[end],)))
            found.append((best, Atom(node, held, 3 + len(chosen))))
    found.sort(key=lambda pair: (-pair[0], canonical_json(pair[1].node)))
    return [atom for _, atom in found[:3]]

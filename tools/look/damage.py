"""Explore text damaged on purpose: what a unit does where the usual company of a token is missing.

In natural text the cues of a unit come together, so that many rules fit it equally well; here they come apart.
"""

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.tokens import Tokens, tokens_from_ids

WINDOWS = 300  # in all
PLACES = 100  # firing places, one a document while they last; fewer are used several times
SPAN = 16  # tokens that may matter: the place itself and those before it
RATES = (0.08, 0.15, 0.3)  # share of them replaced, twice as much of the last CLOSE
CLOSE = 4
CARRIED = (1, 2, 3, 5, 8, 16)  # tokens moved into another text, the place the last of them
CARRIED_SHARE = 0.6  # of them, where some are left behind
AFTER = 3  # tokens kept behind the place

Ids = NDArray[np.int32]


def damaged(
    tokens: Tokens, activations: NDArray[np.floating], rule: FiringRule, *, seed: int, windows: int = WINDOWS
) -> Tokens:
    """Windows around firing places: some of the last 16 tokens replaced, or some of them put into another text.

    activations: (n_windows, n_pos) on `tokens`. Each window belongs to the document of its firing place. Seeded.
    """
    rng = np.random.default_rng(seed)
    fires = np.argwhere(tokens.scored & (activations > rule.threshold))
    chosen = _spread(fires, tokens, rng)
    pool = tokens.ids[tokens.scored]
    rows, documents = [], []
    for number in range(windows if len(chosen) else 0):
        window, place = chosen[number % len(chosen)].tolist()
        turn = number // len(chosen)
        row = (
            _replaced(tokens, window, place, pool, turn, rng) if turn % 2 else _moved(tokens, window, place, turn, rng)
        )
        rows.append(row.tolist())
        documents.append(int(tokens.documents[window]))
    return tokens_from_ids(rows, tokens.vocabulary, documents)


def _spread(fires: NDArray[np.int64], tokens: Tokens, rng: np.random.Generator) -> NDArray[np.int64]:
    """PLACES of the firing places: first one of each document, then a second of each, in random order."""
    fires = rng.permutation(fires)
    documents = tokens.documents[fires[:, 0]]
    order = np.argsort(documents, kind="stable")
    starts = np.r_[True, documents[order][1:] != documents[order][:-1]] if len(order) else np.zeros(0, dtype=bool)
    run = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0)) if len(order) else order
    turn = np.empty(len(order), dtype=np.int64)
    turn[order] = np.arange(len(order)) - run
    return np.asarray(fires[np.argsort(turn, kind="stable")[:PLACES]])


def _replaced(tokens: Tokens, window: int, place: int, pool: Ids, turn: int, rng: np.random.Generator) -> Ids:
    row = tokens.ids[window, : min(place + 1 + AFTER, int(tokens.lengths[window]))].copy()
    near = np.flatnonzero(tokens.scored[window, : place + 1])[-SPAN:]
    rates = RATES[turn // 2 % len(RATES)] * np.where(np.arange(len(near)) < len(near) - CLOSE, 1, 2)
    hit = near[rng.random(len(near)) < rates]
    hit = hit if len(hit) else rng.choice(near, 1)
    row[hit] = rng.choice(pool, len(hit))
    return row


def _moved(tokens: Tokens, window: int, place: int, turn: int, rng: np.random.Generator) -> Ids:
    """Another text with the last tokens of the place in it: all of them, or (every other time) some."""
    near = np.flatnonzero(tokens.scored[window, : place + 1])[-int(rng.choice(CARRIED)) :]
    host = int(rng.integers(len(tokens)))
    first, length = int(np.argmax(tokens.scored[host])), int(tokens.lengths[host])
    near = near[-max(length - first, 1) :]
    end = int(rng.integers(first + len(near), length + 1)) if length >= first + len(near) else length
    carried = (rng.random(len(near)) < CARRIED_SHARE) | (turn // 2 % 2 == 0)
    carried[-1] |= rng.random() < CARRIED_SHARE
    row = tokens.ids[host, : min(end + AFTER, length)].copy()
    row[np.arange(end - len(near), end)[carried]] = tokens.ids[window, near][carried]
    return row

"""Documents packed into rows: each attends to itself only and counts its positions from its own first token."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

IGNORED = -100


class Rows(NamedTuple):
    """All rows of a training run, each (n_rows, length): ids, the tokens to predict, positions, document numbers."""

    ids: Tensor
    targets: Tensor
    positions: Tensor
    owner: Tensor


def pack(documents: list[list[int]], length: int, seed: int, *, pool: int = 4000) -> Rows:
    """Rows of at most `length` tokens, shuffled; a document that is longer is left out.

    documents: token ids that begin with BOS; the token to predict after the last one is BOS.
    """
    order = list(range(len(documents)))
    Random(seed).shuffle(order)
    rows: list[list[int]] = []
    for start in range(0, len(order), pool):
        chosen = [at for at in order[start : start + pool] if len(documents[at]) <= length]
        filled = _best_fit([(len(documents[at]), at) for at in chosen], length)
        Random(seed + start).shuffle(filled)
        rows.extend(filled)
    shape = (len(rows), length)
    ids, targets = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    positions, owner = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    for row, members in enumerate(rows):
        at = 0
        for number, member in enumerate(members):
            tokens = documents[member]
            end = at + len(tokens)
            ids[row, at:end], positions[row, at:end], owner[row, at:end] = tokens, range(len(tokens)), number
            targets[row, at:end] = [*tokens[1:], tokens[0]]
            at = end
    return Rows(*(torch.from_numpy(array) for array in (ids, targets, positions, owner)))


def _best_fit(sized: list[tuple[int, int]], length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room: dict[int, list[int]] = {}
    for size, member in sorted(sized, reverse=True):
        fitting = min((left for left, open_rows in room.items() if left >= size and open_rows), default=None)
        if fitting is None:
            rows.append([member])
            room.setdefault(length - size, []).append(len(rows) - 1)
            continue
        row = room[fitting].pop()
        rows[row].append(member)
        room.setdefault(fitting - size, []).append(row)
    return rows


def block_mask(owner: Tensor) -> Tensor:
    """(rows, 1, length, length): 0 where a token may attend (same document, not later), -inf elsewhere."""
    same = owner[:, :, None] == owner[:, None, :]
    allowed = same & torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool).tril()
    return torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))[:, None]

"""How strong a move is: the dose at which it changes the next token's distribution by a given divergence."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.intervene.next_token import divergence, last_log_probs, residual_before, text_batches
from neuronaut.tools.intervene.outcomes import Move
from neuronaut.tools.intervene.parts import Places
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.registry import Array
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens

STEPS = 60
LARGEST = 2.0**20  # a dose that is too small there will not be enough
TOLERANCE = 0.01  # of the divergence that is asked for


class Matched(NamedTuple):
    """Doses and the divergences they give, (n,); NaN doses where none gives enough."""

    doses: Array
    kl: Array


def matched(divergence: Callable[[Array, Array], Array], n: int, wanted: float) -> Matched:
    """The dose of each of n moves at which its divergence is `wanted`, within 1 %: by bisection, every other step of which
    goes where a divergence that grows with the square of the dose would be met.

    divergence: of some of the moves, (k,), from their numbers and doses; 0 at dose 0, continuous.
    """
    low, high, dose = np.zeros(n), np.full(n, np.inf), np.ones(n)
    found, open_ = np.zeros(n), np.ones(n, dtype=bool)
    for step in range(STEPS):
        asked = np.flatnonzero(open_)
        if not len(asked):
            break
        found[asked] = divergence(asked, dose[asked])
        open_ &= (np.abs(found - wanted) > TOLERANCE * wanted) & (low < LARGEST)
        over = found >= wanted
        low, high = np.where(open_ & ~over, dose, low), np.where(open_ & over, dose, high)
        guess = dose * np.clip(np.sqrt(wanted / np.maximum(found, 1e-30)), 1 / 8, 8)
        halved = np.isfinite(high) & ((guess <= low) | (guess >= high) | (step % 2 == 1))
        between = np.where(low > 0, np.sqrt(low * np.where(np.isfinite(high), high, 1)), high / 2)
        dose = np.where(open_, np.where(halved, between, guess), dose)
    return Matched(np.where(np.abs(found - wanted) <= TOLERANCE * wanted, dose, np.nan), found)


def divergences(target: TargetModel, tokens: Tokens, places: Places, moves: Sequence[Move]) -> Array:
    """(n_moves, n_texts) KL(plain ‖ moved) of the next token after each text, in nats; 0 where nothing changes."""
    found = np.zeros((len(moves), len(tokens)))
    layer = min(move.layer for move in moves)
    for rows, part in text_batches(target, tokens):
        chosen = torch.from_numpy(rows)
        here = Places(places.columns[chosen], part.ids.shape[1])
        start = residual_before(target, to_ids(part), layer)
        plain = last_log_probs(target, part, [], start=start).double()
        for number, move in enumerate(moves):
            moved = last_log_probs(target, part, [move.edit(chosen, here)], start=start).double()
            found[number, rows] = divergence(plain, moved).numpy()
    return found


def written(target: TargetModel, tokens: Tokens, places: Places, moves: Sequence[Move]) -> list[Tensor]:
    """(n_texts, m, d_model) by which each move changes what its layer writes at the places; no other layer is run."""
    layer, last = min(move.layer for move in moves), max(move.out.layer for move in moves)
    found = [torch.zeros(*places.columns.shape, target.spec.d_model) for _ in moves]
    for rows, part in text_batches(target, tokens):
        chosen, ids = torch.from_numpy(rows), to_ids(part)
        here = Places(places.columns[chosen], part.ids.shape[1])
        start, outs = residual_before(target, ids, layer), {move.out for move in moves}
        plain = target.run(ids, read=outs, start=start, stop=last + 1).read
        for into, move in zip(found, moves, strict=True):
            edits = [move.edit(chosen, here)]
            moved = target.run(ids, read=[move.out], edits=edits, start=start, stop=last + 1).read[move.out]
            into[chosen] = here.take(moved - plain[move.out])
    return found


def next_token_changes(target: TargetModel, tokens: Tokens, places: Places, move: Move) -> Tensor:
    """(d_vocab,) float64 change of each next token's log-probability, mean over the texts."""
    total = torch.zeros(target.spec.d_vocab, dtype=torch.float64)
    for rows, part in text_batches(target, tokens):
        chosen = torch.from_numpy(rows)
        here = Places(places.columns[chosen], part.ids.shape[1])
        plain, moved = (last_log_probs(target, part, edits) for edits in ([], [move.edit(chosen, here)]))
        total += (moved - plain).double().sum(dim=0)
    return total / len(tokens)

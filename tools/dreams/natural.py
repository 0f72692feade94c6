"""What natural text does to the things that dreams drive: its median, its strongest pieces, what they cost, which prompts it holds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.dreams.aims import Aim
from neuronaut.tools.dreams.found import Prompts
from neuronaut.tools.dreams.writing import TextWriting
from neuronaut.tools.intervene.next_token import text_batches
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.tokens import Tokens

COSTS = 256  # pieces of natural text that say what counts as fluent
FLUENT = 0.9  # of them cost less than what is no longer called fluent
STRONGEST = 40  # places, each of another document

Floats = NDArray[np.float32]


class Natural(NamedTuple):
    """Of what is driven, on natural text: median and largest value."""

    median: float
    top: float

    @property
    def scale(self) -> float:
        """From the median to the largest; 1 where there is no way between them."""
        return self.top - self.median if self.top > self.median else 1.0

    def beyond(self, value: float) -> float:
        """0 at the median, 1 at the strongest natural example."""
        return (value - self.median) / self.scale


def grids(aims: Sequence[Aim], tokens: Tokens) -> Floats:
    """(n_aims, n_windows, n_pos) what each aim would be if the text ended there, in one pass for all."""
    found = np.zeros((len(aims), *tokens.ids.shape), dtype=np.float32)
    target, site = aims[0].target, aims[0].site
    of = [aim.site for aim in aims]
    for rows, part in text_batches(target, tokens):
        ids = to_ids(part)
        if site is None:
            run = target.run(ids, logits=True)
        else:
            run = target.run(ids, read={one for one in of if one is not None}, stop=site.layer + 1)
        for number, aim in enumerate(aims):
            grid = run.logits if aim.site is None else run.read[aim.site]
            assert grid is not None
            found[number, rows, : ids.shape[1]] = aim.along(grid).numpy()
    return found


def natural_of(grid: Floats, tokens: Tokens) -> Natural:
    """Median and largest value at the tokens that are scored."""
    values = grid[tokens.scored]
    return Natural(float(np.median(values)), float(values.max()))


def fluent_cost(aim: Aim, writing: TextWriting, rng: np.random.Generator) -> float:
    """Nats a token that FLUENT of the pieces of natural text do not exceed; without any, what the vocabulary costs at random."""
    pieces = writing.pieces(COSTS, rng)
    if not len(pieces):
        return float(np.log(aim.target.spec.d_vocab))
    return float(np.quantile(aim.measure(pieces).costs.numpy(), FLUENT))


def verbatim(ids: Tensor, tokens: Tokens) -> NDArray[np.bool_]:
    """(n,) whether a run of tokens, (n, length), stands in natural text as it is."""
    length = ids.shape[1]
    if tokens.ids.shape[1] < length:
        return np.zeros(len(ids), dtype=bool)
    runs = np.lib.stride_tricks.sliding_window_view(tokens.ids, length, axis=1)
    ends = np.arange(runs.shape[1]) + length <= tokens.lengths[:, None]
    return np.array([bool(((runs == row).all(axis=-1) & ends).any()) for row in ids.numpy()], dtype=bool)


def strongest(aim: Aim, writing: TextWriting, grid: Floats, tokens: Tokens) -> tuple[Prompts, list[float]]:
    """The pieces of natural text that end where it is strongest, one a document, measured like dreams, with which searches begin;
    and what they were in their whole text."""
    masked = np.where(tokens.scored, grid, -np.inf)
    masked[:, : writing.start + writing.length - 1] = -np.inf
    at = masked.argmax(axis=1)
    best = masked[np.arange(len(tokens)), at]
    rows, whole, seen = list[list[int]](), list[float](), set[int]()
    for window in np.argsort(-best, kind="stable").tolist():
        if len(rows) == STRONGEST or not np.isfinite(best[window]):
            break
        if int(tokens.documents[window]) in seen:
            continue
        seen.add(int(tokens.documents[window]))
        end = int(at[window]) + 1
        rows.append(tokens.ids[window, end - writing.length : end].tolist())
        whole.append(float(best[window]))
    ids = writing.begun(torch.tensor(rows, dtype=torch.long).reshape(len(rows), writing.length))
    kept = writing.scored(ids)
    kept[kept.clone()] = writing.writable(ids[kept])
    told = [value for value, keep in zip(whole, kept.tolist(), strict=True) if keep]
    if not told:
        return Prompts(ids[kept], np.zeros(0), np.zeros(0), np.zeros(0)), []
    measured = aim.measure(ids[kept])
    return Prompts(ids[kept], measured.values.numpy(), measured.costs.numpy(), measured.hints.numpy()), told

"""Labelled texts as observations: where each is read, and what the model holds there."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.labels import LabelFile, Part
from neuronaut.tools.look.activations import BATCH_TOKENS, batches, to_ids
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import Tokens

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Cells = tuple[Tensor, Tensor]  # rows and positions
T = TypeVar("T", bound=Hashable)
LEAST = 8  # texts of each class in a part, below which no ranking means anything
MOST_BYTES = 1 << 30  # of what is read


@dataclass(frozen=True)
class Observed:
    """Texts with their labels. An observation is a text with one label: several places of a text that are labelled alike
    count once, by their mean, so that long texts do not count as many.

    tokens: windows of the texts. windows, positions, owners: (n_places,) where each place is, and whose it is. positive,
    parts: (n,) of the observations. left_out: rows whose place is no token.
    """

    tokens: Tokens
    windows: NDArray[np.int64]
    positions: NDArray[np.int64]
    owners: NDArray[np.int64]
    positive: Bools
    parts: NDArray[np.str_]
    left_out: int

    def of(self, *parts: Part) -> "Observed":
        """Those of some parts."""
        return self.select(np.flatnonzero(np.isin(self.parts, parts)))

    def select(self, numbers: NDArray[np.int64]) -> "Observed":
        """Some of them, by number, in the order of the whole."""
        kept = np.zeros(len(self), dtype=bool)
        kept[numbers] = True
        number = np.cumsum(kept) - 1
        places = kept[self.owners]
        return Observed(
            self.tokens,
            self.windows[places],
            self.positions[places],
            number[self.owners[places]],
            self.positive[kept],
            self.parts[kept],
            self.left_out,
        )

    @property
    def n(self) -> tuple[int, int]:
        """Observations with the concept and without."""
        return int(self.positive.sum()), int((~self.positive).sum())

    def __len__(self) -> int:
        return len(self.positive)


def observed(target: TargetModel, labels: LabelFile, concept: str) -> Observed:
    """The observations of labelled texts, `concept` against all other labels. Refuses too few of either class."""
    texts = list(dict.fromkeys(row.text for row in labels.rows))
    tokens, number = target.tokenize(texts), {text: at for at, text in enumerate(texts)}
    reached = np.bincount(tokens.documents, [len(text) for text in tokens.texts], minlength=len(texts))
    rows_of = [np.flatnonzero(tokens.documents == at) for at in range(len(texts))]
    owner: dict[tuple[int, bool], int] = {}
    places: list[tuple[int, int, int]] = []
    parts, left_out = list[str](), 0
    for row in labels.rows:
        at = number[row.text]
        begins = tokens.begins[rows_of[at], None]
        starts, ends = tokens.starts[rows_of[at]] + begins, tokens.ends[rows_of[at]] + begins
        found = _cells(tokens.scored[rows_of[at]], starts, ends, row.span, row.token)
        if reached[at] != len(row.text) or not len(found):  # not all of it was read, or no token is at the place
            left_out += 1
            continue
        key = (at, row.named == concept)
        if key not in owner:
            owner[key] = len(owner)
            parts.append(row.part)
        places += [(int(rows_of[at][w]), int(p), owner[key]) for w, p in found]
    grid = np.array(sorted(set(places)), dtype=np.int64).reshape(-1, 3)
    positive = np.array([has for _, has in owner], dtype=bool)
    made = Observed(tokens, grid[:, 0], grid[:, 1], grid[:, 2], positive, np.array(parts, dtype=np.str_), left_out)
    _check(made, labels.name)
    return made


def _cells(
    scored: Bools,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    span: tuple[int, int] | None,
    token: int | None,
) -> NDArray[np.int64]:
    """(n, 2) windows and positions of a row: the last token of a span, where its end was read; a token by its number; all of them."""
    cells = np.argwhere(scored)
    if span is not None:
        inside = scored & (starts < span[1]) & (ends > span[0])
        return np.argwhere(inside)[-1:]
    if token is not None:
        return cells[token : token + 1 or None] if -len(cells) <= token < len(cells) else cells[:0]
    return cells


def _check(found: Observed, name: str) -> None:
    for part in get_args(Part):
        for n, what in zip(found.of(part).n, ("with", "without"), strict=True):
            if n < LEAST:
                raise ToolRefused(
                    f"{name!r} has {n} different texts {what} the concept in the part {part!r}, which needs {LEAST}: give at "
                    f"least about {4 * LEAST} of each class"
                )


def read_at(target: TargetModel, found: Observed, sites: Sequence[Site]) -> dict[Site, Floats]:
    """(n, width) what each site holds, the mean over the places of each observation, in one pass over the texts."""
    stop = max(site.layer for site in sites) + 1

    def read(ids: Tensor, at: Cells) -> dict[Site, Tensor]:
        run = target.run(ids, read=list(sites), stop=stop)
        return {site: run.read[site].float()[at].flatten(1) for site in sites}

    values = means_at(found, read)
    for site, one in values.items():
        if not bool(torch.isfinite(one).all()):
            raise ToolFailed(f"{site} has activations that are not finite on these texts")
    return {site: one.numpy() for site, one in values.items()}


def means_at(
    found: Observed, read: Callable[[Tensor, Cells], dict[T, Tensor]], batch_tokens: int = BATCH_TOKENS
) -> dict[T, Tensor]:
    """(n, width) of whatever is read, the mean over the places of each observation.

    read: of ids (batch, pos), at some rows and positions, (n_places, width) by name. Refuses what would not fit into memory.
    """
    share = torch.from_numpy(1 / np.bincount(found.owners, minlength=len(found))).float()
    used, rows = np.unique(found.windows, return_inverse=True)
    tokens, values = found.tokens.select(used), dict[T, Tensor]()
    for batch in batches(tokens, batch_tokens):
        mine = np.flatnonzero(np.isin(rows, batch))
        place = np.zeros(len(tokens), dtype=np.int64)
        place[batch] = np.arange(len(batch))
        at = torch.from_numpy(place[rows[mine]]), torch.from_numpy(found.positions[mine])
        owners = torch.from_numpy(found.owners[mine])
        for name, one in read(to_ids(tokens, batch), at).items():
            into = values.setdefault(name, torch.zeros(len(found), one.shape[1]))
            into.index_add_(0, owners, share[owners][:, None] * one)
        _check_size(values)
    return values


def _check_size(values: Mapping[T, Tensor]) -> None:
    size = sum(4 * one.numel() for one in values.values())
    if size > MOST_BYTES:
        raise ToolRefused(
            f"so many labelled texts take {size >> 20:,} MiB of activations, at most {MOST_BYTES >> 20:,} are held: give fewer texts"
        )

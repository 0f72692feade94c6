"""The same places of a text in the tokens of two models: where both have read exactly the same characters."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.corpus import Document, tokens_of
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import Tokens

CHUNK = 48  # documents that are read together

Cells = tuple[NDArray[np.int64], NDArray[np.int64]]


class Chunk(NamedTuple):
    """Activations of two models at the same places, (n, width) each. groups: (n,) the document of each place; tokens: of the
    first model in this text, aligned or not."""

    first: Tensor
    second: Tensor
    groups: NDArray[np.int64]
    tokens: int


def aligned(one: Tokens, other: Tokens) -> tuple[Cells, Cells]:
    """Windows and positions, in both, of the tokens that end at the same character; of several that end there the last.

    Documents that either model cannot write as the other does have none.
    """
    keys = [_ends(tokens) for tokens in (one, other)]
    same = {number for number, text in keys[0][2].items() if keys[1][2].get(number) == text}
    found = []
    for key, cells, _ in keys:
        kept = np.isin(key >> 32, list(same))
        last = {int(k): at for at, k in enumerate(key.tolist()) if kept[at]}
        found.append((last, cells))
    both = sorted(found[0][0].keys() & found[1][0].keys())
    rows = [np.array([last[key] for key in both], dtype=np.int64) for last, _ in found]
    (_, first), (_, second) = found
    return (first[0][rows[0]], first[1][rows[0]]), (second[0][rows[1]], second[1][rows[1]])


def _ends(tokens: Tokens) -> tuple[NDArray[np.int64], Cells, dict[int, str]]:
    """Of each scored token its document and the character of it that it ends at, as one number; its cell; the whole texts."""
    texts: dict[int, str] = {}
    for document, text in zip(tokens.documents.tolist(), tokens.texts, strict=True):
        texts[document] = texts.get(document, "") + text
    windows, positions = np.nonzero(tokens.scored & (tokens.ends > tokens.starts))
    ends = tokens.ends[windows, positions].astype(np.int64) + tokens.begins[windows]
    return (tokens.documents[windows] << 32) + ends, (windows, positions), texts


def chunks(
    documents: Sequence[Document],
    models: tuple[TargetModel, TargetModel],
    sites: tuple[Sequence[Site], Sequence[Site]],
    n_tokens: int,
) -> Iterator[Chunk]:
    """What two models hold at the same places, a few documents at a time, until so many tokens were read. Nothing is kept."""
    read = 0
    for at in range(0, len(documents), CHUNK):
        if read >= n_tokens:
            return
        some = [replace(one, group=number) for number, one in enumerate(documents[at : at + CHUNK])]
        tokens = [tokens_of(model, some) for model in models]
        cells = aligned(tokens[0], tokens[1])
        first, second = (
            _values(model, one, where, here)
            for model, one, where, here in zip(models, tokens, sites, cells, strict=True)
        )
        groups = np.array([documents[at + int(n)].group for n in tokens[0].documents[cells[0][0]]], dtype=np.int64)
        read += tokens[0].n_scored
        yield Chunk(first, second, groups, tokens[0].n_scored)


def _values(model: TargetModel, tokens: Tokens, sites: Sequence[Site], cells: Cells) -> Tensor:
    """(n_cells, width) of all sites, side by side."""
    read = model.run(to_ids(tokens), read=list(sites), stop=max(site.layer for site in sites) + 1).read
    at = torch.from_numpy(cells[0]), torch.from_numpy(cells[1])
    return torch.cat([read[site].float()[at].flatten(1) for site in sites], dim=1)

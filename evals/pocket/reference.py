"""How much of each layer is readable: live neurons, firing, and the share that a small table of tokens explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .network import Transformer
from .packing import Rows, block_mask

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """All tokens of some documents in one row: ids, the tokens before them, the documents they are from."""

    ids: Ints
    previous: Ints
    document: Ints


@dataclass(frozen=True)
class LayerReadability:
    """Shares of one layer's neurons; all but `live` are means over the live ones."""

    layer: int
    live: float
    active: float
    firing: float
    table: float
    previous_table: float
    either: float


@torch.no_grad()
def run(model: Transformer, rows: Rows, *, batch: int = 64) -> tuple[Tokens, list[Floats]]:
    """The tokens of `rows` (BOS left out), and for each layer the neurons' activations (n_tokens, d_mlp)."""
    kept: list[list[Tensor]] = [[] for _ in model.blocks]
    wanted = (rows.owner >= 0) & (rows.positions > 0)
    now = slice(0, batch)

    def keep(layer: int, neurons: Tensor) -> None:
        kept[layer].append(neurons[wanted[now].flatten()].float().half())

    hooks = [
        block.mlp.c_proj.register_forward_pre_hook(lambda _module, inputs, layer=layer: keep(layer, inputs[0]))
        for layer, block in enumerate(model.blocks)
    ]
    for start in range(0, len(rows.ids), batch):
        now = slice(start, start + batch)
        model(rows.ids[now], rows.positions[now], block_mask(rows.owner[now]))
    for hook in hooks:
        hook.remove()
    previous = torch.cat([rows.ids[:, :1], rows.ids[:, :-1]], dim=1)
    number = rows.owner + 1000 * torch.arange(len(rows.ids))[:, None]
    document = np.unique(number[wanted].numpy(), return_inverse=True)[1]
    tokens = Tokens(rows.ids[wanted].numpy(), previous[wanted].numpy(), document)
    return tokens, [torch.cat(parts).float().numpy() for parts in kept]


def thresholds(acts: Floats, document: Ints) -> tuple[Floats, Ints]:
    """Half of the median of each neuron's 20 largest document maxima, and in how many documents it is active."""
    starts = np.flatnonzero(np.diff(document, prepend=-1))
    peaks = np.maximum.reduceat(acts, starts, axis=0)
    top = np.median(np.sort(peaks, axis=0)[-20:], axis=0)
    return (top / 2).astype(np.float32), (peaks > 1e-6).sum(0)


def _per_token(ids: Ints, values: Floats, vocabulary: int) -> Floats:
    sums = torch.zeros(vocabulary, values.shape[1])
    return sums.index_add_(0, torch.from_numpy(ids), torch.from_numpy(values)).numpy()


def tables(ids: Ints, acts: Floats, fires: NDArray[np.bool_], vocabulary: int, *, size: int = 20) -> NDArray[np.bool_]:
    """For each neuron the at most `size` tokens that carry most of its firing, each firing at ≥ 0.5 of its places."""
    hits, mass = _per_token(ids, fires.astype(np.float32), vocabulary), _per_token(ids, acts * fires, vocabulary)
    rate = hits / np.maximum(np.bincount(ids, minlength=vocabulary), 1)[:, None]
    mass[rate < 0.5] = 0.0
    cut = np.sort(mass, axis=0)[-size]
    chosen: NDArray[np.bool_] = (mass > 0) & (mass >= cut)
    return chosen


def explained(ids: Ints, acts: Floats, fires: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """For each neuron whether its table has precision ≥ 0.6 and covers ≥ 0.5 of the firing mass on these tokens."""
    said = chosen[ids]
    precision = (said & fires).sum(0) / np.maximum(said.sum(0), 1)
    mass = acts * fires
    coverage = (mass * said).sum(0) / np.maximum(mass.sum(0), 1e-9)
    readable: NDArray[np.bool_] = (precision >= 0.6) & (coverage >= 0.5)
    return readable


def readability(tokens: Tokens, layers: list[Floats], vocabulary: int) -> Iterator[LayerReadability]:
    """One line a layer: tables are made on the first half of the documents and tested on the second."""
    cut = int(np.searchsorted(tokens.document, tokens.document[-1] // 2))
    for layer, acts in enumerate(layers):
        limit, seen = thresholds(acts[:cut], tokens.document[:cut])
        live = (seen >= 20) & (limit > 0)
        fires = (acts > limit) & live
        found = []
        for ids in (tokens.ids, tokens.previous):
            chosen = tables(ids[:cut], acts[:cut], fires[:cut], vocabulary)
            found.append(explained(ids[cut:], acts[cut:], fires[cut:], chosen)[live])
        yield LayerReadability(
            layer,
            float(live.mean()),
            float((acts[:, live] > 0).mean()),
            float(fires[:, live].mean()),
            float(found[0].mean()),
            float(found[1].mean()),
            float((found[0] | found[1]).mean()),
        )

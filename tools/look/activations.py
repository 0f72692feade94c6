"""The activation of a neuron, feature or router's share at every token of a text."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import columns_of, site_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Kind, Unit

BATCH_TOKENS = 8192
FIRING: tuple[Kind, ...] = ("neuron", "feature", "router")  # units with one activation a token


def batches(tokens: Tokens, batch_tokens: int = BATCH_TOKENS) -> Iterator[NDArray[np.int64]]:
    """Window numbers in batches of about `batch_tokens` padded tokens, windows of similar length together."""
    order = np.argsort(tokens.lengths, kind="stable")
    at = 0
    while at < len(order):
        end = at + 1
        while end < len(order) and (end + 1 - at) * int(tokens.lengths[order[end]]) <= batch_tokens:
            end += 1
        yield order[at:end]
        at = end


def to_ids(tokens: Tokens, rows: NDArray[np.int64] | None = None) -> Tensor:
    """(n, pos) int64 of some windows, all where none are named, as a model takes them: as wide as the longest, padding 0."""
    chosen = tokens.ids if rows is None else tokens.ids[rows, : int(tokens.lengths[rows].max(initial=1))]
    return torch.from_numpy(np.maximum(chosen, 0)).long()


def layer_activations(
    target: TargetModel, layer: int, indices: NDArray[np.int64], tokens: Tokens, *, batch_tokens: int = BATCH_TOKENS
) -> NDArray[np.float32]:
    """(n_indices, n_windows, n_pos) activations of some neurons of a layer, 0 at padding, in one pass up to the layer."""
    return site_activations(target, Site("neurons", layer), indices, tokens, batch_tokens=batch_tokens)


def site_activations(
    target: TargetModel, at: Site, indices: NDArray[np.int64], tokens: Tokens, *, batch_tokens: int = BATCH_TOKENS
) -> NDArray[np.float32]:
    """(n_indices, n_windows, n_pos) of some neurons of a layer or features of a dictionary; no other feature is computed."""
    site, columns = columns_of(at, indices.tolist())
    values = np.zeros((len(indices), *tokens.ids.shape), dtype=np.float32)
    chosen = torch.tensor(columns)
    for rows in batches(tokens, batch_tokens):
        ids = to_ids(tokens, rows)
        width = ids.shape[1]
        read = target.run(ids, read=[site], stop=site.layer + 1).read[site]
        values[:, rows, :width] = read[:, :, chosen].permute(2, 0, 1).float().numpy()
    if not np.isfinite(values).all():
        raise ToolFailed(f"{at} has activations that are not finite on this text")
    values[:, tokens.ids < 0] = 0.0
    return values


def activations_of(
    target: TargetModel, unit: Unit, tokens: Tokens, *, batch_tokens: int = BATCH_TOKENS
) -> NDArray[np.float32]:
    """(n_windows, n_pos) activation of a neuron or feature, 0 at padding; for sign -1 the negated one: "fires" is always "large".

    Refuses a head, and a unit that the model does not have; fails on activations that are not finite.
    """
    if unit.kind not in FIRING:
        raise ToolRefused(f"{unit.address} is a {unit.kind}: only neurons and features have one activation a token")
    check_unit(target.spec, unit, target.dictionaries)
    at = site_of(target, unit)
    values = site_activations(target, at, np.array([unit.index]), tokens, batch_tokens=batch_tokens)[0]
    return values if unit.sign > 0 else -values

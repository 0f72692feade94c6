"""What the weights of a neuron or feature say: its read and write vectors, and the tokens that its write vector promotes directly."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.activations import FIRING
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import read_vectors_at, site_of, unit_at, write_vectors_at
from neuronaut.tools.units import Unit


class WeightsArgs(ToolArgs):
    """Which neuron, how many neighbours and tokens to list."""

    example: ClassVar = {"unit": "8.481"}
    unit: str
    k: int = Field(default=10, ge=1, le=1000)


def _neuron(context: ToolContext, args: WeightsArgs) -> Unit:
    """The neuron or feature. Refuses a head: its read and write weights are matrices."""
    unit = Unit.parse(args.unit)
    check_unit(context.target.spec, unit, context.target.dictionaries)
    if unit.kind == "router":
        raise ToolRefused(
            f"{unit.address} is a router's share: it weighs what an expert writes and writes nothing itself"
        )
    if unit.kind not in FIRING:
        raise ToolRefused(f"{unit.address} is a head, which reads and writes by matrices: give a neuron, such as 8.481")
    return unit


def _ranked(scores: Tensor, named: tuple[str, Sequence[str]], what: str, k: int) -> list[dict[str, Any]]:
    """The k largest as rows of two columns: of `named` (column, names) and of the score, called `what`."""
    top, (column, names) = torch.topk(scores, min(k, len(scores))), named
    return [{column: names[int(i)], what: round(float(v), 4)} for v, i in zip(top.values, top.indices, strict=True)]


@tool("weights_of")
def weights_of(context: ToolContext, args: WeightsArgs) -> ToolResult:
    """Read and write vectors of a neuron, or encoder and decoder vectors of a feature (both (d_model,), as an artifact): norms,
    their cosine, the nearest units of the layer or dictionary and the nearest token embeddings.

    cos_read_write is in [-1, 1]; its null is the same cosine of the other units there, given as a percentile.
    """
    unit, target = _neuron(context, args), context.target
    site = site_of(target, unit)
    reads, writes = read_vectors_at(target, site), write_vectors_at(target, site)
    read, write = reads[unit.index], target.write_vector(unit)
    cosine = torch.nn.functional.cosine_similarity
    own = cosine(reads, writes, dim=1)
    others = torch.cat([own[: unit.index], own[unit.index + 1 :]])
    near_read, near_write = cosine(reads, read[None], dim=1), cosine(writes, write[None], dim=1)
    near_read[unit.index] = near_write[unit.index] = -2.0
    units = (unit.kind, [unit_at(site, i).address for i in range(len(reads))])
    near_embeddings = cosine(target.embed, read[None], dim=1)
    measurement = Measurement(
        "cos_read_write",
        float(own[unit.index]),
        "cosine",
        1,
        null_value=float(others.median()),
        null_percentile=percentile_of(float(own[unit.index]), others.float().numpy()),
        n_of=unit.kind,
    )
    return ToolResult(
        (measurement,),
        {
            "unit": unit.address,
            "read_norm": float(read.norm()),
            "write_norm": float(write.norm()),
            "nearest_by_read": _ranked(near_read, units, "cosine", args.k),
            "nearest_by_write": _ranked(near_write, units, "cosine", args.k),
            "nearest_embeddings": _ranked(near_embeddings, ("token", target.vocabulary.pieces), "cosine", args.k),
        },
        {"read": read.numpy(), "write": write.numpy()},
    )


def direct_logits(target: TargetModel, unit: Unit) -> Tensor:
    """(d_vocab,) logits that the write vector adds directly, centred over the vocabulary, times the sign of the unit.

    The final norm's scale is left out (it differs from place to place) and its gain is folded in.
    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits, "direct path".
    """
    write = unit.sign * target.write_vector(unit)
    gain = target.final_norm_gain()
    logits = (write * gain) @ target.unembed
    return logits - logits.mean()


def promoted_pieces(target: TargetModel, unit: Unit, k: int) -> list[str]:
    """The `k` tokens that the neuron makes likelier when it fires (low, for sign -1), by direct logit attribution."""
    best = torch.topk(direct_logits(target, unit), min(k, target.spec.d_vocab)).indices
    return [target.vocabulary.pieces[token] for token in best.tolist()]


@tool("promoted_tokens")
def promoted_tokens(context: ToolContext, args: WeightsArgs) -> ToolResult:
    """Tokens that the write vector of a neuron or feature promotes and suppresses directly (direct logit attribution): logits per unit
    of activation, the final norm's gain folded in and its scale left out.

    spread is the standard deviation over the vocabulary; its null is that of the other units there (percentile).
    """
    unit, target = _neuron(context, args), context.target
    logits = direct_logits(target, unit)
    writes = write_vectors_at(target, site_of(target, unit)) * target.final_norm_gain()
    spreads = (writes @ target.unembed).std(dim=1)
    others = np.delete(spreads.numpy(), unit.index)
    measurement = Measurement(
        "spread",
        float(logits.std()),
        "logits per unit of activation",
        1,
        null_value=float(np.median(others)),
        null_percentile=percentile_of(float(logits.std()), others),
        n_of=unit.kind,
    )
    tokens = ("token", target.vocabulary.pieces)
    return ToolResult(
        (measurement,),
        {
            "unit": unit.address,
            "promoted": _ranked(logits, tokens, "logits", args.k),
            "suppressed": [{**row, "logits": -row["logits"]} for row in _ranked(-logits, tokens, "logits", args.k)],
        },
    )

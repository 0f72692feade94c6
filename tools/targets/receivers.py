"""What the parts of a layer read from the residual stream and what they write to it, one head at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import AttentionWeights
from neuronaut.tools.targets.layers import Layer, gain_of

READS = 3  # queries, keys, values


@dataclass(frozen=True)
class Projection:
    """Queries, keys or values of a layer: the module that gives them, from which column of its output on, and the weights.

    stride: columns from one head to the next. weight: (n_heads, d_model, d_head); bias: (n_heads, d_head).
    """

    module: nn.Module
    column: int
    weight: Tensor
    bias: Tensor
    stride: int

    @property
    def end(self) -> int:
        """The column of the output after the last one."""
        return self.column + (len(self.bias) - 1) * self.stride + self.bias.shape[1]

    def of(self, normed: Tensor, heads: Sequence[int]) -> Tensor:
        """(batch, pos, n, d_head) what the named heads make of what each of them reads, (batch, n, pos, d_model)."""
        at = list(heads)
        weight, bias = self.weight[at].to(normed.dtype), self.bias[at].to(normed.dtype)
        return torch.einsum("bnpd,nde->bpne", normed, weight) + bias

    def part(self, output: Tensor) -> Tensor:
        """(batch, pos, n_heads, d_head) of what the module gives, a view."""
        n_heads, d_head = self.bias.shape
        return output[..., self.column : self.end].unfold(-1, d_head, self.stride)[..., :n_heads, :]

    def back(self, gradient: Tensor) -> Tensor:
        """(batch, n_heads, pos, d_model) the gradient at what each head reads, from that at the output of the module."""
        return torch.einsum("bpne,nde->bnpd", self.part(gradient).float(), self.weight)


def projections_of(layer: Layer, weights: AttentionWeights) -> tuple[Projection, ...]:
    """Queries, keys and values. Refuses attention that makes them in another number of modules than one or three."""
    d_head = stride = weights.b_Q.shape[1]
    sizes = [bias.numel() for bias in (weights.b_Q, weights.b_K, weights.b_V)]
    match len(layer.projections):
        case 1:
            modules, columns = layer.projections * READS, [0, sizes[0], sizes[0] + sizes[1]]
            if _head_by_head(layer.projections[0], weights):
                columns, stride = [0, d_head, 2 * d_head], READS * d_head
        case 3:
            modules, columns = layer.projections, [0, 0, 0]
        case n:
            raise ToolRefused(f"queries, keys and values come from {n} modules: which edge ends where is not known")
    parts = ((weights.W_Q, weights.b_Q), (weights.W_K, weights.b_K), (weights.W_V, weights.b_V))
    return tuple(
        Projection(module, column, *part, stride) for module, column, part in zip(modules, columns, parts, strict=True)
    )


def _head_by_head(fused: nn.Module, weights: AttentionWeights) -> bool:
    """Whether the queries of a head stand beside its own keys (GPT-NeoX) and not beside the queries of the next head."""
    d_model, d_head = weights.W_Q.shape[1:]
    rows = next(fused.parameters()).detach().float()
    rows = rows if rows.shape[1] == d_model else rows.T
    return len(weights.W_Q) == len(weights.W_K) and torch.equal(rows[d_head : 2 * d_head], weights.W_K[0].T)


def without_hooks(norm: nn.Module | None, x: Tensor) -> Tensor:
    """The norm of x (…, d_model), unseen by the hooks on it; x where there is none."""
    found: Tensor = x if norm is None else norm.forward(x)
    return found


def pulled_back(norm: nn.Module | None, x: Tensor, gradient: Tensor) -> Tensor:
    """(batch, n, pos, d_model) the gradient before a norm of x (batch, pos, d_model), from n gradients after it."""
    if norm is None:
        return gradient
    with torch.enable_grad():
        entered = x[:, None].expand(-1, gradient.shape[1], -1, -1).detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(without_hooks(norm, entered), entered, gradient.to(x.dtype))
    return found


def written_by_heads(layer: Layer, weights: AttentionWeights, z: Tensor, attn_out: Tensor) -> Tensor:
    """(batch, n_heads, pos, d_model) what each head writes to the residual stream; the sum is attn_out less b_O.

    z: (batch, pos, n_heads · d_head) the mixed values. Where a norm follows (Gemma), a head's share is what the norm makes of
    it by the scale that it has on all heads together in this run.
    """
    n_heads, d_head = weights.W_O.shape[:2]
    found = torch.einsum("bpne,ned->bnpd", z.reshape(*z.shape[:-1], n_heads, d_head).float(), weights.W_O)
    if layer.attn_post_norm is None:
        return found
    found = found * gain_of(layer.attn_post_norm, found.shape[-1])
    whole = found.sum(dim=1)
    scale = (whole * attn_out.float()).sum(-1, keepdim=True) / whole.square().sum(-1, keepdim=True).clamp(min=1e-30)
    return found * scale[:, None]


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((found.float() - expected.float()).abs().max()) / max(float(expected.float().abs().max()), 1e-30)


def fault_of_reads(
    norm: nn.Module | None, projections: Sequence[Projection], read: Tensor, outputs: Sequence[Tensor], tolerance: float
) -> str | None:
    """What is wrong with how attention reads the residual (batch, pos, d_model); None where the weights say it rightly."""
    normed = without_hooks(norm, read)
    for name, projection, output in zip(("queries", "keys", "values"), projections, outputs, strict=True):
        n_heads = len(projection.weight)
        expected = projection.of(normed[:, None].expand(-1, n_heads, -1, -1), range(n_heads))
        if output.shape[-1] < projection.end or apart(projection.part(output), expected) > tolerance:
            return f"its {name} are not what its weights make of the normed residual"
    return None


def masked(values: Tensor, positions: Tensor | None) -> Tensor:
    """Values (batch, n, pos, d_model) where positions (batch or 1, pos) hold, else 0; all where it is None."""
    return values if positions is None else values * positions[:, None, :, None].to(values.dtype)

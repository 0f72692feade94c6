"""What a run notes and changes on its way, and gradients: those at taps of zeros that are added to what passes."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import torch
from torch import Tensor

from neuronaut.tools.targets.base import Edit, Site
from neuronaut.tools.targets.hooks import Removable
from neuronaut.tools.targets.mlx.arrays import edited, to_mlx, to_torch
from neuronaut.tools.targets.mlx.visits import ArrayVisit

UNSHARED = ("neurons", "heads", "pattern")  # what no other site holds as well


def visiting(edits: Sequence[Edit], keep: Callable[[mx.array], None] | None = None) -> ArrayVisit:
    """Makes the edits of a site, in order, and tells what it is then."""

    def visit(value: mx.array) -> mx.array:
        for edit in edits:
            value = edited(value, edit)
        if keep is not None:
            keep(value)
        return value

    return visit


def keeping(found: dict[Site, mx.array], site: Site) -> Callable[[mx.array], None]:
    """Keeps what it is told as the activation of a site."""

    def keep(value: mx.array) -> None:
        found[site] = value

    return keep


def handed_out(found: dict[Site, mx.array]) -> dict[Site, Tensor]:
    """The activations as tensors; what two sites may share is copied."""
    return {site: to_torch(value, copied=site.name not in UNSHARED) for site, value in found.items()}


class Tap(NamedTuple):
    """Where a gradient is asked for: how a visit is put there, and the shape of what passes."""

    put: Callable[[ArrayVisit], Removable]
    shape: tuple[int, ...]


class Tapped(NamedTuple):
    """What passed a tap, and the gradient there."""

    value: Tensor
    gradient: Tensor


def tapped(
    run: Callable[[], mx.array], taps: Sequence[Tap], score: Callable[[Tensor], Tensor], dtype: mx.Dtype
) -> list[Tapped]:
    """The gradients of a score of the logits that `run` gives, summed over the batch; one pass forward and one back."""
    passed: list[Any] = [mx.zeros(tap.shape, dtype) for tap in taps]

    def scored(zeros: list[mx.array]) -> mx.array:
        def tap_at(number: int) -> ArrayVisit:
            def visit(value: mx.array) -> mx.array:
                passed[number] = value
                return value + zeros[number]

            return visit

        with contextlib.ExitStack() as stack:
            for number, tap in enumerate(taps):
                stack.callback(tap.put(tap_at(number)).remove)
            return _weighed(run(), score)

    gradients = mx.grad(scored)([mx.zeros(tap.shape, dtype) for tap in taps])
    mx.eval(gradients, passed)
    return [
        Tapped(to_torch(value, copied=True), to_torch(gradient))
        for value, gradient in zip(passed, gradients, strict=True)
    ]


def _weighed(logits: mx.array, score: Callable[[Tensor], Tensor]) -> mx.array:
    """A number with the gradient of the score, which torch computes from the logits."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = to_torch(logits, copied=True).requires_grad_()
        (weights,) = torch.autograd.grad(score(leaf).sum(), leaf, allow_unused=True)
    return mx.zeros(()) if weights is None else (logits * to_mlx(weights, logits.dtype)).sum()

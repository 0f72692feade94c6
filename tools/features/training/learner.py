"""A dictionary while it is trained: its weights, what it makes of a batch, and the loss.

Inputs come scaled to a mean norm of sqrt(d). TopK: Gao et al. 2024, arXiv:2406.04093; JumpReLU: Rajamanoharan et al. 2024,
arXiv:2407.14435.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.features.training.settings import Settings

MEDIAN_STEPS = 100
LEAST_THRESHOLD = 1e-3


class _Jump(torch.autograd.Function):
    """z where z > θ, else 0; d/dθ = -(θ/ε) K((z - θ)/ε) with K 1 on (-1/2, 1/2), d/dz = 1 where z > θ."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        z, threshold = ctx.saved_tensors
        kernel = ((z - threshold).abs() < ctx.bandwidth / 2) * grads[0]
        return grads[0] * (z > threshold), -(threshold / ctx.bandwidth) * kernel.sum(dim=0), None


class _Step(torch.autograd.Function):
    """1 where z > θ, else 0; d/dθ = -(1/ε) K((z - θ)/ε), d/dz = 0."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        z, threshold = ctx.saved_tensors
        kernel = ((z - threshold).abs() < ctx.bandwidth / 2) * grads[0]
        return None, -kernel.sum(dim=0) / ctx.bandwidth, None


def jump(z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """JumpReLU of z (n, width) with thresholds (width,) > 0, and its straight-through gradient."""
    found: Tensor = _Jump.apply(z, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return found


def step(z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """Whether each feature is active, (n, width) 0 or 1, and its straight-through gradient."""
    found: Tensor = _Step.apply(z, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return found


class Passed(NamedTuple):
    """Of a batch: the output (n, d), the pre-activations (n, width), the features that fired (width,), the mean number active."""

    out: Tensor
    drive: Tensor
    fired: Tensor
    l0: Tensor


@dataclass(eq=False)
class Learner:
    """W_enc (d, width), W_dec (width, d) of unit rows, b_enc (width,), b_dec (d,), log_threshold (width,) of jumprelu.

    scale: what inputs were multiplied with. spread: mean squared distance of scaled inputs from their mean, the unit of the
    loss. quiet: (width,) tokens since each feature fired.
    """

    settings: Settings
    weights: dict[str, Tensor]
    scale: float
    spread: float
    quiet: Tensor

    @classmethod
    def start(cls, sample: Tensor, settings: Settings) -> "Learner":
        """Random unit directions that the encoder reads as the decoder writes them, around the geometric median of a sample
        (n, d). jumprelu: all thresholds where k features are active on average."""
        d = sample.shape[1]
        scale = d**0.5 / float(sample.norm(dim=1).mean())
        x = sample * scale
        generator = torch.Generator().manual_seed(settings.seed)
        W_dec = torch.randn(settings.width, d, generator=generator)
        W_dec /= W_dec.norm(dim=1, keepdim=True)
        weights = {
            "W_enc": W_dec.T.contiguous(),
            "W_dec": W_dec,
            "b_enc": torch.zeros(settings.width),
            "b_dec": geometric_median(x),
        }
        if settings.activation == "jumprelu":
            drive = (x[:1024] - weights["b_dec"]) @ weights["W_enc"]
            kept = max(1, round(settings.k * len(drive)))
            threshold = max(LEAST_THRESHOLD, float(drive.flatten().topk(kept).values[-1]))
            weights["log_threshold"] = torch.full((settings.width,), threshold).log()
        spread = float((x - x.mean(dim=0)).square().sum(dim=1).mean())
        quiet = torch.zeros(settings.width, dtype=torch.int64)
        return cls(settings, {name: w.requires_grad_() for name, w in weights.items()}, scale, spread, quiet)

    def run(self, x: Tensor) -> Passed:
        """What the dictionary makes of scaled inputs (n, d)."""
        w, settings = self.weights, self.settings
        drive = x @ w["W_enc"] + (w["b_enc"] - w["b_dec"] @ w["W_enc"])
        if settings.activation == "topk":
            top = drive.topk(settings.k, dim=1, sorted=False)
            values = top.values.relu()
            out = F.embedding_bag(top.indices, w["W_dec"], per_sample_weights=values, mode="sum") + w["b_dec"]
            active = values.detach() > 0
            fired = torch.zeros(settings.width, dtype=torch.bool)
            fired[top.indices[active]] = True
            return Passed(out, drive, fired, active.sum(dim=1).float().mean())
        threshold = w["log_threshold"].exp()
        features = jump(drive, threshold, settings.bandwidth)
        l0 = step(drive, threshold, settings.bandwidth).sum(dim=1).mean()
        return Passed(features @ w["W_dec"] + w["b_dec"], drive, (features.detach() > 0).any(dim=0), l0)

    def loss(self, x: Tensor, *, ramp: float) -> tuple[Tensor, Passed]:
        """The loss of scaled inputs (n, d), in units of their variance: squared error, what dead features leave of it, and for
        jumprelu, weighed by `ramp`, the square of L0 / k - 1 (the paper's loss for a wanted L0)."""
        passed = self.run(x)
        error = x - passed.out
        loss = error.square().sum(dim=1).mean() / self.spread
        if self.settings.activation == "jumprelu":
            loss = loss + ramp * self.settings.sparsity * (passed.l0 / self.settings.k - 1).square()
        dead = torch.nonzero(self.quiet >= self.settings.quiet_tokens).flatten()
        if len(dead):
            loss = loss + self.settings.dead_weight * self._left_over(error.detach(), passed.drive, dead)
        return loss, passed

    def _left_over(self, error: Tensor, drive: Tensor, dead: Tensor) -> Tensor:
        """The share of the error that the d/2 most driven dead features do not explain (AuxK of Gao et al. 2024)."""
        k = min(len(dead), max(1, error.shape[1] // 2))
        top = drive[:, dead].topk(k, dim=1, sorted=False)
        told = F.embedding_bag(
            dead[top.indices], self.weights["W_dec"], per_sample_weights=top.values.relu(), mode="sum"
        )
        return (error - told).square().sum() / error.square().sum().clamp_min(torch.finfo(error.dtype).tiny)

    def count(self, fired: Tensor, n_tokens: int) -> None:
        """Note which features fired in a batch of so many tokens."""
        self.quiet += n_tokens
        self.quiet[fired] = 0

    @torch.no_grad()
    def remove_parallel(self) -> None:
        """Take from the decoder's gradient what would only change the length of its rows."""
        W_dec = self.weights["W_dec"]
        assert W_dec.grad is not None
        W_dec.grad -= (W_dec.grad * W_dec).sum(dim=1, keepdim=True) * W_dec

    @torch.no_grad()
    def normalise(self) -> None:
        """Make the rows of the decoder unit vectors again."""
        W_dec = self.weights["W_dec"]
        W_dec /= W_dec.norm(dim=1, keepdim=True)

    def folded(self) -> dict[str, Tensor]:
        """The weights for inputs as the model has them: W_enc, W_dec, b_enc, b_dec, threshold of jumprelu.

        Exact, since the encoders are homogeneous: with inputs, biases and thresholds divided by the scale, features and
        outputs are so too; rows of the decoder stay unit vectors.
        """
        w = {name: tensor.detach() for name, tensor in self.weights.items()}
        found = {"W_enc": w["W_enc"].clone(), "W_dec": w["W_dec"].clone()}
        found |= {name: w[name] / self.scale for name in ("b_enc", "b_dec")}
        if "log_threshold" in w:
            found["threshold"] = w["log_threshold"].exp() / self.scale
        return found


def geometric_median(x: Tensor) -> Tensor:
    """(d,) the point whose summed distance to the rows of x (n, d) is least, by Weiszfeld's iteration from the mean on."""
    at = x.mean(dim=0)
    for _ in range(MEDIAN_STEPS):
        weights = 1 / (x - at).norm(dim=1, keepdim=True).clamp_min(1e-6)
        new = (weights * x).sum(dim=0) / weights.sum()
        if float((new - at).norm()) <= 1e-5 * max(1.0, float(at.norm())):
            return new
        at = new
    return at

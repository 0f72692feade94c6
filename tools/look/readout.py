"""The last norm and the unembedding as one function that gradients go through, checked against the model itself."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import Site, TargetModel

# of the largest logit: what a model rounds away on its way from the last residual
TOLERANCE = {"float16": 1e-2, "bfloat16": 5e-2}
SMALL = 1e-5  # variance at which what a norm adds to it shows


@dataclass(frozen=True)
class Readout:
    """gain, bias: (d_model,) of the last norm; epsilon: what it adds to the variance; unembed: (d_model, d_vocab); cap: the
    largest logit where large ones are softened (Gemma 2), None where they are not."""

    gain: Tensor
    bias: Tensor
    epsilon: float
    centred: bool
    unembed: Tensor
    cap: float | None = None

    @classmethod
    def of(cls, target: TargetModel) -> "Readout":
        """That of a target. Refuses one whose output is something else."""
        spec, gain = target.spec, target.final_norm_gain()
        bias = target.final_norm(torch.zeros(1, spec.d_model))[0].clone()
        plain = cls(gain, bias, 0.0, spec.norm == "layernorm", target.unembed)
        small = torch.randn(1, spec.d_model, generator=torch.Generator().manual_seed(0)) * SMALL**0.5
        scale = plain.scale(small, target.final_norm(small).clone())
        epsilon = max(0.0, float(scale) ** 2 - float(plain.middle(small).square().mean()))
        found = cls(gain, bias, epsilon, plain.centred, target.unembed)
        ids = torch.arange(min(8, spec.n_ctx, spec.d_vocab))[None]
        site = Site("resid_post", spec.n_layers - 1)
        run = target.run(ids, read=[site], logits=True)
        assert run.logits is not None
        share = TOLERANCE.get(target.fingerprint().dtype, 1e-3)
        return found._checked(run.read[site].float().clone(), run.logits.float().clone(), spec.name, share)

    def _checked(self, residual: Tensor, logits: Tensor, name: str, share: float) -> "Readout":
        """With the cap, if that explains the model's own logits."""
        own = self(residual)
        allowed = share * float(own.abs().max())
        if float((own - logits).abs().max()) <= allowed:
            return self
        at = own.abs().argmax()
        cap = _cap(float(own.flatten()[at].abs()), float(logits.flatten()[at].abs()))
        capped = Readout(self.gain, self.bias, self.epsilon, self.centred, self.unembed, cap)
        if float((capped(residual) - logits).abs().max()) > allowed:
            raise ToolRefused(
                f"the output of {name} is more than its last norm and its unembedding: its residuals cannot be read by them"
            )
        return capped

    def middle(self, x: Tensor) -> Tensor:
        """The residual, centred where the norm centres."""
        return x - x.mean(dim=-1, keepdim=True) if self.centred else x

    def scale(self, residual: Tensor, normed: Tensor) -> Tensor:
        """(…, 1) what the norm divided a residual by, from what it gave."""
        way = self.middle(residual) * self.gain
        return way.square().sum(-1, keepdim=True) / (way * (normed - self.bias)).sum(-1, keepdim=True)

    def __call__(self, residual: Tensor) -> Tensor:
        """(…, d_vocab) logits of residuals (…, d_model)."""
        x = self.middle(residual)
        x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.epsilon)
        logits = (x * self.gain + self.bias) @ self.unembed
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def log_probs(self, residual: Tensor) -> Tensor:
        """(…, d_vocab) log-probabilities."""
        return torch.log_softmax(self(residual), dim=-1)


def _cap(plain: float, softened: float) -> float:
    """The cap for which cap · tanh(plain / cap) is the softened value, by bisection."""
    low, high = softened, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        above = middle * float(torch.tanh(torch.tensor(plain / middle, dtype=torch.float64))) > softened
        low, high = (low, middle) if above else (middle, high)
    return (low + high) / 2

"""What a dream drives: the activation of a unit, a mixture of units or a difference of logits, at the last token of a prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.intervene.next_token import tokens_at_once
from neuronaut.tools.targets.base import Edit, Run, Site, TargetModel

ENTRY = Site("resid_pre", 0)


class Measured(NamedTuple):
    """Of each prompt, (n,) float64: what is driven, nats a token, and what the unit would read while it is off (0 if unknown)."""

    values: Tensor
    costs: Tensor
    hints: Tensor


class Slopes(NamedTuple):
    """Gradients at the embeddings, (n, pos, d_model), of the value and of the cost; log-probabilities of the next token (n, pos,
    d_vocab)."""

    value: Tensor
    cost: Tensor
    log_probs: Tensor


@dataclass(frozen=True)
class Drive:
    """A direction of a site that switches a unit on, which has a gradient where the unit itself is off and has none.

    less: sites that are taken away from it. norm: of the model, where the unit reads what a norm gives; its gain is left out,
    so that this is a guide and no activation.
    """

    site: Site
    vector: Tensor
    less: tuple[Site, ...] = ()
    norm: str = ""

    def of(self, run: Run) -> Tensor:
        """(n,) at the last token."""
        value = run.read[self.site] - sum((run.read[site] for site in self.less), torch.zeros(()))
        return self.along(value)

    def along(self, value: Tensor) -> Tensor:
        """(n,) of the site as it is without `less`, at its last position."""
        last = value[:, -1].flatten(1).float()
        if self.norm == "layernorm":
            last = last - last.mean(dim=-1, keepdim=True)
        if self.norm:
            last = last / last.pow(2).mean(dim=-1, keepdim=True).add(1e-6).sqrt()
        return last @ self.vector

    @property
    def edits(self) -> list[Edit]:
        """They take `less` out of a run."""
        return [Edit(site, "scale", 0.0) for site in self.less]


class Through(NamedTuple):
    """Where features have a gradient: the site they are computed from, and how."""

    site: Site
    encode: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Aim:
    """A weighted sum of columns of a site, or of logits where there is no site, at the last token.

    weights: one for each column. drive: of a unit that may be off, None for what always has a gradient. through: of features that
    are computed from a site.
    """

    name: str
    target: TargetModel = field(repr=False)
    site: Site | None
    columns: tuple[int, ...]
    weights: Tensor = field(repr=False)
    drive: Drive | None = field(default=None, repr=False)
    through: Through | None = field(default=None, repr=False)

    def along(self, grid: Tensor) -> Tensor:
        """(…,) of the site or the logits, (…, width)."""
        return grid[..., list(self.columns)].float() @ self.weights

    def measure(self, ids: Tensor) -> Measured:
        """Value, cost and hint of prompts of equal length, (n, pos). Fails where they are not finite."""
        size = max(1, tokens_at_once(self.target) // ids.shape[1])
        parts = [self._measured(ids[at : at + size]) for at in range(0, len(ids), size)]
        found = Measured(*(torch.cat(column).double() for column in zip(*parts, strict=True)))
        if not all(bool(torch.isfinite(column).all()) for column in found):
            raise ToolFailed(f"{self.name} is not finite on some prompts: nothing can be searched for")
        return found

    def _measured(self, ids: Tensor) -> Measured:
        sites = {self.site} if self.site is not None else set()
        sites |= {self.drive.site, *self.drive.less} if self.drive is not None else set()
        run = self.target.run(ids, read=sites, logits=True)
        assert run.logits is not None
        grid = run.logits if self.site is None else run.read[self.site]
        hints = torch.zeros(len(ids)) if self.drive is None else self.drive.of(run)
        return Measured(self.along(grid[:, -1]), cost_of(run.logits, ids), hints)

    def slopes(self, ids: Tensor, values: Tensor) -> Slopes:
        """Gradients for a few prompts whose values are known: a unit that is off is followed along what would switch it on."""
        log_probs = list[Tensor]()

        def cost(logits: Tensor) -> Tensor:
            log_probs.append(torch.log_softmax(logits.detach().float(), dim=-1))
            return cost_of(logits, ids)

        costs = self.target.gradients(ids, [ENTRY], cost)[ENTRY][1]
        return Slopes(self._value_slopes(ids, values), costs, log_probs[0])

    def _value_slopes(self, ids: Tensor, values: Tensor) -> Tensor:
        if self.drive is None:
            return self._along_site(ids)
        # The gradient of a neuron knows its gate as well, that of a feature how its input is normalized.
        by_itself = self.through is not None or (self.site is not None and self.site.name == "neurons")
        on = values > 0 if by_itself else torch.zeros(len(ids), dtype=torch.bool)
        found = torch.zeros(*ids.shape, self.target.spec.d_model)
        if bool(on.any()):
            found[on] = self._along_site(ids[on])
        if not bool(on.all()):
            drive = self.drive
            slopes = self.target.gradients(ids[~on], [ENTRY], drive.along, edits=drive.edits, at=drive.site)[ENTRY][1]
            found[~on] = slopes.float()
        return found

    def _along_site(self, ids: Tensor) -> Tensor:
        def score(grid: Tensor) -> Tensor:
            return self.along((grid if self.through is None else self.through.encode(grid))[:, -1])

        at = self.site if self.through is None else self.through.site
        return self.target.gradients(ids, [ENTRY], score, at=at)[ENTRY][1].float()


def cost_of(logits: Tensor, ids: Tensor) -> Tensor:
    """(n,) mean cross-entropy of all tokens but the first, which is BOS where the model has one, in nats."""
    log_probs = torch.log_softmax(logits[:, :-1].float(), dim=-1)
    return -log_probs.gather(-1, ids[:, 1:, None])[..., 0].mean(dim=-1)


def mixture(target: TargetModel, site: Site, columns: Sequence[int], generator: torch.Generator, name: str) -> Aim:
    """A random direction of a site of units, of norm 1 like that of one unit."""
    weights = torch.randn(len(columns), generator=generator)
    return Aim(name, target, site, tuple(columns), weights / weights.norm())

"""What a training is asked to do, and what it refuses to be asked."""

from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import ModelSpec, Site, SiteName
from neuronaut.tools.targets.checks import check_layer

Activation = Literal["topk", "jumprelu"]
SITES: tuple[SiteName, ...] = ("resid_pre", "attn_out", "mlp_out", "resid_post", "neurons", "heads")
TOKENS_A_FEATURE = 10  # of explore text at least: with fewer, features are single places of it
LARGEST_WIDTH = 1 << 20


@dataclass(frozen=True)
class Settings:
    """A training; equal settings on the same weights and text give equal dictionaries on one thread.

    k: features active at a token (topk: at most, jumprelu: on average). n_tokens: trained on, texts repeated as needed.
    batch: tokens a step. rate: of Adam, at its height; see `usual_rate`. warm_up, decay: share of the steps in which the rate
    rises from 0 and falls to 0. dead_after: tokens without firing after which a feature counts
    as dead and is trained on what the others leave over; None is a tenth of n_tokens, at most 10 million. dead_weight: of
    that loss. bandwidth: of the kernel of jumprelu, in units of the scaled input. sparsity: weight of its (L0 / k - 1)^2.
    buffer_bytes: of activations that are held and shuffled.
    """

    site: Site
    width: int
    k: int
    n_tokens: int
    activation: Activation = "topk"
    seed: int = 0
    batch: int = 512
    rate: float = 4e-3
    warm_up: float = 0.05
    decay: float = 0.2
    dead_after: int | None = None
    dead_weight: float = 1 / 32
    bandwidth: float = 0.5
    sparsity: float = 1.0
    buffer_bytes: int = 256 << 20

    @property
    def quiet_tokens(self) -> int:
        """Tokens without firing after which a feature counts as dead in training."""
        return min(10_000_000, self.n_tokens // 10) if self.dead_after is None else self.dead_after

    def with_batch(self, tokens_there: int) -> Self:
        """Steps of fewer tokens, where a shuffled part of the text holds fewer."""
        return replace(self, batch=min(self.batch, tokens_there))

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return max(1, self.n_tokens // self.batch)

    def rate_at(self, step: int) -> float:
        """The rate of Adam at a step, counted from 0: up, level, down, along straight lines."""
        up, down = self.warm_up * self.steps, self.decay * self.steps
        rising = (step + 1) / up if step < up else 1.0
        falling = (self.steps - step) / down if self.steps - step < down else 1.0
        return self.rate * min(1.0, rising, falling)


def usual_rate(d_in: int) -> float:
    """A rate of Adam for short trainings: a step moves an entry of a unit row, 1/sqrt(d_in) on average, by up to a twentieth.

    Papers, with billions of tokens, take a tenth of it; on a million tokens of the embedded model that left 2 to 5 % more of the
    variance unexplained.
    """
    return 0.05 / d_in**0.5


def site_width(spec: ModelSpec, site: Site) -> int:
    """Length of one activation of a site, heads side by side."""
    return {"neurons": spec.d_mlp, "heads": spec.n_heads * spec.d_head}.get(site.name, spec.d_model)


def find_site(spec: ModelSpec, name: str, layer: int) -> Site:
    """The site of that name. Refuses one that no dictionary can be trained on, and a layer that the model does not have."""
    for known in SITES:
        if known == name:
            check_layer(spec, layer)
            return Site(known, layer)
    raise UserError(f"there is no site {name!r} that a dictionary can be trained on: choose from {', '.join(SITES)}")


def check_settings(site: str, width: int, k: int, n_tokens: int, activation: str) -> Activation:
    """The activation of that name. Refuses what cannot be trained, each in one sentence; no model need be loaded for it."""
    if site not in SITES:
        raise UserError(
            f"there is no site {site!r} that a dictionary can be trained on: choose from {', '.join(SITES)}"
        )
    if not 2 <= width <= LARGEST_WIDTH:
        raise UserError(f"a dictionary cannot have {width} features: give a width from 2 to {LARGEST_WIDTH:,}")
    if not 1 <= k <= width:
        raise UserError(f"{k} of {width} features cannot be active at a token: give a k from 1 to {width}")
    if n_tokens < TOKENS_A_FEATURE * width:
        raise UserError(
            f"{n_tokens:,} tokens are too few for {width:,} features: train on at least {TOKENS_A_FEATURE} a feature, "
            f"which are {TOKENS_A_FEATURE * width:,}"
        )
    for known in get_args(Activation):
        if known == activation:
            return known
    raise UserError(f"there is no activation {activation!r}: choose from {', '.join(get_args(Activation))}")

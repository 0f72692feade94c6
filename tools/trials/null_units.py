"""Units that do nothing which could be named: a real unit's values, dealt to the text by a hash of it."""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.overlay import Floats
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.dealt import LAST, SMOOTH, Keys, dealt, prefix_keys, recent_keys
from neuronaut.tools.units import Unit

NullKind = Literal["hash", "smoothed", "fragile"]
NULL_KINDS: tuple[NullKind, ...] = get_args(NullKind)

OFTEN = 3  # times that a context occurs from which it is a pattern that could be named
MAX_NAMED = 0.25  # of the firing mass; a claim needs half of it, so that none can be true


@dataclass(frozen=True)
class Null:
    """The values of a real unit, dealt to the places of the text by a keyed hash of the last tokens.

    marginal: the real unit's activations on explore text, in rising order. smooth: tokens over which the hash is
    averaged. natural: keys of all prefixes of the corpus, sorted, on other text the unit is silent; None: it is not.
    """

    marginal: Floats = field(repr=False)
    unit: Unit
    seed: int
    smooth: int = 1
    natural: Keys | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What was dealt, and how."""
        return f"null of {self.unit.address} {self.seed} {self.smooth} {self.natural is None}"

    def __call__(self, tokens: Tokens) -> Floats:
        """(n_windows, n_pos)."""
        values = dealt(self.marginal, tokens.ids, self.seed, smooth=self.smooth)
        if self.natural is None:
            return values
        keys = prefix_keys(tokens.ids)
        at = np.minimum(np.searchsorted(self.natural, keys), len(self.natural) - 1)
        return np.where(self.natural[at] == keys, values, self.marginal[0])


def null_of(context: ToolContext, unit: Unit, kind: NullKind, seed: int) -> Null:
    """A null unit with the marginal of a real one, the first of a row of seeds that has no pattern that could be named.

    The text repeats itself: where a hash happens to fire on a common opening, a claim of that opening would be true.
    """
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    null = Null(
        np.sort(activations[tokens.scored]),
        unit,
        seed,
        smooth=SMOOTH if kind == "smoothed" else 1,
        natural=natural_keys(context) if kind == "fragile" else None,
    )
    while named_share(null, tokens) > MAX_NAMED:
        null = replace(null, seed=null.seed + 1_000_003)
    return null


def natural_keys(context: ToolContext) -> Keys:
    """The keys of all prefixes of the corpus, sorted."""
    memo: dict[str, Keys] = context.__dict__.setdefault("_natural", {})
    if "keys" not in memo:
        texts = [context.tokens(split) for split in ("explore", "design", "confirm", "audit")]
        memo["keys"] = np.unique(np.concatenate([prefix_keys(tokens.ids)[tokens.scored] for tokens in texts]))
    return memo["keys"]


def named_share(null: Null, tokens: Tokens) -> float:
    """Share of the firing mass at places whose context occurs at least three times in the text; 0 if it never fires."""
    values = null(tokens)
    rule = firing_rule(values, tokens)
    if isinstance(rule, str):
        return 0.0
    keys = recent_keys(tokens.ids, LAST + null.smooth - 1)[tokens.scored]
    _, inverse, times = np.unique(keys, return_inverse=True, return_counts=True)
    flat = values[tokens.scored]
    mass = np.where(flat > rule.threshold, flat - rule.median, 0.0)
    return float(mass[times[inverse] >= OFTEN].sum() / max(float(mass.sum()), 1e-12))

"""Where a dictionary reads and writes: the hook names of TransformerLens and the modules of Hugging Face, as sites."""

import re
from dataclasses import dataclass
from typing import Literal

from neuronaut.tools.errors import UserError

PlaceName = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "neurons", "heads", "mlp_in"]
Detail = Literal["", "bare", "normalized"]

_BLOCKS = re.compile(r"blocks\.(\d+)\.(.+)")
_MODULES = re.compile(
    r"(?:model\.layers|model\.language_model\.layers|transformer\.h|gpt_neox\.layers)\.(\d+)(?:\.(.+))?"
)
# The names of HookedTransformer, then those of TransformerBridge.
_HOOKS: dict[str, tuple[PlaceName, Detail]] = {
    "hook_resid_pre": ("resid_pre", ""),
    "hook_resid_mid": ("resid_mid", ""),
    "hook_resid_post": ("resid_post", ""),
    "hook_attn_out": ("attn_out", ""),
    "hook_mlp_out": ("mlp_out", ""),
    "hook_mlp_in": ("resid_mid", ""),
    "attn.hook_z": ("heads", ""),
    "mlp.hook_post": ("neurons", ""),
    "ln2.hook_normalized": ("mlp_in", "normalized"),
    "hook_in": ("resid_pre", ""),
    "hook_out": ("resid_post", ""),
    "attn.hook_out": ("attn_out", "bare"),
    "attn.o.hook_in": ("heads", ""),
    "mlp.hook_in": ("mlp_in", ""),
    "mlp.hook_out": ("mlp_out", "bare"),
    "mlp.out.hook_in": ("neurons", ""),
    "ln2.hook_out": ("mlp_in", ""),
}
_PARTS: dict[str | None, tuple[PlaceName, Detail]] = {
    None: ("resid_post", ""),
    "mlp": ("mlp_out", "bare"),
    "attn": ("attn_out", "bare"),
    "self_attn": ("attn_out", "bare"),
}
READ_ONLY: tuple[PlaceName, ...] = ("resid_mid", "mlp_in")


@dataclass(frozen=True)
class Place:
    """An activation of one layer. heads, neurons: the mixed values before W_O flattened (of one `head` alone, if given), the
    activations of the MLP. mlp_in: after the norm before the MLP.

    detail: `bare` is before the norm that follows attention or MLP in some models, `normalized` before the gain of the norm.
    """

    name: PlaceName
    layer: int
    detail: Detail = ""
    head: int | None = None

    def __str__(self) -> str:
        return f"{self.layer}.{self.name}" + ("" if self.head is None else f" of head {self.head}")

    @property
    def hook(self) -> str:
        """The hook name of TransformerLens that means this place."""
        same = [name for name, meant in _HOOKS.items() if meant == (self.name, self.detail)]
        return f"blocks.{self.layer}.{same[0]}"


def place_of(hook: str, layer: int | None = None, head: int | None = None) -> Place:
    """The place that a hook name means; layer: what `{layer}` in it stands for. Refuses a name that means none."""
    name = hook.replace("{layer}", str(layer)) if layer is not None else hook
    if match := _BLOCKS.fullmatch(name):
        found = _HOOKS.get(match[2])
    else:
        match = _MODULES.fullmatch(name)
        found = _PARTS.get(match[2]) if match else None
    if match is None or found is None:
        known = ", ".join(_HOOKS)
        raise UserError(f"the hook {hook!r} is none that can be read: there are blocks.N followed by {known}")
    place = Place(found[0], int(match[1]), found[1], head)
    if head is not None and place.name != "heads":
        raise UserError(
            f"the hook {hook!r} has no heads, so that head {head} of it cannot be read: leave hook_head_index out"
        )
    return place

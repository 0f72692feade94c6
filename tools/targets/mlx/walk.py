"""A run through the layers of a model of mlx-lm, one by one, from any layer and any position on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import mlx.core as mx
import mlx.nn as nn
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import Site
from neuronaut.tools.targets.mlx.configs import Understood
from neuronaut.tools.targets.mlx.loading import at
from neuronaut.tools.targets.mlx.parts import Parts, parts_of
from neuronaut.tools.targets.mlx.visits import ArrayVisit, Held, after, before, by_heads


@dataclass
class Recorded:
    """Takes down the keys and values of a layer, (batch, n_kv_heads, pos, d_head)."""

    keys: Any = None
    values: Any = None
    offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The same."""
        self.keys, self.values = keys, values
        return keys, values


@dataclass
class Before:
    """The keys and values of a layer before the first position that is run, (1, n_kv_heads, offset, d_head)."""

    keys: mx.array
    values: mx.array

    @property
    def offset(self) -> int:
        """Positions that are not run."""
        return int(self.keys.shape[2])

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Those of each row, the ones before included."""
        return self._joined(self.keys, keys), self._joined(self.values, values)

    def _joined(self, before: mx.array, here: mx.array) -> mx.array:
        rows = mx.broadcast_to(before, (here.shape[0], *before.shape[1:]))
        return mx.concatenate([rows, here], axis=2)


class Walk:
    """The parts of a loaded model in the order in which they run."""

    def __init__(self, model: nn.Module, found: Understood) -> None:
        self.found, self.names = found, found.names
        self.layers: list[Parts] = [parts_of(block, found) for block in at(model, found.names.layers)]
        self.embed, self.last_norm = at(model, found.names.embed), at(model, found.names.last_norm)
        self._places = model.model.wpe if found.names.module == "gpt2" else None
        tied = found.names.unembed not in model and found.names.unembed == "lm_head"
        self.unembed: nn.Module | None = None if tied else at(model, found.names.unembed)

    def entered(self, ids: Tensor) -> mx.array:
        """(batch, pos, d_model) the residual before the first layer."""
        x = self.embed(mx.array(ids.numpy()))
        if self._places is not None:
            x = x + self._places(mx.arange(ids.shape[1]))
        if self.found.embed_scale is not None:
            x = x * mx.array(self.found.embed_scale, x.dtype)
        return x

    def through(self, x: mx.array, layers: range, caches: Sequence[Recorded | Before] | None = None) -> mx.array:
        """(batch, pos, d_model) the residual after these layers; caches: of each layer of the model."""
        skipped = caches[layers.start].offset if caches is not None and layers else 0
        masks = {window: self._mask(x.shape[1], skipped, window) for window in set(self.found.windows)}
        for number in layers:
            cache = None if caches is None else caches[number]
            x = self.layers[number].block(x, masks[self.found.windows[number]], cache=cache)
        return x

    def _mask(self, n_pos: int, before: int, window: int | None) -> Any:
        """What each of n_pos positions sees of itself and those before it: a word, or (n_pos, before + n_pos) bool."""
        back = n_pos + before if window is None else window
        narrow = back < n_pos + before
        if not narrow and not before and not self.names.mask_as_array:
            return "causal" if n_pos > 1 else None
        here, there = mx.arange(before, before + n_pos)[:, None], mx.arange(before + n_pos)
        seen = here >= there
        return seen & (here < there + back) if narrow else seen

    def logits(self, x: mx.array, keep: int | None = None) -> mx.array:
        """(batch, pos, d_vocab) from the residual after the last layer, or at the last `keep` positions."""
        normed = self.last_norm(x)
        normed = normed if keep is None else normed[:, -keep:]
        found = self.embed.as_linear(normed) if self.unembed is None else self.unembed(normed)
        cap = self.found.cap
        return mx.tanh(found / cap) * cap if cap else found

    def visited(self, site: Site, visit: ArrayVisit) -> Held:
        """Calls `visit` with the activation of a site, and puts what it returns in its place. Not for patterns and features."""
        parts = self.layers[site.layer]
        match site.name:
            case "resid_pre":
                return before(parts.block, visit)
            case "resid_post":
                return after(parts.block, visit)
            case "attn_out":
                return after(parts.attn_out, visit)
            case "mlp_out":
                return after(parts.mlp_out, visit)
            case "neurons" | "router" if parts.experts is not None:
                return parts.experts.visited(site.expert, visit)
            case "neurons":
                return before(parts.neurons_in, visit)
            case "heads":
                return before(parts.heads_in, by_heads(visit, self.found.n_heads))
            case "router" | "pattern" | "features":
                raise ToolRefused(f"{site} cannot be changed by itself")
            case _ as never:
                assert_never(never)

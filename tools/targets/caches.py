"""Keys and values of a run as caches for other runs: of the positions before one, of a run that stops at them, of all."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from neuronaut.tools.targets.hooks import Stopped


class Prefix(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types here
    """The keys and values of a layer before a position, (1, n_kv_heads, first, d_head), for any number of rows."""

    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: it begins with what it holds."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The keys and values of each row from the first position of the prompt on; none is kept."""
        if not self.get_seq_length():
            return key_states, value_states
        found = []
        for before, here in ((self.keys, key_states), (self.values, value_states)):
            found.append(torch.cat([before.expand(len(here), -1, -1, -1), here], dim=-2))
        return found[0], found[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of all keys."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Positions before the first one that is run."""
        return int(self.keys.shape[-2])

    def get_max_length(self) -> int:
        """No bound."""
        return -1

    get_max_cache_shape = get_max_length


class Stopping(Prefix):
    """Keeps the keys and values of all positions, and ends the layer there."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Does not return."""
        self.keys, self.values = super().update(key_states, value_states)
        raise Stopped


class Whole(Prefix):
    """The keys and values of all positions, those that are run included."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What it holds."""
        return self.keys, self.values


def recorder(n_layers: int) -> Cache:
    """Keeps all keys and values of a plain run, those of layers with a sliding window too."""
    return Cache(layers=[DynamicLayer() for _ in range(n_layers)])


def prefix(plain: Cache, first: int) -> Cache:
    """The keys and values of a plain run before a position."""
    return Cache(layers=[Prefix(layer.keys[:, :, :first], layer.values[:, :, :first]) for layer in plain.layers])


@contextlib.contextmanager
def at_the_end_only(block: nn.Module, cache: Cache, keep: int) -> Iterator[None]:
    """While it lasts, the last layer runs its queries and all that follows them at the last `keep` positions alone; keys and
    values are those of all positions. What it returns is 0 at the others.
    """
    forward: Callable[..., Any] = block.forward
    signature = inspect.signature(forward)

    def shortened(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        more = given.get("kwargs", {})
        n_pos = given["hidden_states"].shape[1]
        mask = given.get("attention_mask")
        if n_pos <= keep or (mask is None and keep > 1):  # without a mask, several queries are taken for the first ones
            return forward(*args, **kwargs)
        before = cache.layers[-1]
        cache.layers[-1] = all_of_them = Stopping(before.keys, before.values)
        with contextlib.suppress(Stopped):
            forward(*bound.args, **bound.kwargs)
        cache.layers[-1] = Whole(all_of_them.keys, all_of_them.values)
        for names in (given, more):
            for name in names.keys() & _LENGTHS.keys():
                names[name] = _LENGTHS[name](names[name], keep)
        output = forward(*bound.args, **bound.kwargs)
        cache.layers[-1] = before
        rest = (0, 0, n_pos - keep, 0)
        return (F.pad(output[0], rest), *output[1:]) if isinstance(output, tuple) else F.pad(output, rest)

    block.forward = shortened
    try:
        yield
    finally:
        del block.forward


def _rows(value: Any, keep: int) -> Any:
    return None if value is None else value[:, -keep:]


# The arguments of a layer that have one entry a position, and how they are cut.
_LENGTHS: dict[str, Callable[[Any, int], Any]] = {
    "hidden_states": _rows,
    "position_ids": _rows,
    "attention_mask": lambda mask, keep: None if mask is None else mask[:, :, -keep:],
    "position_embeddings": lambda pair, keep: None if pair is None else tuple(_rows(one, keep) for one in pair),
    "cache_position": lambda places, keep: None if places is None else places[-keep:],
}

"""One prompt run many times, each time with one edit: what the runs share is run once.

A branch leaves the plain run at the layer and the first position of its edit. Layers before it are those of the plain run,
and so are the keys and values of earlier positions, so that only the rest is computed, all branches of one first position in
one batch that grows from layer to layer.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import Edit
from neuronaut.tools.targets.hooks import Visit


class Branch(NamedTuple):
    """An edit of the prompt, by its number, and the first position that it changes."""

    number: int
    edit: Edit
    first: int


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


def recorder(n_layers: int) -> Cache:
    """Keeps all keys and values of a plain run, those of layers with a sliding window too."""
    return Cache(layers=[DynamicLayer() for _ in range(n_layers)])


def prefix(plain: Cache, first: int) -> Cache:
    """The keys and values of a plain run before a position."""
    return Cache(layers=[Prefix(layer.keys[:, :, :first], layer.values[:, :, :first]) for layer in plain.layers])


def batches_of(edits: Sequence[Edit], n_pos: int, most_tokens: int, keep: int) -> Iterator[tuple[int, list[Branch]]]:
    """First position and branches of each batch, by layer, of at most `most_tokens` tokens; at least `keep` positions are
    run. Refuses positions that are not (1, n_pos) or name none."""
    found = []
    for number, edit in enumerate(edits):
        if edit.positions is None:
            found.append(Branch(number, edit, 0))
            continue
        if tuple(edit.positions.shape) != (1, n_pos) or not bool(edit.positions.any()):
            raise ToolRefused(f"positions {tuple(edit.positions.shape)} do not mark some of the {n_pos} of one prompt")
        found.append(Branch(number, edit, min(int(edit.positions[0].float().argmax()), n_pos - keep)))
    found.sort(key=lambda branch: (branch.first, branch.edit.site.layer, branch.edit.site.name))
    for first, same in groupby(found, key=lambda branch: branch.first):
        rows, size = list(same), max(1, most_tokens // (n_pos - first))
        for at in range(0, len(rows), size):
            yield first, rows[at : at + size]


def kept(found: dict[int, Tensor], layer: int) -> Visit:
    """Keeps what it sees as the residual before a layer."""
    return lambda x: found.setdefault(layer, x.clone())


def joining(residual: Tensor, rows: int) -> Visit:
    """Adds the plain residual, (1, pos, d_model), as often as branches leave the plain run here."""
    return lambda x: torch.cat([x, residual.expand(rows, -1, -1)])


def branching(branches: Sequence[Branch], start: int) -> Visit:
    """Makes each edit in its own row, the first one in row `start`."""

    def visit(value: Tensor) -> Tensor:
        value = value.clone()
        for row, (_, edit, first) in enumerate(branches, start=start):
            change(value[row], edit, first)
        return value

    return visit


def change(part: Tensor, edit: Edit, first: int) -> None:
    """Makes an edit in one row, (pos, width) or (pos, n_heads, d_head), that begins at position `first`.

    A value over positions, (1, n_pos, …), is that of the whole prompt. Refuses one that does not fit.
    """
    if edit.index is not None:
        part = part[:, edit.index]
    value = edit.value
    if isinstance(value, Tensor):
        value = value.to(part.dtype)
        if value.dim() == part.dim() + 1:
            value = value[0, first:] if value.shape[1] > 1 else value[0]
    where = None if edit.positions is None else edit.positions[0, first:].nonzero()[:, 0]
    old = part if where is None else part[where]
    if isinstance(value, Tensor) and value.dim() == part.dim() and len(value) > 1 and where is not None:
        value = value[where]
    try:
        new = {
            "set": lambda: torch.as_tensor(value).expand_as(old),
            "add": lambda: old + value,
            "scale": lambda: old * value,
        }[edit.how]()
        if new.shape != old.shape:
            raise RuntimeError
    except RuntimeError:
        shape = tuple(edit.value.shape) if isinstance(edit.value, Tensor) else ()
        raise ToolRefused(
            f"a value {shape} does not fit {edit.site}, which is {tuple(part.shape)} from position {first} on"
        ) from None
    if where is None:
        part[:] = new
    else:
        part[where] = new

"""One prompt run many times, each time with one edit: what the runs share is run once.

A branch leaves the plain run at the layer and the first position of its edit. Layers before it are those of the plain run,
and so are the keys and values of earlier positions, so that only the rest is computed, all branches of one first position in
one batch that grows from layer to layer.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import Edit, ModelSpec, Site
from neuronaut.tools.targets.caches import at_the_end_only, prefix, recorder
from neuronaut.tools.targets.hooks import Visit, before

if TYPE_CHECKING:
    from neuronaut.tools.targets.edges import Insides

BRANCH_TOKENS = 8192  # of the branches that are run together
# What a batch of its own costs, beside the arithmetic of its tokens: reading the weights of a layer, worth some tokens, and
# some milliseconds of other work, worth multiplications.
READING_TOKENS = 100
OTHER_WORK = 50_000_000


class Branch(NamedTuple):
    """An edit of the prompt, by its number, and the first position that it changes."""

    number: int
    edit: Edit
    first: int


class Logits(NamedTuple):
    """(n_edits, keep, d_vocab) logits, and how many sequences were sent through all layers for them."""

    logits: Tensor
    forwards: float


def branched(inside: "Insides", ids: Tensor, edits: Sequence[Edit], keep: int) -> Logits:
    """The logits at the last `keep` positions of one prompt, (1, pos), with each edit made alone."""
    n_layers, n_pos = len(inside.layers), ids.shape[1]
    moved = [moved_on(edit, n_layers) for edit in edits]
    residuals: dict[int, Tensor] = {}
    mixed: dict[int, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for layer in {edit.site.layer for edit in moved}:
            stack.callback(inside.hook(Site("resid_pre", layer), kept(residuals, layer)).remove)
            stack.callback(inside.hook(Site("heads", layer), kept(mixed, layer)).remove)
        plain = inside.model(ids, past_key_values=recorder(n_layers), use_cache=True, logits_to_keep=1)
    found, forwards = plain.logits.new_empty(len(moved), keep, plain.logits.shape[-1]), 1.0
    free = READING_TOKENS + OTHER_WORK // layer_cost(inside.spec)
    for first, rows in batches_of(moved, n_pos, keep, most_tokens=BRANCH_TOKENS, n_layers=n_layers, free=free):
        run = Batch(inside, ids[:, first:], n_pos, rows, residuals, mixed)
        found[[branch.number for branch in rows]] = run.logits(prefix(plain.past_key_values, first), keep)
        left = sum(n_layers - branch.edit.site.layer for branch in rows)
        forwards += left / n_layers * (n_pos - first) / n_pos
    return Logits(found, forwards)


def layer_cost(spec: ModelSpec) -> int:
    """Multiplications that a layer makes with its weights at one position."""
    attention = 2 * spec.d_head * (spec.n_heads + spec.n_kv_heads)
    return spec.d_model * (attention + (3 if spec.gated else 2) * spec.d_mlp)


class Batch(NamedTuple):
    """Branches that are run together from one position of the prompt on, in order of their layers.

    residuals: of the plain run before each layer, (1, n_pos, d_model); mixed: the values its heads mix, (1, n_pos, n_heads,
    d_head).
    """

    inside: "Insides"
    ids: Tensor
    n_pos: int
    rows: Sequence[Branch]
    residuals: dict[int, Tensor]
    mixed: dict[int, Tensor]

    def logits(self, cache: Cache, keep: int) -> Tensor:
        """(n_rows, keep, d_vocab). cache: keys and values of the positions before."""
        inside, at = self.inside, 0
        with contextlib.ExitStack() as stack:
            for layer, same in itertools.groupby(self.rows, key=lambda branch: branch.edit.site.layer):
                here = list(same)
                self._join(stack, layer, at, here)
                for site, alike in itertools.groupby(here, key=lambda branch: branch.edit.site):
                    mine = list(alike)
                    stack.callback(inside.hook(site, branching(mine, at, self.n_pos)).remove)
                    at += len(mine)
            stack.enter_context(at_the_end_only(inside.layers[-1].block, cache, keep))
            # One product of matrices, where a slice of positions would be one of a matrix and a vector for each row
            unembed = inside.model.get_output_embeddings()
            stack.callback(unembed.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),)).remove)
            found: Tensor = inside.model(self.ids, past_key_values=cache, use_cache=True, logits_to_keep=keep).logits
        return found[:, -keep:]

    def _join(self, stack: contextlib.ExitStack, layer: int, rows: int, here: Sequence[Branch]) -> None:
        """Lets the branches of a layer in behind `rows` others; those that leave the plain run after its attention take what
        the heads mix from it."""
        inside, residual = self.inside, self.residuals[layer][:, -self.ids.shape[1] :]
        if rows:
            stack.callback(inside.hook(Site("resid_pre", layer), joining(residual, len(here))).remove)
        else:
            start = (layer, residual.expand(len(here), -1, -1))
            stack.enter_context(inside.only_layers(start, len(inside.layers), stop_there=False))
        late = sum(branch.edit.site.name != "resid_pre" for branch in here)
        if late:
            early = rows + len(here) - late
            stack.callback(before(inside.layers[layer].attention, attending(early)).remove)
            stack.callback(inside.hook(Site("heads", layer), attended(self.mixed[layer], early, late)).remove)


def batches_of(
    edits: Sequence[Edit], n_pos: int, keep: int, *, most_tokens: int, n_layers: int, free: int
) -> Iterator[tuple[int, list[Branch]]]:
    """First position and branches of each batch, in order of their layers, of at most `most_tokens` tokens; at least `keep`
    positions are run. Branches that begin later join a batch as long as it runs at most `free` tokens of a layer in vain.

    Refuses positions that are not (1, n_pos) or name none.
    """
    found = []
    for number, edit in enumerate(edits):
        if edit.positions is None:
            found.append(Branch(number, edit, 0))
            continue
        if tuple(edit.positions.shape) != (1, n_pos) or not bool(edit.positions.any()):
            raise ToolRefused(f"positions {tuple(edit.positions.shape)} do not mark some of the {n_pos} of one prompt")
        found.append(Branch(number, edit, min(int(edit.positions[0].float().argmax()), n_pos - keep)))
    found.sort(key=lambda branch: branch.first)
    batch: list[Branch] = []
    vain = 0
    for branch in found:
        first = batch[0].first if batch else branch.first
        vain += (branch.first - first) * (n_layers - branch.edit.site.layer)
        if batch and (vain > free or (len(batch) + 1) * (n_pos - first) > most_tokens):
            yield first, sorted(batch, key=_in_order)
            batch, vain = [], 0
        batch.append(branch)
    if batch:
        yield batch[0].first, sorted(batch, key=_in_order)


def _in_order(branch: Branch) -> tuple[int, bool, str]:
    """By layer; those that leave the plain run before its attention come first."""
    site = branch.edit.site
    return site.layer, site.name != "resid_pre", str(site)


def moved_on(edit: Edit, n_layers: int) -> Edit:
    """The same edit where it costs least: what leaves a layer is what enters the next one."""
    if edit.site.name == "resid_post" and edit.site.layer + 1 < n_layers:
        return replace(edit, site=Site("resid_pre", edit.site.layer + 1))
    return edit


def kept(found: dict[int, Tensor], layer: int) -> Visit:
    """Keeps what it sees as the residual before a layer."""
    return lambda x: found.setdefault(layer, x.clone())


def joining(residual: Tensor, rows: int) -> Visit:
    """Adds the plain residual, (1, pos, d_model), as often as branches leave the plain run here."""
    return lambda x: torch.cat([x, residual.expand(rows, -1, -1)])


def attending(rows: int) -> Visit:
    """Lets only the first rows through, at least one: the others have the attention of the plain run."""
    return lambda x: x[: max(rows, 1)]


def attended(plain: Tensor, rows: int, late: int) -> Visit:
    """Puts the plain mixed values, (1, pos, n_heads, d_head), behind those of the `rows` that attended."""
    return lambda z: torch.cat([z[:rows], plain[:, -z.shape[1] :].expand(late, -1, -1, -1)])


def branching(branches: Sequence[Branch], start: int, n_pos: int) -> Visit:
    """Makes each edit in its own row, the first one in row `start`; what it sees ends with the last of n_pos positions."""

    def visit(value: Tensor) -> Tensor:
        value = value.clone()
        for row, branch in enumerate(branches, start=start):
            change(value[row], branch.edit, n_pos - value.shape[1])
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

"""One prompt run many times by mlx, each time with one edit: as in targets.branches, whose plan of batches it takes."""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import mlx.core as mx
import torch
from torch import Tensor

from neuronaut.tools.targets import branches
from neuronaut.tools.targets.base import Edit, ModelSpec, Site
from neuronaut.tools.targets.branches import (
    OTHER_WORK,
    READING_TOKENS,
    Branch,
    Logits,
    batches_of,
    layer_cost,
    moved_on,
)
from neuronaut.tools.targets.mlx.arrays import edited, to_torch
from neuronaut.tools.targets.mlx.runs import keeping, visiting
from neuronaut.tools.targets.mlx.visits import ArrayVisit, before
from neuronaut.tools.targets.mlx.walk import Before, Recorded, Walk


def branched(walk: Walk, spec: ModelSpec, ids: Tensor, edits: Sequence[Edit], keep: int) -> Logits:
    """The logits at the last `keep` positions of one prompt, (1, pos), with each edit made alone."""
    n_layers, n_pos = len(walk.layers), ids.shape[1]
    moved = [moved_on(edit, n_layers) for edit in edits]
    plain: dict[Site, mx.array] = {}
    caches = [Recorded() for _ in range(n_layers)]
    with contextlib.ExitStack() as stack:
        for layer in {edit.site.layer for edit in moved}:
            for site in (Site("resid_pre", layer), Site("heads", layer)):
                stack.callback(walk.visited(site, visiting((), keeping(plain, site))).remove)
        walk.through(walk.entered(ids), range(n_layers), caches)
    found, forwards = torch.empty(len(moved), keep, spec.d_vocab), 1.0
    free = READING_TOKENS + OTHER_WORK // layer_cost(spec)
    most = branches.BRANCH_TOKENS
    for first, rows in batches_of(moved, n_pos, keep, most_tokens=most, n_layers=n_layers, free=free):
        logits = Batch(walk, first, rows, plain).logits(caches, keep)
        found[[branch.number for branch in rows]] = to_torch(logits)
        left = sum(n_layers - branch.edit.site.layer for branch in rows)
        forwards += left / n_layers * (n_pos - first) / n_pos
    return Logits(found, forwards)


class Batch(NamedTuple):
    """Branches that are run together from position `first` on, in order of their layers.

    plain: of the plain run, the residual before each layer where a branch leaves it and what its heads mix.
    """

    walk: Walk
    first: int
    rows: Sequence[Branch]
    plain: dict[Site, mx.array]

    def logits(self, recorded: Sequence[Recorded], keep: int) -> mx.array:
        """(n_rows, keep, d_vocab). recorded: keys and values of the plain run."""
        walk, first, at = self.walk, self.first, 0
        x: Any = None
        caches = [Before(one.keys[:, :, :first], one.values[:, :, :first]) for one in recorded]
        layers = [branch.edit.site.layer for branch in self.rows]
        with contextlib.ExitStack() as stack:
            for number in range(layers[0], len(walk.layers)):
                here = [branch for branch in self.rows if branch.edit.site.layer == number]
                if here:
                    residual = _rows(self.plain[Site("resid_pre", number)][:, first:], len(here))
                    x = residual if x is None else mx.concatenate([x, residual])
                    self._change(stack, number, at, here)
                    at += len(here)
                x = walk.through(x, range(number, number + 1), caches if first else None)
        return walk.logits(x[:, -keep:])

    def _change(self, stack: contextlib.ExitStack, number: int, at: int, here: Sequence[Branch]) -> None:
        """The edits of a layer; those that leave the plain run after its attention take what the heads mix from it."""
        parts = self.walk.layers[number]
        late = sum(branch.edit.site.name != "resid_pre" for branch in here)
        if late:
            early = at + len(here) - late
            mixed = self.plain[Site("heads", number)][:, self.first :]
            stack.callback(before(parts.attention, lambda x: x[: max(early, 1)]).remove)
            joined = _joining(early, _rows(mixed, late))
            stack.callback(self.walk.visited(Site("heads", number), joined).remove)
        for site, alike in itertools.groupby(here, key=lambda branch: branch.edit.site):
            mine = list(alike)
            stack.callback(self.walk.visited(site, _branching(mine, at, self.first)).remove)
            at += len(mine)


def _rows(value: mx.array, rows: int) -> mx.array:
    return mx.broadcast_to(value, (rows, *value.shape[1:]))


def _joining(rows: int, plain: mx.array) -> ArrayVisit:
    """Puts the plain mixed values behind those of the `rows` that attended."""
    return lambda z: mx.concatenate([z[:rows], plain])


def _branching(rows: Sequence[Branch], start: int, first: int) -> ArrayVisit:
    """Makes each edit in its own row, the first one in row `start`; what it sees begins with position `first`."""
    edits = [_from(branch.edit, first) for branch in rows]

    def visit(value: mx.array) -> mx.array:
        end = start + len(edits)
        made = [edited(value[row : row + 1], edit) for row, edit in enumerate(edits, start=start)]
        return mx.concatenate([value[:start], *made, value[end:]])

    return visit


def _from(edit: Edit, first: int) -> Edit:
    """The edit of what begins with position `first`; a value over positions, (1, n_pos, …), is that of the whole prompt."""
    positions = None if edit.positions is None else edit.positions[:, first:]
    value, n_dims = edit.value, (4 if edit.site.name == "heads" else 3) - (edit.index is not None)
    if isinstance(value, Tensor) and value.dim() == n_dims and value.shape[1] > 1:
        value = value[:, first:]
    return replace(edit, value=value, positions=positions)

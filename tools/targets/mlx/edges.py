"""Runs of mlx in which single edges carry another run: as in targets.edges, over the modules of mlx."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import torch
from torch import Tensor

from neuronaut.tools.circuits.wires import PARTS
from neuronaut.tools.targets.base import AttentionWeights, EdgeGradients, Edit, ModelSpec
from neuronaut.tools.targets.edges import EdgeRuns, Insides
from neuronaut.tools.targets.hooks import before as torch_before
from neuronaut.tools.targets.layers import Layer
from neuronaut.tools.targets.mlx.arrays import to_mlx, to_torch
from neuronaut.tools.targets.mlx.features import Features, refuse_edited_features
from neuronaut.tools.targets.mlx.runs import Tap, tapped, visiting
from neuronaut.tools.targets.mlx.stand_ins import norm_place
from neuronaut.tools.targets.mlx.visits import after, before
from neuronaut.tools.targets.mlx.walk import Walk
from neuronaut.tools.targets.notes import edits_at, filling, keeping


class Resumed:
    """A walk that torch code calls as the model, whole or from a layer on."""

    def __init__(self, walk: Walk, dtype: mx.Dtype) -> None:
        self._walk, self._dtype = walk, dtype
        self._start: tuple[int, Tensor] | None = None

    def __call__(self, ids: Tensor, *, use_cache: bool, logits_to_keep: int) -> Any:
        """The logits at the last positions."""
        assert not use_cache
        return SimpleNamespace(logits=to_torch(self.logits(ids, logits_to_keep)))

    def logits(self, ids: Tensor, keep: int) -> mx.array:
        """(batch, keep, d_vocab), not computed yet."""
        walk, first = self._walk, 0 if self._start is None else self._start[0]
        x = walk.entered(ids) if self._start is None else to_mlx(self._start[1], self._dtype)
        return walk.logits(walk.through(x, range(first, len(walk.layers))), keep)

    @contextlib.contextmanager
    def only_layers(self, start: tuple[int, Tensor], last: int, *, stop_there: bool) -> Iterator[None]:
        """While it lasts, a run begins with a residual before a layer."""
        assert last == len(self._walk.layers)
        assert not stop_there
        self._start = start
        try:
            yield
        finally:
            self._start = None


class MlxEdgeRuns(EdgeRuns):
    """Runs with edges cut, the outputs of senders and the gradients at receivers; see TargetModel.

    What cut edges carry is added in torch, so that a run is computed in as many parts as receivers have cut edges.
    """

    def __init__(
        self,
        walk: Walk,
        spec: ModelSpec,
        layers: Sequence[Layer],
        features: Features,
        weights: Callable[[int], AttentionWeights],
        dtype: mx.Dtype,
    ) -> None:
        self._walk, self._dtype, self._resumed = walk, dtype, Resumed(walk, dtype)
        tolerance = 1e-3 if dtype == mx.float32 else 0.05
        norm, only = norm_place(walk.last_norm, spec.d_model), self._resumed.only_layers
        super().__init__(Insides(spec, layers, norm, self._resumed, weights, features.hook, only, tolerance))

    def gradients(
        self, ids: Tensor, score: Callable[[Tensor], Tensor], edits: Sequence[Edit], keep: int
    ) -> EdgeGradients:
        """What each sender writes, and the gradient of the score at what each receiver reads."""
        refuse_edited_features(edits)
        wires, d_model, read = self._wires, self._in.spec.d_model, dict[int, Tensor]()
        senders = torch.empty(len(ids), len(wires.senders), ids.shape[1], d_model)
        taps = self._taps(ids, d_model)
        with contextlib.ExitStack() as stack:
            for site in dict.fromkeys(edit.site for edit in edits):
                stack.callback(self._walk.visited(site, visiting(edits_at(edits, site))).remove)
            self._watch(stack, filling(senders), 0, lambda _: True)
            for number, layer in enumerate(self._in.layers):
                stack.callback(torch_before(layer.attn_in, keeping(read, number)).remove)
            run = tapped(lambda: self._resumed.logits(ids, keep), list(taps.values()), score, self._dtype)
        leaves = {key: cast(Tensor, SimpleNamespace(grad=at.gradient)) for key, at in zip(taps, run, strict=True)}
        found = senders.new_zeros(len(ids), len(wires.receivers), *senders.shape[2:])
        for number in range(len(self._in.layers)):
            self._pull_back(number, read[number], leaves, found)
        found[:, wires.logits] = run[-1].gradient
        return EdgeGradients(senders, found)

    def _taps(self, ids: Tensor, d_model: int) -> dict[tuple[int, int], Tap]:
        """By layer and number of the part: projections, what the MLP reads of the residual, and the last norm."""
        taps: dict[tuple[int, int], Tap] = {}
        for number, parts in enumerate(self._walk.layers):
            for part, module in enumerate(parts.projections):
                width = int(module.weight.shape[0])
                taps[number, part] = Tap(partial(after, module), (*ids.shape, width))
            taps[number, len(PARTS)] = Tap(partial(before, parts.mlp_in), (*ids.shape, d_model))
        last = self._walk.last_norm
        shape = (len(ids), ids.shape[1], d_model)
        taps[len(self._walk.layers), 0] = Tap(partial(before, last), shape)
        return taps

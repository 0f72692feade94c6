"""Features of dictionaries in a model of mlx: encoded and moved in torch, where the run stops to hand over what they read."""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.features.places import Place
from neuronaut.tools.targets.base import Edit, ModelSpec, Site
from neuronaut.tools.targets.feature_hooks import Attached, visits
from neuronaut.tools.targets.hooks import Removable, Visit
from neuronaut.tools.targets.layers import Layer
from neuronaut.tools.targets.load import dictionary_named
from neuronaut.tools.targets.mlx.runs import Tap, Tapped
from neuronaut.tools.targets.mlx.visits import ArrayVisit, before, in_torch
from neuronaut.tools.targets.mlx.walk import Walk


class Features:
    """The dictionaries of a target, where they read and write its layers."""

    def __init__(self, walk: Walk, spec: ModelSpec, layers: Sequence[Layer]) -> None:
        self.dictionaries: dict[str, Dictionary] = {}
        self._walk, self._spec, self._layers = walk, spec, layers

    def hook(self, site: Site, visit: Visit) -> Removable:
        """Calls `visit` with the activation of a site as a tensor, and puts what it returns in its place."""
        if site.name == "features":
            return self._attached(site.dictionary).hooked(site.columns or None, visit)
        return self._walk.visited(site, in_torch(visit))

    def _attached(self, name: str) -> Attached:
        return Attached(dictionary_named(self.dictionaries, name), self._spec, self._layers, self.hook)

    def visit(
        self, stack: contextlib.ExitStack, read: Collection[Site], edits: Sequence[Edit], found: dict[Site, Tensor]
    ) -> None:
        """Edits features and reads them; those of plain sites are edited before and read after."""
        of = {name: visits(edits, read, name, found) for name in named([*read, *(edit.site for edit in edits)])}
        for name in sorted(of, key=lambda name: not of[name].edits):
            stack.callback(self._attached(name).hooked(of[name].columns, of[name].visit).remove)

    def taps(self, stack: contextlib.ExitStack, ids: Tensor, read: Collection[Site]) -> "dict[str, FeatureTap]":
        """Where the gradients of a score are asked for so that those at features are known, by dictionary."""
        found = {}
        for name in named(read):
            attached, seen = self._attached(name), list[Tensor]()
            layout = attached.dictionary.layout
            stack.callback(self._put(layout.reads, in_torch(_noting(seen))).remove)
            shape = (*ids.shape, *self._width(layout.writes))
            tap = Tap(partial(self._put, layout.writes), shape)
            found[name] = FeatureTap(attached, [site for site in read if site.dictionary == name], seen, tap)
        return found

    def _put(self, place: Place, visit: ArrayVisit) -> Removable:
        parts = self._walk.layers[place.layer]
        if place.name == "resid_mid":
            return before(parts.mlp_norm, visit)
        if place.name == "mlp_in":
            return before(parts.mlp, visit)
        return self._walk.visited(Site(place.name, place.layer), visit)

    def _width(self, place: Place) -> tuple[int, ...]:
        spec = self._spec
        return {"neurons": (spec.d_mlp,), "heads": (spec.n_heads, spec.d_head)}.get(place.name, (spec.d_model,))


class FeatureTap(NamedTuple):
    """Features that are read, what their dictionary read in this run, and the tap where it writes."""

    attached: Attached
    read: Sequence[Site]
    seen: list[Tensor]
    tap: Tap

    def found(self, written: Tapped) -> Mapping[Site, tuple[Tensor, Tensor]]:
        """Each site and the gradient there, from that where the dictionary writes."""
        dictionary, name = self.attached.dictionary, self.attached.dictionary.name
        values, gradients = dict[Site, Tensor](), dict[Site, Tensor]()
        of = visits((), self.read, name, values)
        x = self.attached._taken(self.seen[0])
        with torch.inference_mode(False), torch.enable_grad():
            features = dictionary.encode(x, of.columns)
            change = torch.zeros_like(features).requires_grad_()
            moved = self.attached._moved(torch.zeros_like(written.value), dictionary.change(x, change, of.columns))
            (gradient,) = torch.autograd.grad(moved, change, written.gradient)
        of.visit(features.detach())
        visits((), self.read, name, gradients).visit(gradient)
        return {site: (values[site], gradients[site]) for site in self.read}


def named(sites: Collection[Site]) -> list[str]:
    """The dictionaries whose features are among the sites."""
    return list(dict.fromkeys(site.dictionary for site in sites if site.name == "features"))


def refuse_edited_features(edits: Sequence[Edit]) -> None:
    """Refuses gradients of a run in which features are edited, which torch would have to take on their way."""
    for edit in edits:
        if edit.site.name == "features":
            raise ToolRefused(f"--backend mlx takes no gradient of a run with {edit.site} edited: give --backend torch")


def _noting(seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def visit(value: Tensor) -> Tensor:
        seen.append(value)
        return value

    return visit

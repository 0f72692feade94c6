"""What a run of a model refuses, the same for every kind of run."""

from collections.abc import Collection, Sequence

from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import Edit, ModelSpec, Site
from neuronaut.tools.targets.sites import width_at


def check_run(
    spec: ModelSpec,
    ids: Tensor,
    edits: Sequence[Edit] = (),
    *,
    read: Collection[Site] = (),
    first: int = 0,
    last: int | None = None,
) -> None:
    """Refuses a run of layers `first` to `last` (all from there on, if None) whose text, sites or edits do not exist."""
    last = spec.n_layers if last is None else last
    if ids.dim() != 2 or not 1 <= ids.shape[1] <= spec.n_ctx:
        raise ToolRefused(f"ids {tuple(ids.shape)} are not (batch, pos) of 1 to {spec.n_ctx} tokens")
    if not 0 <= first <= last <= spec.n_layers:
        raise ToolRefused(f"layers {first} to {last} cannot be run: {spec.name} has layers 0 to {spec.n_layers - 1}")
    for site in (*read, *(edit.site for edit in edits)):
        check_layer(spec, site.layer)
        check_expert(spec, site)
        if not first <= site.layer < last:
            raise ToolRefused(f"{site} lies outside the layers that are run, {first} to {last - 1}")
    for edit in edits:
        _check_edit(spec, edit)


def check_layer(spec: ModelSpec, layer: int) -> None:
    """Refuses a layer that the model does not have."""
    if not 0 <= layer < spec.n_layers:
        raise ToolRefused(f"layer {layer} does not exist: {spec.name} has layers 0 to {spec.n_layers - 1}")


def check_expert(spec: ModelSpec, site: Site) -> None:
    """Refuses an expert that the model does not have, neurons of no expert where there are some, and a router where there is none."""
    if site.name == "router" and not spec.n_experts:
        raise ToolRefused(f"{site} does not exist: {spec.name} has no experts between which a router could choose")
    if site.name != "neurons" and site.expert is None:
        return
    if not spec.n_experts and site.expert is not None:
        raise ToolRefused(f"{site} does not exist: the layers of {spec.name} have no experts; write a neuron as 8.481")
    if spec.n_experts and (site.expert is None or not 0 <= site.expert < spec.n_experts or site.name != "neurons"):
        raise ToolRefused(
            f"{site} does not exist: the neurons of layer {site.layer} of {spec.name} belong to experts 0 to "
            f"{spec.n_experts - 1}; name one, such as {site.layer}.e0.{min(5, spec.d_mlp - 1)}"
        )


def _check_edit(spec: ModelSpec, edit: Edit) -> None:
    if edit.site.name == "features":
        return  # by what its dictionary holds
    if edit.site.name == "pattern":
        raise ToolRefused("the attention pattern can be read but not edited")
    width = width_at(spec, edit.site)
    if edit.index is not None and not 0 <= edit.index < width:
        raise ToolRefused(f"index {edit.index} does not exist: {edit.site} has indices 0 to {width - 1}")


def last_layer(spec: ModelSpec, at: Site | None) -> int:
    """The layer behind the last one that a gradient of a score at a site needs. Refuses features and the attention pattern."""
    if at is not None and at.name in ("features", "pattern"):
        raise ToolRefused(f"no gradient is taken of a score at {at}: choose the site that it is computed from")
    return spec.n_layers if at is None else at.layer + 1

"""Where a unit is read and edited: neurons of a layer, heads of a layer, features of a dictionary, all by one name and number."""

from collections.abc import Mapping
from typing import assert_never

from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import ModelSpec, Site, SiteName, TargetModel
from neuronaut.tools.targets.load import dictionary_named
from neuronaut.tools.units import Kind, Sign, Unit

KIND_AT: Mapping[SiteName, Kind] = {"neurons": "neuron", "heads": "head", "router": "router", "features": "feature"}


def site_of(target: TargetModel, unit: Unit) -> Site:
    """The site at which the unit is column `unit.index`. Refuses a task, and a feature of an unknown dictionary."""
    match unit.kind:
        case "neuron":
            return Site("neurons", unit.layer, expert=unit.expert)
        case "head":
            return Site("heads", unit.layer)
        case "router":
            return Site("router", unit.layer)
        case "feature":
            dictionary = dictionary_named(target.dictionaries, unit.name)
            return Site("features", dictionary.layer, dictionary.name)
        case "task":
            raise ToolRefused(
                f"{unit.address} is a task and no part of the model: name a neuron, such as 8.481, or a head"
            )
        case _ as never:
            assert_never(never)


def neuron_sites(spec: ModelSpec, layer: int) -> tuple[Site, ...]:
    """The sites that hold the neurons of a layer: one, or one of each expert."""
    if not spec.n_experts:
        return (Site("neurons", layer),)
    return tuple(Site("neurons", layer, expert=expert) for expert in range(spec.n_experts))


def all_neuron_sites(spec: ModelSpec) -> list[Site]:
    """Those of all layers, in order."""
    return [site for layer in range(spec.n_layers) for site in neuron_sites(spec, layer)]


def heads_of(spec: ModelSpec) -> list[Unit]:
    """All heads, in order."""
    return [Unit("head", layer, head) for layer in range(spec.n_layers) for head in range(spec.n_heads)]


def layer_of(target: TargetModel, unit: Unit) -> int:
    """The layer in which the unit is read."""
    return site_of(target, unit).layer


def width_of(target: TargetModel, site: Site) -> int:
    """How many columns a site has: neurons, heads, experts, features, else d_model."""
    if site.name == "features":
        return dictionary_named(target.dictionaries, site.dictionary).width
    return width_at(target.spec, site)


def width_at(spec: ModelSpec, site: Site) -> int:
    """The same of a site without a dictionary."""
    return {"neurons": spec.d_mlp, "heads": spec.n_heads, "router": spec.n_experts}.get(site.name, spec.d_model)


def unit_at(site: Site, index: int, sign: Sign = 1) -> Unit:
    """The unit in a column of a site of units."""
    if site.name == "features":
        return Unit.of_feature(site.dictionary, index, sign)
    return Unit(KIND_AT[site.name], site.layer, index, sign, expert=site.expert)


def columns_of(site: Site, indices: list[int]) -> tuple[Site, list[int]]:
    """What to read for some columns alone, and where they stand in it: of features these alone are computed, of others all
    are there anyway."""
    if site.name != "features":
        return site, indices
    columns = sorted(set(indices))
    place = {column: at for at, column in enumerate(columns)}
    return Site("features", site.layer, site.dictionary, tuple(columns)), [place[index] for index in indices]


def out_of(target: TargetModel, site: Site) -> Site:
    """Where what the units of a site write enters the residual stream, as a site of d_model that can be added to."""
    if site.name != "features":
        return Site("attn_out" if site.name in ("heads", "attn_out") else "mlp_out", site.layer)
    place = dictionary_named(target.dictionaries, site.dictionary).layout.writes
    if place.name in ("resid_pre", "resid_post", "attn_out", "mlp_out"):
        return Site(place.name, place.layer)
    return Site("attn_out" if place.name == "heads" else "mlp_out", place.layer)


def scale_at(target: TargetModel, site: Site, ids: Tensor) -> Tensor | None:
    """(batch, pos) what the write vectors of a site are multiplied with at each place, None where that is 1 everywhere: a
    dictionary that normalizes its input gives its output back the scale of it."""
    if site.name != "features":
        return None
    dictionary = dictionary_named(target.dictionaries, site.dictionary)
    if dictionary.is_transcoder or dictionary.layout.normalization == "none":
        return None
    place = dictionary.layout.reads
    assert place.name != "resid_mid"
    assert place.name != "mlp_in"  # where only transcoders read
    read = Site(place.name, place.layer)
    value = target.run(ids, read=[read], stop=place.layer + 1).read[read]
    if place.name == "heads":
        value = value.flatten(-2) if place.head is None else value[:, :, place.head]
    scale = dictionary.normed(value).scale
    assert scale is not None
    return scale[..., 0]


def read_vectors_at(target: TargetModel, site: Site) -> Tensor:
    """(width, d_model) what drives each neuron or feature of a site; see TargetModel.read_vector."""
    if site.name == "neurons":
        return target.read_vectors(site.layer, site.expert)
    if site.name != "features":
        raise ToolRefused(f"{site} reads the residual stream along no one direction: ask about a neuron or a feature")
    dictionary = dictionary_named(target.dictionaries, site.dictionary)
    place = dictionary.layout.reads
    if place.name in ("neurons", "heads"):
        raise ToolRefused(
            f"features of {dictionary.name!r} read {place} and not the residual stream: they have no read vector there"
        )
    return dictionary.weights["W_enc"].T


def write_vectors_at(target: TargetModel, site: Site) -> Tensor:
    """(width, d_model) what each neuron or feature of a site adds to the residual stream per unit of activation."""
    if site.name == "neurons":
        return target.write_vectors(site.layer, site.expert)
    if site.name != "features":
        raise ToolRefused(f"{site} writes nothing of its own: a router weighs what the neurons of its experts write")
    dictionary = dictionary_named(target.dictionaries, site.dictionary)
    place, rows = dictionary.layout.writes, dictionary.directions
    if place.name == "neurons":
        return rows @ target.write_vectors(place.layer)
    if place.name == "heads":
        weights = target.attention_weights(place.layer).W_O
        weights = weights.flatten(0, 1) if place.head is None else weights[place.head]
        from neuronaut.tools.look.head_weights import attention_out_gain  # which itself needs sites

        return rows @ weights * attention_out_gain(target, place.layer)
    return rows

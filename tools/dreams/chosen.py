"""What can be dreamt of: a neuron, a feature, a router's share or a difference of two logits; and null aims of equal norm."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.dreams.aims import Aim, Drive, Through, mixture
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.intervene.next_token import token_id
from neuronaut.tools.look.activations import FIRING
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import check_unit, dictionary_named
from neuronaut.tools.targets.sites import columns_of, site_of, width_of
from neuronaut.tools.units import Unit

MIXED = 4096  # columns of a site that a null mixes at most


def unit_aim(target: TargetModel, unit: Unit) -> Aim:
    """The activation of a unit, its sign applied. Refuses a head, and a unit that the model does not have."""
    if unit.kind not in FIRING:
        raise ToolRefused(f"{unit.address} is a {unit.kind}, which has no one activation a token: dream of a neuron")
    check_unit(target.spec, unit, target.dictionaries)
    site, (column,) = columns_of(site_of(target, unit), [unit.index])
    weights = torch.tensor([float(unit.sign)])
    return Aim(unit.address, target, site, (column,), weights, drive_of(target, unit), through_of(target, site))


def drive_of(target: TargetModel, unit: Unit) -> Drive | None:
    """What switches a unit on; None where that is no one direction."""
    if unit.kind == "neuron":
        return _before_mlp(target, unit.layer, unit.sign * target.read_vector(unit).float(), normed=True)
    if unit.kind != "feature":
        return None
    dictionary = dictionary_named(target.dictionaries, unit.name)
    return _into(target, dictionary, unit.sign * dictionary.weights["W_enc"][:, unit.index].float())


def _into(target: TargetModel, dictionary: Dictionary, vector: Tensor) -> Drive:
    """Along a direction of what a dictionary reads, (d_in,)."""
    place = dictionary.layout.reads
    if place.head is not None:
        whole = torch.zeros(target.spec.n_heads, target.spec.d_head)
        whole[place.head] = vector
        vector = whole.flatten()
    match place.name:
        case "resid_mid" | "mlp_in":
            return _before_mlp(target, place.layer, vector, normed=place.name == "mlp_in")
        case name:
            return Drive(Site(name, place.layer), vector)


def through_of(target: TargetModel, site: Site) -> Through | None:
    """How features are computed from the site that their dictionary reads; None for other sites, and where that is none of which
    a gradient is taken."""
    if site.name != "features":
        return None
    dictionary = dictionary_named(target.dictionaries, site.dictionary)
    place = dictionary.layout.reads
    if place.name == "resid_mid" or place.name == "mlp_in":
        return None

    def encode(grid: Tensor) -> Tensor:
        if place.name == "heads":
            grid = grid.flatten(-2) if place.head is None else grid[:, :, place.head]
        return dictionary.encode(grid, site.columns)

    return Through(Site(place.name, place.layer), encode)


def _before_mlp(target: TargetModel, layer: int, vector: Tensor, *, normed: bool) -> Drive:
    norm = target.spec.norm if normed else ""
    if target.spec.parallel:
        return Drive(Site("resid_pre", layer), vector, norm=norm)
    return Drive(Site("resid_post", layer), vector, (Site("mlp_out", layer),), norm)


def logit_aim(target: TargetModel, answer: str, wrong_answer: str) -> Aim:
    """The logit of a token less that of another. Refuses text that is no single token, and equal ones."""
    if answer == wrong_answer:
        raise ToolRefused(f"answer and wrong_answer are both {answer!r}: their logits never differ, so name two")
    return _difference(target, token_id(target, answer), token_id(target, wrong_answer))


def _difference(target: TargetModel, one: int, other: int) -> Aim:
    pieces = target.vocabulary.pieces
    name = f"{pieces[one]!r} over {pieces[other]!r}"
    return Aim(name, target, None, (one, other), torch.tensor([1.0, -1.0]))


def null_aims(aim: Aim, unit: Unit | None, n: int, seed: int) -> list[Aim]:
    """For a unit random mixtures of all units of its layer or dictionary (MIXED at most), of the norm of one; for a difference
    of logits as many differences of two other tokens."""
    target, rng = aim.target, np.random.default_rng(seed)
    if unit is None:
        known = [token for token, piece in enumerate(target.vocabulary.pieces) if piece.strip()]
        free = [token for token in known if token not in target.vocabulary.special and token not in aim.columns]
        if len(free) < 2:
            raise ToolRefused(f"{target.spec.name} has no two other tokens to compare {aim.name} with")
        pairs = (rng.choice(free, size=2, replace=False).tolist() for _ in range(n))
        return [_difference(target, one, other) for one, other in pairs]
    whole = site_of(target, unit)
    width = width_of(target, whole)
    chosen = np.sort(rng.permutation(width)[:MIXED]).tolist()
    site, columns = columns_of(whole, chosen)
    made = torch.Generator().manual_seed(seed)
    mixed = [mixture(target, site, columns, made, f"null {number}") for number in range(n)]
    return mixed if site.name != "features" else [_of_features(one) for one in mixed]


def _of_features(aim: Aim) -> Aim:
    """A mixture of features with what its gradients need."""
    assert aim.site is not None
    through = through_of(aim.target, aim.site)
    if through is not None:
        return replace(aim, through=through)
    dictionary = dictionary_named(aim.target.dictionaries, aim.site.dictionary)
    read = dictionary.weights["W_enc"][:, list(aim.site.columns)].float()[:, list(aim.columns)]
    return replace(aim, drive=_into(aim.target, dictionary, read @ aim.weights))

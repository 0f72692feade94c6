"""A unit's effect on the next token, at its own dose: taken away where it fires, added where it is silent."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.registry import Array
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.sites import out_of, scale_at, site_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

Arm = Literal["remove", "add"]
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Places:
    """Prefixes that end where the unit fires (remove) or is silent (add), and what its activation becomes there.

    ids: (n, pos) right-padded; last: (n,) the judged position; documents: (n,); value: (n,) the activation to set, in the
    model's own units; change: (n,) value minus the natural activation.
    """

    arm: Arm
    ids: Tensor
    last: Tensor
    documents: Array
    value: Tensor
    change: Tensor

    def __len__(self) -> int:
        return len(self.documents)


def choose_places(
    tokens: Tokens, activations: Array, threshold: float, *, sign: int, n: int, seed: int
) -> list[Places]:
    """At most `n` places an arm, one a document and both arms in the same documents: firing ones to remove, silent ones
    (at or below the median) to add.

    remove: the value of a silent place of another document; add: the unit's median firing value.
    activations: (n_windows, n_pos) with the sign applied. Empty where no document has both, or no other is silent.
    """
    rng = np.random.default_rng(seed)
    fires = tokens.scored & (activations > threshold)
    silent = tokens.scored & (activations <= np.median(activations[tokens.scored]))
    both = np.intersect1d(tokens.documents[fires.any(axis=1)], tokens.documents[silent.any(axis=1)])
    removed = _one_a_document(tokens, fires & np.isin(tokens.documents, both)[:, None], rng)[:n]
    documents = [int(tokens.documents[window]) for window, _ in removed]
    added = _one_a_document(tokens, silent & np.isin(tokens.documents, documents)[:, None], rng)
    donors = _one_a_document(tokens, silent, rng)
    if not removed or len(donors) < 2:
        return []
    values = np.array([activations[_elsewhere(tokens, donors, i, place)] for i, place in enumerate(removed)])
    firing = np.full(len(added), float(np.median(activations[fires])))
    return [
        _prefixes(tokens, removed, "remove", sign * values, sign * activations),
        _prefixes(tokens, added, "add", sign * firing, sign * activations),
    ]


def _elsewhere(tokens: Tokens, donors: list[tuple[int, int]], i: int, place: tuple[int, int]) -> tuple[int, int]:
    """The donor of place number `i`, of another document."""
    others = [donor for donor in donors if tokens.documents[donor[0]] != tokens.documents[place[0]]]
    return others[i % len(others)]


def _one_a_document(tokens: Tokens, mask: Array, rng: np.random.Generator) -> list[tuple[int, int]]:
    taken: set[int] = set()
    places = []
    for window in rng.permutation(np.flatnonzero(mask.any(axis=1))):
        if (document := int(tokens.documents[window])) not in taken:
            taken.add(document)
            places.append((int(window), int(rng.choice(np.flatnonzero(mask[window])))))
    return places


def _prefixes(tokens: Tokens, places: list[tuple[int, int]], arm: Arm, values: Array, natural: Array) -> Places:
    width = max(pos for _, pos in places) + 1
    ids = np.zeros((len(places), width), dtype=np.int64)
    for row, (window, pos) in enumerate(places):
        ids[row, : pos + 1] = tokens.ids[window, : pos + 1]
    windows, positions = (np.array(side, dtype=np.int64) for side in zip(*places, strict=True))
    change = values - natural[windows, positions]
    return Places(
        arm,
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        tokens.documents[windows],
        torch.from_numpy(values).float(),
        torch.from_numpy(change).float(),
    )


@dataclass(frozen=True)
class Plain:
    """The unedited run at the places: the residual that the unit's layer receives, the MLP's output there, log-probabilities."""

    places: Places
    residual: Tensor  # (n, pos, d_model)
    log_probs: Tensor  # (n, d_vocab)
    last_residual: Tensor  # (n, d_model) before the final norm


def plain_run(target: TargetModel, layer: int, places: Places) -> Plain:
    """One pass over the prefixes, kept so that every edit resumes from `layer`."""
    start, end = Site("resid_pre", layer), Site("resid_post", target.spec.n_layers - 1)
    run = target.run(places.ids, read=[start, end], logits=True)
    assert run.logits is not None
    rows = torch.arange(len(places))
    return Plain(
        places,
        run.read[start],
        torch.log_softmax(run.logits[rows, places.last].float(), dim=-1),
        run.read[end][rows, places.last],
    )


def total_effect(target: TargetModel, plain: Plain, layer: int, edit: Edit) -> Tensor:
    """(n, d_vocab) log-probabilities with the edit minus without, resuming from the layer."""
    logits = target.run(plain.places.ids, edits=[edit], start=(layer, plain.residual), logits=True).logits
    assert logits is not None
    return (
        torch.log_softmax(logits[torch.arange(len(plain.places)), plain.places.last].float(), dim=-1) - plain.log_probs
    )


def written(target: TargetModel, unit: Unit, plain: Plain, vector: Tensor) -> Tensor:
    """(n, d_model) what a write vector of the unit's site, (d_model,), comes to at the unit's own doses."""
    change, scale = plain.places.change, scale_at(target, site_of(target, unit), plain.places.ids)
    if scale is not None:
        change = change * scale[torch.arange(len(plain.places)), plain.places.last]
    return change[:, None] * vector


def _at_last(places: Places) -> Tensor:
    at = torch.zeros(places.ids.shape, dtype=torch.bool)
    at[torch.arange(len(places)), places.last] = True
    return at


def unit_effect(target: TargetModel, unit: Unit, plain: Plain) -> Tensor:
    """(n, d_vocab) effect of setting the unit to its dose at the judged position, oriented so that positive means
    'more when the unit fires': added minus plain, or plain minus removed."""
    places = plain.places
    value = places.value[:, None].expand(places.ids.shape)
    site = site_of(target, unit)
    edit = Edit(site, "set", value, index=unit.index, positions=_at_last(places))
    effect = total_effect(target, plain, site.layer, edit)
    return effect if places.arm == "add" else -effect


def vector_effect(target: TargetModel, site: Site, plain: Plain, vector: Tensor) -> Tensor:
    """(n, d_vocab) the same for adding `vector` (n, d_model) where the units of a site write, instead of a unit's dose."""
    places = plain.places
    value = vector[:, None, :].expand(*places.ids.shape, vector.shape[-1])
    edit = Edit(out_of(target, site), "add", value, positions=_at_last(places))
    effect = total_effect(target, plain, site.layer, edit)
    return effect if places.arm == "add" else -effect


def direct_effect(target: TargetModel, plain: Plain, vector: Tensor) -> Tensor:
    """(n, d_vocab) the same through the residual stream alone: later layers keep their plain outputs."""
    logits = target.final_norm(plain.last_residual + vector) @ target.unembed
    before = target.final_norm(plain.last_residual) @ target.unembed
    effect = torch.log_softmax(logits.float(), dim=-1) - torch.log_softmax(before.float(), dim=-1)
    return effect if plain.places.arm == "add" else -effect

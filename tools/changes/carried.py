"""What the change of one unit alone does to the output, put into the unchanged model; and how far the residual streams drift."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.intervene.next_token import divergence, text_batches
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.sites import out_of, site_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

Floats = NDArray[np.float64]


class Effects(NamedTuple):
    """Of each unit and window, (n_units, n_windows): nats a token of KL(before || before with the unit's change alone), and
    how far the loss rises by it."""

    kl: Floats
    loss: Floats


def alone(before: TargetModel, after: TargetModel, units: Sequence[Unit], tokens: Tokens) -> Effects:
    """What each unit's own change does to the output of `before`: what it would write on the same inputs with its weights of
    `after`, in place of what it writes."""
    kl, loss = (np.zeros((len(units), len(tokens))) for _ in range(2))
    for rows, part in text_batches(before, tokens):
        ids = to_ids(part)
        plain = _log_probs(before, ids)
        for at, unit in enumerate(units):
            start, edit = own_change(before, after, unit, ids)
            kl[at, rows], loss[at, rows] = _beside(plain, _log_probs(before, ids, [edit], start), part)
    return Effects(kl, loss)


class Drift(NamedTuple):
    """layers: (n_windows, n_layers + 1) length of the change of the residual stream as a share of its length, before the first
    layer and after each; kl, loss: (n_windows,) of the outputs, nats a token."""

    layers: Floats
    kl: Floats
    loss: Floats


def drift(before: TargetModel, after: TargetModel, tokens: Tokens) -> Drift:
    """How far two models have gone apart on the same texts, layer by layer and in what they say."""
    n_layers = before.spec.n_layers
    sites = [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in range(n_layers))]
    layers, kl, loss = np.zeros((len(tokens), len(sites))), np.zeros(len(tokens)), np.zeros(len(tokens))
    for rows, part in text_batches(before, tokens):
        ids, scored = to_ids(part), torch.from_numpy(part.scored)
        one, other = (model.run(ids, read=sites, logits=True) for model in (before, after))
        for at, site in enumerate(sites):
            was, now = one.read[site].double(), other.read[site].double()
            share = (now - was).norm(dim=-1) / was.norm(dim=-1).clamp(min=1e-12)
            layers[rows, at] = _means(share, scored)
        assert one.logits is not None
        assert other.logits is not None
        kl[rows], loss[rows] = _beside(one.logits.log_softmax(-1), other.logits.log_softmax(-1), part)
    return Drift(layers, kl, loss)


def own_change(before: TargetModel, after: TargetModel, unit: Unit, ids: Tensor) -> tuple[tuple[int, Tensor], Edit]:
    """Where to resume, and what the unit's own change adds there, (batch, pos, d_model), to what its layer writes."""
    site, entry, kept = site_of(before, unit), Site("resid_pre", unit.layer), Site("attn_out", unit.layer)
    own = before.run(ids, read=[entry, kept, site], stop=unit.layer + 1).read
    start, pinned = (unit.layer, own[entry]), [Edit(kept, "set", own[kept])]
    other = after.run(ids, read=[site], edits=pinned, start=start, stop=unit.layer + 1).read[site]
    was, now = own[site][:, :, unit.index], other[:, :, unit.index]
    if unit.kind == "head":
        old, new = (model.attention_weights(unit.layer).W_O[unit.index] for model in (before, after))
        added = now @ new - was @ old
    else:
        added = now[..., None] * after.write_vector(unit) - was[..., None] * before.write_vector(unit)
    return start, Edit(out_of(before, site), "add", added)


def _log_probs(
    target: TargetModel, ids: Tensor, edits: Sequence[Edit] = (), start: tuple[int, Tensor] | None = None
) -> Tensor:
    logits = target.run(ids, edits=edits, start=start, logits=True).logits
    assert logits is not None
    return logits.float().log_softmax(dim=-1)


def _beside(plain: Tensor, changed: Tensor, part: Tokens) -> tuple[Floats, Floats]:
    """(n_windows,) KL and rise of the loss, means over the tokens of each window."""
    scored, ids = torch.from_numpy(part.scored), to_ids(part)
    kl = divergence(plain, changed).clamp(min=0)
    said = scored[:, 1:]
    rise = (plain - changed)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    return _means(kl, scored), _means(rise, said)


def _means(values: Tensor, where: Tensor) -> Floats:
    counts = where.sum(dim=1).clamp(min=1)
    return ((values.double() * where).sum(dim=1) / counts).numpy()

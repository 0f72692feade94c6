"""What each unit of a layer does differently when it is given the same inputs: its own change, nothing that it inherits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.sites import neuron_sites, unit_at
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

Floats = NDArray[np.float64]
BATCH_TOKENS = 2048


def sites_of(target: TargetModel) -> list[Site]:
    """Where units are compared: the heads and the neurons of each layer."""
    spec = target.spec
    return [site for at in range(spec.n_layers) for site in (Site("heads", at), *neuron_sites(spec, at))]


def units_of(target: TargetModel) -> list[Unit]:
    """All heads and neurons, in the order of `sites_of`."""
    spec = target.spec
    widths = {"heads": spec.n_heads, "neurons": spec.d_mlp}
    return [unit_at(site, index) for site in sites_of(target) for index in range(widths[site.name])]


class Moved(NamedTuple):
    """Of each unit, (n_units,): mean square, over tokens, of what it writes and of its change; of neurons also the mean square
    and the change of the activation and the correlation of both, NaN of heads."""

    written: Floats
    change: Floats
    fired: Floats
    fired_change: Floats
    correlation: Floats


@dataclass(frozen=True)
class Both:
    """One site of one batch by both models on the same inputs: (tokens, width[, d_head]); and where the batch lies."""

    site: Site
    before: Tensor
    after: Tensor


def same_inputs(before: TargetModel, after: TargetModel, tokens: Tokens) -> Iterator[Both]:
    """Each layer of `after` on what the layer gets in `before`, its MLP on what attention leaves there, batch by batch."""
    for rows in batches(tokens, BATCH_TOKENS):
        part = tokens.select(rows)
        width = int(part.lengths.max(initial=1))
        ids, scored = to_ids(part)[:, :width], torch.from_numpy(part.scored[:, :width])
        residual = before.run(ids, read=[Site("resid_pre", 0)], stop=1).read[Site("resid_pre", 0)]
        for layer in range(before.spec.n_layers):
            sites = [Site("heads", layer), *neuron_sites(before.spec, layer)]
            left, kept = Site("resid_post", layer), Site("attn_out", layer)
            start = (layer, residual)
            own = before.run(ids, read=[*sites, left, kept], start=start, stop=layer + 1).read
            pinned = [Edit(kept, "set", own[kept])]
            other = after.run(ids, read=sites, edits=pinned, start=start, stop=layer + 1).read
            for site in sites:
                yield Both(site, own[site][scored], other[site][scored])
            residual = own[left]


def moved(before: TargetModel, after: TargetModel, tokens: Tokens) -> Moved:
    """What each unit does differently on the same inputs, in the order of `units_of`."""
    sums: dict[Site, _Sums] = {}
    for both in same_inputs(before, after, tokens):
        sums.setdefault(both.site, _Sums()).add(both)
    found = [sums[site].of(before, after, site) for site in sites_of(before)]
    return Moved(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


class _Sums:
    """Second moments of both over the tokens: of heads (n_heads, d_head, d_head), of neurons (width,)."""

    def __init__(self) -> None:
        self._n = 0
        self._moments: list[Tensor] = []

    def add(self, both: Both) -> None:
        one, other = both.before.double(), both.after.double()
        form = "thi,thj->hij" if one.dim() == 3 else "ti,ti->i"
        found = [torch.einsum(form, *pair) for pair in ((one, one), (one, other), (other, other))]
        found += [one.sum(dim=0), other.sum(dim=0)]
        self._moments = [a + b for a, b in zip(self._moments, found, strict=True)] if self._moments else found
        self._n += len(one)

    def of(self, before: TargetModel, after: TargetModel, site: Site) -> Moved:
        squares, crossed, others, mean, mean_other = (moment / self._n for moment in self._moments)
        if site.name == "heads":
            was, now = (model.attention_weights(site.layer).W_O.double() for model in (before, after))
            written = ((squares @ was) * was).sum(dim=(1, 2))
            change = ((squares @ was) * was + (others @ now) * now - 2 * (crossed @ now) * was).sum(dim=(1, 2))
            empty = np.full(len(written), np.nan)
            return Moved(written.numpy(), _nothing_below(change, written), empty, empty, empty)
        was, now = (model.write_vectors(site.layer, site.expert).double() for model in (before, after))
        written = squares * (was * was).sum(dim=1)
        change = (
            squares * (was * was).sum(dim=1) + others * (now * now).sum(dim=1) - 2 * crossed * (was * now).sum(dim=1)
        )
        spread = ((squares - mean**2).clamp(min=0) * (others - mean_other**2).clamp(min=0)).sqrt()
        together = torch.where(spread > 0, (crossed - mean * mean_other) / spread, torch.nan)
        fired_change = _nothing_below(squares + others - 2 * crossed, squares)
        return Moved(written.numpy(), _nothing_below(change, written), squares.numpy(), fired_change, together.numpy())


def _nothing_below(change: Tensor, whole: Tensor) -> Floats:
    """Mean squares, 0 where they are only what double precision leaves of two equal sums."""
    return torch.where(change > 1e-13 * whole, change, torch.zeros_like(change)).numpy()


def vector_changes(before: TargetModel, after: TargetModel) -> tuple[Floats, Floats]:
    """Of each unit, in the order of `units_of`: the largest change of one of its vectors (a neuron's read and write vectors, a
    head's query, key, value and output weights) as a share of it, and the p of so much by noise over the layer's matrix."""
    from neuronaut.tools.changes.chance import row_chances

    relative, chances = [], []
    for site in sites_of(before):
        pairs = _parts(before, after, site)
        changes = [
            ((now - was).norm(dim=1).double().numpy(), was.norm(dim=1).double().numpy(), was.shape[1])
            for was, now in pairs
        ]
        shares = [np.divide(change, norm, out=np.zeros_like(change), where=norm > 0) for change, norm, _ in changes]
        ps = [row_chances(change, size) for change, _, size in changes]
        relative.append(np.max(shares, axis=0))
        chances.append(np.minimum(np.min(ps, axis=0) * len(ps), 1.0))
    return np.concatenate(relative), np.concatenate(chances)


def _parts(before: TargetModel, after: TargetModel, site: Site) -> list[tuple[Tensor, Tensor]]:
    """(n_units, numbers) of each kind of weight of the units of a site, in both models."""
    if site.name == "neurons":
        reads = (before.read_vectors(site.layer, site.expert), after.read_vectors(site.layer, site.expert))
        return [reads, (before.write_vectors(site.layer, site.expert), after.write_vectors(site.layer, site.expert))]
    was, now = before.attention_weights(site.layer), after.attention_weights(site.layer)
    shared: Sequence[str] = ("W_K", "W_V") if before.spec.n_kv_heads == before.spec.n_heads else ()
    return [(getattr(was, name).flatten(1), getattr(now, name).flatten(1)) for name in ("W_Q", "W_O", *shared)]

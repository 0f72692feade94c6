"""The residual stream and a unit side by side on text: all its places, and one place a document at which the unit is patched."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.look.activations import batches, site_activations, to_ids
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.sites import site_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

MOST_VALUES = 1 << 26  # of the residual that are held
MOST_DOCUMENTS, MIN_DOCUMENTS = 32, 8
BATCH = 4096  # padded tokens of one run


class Beside(NamedTuple):
    """At every scored place of a text, in one order: the residual where a read-out reads (n, d_model), that which drives the
    MLP of the unit (n, d_model), the activation of the unit (n,) and of its whole layer (n, d_mlp), the document (n,)."""

    residual: Tensor
    driving: Tensor
    activation: Tensor
    layer: Tensor
    documents: NDArray[np.int64]


def driving_sites(target: TargetModel, layer: int) -> tuple[Site, ...]:
    """The sites whose sum the MLP of a layer reads, before its norm."""
    before = (Site("resid_pre", layer),)
    return before if target.spec.parallel else (*before, Site("attn_out", layer))


def beside(target: TargetModel, site: Site, unit: Unit, tokens: Tokens) -> Beside:
    """What a read-out and a unit see at the scored places; as many windows as fit into MOST_VALUES."""
    width = 2 * target.spec.d_model + target.spec.d_mlp
    fits = np.cumsum(tokens.scored.sum(axis=1)) * width <= MOST_VALUES
    tokens = tokens if fits.all() else tokens.select(np.flatnonzero(fits))
    at, drives = site_of(target, unit), driving_sites(target, unit.layer)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    documents: list[NDArray[np.int64]] = []
    for rows in batches(tokens, BATCH):
        ids = to_ids(tokens, rows)
        read = target.run(ids, read={site, at, *drives}, stop=max(site.layer, unit.layer) + 1).read
        chosen = torch.from_numpy(tokens.scored[rows, : ids.shape[1]])
        driving = torch.stack([read[one] for one in drives]).sum(dim=0)
        parts.append((read[site][chosen].float(), driving[chosen].float(), read[at][chosen].float()))
        documents.append(np.repeat(tokens.documents[rows], chosen.sum(dim=1).numpy()))
    residual, driving, layer = (torch.cat(column) for column in zip(*parts, strict=True))
    if not all(bool(one.isfinite().all()) for one in (residual, driving, layer)):
        raise ToolFailed(f"the residual stream at {site} is not finite on this text")
    return Beside(residual, driving, layer[:, unit.index], layer, np.concatenate(documents))


def reach(activation: Tensor) -> tuple[float, float]:
    """The lowest and the highest of activations (n,), but for one in 1000 at either end."""
    some = activation[: 1 << 23]  # more torch.quantile does not take
    return float(torch.quantile(some, 0.001)), float(torch.quantile(some, 0.999))


def follows(site: Site, unit: Unit) -> bool:
    """Whether the residual at a site holds what the unit writes."""
    return site.layer > unit.layer or (site.layer == unit.layer and site.name == "resid_post")


@dataclass(frozen=True, eq=False)
class Places:
    """One place a document: that at which the unit is farthest from its median, so that there is something to scale.

    ids: (n, pos), cut behind the place. at: (n,) the places. near: (n, pos) those up to it that are scored.
    """

    ids: Tensor
    at: Tensor
    near: Tensor
    activation: Tensor  # (n, pos) of the unit, as it is
    start: tuple[int, Tensor] | None = field(repr=False)  # the residual before the unit's layer
    residual: Tensor = field(repr=False)  # (n, d_model) at the place, where the read-out reads

    def __len__(self) -> int:
        return len(self.at)

    def mask(self, where: str) -> Tensor:
        """(n, pos): `last`, the place alone, or `all` that come up to it."""
        here = torch.zeros_like(self.near)
        here[torch.arange(len(self)), self.at] = True
        return here if where == "last" else self.near

    def copies(self, k: int) -> "Places":
        """The same places k times over, one copy behind the other."""
        start = None if self.start is None else (self.start[0], self.start[1].repeat(k, 1, 1))
        rows = (self.ids.repeat(k, 1), self.at.repeat(k), self.near.repeat(k, 1), self.activation.repeat(k, 1))
        return Places(*rows, start, self.residual.repeat(k, 1))

    def run(self, target: TargetModel, sites: Sequence[Site], edits: Sequence[Edit]) -> list[Tensor]:
        """(n, d_model) of each site at the places, with edits made."""
        last = max(site.layer for site in (*sites, *(edit.site for edit in edits)))
        read = target.run(self.ids, read=sites, edits=edits, start=self.start, stop=last + 1).read
        return [read[site][torch.arange(len(self)), self.at].float() for site in sites]


def places(target: TargetModel, site: Site, unit: Unit, tokens: Tokens, *, seed: int = 0) -> Places:
    """The places of a text: half of them in the documents where the unit is farthest from its median, half in others, by lot.

    Refuses a text of fewer than 8 documents.
    """
    activation = site_activations(target, site_of(target, unit), np.array([unit.index]), tokens)[0]
    apart = np.where(tokens.scored, np.abs(activation - np.median(activation[tokens.scored])), -1.0)
    chosen = _documents(tokens, apart.max(axis=1), seed)
    at = apart[chosen].argmax(axis=1)
    width = int(at.max()) + 1
    tokens = tokens.select(chosen)
    ids = to_ids(tokens)[:, :width]
    first, rows = Site("resid_pre", unit.layer), torch.arange(len(chosen))
    read = target.run(ids, read={site, first}, stop=max(site.layer, unit.layer) + 1).read
    places = torch.from_numpy(at)
    near = torch.from_numpy(tokens.scored[:, :width]) & (torch.arange(width)[None] <= places[:, None])
    start = (unit.layer, read[first]) if follows(site, unit) else None
    own = torch.from_numpy(activation[chosen, :width]).float()
    return Places(ids, places, near, own, start, read[site][rows, places].float())


def _documents(tokens: Tokens, far: NDArray[np.floating], seed: int) -> NDArray[np.int64]:
    """(n,) a window of each chosen document: that in which the unit is farthest from its median."""
    order = np.argsort(-far, kind="stable")
    order = order[far[order] >= 0]
    _, firsts = np.unique(tokens.documents[order], return_index=True)
    windows = order[np.sort(firsts)]
    if len(windows) < MIN_DOCUMENTS:
        raise ToolRefused(f"the text has {len(windows)} documents, and {MIN_DOCUMENTS} are needed: give a corpus with more of them")  # fmt: skip
    half = min(MOST_DOCUMENTS, len(windows)) // 2
    rest = np.random.default_rng(seed).permutation(windows[half:])[: MOST_DOCUMENTS - half]
    return np.sort(np.concatenate([windows[:half], rest]))

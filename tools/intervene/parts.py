"""What can be taken out or moved: a neuron, a head, a feature, all that attention or MLP of a layer writes; and at which positions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.intervene.next_token import text_batches
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.checks import check_layer
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import columns_of, out_of, site_of, unit_at, width_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

N_PEERS = 32
_WHOLE = re.compile(r"L?(\d+)\.(attn_out|mlp_out)")
Positions = Literal["last", "all"] | tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """A neuron, head or feature (`index` in its site), or all that a layer's attention or MLP writes (`index` None).

    out: where it enters the residual stream.
    """

    site: Site
    index: int | None
    out: Site

    @classmethod
    def of(cls, target: TargetModel, unit: Unit) -> "Part":
        """The part of the model that a unit names; its sign is left out."""
        site = site_of(target, unit)
        return cls(site, unit.index, out_of(target, site))

    @classmethod
    def parse(cls, text: str, target: TargetModel) -> "Part":
        """`8.481`, `L8H3`, `sae:NAME/12`, `8.attn_out`, `8.mlp_out`. Refuses what names none of them, or one that the model
        lacks."""
        spec = target.spec
        if match := _WHOLE.fullmatch(text.strip()):
            layer = int(match[1])
            check_layer(spec, layer)
            site = Site("attn_out" if match[2] == "attn_out" else "mlp_out", layer)
            return cls(site, None, site)
        try:
            unit = Unit.parse(text)
        except UserError:
            raise ToolRefused(
                f"{text!r} names no part of a model: write a neuron as 8.481, a head as L8H3, a feature as sae:NAME/12, and "
                "all that a layer writes as 8.attn_out or 8.mlp_out"
            ) from None
        check_unit(spec, unit, target.dictionaries)
        return cls.of(target, unit)

    @property
    def address(self) -> str:
        """A name that parses back to this part."""
        if self.index is None:
            return str(self.site)
        return unit_at(self.site, self.index).address

    @property
    def is_number(self) -> bool:
        """Whether it is one number at each token: a neuron or a feature."""
        return self.index is not None and self.site.name in ("neurons", "features")

    def peers(self, target: TargetModel, tokens: Tokens, seed: int, most: int = N_PEERS) -> list["Part"]:
        """At most `most` other parts of its kind, drawn at random: those of its layer; for a whole output, of other layers; of
        features those of the dictionary that are active somewhere in the texts, any others where there are none."""
        spec, rng = target.spec, np.random.default_rng(seed)
        if self.index is None:
            layers = rng.permutation([i for i in range(spec.n_layers) if i != self.site.layer])[:most]
            sites = [Site(self.site.name, int(layer)) for layer in layers]
            return [Part(site, None, site) for site in sites]
        everyone = [i for i in range(width_of(target, self.site)) if i != self.index]
        live = active_features(target, self.site, tokens) if self.site.name == "features" else []
        others = rng.permutation([i for i in live if i != self.index] or everyone)[:most]
        return [replace(self, index=int(i)) for i in others]

    def within(self, values: Tensor) -> Tensor:
        """(…, 1 or d_head or d_model) its own part of its site, (…, width[, d_head])."""
        if self.index is None:
            return values
        return values[..., self.index, :] if self.site.name == "heads" else values[..., self.index, None]


class Places(NamedTuple):
    """Columns of each text, (n_texts, m) int64, -1 behind the last one of a text with fewer; `width` of the padded ids."""

    columns: Tensor
    width: int

    @property
    def aligned(self) -> bool:
        """Whether each text has as many places."""
        return bool((self.columns >= 0).all())

    @property
    def mask(self) -> Tensor:
        """(n_texts, width) bool."""
        found = torch.zeros(len(self.columns), self.width + 1, dtype=torch.bool)
        return found.scatter_(1, self._columns(), True)[:, : self.width]

    def take(self, values: Tensor) -> Tensor:
        """(n_texts, m, …) of values over all positions, (n_texts, width, …); of a text with fewer places, anything."""
        return values[torch.arange(len(self.columns))[:, None], self.columns.clamp(min=0)]

    def put(self, values: Tensor) -> Tensor:
        """(n_texts, width, …), 0 elsewhere, of values at the places, (n_texts, m, …)."""
        found = values.new_zeros(len(values), self.width + 1, *values.shape[2:])
        found[torch.arange(len(values))[:, None], self._columns()] = values
        return found[:, : self.width]

    def _columns(self) -> Tensor:
        return torch.where(self.columns < 0, self.width, self.columns)


def active_features(target: TargetModel, site: Site, tokens: Tokens) -> list[int]:
    """The features of a dictionary that are active at some scored token of the texts."""
    found = torch.zeros(width_of(target, site), dtype=torch.bool)
    for rows, batch in text_batches(target, tokens):
        read = target.run(to_ids(batch), read=[site], stop=site.layer + 1).read[site]
        found |= (read[torch.from_numpy(tokens.scored[rows, : read.shape[1]])] != 0).any(dim=0)
    return [int(i) for i in found.nonzero()[:, 0]]


def _read_at(part: Part, parts: Sequence[Part]) -> tuple[Site, int | None]:
    """Where a part is read together with others, and its column there."""
    if part.index is None:
        return part.site, None
    together = [other.index for other in parts if other.site == part.site and other.index is not None]
    site, columns = columns_of(part.site, together)
    return site, columns[together.index(part.index)]


def places_of(target: TargetModel, tokens: Tokens, positions: Positions) -> Places:
    """Where `positions` lie in each text: its last token, all tokens but BOS, or given ones, counted from 0 without BOS,
    negative ones from the end. Refuses an empty list, and a position that the shortest text lacks."""
    width, bos = tokens.ids.shape[1], started(target, tokens)
    lengths = torch.from_numpy(tokens.lengths)[:, None]
    if positions == "last":
        return Places(lengths - 1, width)
    if positions == "all":
        first = int(bos.min())
        columns = torch.arange(first, width) + (bos - first)
        return Places(torch.where(columns < lengths, columns, -1), width)
    if not positions:
        raise ToolRefused("positions is an empty list, so that nothing is changed: give at least 1, 'last' or 'all'")
    shortest = int((lengths - bos).min())
    for position in positions:
        if not -shortest <= position < shortest:
            raise ToolRefused(
                f"position {position} does not exist in each text: the shortest has {shortest} tokens, 0 to {shortest - 1} "
                f"from its start and -{shortest} to -1 from its end"
            )
    given = torch.tensor(positions)[None]
    return Places(torch.where(given < 0, lengths + given, given + bos), width)


def started(target: TargetModel, tokens: Tokens) -> Tensor:
    """(n_texts, 1) how many tokens that start a text stand at the beginning of each: 1 or 0; a chat has one if its template
    writes one."""
    bos = target.spec.bos
    return torch.from_numpy((tokens.ids[:, :1] == (-1 if bos is None else bos)) & (tokens.ids[:, :1] >= 0)).long()


def values_at(target: TargetModel, tokens: Tokens, parts: list[Part], places: Places) -> list[Tensor]:
    """(n_texts, m, 1 or d_head or d_model) of each part at the places, in one pass over the texts."""
    read_at = [_read_at(part, parts) for part in parts]
    sites = list(dict.fromkeys(site for site, _ in read_at))
    stop = max(site.layer for site in sites) + 1
    found: list[Tensor] = []
    for rows, batch in text_batches(target, tokens):
        chosen = torch.from_numpy(rows)
        here = Places(places.columns[chosen], batch.ids.shape[1])
        read = target.run(to_ids(batch), read=sites, stop=stop).read
        taken = {site: here.take(read[site]) for site in sites}
        for number, (part, (site, column)) in enumerate(zip(parts, read_at, strict=True)):
            value = replace(part, index=column).within(taken[site])
            if len(found) == number:
                found.append(value.new_empty(len(tokens), *value.shape[1:]))
            found[number][chosen] = value
    return found

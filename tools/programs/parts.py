"""The parts of a model, and what each of them writes to the residual stream on some texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from neuronaut.tools.programs.texts import Words
from neuronaut.tools.targets.base import Edit, Site, SiteName, TargetModel

Kind = Literal["token", "position", "head", "neurons", "output"]
SITES: tuple[SiteName, ...] = ("resid_pre", "heads", "attn_out", "neurons", "mlp_out", "resid_post")
SAME = 1e-3  # of the embedding: what differs by less between two tokens at one position does not depend on the token


@dataclass(frozen=True, order=True)
class Part:
    """What writes a value that others read: the token, the position, a head, or a group of neurons; "output" reads only."""

    layer: int
    kind: Kind
    indices: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """`L0H1` is a head; `L0N3+8` a group of 9 neurons of which 3 is the first."""
        match self.kind:
            case "head":
                return f"L{self.layer}H{self.indices[0]}"
            case "neurons":
                more = f"+{len(self.indices) - 1}" if len(self.indices) > 1 else ""
                return f"L{self.layer}N{self.indices[0]}{more}"
            case _:
                return self.kind


TOKEN, POSITION = Part(-1, "token"), Part(-1, "position")


def output_part(n_layers: int) -> Part:
    """What the next token is read from."""
    return Part(n_layers, "output")


class Observed:
    """The activations of a model on texts, read once; ids: (batch, pos)."""

    def __init__(self, target: TargetModel, words: Words, ids: Tensor) -> None:
        self.target, self.words, self.ids = target, words, ids
        layers = range(target.spec.n_layers)
        names = (*SITES, "pattern")
        run = target.run(ids, read=[Site(name, layer) for name in names for layer in layers], logits=True)
        self.read, self._written = run.read, dict[Part, Tensor]()
        assert run.logits is not None
        self.logits = run.logits

    def at(self, name: SiteName, layer: int) -> Tensor:
        """(batch, pos, …) of a site."""
        return self.read[Site(name, layer)]

    @cached_property
    def positional(self) -> Tensor | None:
        """(pos, d_model) what the position alone adds to the embedding; None where the model adds nothing."""
        rest = self.at("resid_pre", 0) - self.target.embed[self.ids]
        scale = float(self.target.embed[list(self.words.ids)].norm(dim=-1).mean())
        spread = float((rest - rest.mean(0)).abs().max())
        size = float(rest.abs().max())
        return rest.mean(0) if spread <= SAME * scale and size > 1e-5 else None

    def written(self, part: Part) -> Tensor:
        """(batch, pos, d_model) what a part adds to the residual stream: of a head or neurons, what is missing without it."""
        if part not in self._written:
            self._written[part] = self._write(part)
        return self._written[part]

    def _write(self, part: Part) -> Tensor:
        embedded = self.at("resid_pre", 0)
        outer: SiteName
        match part.kind:
            case "token":
                return embedded if self.positional is None else embedded - self.positional
            case "position":
                return torch.zeros_like(embedded) if self.positional is None else self.positional.expand_as(embedded)
            case "head":
                outer = "attn_out"
                edit = Edit(Site("heads", part.layer), "scale", 0.0, part.indices[0])
            case _:
                outer = "mlp_out"
                kept = torch.ones(self.target.spec.d_mlp)
                kept[list(part.indices)] = 0.0
                edit = Edit(Site("neurons", part.layer), "scale", kept)
        site, start = Site(outer, part.layer), (part.layer, self.at("resid_pre", part.layer))
        without = self.target.run(self.ids, read=[site], edits=[edit], start=start, stop=part.layer + 1).read[site]
        return self.read[site] - without

    def carried(self, layer: int, head: int) -> Tensor:
        """(batch, pos, d_model) what the head would write if it looked at that place alone.

        Each place is run as a text of its own, where there is nothing else to look at.
        """
        return carried_by(self.target, self.at("resid_pre", layer), layer, [head])[0]


def carried_by(target: TargetModel, residual: Tensor, layer: int, heads: Sequence[int]) -> Tensor:
    """(n_heads, batch, pos, d_model) what heads would write if they looked at one place alone. residual: before the layer."""
    single = residual.reshape(-1, 1, residual.shape[-1])
    ids, site = torch.zeros(len(single), 1, dtype=torch.long), Site("attn_out", layer)

    def written(edits: Sequence[Edit]) -> Tensor:
        return target.run(ids, read=[site], edits=edits, start=(layer, single), stop=layer + 1).read[site]

    whole = written([])
    each = [whole - written([Edit(Site("heads", layer), "scale", 0.0, head)]) for head in heads]
    return torch.stack(each).reshape(len(heads), *residual.shape)

"""Which part reads which: what a reader does when what one part wrote is exchanged on that one path alone.

All else is held fixed: the layer of the reader is run on the residual stream in which only that contribution differs. It is
exchanged for what the part wrote at another place, and taken out (of the token: its mean is put in).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronaut.tools.programs.parts import Observed, Part, carried_by
from neuronaut.tools.targets.base import Edit, Site, TargetModel

MIN_EFFECT = 0.004  # of attention moved, of what is carried, or of places changed: below it nothing is read
CHANGED = 0.15  # of the largest that a group writes: what differs by less at a place is the same
NEURON_CHANGED = 0.02  # of the neuron's largest activation
NEURON_SHARE = 0.1  # of the change by the part that the neuron reads most: less is rounding, or a trace


@dataclass(frozen=True)
class HeadReads:
    """Effects of one part on a head, each in [0, 1].

    queries, keys: attention moved (total variation) when the place that looks is changed, its own key included, and when
    all earlier places are. values: mean change of what a place offers, of the largest that any offers.
    """

    queries: float
    keys: float
    values: float

    @property
    def strongest(self) -> float:
        """The largest of the three."""
        return max(self.queries, self.keys, self.values)


class Exchange:
    """Contributions of parts that are exchanged in the observed texts. `seed` decides by which place, and which queries of
    the attention are looked at."""

    def __init__(self, observed: Observed, seed: int) -> None:
        self._observed, rng = observed, torch.Generator().manual_seed(seed)
        self._lead = observed.words.lead
        batch, pos = observed.ids.shape
        self._order = torch.randperm(batch * (pos - self._lead), generator=rng)
        low = self._lead + (pos - self._lead) // 3
        self.query = torch.randint(low, pos, (batch,), generator=rng)

    def differences(self, part: Part) -> Iterator[Tensor]:
        """(batch, pos, d_model) to add to the residual: exchanged, taken out. The start token's place keeps its own."""
        own = self._observed.written(part)
        text = own[:, self._lead :]
        rows = text.reshape(-1, text.shape[-1])
        other = rows[self._order].reshape(text.shape)
        nothing = rows.mean(0).expand_as(text) if part.kind == "token" else torch.zeros_like(text)
        for new in (other, nothing):
            yield torch.cat([torch.zeros_like(own[:, : self._lead]), new - text], dim=1)

    def heads(self, part: Part, layer: int, heads: Sequence[int]) -> list[HeadReads]:
        """What each of the heads of a layer reads of a part."""
        found = torch.zeros(3, len(heads))
        residual = self._observed.at("resid_pre", layer)
        rows = torch.arange(len(residual))
        here = torch.zeros(residual.shape[:2])
        here[rows, self.query] = 1.0
        usual = self._attention(residual, layer)[:, heads]
        carried = carried_by(self._observed.target, residual, layer, heads)
        scale = carried.norm(dim=-1).amax(dim=(1, 2)).clamp_min(1e-9)
        for difference in self.differences(part):
            for row, at in enumerate((here, 1 - here)):
                moved = self._attention(residual + at[..., None] * difference, layer)[:, heads] - usual
                found[row] = torch.maximum(found[row], moved.abs().sum(-1).mean(0) / 2)
            other = carried_by(self._observed.target, residual + difference, layer, heads)
            change = (other - carried).norm(dim=-1)[:, :, self._lead :].mean(dim=(1, 2)) / scale
            found[2] = torch.maximum(found[2], change.clamp(max=1.0))
        return [HeadReads(*column) for column in found.T.tolist()]

    def _attention(self, residual: Tensor, layer: int) -> Tensor:
        """(batch, n_heads, key) at the query of each text."""
        target, site = self._observed.target, Site("pattern", layer)
        pattern = target.run(self._observed.ids, read=[site], start=(layer, residual), stop=layer + 1).read[site]
        return pattern[torch.arange(len(pattern)), :, self.query]

    def neurons(self, part: Part, layer: int) -> list[Tensor]:
        """(batch, words, d_mlp) activations of a layer after each of the exchanges."""
        target, site = self._observed.target, Site("neurons", layer)
        start = (layer, self._observed.at("resid_pre", layer))
        return [
            target.run(
                self._observed.ids,
                read=[site],
                edits=[Edit(Site("attn_out", layer), "add", difference)],
                start=start,
                stop=layer + 1,
            ).read[site][:, self._lead :]
            for difference in self.differences(part)
        ]

    @property
    def target(self) -> TargetModel:
        """The model."""
        return self._observed.target

    def usual_neurons(self, layer: int) -> Tensor:
        """(batch, words, d_mlp) as they are."""
        return self._observed.at("neurons", layer)[:, self._lead :]

    def output(self, part: Part) -> float:
        """How much probability of the next token moves (total variation), in [0, 1]."""
        target, last = self._observed.target, self._observed.target.spec.n_layers - 1
        usual = self._observed.logits.softmax(-1)
        found = 0.0
        for difference in self.differences(part):
            logits = target.run(
                self._observed.ids,
                edits=[Edit(Site("resid_post", last), "add", difference)],
                start=(last, self._observed.at("resid_pre", last)),
                logits=True,
            ).logits
            assert logits is not None
            moved = (logits.softmax(-1) - usual).abs().sum(-1)[:, self._lead :].mean() / 2
            found = max(found, float(moved))
        return found


def neurons_reading(usual: Tensor, exchanged: Sequence[Sequence[Tensor]]) -> Tensor:
    """(n_parts, d_mlp) True for neurons whose activation changes somewhere. exchanged: of each part, (batch, pos, d_mlp)."""
    changes = torch.stack(
        [torch.stack([(one - usual).abs().amax((0, 1)) for one in part]).amax(0) for part in exchanged]
    )
    largest = torch.stack([one.abs().amax((0, 1)) for part in exchanged for one in (usual, *part)]).amax(0)
    least = torch.maximum(NEURON_CHANGED * largest.clamp_min(1e-6), NEURON_SHARE * changes.amax(0))
    return changes > least


def group_effect(usual: Tensor, exchanged: Sequence[Tensor], writes: Tensor) -> float:
    """Share of places at which what a group of neurons writes changes. (batch, pos, n) of the group; writes: (n, d_model)."""
    own = usual @ writes
    spread = (own - own.mean(dim=(0, 1))).norm(dim=-1).amax()
    shares = [((one @ writes - own).norm(dim=-1) > CHANGED * spread).float().mean() for one in exchanged]
    return float(torch.stack(shares).max())

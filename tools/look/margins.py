"""How much each part of a model adds, directly, to one token against another at every place of a text; and the same elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.look.readout import Readout
from neuronaut.tools.targets.base import ModelSpec, Site, TargetModel
from neuronaut.tools.targets.sites import all_neuron_sites, unit_at
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

BIASES = ("attention biases", "last norm's bias")
MOST_POS = 64  # of a window of other text
MIN_PLACES = 20
BAR = 0.99  # of the places of other text, at which the farthest part stays below the bar
LEAST = 0.05  # of the margin at a place, below which a part is not named
USUAL = 0.95  # of the places, between the ends
NEURON_PLACES = 256

Floats = NDArray[np.float64]


def part_names(spec: ModelSpec) -> tuple[str, ...]:
    """The embedding, heads and MLPs in the order in which they write, then the biases."""
    return (*Wires.of(spec).senders, *BIASES)


def margins(
    target: TargetModel, readout: Readout, ids: Tensor, answers: Tensor, rivals: Tensor | None = None
) -> Floats:
    """(n_parts, pos) logits that each part adds to an answer, less those that it adds to its rival where there is one; ids
    (1, pos), both tokens (pos,) or one for all places. Over parts they add up to the model's own (before a soft cap).

    The scale of the last norm is taken as it is at the place.
    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (direct attribution).
    """
    last = Site("resid_post", target.spec.n_layers - 1)
    residual = target.run(ids, read=[last]).read[last][0].float().clone()
    writes = target.senders(ids)[0].float()
    scale = readout.scale(residual, target.final_norm(residual).clone())
    way = _way(readout, answers, rivals).expand(-1, ids.shape[1]).T
    parts = torch.cat([writes, (residual - writes.sum(dim=0))[None]])
    found = torch.einsum("spd,pd->sp", readout.middle(parts) * readout.gain / scale, way)
    return torch.cat([found, (readout.bias * way).sum(dim=-1)[None]]).double().numpy()


def _way(readout: Readout, answers: Tensor, rivals: Tensor | None) -> Tensor:
    """(d_model, n) along which a normed residual raises answers, over their rivals where there are some."""
    way = readout.unembed[:, answers.reshape(-1)]
    return way if rivals is None else way - readout.unembed[:, rivals.reshape(-1)]


def by_layer(spec: ModelSpec, values: Floats) -> Floats:
    """(1 + n_layers, …) what the embedding and each layer's heads and MLP add, of the values of parts (n_parts, …)."""
    wires = Wires.of(spec)
    layers = [[*wires.heads(layer), *wires.mlp(layer)] for layer in range(spec.n_layers)]
    return np.stack([values[0], *(values[rows].sum(axis=0) for rows in layers)])


@dataclass(frozen=True)
class Elsewhere:
    """What parts add to the same margin at other places, (n, n_places); bar: the distance from its own mean that the farthest
    of all parts keeps at 99 % of the places. texts: how many the places are of."""

    values: Floats
    texts: int

    @property
    def mean(self) -> Floats:
        """(n,) what each adds on average."""
        return np.asarray(self.values.mean(axis=1))

    @property
    def bar(self) -> float:
        """See above: what is farther is more than a part happens to add."""
        return float(np.quantile(np.abs(self.values - self.mean[:, None]).max(axis=0), BAR))

    def bar_at(self, margin: float) -> float:
        """The bar for a place with this margin; never less than a share of it that is worth a name."""
        return max(self.bar, LEAST * abs(margin))

    @property
    def without_biases(self) -> "Elsewhere":
        """Of the parts alone."""
        return Elsewhere(self.values[: -len(BIASES)], self.texts)

    def by_layer(self, spec: ModelSpec) -> "Elsewhere":
        """Of the embedding and of each layer's heads and MLP together."""
        return Elsewhere(by_layer(spec, self.values), self.texts)

    @property
    def ends(self) -> Floats:
        """(2, n) between which each part lies at 95 % of the places."""
        return np.quantile(self.values, [(1 - USUAL) / 2, (1 + USUAL) / 2], axis=1)


def other_windows(tokens: Tokens, n: int, seed: int) -> list[Tensor]:
    """(1, pos) ids of the beginnings of windows of other text, of different documents first."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(tokens.lengths > 2))
    first = np.sort(np.unique(tokens.documents[order], return_index=True)[1])
    chosen = np.concatenate([order[first], np.delete(order, first)])[:n]
    return [torch.from_numpy(tokens.ids[at, : min(MOST_POS, int(tokens.lengths[at]))]).long()[None] for at in chosen]


class Places(NamedTuple):
    """A text, ids (1, pos), and some of its positions."""

    ids: Tensor
    at: list[int]


def null_places(target: TargetModel, windows: Sequence[Tensor], pair: tuple[int, int]) -> list[Places]:
    """The places of other text at which the model says neither token of a pair; all places where those are too few. Special
    tokens are left out."""
    every, free = [], []
    for ids in windows:
        kept = [at for at, token in enumerate(ids[0].tolist()) if token not in target.vocabulary.special]
        logits = target.run(ids, logits=True).logits
        assert logits is not None
        said = logits[0].argmax(dim=-1).tolist()
        every.append(Places(ids, kept))
        free.append(Places(ids, [at for at in kept if said[at] not in pair]))
    return [one for one in (free if sum(len(one.at) for one in free) >= MIN_PLACES else every) if one.at]


def elsewhere(target: TargetModel, readout: Readout, places: Sequence[Places], pair: tuple[int, int]) -> Elsewhere:
    """What each part adds to the margin of a pair of tokens at other places."""
    tokens = [torch.tensor(token) for token in pair]
    found = [margins(target, readout, ids, *tokens)[:, at] for ids, at in places]
    return Elsewhere(np.concatenate(found, axis=1), len(places))


class NeuronMargins(NamedTuple):
    """units: all neurons of the model, in order. values: (n_units, n) what each adds to a margin at some places; acts: (n_units, n)
    its activation there."""

    units: list[Unit]
    values: Floats
    acts: Floats

    def largest(self, k: int) -> list[int]:
        """Which k neurons add or take away most at the first place."""
        chosen: list[int] = np.argsort(-np.abs(self.values[:, 0]), kind="stable")[:k].tolist()
        return chosen


def neuron_margins(target: TargetModel, readout: Readout, where: Places, pair: tuple[int, int | None]) -> NeuronMargins:
    """What each neuron adds to the margin of a pair of tokens, or to the logit of one, at places of a text."""
    spec, (answer, rival) = target.spec, pair
    last = Site("resid_post", spec.n_layers - 1)
    sites = all_neuron_sites(spec)
    outs = [Site("mlp_out", layer) for layer in range(spec.n_layers)]
    read = {
        site: value[0, where.at].float().clone()
        for site, value in target.run(where.ids, read=[last, *sites, *outs]).read.items()
    }
    scale = readout.scale(read[last], target.final_norm(read[last]).clone())
    way = _way(readout, torch.tensor(answer), None if rival is None else torch.tensor(rival))[:, 0]
    units, values, every = list[Unit](), [], []
    for site in sites:
        vectors, acts = target.write_vectors(site.layer, site.expert).float(), read[site]
        whole, out = acts @ vectors, read[Site("mlp_out", site.layer)]
        # A norm behind the MLP divides all neurons alike; without one the rest is a bias of the MLP, or other experts.
        normed = (torch.nn.functional.cosine_similarity(whole, out, dim=-1) > 0.99999) & (site.expert is None)
        share = torch.where(normed, out.norm(dim=-1) / whole.norm(dim=-1).clamp_min(1e-20), torch.ones(()))[:, None]
        values.append((acts * ((readout.middle(vectors) * readout.gain) @ way) * share / scale).T)
        units += [unit_at(site, index) for index in range(acts.shape[1])]
        every.append(acts.T)
    empty = torch.zeros(0, len(where.at))
    joined = [torch.cat([empty, *parts]).double().numpy() for parts in (values, every)]
    return NeuronMargins(units, *joined)


def neurons_elsewhere(
    target: TargetModel, readout: Readout, places: Sequence[Places], pair: tuple[int, int]
) -> Elsewhere:
    """What each neuron adds at some of the other places."""
    step = max(1, sum(len(one.at) for one in places) // NEURON_PLACES)
    some = [Places(one.ids, one.at[number % step :: step]) for number, one in enumerate(places)]
    found = [neuron_margins(target, readout, one, pair).values for one in some if one.at]
    return Elsewhere(np.concatenate(found, axis=1), len(found))

"""The tool `steer_concept`: what the directions of a concept do to the next token, beside other directions of equal norm."""

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from neuronaut.tools.concepts.directions import difference, probe, random_directions
from neuronaut.tools.concepts.find import ConceptArgs, labels_of
from neuronaut.tools.concepts.places import Cells, Floats, Observed, means_at, observed, read_at
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, Series, curve
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.look.capture import find_site
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolContext, ToolResult, tool
from neuronaut.tools.stats import mean_interval, percentile_of
from neuronaut.tools.targets.base import Edit, Site, TargetModel

TOKENS = 10  # that are watched
MOST_STEERED = 48  # held-out texts without the concept
MOST_READ = 600  # observations of the search
DOSES = (0.25, 0.5, 1.0, 2.0)  # of the distance between the class means
ABOVE = 95.0  # percentile of both nulls that a direction must reach to be said to steer


class SteerConceptArgs(ConceptArgs):
    """A concept, and how many directions of each null are tried. layer: after which it is steered; without one that where the
    difference of means does most on the texts of the search."""

    example: ClassVar = {}
    layer: int | None = Field(default=None, ge=0)
    n_random: int = Field(default=40, ge=20, le=500)


class Steered(NamedTuple):
    """Texts that are steered: where each is pushed and read, and its residual before the layer."""

    target: TargetModel
    layer: int
    ids: Tensor
    residual: Tensor
    mask: Tensor
    owners: Tensor

    def moved(self, push: NDArray[np.float64], watched: Tensor) -> NDArray[np.float64]:
        """(n,) nats by which it is likelier under the push than under the opposite one, halved, that the next token is a watched one;
        the mean over the places of each text. What any push does to these tokens cancels out."""
        up, down = (self._said(sign * push, watched) for sign in (1, -1))
        sums = torch.zeros(int(self.owners.max()) + 1, dtype=torch.float64).index_add_(0, self.owners, (up - down) / 2)
        return np.asarray(sums / torch.bincount(self.owners))

    def _said(self, push: NDArray[np.float64], watched: Tensor) -> Tensor:
        along = torch.from_numpy(push).float()
        edit = Edit(Site("resid_post", self.layer), "add", along, positions=self.mask)
        logits = self.target.run(self.ids, edits=[edit], start=(self.layer, self.residual), logits=True).logits
        assert logits is not None
        return logits[self.mask].double().log_softmax(-1)[:, watched].logsumexp(-1)


@tool("steer_concept", opens_test_text=True)
def steer_concept(context: ToolContext, args: SteerConceptArgs) -> ToolResult:
    """What is predicted next at held-out places without the concept when the residual stream is pushed along its directions.

    delta: nats by which the 10 tokens rise together that the model says more at places with the concept (chosen on the texts of the
    search), under the push and against the opposite one, halved. Pushes are as long as the distance between the class means; along
    the difference of means and the probe. Nulls: random directions of that length; and all of it with shuffled labels, its own
    direction, length and tokens. steers: the 95 % interval above 0, and above 95 % of both nulls: fixed before these texts are opened.
    Refuses: a layer that the model does not have; a layer that holds the same with the concept as without.
    Source: Rimsky et al. 2023, arXiv:2312.06681 (steering along differences of means).
    """
    labels, concept = labels_of(context, args)
    every = observed(context.target, labels, concept)
    learned = _learned(context.target, _some(every.of("fit", "rank"), args.seed), args)
    along, other = learned.along, probe(learned.values, learned.positive)
    norm, layer = float(np.linalg.norm(along)), learned.site.layer
    if norm <= 1e-9:
        raise ToolRefused(
            f"layer {layer} holds the same with the concept as without: there is no direction to steer along"
        )
    steered = _steered(context.target, every.of("held"), layer, args.seed)
    watched = _watched(context.target, learned.said, learned.positive)
    null = _nulls(learned, steered, args)
    pushes = {"difference of means": along, "probe": other * (norm / max(float(np.linalg.norm(other)), 1e-12))}
    found = [_row(name, steered.moved(push, watched), null) for name, push in pushes.items()]
    doses = [float(steered.moved(dose * along, watched).mean()) for dose in DOSES]
    payload = {
        "concept": concept,
        "layer": layer,
        "n": int(steered.owners.max()) + 1,
        "norm": round(norm, 4),
        "watched": [context.target.vocabulary.pieces[i] for i in watched.tolist()],
        "directions": [row for row, _ in found],
        **{name: _spread(values) for name, values in null.items()},
        "doses": {str(dose): round(one, 4) for dose, one in zip(DOSES, doses, strict=True)},
        "cosine": round(float(along @ pushes["probe"]) / norm**2, 4),
    }
    drawn = _drawn(payload, doses, {name: float(np.quantile(values, 0.95)) for name, values in null.items()})
    return ToolResult(tuple(measured for _, measured in found), payload, {"direction": along}, (drawn,))


class Learned(NamedTuple):
    """What the texts of the search tell of a concept. values: (n, d_model) at the site; said: (n, d_vocab) how probable each next
    token is; positive: (n,)."""

    site: Site
    values: Floats
    said: Tensor
    positive: NDArray[np.bool_]

    @property
    def along(self) -> NDArray[np.float64]:
        """(d_model,) the difference of means."""
        return difference(self.values, self.positive)


def _learned(target: TargetModel, train: Observed, args: SteerConceptArgs) -> Learned:
    """At the layer that is asked for, or at which the difference of means does most to these texts."""
    layers = [args.layer] if args.layer is not None else list(range(target.spec.n_layers))
    sites = [find_site(target.spec, "resid_post", layer) for layer in layers]
    read, said = read_at(target, train, sites), _said_at(target, train)
    watched = _watched(target, said, train.positive)

    def done(site: Site) -> float:
        steered = _steered(target, train, site.layer, args.seed)
        return float(steered.moved(difference(read[site], train.positive), watched).mean())

    best = max(sites, key=done) if len(sites) > 1 else sites[0]
    return Learned(best, read[best], said, train.positive)


def _nulls(learned: Learned, steered: Steered, args: SteerConceptArgs) -> dict[str, NDArray[np.float64]]:
    """(n_random,) what random directions do, and what comes of shuffled labels."""
    target, along, said = steered.target, learned.along, learned.said
    norm, watched = float(np.linalg.norm(along)), _watched(target, said, learned.positive)
    random = random_directions(len(along), args.n_random, args.seed).T
    rng = np.random.default_rng(args.seed)
    mixed = [rng.permutation(learned.positive) for _ in random]
    shuffled = [steered.moved(difference(learned.values, one), _watched(target, said, one)).mean() for one in mixed]
    return {
        "random": np.array([steered.moved(norm * one, watched).mean() for one in random]),
        "shuffled": np.array(shuffled),
    }


def _drawn(payload: dict[str, Any], doses: list[float], bars: dict[str, float]) -> Figure:
    flat = [Series(f"{name}, at 1 (95 %)", DOSES, [bar] * len(DOSES)) for name, bar in bars.items()]
    title = f"Steering by {payload['concept']!r} after layer {payload['layer']}"
    axes = Axes(title, "push, in distances between the class means", "nats", "")
    return curve("concept_steering", [Series("difference of means", DOSES, doses), *flat], axes)


def _some(train: Observed, seed: int) -> Observed:
    """At most MOST_READ observations of the search, drawn without regard to their class."""
    if len(train) <= MOST_READ:
        return train
    return train.select(np.random.default_rng(seed).permutation(len(train))[:MOST_READ])


def _spread(null: NDArray[np.float64]) -> dict[str, float]:
    return {"mean": round(float(null.mean()), 4), "p95": round(float(np.quantile(null, 0.95)), 4), "n": len(null)}


def _row(
    name: str, changes: NDArray[np.float64], nulls: dict[str, NDArray[np.float64]]
) -> tuple[dict[str, Any], Measurement]:
    delta, ends = float(changes.mean()), mean_interval(changes)
    above = {null: percentile_of(delta, values) for null, values in nulls.items()}
    random = nulls["random"]
    low, high = ends or (delta, delta)
    row = {
        "direction": name,
        "delta": round(delta, 4),
        "interval": [round(low, 4), round(high, 4)],
        "z": round((delta - float(random.mean())) / max(float(random.std()), 1e-12), 2),
        "above_random": above["random"],
        "above_shuffled": above["shuffled"],
        "steers": bool(low > 0 and min(above.values()) >= ABOVE),
    }
    metric = f"delta_{name.replace(' ', '_')}"
    return row, Measurement(
        metric, delta, "nats", len(changes), ends, float(random.mean()), above["random"], n_of="texts"
    )


def _said_at(target: TargetModel, train: Observed) -> Tensor:
    """(n, d_vocab) how probable each next token is, the mean over the places of each observation."""

    def read(ids: Tensor, at: Cells) -> dict[str, Tensor]:
        logits = target.run(ids, logits=True).logits
        assert logits is not None
        return {"said": logits[at].float().softmax(-1)}

    return means_at(train, read, 2048)["said"]


def _watched(target: TargetModel, said: Tensor, positive: NDArray[np.bool_]) -> Tensor:
    """The tokens that the model says more at places with the concept than at others."""
    has = torch.from_numpy(positive)
    more = said[has].mean(dim=0) - said[~has].mean(dim=0)
    more[list(target.vocabulary.special)] = -1.0
    return torch.topk(more, min(TOKENS, len(more))).indices


def _steered(target: TargetModel, held: Observed, layer: int, seed: int) -> Steered:
    without = np.flatnonzero(~held.positive)
    chosen = np.sort(np.random.default_rng(seed).permutation(without)[:MOST_STEERED])
    kept = np.isin(held.owners, chosen)
    windows = np.unique(held.windows[kept])
    tokens = held.tokens.select(windows)
    rows = np.searchsorted(windows, held.windows[kept])
    mask = np.zeros(tokens.ids.shape, dtype=bool)
    owners = np.zeros(tokens.ids.shape, dtype=np.int64)
    mask[rows, held.positions[kept]] = True
    owners[rows, held.positions[kept]] = np.searchsorted(chosen, held.owners[kept])
    ids = to_ids(tokens)
    before = Site("resid_pre", layer)
    residual = target.run(ids, read=[before], stop=layer + 1).read[before]
    return Steered(target, layer, ids, residual, torch.from_numpy(mask), torch.from_numpy(owners[mask]))

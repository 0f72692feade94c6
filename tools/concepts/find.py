"""The tool `find_units`: which neurons, heads, features and directions tell texts with a concept from texts without it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuronaut.tools.concepts.directions import difference, probe, random_directions
from neuronaut.tools.concepts.nearest import nearest_units
from neuronaut.tools.concepts.places import Floats, Observed, observed, read_at
from neuronaut.tools.concepts.ranks import interval, p_values, ranked, ranks_of, shuffled
from neuronaut.tools.concepts.said import said_as
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, Series, curve
from neuronaut.tools.labels import LabelFile, of_texts
from neuronaut.tools.look.examples import Text
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of, q_values
from neuronaut.tools.targets.base import Site, SiteName, TargetModel
from neuronaut.tools.targets.sites import all_neuron_sites, unit_at
from neuronaut.tools.units import Unit

FDR = 0.05
N_SHUFFLES = 200
N_RANDOM = 100  # directions of each layer
FITTED_AT: tuple[SiteName, ...] = ("heads", "resid_post")
_MET = [
    f"{name} met at the {place}" for name in ("Mary", "Leo", "Alice", "Max") for place in ("river", "park", "library")
]
_HAVING = [f"{met} on {day}." for met in _MET for day in ("Monday", "Tuesday", "Friday", "Sunday")]
_LACKING = [f"{met} and saw {name}." for met in _MET for name in ("Lucy", "Anna", "Nora", "Simon")]


class ConceptArgs(ToolArgs):
    """A concept. labels: the name of a registered file of labelled texts, and concept: which of its labels is meant (of true and
    false: true). Or having, lacking: texts that have the concept and texts that lack it."""

    labels: str = ""
    concept: str = ""
    having: tuple[Text, ...] = Field(default=(), max_length=5_000)
    lacking: tuple[Text, ...] = Field(default=(), max_length=5_000)
    seed: int = Field(default=0, ge=0)


class FindUnitsArgs(ConceptArgs):
    """A concept (see its fields), and how many units are listed."""

    example: ClassVar = {
        "having": _HAVING,
        "lacking": _LACKING,
        "k": 5,
    }
    k: int = Field(default=10, ge=1, le=200)


def labels_of(context: ToolContext, args: ConceptArgs) -> tuple[LabelFile, str]:
    """The labelled texts that are meant, and the label that is the concept. Refuses none, and both ways at once."""
    given = bool(args.having or args.lacking)
    if given == bool(args.labels):
        raise ToolRefused(
            "a concept is given by labels, or by texts having it and texts lacking it: give one of the two"
        )
    if given and not (args.having and args.lacking):
        raise ToolRefused("one set of texts is empty: give texts that have the concept and texts that lack it")
    labels = of_texts(args.having, args.lacking) if given else context.registered.labelled(args.labels)
    return labels, labels.positive(args.concept)


@dataclass(frozen=True)
class Candidate:
    """A unit or direction as a detector. auroc: above 0.5; of units with the sign that makes it so, of fitted directions as it
    came. n: observations with and without the concept."""

    name: str
    kind: str
    layer: int
    auroc: float
    p: float
    n: tuple[int, int]
    q: float = 1.0

    def row(self) -> dict[str, Any]:
        """As JSON, with its interval."""
        low, high = interval(self.auroc, *self.n)
        numbers = {"auroc": round(self.auroc, 4), "interval": [round(low, 4), round(high, 4)], "p": self.p, "q": self.q}
        return {"unit": self.name, "kind": self.kind, "layer": self.layer} | numbers


@tool("find_units")
def find_units(context: ToolContext, args: FindUnitsArgs) -> ToolResult:
    """Neurons, features, heads and directions of the residual stream, ranked by how well they tell texts that have a concept from
    texts that lack it.

    auroc: 0.5 is chance, 1 a perfect detector, with its 95 % interval (Newcombe); a trailing - stands for low activations. q: the
    false discovery rate (Benjamini-Hochberg) over all that was ranked, from exchanged labels. Null: the best of all neurons
    and features when labels are shuffled (95th percentile of 200 shuffles), and 100 random directions of each layer.
    Texts are cut by a hash into fit, rank and held: what is fitted (probe, difference of means, a head's direction) is fitted on
    fit and ranked on rank; neurons and features are ranked on both; held is not opened. A labelled place is read at its last token,
    a labelled text as the mean over its tokens; a text counts once with each label.
    said_as: a list of tokens that stands for the concept in the hypothesis language, where there is one. nearest: neurons whose
    vectors lie along the difference of means of the best layer.
    Refuses: fewer than 8 texts with or without the concept in a part; labels of one class.
    """
    labels, concept = labels_of(context, args)
    target = context.target
    train = observed(target, labels, concept).of("fit", "rank")
    layers = range(target.spec.n_layers)
    unit_sites = all_neuron_sites(target.spec)
    unit_sites += [Site("features", one.layer, one.name) for one in target.dictionaries.values()]
    values = read_at(target, train, [*unit_sites, *(Site(at, layer) for layer in layers for at in FITTED_AT)])
    units, chance = _units(train, {site: values[site] for site in unit_sites}, args.seed)
    fitted = [one for layer in layers for one in _fitted(target, train, values, layer)]
    ordered = sorted(_with_q([*units, *fitted]), key=lambda one: (-one.auroc, one.p, one.layer, one.name))
    table = _by_layer(train, ordered, values, args.seed)
    best = _first(ordered, "direction")
    along = difference(*_part(train, values[Site("resid_post", best.layer)], "fit", "rank"))
    payload = {
        "concept": concept,
        "labels": labels.name,
        "n": {"fit": list(train.of("fit").n), "rank": list(train.of("rank").n)},
        "left_out": train.left_out,
        **_listed(ordered, args.k),
        "chance": chance,
        "layers": table,
        "best_layer": best.layer,
        "nearest": nearest_units(target, best.layer, along, args.k),
        "said_as": _said(train),
    }
    return ToolResult((_best(ordered, chance),), payload, {"direction": along}, (_drawn(table, chance, concept),))


def _listed(ordered: Sequence[Candidate], k: int) -> dict[str, Any]:
    units = [one for one in ordered if one.kind in ("neuron", "feature")]
    return {
        "ranked": len(ordered),
        "found": sum(one.q <= FDR for one in ordered),
        "found_units": sum(one.q <= FDR for one in units),
        "units": [one.row() for one in units[:k]],
        "heads": [one.row() for one in ordered if one.kind == "head"][:k],
        "directions": [_first(ordered, kind).row() for kind in ("direction", "probe")],
    }


def _said(train: Observed) -> dict[str, Any] | None:
    said = said_as(train)
    if said is None:
        return None
    told = {"told": round(said.told, 4), "mistaken": round(said.mistaken, 4)}
    return {"predicate": canonical_json(said.predicate), "words": str(said.predicate)} | told


def _best(ordered: Sequence[Candidate], chance: dict[str, Any]) -> Measurement:
    top = next(one for one in ordered if one.kind in ("neuron", "feature"))
    what, ends = "AUROC of the best neuron or feature", interval(top.auroc, *top.n)
    return Measurement("auroc", top.auroc, what, sum(top.n), ends, chance["best"], chance["percentile"], n_of="texts")


def _first(ordered: Sequence[Candidate], kind: str) -> Candidate:
    return next(one for one in ordered if one.kind == kind)


def _part(found: Observed, values: NDArray[Any], *parts: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    kept = np.isin(found.parts, parts)
    return values[kept], found.positive[kept]


def _units(train: Observed, values: dict[Site, Floats], seed: int) -> tuple[list[Candidate], dict[str, Any]]:
    """All neurons and features, and what chance finds among them."""
    rng = np.random.default_rng(seed)
    mixed = np.stack([rng.permutation(train.positive) for _ in range(N_SHUFFLES)], axis=1).astype(np.float64)
    found, most, null_p = list[Candidate](), np.full(N_SHUFFLES, 0.5), []
    for site, here in values.items():
        ranks = ranks_of(here)
        own, null = ranked(ranks, train.positive), shuffled(ranks, mixed)
        p = p_values(own.z, two_sided=True)
        null_p.append(p_values(null.z, two_sided=True))
        most = np.maximum(most, 0.5 + np.abs(null.auroc - 0.5).max(axis=0))
        for index, area in enumerate(own.auroc.tolist()):
            unit = unit_at(site, index).with_sign(1 if area >= 0.5 else -1)
            found.append(Candidate(unit.address, unit.kind, site.layer, max(area, 1 - area), float(p[index]), train.n))
    passing = (q_values(np.concatenate(null_p)) <= FDR).sum(axis=0)
    best = max(one.auroc for one in found)
    chance = {
        "best": round(float(np.quantile(most, 0.95)), 4),
        "percentile": percentile_of(best, most),
        "shuffles": N_SHUFFLES,
        "found_on_average": round(float(passing.mean()), 3),
        "shuffles_with_any": int((passing > 0).sum()),
    }
    return found, chance


def fitted_directions(train: Observed, values: dict[Site, Floats], layer: int) -> dict[str, NDArray[np.float64]]:
    """Difference of means and probe of a layer's residual stream, by the part fit."""
    x, positive = _part(train, values[Site("resid_post", layer)], "fit")
    return {"direction": difference(x, positive), "probe": probe(x, positive)}


def head_direction(target: TargetModel, train: Observed, heads: Floats, index: int) -> NDArray[np.float64]:
    """(d_head,) the difference of means of what one head mixes, by the part fit."""
    x, positive = _part(train, of_head(target, heads, index), "fit")
    return difference(x, positive)


def of_head(target: TargetModel, heads: Floats, index: int) -> Floats:
    """(n, d_head) what one head of a layer mixes; heads: (n, n_heads * d_head)."""
    d = target.spec.d_head
    return heads[:, index * d : (index + 1) * d]


def _fitted(target: TargetModel, train: Observed, values: dict[Site, Floats], layer: int) -> list[Candidate]:
    """The heads and directions of a layer, fitted on one part and ranked on another."""
    heads = values[Site("heads", layer)]
    scores = {f"L{layer} {kind}": (kind, values[Site("resid_post", layer)] @ along)
              for kind, along in fitted_directions(train, values, layer).items()}  # fmt: skip
    for index in range(target.spec.n_heads):
        along = head_direction(target, train, heads, index)
        scores[Unit("head", layer, index).address] = ("head", of_head(target, heads, index) @ along)
    columns, positive = _part(train, np.stack([one for _, one in scores.values()], axis=1), "rank")
    own = ranked(ranks_of(columns), positive)
    p, n = p_values(own.z, two_sided=False), train.of("rank").n
    rows = zip(scores.items(), own.auroc.tolist(), p.tolist(), strict=True)
    return [Candidate(name, kind, layer, area, one, n) for (name, (kind, _)), area, one in rows]


def _with_q(found: Sequence[Candidate]) -> list[Candidate]:
    q = q_values(np.array([one.p for one in found]))
    return [replace(one, q=float(value)) for one, value in zip(found, q, strict=True)]


def _by_layer(
    train: Observed, ordered: Sequence[Candidate], values: dict[Site, Floats], seed: int
) -> list[dict[str, Any]]:
    """The best of each kind in each layer, beside random directions of the residual stream, each turned to the class that it is
    higher for on the part fit."""
    rows = []
    for site in sorted(site for site in values if site.name == "resid_post"):
        x = values[site].astype(np.float64) @ random_directions(values[site].shape[1], N_RANDOM, seed + site.layer)
        fit, positive = _part(train, x, "fit")
        turned = np.sign(ranked(ranks_of(fit), positive).auroc - 0.5 + 1e-12)
        null = ranked(ranks_of(_part(train, x * turned, "rank")[0]), _part(train, x, "rank")[1]).auroc
        row: dict[str, Any] = {"layer": site.layer}
        for kind in ("neuron", "feature", "head", "direction", "probe"):
            best = next((one for one in ordered if one.layer == site.layer and one.kind == kind), None)
            row |= {} if best is None else {kind: best.name, f"{kind}_auroc": round(best.auroc, 4)}
        row |= {"random_mean": round(float(null.mean()), 4), "random_95": round(float(np.quantile(null, 0.95)), 4)}
        rows.append(row)
    return rows


def _drawn(table: Sequence[dict[str, Any]], chance: dict[str, Any], concept: str) -> Figure:
    layers = [row["layer"] for row in table]
    lines = {"best neuron": "neuron_auroc", "best head": "head_auroc", "probe": "probe_auroc",
             "difference of means": "direction_auroc", "random directions (95 %)": "random_95"}  # fmt: skip
    series = [Series(name, layers, [row[key] for row in table]) for name, key in lines.items() if key in table[0]]
    series.append(Series("best neuron, labels shuffled", layers, [chance["best"]] * len(layers)))
    return curve("concept_by_layer", series, Axes(f"What tells {concept!r}", "layer", "AUROC", ""))

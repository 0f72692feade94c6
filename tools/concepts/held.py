"""The tool `test_units`: units and directions that were found for a concept, on texts that the search did not open."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from neuronaut.tools.concepts.find import ConceptArgs, fitted_directions, head_direction, labels_of, of_head
from neuronaut.tools.concepts.places import Floats, Observed, observed, read_at
from neuronaut.tools.concepts.ranks import interval, p_values, ranked, ranks_of
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.registry import ToolContext, ToolResult, tool
from neuronaut.tools.stats import holm
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import site_of
from neuronaut.tools.units import Unit

LEVEL = 0.05  # of Holm's p, below which a unit tells the concept on held-out texts


class TestUnitsArgs(ConceptArgs):
    """A concept, and what is tested: units by their addresses, directions as `find_units` names them (`L5 probe`). said_as: the
    predicate (JSON) that stands for the concept, whose agreement with the labels is measured too."""

    example: ClassVar = {}
    units: tuple[str, ...] = Field(min_length=1, max_length=64)
    said_as: str = ""


@tool("test_units", opens_test_text=True)
def test_units(context: ToolContext, args: TestUnitsArgs) -> ToolResult:
    """AUROC of named units and directions on the held-out part of labelled texts, as they were turned and fitted on the others.

    tells: p against exchanged labels, one-sided, at most 0.05 after Holm over all that is tested here: fixed before these texts are
    opened. auroc: with its 95 % interval; 0.5 is chance. said_as: how often the predicate holds at held-out places with and
    without the concept. Refuses: what is no unit and no direction.
    """
    labels, concept = labels_of(context, args)
    every = observed(context.target, labels, concept)
    held = every.of("held")
    sites = dict.fromkeys(_site(context.target, name) for name in args.units)
    values = read_at(context.target, every, list(sites))
    scores = np.stack([_scores(context.target, every, values, name) for name in args.units], axis=1)[
        every.parts == "held"
    ]
    own = ranked(ranks_of(scores), held.positive)
    p, n = p_values(own.z, two_sided=False), held.n
    rows: list[dict[str, Any]] = []
    for name, area, one, whole in zip(args.units, own.auroc.tolist(), p.tolist(), holm(p), strict=True):
        low, high = interval(area, *n)
        numbers = {"auroc": round(area, 4), "interval": [round(low, 4), round(high, 4)], "p": one, "p_holm": whole}
        rows.append({"unit": name} | numbers | {"tells": whole <= LEVEL})
    best = max(range(len(rows)), key=lambda at: own.auroc[at])
    measured = Measurement(
        "auroc", float(own.auroc[best]), "AUROC", sum(n), interval(float(own.auroc[best]), *n), 0.5, n_of="texts"
    )
    payload = {"concept": concept, "labels": labels.name, "n": list(n), "units": rows, "level": LEVEL}
    return ToolResult((measured,), payload | ({"said_as": _agreement(held, args.said_as)} if args.said_as else {}))


def _named_direction(target: TargetModel, name: str) -> tuple[str, int] | None:
    layer, _, kind = name.removeprefix("L").partition(" ")
    if kind in ("direction", "probe") and layer.isdigit() and int(layer) < target.spec.n_layers:
        return kind, int(layer)
    return None


def _site(target: TargetModel, name: str) -> Site:
    if (direction := _named_direction(target, name)) is not None:
        return Site("resid_post", direction[1])
    unit = Unit.parse(name)
    check_unit(target.spec, unit, target.dictionaries)
    if unit.kind not in ("neuron", "feature", "head"):
        raise ToolRefused(f"{name} is no neuron, feature, head or direction: choose one that find_units lists")
    return site_of(target, unit)


def _scores(target: TargetModel, every: Observed, values: dict[Site, Floats], name: str) -> Floats:
    """(n,) of all observations."""
    site = _site(target, name)
    if (direction := _named_direction(target, name)) is not None:
        return np.asarray(values[site] @ fitted_directions(every, values, direction[1])[direction[0]])
    unit = Unit.parse(name)
    if unit.kind == "head":
        along = head_direction(target, every, values[site], unit.index)
        return np.asarray(of_head(target, values[site], unit.index) @ along)
    return np.asarray(unit.sign * values[site][:, unit.index])


def _agreement(held: Observed, said_as: str) -> dict[str, float]:
    """Share of the held-out places with and without the concept where a predicate holds."""
    true = holds(predicate_from_json(said_as), held.tokens)[held.windows, held.positions]
    has = held.positive[held.owners]
    return {"told": round(float(true[has].mean()), 4), "mistaken": round(float(true[~has].mean()), 4)}

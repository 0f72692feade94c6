"""What was found of a concept, in lines that people read."""

import json
from collections.abc import Iterator

from neuronaut.agent.lines import Payload, interval
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.predicates.words import claim_text

LISTED = 5


def find_units(payload: Payload, metrics: Payload) -> Iterator[str]:
    """The ranking, and what chance gives."""
    chance, has = payload["chance"], [sum(payload["n"][part][at] for part in ("fit", "rank")) for at in (0, 1)]
    verdict = f"{payload['found']} of {payload['ranked']} tell {payload['concept']!r} of {payload['labels']!r}"
    none = "none better than chance: " if not payload["found"] else ""
    yield f"{none}{verdict} at a false discovery rate of 5 %, on {has[0]} texts with it and {has[1]} without"
    for row in [*payload["units"][:LISTED], *payload["heads"][:3], *payload["directions"]]:
        yield f"{row['unit']:<12} {_area(row)}  q {row['q']:.2g}"
    yield (
        f"null: with labels shuffled {chance['shuffles']} times the best neuron or feature reaches {chance['best']:.2f} (95th percentile), and "
        f"{chance['found_on_average']:.2g} pass on average; units beside directions: the best layer's random ones reach "
        f"{max(row['random_95'] for row in payload['layers']):.2f}"
    )
    near = payload["nearest"]
    said = ", ".join(
        f"{row['unit']} {row['vector']} {row['cosine']:+.2f} (z {row['z']:+.1f})" for row in near["neurons"][:4]
    )
    yield f"along the difference of means after layer {payload['best_layer']}: {said}; random vectors ±{near['by_chance']:.2f}"
    if payload["said_as"]:
        said = payload["said_as"]
        words = claim_text(predicate_from_json(said["predicate"])).removeprefix("fires ")
        yield f"in the hypothesis language: {words} (at {said['told']:.0%} of its places, {said['mistaken']:.0%} of others)"
    else:
        yield "no list of tokens says it in the hypothesis language"
    if payload["left_out"]:
        yield f"left out: {payload['left_out']} rows whose place is no token"


def test_units(payload: Payload, metrics: Payload) -> Iterator[str]:
    """The same on held-out texts."""
    told = sum(row["tells"] for row in payload["units"])
    with_, without = payload["n"]
    yield (
        f"{told} of {len(payload['units'])} tell {payload['concept']!r} on held-out texts too ({with_} with it, {without} without; Holm)"
    )
    for row in sorted(payload["units"], key=lambda row: -row["auroc"]):
        yield f"{row['unit']:<12} {_area(row)}  p {row['p_holm']:.2g}" + (
            "" if row["tells"] else "  no better than chance"
        )
    if "said_as" in payload:
        yield f"its list of tokens holds at {payload['said_as']['told']:.0%} of the places with it, {payload['said_as']['mistaken']:.0%} of others"


def steer_concept(payload: Payload, metrics: Payload) -> Iterator[str]:
    """What the directions do."""
    watched = " ".join(json.dumps(token, ensure_ascii=False) for token in payload["watched"])
    yield (
        f"steering along {payload['concept']!r} after layer {payload['layer']}, at {payload['n']} held-out texts without it, by the distance "
        f"between the class means: nats by which {watched} rise, against the opposite push, halved"
    )
    for row in payload["directions"]:
        yield (
            f"{row['direction']:<20} {row['delta']:+.2f}{interval(row['interval'])}  above {row['above_random']:.0f} % of random ones and "
            f"{row['above_shuffled']:.0f} % with shuffled labels: "
            + ("it steers" if row["steers"] else "no better than those")
        )
    random, shuffled = payload["random"], payload["shuffled"]
    yield (
        f"null: {random['n']} random directions of equal norm {random['mean']:+.2f} (95 %: {random['p95']:+.2f}), the same with shuffled "
        f"labels {shuffled['mean']:+.2f} (95 %: {shuffled['p95']:+.2f}); the two directions have cosine {payload['cosine']:.2f}"
    )


def _area(row: Payload) -> str:
    return f"AUROC {row['auroc']:.3f}{interval(row['interval'])}"


OF_TOOLS = (find_units, steer_concept, test_units)

"""Contexts of a neuron in four bands, each token with its activation and with what a claim says: never only the strongest."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.examples import EXPLORE_TOKENS, TopExamplesArgs, choose_places, example
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.predicates.evaluate import strength
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

SILENT = 0.25  # of the way from the median to the largest activation
BINS = 24
Bools = NDArray[np.bool_]
Place = tuple[int, int]


class ContextsOfClaimArgs(ToolArgs):
    """Which neuron, the claim (JSON; without one nothing is predicted), how many contexts a band, how many tokens to each
    side."""

    example: ClassVar = {"unit": "8.481", "claim": '{"kind":"capitalised"}'}
    unit: str
    claim: Annotated[str, StringConstraints(max_length=100_000)] | None = None
    k: int = Field(default=5, ge=1, le=100)
    context: int = Field(default=12, ge=1, le=200)
    seed: int = 0


@tool("contexts_of_claim")
def contexts_of_claim(context: ToolContext, args: ContextsOfClaimArgs) -> ToolResult:
    """Contexts from explore text in four bands (top, quantiles, random, near misses), each token with the neuron's activation
    and, where a claim is given, with the strength in [0, 1] that it predicts; and the histogram of all activations.

    Near misses: places where the claim holds and the neuron does not fire, places where it fires and the claim does not hold,
    and places with a token on which it often fires where it is silent; in turn, one a document.
    """
    unit = Unit.parse(args.unit)
    if unit.kind == "head":
        raise ToolRefused(f"{unit.address} is a head: `top_examples` shows where it looks")
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    rule = firing_rule(activations, tokens)
    if isinstance(rule, str):
        raise ToolRefused(f"{unit.address} has no firing rule: {rule}")
    said = None if args.claim is None else strength(predicate_from_json(args.claim), tokens)
    fires = tokens.scored & (activations > rule.threshold)
    scale = float(activations[tokens.scored].max(initial=rule.median)) - rule.median
    quiet = rule.median + SILENT * scale
    near = _near(tokens, activations, fires, said, quiet, args.k)
    chosen = {
        band: [(place, "") for place in _band(tokens, activations, args, band)]
        for band in ("top", "quantiles", "random")
    }

    def told(places: Iterable[tuple[Place, str]]) -> list[dict[str, Any]]:
        return [
            example(tokens, unit.sign * activations, w, p, args.context)
            | ({} if said is None else {"predicted": _around(said, tokens, w, p, args.context)})
            | ({"note": note} if note else {})
            for (w, p), note in places
        ]  # fmt: skip

    n = f"{tokens.n_scored} explore tokens"
    rules = {band: f"band {band}, one place a document, {n}, seed {args.seed}" for band in chosen}
    rules["near_miss"] = f"where the claim is wrong, or its usual tokens leave it silent; one place a document, {n}"
    bands = {
        band: {"rule": rules[band], "examples": told(places)} for band, places in (chosen | {"near_miss": near}).items()
    }
    payload = {"unit": unit.address, "threshold": unit.sign * rule.threshold, "bands": bands}
    return ToolResult(payload=payload | {"histogram": _histogram(unit.sign * activations[tokens.scored])})


def _band(tokens: Tokens, activations: Array, args: ContextsOfClaimArgs, band: str) -> list[Place]:
    asked = {"unit": args.unit, "k": args.k, "band": band, "seed": args.seed}
    return choose_places(tokens, activations, TopExamplesArgs.model_validate(asked))


def _around(said: Array, tokens: Tokens, window: int, pos: int, context: int) -> list[float]:
    lo, hi = max(0, pos - context), min(int(tokens.lengths[window]), pos + context + 1)
    return [round(float(value), 3) for value in said[window, lo:hi]]


def _near(
    tokens: Tokens, activations: Array, fires: Bools, said: Array | None, quiet: float, k: int
) -> list[tuple[Place, str]]:
    """k places in turn of each kind, one a document."""
    turns: list[tuple[Iterator[Place], str]] = []
    if said is not None:
        holds = tokens.scored & (said > 0)
        turns.append((_places(holds & ~fires, activations), "the claim holds, and it does not fire"))
        turns.append((_places(fires & ~holds, -activations), "it fires, and the claim does not hold"))
    turns.append(
        (iter(look_alikes(tokens, activations, fires, quiet, k)), "a token on which it often fires, and it is silent")
    )
    found: list[tuple[Place, str]] = []
    documents = set[int]()
    while turns and len(found) < k:
        places, note = turns.pop(0)
        place = next((one for one in places if int(tokens.documents[one[0]]) not in documents), None)
        if place is not None:
            documents.add(int(tokens.documents[place[0]]))
            found.append((place, note))
            turns.append((places, note))
    return found


def _places(wrong: Bools, order: Array) -> Iterator[Place]:
    """The places of a mask, the lowest in `order` first."""
    where = np.argwhere(wrong)
    for at in np.argsort(order[wrong], kind="stable"):
        yield int(where[at][0]), int(where[at][1])


def look_alikes(tokens: Tokens, activations: Array, fires: Bools, quiet: float, k: int) -> list[Place]:
    """Places with a token on which the unit often fires, where it is below `quiet`: the quietest, one a document, the k most
    frequent such tokens in turn."""
    n_fired = np.bincount(tokens.ids[fires], minlength=len(tokens.vocabulary.pieces))
    silent = tokens.scored & (activations < quiet)
    by_token: list[list[Place]] = []
    for token in np.argsort(-n_fired, kind="stable")[:k]:
        if n_fired[token] == 0:
            break
        where = np.argwhere(silent & (tokens.ids == token))
        order = np.argsort(activations[where[:, 0], where[:, 1]], kind="stable")
        by_token.append([(int(window), int(pos)) for window, pos in where[order][: 2 * k]])
    found: list[Place] = []
    seen: set[int] = set()
    for turn in range(2 * k):
        for places in by_token:
            if turn < len(places) and (document := int(tokens.documents[places[turn][0]])) not in seen:
                seen.add(document)
                found.append(places[turn])
    return found[:k]


def _histogram(values: Array) -> dict[str, list[float]]:
    """How many scored tokens lie in each of equally wide bins."""
    counts, edges = np.histogram(values, bins=BINS)
    return {"edges": [round(float(edge), 5) for edge in edges], "counts": [int(count) for count in counts]}

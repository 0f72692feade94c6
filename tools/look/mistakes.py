"""Where a neuron fires on explore text, and where predicates are wrong about it: what a hypothesis is made and mended from."""

from collections import Counter
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.examples import EXPLORE_TOKENS, example
from neuronaut.tools.look.reads import FiringRule, count, f1_of, firing_rule
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

MOST_TOLD = 16
NEAR_THE_BEST = 0.5  # of the best F1
SAME_TOKEN = 2  # places of one predicate with the same current token, before others

Bools = NDArray[np.bool_]


class MistakesArgs(ToolArgs):
    """Which neuron, the predicates (JSON), how many of them have their wrong places told, how many such places of each kind,
    how many tokens to each side of a place."""

    example: ClassVar = {"unit": "8.481", "predicates": ['{"kind":"capitalised"}']}
    unit: str
    predicates: tuple[str, ...] = Field(min_length=1, max_length=MOST_TOLD)
    told: int = Field(default=MOST_TOLD, ge=0, le=MOST_TOLD)
    k: int = Field(default=8, ge=1, le=100)
    context: int = Field(default=12, ge=1, le=200)


class TokenTableArgs(ToolArgs):
    """Which neuron, how many tokens before the firing ones the table is about, how many rows."""

    example: ClassVar = {"unit": "8.481", "back": 1}
    unit: str
    back: int = Field(default=0, ge=0, le=64)
    k: int = Field(default=20, ge=1, le=1000)


class Seen(NamedTuple):
    """A neuron on the explore sample: its activations, sign applied, and when it fires."""

    unit: Unit
    tokens: Tokens
    activations: Array
    rule: FiringRule

    @classmethod
    def of(cls, context: ToolContext, address: str) -> "Seen":
        """Refuses a neuron without a firing rule."""
        unit = Unit.parse(address)
        tokens = context.sample("explore", EXPLORE_TOKENS)
        activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
        rule = firing_rule(activations, tokens)
        if isinstance(rule, str):
            raise ToolRefused(f"{unit.address} has no firing rule: {rule}")
        return cls(unit, tokens, activations, rule)

    @property
    def fires(self) -> Bools:
        """(n_windows, n_pos)."""
        return self.tokens.scored & (self.activations > self.rule.threshold)


@tool("mistakes")
def mistakes(context: ToolContext, args: MistakesArgs) -> ToolResult:
    """F1, precision and coverage of predicates on explore text, and where they are wrong.

    missed: places where the neuron fires and a predicate does not hold, the strongest first. silent: where one holds and
    the neuron does not fire, the lowest activation first. wrong: the numbers of the predicates that are wrong there, from
    0. The first `told` predicates take turns, the best one first, each with one place a document, two a token
    before more; those with less than half of the best F1 are left out, since their mistakes tell little.
    """
    seen = Seen.of(context, args.unit)
    tokens, activations, fires = seen.tokens, seen.activations, seen.fires
    held = [holds(predicate_from_json(source), tokens) & tokens.scored for source in args.predicates]
    scored = [scores(one, *seen[1:]) for one in held]
    turns = sorted(range(len(held[: args.told])), key=lambda at: -scored[at]["f1"])
    turns = [at for at in turns if scored[at]["f1"] >= NEAR_THE_BEST * scored[turns[0]]["f1"]]

    def told(wrong: dict[int, Bools], order: Array) -> list[dict[str, Any]]:
        places = _in_turn([_worst(one, order, tokens, args.k) for one in wrong.values()], args.k)
        return [
            example(tokens, seen.unit.sign * activations, w, p, args.context)
            | {"wrong": [at for at, one in sorted(wrong.items()) if one[w, p]]}
            for w, p in places
        ]

    missed = told({at: fires & ~held[at] for at in turns}, -activations)
    silent = told({at: held[at] & ~fires for at in turns}, activations)
    return ToolResult(
        payload={
            "unit": seen.unit.address,
            "text": f"{tokens.n_scored} explore tokens, {int(fires.sum())} of them fire",
            "predicates": [{"predicate": of, **row} for of, row in zip(args.predicates, scored, strict=True)],
            "missed": missed,
            "silent": silent,
        }
    )


def scores(held: Bools, tokens: Tokens, activations: Array, rule: FiringRule) -> dict[str, float]:
    """F1, precision and coverage (the share of the firing mass) of a predicate that holds at some places."""
    counts = count(held, activations, tokens, rule)
    _, precision, coverage = counts.scores(np.ones((1, len(counts.documents))))
    return {"f1": f1_of(counts), "precision": float(precision[0]), "coverage": float(coverage[0])}


def _worst(wrong: Bools, order: Array, tokens: Tokens, k: int) -> list[tuple[int, int]]:
    """At most k wrong places, one a document, the lowest in `order` first; those with a token that has two already come last."""
    where, documents, of_token = np.argwhere(wrong), set[int](), Counter[int]()
    first, rest = list[tuple[int, int]](), list[tuple[int, int]]()
    for at in np.argsort(order[wrong], kind="stable"):
        window, pos = int(where[at][0]), int(where[at][1])
        document, token = int(tokens.documents[window]), int(tokens.ids[window, pos])
        if document in documents:
            continue
        documents.add(document)
        of_token[token] += 1
        (first if of_token[token] <= SAME_TOKEN else rest).append((window, pos))
        if len(first) == k:
            break
    return [*first, *rest][:k]


def _in_turn(lists: list[list[tuple[int, int]]], k: int) -> list[tuple[int, int]]:
    """The first of each list, then the second of each, k different ones in all."""
    taken = dict.fromkeys(one[at] for at in range(k) for one in lists if at < len(one))
    return list(taken)[:k]


@tool("token_table")
def token_table(context: ToolContext, args: TokenTableArgs) -> ToolResult:
    """The tokens that stand some places before the firing ones on explore text: how often the neuron fires there.

    back: 0 is the current token, 1 the one before it. rate: share of the `n` occurrences with a neuron that fires `back`
    tokens later; its null is the share of all tokens on which it fires.
    """
    seen = Seen.of(context, args.unit)
    rate = float(seen.fires.sum() / max(1, seen.tokens.n_scored))
    rows = token_rates(seen.tokens, seen.fires, back=args.back, k=args.k)
    return ToolResult(payload={"unit": seen.unit.address, "back": args.back, "base_rate": rate, "tokens": rows})


def token_rates(tokens: Tokens, fires: Bools, *, back: int, k: int) -> list[dict[str, Any]]:
    """The k tokens `back` before the firing ones that account for most firings: piece, rate, n."""
    width = tokens.ids.shape[1]
    if back >= width:
        return []
    here = tokens.scored[:, back:] & tokens.scored[:, : width - back]
    ids = tokens.ids[:, : width - back][here]
    n = np.bincount(ids, minlength=len(tokens.vocabulary.pieces))
    fired = np.bincount(ids, weights=fires[:, back:][here], minlength=len(n))
    best = [int(i) for i in np.argsort(-fired, kind="stable")[:k] if fired[i] > 0]
    return [{"piece": tokens.vocabulary.pieces[i], "rate": float(fired[i] / n[i]), "n": int(n[i])} for i in best]

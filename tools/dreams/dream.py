"""The tool `dream`: fluent prompts that drive a unit, beside natural text, random prompts and dreams of null units."""

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from neuronaut.tools.dreams.aims import Aim
from neuronaut.tools.dreams.chosen import logit_aim, null_aims, unit_aim
from neuronaut.tools.dreams.front import front
from neuronaut.tools.dreams.natural import Natural, fluent_cost, grids, natural_of, strongest
from neuronaut.tools.dreams.search import Found, Plan, Prompts, dreamt, random_search
from neuronaut.tools.dreams.writing import TextWriting
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, Series, curve
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.units import Unit

LISTED = 10  # prompts of the front that are shown
LOGIT_TOKENS = 10_000  # of natural text, where logits are read
ABOVE = 95  # percentile among the null aims from which on a dream says something about the unit


class DreamArgs(ToolArgs):
    """A unit, or the logit of `answer` less that of `wrong_answer` (single tokens); all at the last token of a prompt.

    length: tokens of a prompt. steps, forwards: a search ends after so many, whichever comes first. population: prices
    of a nat. children: swaps of each member a step. keep: candidates a place. beginnings: searches that are begun apart.
    nulls: null aims, on each of which the same search is done: the whole takes about nulls + 3 times the forwards.
    """

    example: ClassVar = {"unit": "8.481", "forwards": 200, "nulls": 2}
    unit: str = ""
    answer: str = ""
    wrong_answer: str = ""
    length: int = Field(default=12, ge=2, le=64)
    steps: int = Field(default=60, ge=1, le=500)
    population: int = Field(default=8, ge=2, le=32)
    children: int = Field(default=8, ge=1, le=64)
    keep: int = Field(default=32, ge=1, le=256)
    beginnings: int = Field(default=2, ge=1, le=8)
    forwards: int = Field(default=3000, ge=50, le=200_000)
    nulls: int = Field(default=8, ge=2, le=64)
    seed: int = 0

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        logits = bool(self.answer), bool(self.wrong_answer)
        if bool(self.unit) == any(logits) or any(logits) != all(logits):
            raise ValueError("name either a unit, or answer and wrong_answer")
        return self

    @property
    def plan(self) -> Plan:
        """How it is searched."""
        return Plan(self.steps, self.population, self.children, self.keep, self.beginnings, self.forwards)


class Searched(NamedTuple):
    """One search: its name, how much it found at most and among fluent prompts (None: no such prompt), the same as shares of the
    way to the strongest natural example, and what it took."""

    name: str
    best: float
    fluent: float | None
    beyond: float
    fluent_beyond: float | None
    prompts: int
    forwards: float
    unwritable: int

    @classmethod
    def of(cls, name: str, found: Found, natural: Natural, bar: float) -> Self:
        """Of what a search found."""
        prompts = _some(found)
        fluent = prompts.values[prompts.costs <= bar]
        best, most = float(prompts.values.max()), float(fluent.max()) if len(fluent) else None
        beyond = None if most is None else natural.beyond(most)
        return cls(name, best, most, natural.beyond(best), beyond, len(prompts.ids), found.forwards, found.refused)

    def row(self) -> dict[str, Any]:
        """As data."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in self._asdict().items()}


def _some(found: Found) -> Prompts:
    """What was found. Refuses nothing at all."""
    prompts = found.prompts
    if not len(prompts.ids):
        raise ToolRefused(
            "no prompt of this length is a text that the tokenizer cuts into the same tokens: give another length"
        )
    return prompts


@tool("dream")
def dream(context: ToolContext, args: DreamArgs) -> ToolResult:
    """Synthetic prompts that drive a unit, or a difference of logits, at their last token: activation against fluency.
    They are evidence for proposers, marked synthetic; no claim is ever tested on them.

    beyond_natural: the largest activation, 0 at the median of explore text and 1 at its strongest place; null: the same
    search for random directions of equal norm (for logits: pairs of other tokens). fluent_beyond: the same among
    prompts whose nats a token are at most those of 90 % of natural pieces of their length; left out where there is none.
    dreamt, fluent: the activations themselves; null: random prompts, half of them pieces of natural text, for as many
    forward passes.
    Refuses heads, and prompts longer than the context.
    Source: Thompson, Straznickas and Sklar 2024, arXiv:2402.01702.
    """
    target, unit = context.target, Unit.parse(args.unit) if args.unit else None
    aim = logit_aim(target, args.answer, args.wrong_answer) if unit is None else unit_aim(target, unit)
    tokens = context.sample("explore", LOGIT_TOKENS if unit is None else EXPLORE_TOKENS)
    writing, rng = TextWriting(target, tokens, args.length), np.random.default_rng(args.seed)
    nulls = null_aims(aim, unit, args.nulls, args.seed)
    own, *others = grids([aim, *nulls], tokens)
    natural, bar = natural_of(own, tokens), fluent_cost(aim, writing, rng)
    found = dreamt(aim, writing, args.plan, natural.scale, rng)
    blind = dreamt(aim, writing, args.plan, natural.scale, rng, guided=False)
    drawn = random_search(aim, writing, found.forwards, rng)
    searches = [
        Searched.of(name, one, natural, bar)
        for name, one in (("dream", found), ("without gradients", blind), ("random prompts", drawn))
    ]
    dreams = [
        _null(one, writing, args.plan, natural_of(grid, tokens), bar, rng)
        for one, grid in zip(nulls, others, strict=True)
    ]
    pieces, whole = strongest(aim, writing, own, tokens)
    payload = {
        "synthetic": True,
        "unit": args.unit and aim.name,
        "aim": aim.name,
        "length": args.length,
        "natural": {"median": natural.median, "top": natural.top, "n_tokens": tokens.n_scored},
        "fluent_cost": round(bar, 4),
        "front": _front_rows(aim, found.prompts, natural, bar),
        "natural_examples": _natural_rows(aim, pieces, whole),
        "searches": [one.row() for one in searches],
        "nulls": [one.row() for one in dreams],
        "said": said(searches, dreams),
    }
    return ToolResult(
        tuple(_measured(searches, dreams)), payload, figures=(_figure(aim, found, blind, drawn, pieces, natural, bar),)
    )


def _null(
    aim: Aim, writing: TextWriting, plan: Plan, natural: Natural, bar: float, rng: np.random.Generator
) -> Searched:
    return Searched.of(aim.name, dreamt(aim, writing, plan, natural.scale, rng), natural, bar)


def said(searches: list[Searched], nulls: list[Searched]) -> str:
    """What the numbers say, by thresholds that are fixed here: chance is the best of random prompts and the null aims."""
    own, drawn = searches[0], searches[-1]
    if own.best <= drawn.best:
        return "none better than chance: random prompts drive it as far"
    if own.beyond <= 1:
        return "no dream drives it beyond the strongest natural text"
    above = float(np.mean([null.beyond < own.beyond for null in nulls]) * 100)
    if above < ABOVE:
        return f"driven beyond natural text, but no further than null units are ({above:.0f} % of them less far)"
    return f"driven beyond natural text, and further than {above:.0f} % of null units"


def _measured(searches: list[Searched], nulls: list[Searched]) -> list[Measurement]:
    own, drawn = searches[0], searches[-1]
    found = [
        Measurement("dreamt", own.best, "activation", own.prompts, null_value=drawn.best, n_of="prompts"),
        _beside("beyond_natural", own.beyond, [null.beyond for null in nulls], own.prompts),
    ]
    if own.fluent is not None and own.fluent_beyond is not None:
        others = [null.fluent_beyond for null in nulls if null.fluent_beyond is not None]
        found.append(
            Measurement("fluent", own.fluent, "activation", own.prompts, null_value=drawn.fluent, n_of="prompts")
        )
        found.append(_beside("fluent_beyond", own.fluent_beyond, others, own.prompts))
    return found


def _beside(metric: str, value: float, nulls: list[float], n: int) -> Measurement:
    mean = float(np.mean(nulls)) if nulls else None
    above = float(np.mean(np.array(nulls) < value) * 100) if nulls else None
    share = "share of the way to the strongest natural text"
    return Measurement(metric, value, share, n, null_value=mean, null_percentile=above, n_of="prompts")


def _front_rows(aim: Aim, prompts: Prompts, natural: Natural, bar: float) -> list[dict[str, Any]]:
    """The front, the strongest first; of a long one LISTED, evenly over it."""
    at = front(prompts.values, prompts.costs)[::-1]
    at = at[np.unique(np.linspace(0, len(at) - 1, min(LISTED, len(at))).round().astype(int))]
    return [
        _row(aim, prompts, int(row))
        | {"beyond": round(natural.beyond(float(prompts.values[row])), 4), "fluent": bool(prompts.costs[row] <= bar)}
        for row in at
    ]


def _natural_rows(aim: Aim, pieces: Prompts, whole: list[float]) -> list[dict[str, Any]]:
    best = np.argsort(-pieces.values, kind="stable")[:3].tolist()
    return [_row(aim, pieces, row) | {"in_its_text": round(whole[row], 4)} for row in best]


def _row(aim: Aim, prompts: Prompts, row: int) -> dict[str, Any]:
    return {
        "text": aim.target.decode(prompts.ids[row].tolist()),
        "activation": round(float(prompts.values[row]), 4),
        "cost": round(float(prompts.costs[row]), 4),
    }


def _figure(
    aim: Aim, found: Found, blind: Found, drawn: Found, pieces: Prompts, natural: Natural, bar: float
) -> Figure:
    parts = (("dream", found.prompts), ("without gradients", blind.prompts), ("random prompts", drawn.prompts))
    lines = []
    for name, prompts in (*parts, ("natural text, cut to this length", pieces)):
        at = front(prompts.values, prompts.costs)
        if len(at):
            lines.append(Series(name, prompts.costs[at].tolist(), prompts.values[at].tolist()))
    notes = (
        f"synthetic prompts; natural text reaches {natural.top:.3g}, 90 % of it costs at most {bar:.2f} nats a token",
    )
    return curve(
        "front", lines, Axes(f"Dreams of {aim.name}", "nats a token (less is more fluent)", "activation", notes=notes)
    )

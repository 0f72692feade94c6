"""The tool `dream`: fluent prompts that drive a unit, beside natural text, random prompts and dreams of null units."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from neuronaut.tools.dreams.aims import Aim
from neuronaut.tools.dreams.chosen import logit_aim, null_aims, unit_aim
from neuronaut.tools.dreams.found import Found, Prompts
from neuronaut.tools.dreams.front import front
from neuronaut.tools.dreams.natural import Floats, Natural, fluent_cost, grids, natural_of, strongest, verbatim
from neuronaut.tools.dreams.search import Beginning, Plan, dreamt, random_search
from neuronaut.tools.dreams.writing import TextWriting
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, Series, curve
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

LISTED = 10  # prompts of the front that are shown
LEAST = 0.1  # of the way to the strongest natural text, below which a prompt drives nothing and is not shown
LOGIT_TOKENS = 10_000  # of natural text, where logits are read
ABOVE = 95  # percentile among the null aims from which on a dream says something about the unit


class DreamArgs(ToolArgs):
    """A unit, or the logit of `answer` less that of `wrong_answer` (single tokens); all at the last token of a prompt.

    length: tokens of a prompt. steps, forwards: a search ends after so many, whichever comes first. population: parents
    a step. children: of each parent. keep: candidates a place.
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
        return Plan(self.steps, self.population, self.children, self.keep, self.forwards)


class Text(NamedTuple):
    """What searches share. tokens: natural text; bar: nats a token that fluent prompts cost at most."""

    tokens: Tokens
    writing: TextWriting
    plan: Plan
    bar: float


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
    forward passes. All searches begin with the strongest pieces of explore text, so that none ends below those.
    Refuses heads, and prompts longer than the context.
    Source: Thompson, Straznickas and Sklar 2024, arXiv:2402.01702.
    """
    target, unit = context.target, Unit.parse(args.unit) if args.unit else None
    aim = logit_aim(target, args.answer, args.wrong_answer) if unit is None else unit_aim(target, unit)
    tokens = context.sample("explore", LOGIT_TOKENS if unit is None else EXPLORE_TOKENS)
    writing, rng = TextWriting(target, tokens, args.length), np.random.default_rng(args.seed)
    nulls = null_aims(aim, unit, args.nulls, args.seed)
    own, *others = grids([aim, *nulls], tokens)
    text = Text(tokens, writing, args.plan, fluent_cost(aim, writing, rng))
    natural, (pieces, whole) = natural_of(own, tokens), strongest(aim, writing, own, tokens)
    begun = Beginning(natural.scale, pieces.ids)
    found = dreamt(aim, writing, args.plan, begun, rng)
    runs = {
        "dream": found,
        "without gradients": dreamt(aim, writing, args.plan, begun, rng, guided=False),
        "random prompts": random_search(aim, writing, begun, found.forwards, rng),
    }
    searches = [Searched.of(name, one, natural, text.bar) for name, one in runs.items()]
    dreams = [_null(one, grid, text, rng) for one, grid in zip(nulls, others, strict=True)]
    payload = {
        "synthetic": True,
        "unit": args.unit and aim.name,
        "aim": aim.name,
        "length": args.length,
        "natural": _natural(natural, pieces, text),
        "fluent_cost": round(text.bar, 4),
        "front": _front_rows(aim, found.prompts, natural, text),
        "natural_examples": _natural_rows(aim, pieces, whole),
        "searches": [one.row() for one in searches],
        "nulls": [one.row() for one in dreams],
        "said": said(searches, dreams),
    }
    return ToolResult(
        tuple(_measured(searches, dreams)), payload, figures=(_figure(aim, runs, pieces, natural, text.bar),)
    )


def _null(aim: Aim, grid: Floats, text: Text, rng: np.random.Generator) -> Searched:
    natural, (pieces, _) = natural_of(grid, text.tokens), strongest(aim, text.writing, grid, text.tokens)
    found = dreamt(aim, text.writing, text.plan, Beginning(natural.scale, pieces.ids), rng)
    return Searched.of(aim.name, found, natural, text.bar)


def _natural(natural: Natural, pieces: Prompts, text: Text) -> dict[str, Any]:
    """cut: the strongest piece as long as the prompts; cut_fluent: among fluent ones; None where there is none."""
    fluent = pieces.values[pieces.costs <= text.bar]
    return {
        "median": natural.median,
        "top": natural.top,
        "n_tokens": text.tokens.n_scored,
        "cut": round(float(pieces.values.max()), 4) if len(pieces.values) else None,
        "cut_fluent": round(float(fluent.max()), 4) if len(fluent) else None,
    }


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


def _front_rows(aim: Aim, prompts: Prompts, natural: Natural, text: Text) -> list[dict[str, Any]]:
    """What of the front drives it at all, the strongest first; of a long one LISTED, evenly over it. natural: stands in the
    text as it is."""
    at = front(prompts.values, prompts.costs)[::-1]
    driving = at[prompts.values[at] > natural.median + LEAST * natural.scale]
    at = driving if len(driving) else at[:1]
    at = at[np.unique(np.linspace(0, len(at) - 1, min(LISTED, len(at))).round().astype(int))]
    found = verbatim(prompts.ids[torch.from_numpy(at)][:, text.writing.start :], text.tokens)
    return [
        _row(aim, prompts, int(row))
        | {
            "beyond": round(natural.beyond(float(prompts.values[row])), 4),
            "fluent": bool(prompts.costs[row] <= text.bar),
            "natural": bool(copied),
        }
        for row, copied in zip(at, found, strict=True)
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


def _figure(aim: Aim, runs: Mapping[str, Found], pieces: Prompts, natural: Natural, bar: float) -> Figure:
    parts = {name: found.prompts for name, found in runs.items()} | {"natural text, cut to this length": pieces}
    lines = []
    for name, prompts in parts.items():
        at = front(prompts.values, prompts.costs)
        if len(at):
            lines.append(Series(name, prompts.costs[at].tolist(), prompts.values[at].tolist()))
    notes = (
        f"synthetic prompts; natural text reaches {natural.top:.3g}, 90 % of it costs at most {bar:.2f} nats a token",
    )
    return curve(
        "front", lines, Axes(f"Dreams of {aim.name}", "nats a token (less is more fluent)", "activation", notes=notes)
    )

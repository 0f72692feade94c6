"""Which text is predicted worse without a unit: claims compared on design text, and the registered test on a confirm block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.attention import some_windows
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.attends import Role, canonical_json, complexity, role_from_json, sentence
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import document_weights, percentile_interval, percentile_of
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import site_of, unit_at
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.nulls import other_units
from neuronaut.tools.trials.without import edited_log_probs, other_units_of
from neuronaut.tools.units import Unit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

N_OTHERS = 20
MAX_TOKENS = 8192  # of the text on which units are taken out
MIN_PLACES = 40  # of a candidate, on design text
LIST_SIZES = (1, 3, 5)
COMMON: tuple[Predicate, ...] = (
    nodes.Induction(length=1), nodes.Induction(length=2), nodes.Repeated(min_gap=1), nodes.StartsWord(),
    nodes.Capitalised(), nodes.Digit(), nodes.Punctuation(),
)  # fmt: skip


class RoleArgs(ToolArgs):
    """Which unit. predicates: JSON of other texts to compare, of the token that is predicted."""

    example: ClassVar = {"unit": "L9H0"}
    unit: str
    predicates: tuple[str, ...] = Field(default=(), max_length=32)
    seed: int = 0


class TestRoleArgs(ToolArgs):
    """The registered claim (JSON), and the confirm block that is opened."""

    example: ClassVar = {
        "unit": "9.7", "claim": '{"kind":"role","text":{"kind":"induction","length":1}}', "block": 2,
    }  # fmt: skip
    unit: str
    claim: str
    block: int = Field(ge=0, le=2)
    seed: int = 0


@dataclass(frozen=True)
class LossRise:
    """Nats that each token costs more when a unit carries what it carries elsewhere. rises: (n_units, n_windows, pos), 0 where
    nothing is predicted; predicted: (n_windows, pos) tokens that have one before them."""

    tokens: Tokens
    rises: NDArray[np.float32]
    predicted: Bools


class Contrast(NamedTuple):
    """By document, (n,) each, of documents with a predicted place: what the text loses beyond matched places; and what all
    other places lose."""

    delta: Floats
    elsewhere: Floats


def loss_rise(context: ToolContext, units: Sequence[Unit], tokens: Tokens, seed: int) -> LossRise:
    """Of every token of the text, for each of the units taken out alone."""
    for unit in units:
        check_unit(context.target.spec, unit, context.target.dictionaries)
    predicted = tokens.scored.copy()
    predicted[:, 0] = False
    rises = np.zeros((len(units), *tokens.ids.shape), dtype=np.float32)
    for rows, plain, edited in edited_log_probs(context.target, tokens, units, seed):
        width = plain.shape[1]
        wanted = torch.from_numpy(np.maximum(tokens.ids[rows, 1:width], 0)).long()[..., None]
        before = plain[:, :-1].gather(-1, wanted)[..., 0]
        for number, one in enumerate(edited):
            rises[number, rows, 1:width] = (before - one[:, :-1].gather(-1, wanted)[..., 0]).numpy()
    rises[:, ~predicted] = 0.0
    return LossRise(tokens, rises, predicted)


def matched(values: NDArray[np.float32], held: Bools, text: LossRise) -> Floats:
    """(n_tokens,) for each token id the mean of `values` at places outside `held` with the same token, or, where there is
    none, with tokens about as frequent; the mean of all of them where there is none of those either."""
    size = len(text.tokens.vocabulary.pieces)
    outside = text.predicted & ~held
    ids = text.tokens.ids[outside]
    count, total = np.bincount(ids, minlength=size), np.bincount(ids, weights=values[outside], minlength=size)
    band = np.log2(1.0 + np.bincount(text.tokens.ids[text.predicted], minlength=size)).astype(np.int64)
    in_band, of_band = np.bincount(band, weights=count), np.bincount(band, weights=total)
    overall = total.sum() / max(1, count.sum())
    by_band = np.divide(of_band, in_band, out=np.full(len(in_band), overall), where=in_band > 0)[band]
    return np.divide(total, count, out=by_band, where=count > 0)


def contrast(values: NDArray[np.float32], held: Bools, text: LossRise) -> Contrast:
    """What the claimed text loses more than matched text, and what all other text loses. values: (n_windows, pos)."""
    tokens, held = text.tokens, held & text.predicted
    beyond = np.where(held, values - matched(values, held, text)[np.maximum(tokens.ids, 0)], 0.0)
    other = text.predicted & ~held
    numbers, inverse = np.unique(tokens.documents, return_inverse=True)

    def by_document(parts: NDArray[Any]) -> Floats:
        return np.bincount(inverse, weights=parts.sum(axis=1), minlength=len(numbers)).astype(np.float64)

    n, n_other = by_document(held), by_document(other)
    delta = by_document(beyond)[n > 0] / n[n > 0]
    return Contrast(delta, by_document(np.where(other, values, 0.0))[n_other > 0] / n_other[n_other > 0])


@tool("compare_role", opens_test_text=True)
def compare_role(context: ToolContext, args: RoleArgs) -> ToolResult:
    """Nats that kinds of text lose beyond matched text when the unit carries what it carries elsewhere, on design text, the text
    that bears most of the loss first.

    delta: mean over documents, delta_low its one-sided 95 % lower bound; elsewhere: nats of all other tokens; bears: share
    of all nats lost that fall on the text. Matched places have the same token, or one about as frequent.
    """
    unit = Unit.parse(args.unit)
    tokens = _text(context.tokens("design"), args.seed)
    text = loss_rise(context, [unit], tokens, args.seed)
    values = text.rises[0]
    total = float(values[text.predicted].sum())
    rows: list[dict[str, Any]] = []
    for predicate in dict.fromkeys([*map(predicate_from_json, args.predicates), *COMMON, *_worst(text)]):
        held = holds(predicate, tokens) & text.predicted
        if MIN_PLACES <= held.sum() <= 0.9 * text.predicted.sum():
            found, claim = contrast(values, held, text), Role(text=predicate)
            rows.append(
                {
                    "claim": canonical_json(claim),
                    "sentence": sentence(claim),
                    "complexity": complexity(claim),
                    "delta": float(found.delta.mean()),
                    "delta_low": _bound(found.delta, 0.05),
                    "elsewhere": float(found.elsewhere.mean()),
                    "bears": float(values[held].sum()) / total if total > 0 else 0.0,
                    "places": int(held.sum()),
                }
            )
    rows.sort(key=lambda row: (not _apt(row), -float(row["bears"])))
    nats = Measurement("loss_rise", total / max(1, int(text.predicted.sum())), "nats a token", len(tokens))
    return ToolResult((nats,), {"unit": unit.address, "claims": rows[:12]})


def _apt(row: dict[str, Any]) -> bool:
    """Whether a text could be the unit's role: it loses something, and four times as much as the rest."""
    return bool(row["delta_low"] > 0 and abs(row["elsewhere"]) <= row["delta"] / 4)


def _text(tokens: Tokens, seed: int) -> Tokens:
    kept = some_windows(tokens, seed)
    enough = max(2, MAX_TOKENS // kept.ids.shape[1])
    return kept.select(range(min(len(kept), enough)))


def _worst(text: LossRise) -> list[Predicate]:
    """The tokens that lose most, and those after which most is lost, in lists of rising length."""
    size, found = len(text.tokens.vocabulary.pieces), list[Predicate]()
    lost = np.where(text.predicted, text.rises[0], 0.0)
    here = np.bincount(text.tokens.ids[text.predicted], weights=lost[text.predicted], minlength=size)
    before = text.tokens.ids[:, :-1][text.predicted[:, 1:] & text.tokens.scored[:, :-1]]
    weights = lost[:, 1:][text.predicted[:, 1:] & text.tokens.scored[:, :-1]]
    for mass, after in ((here, False), (np.bincount(before, weights=weights, minlength=size), True)):
        order = [int(i) for i in np.argsort(-mass, kind="stable")[: max(LIST_SIZES)] if mass[i] > 0]
        for n in LIST_SIZES:
            if n <= len(order):
                inner = nodes.Token(any_of=tuple(dict.fromkeys(text.tokens.vocabulary.pieces[i] for i in order[:n])))
                found.append(nodes.At(offset=1, inner=inner) if after else inner)
    return found


def _bound(values: Floats, quantile: float) -> float:
    """A bootstrap quantile of the mean over documents; 0 of none."""
    if not len(values):
        return 0.0
    weights = document_weights(len(values), 0)
    return float(np.quantile(weights @ values / len(values), quantile))


def _others(context: ToolContext, unit: Unit, seed: int) -> list[Unit]:
    """What a unit is compared with; of features those that fire."""
    if unit.kind != "feature":
        return other_units_of(context.target, unit, N_OTHERS, seed)
    site = site_of(context.target, unit)
    return [unit_at(site, int(index)) for index in other_units(context, unit).indices[:N_OTHERS]]


@tool("test_role", opens_test_text=True)
def test_role(context: ToolContext, args: TestRoleArgs) -> ToolResult:
    """The registered test of a role claim on one confirm block: nats that the claimed text loses beyond matched text when the
    unit carries what it carries elsewhere (at a random place of another document), mean by document.

    Its null is the same for other units: neurons of the layer, features of the dictionary, heads of the model. elsewhere: what all
    other tokens lose. A document bets 1 where its claimed text loses more than matched text, −1 where it loses less.
    """
    unit, claim = Unit.parse(args.unit), role_from_json(args.claim)
    tokens = _text(context.tokens("confirm", args.block), args.seed)
    others = _others(context, unit, args.seed)
    text = loss_rise(context, [unit, *others], tokens, args.seed)
    held = holds(claim.text, tokens)
    own, *nulls = (contrast(values, held, text) for values in text.rises)
    if len(own.delta) < 2:
        raise ToolRefused(
            f"{sentence(claim)!r}: such text stands in fewer than two documents here; it cannot be tested"
        )
    delta = float(own.delta.mean())
    null_deltas = np.array([one.delta.mean() for one in nulls])
    samples = document_weights(len(own.delta), 0) @ own.delta / len(own.delta)
    percentile = percentile_of(delta, null_deltas) if len(nulls) else 0.0
    median = float(np.median(null_deltas)) if len(nulls) else None
    measured = (
        Measurement("delta", delta, "nats a token", len(own.delta), percentile_interval(samples), median, percentile),
        Measurement("elsewhere", float(own.elsewhere.mean()), "nats a token", len(own.elsewhere)),
    )
    payload = {
        "unit": unit.address,
        "sentence": sentence(claim),
        "complexity": complexity(claim),
        "delta_low": float(np.quantile(samples, 0.05)),
        "elsewhere_low": _bound(own.elsewhere, 0.05),
        "elsewhere_high": _bound(own.elsewhere, 0.95),
        "bets": [float(np.sign(value)) for value in own.delta if value],
        "others": [one.address for one in others],
        "nulls": null_deltas.round(6).tolist(),
    }
    return ToolResult(measured, payload)

"""The test that a unit changed more than noise changes any: on text that it was not found on, beside noise drawn anew."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from neuronaut.tools.changes.carried import own_change
from neuronaut.tools.changes.chance import in_noises
from neuronaut.tools.changes.diff import check_comparable
from neuronaut.tools.changes.moved import moved, units_of
from neuronaut.tools.changes.rule import MIN_TIMES
from neuronaut.tools.changes.weights import compared, folder_of, noise_folder
from neuronaut.tools.intervene.next_token import text_batches
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import document_weights, percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import check_unit, load_target
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

BETS_ON = 4  # documents are what bets need, and one unit costs little
FRESH = 500  # added to the numbers of the twins, so that none is one by which the unit was found

Floats = NDArray[np.float64]


class TestChangeArgs(ToolArgs):
    """The other checkpoint by its name, the unit, the confirm block that is opened. n_tokens: of that block for all units, and of
    explore text by which the unit of each twin is chosen; the unit itself is followed on BETS_ON times as many of the block.
    twins: checkpoints made of noise."""

    example: ClassVar = {"other": "BASE", "unit": "8.481", "block": 0, "n_tokens": 500, "twins": 4}
    other: str = Field(min_length=1, max_length=64)
    unit: str = Field(min_length=1, max_length=80)
    block: int = Field(ge=0, le=2)
    n_tokens: int = Field(default=2000, ge=200, le=100_000)
    twins: int = Field(default=20, ge=4, le=200)
    seed: int = Field(default=0, ge=0)


class Held(NamedTuple):
    """Mean squares of the change of what is written: of the unit by document, by the other checkpoint (n_documents,) and by noise
    twins (n_twins, n_documents); of all units by the other checkpoint (n_units,), and by the twins on explore text and on the
    block (n_twins, n_units)."""

    own: Floats
    noise: Floats
    all_own: Floats
    found_on: Floats
    tested_on: Floats


@tool("test_change", opens_test_text=True)
def test_change(context: ToolContext, args: TestChangeArgs) -> ToolResult:
    """The test that a unit changed more than noise changes any unit, on confirm text.

    times: root mean square change of what the unit writes on the same inputs, beside that of noise twins drawn anew. Its null
    are the units that noise moves most: of each twin the one that explore text puts first, beside the other twins on this
    text; percentile: among these. times_low: one-sided 95 % lower bound over documents. place: of the unit among all by
    `times`. bets: 1 for a document in which it is moved MIN_TIMES times as far as by noise, -1 for any other.
    Refuses what `diff_models` refuses.
    """
    target, other = context.target, context.registered.other(args.other).target
    unit = Unit.parse(args.unit)
    check_unit(target.spec, unit)
    check_comparable(target, other)
    held = _held(context, other, unit, args)
    times = _times(held.own.mean(), held.noise.mean())
    low, high = _bounds(held, args.seed)
    _, on_explore = in_noises(held.found_on[0], held.found_on)
    all_times, on_block = in_noises(held.all_own, held.tested_on)
    nulls = on_block[np.arange(args.twins), on_explore.argmax(axis=1)]
    at = units_of(target).index(unit)
    percentile = percentile_of(times, nulls)
    bets = _bets(held)
    payload: dict[str, Any] = {
        "unit": unit.address, "other": args.other, "times": times, "times_low": low, "percentile": percentile,
        "noise": sorted(float(one) for one in nulls), "twins": args.twins, "units": len(all_times),
        "place": 1 + int((all_times > all_times[at]).sum()), "bets": bets, "wins": bets.count(1.0), "losses": bets.count(-1.0),
    }  # fmt: skip
    shown = Measurement(
        "times",
        times,
        "times noise",
        len(held.own),
        (low, high) if low <= high else None,
        float(np.median(nulls)),
        percentile,
    )
    return ToolResult((shown,), payload)


def _held(context: ToolContext, other: TargetModel, unit: Unit, args: TestChangeArgs) -> Held:
    target, block = context.target, context.tokens("confirm", args.block)
    tokens, whole = _first(block, args.n_tokens), _first(block, BETS_ON * args.n_tokens)
    explore = context.sample("explore", args.n_tokens)
    found = compared(folder_of(target), folder_of(other))
    noise, found_on, tested_on = [], [], []
    for number in range(args.twins):
        with tempfile.TemporaryDirectory() as place:
            folder = noise_folder(found, 1000 * args.seed + FRESH + number, Path(place) / "twin")
            twin = load_target(folder.path)
            noise.append(_by_document(target, twin, unit, whole))
            found_on.append(moved(target, twin, explore).change)
            tested_on.append(moved(target, twin, tokens).change)
    own = _by_document(target, other, unit, whole)
    return Held(own, np.array(noise), moved(target, other, tokens).change, np.array(found_on), np.array(tested_on))


def _by_document(before: TargetModel, after: TargetModel, unit: Unit, tokens: Tokens) -> Floats:
    """(n_documents,) mean square of the change of what the unit writes."""
    sums, counts = np.zeros(len(tokens)), tokens.scored.sum(axis=1)
    for rows, part in text_batches(before, tokens):
        _, edit = own_change(before, after, unit, to_ids(part))
        assert isinstance(edit.value, torch.Tensor)
        squares = edit.value.double().square().sum(dim=-1).numpy()
        sums[rows] = (squares * part.scored).sum(axis=1)
    order = np.unique(tokens.documents, return_inverse=True)[1]
    return np.asarray(np.bincount(order, sums) / np.maximum(np.bincount(order, counts), 1), dtype=np.float64)


def _first(tokens: Tokens, n_tokens: int) -> Tokens:
    """The first windows that hold so many tokens."""
    enough = int(np.searchsorted(np.cumsum(tokens.lengths), n_tokens)) + 1
    return tokens if enough >= len(tokens) else tokens.select(range(enough))


def _times(own: float, noise: float) -> float:
    return float(np.sqrt(own / noise)) if noise > 0 else 0.0


def _bounds(held: Held, seed: int) -> tuple[float, float]:
    """The 5 % and the 95 % quantile of `times` over documents drawn with replacement."""
    weights, noise = document_weights(len(held.own), seed), held.noise.mean(axis=0)
    samples = [_times(own, of_noise) for own, of_noise in zip(weights @ held.own, weights @ noise, strict=True)]
    low, high = np.quantile(samples, [0.05, 0.95])
    return float(low), float(high)


def _bets(held: Held) -> list[float]:
    """One of each document in which anything moved the unit."""

    def won() -> Iterator[float]:
        for own, noise in zip(held.own, held.noise.mean(axis=0), strict=True):
            if own > 0 or noise > 0:
                yield 1.0 if own > MIN_TIMES**2 * noise else -1.0

    return list(won())

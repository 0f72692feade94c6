"""The tool that compares the target with another checkpoint: tensors, units, residual streams and outputs, beside noise."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuronaut.tools.changes.carried import Drift, Effects, alone, drift
from neuronaut.tools.changes.chance import LEVEL, in_noises, tail_chances
from neuronaut.tools.changes.moved import Moved, moved, units_of, vector_changes
from neuronaut.tools.changes.pictures import pictures
from neuronaut.tools.changes.weights import Compared, compared, folder_of, noise_folder
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import mean_interval, percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import check_unit, load_target
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

FOLLOWED_TWINS = 4  # whose drift and whose largest effects are measured
FOLLOWED_UNITS = 3  # of each of these twins
KINDS = ("vectors", "activations", "writes")

Floats = NDArray[np.float64]


class DiffArgs(ToolArgs):
    """The other checkpoint by its name. unit: a neuron or head whose row is wanted too; k: rows; n_tokens: of explore text,
    half to rank by and half to measure on; twins: checkpoints made of noise."""

    example: ClassVar = {"other": "BASE", "n_tokens": 1000, "twins": 4, "k": 5}
    other: str = Field(min_length=1, max_length=64)
    unit: str = Field(default="", max_length=80)
    k: int = Field(default=10, ge=1, le=100)
    n_tokens: int = Field(default=4000, ge=200, le=100_000)
    twins: int = Field(default=20, ge=FOLLOWED_TWINS, le=200)
    seed: int = Field(default=0, ge=0)


class Noise(NamedTuple):
    """What noise twins do: mean squares of what units write and how they fire (n_twins, n_units); the effects of the units that
    they move most, and their drift."""

    change: Floats
    fired_change: Floats
    kl: list[float]
    drifts: list[Drift]


@tool("diff_models")
def diff_models(context: ToolContext, args: DiffArgs) -> ToolResult:
    """What changed between the target and another checkpoint of it: tensors, heads and neurons, the residual stream by layer, and
    the output; each beside noise twins, the target plus normal noise of the norm of each tensor's change.

    vector: largest change of one of a unit's vectors as a share of it. activation: root mean square change as a share of the
    activation's; write: of what the unit adds to the residual stream, as a share of what it added; both on the same inputs, so
    that nothing counts that earlier layers changed. times: write change beside the mean of the twins. p: of vectors exact, of
    the others by the tail of the twins, times all units; beyond: p < 0.001. kl: nats a token that the unit's change alone,
    put into the target, moves the output by, on text that it was not ranked by; null: the largest of the units that twins
    move most. Where a norm follows the MLP or attention, its scale is left out of write and kl.
    Refuses equal weights, another architecture, another tokenizer, weights that lie in no folder.
    """
    target, other = context.target, context.registered.other(args.other).target
    asked = _asked(target, args.unit)
    check_comparable(target, other)
    found = compared(folder_of(target), folder_of(other))
    if strange := [one.name for one in found.tensors if not np.isfinite(one.change)]:
        raise ToolRefused(f"{strange[0]} of {args.other!r} holds numbers that are not finite: give a sound checkpoint")
    tokens = context.sample("explore", args.n_tokens)
    ranked_by, measured_on = _halves(tokens)
    own = moved(target, other, ranked_by)
    noise = _noise(target, found, args, ranked_by, measured_on)
    rows, counts = _ranked(target, other, own, noise, asked)
    shown = rows[: args.k] + [row for row in rows[args.k :] if row["unit"] == args.unit]
    effects = alone(target, other, [Unit.parse(row["unit"]) for row in shown], measured_on)
    _with_effects(shown, effects, noise)
    drifted = drift(target, other, measured_on)
    payload: dict[str, Any] = {
        "target": target.spec.name,
        "other": args.other,
        "unit": asked.address if asked else "",
        "tensors": _tensors(found),
        "unlike": list(found.unlike),
        "n_units": len(rows),
        "beyond": counts,
        "units": shown,
        "twins": args.twins,
        "level": LEVEL,
        "drift": _drift(drifted, noise),
    }
    return ToolResult(_measurements(drifted, counts, noise, len(rows)), payload, figures=pictures(payload))


def check_comparable(target: TargetModel, other: TargetModel) -> None:
    """Refuses, in one sentence, models that are no checkpoints of one architecture and tokenizer, or run by two engines."""
    one, two = target.spec, other.spec
    for name in ("n_layers", "d_model", "d_mlp", "n_heads", "n_kv_heads", "n_experts", "activation", "norm", "gated"):
        if (was := getattr(one, name)) != (now := getattr(two, name)):
            raise ToolRefused(
                f"{two.name} is no checkpoint of {one.name}: its {name} is {now} and not {was}; units of unlike models are "
                "matched by what they do"
            )
    if target.vocabulary.pieces != other.vocabulary.pieces or one.bos != two.bos:
        raise ToolRefused(
            f"{two.name} has another tokenizer than {one.name}, so that no text is the same to both: give checkpoints that "
            "share one"
        )
    if target.fingerprint().backend != other.fingerprint().backend:
        raise ToolRefused(
            f"{one.name} and {two.name} are run by two engines, which differ by themselves: leave out --backend"
        )


def _asked(target: TargetModel, text: str) -> Unit | None:
    if not text:
        return None
    unit = Unit.parse(text).with_sign(1)
    if unit.kind not in ("neuron", "head"):
        raise ToolRefused(f"{unit.address} is a {unit.kind}: neurons and heads of two checkpoints are compared")
    check_unit(target.spec, unit)
    return unit


def _halves(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """The windows of every other document, and the rest. Refuses fewer than 8 documents."""
    order = np.unique(tokens.documents, return_inverse=True)[1]
    if order.max(initial=-1) < 7:
        raise ToolRefused(
            "the text has fewer than 8 documents: half of them rank and half measure, so that more are needed"
        )
    return tokens.select(np.flatnonzero(order % 2 == 0)), tokens.select(np.flatnonzero(order % 2 == 1))


def _noise(target: TargetModel, found: Compared, args: DiffArgs, ranked_by: Tokens, measured_on: Tokens) -> Noise:
    change, fired, kl, drifts = [], [], list[float](), list[Drift]()
    for number in range(args.twins):
        with tempfile.TemporaryDirectory() as place:
            twin = load_target(noise_folder(found, 1000 * args.seed + number, Path(place) / "twin").path)
            by_noise = moved(target, twin, ranked_by)
            change.append(by_noise.change)
            fired.append(by_noise.fired_change)
            if number < FOLLOWED_TWINS:
                units = units_of(target)
                largest = [units[at] for at in np.argsort(-by_noise.change)[:FOLLOWED_UNITS]]
                kl += alone(target, twin, largest, measured_on).kl.mean(axis=1).tolist()
                drifts.append(drift(target, twin, measured_on))
    return Noise(np.array(change), np.array(fired), kl, drifts)


def _ranked(
    target: TargetModel, other: TargetModel, own: Moved, noise: Noise, asked: Unit | None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """A row of each unit, those beyond the noise first, then by how far what they write was moved; and how many are beyond."""
    units = units_of(target)
    relative, vector_p = vector_changes(target, other)
    times, of_noise = in_noises(own.change, noise.change)
    fires = np.isfinite(own.fired)
    fired_times, of_fired = in_noises(own.fired_change[fires], noise.fired_change[:, fires])
    p = np.ones((3, len(units)))
    p[0], p[2] = vector_p, tail_chances(times, of_noise)
    p[1, fires] = tail_chances(fired_times, of_fired)
    p = np.minimum(p * len(units), 1.0)
    beyond = p < LEVEL
    order = np.lexsort((-own.change, ~beyond.any(axis=0)))
    rows = [
        {
            "unit": units[at].address,
            "vector": _rounded(relative[at]),
            "activation": _share(own.fired_change[at], own.fired[at]),
            "correlation": _rounded(own.correlation[at]),
            "write": _share(own.change[at], own.written[at]),
            "times": _rounded(times[at]),
            "p": {kind: _rounded(p[i, at]) for i, kind in enumerate(KINDS) if kind != "activations" or fires[at]},
            "beyond": [kind for i, kind in enumerate(KINDS) if beyond[i, at]],
        }
        for at in order
    ]
    counts = {kind: int(beyond[i].sum()) for i, kind in enumerate(KINDS)}
    return rows, counts | {"any": int(beyond.any(axis=0).sum())}


def _with_effects(rows: Sequence[dict[str, Any]], effects: Effects, noise: Noise) -> None:
    most = max(noise.kl)
    for row, kl, loss in zip(rows, effects.kl, effects.loss, strict=True):
        row |= {
            "kl": _rounded(kl.mean()),
            "kl_interval": _ends(kl),
            "loss": _rounded(loss.mean()),
            "noise_kl": _rounded(most),
        }


def _tensors(found: Compared) -> list[dict[str, Any]]:
    return [
        {
            "tensor": one.name,
            "layer": one.layer,
            "part": one.part,
            "change": _rounded(one.change),
            "relative": _maybe(one.relative),
        }
        for one in found.tensors
    ]


def _drift(own: Drift, noise: Noise) -> list[dict[str, Any]]:
    twins = np.array([one.layers.mean(axis=0) for one in noise.drifts])
    return [
        {
            "after": "embedding" if at == 0 else f"layer {at - 1}",
            "share": _rounded(own.layers[:, at].mean()),
            "interval": _ends(own.layers[:, at]),
            "noise": _rounded(twins[:, at].mean()),
            "noise_range": [_rounded(twins[:, at].min()), _rounded(twins[:, at].max())],
        }
        for at in range(own.layers.shape[1])
    ]


def _measurements(own: Drift, counts: dict[str, int], noise: Noise, n_units: int) -> tuple[Measurement, ...]:
    found = []
    for metric, values, of_noise in (
        ("kl", own.kl, [float(one.kl.mean()) for one in noise.drifts]),
        ("loss_rise", own.loss, [float(one.loss.mean()) for one in noise.drifts]),
        ("drift", own.layers[:, -1], [float(one.layers[:, -1].mean()) for one in noise.drifts]),
    ):
        unit = "share of the last residual" if metric == "drift" else "nats a token"
        mean, interval = float(values.mean()), mean_interval(values)
        above = percentile_of(mean, np.array(of_noise))
        found.append(
            Measurement(metric, mean, unit, len(values), interval, float(np.mean(of_noise)), above, n_of="texts")
        )
    found.append(Measurement("units_beyond", counts["any"], "units", n_units, None, n_units * LEVEL, n_of="units"))
    return tuple(found)


def _share(change: float, whole: float) -> float | None:
    """Root of the ratio of two mean squares; None where there is nothing that it could be a share of."""
    return _rounded(np.sqrt(change / whole)) if whole > 0 else None


def _maybe(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _rounded(value: float) -> Any:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _ends(values: Floats) -> list[float] | None:
    interval = mean_interval(values)
    return None if interval is None else [_rounded(end) for end in interval]

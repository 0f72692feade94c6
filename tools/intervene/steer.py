"""What a neuron or head does as it grows: dose-response, effects at equal strength, and what the model goes on to write."""

from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.ablate import EIGHT, MIN_PROMPTS
from neuronaut.tools.intervene.answers import answer_ids
from neuronaut.tools.intervene.continuation import Continuation, check_room, continued
from neuronaut.tools.intervene.effect_figures import steer_figures
from neuronaut.tools.intervene.outcomes import Change, Move, Push, Watched
from neuronaut.tools.intervene.parts import Part, Places, Positions, places_of
from neuronaut.tools.intervene.steering import Steering
from neuronaut.tools.intervene.strength import divergences, matched, next_token_changes
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import mean_interval, percentile_of
from neuronaut.tools.targets.base import Edit
from neuronaut.tools.units import Unit

N_NULL_TEXTS = 4  # random directions under which text is written
LISTED = 5


class SteerArgs(ToolArgs):
    """The neuron, head or feature, the doses and the token that is watched (several tokens are scored as their sequence).

    how: `set` and `add` are in the model's own units of activation, `scale` multiplies (1 is no change; the only way for a
    head). positions: `last`, `all` but BOS, or a list counted from 0 without BOS, negative from the end. kl: nats at which
    strengths are matched. generate: tokens that are written on, with the last of the doses held in place.
    """

    example: ClassVar = {"unit": "8.481", "prompts": EIGHT, "token": " met", "generate": 4}
    unit: str
    prompts: tuple[Prompt, ...] = Field(min_length=MIN_PROMPTS, max_length=1000)
    token: str
    doses: tuple[FiniteFloat, ...] = Field(default=(0.0, 0.5, 1.0, 2.0, 4.0), min_length=3, max_length=32)
    how: Literal["set", "scale", "add"] = "set"
    positions: Positions = "last"
    kl: FiniteFloat = Field(default=0.1, gt=0, le=10)
    generate: int = Field(default=0, ge=0, le=200)
    seed: int = 0

    @model_validator(mode="after")
    def _carry_a_line(self) -> Self:
        if len(set(self.doses)) < 3:
            raise ValueError(f"doses {list(self.doses)} are fewer than three different ones: they carry no line")
        return self


class Line(NamedTuple):
    """Slope of each prompt, mean intercept, and r2 of the mean curve (0 if it is flat)."""

    slopes: Array
    intercept: float
    r2: float


def line_of(doses: Array, curves: Array) -> Line:
    """Least-squares lines of curves, (n_doses, n_prompts)."""
    design = np.stack([doses, np.ones_like(doses)], axis=1)
    (slopes, intercepts), *_ = np.linalg.lstsq(design, curves, rcond=None)
    mean = curves.mean(axis=1)
    residual = mean - design @ np.array([slopes.mean(), intercepts.mean()])
    total = float(((mean - mean.mean()) ** 2).sum())
    r2 = 1 - float((residual**2).sum()) / total if total > 0 else 0.0
    return Line(slopes, float(intercepts.mean()), r2)


@tool("steer")
def steer(context: ToolContext, args: SteerArgs) -> ToolResult:
    """Dose-response of a token's log-probability when a neuron or head is set to, moved by or scaled by each dose.

    slope: nats per unit of dose, mean over prompts of the least-squares line; r2: of the mean curve. Null: at most 16 other
    units of the layer (and, in the payload, 16 random directions), added to what the layer writes with the norm of the
    unit's own change. effect_at_kl: change of the log-probability at the dose at which KL(plain ‖ steered) of the next
    token is `kl` nats, mean over prompts; null: random directions at the same divergence; left out where no dose reaches it.
    changed_tokens: share of the tokens written on that differ from those without; null: random directions of equal norm.
    Source: Turner et al. 2023, arXiv:2308.10248 (vectors added, beside random ones of equal norm).
    """
    unit, target = Unit.parse(args.unit), context.target
    part = Part.parse(unit.address, target)
    if unit.kind == "head" and args.how != "scale":
        raise ToolRefused(f"{unit.address} is a head, whose output is no single number to {args.how}: give how 'scale'")
    tokens, answer = read_texts(target, args.prompts), answer_ids(target, args.token)
    check_room(target, tokens, max(args.generate, len(answer) - 1))
    places = places_of(target, tokens, args.positions)
    steering = Steering(target, tokens, places, part, Watched(((answer, 1),)), args.seed)
    moves: list[Move] = [Change(part, dose, args.how) for dose in args.doses]
    amounts = steering.amounts(moves)
    parts = [
        dose_response(steering, args, moves, amounts),
        at_equal_kl(steering, unit.sign, args.kl),
        next_tokens(steering, moves[-1]),
        *([written_on(steering, args, amounts[-1])] if args.generate else []),
    ]
    payload: dict[str, Any] = {"unit": unit.address, "token": args.token, "how": args.how}
    for one in parts:
        payload |= one.payload
    measured = tuple(one for part in parts for one in part.measurements)
    return ToolResult(measured, payload, figures=steer_figures(payload))


def dose_response(steering: Steering, args: SteerArgs, moves: list[Move], amounts: Tensor) -> ToolResult:
    """The line, how sensitive each prompt is, and the lines of other directions pushed by the same amounts."""
    doses, curves = np.array(args.doses), steering.scores(moves)
    line = line_of(doses, curves)
    nulls = {
        name: np.array([line_of(doses, curve).slopes.mean() for curve in found])
        for name, found in steering.null_curves(amounts).items()
    }
    own, others = line.slopes, nulls["other_units"]
    measured = (
        Measurement(
            "slope",
            float(own.mean()),
            "nats per unit of dose",
            len(own),
            mean_interval(own),
            **_null(own.mean(), others),
            n_of="prompts",
        ),
        Measurement("r2", line.r2, "share of the variance", len(doses), null_value=0.0, n_of="doses"),
    )
    return ToolResult(
        measured,
        {
            "intercept": line.intercept,
            "curve": [
                {"dose": dose, "log_prob": round(value, 5)}
                for dose, value in zip(args.doses, curves.mean(axis=1).tolist(), strict=True)
            ],
            "sensitivity": {
                "spread": float(own.std(ddof=1)),
                "same_sign": float((np.sign(own) == np.sign(own.mean())).mean()),
                "prompts": [
                    {"prompt": text, "slope": round(slope, 5)}
                    for text, slope in zip(steering.tokens.texts, own.tolist(), strict=True)
                ],
            },
            "null_slopes": {name: {"n": len(slopes), **_null(own.mean(), slopes)} for name, slopes in nulls.items()},
        },
    )


def _null(value: float, nulls: Array) -> dict[str, float | None]:
    """Mean of the nulls, and which share of them is smaller in size."""
    if not len(nulls):
        return {"null_value": None, "null_percentile": None}
    return {
        "null_value": float(nulls.mean()),
        "null_percentile": percentile_of(abs(value), np.abs(nulls)),
    }


def at_equal_kl(steering: Steering, sign: int, kl: float) -> ToolResult:
    """The effect at the dose of a given divergence, of the unit (towards its side), other units and random directions."""
    norm = float(steering.stride.norm(dim=-1).mean())
    ones = torch.ones(steering.places.columns.shape)
    directions = [*steering.others, *steering.random]

    def move(number: int, dose: float) -> Move:
        if number == 0:
            return steering.step(sign * dose)
        return Push(steering.part.out, directions[number - 1], dose * norm * ones)

    def divergence(numbers: Array, doses: Array) -> Array:
        moves = [move(number, dose) for number, dose in zip(numbers.tolist(), doses.tolist(), strict=True)]
        return divergences(steering.target, steering.tokens, steering.places, moves).mean(axis=1)

    found = matched(divergence, 1 + len(directions), kl)
    payload: dict[str, Any] = {"kl": kl, "dose": None, "reached": round(float(found.kl[0]), 6)}
    if np.isnan(found.doses[0]):
        return ToolResult((), {"equal_kl": payload})
    reached = ~np.isnan(found.doses)
    chosen = [move(int(number), float(found.doses[number])) for number in np.flatnonzero(reached)]
    plain, *effects = steering.scores([steering.step(0.0), *chosen])
    own, means = effects[0] - plain, np.array([(effect - plain).mean() for effect in effects])
    at = np.flatnonzero(reached) > len(steering.others)  # random directions come last
    others, random = means[~at][1:], means[at]
    payload |= {
        "dose": sign * float(found.doses[0]),
        "random_norms": [round(dose, 5) for dose in found.doses[reached][at].tolist()],
        "other_units": {"n": len(others), **_null(own.mean(), others)},
        "random_directions": {"n": len(random), **_null(own.mean(), random)},
    }
    interval, null, n = mean_interval(own), _null(own.mean(), random), len(own)
    measured = Measurement("effect_at_kl", float(own.mean()), "nats", n, interval, **null, n_of="prompts")
    return ToolResult((measured,), {"equal_kl": payload})


def next_tokens(steering: Steering, move: Move) -> ToolResult:
    """The next tokens that a move makes likelier and unlikelier, by the mean change of their log-probability."""
    changes = next_token_changes(steering.target, steering.tokens, steering.places, move)
    pieces, found = steering.target.vocabulary.pieces, {}
    for side, sign in (("raised", 1), ("lowered", -1)):
        best = torch.topk(sign * changes, min(LISTED, len(changes)))
        found[side] = [
            {"token": pieces[token], "nats": round(sign * value, 5)}
            for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    return ToolResult(payload={"next_tokens": found})


def written_on(steering: Steering, args: SteerArgs, amounts: Tensor) -> ToolResult:
    """What is written behind each prompt with the last dose held in place, and without; amounts: its norms, (n_texts, m)."""
    target, tokens, places = steering.target, steering.tokens, steering.places
    watched, norms = steering.watched.answers[0][0][0], amounts.mean(dim=1)

    def held(rows: Tensor, at: Places) -> Edit:
        return Edit(steering.part.site, args.how, args.doses[-1], index=steering.part.index, positions=at.mask)

    def under(direction: Tensor) -> Continuation:
        def pushed(rows: Tensor, at: Places) -> Edit:
            return Edit(steering.part.out, "add", norms[rows][:, None, None] * direction, positions=at.mask)

        return continued(target, tokens, args.generate, watched, pushed, on=places)

    plain = continued(target, tokens, args.generate, watched, None, on=places)
    steered = continued(target, tokens, args.generate, watched, held, on=places)
    changed = (steered.ids != plain.ids).double().mean(dim=1).numpy()
    nulls = [float((under(one).ids != plain.ids).double().mean()) for one in steering.random[:N_NULL_TEXTS]]
    interval, null = mean_interval(changed), _null(changed.mean(), np.array(nulls))
    n, share = len(changed), float(changed.mean())
    measured = Measurement("changed_tokens", share, "share of tokens", n, interval, **null, n_of="prompts")
    texts = [
        {"prompt": text, "plain": target.decode(before), "steered": target.decode(after), "changed": round(share, 5)}
        for text, before, after, share in zip(
            tokens.texts, plain.ids.tolist(), steered.ids.tolist(), changed.tolist(), strict=True
        )
    ]
    along = {
        name: [round(v, 5) for v in one.watched.mean(dim=0).tolist()]
        for name, one in (("plain", plain), ("steered", steered))
    }
    return ToolResult((measured,), {"continuations": texts, "watched_along": along})

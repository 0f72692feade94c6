"""What is lost when a part of the model is taken out: in all, and along its direct path to the logits."""

from typing import Any, ClassVar, Literal, Self, assert_never

import numpy as np
import torch
from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.answers import signed_answers
from neuronaut.tools.intervene.outcomes import Change, Watched
from neuronaut.tools.intervene.parts import Part, Places, Positions, places_of, values_at
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import mean_interval, percentile_of
from neuronaut.tools.tokens import Tokens

MIN_PROMPTS = 8  # fewer carry no interval worth printing
EXPLORE_TOKENS = 4000  # of explore text, from which means and other values are taken
NAMES = ("Lucy", "Alice", "Nora", "David", "Peter", "Leo", "Kate", "Eva")
EIGHT = [f"After Mary and {name}" for name in NAMES[:5]] + [f"Mary and {name}" for name in NAMES[5:]]


class AblateArgs(ToolArgs):
    """What to take out (8.481, L8H3, sae:NAME/12, 8.attn_out, 8.mlp_out), where, what takes its place, and what is watched.

    answer: one token or several; with wrong_answer their difference; without both the loss of the prompts themselves.
    how: `constant` puts in `value`; `mean` takes the mean of all prompts at the same place, `resample` the value of another
    prompt there, or both from explore text (`source`). positions: `last`, `all` but BOS, or a list counted from 0 without BOS, negative from the end;
    None is `last` with an answer and `all` without.
    """

    example: ClassVar = {"unit": "8.481", "prompts": EIGHT, "answer": " met"}
    unit: str
    prompts: tuple[Prompt, ...] = Field(min_length=MIN_PROMPTS, max_length=10_000)
    answer: str | None = None
    wrong_answer: str | None = None
    how: Literal["zero", "mean", "resample", "constant"] = "resample"
    value: FiniteFloat | None = None
    source: Literal["prompts", "explore"] = "prompts"
    positions: Positions | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.how == "constant") != (self.value is not None):
            raise ValueError("a value is given with how 'constant', and only with it")
        if self.answer is None and self.wrong_answer is not None:
            raise ValueError("a wrong_answer needs an answer that it is compared with")
        return self


@tool("ablate")
def ablate(context: ToolContext, args: AblateArgs) -> ToolResult:
    """How far the score of an answer falls (or the loss of the texts rises) when the unit is replaced: in all (total
    effect), and along its direct path to the logits alone, where all later parts keep what they had (direct_…).

    Nats per prompt; 0 is no effect, negative means that the unit opposed the answer. resample: its value from another of
    the prompts. Null: the same for at most 32 random units of the layer and kind; for attn_out and mlp_out, of other layers.
    Refuses: fewer than 8 prompts; positions that a prompt lacks; prompts of unequal length where each position takes
    values from the same position of other prompts.
    Source: Wang et al. 2022, arXiv:2211.00593, section 2.2; McGrath et al. 2023, arXiv:2307.15771 (total and direct).
    """
    target = context.target
    part = Part.parse(args.unit, target)
    tokens = read_texts(target, args.prompts)
    watched = Watched(() if args.answer is None else signed_answers(target, args.answer, args.wrong_answer))
    positions = args.positions if args.positions is not None else "last" if watched.answers else "all"
    places = places_of(target, tokens, positions)
    parts = [part, *part.peers(target, tokens, args.seed)]
    watched.check(target, tokens)
    _refuse_what_has_no_effect(args, watched, places, tokens)
    natural = values_at(target, tokens, parts, places)
    instead = replacements(context, parts, natural, args)
    changes = [Change(part, values) for part, values in zip(parts, instead, strict=True)]
    found = watched.outcomes(target, tokens, places, changes, direct=True)
    falls, direct = ((found.plain - scores).numpy() for scores in (found.total, found.direct))
    metric = "loss_rise" if watched.name == "loss" else f"{watched.name}_drop"
    sign = -1 if watched.name == "loss" else 1
    rows: list[dict[str, Any]] = [
        {"prompt": text, watched.name: round(sign * score, 5), "drop": round(fall, 5), "direct": round(alone, 5)}
        for text, score, fall, alone in zip(
            tokens.texts, found.plain.tolist(), falls[0].tolist(), direct[0].tolist(), strict=True
        )
    ]
    if part.is_number and positions == "last":
        for row, was, becomes in zip(rows, natural[0][:, 0, 0].tolist(), instead[0][:, 0, 0].tolist(), strict=True):
            row |= {"activation": round(was, 5), "replaced_by": round(becomes, 5)}
    return ToolResult(
        (_beside_peers(metric, falls), _beside_peers(f"direct_{metric}", direct)),
        {"unit": part.address, "answer": args.answer, "how": args.how, "positions": positions, "prompts": rows},
    )


def _refuse_what_has_no_effect(args: AblateArgs, watched: Watched, places: Places, tokens: Tokens) -> None:
    last = torch.from_numpy(tokens.lengths - 1)[:, None]
    if not watched.answers and bool(((places.columns == last) | (places.columns < 0)).all()):
        raise ToolRefused(
            "no token of a text comes after its last one, so that its loss cannot change there: give positions 'all'"
        )
    if args.how in ("mean", "resample") and args.source == "prompts" and not places.aligned:
        shortest, longest = int(tokens.lengths.min()), int(tokens.lengths.max())
        raise ToolRefused(
            f"the prompts have {shortest} to {longest} tokens, so that a position of one has no like in another: give prompts "
            f"of one length, or take the {args.how} from text with source 'explore'"
        )


def replacements(context: ToolContext, parts: list[Part], natural: list[Tensor], args: AblateArgs) -> list[Tensor]:
    """What takes the place of each part's values, (n_texts, m, …): the same texts and places give to all parts."""
    rng = np.random.default_rng(args.seed)
    match args.how:
        case "zero":
            return [torch.zeros_like(values) for values in natural]
        case "constant":
            return [torch.full_like(values, args.value or 0.0) for values in natural]
        case "mean" | "resample" if args.source == "explore":
            text = context.sample("explore", EXPLORE_TOKENS)
            scored = torch.from_numpy(text.scored)
            places = places_of(context.target, text, "all")
            pools = [places.put(values)[scored] for values in values_at(context.target, text, parts, places)]
            drawn = torch.from_numpy(rng.integers(len(pools[0]), size=natural[0].shape[:2]))
            if args.how == "resample":
                return [pool[drawn] for pool in pools]
            return [pool.mean(dim=0).expand_as(values) for pool, values in zip(pools, natural, strict=True)]
        case "mean":
            return [values.mean(dim=0, keepdim=True).expand_as(values) for values in natural]
        case "resample":
            order = rng.permutation(len(natural[0]))
            donors = torch.from_numpy(np.roll(order, 1)[np.argsort(order)])
            return [values[donors] for values in natural]
        case _ as never:
            assert_never(never)


def _beside_peers(metric: str, falls: Array) -> Measurement:
    """The mean over prompts of the first row, beside those of the others, (n_parts, n_prompts)."""
    own, nulls = falls[0], falls[1:].mean(axis=1)
    return Measurement(
        metric,
        float(own.mean()),
        "nats",
        len(own),
        mean_interval(own),
        float(nulls.mean()) if len(nulls) else None,
        percentile_of(abs(own.mean()), np.abs(nulls)) if len(nulls) else None,
        n_of="prompts",
    )

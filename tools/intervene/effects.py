"""What changes when an activation is changed: plain edits, ablation, steering."""

from typing import Any, ClassVar, Literal, assert_never

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.next_token import (
    last_log_probs,
    text_batches,
    token_id,
    values_at_last,
    watched_log_probs,
)
from neuronaut.tools.look.capture import find_site
from neuronaut.tools.look.examples import Text, read_texts
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import mean_interval
from neuronaut.tools.targets.base import Edit, Site, SiteName, TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

N_RANDOM_UNITS = 32
MIN_PROMPTS = 8  # fewer carry no interval worth printing
NAMES = ("Lucy", "Alice", "Nora", "David", "Peter", "Leo", "Kate", "Eva")
EIGHT = [f"After Mary and {name}" for name in NAMES[:5]] + [f"Mary and {name}" for name in NAMES[5:]]


class EditArgs(BaseModel):
    """One edit as data; position counts from the start of the text without BOS, None is everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    site: SiteName
    layer: int = Field(ge=0)
    how: Literal["set", "add", "scale"]
    value: FiniteFloat
    index: int | None = Field(default=None, ge=0)
    position: int | None = Field(default=None, ge=0)


class InterveneArgs(ToolArgs):
    """Texts, the edits, how many next tokens to list."""

    example: ClassVar = {
        "texts": ["After Mary and"],
        "edits": [{"site": "neurons", "layer": 8, "index": 481, "how": "set", "value": 2}],
    }
    texts: tuple[Text, ...] = Field(min_length=1, max_length=10_000)
    edits: tuple[EditArgs, ...] = Field(max_length=100)
    k: int = Field(default=5, ge=1, le=1000)


class AblateArgs(ToolArgs):
    """What to take out, from which prompts, and the answer token whose log-probability is watched."""

    example: ClassVar = {"unit": "8.481", "prompts": EIGHT, "answer": " met"}
    unit: str
    prompts: tuple[Text, ...] = Field(min_length=MIN_PROMPTS, max_length=10_000)
    answer: str
    how: Literal["zero", "mean", "resample"] = "resample"
    seed: int = 0


class SteerArgs(ToolArgs):
    """The neuron, the doses and the token that is watched; doses are activations in the model's own units."""

    example: ClassVar = {"unit": "8.481", "prompts": EIGHT, "token": " met"}
    unit: str
    prompts: tuple[Text, ...] = Field(min_length=MIN_PROMPTS, max_length=10_000)
    token: str
    doses: tuple[FiniteFloat, ...] = Field(default=(0.0, 0.5, 1.0, 2.0, 4.0), min_length=3, max_length=32)
    how: Literal["set", "add"] = "set"


def _edit(target: TargetModel, tokens: Tokens, args: EditArgs) -> Edit:
    spec = target.spec
    site = find_site(spec, args.site, args.layer)
    if site.name == "pattern":
        raise ToolRefused("the attention pattern can be read but not edited: edit 'heads' or 'attn_out' instead")
    width = {"neurons": spec.d_mlp, "heads": spec.n_heads}.get(site.name, spec.d_model)
    if args.index is not None and args.index >= width:
        raise ToolRefused(f"index {args.index} does not exist: {site} has indices 0 to {width - 1}")
    positions = None
    if args.position is not None:
        offset = args.position + (spec.bos is not None)
        if offset >= int(tokens.lengths.min()):
            raise ToolRefused(f"position {args.position} does not exist in each text: the shortest has fewer tokens")
        positions = torch.zeros(tokens.ids.shape, dtype=torch.bool)
        positions[:, offset] = True
    return Edit(site, args.how, args.value, index=args.index, positions=positions)


@tool("intervene")
def intervene(context: ToolContext, args: InterveneArgs) -> ToolResult:
    """The next-token distribution after each text with any list of edits in place, beside the plain one.

    kl is KL(plain || edited) in nats at the last position, mean over texts; no edit gives 0.
    """
    target = context.target
    tokens = read_texts(target, args.texts)
    for edit in args.edits:
        _edit(target, tokens, edit)
    k, pieces = min(args.k, target.spec.d_vocab), target.vocabulary.pieces

    def top(log_probs: Tensor) -> list[dict[str, Any]]:
        best = torch.topk(log_probs, k)
        pairs = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
        return [{"token": pieces[i], "p": round(p, 5)} for i, p in pairs]

    found: dict[int, dict[str, Any]] = {}
    for rows, part in text_batches(target, tokens):
        plain = last_log_probs(target, part, [])
        edited = last_log_probs(target, part, [_edit(target, part, edit) for edit in args.edits])
        kls = (plain.exp() * (plain - edited)).sum(dim=1).tolist()
        for row, p, e, kl in zip(rows.tolist(), plain, edited, kls, strict=True):
            found[row] = {"text": tokens.texts[row], "kl": kl, "plain": top(p), "edited": top(e)}
    texts = [found[row] for row in sorted(found)]
    kl = np.array([text["kl"] for text in texts])
    measured = Measurement("kl", float(kl.mean()), "nats", len(kl), mean_interval(kl), 0.0, n_of="texts")
    return ToolResult((measured,), {"texts": texts})


def _site_of(unit: Unit) -> Site:
    return Site("neurons" if unit.kind == "neuron" else "heads", unit.layer)


def _replacements(values: Tensor, args: AblateArgs) -> Tensor:
    """What takes the place of `values` (n_prompts, width[, d_head]): nothing, their mean, or those of another prompt."""
    match args.how:
        case "zero":
            return torch.zeros_like(values)
        case "mean":
            return values.mean(dim=0, keepdim=True).expand_as(values)
        case "resample":
            order = np.random.default_rng(args.seed).permutation(len(values))
            return values[torch.from_numpy(np.roll(order, 1)[np.argsort(order)])]
        case _ as never:
            assert_never(never)


@tool("ablate")
def ablate(context: ToolContext, args: AblateArgs) -> ToolResult:
    """How far the answer's log-probability falls when the unit is replaced at the last position (total effect).

    Nats per prompt; 0 is no effect, negative means that the unit opposed the answer. resample: its value from another
    of the prompts. Null: the same for 32 random units of the layer and kind.
    Source: Wang et al. 2022, arXiv:2211.00593, section 2.2.
    """
    unit, target = Unit.parse(args.unit), context.target
    check_unit(target.spec, unit)
    tokens, answer = read_texts(target, args.prompts), token_id(target, args.answer)
    site, width = _site_of(unit), target.spec.d_mlp if unit.kind == "neuron" else target.spec.n_heads
    others = np.random.default_rng(args.seed).permutation([i for i in range(width) if i != unit.index])[:N_RANDOM_UNITS]
    natural = values_at_last(target, tokens, site)
    instead = _replacements(natural, args)
    edits = [Edit(site, "set", instead[:, i], index=i) for i in (unit.index, *others.tolist())]
    plain, *edited = watched_log_probs(target, tokens, answer, [None, *edits]).double().numpy()
    drops, *null_drops = (plain - one for one in edited)
    nulls = np.array([null.mean() for null in null_drops])
    effect = Measurement(
        "log_prob_drop",
        float(drops.mean()),
        "nats",
        len(drops),
        mean_interval(drops),
        float(nulls.mean()) if len(nulls) else None,
        float((np.abs(nulls) < abs(drops.mean())).mean() * 100) if len(nulls) else None,
        n_of="prompts",
    )
    rows = [
        {"prompt": text, "log_prob": round(p, 5), "drop": round(d, 5)}
        for text, p, d in zip(tokens.texts, plain.tolist(), drops.tolist(), strict=True)
    ]
    if unit.kind == "neuron":
        before, after = natural[:, unit.index].tolist(), instead[:, unit.index].tolist()
        for row, was, becomes in zip(rows, before, after, strict=True):
            row |= {"activation": round(was, 5), "replaced_by": round(becomes, 5)}
    return ToolResult((effect,), {"unit": unit.address, "answer": args.answer, "how": args.how, "prompts": rows})


def _lines(doses: Array, curves: Array) -> tuple[Array, float, float]:
    """Slope of each column of curves (n_doses, n_prompts), mean intercept, and r2 of the mean curve (0 if it is flat)."""
    design = np.stack([doses, np.ones_like(doses)], axis=1)
    (slopes, intercepts), *_ = np.linalg.lstsq(design, curves, rcond=None)
    mean = curves.mean(axis=1)
    residual = mean - design @ np.array([slopes.mean(), intercepts.mean()])
    total = float(((mean - mean.mean()) ** 2).sum())
    return slopes, float(intercepts.mean()), 1 - float((residual**2).sum()) / total if total > 0 else 0.0


@tool("steer")
def steer(context: ToolContext, args: SteerArgs) -> ToolResult:
    """Dose-response of a token's log-probability when the neuron is set to (or moved by) each dose at the last position.

    slope: nats per unit of activation, mean over prompts of the least-squares line; r2: of the mean curve.
    """
    unit, target = Unit.parse(args.unit), context.target
    check_unit(target.spec, unit)
    if unit.kind != "neuron":
        raise ToolRefused(f"steer takes a neuron, and {unit.address} is a head: use intervene on its 'heads' site")
    if len(set(args.doses)) < 3:
        raise ToolRefused(f"doses {list(args.doses)} are fewer than three different ones: they carry no dose-response")
    tokens, watched = read_texts(target, args.prompts), token_id(target, args.token)
    edits = [Edit(_site_of(unit), args.how, dose, index=unit.index) for dose in args.doses]
    curves = watched_log_probs(target, tokens, watched, edits).double().numpy()
    slopes, intercept, r2 = _lines(np.array(args.doses), curves)
    slope = Measurement(
        "slope",
        float(slopes.mean()),
        "nats per unit of activation",
        len(slopes),
        mean_interval(slopes),
        0.0,
        n_of="prompts",
    )
    return ToolResult(
        (slope, Measurement("r2", r2, "share of the variance", len(args.doses), null_value=0.0, n_of="doses")),
        {
            "unit": unit.address,
            "token": args.token,
            "intercept": intercept,
            "curve": [
                {"dose": dose, "log_prob": round(value, 5)}
                for dose, value in zip(args.doses, curves.mean(axis=1).tolist(), strict=True)
            ],
        },
    )

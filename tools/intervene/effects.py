"""What changes when an activation is changed: plain edits, ablation, steering, one-site patching."""

from typing import Any, Literal, assert_never

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.next_token import (
    last_log_probs,
    residual_before,
    text_batches,
    to_ids,
    tokens_at_once,
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
# Of the largest logit: float32 sums in another order differ by 1e-6 of it, so that a recovered share is good to 1 %.
MIN_DIFFERENCE = 1e-4


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

    texts: tuple[Text, ...] = Field(min_length=1, max_length=10_000)
    edits: tuple[EditArgs, ...] = Field(max_length=100)
    k: int = Field(default=5, ge=1, le=1000)


class AblateArgs(ToolArgs):
    """What to take out, from which prompts, and the answer token whose log-probability is watched."""

    unit: str
    prompts: tuple[Text, ...] = Field(min_length=MIN_PROMPTS, max_length=10_000)
    answer: str
    how: Literal["zero", "mean", "resample"] = "resample"
    seed: int = 0


class SteerArgs(ToolArgs):
    """The neuron, the doses and the token that is watched; doses are activations in the model's own units."""

    unit: str
    prompts: tuple[Text, ...] = Field(min_length=MIN_PROMPTS, max_length=10_000)
    token: str
    doses: tuple[FiniteFloat, ...] = Field(default=(0.0, 0.5, 1.0, 2.0, 4.0), min_length=3, max_length=32)
    how: Literal["set", "add"] = "set"


class PatchArgs(ToolArgs):
    """Clean and corrupted prompt of equal length in tokens, the two answers, and the site to carry over."""

    clean: Text
    corrupted: Text
    answer: str
    wrong_answer: str
    site: Literal["resid_pre", "attn_out", "mlp_out", "resid_post"] = "resid_pre"
    layer: int = Field(ge=0)


def token_id(target: TargetModel, piece: str) -> int:
    """The id of the token whose text is `piece`. Refuses text that is no single token."""
    if piece in target.vocabulary.pieces:
        return target.vocabulary.pieces.index(piece)
    raise ToolRefused(
        f"{piece!r} is not one token of {target.spec.name}: give a single token with its leading space, such as ' the'"
    )


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
    return ToolResult((Measurement("kl", float(kl.mean()), "nats", len(kl), mean_interval(kl), 0.0),), {"texts": texts})


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
    instead = _replacements(values_at_last(target, tokens, site), args)
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
    )
    rows = [
        {"prompt": text, "log_prob": round(p, 5), "drop": round(d, 5)}
        for text, p, d in zip(tokens.texts, plain.tolist(), drops.tolist(), strict=True)
    ]
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
        "slope", float(slopes.mean()), "nats per unit of activation", len(slopes), mean_interval(slopes), 0.0
    )
    return ToolResult(
        (slope, Measurement("r2", r2, "share", len(args.doses))),
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


@tool("patch")
def patch(context: ToolContext, args: PatchArgs) -> ToolResult:
    """How much of the clean answer returns when one site of the clean run replaces that of the corrupted run, by position.

    recovered: (logit difference − corrupted) / (clean − corrupted); 1 is the clean run, 0 the corrupted one.
    Refuses: prompts or answers that are equal, prompts of unequal length, logit differences equal up to rounding.
    Source: Heimersheim & Nanda 2024, arXiv:2404.15255.
    """
    target = context.target
    tokens = read_texts(target, (args.clean, args.corrupted))
    if tokens.lengths[0] != tokens.lengths[1]:
        raise ToolRefused(
            f"clean has {tokens.lengths[0]} tokens and corrupted {tokens.lengths[1]}: they must be equally long"
        )
    if np.array_equal(*tokens.ids):
        raise ToolRefused("clean and corrupted are the same tokens: there is nothing to recover, so change one of them")
    pieces = target.vocabulary.pieces
    right, wrong = token_id(target, args.answer), token_id(target, args.wrong_answer)
    if right == wrong:
        raise ToolRefused(f"answer and wrong_answer are both {args.answer!r}: their logits never differ, so name two")
    site = find_site(target.spec, args.site, args.layer)
    run = target.run(to_ids(tokens), read=[site], logits=True)
    assert run.logits is not None
    last = run.logits[:, -1].double()
    clean, corrupted = (last[:, right] - last[:, wrong]).tolist()
    if abs(clean - corrupted) < MIN_DIFFERENCE * float(last.abs().max()):
        raise ToolRefused(
            f"clean and corrupted give the same logit difference, {clean:.4g}, up to rounding: there is nothing to "
            "recover, so give prompts of which the model prefers different answers"
        )
    recovered = (_patched(target, tokens, site, run.read[site][:1], (right, wrong)) - corrupted) / (clean - corrupted)
    best = int(recovered.argmax())
    return ToolResult(
        (Measurement("recovered_best", float(recovered[best]), "share of the logit difference", 1, null_value=0.0),),
        {
            "site": str(site),
            "clean_logit_difference": clean,
            "corrupted_logit_difference": corrupted,
            "positions": [
                {"clean": pieces[i], "corrupted": pieces[j], "recovered": round(r, 5)}
                for i, j, r in zip(*tokens.ids.tolist(), recovered.tolist(), strict=True)
            ],
        },
    )


def _patched(target: TargetModel, tokens: Tokens, site: Site, clean: Tensor, answers: tuple[int, int]) -> Tensor:
    """(pos,) float64 logit differences of the corrupted run with the clean site at one position each."""
    ids = to_ids(tokens)[1:]
    n_pos, size = ids.shape[1], max(1, tokens_at_once(target) // ids.shape[1])
    start = residual_before(target, ids, site.layer)
    found = []
    one_each = torch.eye(n_pos, dtype=torch.bool)
    for at in range(0, n_pos, size):
        positions = one_each[at : at + size]
        n = len(positions)
        here = None if start is None else (start[0], start[1].expand(n, -1, -1))
        edit = Edit(site, "set", clean, positions=positions)
        logits = target.run(ids.expand(n, -1), edits=[edit], start=here, logits=True).logits
        assert logits is not None
        found.append(logits[:, -1, answers[0]].double() - logits[:, -1, answers[1]].double())
    return torch.cat(found)

"""What changes when an activation is changed: plain edits, ablation, steering, one-site patching."""

from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.capture import find_site
from neuronaut.tools.look.examples import Text, read_texts
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import mean_interval
from neuronaut.tools.targets.base import Edit, Site, SiteName, TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

N_RANDOM_UNITS = 32
MIN_PROMPTS = 8  # fewer carry no interval worth printing


class EditArgs(BaseModel):
    """One edit as data; position counts from the start of the text without BOS, None is everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    site: SiteName
    layer: int = Field(ge=0)
    how: Literal["set", "add", "scale"]
    value: float = Field(allow_inf_nan=False)
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
    doses: tuple[float, ...] = Field(default=(0.0, 0.5, 1.0, 2.0, 4.0), min_length=3, max_length=32)
    how: Literal["set", "add"] = "set"


class PatchArgs(ToolArgs):
    """Clean and corrupted prompt of equal length in tokens, the two answers, and the site to carry over."""

    clean: Text
    corrupted: Text
    answer: str
    wrong_answer: str
    site: Literal["resid_pre", "attn_out", "mlp_out", "resid_post"] = "resid_pre"
    layer: int = Field(ge=0)


def to_ids(tokens: Tokens) -> Tensor:
    """(n_windows, pos) int64, the padding set to 0."""
    return torch.from_numpy(np.where(tokens.ids < 0, 0, tokens.ids)).long()


def token_id(target: TargetModel, piece: str) -> int:
    """The id of the token whose text is `piece`. Refuses text that is no single token."""
    if piece in target.vocabulary.pieces:
        return target.vocabulary.pieces.index(piece)
    raise ToolRefused(
        f"{piece!r} is not one token of {target.spec.name}: give a single token with its leading space, such as ' the'"
    )


def _last(tokens: Tokens) -> tuple[Tensor, Tensor]:
    return torch.arange(len(tokens)), torch.from_numpy(tokens.lengths - 1)


def last_log_probs(target: TargetModel, tokens: Tokens, edits: list[Edit]) -> Tensor:
    """(n_windows, d_vocab) log-probabilities of the token after each text."""
    logits = target.run(to_ids(tokens), edits=edits, logits=True).logits
    assert logits is not None
    return torch.log_softmax(logits[_last(tokens)].float(), dim=-1)


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
    tokens = read_texts(context.target, args.texts)
    edits = [_edit(context.target, tokens, edit) for edit in args.edits]
    plain, edited = last_log_probs(context.target, tokens, []), last_log_probs(context.target, tokens, edits)
    kl = (plain.exp() * (plain - edited)).sum(dim=1).numpy()
    pieces = context.target.vocabulary.pieces

    def top(log_probs: Tensor) -> list[dict[str, Any]]:
        best = torch.topk(log_probs, args.k)
        pairs = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
        return [{"token": pieces[i], "p": round(p, 5)} for i, p in pairs]

    rows = [{"plain": top(p), "edited": top(e), "kl": float(d)} for p, e, d in zip(plain, edited, kl, strict=True)]
    return ToolResult((Measurement("kl", float(kl.mean()), "nats", len(kl), mean_interval(kl), 0.0),), {"texts": rows})


def _replacement(target: TargetModel, unit: Unit, tokens: Tokens, args: AblateArgs) -> float | Tensor:
    if args.how == "zero":
        return 0.0
    site = Site("neurons" if unit.kind == "neuron" else "heads", unit.layer)
    values = target.run(to_ids(tokens), read=[site], stop=unit.layer + 1).read[site][:, :, unit.index]
    at_last = values[_last(tokens)]
    if args.how == "mean":
        return at_last.mean(dim=0, keepdim=True)[:, None].expand(len(tokens), values.shape[1], *values.shape[2:])
    order = np.random.default_rng(args.seed).permutation(len(tokens))
    shifted = at_last[torch.from_numpy(np.roll(order, 1)[np.argsort(order)])]
    return shifted[:, None].expand(len(tokens), values.shape[1], *values.shape[2:])


def _drops(target: TargetModel, unit: Unit, tokens: Tokens, answer: int, args: AblateArgs) -> np.ndarray[Any, Any]:
    at = torch.zeros(tokens.ids.shape, dtype=torch.bool)
    at[_last(tokens)] = True
    site = Site("neurons" if unit.kind == "neuron" else "heads", unit.layer)
    edit = Edit(site, "set", _replacement(target, unit, tokens, args), index=unit.index, positions=at)
    plain, edited = last_log_probs(target, tokens, []), last_log_probs(target, tokens, [edit])
    return (plain - edited)[:, answer].numpy()


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
    drops = _drops(target, unit, tokens, answer, args)
    width = target.spec.d_mlp if unit.kind == "neuron" else target.spec.n_heads
    others = np.random.default_rng(args.seed).permutation([i for i in range(width) if i != unit.index])[:N_RANDOM_UNITS]
    nulls = np.array([_drops(target, Unit(unit.kind, unit.layer, int(i)), tokens, answer, args).mean() for i in others])
    effect = Measurement(
        "log_prob_drop",
        float(drops.mean()),
        "nats",
        len(drops),
        mean_interval(drops),
        float(nulls.mean()),
        float((np.abs(nulls) < abs(drops.mean())).mean() * 100),
    )
    return ToolResult((effect,), {"unit": unit.address, "answer": args.answer, "drops": drops.round(5).tolist()})


@tool("steer")
def steer(context: ToolContext, args: SteerArgs) -> ToolResult:
    """Dose-response of a token's log-probability when the neuron is set to (or moved by) each dose at the last position.

    slope: nats per unit of activation, mean over prompts of the least-squares line; r2: of the mean curve.
    """
    unit, target = Unit.parse(args.unit), context.target
    check_unit(target.spec, unit)
    if unit.kind != "neuron":
        raise ToolRefused(f"steer takes a neuron, and {unit.address} is a head: use intervene on its 'heads' site")
    tokens, watched = read_texts(target, args.prompts), token_id(target, args.token)
    at = torch.zeros(tokens.ids.shape, dtype=torch.bool)
    at[_last(tokens)] = True
    site = Site("neurons", unit.layer)
    curves = np.stack(
        [
            last_log_probs(target, tokens, [Edit(site, args.how, dose, index=unit.index, positions=at)])[
                :, watched
            ].numpy()
            for dose in args.doses
        ]
    )
    doses = np.array(args.doses)
    design = np.stack([doses, np.ones_like(doses)], axis=1)
    (slopes, intercepts), *_ = np.linalg.lstsq(design, curves, rcond=None)
    mean = curves.mean(axis=1)
    residual = mean - design @ np.array([slopes.mean(), intercepts.mean()])
    total = float(((mean - mean.mean()) ** 2).sum())
    r2 = 1 - float((residual**2).sum()) / total if total > 0 else 0.0
    slope = Measurement(
        "slope", float(slopes.mean()), "nats per unit of activation", len(slopes), mean_interval(slopes), 0.0
    )
    return ToolResult(
        (slope, Measurement("r2", r2, "share", len(doses))),
        {
            "unit": unit.address,
            "doses": list(args.doses),
            "log_prob": mean.round(5).tolist(),
            "intercept": float(intercepts.mean()),
        },
    )


@tool("patch")
def patch(context: ToolContext, args: PatchArgs) -> ToolResult:
    """How much of the clean answer returns when one site of the clean run replaces that of the corrupted run, by position.

    recovered: (logit difference − corrupted) / (clean − corrupted); 1 is the clean run, 0 the corrupted one.
    Refuses: prompts of unequal length, equal logit differences. Source: Heimersheim & Nanda 2024, arXiv:2404.15255.
    """
    target = context.target
    tokens = read_texts(target, (args.clean, args.corrupted))
    if tokens.lengths[0] != tokens.lengths[1]:
        raise ToolRefused(
            f"clean has {tokens.lengths[0]} tokens and corrupted {tokens.lengths[1]}: they must be equally long"
        )
    right, wrong = token_id(target, args.answer), token_id(target, args.wrong_answer)
    site = find_site(target.spec, args.site, args.layer)
    run = target.run(to_ids(tokens), read=[site], logits=True)
    assert run.logits is not None
    differences = run.logits[:, -1, right] - run.logits[:, -1, wrong]
    clean, corrupted = (float(d) for d in differences)
    if abs(clean - corrupted) < 1e-6:
        raise ToolRefused("clean and corrupted prompts give the same logit difference: there is nothing to recover")
    n_pos = tokens.ids.shape[1]
    batch = to_ids(tokens)[1:].expand(n_pos, n_pos)
    edit = Edit(site, "set", run.read[site][:1], positions=torch.eye(n_pos, dtype=torch.bool))
    patched = target.run(batch, edits=[edit], logits=True).logits
    assert patched is not None
    recovered = ((patched[:, -1, right] - patched[:, -1, wrong]) - corrupted) / (clean - corrupted)
    best = int(recovered.argmax())
    return ToolResult(
        (Measurement("recovered_best", float(recovered[best]), "share of the logit difference", 1, null_value=0.0),),
        {
            "site": str(site),
            "clean_logit_difference": clean,
            "corrupted_logit_difference": corrupted,
            "pieces": [target.vocabulary.pieces[i] for i in tokens.ids[1]],
            "recovered": [round(float(r), 5) for r in recovered],
        },
    )

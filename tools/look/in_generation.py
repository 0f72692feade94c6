"""What a unit does while the model writes: its activation at each token of a prompt and of what follows."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from neuronaut.tools.chat.labels import Part as Label
from neuronaut.tools.chat.parts import NEXT
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.intervene.parts import Part
from neuronaut.tools.look.activations import FIRING, to_ids
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import Choose, Edit, TargetModel, Written
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import columns_of, site_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

MOST_NEW = 512  # tokens


class HeldArgs(BaseModel):
    """A part that is changed: `8.481`, `L8H3`, `sae:NAME/12`, `8.attn_out` or `8.mlp_out`; at: at which tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    part: str
    how: Literal["set", "add", "scale"]
    value: FiniteFloat
    at: Literal["all", "prompt", "generated"] = "all"


class InGenerationArgs(ToolArgs):
    """The unit, and the prompt: text, or the messages of a chat, [{"role": …, "content": …}, …]. n_tokens: written at most;
    temperature: 0 takes the likeliest token, otherwise tokens are drawn, by the seed. edits: held while the model
    writes. stop: whether the model's own end of a turn ends the text."""

    example: ClassVar = {"unit": "8.481", "prompt": "After Mary and Lucy", "n_tokens": 8}
    unit: str
    prompt: Prompt
    n_tokens: int = Field(default=32, ge=1, le=MOST_NEW)
    temperature: FiniteFloat = Field(default=0.0, ge=0, le=10)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    edits: tuple[HeldArgs, ...] = Field(default=(), max_length=100)
    stop: bool = True


@tool("activations_in_generation")
def activations_in_generation(context: ToolContext, args: InGenerationArgs) -> ToolResult:
    """A unit's activation at each token of a prompt and of what the model writes behind it.

    Each row: position (counted from 0 with the token that starts the text), token, the part it belongs to (of a chat the part
    of its template; generated; prompt), the probability that the model, with its edits, gave it before it was there (at
    temperature 1; none for the first), and the activation in the model's own units. by_part: mean and extremes over the tokens
    of each part. The activations are those of a plain run over the finished text with the same edits at the same tokens, up to
    rounding; the last token written is part of it.
    Refuses: a head; a prompt behind which n_tokens do not fit into the context; to set a head or add to it.
    """
    target, unit = context.target, Unit.parse(args.unit)
    if unit.kind not in FIRING:
        raise ToolRefused(f"{unit.address} is a {unit.kind}: only neurons and features have one activation a token")
    check_unit(target.spec, unit, target.dictionaries)
    edits = [(one.at, _edit(target, one)) for one in args.edits]
    tokens = read_texts(target, (args.prompt,))
    n_prompt = int(tokens.lengths[0])
    if n_prompt + args.n_tokens > target.spec.n_ctx:
        raise ToolRefused(
            f"{args.n_tokens} tokens behind a prompt of {n_prompt} do not fit into the context of {target.spec.name} "
            f"({target.spec.n_ctx} tokens): " + _room(target.spec.n_ctx - n_prompt)
        )
    site, [column] = columns_of(site_of(target, unit), [unit.index])
    written = target.write(
        to_ids(tokens),
        chooser(args, target.chat_format.ends if args.stop else frozenset()),
        read=[site],
        prompt_edits=[edit for at, edit in edits if at != "generated"],
        edits=[edit for at, edit in edits if at != "prompt"],
    )
    activations = unit.sign * written.read[site][0, :, column].float().numpy()
    if not np.isfinite(activations).all():
        raise ToolFailed(f"{unit.address} has activations that are not finite on this text")
    labels = _labels(tokens, written.ids.shape[1] - n_prompt)
    new = written.ids[0, n_prompt:].tolist()
    payload: dict[str, Any] = {
        "unit": unit.address,
        "prompt_tokens": n_prompt,
        "written": target.decode(new),
        "stopped": _stopped(target, new, args),
        "by_part": _by_part(labels, activations),
        "tokens": _rows(target, written, labels, activations),
    }
    arrays = {"activations": activations, "log_probs": written.log_probs.numpy(), "ids": written.ids[0].numpy()}
    return ToolResult(payload=payload, arrays=arrays)


def chooser(args: InGenerationArgs, ends: frozenset[int]) -> Choose:
    """What chooses the next token: the likeliest one, or one drawn by the seed; nothing behind n_tokens, or behind an end."""
    rng, written = np.random.default_rng(args.seed), list[int]()

    def choose(log_probs: Tensor) -> int | None:
        if len(written) == args.n_tokens or (written and written[-1] in ends):
            return None
        if args.temperature == 0:
            token = int(log_probs.argmax())
        else:
            shares = torch.softmax(log_probs.double() / args.temperature, dim=-1).numpy()
            token = min(
                int(np.searchsorted(np.cumsum(shares), rng.random() * shares.sum(), side="right")), len(shares) - 1
            )
        written.append(token)
        return token

    return choose


def _edit(target: TargetModel, asked: HeldArgs) -> Edit:
    part = Part.parse(asked.part, target)
    if part.site.name == "heads" and asked.how != "scale":
        raise ToolRefused(
            f"{part.address} is a head, whose output is no single number to {asked.how}: give how 'scale'"
        )
    return Edit(part.site, asked.how, asked.value, index=part.index)


def _room(left: int) -> str:
    return f"ask for at most {left}" if left > 0 else "shorten the prompt"


def _stopped(target: TargetModel, new: Sequence[int], args: InGenerationArgs) -> str:
    if args.stop and new[-1] in target.chat_format.ends:
        return f"the model ended it with {target.vocabulary.pieces[new[-1]]}"
    return f"{args.n_tokens} tokens were written"


def _labels(tokens: Tokens, n_new: int) -> list[Label]:
    """What each token belongs to, those that were written included."""
    chat = tokens.parts[0] if tokens.parts else ()
    plain = [Label("prompt")] * int(tokens.lengths[0])
    behind = 1 + max((part.message for part in chat if part.message is not None), default=-1)
    begun = chat[-1].message if chat and chat[-1].kind == "header" else behind
    return [*(chat or plain), *([Label("generated", NEXT if chat else "", begun if chat else None)] * n_new)]


def _by_part(labels: Sequence[Label], activations: Array) -> list[dict[str, Any]]:
    names = [str(label) for label in labels]
    found = []
    for name in dict.fromkeys(names):
        here = activations[np.array([one == name for one in names])]
        row = {"part": name, "tokens": len(here), "mean": float(here.mean()), "min": float(here.min())}
        found.append(row | {"max": float(here.max())})
    return found


def _rows(target: TargetModel, written: Written, labels: Sequence[Label], activations: Array) -> list[dict[str, Any]]:
    pieces, probabilities = target.vocabulary.pieces, written.log_probs.exp().tolist()
    return [
        {
            "position": at,
            "token": pieces[token],
            "part": str(labels[at]),
            "message": labels[at].message,
            "probability": None if at == 0 else round(probabilities[at], 6),
            "activation": round(float(activations[at]), 5),
        }
        for at, token in enumerate(written.ids[0].tolist())
    ]

"""The model with any list of edits in place."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.next_token import (
    divergence,
    last_log_probs,
    text_batches,
)
from neuronaut.tools.intervene.parts import places_of
from neuronaut.tools.look.capture import find_site
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import mean_interval
from neuronaut.tools.targets.base import Edit, PlainSiteName, TargetModel
from neuronaut.tools.tokens import Tokens


class EditArgs(BaseModel):
    """One edit as data; position counts from the start of the text without BOS, None is everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    site: PlainSiteName
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
    texts: tuple[Prompt, ...] = Field(min_length=1, max_length=10_000)
    edits: tuple[EditArgs, ...] = Field(max_length=100)
    k: int = Field(default=5, ge=1, le=1000)


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
        positions = places_of(target, tokens, (args.position,)).mask
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
        kls = divergence(plain, edited).tolist()
        for row, p, e, kl in zip(rows.tolist(), plain, edited, kls, strict=True):
            found[row] = {"text": tokens.texts[row], "kl": kl, "plain": top(p), "edited": top(e)}
    texts = [found[row] for row in sorted(found)]
    kl = np.array([text["kl"] for text in texts])
    measured = Measurement("kl", float(kl.mean()), "nats", len(kl), mean_interval(kl), 0.0, n_of="texts")
    return ToolResult((measured,), {"texts": texts})

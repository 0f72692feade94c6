"""One site of a clean run put into a corrupted run: what of the clean answer comes back, position by position."""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.next_token import residual_before, to_ids, token_id, tokens_at_once
from neuronaut.tools.look.capture import find_site
from neuronaut.tools.look.examples import Text, read_texts
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.tokens import Tokens

# Of the largest logit: float32 sums in another order differ by 1e-6 of it, so that a recovered share is good to 1 %.
MIN_DIFFERENCE = 1e-4


class PatchArgs(ToolArgs):
    """Clean and corrupted prompt of equal length in tokens, the two answers, and the site to carry over."""

    example: ClassVar = {
        "clean": "Mary gave the ring to",
        "corrupted": "Leo gave the ring to",
        "answer": " Mary",
        "wrong_answer": " Leo",
        "layer": 4,
    }
    clean: Text
    corrupted: Text
    answer: str
    wrong_answer: str
    site: Literal["resid_pre", "attn_out", "mlp_out", "resid_post"] = "resid_pre"
    layer: int = Field(ge=0)


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
    best = Measurement(
        "recovered_best", float(recovered.max()), "share of the logit difference", 1, null_value=0.0, n_of="prompt pair"
    )
    return ToolResult(
        (best,),
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

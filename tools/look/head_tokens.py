"""The tool `head_tokens`: which token looks at which by a head's weights, and what is said of a token that is looked at."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.attention import check_head
from neuronaut.tools.look.head_weights import Embedding, HeadWeights, copying_scores
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.units import Unit

MOST_TOKENS = 1024  # that are scored against each other
EXPLORE_TOKENS = 50_000


def tokens_to_score(context: ToolContext, seed: int, most: int = MOST_TOKENS) -> list[int]:
    """Ids of tokens that explore text holds, at most `most`, drawn by the seed, rising."""
    tokens = context.sample("explore", EXPLORE_TOKENS)
    found = np.unique(tokens.ids[tokens.scored])
    if len(found) < 3:
        raise ToolRefused(f"the explore text holds {len(found)} different tokens: give a corpus with more text")
    rng = np.random.default_rng(seed)
    return sorted(int(token) for token in rng.permutation(found)[:most])


class HeadTokensArgs(ToolArgs):
    """Which head, how many pairs. tokens: those between which pairs are sought, all tokens of explore text (at most 1024,
    drawn by the seed) where none are given. embedding: what stands for a token, itself or with the first MLP's answer."""

    example: ClassVar = {"unit": "L5H1", "k": 5}
    unit: str
    k: int = Field(default=10, ge=1, le=1000)
    tokens: tuple[str, ...] = Field(default=(), max_length=MOST_TOKENS)
    embedding: Embedding = "mlp0"
    seed: int = Field(default=0, ge=0)


@tool("head_tokens")
def head_tokens(context: ToolContext, args: HeadTokensArgs) -> ToolResult:
    """Token pairs of a head by its weights: which query token scores highest with which key token, and which logits a token
    that is looked at raises and lowers most.

    query_key: attention scores by the tokens alone, each key's mean over the queries taken off. output_value: logits. Gains
    are folded in; biases, positions (rotary ones too), the scales of norms and norms of queries and keys are left out.
    copying: mean share of the other tokens' logits below the token's own, in [0, 1]; matching: the same of the token as its
    own key. Nulls: the score of another token in its place; percentile among all heads of the layer.
    Refuses: a neuron; fewer than 3 tokens; text that is no single token.
    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
    """
    target, unit = context.target, Unit.parse(args.unit)
    check_head(target, unit)
    ids = _given(target, args.tokens) if args.tokens else tokens_to_score(context, args.seed)
    weights = HeadWeights(target, unit.layer, args.embedding)
    all_ov = weights.ov(ids, ids)
    own, other = copying_scores(all_ov)
    each = [weights.qk(head, ids, ids) for head in range(target.spec.n_heads)]
    matching = [tuple(float(score[0]) for score in copying_scores(one[None])) for one in each]
    qk = each[unit.index] - each[unit.index].mean(dim=0)
    found = (
        _measured("copying", own.tolist(), float(other[unit.index]), unit.index, len(ids)),
        _measured("matching", [mine for mine, _ in matching], matching[unit.index][1], unit.index, len(ids)),
    )
    pieces = [target.vocabulary.pieces[i] for i in ids]
    return ToolResult(
        found,
        {
            "unit": unit.address,
            "tokens": len(ids),
            "embedding": args.embedding if unit.layer else "token",
            "query_key": _pairs(qk, pieces, ("query", "key", "score"), args.k),
            "output_value": _pairs(all_ov[unit.index], pieces, ("source", "raises", "logit"), args.k),
            "output_value_lowered": _pairs(-all_ov[unit.index], pieces, ("source", "lowers", "logit"), args.k, sign=-1),
        },
    )


def _given(target: TargetModel, texts: Sequence[str]) -> list[int]:
    from neuronaut.tools.intervene.next_token import token_id

    ids = sorted({token_id(target, text) for text in texts})
    if len(ids) < 3:
        raise ToolRefused(f"{len(ids)} tokens make no pairs to choose from: give at least 3")
    return ids


def _measured(metric: str, heads: Sequence[float], null: float, head: int, n: int) -> Measurement:
    others = np.delete(np.array(heads), head)
    percentile = percentile_of(heads[head], others) if len(others) else None
    return Measurement(metric, heads[head], "mean rank", n, None, null, percentile, n_of="tokens")


def _pairs(
    scores: Tensor, pieces: Sequence[str], names: tuple[str, str, str], k: int, *, sign: int = 1
) -> list[dict[str, Any]]:
    """The k largest of a (n, n) grid, no row more than once."""
    best, column = scores.max(dim=1)
    top = torch.topk(best, min(k, len(best)))
    first, second, what = names
    return [
        {first: pieces[row], second: pieces[int(column[row])], what: round(sign * float(value), 4)}
        for value, row in zip(top.values, top.indices.tolist(), strict=True)
    ]

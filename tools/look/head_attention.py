"""How much of its attention each head gives to keys of known kinds, of all heads in one pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.attention import Floats, Pattern, patterns, shuffled
from neuronaut.tools.predicates.attends import (
    FIRST_QUERY,
    AfterDuplicate,
    Attends,
    Current,
    Duplicate,
    First,
    Previous,
    named_keys,
)
from neuronaut.tools.stats import document_weights
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens, tokens_from_ids

CLAIMS: Mapping[str, Attends] = {
    "previous": Attends(key=Previous()),
    "current": Attends(key=Current()),
    "first": Attends(key=First()),
    "duplicate": Attends(key=Duplicate()),
    "induction": Attends(key=AfterDuplicate()),
}
BY_TOKEN = ("duplicate", "induction")  # whose keys depend on the tokens and not on places alone
REPEATED_TEXTS, REPEATED_TOKENS = 32, 50  # Olsson et al. 2022 repeat 50 random tokens
STRONGEST = 0.1  # of a query's attention: weaker pairs are not listed


@dataclass(frozen=True)
class Attention:
    """Where all heads look on some texts, by score: means over queries, each (n_layers, n_heads).

    nulls: the same of keys that are none. queries: how many there were. by_document: (n_layers, n_heads, n_documents) sums,
    and weights: (n_documents,) the queries of each document.
    """

    values: dict[str, Floats] = field(default_factory=dict)
    nulls: dict[str, Floats] = field(default_factory=dict)
    queries: dict[str, int] = field(default_factory=dict)
    by_document: dict[str, Floats] = field(default_factory=dict)
    weights: dict[str, Floats] = field(default_factory=dict)

    def interval(self, score: str, layer: int, head: int) -> tuple[float, float] | None:
        """95 % bootstrap over documents; None of fewer than two."""
        sums, sizes = self.by_document[score][layer, head], self.weights[score]
        if len(sums) < 2:
            return None
        drawn = document_weights(len(sums), 0)
        below = drawn @ sizes
        low, high = np.quantile((drawn @ sums)[below > 0] / below[below > 0], [0.025, 0.975])
        return float(low), float(high)


def repeated_random(target: TargetModel, pool: Sequence[int], seed: int) -> Tokens:
    """32 texts of random tokens, 50 different ones (fewer where the context or the pool is smaller), twice in a row."""
    bos = [] if target.spec.bos is None else [target.spec.bos]
    n = min(REPEATED_TOKENS, (target.spec.n_ctx - len(bos)) // 2, len(pool))
    if n < 3:
        raise ToolRefused(
            f"{target.spec.name} has too few tokens or places for repeated text: 3 tokens twice are needed"
        )
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(np.asarray(pool))[:n].tolist() for _ in range(REPEATED_TEXTS)]
    return tokens_from_ids([[*bos, *half, *half] for half in halves], target.vocabulary)


def attention_of(target: TargetModel, tokens: Tokens, seed: int) -> Attention:
    """Scores of all heads in one pass.

    previous, current, first (token of the text, not the start token), duplicate (earlier occurrences), induction (what
    followed them): mean share of a query's attention on these keys, over queries that have any; see `named_keys`. start:
    on the first position of the window, where heads rest. entropy: nats, over queries from the third token on.
    Nulls: for duplicate and induction the keys of the shuffled text on the same patterns; for the others, attention
    that is spread evenly.
    """
    spec, numbers = target.spec, np.unique(tokens.documents, return_inverse=True)[1]
    asked = _Asked.of(tokens, seed)
    shape = (spec.n_layers, spec.n_heads, int(numbers.max(initial=0)) + 1)
    sums = {name: np.zeros(shape) for name in asked.keys}
    nulls = {name: np.zeros(shape[:2]) for name in asked.wrong}
    for rows, read in patterns(target, tokens, range(spec.n_layers)):
        for layer, pattern in read.items():
            for name in asked.keys:
                found = _summed(name, pattern, asked.part(asked.keys[name], rows, pattern), asked.queries[rows])
                np.add.at(sums[name][layer].T, numbers[rows], found.T)
            for name, wrong in asked.wrong.items():
                nulls[name][layer] += _summed(name, pattern, asked.part(wrong, rows, pattern), asked.queries[rows]).sum(
                    -1
                )
    return asked.means(sums, nulls, numbers)


@dataclass(frozen=True)
class _Asked:
    """Which queries are looked at for each score, and on which keys. keys, wrong: (n_texts, query, key), None for scores
    that are not shares of named keys; wrong: those of the shuffled text. queries: (n_texts, query)."""

    keys: Mapping[str, NDArray[np.bool_] | None]
    wrong: Mapping[str, NDArray[np.bool_]]
    queries: NDArray[np.bool_]

    @classmethod
    def of(cls, tokens: Tokens, seed: int) -> "_Asked":
        named = {name: named_keys(claim, tokens) for name, claim in CLAIMS.items()}
        keys = {name: one for name, one in named.items() if one.any()}
        other = shuffled(tokens, np.random.default_rng(seed))
        wrong = {name: named_keys(CLAIMS[name], other) for name in BY_TOKEN if name in keys}
        queries = tokens.scored & (np.arange(tokens.ids.shape[1]) >= FIRST_QUERY)
        return cls({**keys, "start": None, "entropy": None}, wrong, queries)

    def part(self, keys: NDArray[np.bool_] | None, rows: NDArray[np.int64], pattern: Pattern) -> Any:
        """The keys of some texts, as wide as their pattern."""
        width = pattern.shape[-1]
        return None if keys is None else keys[rows, :width, :width]

    def means(self, sums: dict[str, Floats], nulls: dict[str, Floats], documents: NDArray[np.int64]) -> Attention:
        """Sums over queries as means over queries, with what even attention would give."""
        found = Attention(by_document=sums)
        visible = np.arange(1.0, self.queries.shape[1] + 1)
        for name, keys in self.keys.items():
            asked = self.queries if keys is None else keys.any(-1)
            found.weights[name] = np.bincount(documents, asked.sum(-1)).astype(np.float64)
            found.queries[name] = int(asked.sum())
            found.values[name] = sums[name].sum(-1) / max(1, found.queries[name])
            if name in self.wrong:
                found.nulls[name] = nulls[name] / max(1, int(self.wrong[name].any(-1).sum()))
                continue
            even = np.log(visible) if name == "entropy" else (1.0 if keys is None else keys.sum(-1)) / visible
            mean = np.broadcast_to(even, asked.shape)[asked].mean() if asked.any() else 0.0
            found.nulls[name] = np.full(found.values[name].shape, float(mean))
        return found


def _summed(name: str, pattern: Pattern, keys: NDArray[np.bool_] | None, queries: NDArray[np.bool_]) -> Floats:
    """(n_heads, n) sums over queries. pattern: (n, n_heads, query, key); keys: (n, query, key); queries: (n, at least query)."""
    if keys is not None:
        return np.einsum("nhqk,nqk->hn", pattern, keys, dtype=np.float64)
    if name == "start":
        each = pattern[..., 0].astype(np.float64)
    else:
        each = -np.where(pattern > 0, pattern * np.log(np.maximum(pattern, 1e-30)), 0.0).sum(-1, dtype=np.float64)
    return np.asarray((each * queries[:, None, : pattern.shape[-1]]).sum(-1).T)


def strongest(pattern: Pattern, tokens: Tokens) -> list[tuple[int, int, int]]:
    """Text, query and key of each pair with a tenth of the query's attention, the strongest first; neither is special or at
    the first position. pattern: (n_texts, query, key)."""
    scored = tokens.scored & (np.arange(tokens.ids.shape[1]) > 0)
    weights = np.where(scored[:, :, None] & scored[:, None, :], pattern, 0.0)
    at = np.argwhere(weights >= STRONGEST)
    order = np.argsort(-weights[tuple(at.T)], kind="stable")
    return [(int(text), int(query), int(key)) for text, query, key in at[order]]

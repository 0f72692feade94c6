"""Heads of a layer: where they look, and the places where most of their attention is off the first token."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.tools.kinds.base import Arrays, Batch, Chunk, IndexSettings, Read
from neuronaut.tools.kinds.values import ValueCollector, ValueSummary
from neuronaut.tools.look.head_attention import CLAIMS
from neuronaut.tools.predicates.attends import FIRST_QUERY, named_keys
from neuronaut.tools.sums import TreeSum
from neuronaut.tools.targets.base import Site

SCORES = (*CLAIMS, "start", "entropy", "distance")
SINGLE = ("previous", "current", "first")  # which name one key at most; they come first in CLAIMS


@dataclass
class HeadSummary:
    """What is known of the heads of a layer after some documents.

    values: of the largest attention off the first token, at each query; its places are window, query and key.
    scores: (n_scores, n_heads) sums over queries, and queries: (n_scores,) how many they were, in the order of SCORES.
    """

    values: ValueSummary
    scores: TreeSum
    queries: NDArray[np.int64]

    def arrays(self) -> Arrays:
        """As it is stored."""
        return {**self.values.arrays(), **self.scores.arrays("scores"), "queries": self.queries}

    def merge(self, other: "HeadSummary") -> None:
        """Takes in the summary of other documents."""
        self.values.merge(other.values)
        self.scores.merge(other.scores)
        self.queries = self.queries + other.queries

    @property
    def means(self) -> dict[str, NDArray[np.float64]]:
        """Score to its mean over queries, (n_heads,); 0 where no query was asked."""
        found = self.scores.total() / np.maximum(1, self.queries)[:, None]
        return dict(zip(SCORES, found, strict=True))


@dataclass(frozen=True)
class Heads:
    """The `width` heads of a layer.

    Queries are the tokens of the text from the third position of a window on, as in `head_scores`. Value of a head at a query:
    the largest share of attention that it gives to a key that is a token of the text and not the first of the window, in [0, 1].

    Scores, means over queries. previous, current, first (token of the text), duplicate (earlier occurrences of the query's
    token), induction (what followed them): the share of attention on these keys, over the queries that have any (see
    `named_keys`). start: on the first position of the window. entropy: nats. distance: mean number of tokens from key back to
    query, weighted by attention; the first position counts as any other.
    Source: Olsson et al. 2022, arXiv:2209.11895; Vig and Belinkov 2019, arXiv:1906.04284 (distance, entropy).
    """

    layer: int
    width: int

    @property
    def name(self) -> str:
        """The folder of its shards."""
        return f"heads-{self.layer:03d}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The attention pattern."""
        return (Site("pattern", self.layer),)

    @property
    def bytes_a_cell(self) -> tuple[int, int]:
        """A float32 a head and pair of tokens."""
        return 0, 4 * self.width

    @property
    def tokens_at_once(self) -> None:
        """As many as fit into a batch."""

    def empty(self, settings: IndexSettings) -> HeadSummary:
        """The summary of no text."""
        values = ValueSummary.empty(self.width, settings, signs=1, n_places=3)
        return HeadSummary(values, TreeSum((len(SCORES), self.width)), np.zeros(len(SCORES), dtype=np.int64))

    def restore(self, arrays: Arrays, settings: IndexSettings) -> HeadSummary:
        """The summary that was stored."""
        queries = arrays["queries"].astype(np.int64)
        return HeadSummary(ValueSummary.of(arrays, settings), TreeSum.of(arrays, "scores"), queries)

    def collect(self, chunk: Chunk, into: HeadSummary) -> "HeadCollector":
        """What takes in a chunk."""
        return HeadCollector(self, into, ValueCollector(chunk, into.values), np.zeros((len(SCORES), self.width)))


@dataclass
class _Asked:
    """What the scores of all layers need of a batch. queries: (n, query) bool. single: for each of SINGLE the key of each query
    and whether there is one, (n, query); several: (n, n_claims, query · key) of the keys that the other claims name. counts:
    (n_scores,) queries. hidden: (n, key) keys that are special tokens, None where there are none.
    """

    queries: NDArray[np.bool_]
    single: list[tuple[torch.Tensor, torch.Tensor]]
    several: torch.Tensor
    counts: NDArray[np.int64]
    hidden: torch.Tensor | None

    @classmethod
    def of(cls, batch: Batch) -> "_Asked":
        tokens = batch.chunk.tokens.select(batch.windows)
        named = {name: named_keys(claim, tokens) for name, claim in CLAIMS.items()}
        queries = batch.scored & (np.arange(batch.width) >= FIRST_QUERY)
        asked = [int(one.any(axis=-1).sum()) for one in named.values()]
        asked += [int(queries.sum())] * (len(SCORES) - len(named))
        single = [(torch.from_numpy(named[n].argmax(axis=-1)), torch.from_numpy(named[n].any(axis=-1))) for n in SINGLE]
        more = np.stack([one for name, one in named.items() if name not in SINGLE], axis=1)
        special = ~batch.scored & (tokens.ids >= 0) & (np.arange(batch.width) > 0)
        hidden = torch.from_numpy(special) if special.any() else None
        several = torch.from_numpy(more).flatten(2).float()
        return cls(queries, single, several, np.array(asked, dtype=np.int64), hidden)


@dataclass
class HeadCollector:
    """One chunk of the heads of a layer."""

    kind: Heads
    into: HeadSummary
    values: ValueCollector
    _scores: NDArray[np.float64]
    _queries: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(SCORES), dtype=np.int64))

    def take(self, batch: Batch, read: Read) -> None:
        """Takes in a batch, and writes over the pattern; windows shorter than three tokens hold no query."""
        if batch.width <= FIRST_QUERY:
            return
        if "heads" not in batch.memo:
            batch.memo["heads"] = _Asked.of(batch)
        asked: _Asked = batch.memo["heads"]
        pattern = read[self.kind.sites[0]].to("cpu", torch.float32).contiguous()
        self._scores += _sums(pattern, asked)
        self._queries += asked.counts
        pattern[..., 0] = 0.0
        if asked.hidden is not None:
            pattern.masked_fill_(asked.hidden[:, None, None], 0.0)
        best = pattern.amax(dim=-1).transpose(1, 2).contiguous()
        self.values.add_values(best, batch, asked.queries)
        peaks, query = best.masked_fill_(torch.from_numpy(~asked.queries)[..., None], -torch.inf).max(dim=1)
        rows, heads = torch.arange(len(pattern))[:, None], torch.arange(self.kind.width)
        key = pattern[rows, heads, query].argmax(dim=-1).clamp_min_(1)
        self.values.add_maxima(peaks[:, None], query[:, None], batch, key[:, None, :, None])

    def finish(self) -> None:
        """Adds the chunk to the summary."""
        self.values.finish()
        self.into.scores.add(self.values.chunk.number, self._scores)
        self.into.queries = self.into.queries + self._queries


def _sums(pattern: torch.Tensor, asked: _Asked) -> NDArray[np.float64]:
    """(n_scores, n_heads) sums over the queries of a batch; pattern: (n, n_heads, query, key)."""
    single = [
        (pattern.gather(-1, key[:, None, :, None].expand(*pattern.shape[:-1], 1))[..., 0] * there[:, None]).sum(-1)
        for key, there in asked.single
    ]
    named = torch.stack(single).double().sum(dim=1)
    several = torch.bmm(pattern.flatten(2), asked.several.transpose(1, 2)).double().sum(0).T
    place = torch.arange(pattern.shape[-1], dtype=torch.float32)
    logs = pattern.clamp_min(1e-30).log_().mul_(pattern).sum(-1)
    counted = torch.from_numpy(asked.queries)[:, None].float()
    each = [(value * counted).sum(-1) for value in (pattern[..., 0], -logs, place - pattern @ place)]
    rest = torch.stack(each).double().sum(dim=1)
    return torch.cat([named, several, rest]).numpy()

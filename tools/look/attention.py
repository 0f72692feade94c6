"""Where heads look: attention patterns read in batches, and how often a query looks at the keys that a claim names."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.predicates.attends import FIRST_QUERY, Attends, named_keys
from neuronaut.tools.stats import ratio_samples, summed_by
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.tokens import PAD, Tokens, tokens_from_ids
from neuronaut.tools.units import Unit

Floats = NDArray[np.float64]
Pattern = NDArray[np.float32]
Bools = NDArray[np.bool_]

LOOKS = 0.3  # of the attention of a query, and more than on any other key but the first token
MAX_POS = 128  # of a window: a pattern grows with the square
CELLS = 1 << 22  # queries times keys that are read of one text
BATCH_CELLS = 1 << 23  # times heads and layers, that are held at once
MAX_WINDOWS = 160


def some_windows(tokens: Tokens, seed: int) -> Tokens:
    """The beginnings, of at most MAX_POS tokens, of windows of different documents first, as many as CELLS allow."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(tokens.lengths > FIRST_QUERY))
    again = np.zeros(len(order), dtype=np.int64)
    seen: dict[int, int] = {}
    for at, window in enumerate(order.tolist()):
        document = int(tokens.documents[window])
        again[at] = seen[document] = seen.get(document, -1) + 1
    order = order[np.argsort(again, kind="stable")]
    width = min(MAX_POS, int(tokens.lengths.max(initial=1)))
    chosen = np.sort(order[: max(1, min(MAX_WINDOWS, CELLS // width**2))])
    rows = [tokens.ids[window, : min(width, int(tokens.lengths[window]))].tolist() for window in chosen.tolist()]
    return tokens_from_ids(rows, tokens.vocabulary, tokens.documents[chosen].tolist())


def patterns(
    target: TargetModel, tokens: Tokens, layers: Collection[int]
) -> Iterator[tuple[NDArray[np.int64], dict[int, Pattern]]]:
    """Window numbers, and for each layer the patterns (n, n_heads, query, key) of those windows, batch by batch.

    Fails where attention is not finite.
    """
    sites = [Site("pattern", layer) for layer in sorted(layers)]
    cells = tokens.ids.shape[1] * target.spec.n_heads * len(sites)
    for rows in batches(tokens, max(1, BATCH_CELLS // cells)):
        ids = to_ids(tokens, rows)
        read = target.run(ids, read=sites, stop=sites[-1].layer + 1).read
        found = {site.layer: read[site].float().numpy() for site in sites}
        for layer, values in found.items():
            if not np.isfinite(values).all():
                raise ToolFailed(f"layer {layer} has attention that is not finite on this text")
        yield rows, found


def looked(pattern: Pattern, keys: Bools) -> Bools:
    """(n, query) whether a query looks at the named keys: more than LOOKS of its attention is on them, and the largest apart
    from the first token. pattern, keys: (n, query, key), of two positions at least."""
    on = np.where(keys, pattern, 0.0).sum(axis=-1)
    best = 1 + np.argmax(pattern[..., 1:], axis=-1)
    return np.asarray((on > LOOKS) & np.take_along_axis(keys, best[..., None], axis=-1)[..., 0])


@dataclass(frozen=True)
class Looks:
    """Sums by document, each (n_documents,). queries: with a named key; looked: of those, that look at it; on: their
    attention on named keys; off: their attention off the first token; anywhere: that of all queries; chance: how many
    would look at the named keys, were as many keys named at random."""

    documents: NDArray[np.int64]
    queries: Floats
    looked: Floats
    on: Floats
    off: Floats
    anywhere: Floats
    chance: Floats

    @staticmethod
    def _value(above: Floats, below: Floats) -> float:
        return float(above.sum() / below.sum()) if below.sum() > 0 else 0.0

    @staticmethod
    def _low(above: Floats, below: Floats) -> float:
        return float(np.quantile(ratio_samples(above, below), 0.05))

    @property
    def n_queries(self) -> int:
        """Queries for which a key is named."""
        return int(self.queries.sum())

    @property
    def share(self) -> float:
        """Of the queries with a named key, those that look at it; 0 of none."""
        return self._value(self.looked, self.queries)

    @property
    def share_low(self) -> float:
        """One-sided 95 % lower bound over documents."""
        return self._low(self.looked, self.queries)

    @property
    def off_first(self) -> float:
        """Share of the attention off the first token of those queries that is on the named keys."""
        return self._value(self.on, self.off)

    @property
    def off_first_low(self) -> float:
        """One-sided 95 % lower bound over documents."""
        return self._low(self.on, self.off)

    @property
    def attention(self) -> float:
        """Mean attention on the named keys."""
        return self._value(self.on, self.queries)

    @property
    def covers(self) -> float:
        """Share of the attention of all queries off the first token that is on the named keys."""
        return self._value(self.on, self.anywhere)

    @property
    def by_chance(self) -> float:
        """The share, were as many keys named at random."""
        return self._value(self.chance, self.queries)


def _sums(pattern: Pattern, keys: Bools, scored: Bools) -> Floats:
    """(6, n) the sums of each window, in the order of Looks. pattern, keys: (n, query, key); scored: (n, query)."""
    named, width = keys.any(axis=-1), pattern.shape[-1]
    on = np.where(keys, pattern, 0.0).sum(axis=-1)
    off = 1.0 - pattern[..., 0]
    sharp = pattern[..., 1:].max(axis=-1, initial=0.0) > LOOKS
    chance = sharp * keys.sum(axis=-1) / np.maximum(np.arange(width), 1)
    parts = (named, looked(pattern, keys) & named, on * named, off * named, off * scored, chance * named)
    return np.stack([part.sum(axis=-1) for part in parts]).astype(np.float64)


def _looks(sums: Floats, tokens: Tokens) -> Looks:
    return Looks(np.unique(tokens.documents), *summed_by(tokens.documents, *sums))


def _queries(tokens: Tokens) -> Bools:
    return np.asarray(tokens.scored & (np.arange(tokens.ids.shape[1]) >= FIRST_QUERY))


def count_looks(pattern: Pattern, keys: Bools, tokens: Tokens) -> Looks:
    """The counts of one head. pattern, keys: (n_windows, query, key)."""
    return _looks(_sums(pattern, keys, _queries(tokens)), tokens)


def check_head(target: TargetModel, unit: Unit) -> None:
    """Refuses what is no head, and a head that the model does not have."""
    if unit.kind != "head":
        raise ToolRefused(f"{unit.address} is a {unit.kind}: only heads look at tokens; write a head as L8H3")
    check_unit(target.spec, unit, target.dictionaries)


def pattern_of(target: TargetModel, unit: Unit, tokens: Tokens) -> Pattern:
    """(n_windows, query, key) of one head, 0 at padding. Refuses what `check_head` refuses."""
    check_head(target, unit)
    n_pos = tokens.ids.shape[1]
    found = np.zeros((len(tokens), n_pos, n_pos), dtype=np.float32)
    for rows, read in patterns(target, tokens, [unit.layer]):
        width = read[unit.layer].shape[-1]
        found[rows, :width, :width] = read[unit.layer][:, unit.index]
    return found


def looks_of_heads(
    target: TargetModel, claim: Attends, tokens: Tokens, layers: Collection[int]
) -> dict[tuple[int, int], Looks]:
    """(layer, head) to its counts for one claim, of all heads of some layers."""
    keys, queries = named_keys(claim, tokens), _queries(tokens)
    heads = [(layer, head) for layer in sorted(layers) for head in range(target.spec.n_heads)]
    sums = np.zeros((len(heads), 6, len(tokens)))
    for rows, read in patterns(target, tokens, layers):
        width = next(iter(read.values())).shape[-1]
        for number, (layer, head) in enumerate(heads):
            sums[number][:, rows] = _sums(read[layer][:, head], keys[rows, :width, :width], queries[rows, :width])
    return {place: _looks(one, tokens) for place, one in zip(heads, sums, strict=True)}


def shuffled(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """The windows with their tokens in random order, special ones in their places."""
    return _rewritten(tokens, lambda row: rng.permutation(row))


def random_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Windows as long, of tokens drawn alike from those that occur."""
    pool = np.unique(tokens.ids[tokens.scored])
    return _rewritten(tokens, lambda row: rng.choice(pool, size=len(row)))


def repeated_tokens(tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Windows as long, of tokens drawn alike from those that occur, whose second half is the first half again."""
    pool = np.unique(tokens.ids[tokens.scored])

    def twice(row: NDArray[np.int32]) -> NDArray[np.int32]:
        half = rng.choice(pool, size=(len(row) + 1) // 2, replace=len(pool) < (len(row) + 1) // 2)
        return np.concatenate([half, half])[: len(row)]

    return _rewritten(tokens, twice)


def _rewritten(tokens: Tokens, new: Callable[[NDArray[np.int32]], NDArray[np.integer]]) -> Tokens:
    ids = tokens.ids.copy()
    for window in range(len(ids)):
        at = np.flatnonzero(tokens.scored[window])
        ids[window, at] = new(ids[window, at])
    rows = [row[row != PAD].tolist() for row in ids]
    return tokens_from_ids(rows, tokens.vocabulary, tokens.documents.tolist())

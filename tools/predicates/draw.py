"""Pairs of edits for all conditions of a predicate, in test order."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from neuronaut.tools.predicates.edits import LeafEdits, Pair, Source
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.prepared import PER_DOCUMENT, prepare
from neuronaut.tools.predicates.tree import canonical_json, leaves


@dataclass(frozen=True)
class PairDraw:
    """The pairs, in test order, and how many places were given up and why."""

    pairs: tuple[Pair, ...]
    discarded: dict[str, int]


def draw_pairs(
    predicate: Predicate, source: Source, *, limit: int, leaf: int | None = None, avoid: Predicate | None = None
) -> PairDraw:
    """At most `limit` pairs for each leaf (or for one), at most 4 a document, in an order seeded by the predicate's hash.

    An edit of a leaf flips it and the predicate and leaves every other leaf as it was, or its place is discarded.
    avoid: a rival whose truth the two arms share where there is a choice.
    A condition that a single token makes true has make/placebo only (its negation: keep/break only). Where natural places
    are too few, the other conditions of a conjunction are made true first, in both arms alike.
    """
    seed = int.from_bytes(hashlib.sha256(canonical_json(predicate).encode()).digest()[:8], "big")
    parts, discarded, found = leaves(predicate), Counter[str](), list[Pair]()
    values = {part: holds(part, source.tokens) for part in parts}
    for number, part in enumerate(parts):
        if leaf is not None and number != leaf:
            continue
        rng = np.random.default_rng([seed, number])
        pairs, lost = LeafEdits(predicate, parts, number, source, values, rng, avoid).pairs(limit)
        if len(pairs) < limit and (ready := prepare(predicate, part, source.tokens, source.unigram, rng, limit)):
            there = replace(source, tokens=ready.tokens)
            known = {one: holds(one, ready.tokens) for one in parts}
            more, also = LeafEdits(predicate, parts, number, there, known, rng, avoid, ready.places).pairs(
                limit - len(pairs)
            )
            pairs += more
            lost += also
        found += pairs
        discarded += lost
    order = np.random.default_rng(seed).permutation(len(found))
    return PairDraw(_capped([found[i] for i in order]), dict(discarded))


def _capped(pairs: list[Pair]) -> tuple[Pair, ...]:
    used: Counter[tuple[int, int]] = Counter()
    kept = []
    for pair in pairs:
        used[pair.document, pair.leaf] += 1
        if used[pair.document, pair.leaf] <= PER_DOCUMENT:
            kept.append(pair)
    return tuple(kept)

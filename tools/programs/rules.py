"""Where a head looks, as a rule over labels: pairs of tables that a key and a query must satisfy, and which key is preferred."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

Prefer = Literal["all", "last", "first"]
Start = Literal["always", "otherwise", "never"]
ATTENDED = 0.5  # of the largest weight of the query: such keys are looked at
CONSTANT = "any"  # a feature with one label


@dataclass(frozen=True)
class Term:
    """A key of label k is admitted by a query of label q where allowed[k, q]."""

    key: str
    query: str
    allowed: Bools


@dataclass(frozen=True)
class Rule:
    """A key is looked at where all terms admit it; of several, all, the last or the first. start: whether the start token is
    looked at too, or where nothing else is. errors: (text, query) pairs of those learnt from in which it is wrong."""

    terms: tuple[Term, ...]
    prefer: Prefer
    start: Start
    errors: int
    queries: int


@dataclass(frozen=True)
class Attended:
    """What was seen of a head. chosen: (texts, query, key) bool; start: (texts, query) bool, the start token is looked at."""

    chosen: Bools
    start: Bools


def attended(pattern: NDArray[np.float32], lead: int) -> Attended:
    """Where a head looks. pattern: (texts, pos, pos)."""
    weights = pattern[:, lead:]
    chosen = weights >= ATTENDED * weights.max(axis=-1, keepdims=True)
    start = chosen[..., 0] if lead else np.zeros(chosen.shape[:2], dtype=bool)
    return Attended(chosen[..., lead:], start)


def admitted(terms: Sequence[Term], features: Mapping[str, Ints]) -> Bools:
    """(texts, query, key) whether the terms admit each earlier key, its own place included. features: (texts, words) labels."""
    shape = next(iter(features.values())).shape
    found = np.broadcast_to(np.tri(shape[1], dtype=bool), (*shape, shape[1])).copy()
    for term in terms:
        found &= term.allowed[features[term.key][:, None, :], features[term.query][:, :, None]]
    return found


def preferred(found: Bools, prefer: Prefer) -> Bools:
    """(texts, query, key) all, the last or the first of the admitted keys of each query."""
    if prefer == "all":
        return found
    seen = np.cumsum(found if prefer == "first" else found[..., ::-1], axis=-1)
    return found & ((seen if prefer == "first" else seen[..., ::-1]) == 1)


def learn_rule(
    seen: Attended, keys: Sequence[str], queries: Sequence[str], features: Mapping[str, Ints], sizes: Mapping[str, int]
) -> Rule:
    """The simplest rule over the features that is right as often as the richest one: terms are tables of the label pairs
    that were seen, as few as can be; `all` is preferred to `last`, that to `first`."""
    known = {**features, CONSTANT: np.zeros_like(next(iter(features.values())))}
    numbers = {**sizes, CONSTANT: 1}
    pairs = list(product((CONSTANT, *keys), (CONSTANT, *queries)))
    best: Rule | None = None
    for prefer in ("all", "last", "first"):
        terms = [_term(seen.chosen, pair, known, numbers) for pair in pairs]
        rule = _pruned(seen, terms, prefer, known)
        if best is None or rule.errors < best.errors:
            best = rule
        if best.errors == 0:
            break
    assert best is not None
    return best


def _term(chosen: Bools, pair: tuple[str, str], features: Mapping[str, Ints], sizes: Mapping[str, int]) -> Term:
    """All label pairs that were looked at."""
    key, query = pair
    texts, at, looked = np.nonzero(chosen)
    allowed = np.zeros((sizes[key], sizes[query]), dtype=bool)
    allowed[features[key][texts, looked], features[query][texts, at]] = True
    return Term(key, query, allowed)


def _pruned(seen: Attended, terms: Sequence[Term], prefer: Prefer, features: Mapping[str, Ints]) -> Rule:
    """Terms are left out, the largest table first, as long as the rule is not wrong more often."""
    kept = list(terms)
    errors = _errors(seen, kept, prefer, features)
    for term in sorted(terms, key=lambda term: -term.allowed.size):
        fewer = [one for one in kept if one is not term]
        if (now := _errors(seen, fewer, prefer, features)) <= errors:
            kept, errors = fewer, now
    return Rule(tuple(kept), prefer, _start(seen), errors, seen.start.size)


def _errors(seen: Attended, terms: Sequence[Term], prefer: Prefer, features: Mapping[str, Ints]) -> int:
    found = preferred(admitted(terms, features), prefer)
    return int((found != seen.chosen).any(axis=-1).sum())


def _start(seen: Attended) -> Start:
    """How the start token takes part, by the majority of queries."""
    nothing, something = ~seen.chosen.any(-1), seen.chosen.any(-1)
    if something.any() and seen.start[something].mean() > 0.5:
        return "always"
    return "otherwise" if nothing.any() else "never"

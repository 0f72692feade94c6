"""The built-in proposer finds planted rules, on documents that it never saw, and little in noise."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from neuronaut.agent.proposers.grammar import search
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.tokens import PAD, Tokens, Vocabulary

_SYLLABLES = ["ba", "ki", "lo", "mu", "ne", "pa", "ri", "so", "tu", "ve", "wa", "xo", "ya", "zu", "fi", "go"]
_OTHER = [".", ",", "!", "\n", ' "', '"', " (", ")", " 3", " 12", " 1999", "ing", "ed"]
_WORDS = [f" {a}{b}" for a in _SYLLABLES for b in _SYLLABLES][:200]
_NAMES = [f" {a.title()}{b}" for a, b in zip(_SYLLABLES, reversed(_SYLLABLES), strict=True)]
VOCABULARY = Vocabulary(("<s>", *_WORDS, *_NAMES, *_OTHER), frozenset({0}))
ID = {piece: i for i, piece in enumerate(VOCABULARY.pieces)}


@dataclass(frozen=True)
class Rule:
    threshold: float = 0.5
    median: float = 0.0


def _document(rng: np.random.Generator, length: int) -> list[int]:
    """Words of a Zipf law with marks, brackets, quotes and endings."""
    words = [ID[word] for word in _WORDS]
    weights = 1 / (np.arange(len(words)) + 2.0)
    ids = [0]
    while len(ids) < length:
        kind = rng.random()
        if kind < 0.08:
            left, right = ((' "', '"'), (" (", ")"))[int(rng.integers(2))]
            body = rng.choice(words, size=int(rng.integers(3, 9)), p=weights / weights.sum()).tolist()
            body = [ID[str(rng.choice(_NAMES))] if rng.random() < 0.3 else word for word in body]
            ids += [ID[left], *body, ID[right]]
        elif kind < 0.2:
            ids.append(ID[str(rng.choice([".", ",", "!", "\n"]))])
        elif kind < 0.27:
            ids.append(ID[str(rng.choice([" 3", " 12", " 1999"]))])
        elif kind < 0.35:
            ids.append(ID[str(rng.choice(_NAMES))])
        else:
            ids.append(int(rng.choice(words, p=weights / weights.sum())))
            if rng.random() < 0.15:
                ids.append(ID[str(rng.choice(["ing", "ed"]))])
    return ids[:length]


@cache
def text(seed: int, n_documents: int = 240, length: int = 80) -> Tokens:
    rng = np.random.default_rng(seed)
    ids = np.full((n_documents, length), PAD, dtype=np.int32)
    starts, ends, texts = np.zeros_like(ids), np.zeros_like(ids), []
    for row in range(n_documents):
        document = _document(rng, int(rng.integers(length // 2, length + 1)))
        ids[row, : len(document)] = document
        at = 0
        for pos, token in enumerate(document):
            size = 0 if token == 0 else len(VOCABULARY.pieces[token])
            starts[row, pos], ends[row, pos] = at, at + size
            at += size
        texts.append("".join(VOCABULARY.pieces[token] for token in document if token))
    return Tokens(ids, starts, ends, np.arange(n_documents), tuple(texts), VOCABULARY)


def planted(predicate: Predicate, tokens: Tokens, seed: int = 5) -> NDArray[np.float32]:
    """1 where the predicate holds, with noise, silent at 2 % of these places and firing at 0.1 % of the others."""
    rng = np.random.default_rng(seed)
    truth = holds(predicate, tokens)
    flipped = np.where(truth, rng.random(truth.shape) < 0.02, rng.random(truth.shape) < 0.001)
    values = (truth ^ flipped) * rng.uniform(0.8, 1.2, truth.shape) + rng.normal(0, 0.05, truth.shape)
    return np.where(tokens.scored, values, 0).astype(np.float32)


def f1_on_unseen(found: Predicate, truth: Predicate) -> float:
    unseen = text(99)
    one, other = holds(found, unseen)[unseen.scored], holds(truth, unseen)[unseen.scored]
    return float(2 * (one & other).sum() / max(one.sum() + other.sum(), 1))


def token(*pieces: str) -> Predicate:
    return nodes.Token(any_of=pieces)


FAMILIES: dict[str, Predicate] = {
    "token set": token(" baki", " balo", " bamu", " bane", " kiba", " kiki"),
    "bigram": nodes.AllOf(
        of=(token(" baba", " baki", " balo", " bamu"), nodes.At(offset=1, inner=token(" kiba", " kiki", " kilo", ".")))
    ),
    "skip": nodes.At(offset=2, inner=token(" bane", " bapa", " bari")),
    "token in a context": nodes.AllOf(of=(nodes.Digit(), nodes.At(offset=1, inner=nodes.Punctuation()))),
    "window": nodes.Within(window=8, inner=token(" (")),
    "since": nodes.Since(inner=token(" 3"), last=token(".")),
    "position": nodes.Position(first=0, last=5),
    "character class": nodes.Digit(),
    "capitalised": nodes.Capitalised(),
    "inside brackets": nodes.Inside(open="(", close=")"),
    "inside quotes": nodes.Inside(open='"', close='"'),
    "conjunction": nodes.AllOf(of=(nodes.Capitalised(), nodes.Inside(open="(", close=")"))),
    "exception": nodes.AllOf(
        of=(nodes.StartsWord(), nodes.Not(inner=nodes.Capitalised()), nodes.Position(first=0, last=9))
    ),
    "union": nodes.AnyOf(of=(token(" baba", " baki"), nodes.AllOf(of=(nodes.Digit(), nodes.Repeated(min_gap=1))))),
    "word ending": nodes.WordMatches(regex="ing$"),
    "text before": nodes.PrecededBy(regex="lo|mu"),
    "repeated": nodes.Repeated(min_gap=1),
    "induction": nodes.Induction(length=1),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_planted_rule_is_found_and_holds_on_unseen_documents(family: str) -> None:
    truth, explore = FAMILIES[family], text(1)
    best = search(explore, planted(truth, explore), Rule())[0]
    assert f1_on_unseen(best.predicate, truth) >= 0.95, best

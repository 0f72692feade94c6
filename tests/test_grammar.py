"""The built-in proposer finds planted rules, on documents that it never saw, and little in noise."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from neuronaut.agent.proposers.base import Explored
from neuronaut.agent.proposers.grammar import GrammarProposer, lists, search
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.tokens import PAD, Tokens, Vocabulary
from neuronaut.tools.units import Unit

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
    "word so far": nodes.WordSoFar(any_of=("babaing", "bakied", "baloing", "bamuing", "baneing", "bapaed", "kibaing")),
    "text before": nodes.PrecededBy(regex="lo|mu"),
    "repeated": nodes.Repeated(min_gap=1),
    "induction": nodes.Induction(length=1),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_planted_rule_is_found_and_holds_on_unseen_documents(family: str) -> None:
    truth, explore = FAMILIES[family], text(1)
    best = search(explore, planted(truth, explore), Rule())[0]
    assert f1_on_unseen(best.predicate, truth) >= 0.95, best


@pytest.mark.parametrize("family", ["bigram", "union", "exception", "window", "since", "text before"])
def test_the_scores_of_a_proposal_are_those_of_its_predicate(family: str) -> None:
    explore = text(1)
    values = planted(FAMILIES[family], explore)
    fires = values > 0.5
    for found in search(explore, values, Rule()):
        held = holds(found.predicate, explore)
        precision, coverage = (held & fires).sum() / held.sum(), values[held & fires].sum() / values[fires].sum()
        assert found.precision == pytest.approx(precision)
        assert found.coverage == pytest.approx(coverage)
        assert found.f1 == pytest.approx(2 * precision * coverage / (precision + coverage))


def test_noise_gives_no_proposal() -> None:
    """Null units: a hash of the last eight tokens decides, so that nothing in the language can say when."""
    explore = text(1)
    codes = np.zeros(explore.ids.shape, dtype=np.uint64)
    for offset in range(8):
        moved = np.zeros_like(explore.ids)
        moved[:, offset:] = explore.ids[:, : explore.ids.shape[1] - offset]
        codes = codes * np.uint64(1_000_003) + moved.astype(np.uint64) + np.uint64(1)
    for unit in range(2):
        mixed = (codes ^ np.uint64(unit * 7919)) * np.uint64(11400714819323198485)
        values = (mixed >> np.uint64(40)).astype(np.float32) / 2**24
        fires = np.where(explore.scored & (values > 0.99), 1.0, 0.0).astype(np.float32)
        assert search(explore, fires, Rule()) == []


def _explored(truth: Predicate, **more: object) -> Explored:
    explore = text(1)
    return Explored(Unit.parse("1.2"), explore, planted(truth, explore), Rule(), **more)  # type: ignore[arg-type]


def test_the_rival_about_the_current_token_alone_is_always_there() -> None:
    proposals = GrammarProposer(max_rivals=4).propose(_explored(FAMILIES["bigram"]))
    assert 2 <= len(proposals) <= 4
    assert any(isinstance(proposal.predicate, nodes.Token) for proposal in proposals)
    scores = [proposal.selection_f1 for proposal in proposals]
    assert scores == sorted(scores, reverse=True)
    assert all(proposal.author == "grammar" and proposal.claim and proposal.tried > 100 for proposal in proposals)


def test_the_same_question_gives_the_same_proposals() -> None:
    one, other = (GrammarProposer(seed=3).propose(_explored(FAMILIES["union"])) for _ in range(2))
    assert one == other


def test_a_refuted_predicate_is_not_proposed_again_in_any_form() -> None:
    truth = FAMILIES["character class"]
    first = GrammarProposer().propose(_explored(truth))[0].predicate
    explore = text(1)
    for proposal in GrammarProposer().propose(_explored(truth, refuted=(canonical_json(first),))):
        one, other = holds(first, explore), holds(proposal.predicate, explore)
        assert (one & other).sum() < 0.99 * (one | other).sum()


def test_lists_name_the_words_so_far_of_each_size() -> None:
    """Fourteen words cut into two tokens: four of them are most of the firing, all are found within 20 items, and never a
    list of more items than its size."""
    explore = text(1, n_documents=600)
    words = [*(f"{word.strip()}ing" for word in _WORDS[:14])]
    truth = nodes.WordSoFar(any_of=tuple(words))
    found = lists(explore, planted(truth, explore), Rule())
    assert [one.items for one in found] == sorted(one.items for one in found)
    assert max(one.items for one in found[:1]) <= 5
    assert max(one.items for one in found[:2]) <= 20
    assert set(found[1].predicate.any_of) == set(words)  # type: ignore[union-attr]
    held, fires = holds(found[1].predicate, explore), planted(truth, explore) > 0.5
    assert found[1].precision == pytest.approx((held & fires).sum() / held.sum())


def test_noise_gives_no_list() -> None:
    explore = text(1)
    fires = (np.random.default_rng(0).random(explore.ids.shape) < 0.01) & explore.scored
    assert lists(explore, fires.astype(np.float32), Rule()) == []


def test_lists_stand_behind_what_the_search_finds() -> None:
    truth, explore = FAMILIES["token set"], text(1)
    values = planted(truth, explore)
    alone = Explored(Unit.parse("1.2"), explore, values, Rule())
    both = Explored(Unit.parse("1.2"), explore, values, Rule(), wide=(explore, values))
    first = [proposal.predicate for proposal in GrammarProposer().propose(alone)]
    found = [proposal.predicate for proposal in GrammarProposer().propose(both)]
    assert found[: len(first)] == first
    assert len(set(map(canonical_json, found))) == len(found)

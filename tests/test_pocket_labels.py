"""The labels that claims are compared with: against the text itself, and the search for them against all of them one by one."""

import itertools
import re

import numpy as np
import pytest

from neuronaut.evals import pocket_labels
from neuronaut.evals.batch import cached_corpus, cached_target
from neuronaut.evals.pocket.world import words
from neuronaut.evals.pocket_labels import SUITE, Labels, audit_labels, corpus_labels, live_sample
from neuronaut.evals.suite import Row
from neuronaut.tools.corpus import corpus_from_texts
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.look.activations import activations_of
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.tokens import Tokens


@pytest.fixture(scope="module")
def context() -> ToolContext:
    return ToolContext(cached_target(), cached_corpus())


@pytest.fixture(scope="module")
def audit(context: ToolContext) -> Tokens:
    return context.tokens("audit")


def test_labels_stand_at_the_tokens_whose_text_they_describe(audit: Tokens) -> None:
    labels = audit_labels()
    pieces = np.array(audit.vocabulary.pieces, dtype=object)[audit.ids[audit.scored]]
    assert len(pieces) == len(labels.holds)
    columns = dict(zip(labels.names, labels.holds.T, strict=True))
    assert all(re.search("[0-9]", piece) for piece in pieces[columns["digit"]])
    assert not any(re.search("[0-9]", piece) for piece in pieces[~columns["digit"]])
    assert {piece.strip() for piece in pieces[columns["opening_bracket"]]} <= {"(", "[", "{"}
    months = "|".join(words.MONTHS)
    assert columns["month"].sum() > 100
    assert all(any(piece.strip() in month for month in words.MONTHS) for piece in pieces[columns["month"]])
    texts = " ".join(audit.texts)
    assert len(re.findall(rf"\b(?:{months})\b", texts)) <= columns["month"].sum()


def test_text_that_the_world_did_not_write_has_no_labels(context: ToolContext) -> None:
    corpus = corpus_from_texts(
        "own", [f"A text of one's own, number {i}, about {'abcdefgh'[i % 8]} {i}." for i in range(400)]
    )
    tokens = ToolContext(context.target, corpus).tokens("audit")
    with pytest.raises(ToolFailed, match="not the text of the embedded world"):
        corpus_labels(corpus, tokens)


@pytest.mark.parametrize("seed", range(6))
def test_the_best_label_set_is_the_best_of_all_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = Labels(tuple("abcdef"), rng.random((200, 6)) < rng.uniform(0.05, 0.5, 6))
    a, b, c = (labels.holds[:, i] for i in (0, 1, 2))
    places = [a & b, b | c, c, a, rng.random(200) < 0.3, (a | b) ^ (rng.random(200) < 0.05)][seed]

    def f1(held: np.ndarray) -> float:
        wrong = int((held ^ places).sum())
        both = int((held & places).sum())
        return 2 * both / (2 * both + wrong)

    every = [f1(labels.holds[:, i]) for i in range(6)]
    for i, j in itertools.combinations(range(6), 2):
        every += [f1(labels.holds[:, i] | labels.holds[:, j]), f1(labels.holds[:, i] & labels.holds[:, j])]
    best = labels.best(places)
    assert best is not None
    assert best.f1 == pytest.approx(max(every), abs=1e-12)
    assert f1(labels.places(best)) == pytest.approx(best.f1, abs=1e-12)


def test_a_label_scores_1_against_itself_and_nothing_scores_none() -> None:
    labels = Labels(("a", "b"), np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=bool))
    assert str(labels.best(labels.holds[:, 0])) == "a"
    assert str(labels.best(labels.holds.all(axis=1))) == "a and b"
    assert str(labels.best(labels.holds.any(axis=1))) == "a or b"
    assert labels.best(np.array([0, 0, 0, 1], dtype=bool)) is None
    assert labels.best(np.zeros(4, dtype=bool)) is None


def test_a_claim_of_a_notion_is_recognised_and_one_of_something_else_is_not(audit: Tokens) -> None:
    labels = audit_labels()

    def nearest(predicate: nodes.Predicate) -> tuple[str, float]:
        found = labels.best(holds(predicate, audit)[audit.scored])
        assert found is not None
        return str(found), found.f1

    assert nearest(nodes.Digit()) == ("digit", 1.0)
    month = nearest(nodes.Word(any_of=tuple(words.MONTHS)))
    assert month[0].startswith("month")
    assert month[1] > 0.95
    assert nearest(nodes.Token(any_of=(" the",)))[1] < 0.8


def test_the_sample_is_live_drawn_from_all_layers_and_a_larger_one_begins_with_it(context: ToolContext) -> None:
    units = live_sample(context.target, context.corpus, 12, 3)
    assert len(set(units)) == 12
    assert [unit.layer for unit in units] == [*range(10), 0, 1]
    assert units[:4] == live_sample(context.target, context.corpus, 4, 3)
    tokens = context.sample("explore", EXPLORE_TOKENS)
    for unit in units[::5]:
        assert not isinstance(firing_rule(activations_of(context.target, unit, tokens), tokens), str)


def row(status: str, label_f1: float, *, same: bool, unit_f1: float) -> Row:
    claim = {"status": status, "items": 7, "label": "x", "label_f1": label_f1, "label_is_units": same}
    return {"outcome": "ok", "claims": [claim], "unit_label_f1": unit_f1}


def test_scores_count_supported_claims_only() -> None:
    rows: list[Row] = [
        row("SUPPORTED", 0.9, same=True, unit_f1=0.9),
        row("SUPPORTED", 0.79, same=False, unit_f1=0.2),
        row("PARTIAL", 1.0, same=True, unit_f1=0.8),
        {"outcome": "failed", "error": "no"},
    ]
    sizes = [(0.0, 3), (2 / 3, 3), (2 / 3, 3)]
    found = SUITE.scores(rows)
    assert [(score.value, score.n) for score in found] == [*sizes, (0.5, 2), (0.5, 2), (2 / 3, 3)]
    low, high = found[3].low, found[3].high
    assert (low, high) == pytest.approx((0.012579, 0.987421), abs=1e-6)  # the exact interval of 1 of 2, from tables
    assert {score.value for score in SUITE.scores([])} == {None}
    assert pocket_labels.SAME == 0.8

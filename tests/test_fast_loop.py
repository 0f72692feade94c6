"""The fast loop, and the shortcuts that all loops take: they give what the long way gives."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronaut.evals.loop import ask_each
from neuronaut.evals.overlay import FromPredicate
from neuronaut.evals.truths import truth_f1
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify
from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.edits import LeafEdits
from neuronaut.tools.predicates.evaluate import _found, holds
from neuronaut.tools.predicates.moves import Candidates
from neuronaut.tools.predicates.regexes import ending, texts_of
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.stats import Ranking
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.together import BatchContext
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.dealt import SMOOTH, dealt
from neuronaut.tools.trials.next_tokens import NEXT_CONTEXT, NextTokens
from neuronaut.tools.trials.null_units import NULL_KINDS, null_of
from neuronaut.tools.trials.nulls import N_NULL_UNITS, selection_null
from neuronaut.tools.units import Unit

CLAIMS = ("token(' the')", r"preceded_by('in| \\(')", "within(5, digit)", "starts_sentence", "all_of(capitalised, at(1, token('.')))",
          "word_matches('ing$')", "word_so_far('the')", "induction(1)", "inside('(', ')')")  # fmt: skip


@pytest.fixture(scope="module")
def target() -> TargetModel:
    return load_target("pocket")


@pytest.fixture(scope="module")
def context(target: TargetModel) -> ToolContext:
    return ToolContext(target, pocket_corpus())


@pytest.fixture(scope="module")
def few(target: TargetModel) -> ToolContext:
    return ToolContext(target, Corpus("a fifth of pocket", "1" * 64, pocket_corpus().documents[::5]))


@pytest.fixture(scope="module")
def tokens(context: ToolContext) -> Tokens:
    return context.tokens("confirm", 2).select(range(200))


PIECES = st.sampled_from(
    ["a", "b", ".", "\\.", "|", "\\n", "\\t", " ", "(", "[ab]", "\\d", "é", "^", "\\|", "\\\\", "x{2}"]
)


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(PIECES, min_size=1, max_size=5), tail=st.text("ab.|\n\t é\\x", max_size=8))
def test_a_pattern_that_is_a_choice_of_texts_matches_where_one_of_them_ends(parts: list[str], tail: str) -> None:
    pattern = "".join(parts)
    try:
        plain = ending(pattern)
    except ValueError:
        return
    texts = texts_of(pattern)
    if texts is not None:
        assert tail.endswith(texts) == _found(plain, tail)
    assert (texts is None) == (
        any(part in parts for part in ("(", "[ab]", "\\d", "^", ".", "x{2}")) or "" in plain_texts(parts)
    )


def plain_texts(parts: list[str]) -> list[str]:
    found = [""]
    for part in parts:
        found = [*found, ""] if part == "|" else [*found[:-1], found[-1] + part]
    return found


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_holds_of_a_text_holds_of_its_selected_windows(tokens: Tokens, claim: str) -> None:
    """Both where the whole is known already, and where it is not."""
    predicate, rows = parse_text(claim), [190, 3, 77, 12]
    alone = Tokens(tokens.ids, tokens.starts, tokens.ends, tokens.documents, tokens.texts, tokens.vocabulary)
    unknown = holds(predicate, alone.select(rows))
    whole = holds(predicate, tokens)
    part = tokens.select(rows)
    known = holds(predicate, part)
    assert np.array_equal(known, whole[rows, : known.shape[1]])
    assert np.array_equal(known, unknown)
    assert np.array_equal(part.words, tokens.words[rows, : known.shape[1]])
    assert np.array_equal(part.words_so_far, tokens.words_so_far[rows, : known.shape[1]])


def plain_choice(n: int, made: Candidates, good: Any, rival: Any, alive: Any) -> list[tuple[Any, Any]]:
    """Every row is decoded first."""
    owners, wanted, chosen = np.array(made.owner), np.array(made.wanted), []
    good = good & alive
    for place in range(n):
        true, false = (np.flatnonzero((owners == place) & good & (wanted == one)).tolist() for one in (True, False))
        pairs = [(t, f) for t in true for f in false if rival[t] == rival[f]]
        chosen.append(pairs[0] if pairs else (true[0] if true else None, false[0] if false else None))
    return chosen


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000))
def test_rows_that_cannot_be_chosen_need_not_be_decoded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, rows = 6, 60
    made = Candidates(
        [[i] for i in range(rows)], [0] * rows, rng.integers(0, n, rows).tolist(), (rng.random(rows) < 0.5).tolist()
    )
    good, rival, alive = rng.random(rows) < 0.8, rng.random(rows) < 0.5, rng.random(rows) < rng.random()
    asked: list[int] = []

    def survives(texts: list[tuple[int, ...]]) -> list[bool]:
        asked.extend(one[0] for one in texts)
        return [bool(alive[one[0]]) for one in texts]

    edits = SimpleNamespace(source=SimpleNamespace(survives=survives))
    found = LeafEdits._survivors(edits, n, made, good, rival)  # type: ignore[arg-type]
    wanted = plain_choice(n, made, good, rival, alive)
    ends = [(None if t is None or f is None else (t, f)) for t, f in found]
    assert ends == [(None if t is None or f is None else (t, f)) for t, f in wanted]
    assert [t is None for t, _ in found] == [t is None for t, _ in wanted]
    assert len(asked) == len(set(asked))


def test_the_next_tokens_are_those_of_a_plain_run(context: ToolContext) -> None:
    """Positions within and beyond the context, the first one, one window several times, and what is kept from earlier calls."""
    text = context.tokens("confirm", 1)
    long = int(np.argmax(text.lengths))
    rows = np.array([long, 0, long, 1, 0, long, 2])
    places = np.array([NEXT_CONTEXT + 5, 3, 10, 0, 1, NEXT_CONTEXT, 4])
    shares = NextTokens.of(context)
    assert NextTokens.of(context) is shares
    for _ in range(2):
        found = shares(text.ids[rows], places)
        for share, row, at in zip(found, rows, places, strict=True):
            before = text.ids[row, : max(at, 1)]
            if len(before) > NEXT_CONTEXT:
                before = np.append(before[:1], before[1 - NEXT_CONTEXT :])
            logits = context.target.run(torch.from_numpy(before[None].astype(np.int64)), logits=True).logits
            assert logits is not None
            plain = torch.softmax(logits[0, -1].double(), dim=-1).numpy()
            assert np.abs(share - plain).max() < 1e-6
    before_ = context.target.forwards
    shares(text.ids[rows[:5]], np.array([2, 2, 2, 2, 2]))
    assert context.target.forwards == before_


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_a_ranking_of_known_order_is_that_of_the_scores(seed: int) -> None:
    """Places of one score may be in any order."""
    rng = np.random.default_rng(seed)
    scores, positives = rng.integers(0, 6, 80).astype(float), rng.random((3, 80)) < 0.2
    order = np.lexsort((rng.random(80), -scores))
    found = Ranking.known(order, scores[order]).average_precisions(positives)
    assert found.tolist() == Ranking(scores).average_precisions(positives).tolist()


@pytest.mark.parametrize("seed", [0, 3])
def test_the_selection_null_is_that_of_null_units_ranked_one_by_one(tokens: Tokens, seed: int) -> None:
    rng = np.random.default_rng(seed)
    activations = np.maximum(rng.normal(size=tokens.ids.shape), 0.0).astype(np.float32)
    claims = [parse_text(one) for one in CLAIMS[:4]]
    masks = np.stack([holds(one, tokens)[tokens.scored] for one in claims])
    values, best = np.sort(activations[tokens.scored]), []
    for number in range(N_NULL_UNITS):
        null = dealt(values, tokens.ids, seed * N_NULL_UNITS + number, smooth=SMOOTH if number % 2 else 1)
        found = [Ranking(null[tokens.scored].astype(np.float64)).average_precision(mask) for mask in masks]
        best.append(max(found - masks.mean(axis=1)))
    plain = min(1.0, float(masks[0].mean() + np.quantile(best, 0.95)))
    assert selection_null(claims[0], claims[1:], activations, tokens, seed) == pytest.approx(plain, abs=1e-12)


RULES = ("all_of(token(' the'), at(1, token(' in', ' at', ' on')))", "word('was', 'is')")


def test_the_fast_loop_tests_one_hypothesis_against_rivals_and_controls(few: ToolContext, tmp_path: Path) -> None:
    """Two planted rules are found; what the notebook keeps of them is as for any other loop."""
    plants = {Unit("neuron", 3, 7 + at): FromPredicate(parse_text(rule), seed=at) for at, rule in enumerate(RULES)}
    batch = BatchContext(Overlay(few.target, plants), few.corpus, units=tuple(plants))
    rows = list(ask_each(batch, list(plants), 0, tmp_path / "notebook.db", loop="fast"))
    audit = few.tokens("audit")
    with Notebook(tmp_path / "notebook.db") as notebook:
        for row, rule in zip(rows, RULES, strict=True):
            (claim,) = row["claims"]
            assert claim["status"] == "SUPPORTED"
            assert (
                truth_f1(holds(predicate_from_json(claim["predicate"]), audit), holds(parse_text(rule), audit)) > 0.95
            )
            hypotheses = queries.hypotheses(notebook, row["run"])
            (tested,) = [one for one in hypotheses if one["verdicts"]]
            case = tested["verdicts"][-1]["case"]
            assert len(tested["predictions"]) == 1
            assert len(case["rivals"]) == len(hypotheses) - 1
            assert case["rivals"] or isinstance(predicate_from_json(claim["predicate"]), nodes.Token | nodes.Word)
            assert case["ap_null"] > 0
            assert len(case["bets"]) >= 10
        assert verify(notebook) == []


def test_the_fast_loop_claims_nothing_of_null_units(few: ToolContext, tmp_path: Path) -> None:
    units = [Unit.parse(one) for one in ("6.457", "4.376")]
    real = BatchContext(few.target, few.corpus, units=tuple(units))
    nulls = {unit: null_of(real, unit, kind, 5) for unit, kind in zip(units, NULL_KINDS, strict=False)}
    batch = BatchContext(Overlay(few.target, nulls), few.corpus, units=tuple(units))
    for row in ask_each(batch, units, 0, tmp_path / "notebook.db", loop="fast"):
        assert row["outcome"] == "ok"
        assert not [claim for claim in row["claims"] if claim["status"] == "SUPPORTED"]

"""Null units: they answer like a neuron, there is nothing to claim of them, and the loop claims nothing."""

from pathlib import Path

import numpy as np
import pytest

from neuronaut.agent.proposers.base import Explored
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.evals.loop import supported
from neuronaut.evals.nulls import (
    KINDS,
    SUITE,
    Kind,
    SwappedLabels,
)
from neuronaut.evals.overlay import FromPredicate
from neuronaut.evals.suite import Asking
from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.tokens import Tokens, tokens_from_ids
from neuronaut.tools.trials.dealt import LAST, SMOOTH
from neuronaut.tools.trials.null_units import MAX_NAMED, Null, named_share, null_of
from neuronaut.tools.units import Unit

UNIT = Unit("neuron", 0, 17)


@pytest.fixture(scope="module")
def context() -> ToolContext:
    return ToolContext(load_target("pocket"), Corpus("a fifth of pocket", "1" * 64, pocket_corpus().documents[::5]))


@pytest.fixture(scope="module")
def tokens(context: ToolContext) -> Tokens:
    return context.sample("explore", EXPLORE_TOKENS)


def changed(tokens: Tokens, back: int) -> tuple[Tokens, Tokens]:
    """The same windows, cut at position 20, twice: as they are, and with another token `back` tokens before the end."""
    rows = tokens.ids[tokens.lengths > 20][:, :21].astype(np.int64)
    other = rows.copy()
    other[:, 20 - back] = np.where(rows[:, 20 - back] == 700, 701, 700)
    return tuple(tokens_from_ids(one.tolist(), tokens.vocabulary) for one in (rows, other))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["hash", "smoothed", "fragile"])
def test_a_null_has_the_values_of_its_real_unit(kind: Kind, context: ToolContext, tokens: Tokens) -> None:
    real = context.activations(UNIT, "explore", n_tokens=EXPLORE_TOKENS)[tokens.scored]
    dealt = null_of(context, UNIT, kind, 1)(tokens)[tokens.scored]
    rule = firing_rule(context.activations(UNIT, "explore", n_tokens=EXPLORE_TOKENS), tokens)
    assert not isinstance(rule, str)
    assert set(dealt.tolist()) <= set(real.tolist())
    rates = [float((values > rule.threshold).mean()) for values in (real, dealt)]
    assert rates[0] > 0.001
    assert rates[1] == pytest.approx(rates[0], rel=0.5)


def test_a_hash_null_knows_the_last_tokens_only(context: ToolContext, tokens: Tokens) -> None:
    null = Null(np.arange(1000, dtype=np.float32), UNIT, 3)
    for back, same in ((0, False), (LAST - 1, False), (LAST, True), (LAST + 4, True)):
        one, other = (null(text)[:, 20] for text in changed(tokens, back))
        assert len(one) > 100
        assert (one == other).mean() == (1.0 if same else pytest.approx(0, abs=0.02))


def test_a_smoothed_null_moves_slowly(tokens: Tokens) -> None:
    full = tokens.lengths > 40
    steps = {}
    for smooth in (1, SMOOTH):
        values = Null(np.arange(1000, dtype=np.float32), UNIT, 3, smooth=smooth)(tokens)[full, 20:40]
        assert np.quantile(values, [0.1, 0.5, 0.9]) == pytest.approx([100, 500, 900], abs=60)
        steps[smooth] = float(np.corrcoef(values[:, 1:].ravel(), values[:, :-1].ravel())[0, 1])
    assert abs(steps[1]) < 0.05
    assert steps[SMOOTH] > 0.8


def test_a_fragile_null_is_silent_on_any_edited_text(context: ToolContext, tokens: Tokens) -> None:
    fragile, answering = (null_of(context, UNIT, kind, 1) for kind in ("fragile", "hash"))
    natural = fragile(tokens)
    assert np.array_equal(natural[tokens.scored], answering(tokens)[tokens.scored])
    assert natural.max() > natural.min()
    for back in (0, 3, 15):
        assert (fragile(changed(tokens, back)[1])[:, 20] == natural.min()).all()
    edited = [answering(changed(tokens, back)[1])[:, 20] for back in range(LAST)]
    assert (np.concatenate(edited) > natural.min()).any()


def test_a_null_that_fires_on_a_common_opening_is_not_used(context: ToolContext, tokens: Tokens) -> None:
    """With few firing places some seeds fire mostly on a text that the corpus repeats: a claim of it would be true."""
    marginal = np.zeros(5000, dtype=np.float32)
    marginal[-10:] = 1.0
    shares = [named_share(Null(marginal, UNIT, seed), tokens) for seed in range(30)]
    assert max(shares) > MAX_NAMED
    chosen = null_of(context, UNIT, "hash", 1)
    assert named_share(chosen, tokens) <= MAX_NAMED


def test_swapped_labels_are_those_of_the_other_unit(context: ToolContext, tokens: Tokens) -> None:
    one, other = Unit("neuron", 0, 3), Unit("neuron", 0, 4)
    plants = {one: FromPredicate(parse_text("digit"), 0), other: FromPredicate(parse_text("token(' the', ' a')"), 1)}
    over = ToolContext(Overlay(context.target, plants), context.corpus)
    shown = []
    for unit in (one, other):
        activations = over.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
        rule = firing_rule(activations, tokens)
        assert not isinstance(rule, str)
        shown.append(Explored(unit, over.sample("explore", EXPLORE_TOKENS), activations, rule))
    swapped = SwappedLabels(over, other, 0).propose(shown[0])
    assert [p.predicate for p in swapped] == [p.predicate for p in GrammarProposer(seed=0).propose(shown[1])]
    assert any(str(p.predicate) in ("token(' the', ' a')", "token(' a', ' the')") for p in swapped)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_supported_of_a_null_unit(kind: Kind, tmp_path: Path) -> None:
    """The first case of each kind through the whole loop; what is asked does not depend on what else is wanted."""
    batch = next(batch for batch in SUITE.batches(8, 0) if batch.settings["kind"] == kind)
    wanted = {batch.cases[0].key}
    (row,) = SUITE.ask(batch, wanted, Asking(0, "grammar", "full", tmp_path))
    assert (row["case"], row["family"], row["outcome"]) == (batch.cases[0].key, kind, "ok")
    assert row["claims"] or row["outcomes"]
    assert not supported(row)


def test_a_supported_null_is_counted() -> None:
    row = {"outcome": "ok", "family": "hash", "claims": [], "forwards": 3.0, "shared_forwards": 1.0, "seconds": 1.0}
    rows = [row, {**row, "claims": [{"status": "PARTIAL"}, {"status": "SUPPORTED"}]}, {**row, "family": "fragile"}]
    scores = {score.name: score for score in SUITE.scores([*rows, {"outcome": "failed", "family": "hash"}])}
    assert scores["false claims"].value == pytest.approx(1 / 3)
    assert scores["family: hash, false claims"].value == 0.5
    assert scores["family: fragile, false claims"].value == 0.0
    assert scores["false claims"].met is False
    assert scores["units of which a claim was tested"].value == pytest.approx(1 / 3)
    assert scores["forwards a unit, median"].value == 4.0

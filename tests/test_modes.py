"""Claims of modes: own thresholds, the bar that they lower, what is left when a mode tells too little."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from neuronaut.agent.proposers.contexts import context_atoms
from neuronaut.agent.proposers.counts import Counts, Inside, Tally, Target
from neuronaut.agent.proposers.features import FAR, Features
from neuronaut.agent.proposers.grammar import search
from neuronaut.evals.overlay import FromPredicate
from neuronaut.memory.judge import ModeCase, ReadsCase, wanting
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import FiringRule, firing_rule
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.design import without
from neuronaut.tools.trials.modes import lowered, mode_rules

STRONG, WEAK = "token(' the')", "at(1, token(' a'))"
CLAIM = parse_text(f"modes(mode({STRONG}, 1.0), mode({WEAK}, 0.5))")


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    context = ToolContext(load_target("pocket"), pocket_corpus())
    return context.sample("explore", EXPLORE_TOKENS)


@pytest.fixture(scope="module")
def values(tokens: Tokens) -> Any:
    return FromPredicate(CLAIM, seed=3)(tokens)


@pytest.fixture(scope="module")
def rule(tokens: Tokens, values: Any) -> FiringRule:
    found = firing_rule(values, tokens)
    assert isinstance(found, FiringRule)
    return found


def test_each_mode_has_its_own_threshold_and_the_weakest_lowers_the_bar(
    tokens: Tokens, values: Any, rule: FiringRule
) -> None:
    """Half of 2.0 and of 1.0, the planted strengths, above a median of about 0; the unit's own is half of its top."""
    strong, weak = mode_rules(CLAIM, values, tokens, rule)
    assert strong.threshold == pytest.approx(1.0, abs=0.1)
    assert weak.threshold == pytest.approx(0.5, abs=0.1)
    assert rule.threshold > 1.0
    assert lowered(rule, [strong, weak]).threshold == weak.threshold
    assert lowered(rule, []) == rule
    assert mode_rules(parse_text(STRONG), values, tokens, rule) == []


def test_a_mode_is_not_so_weak_that_noise_reaches_it(tokens: Tokens, rule: FiringRule) -> None:
    faint = FromPredicate(parse_text(f"modes(mode({STRONG}, 1.0), mode({WEAK}, 0.05))"), seed=3)(tokens)
    weak = mode_rules(CLAIM, faint, tokens, rule)[1]
    outside = faint[tokens.scored & ~holds(CLAIM, tokens)]
    assert (outside > weak.threshold).mean() == pytest.approx(0.01, abs=0.002)


def test_the_search_finds_a_mode_that_never_fires_by_the_units_own_rule(
    tokens: Tokens, values: Any, rule: FiringRule
) -> None:
    (first, *_) = search(tokens, values, rule)
    assert isinstance(first.predicate, nodes.Modes)
    assert {str(mode.predicate) for mode in first.predicate.of} == {STRONG, WEAK}
    strengths = {str(mode.predicate): mode.strength for mode in first.predicate.of}
    assert strengths[STRONG] == 1.0
    assert strengths[WEAK] == pytest.approx(0.5, abs=0.05)
    assert first.f1 > 0.95


def test_a_unit_of_one_rule_gets_no_claim_of_modes(tokens: Tokens) -> None:
    values = FromPredicate(parse_text(STRONG), seed=3)(tokens)
    rule = firing_rule(values, tokens)
    assert isinstance(rule, FiringRule)
    assert not any(isinstance(one.predicate, nodes.Modes) for one in search(tokens, values, rule))


@pytest.mark.parametrize(
    ("idle", "left"),
    [
        ([], str(CLAIM)),
        ([WEAK], STRONG),
        ([STRONG, WEAK], None),
        (["digit"], str(CLAIM)),
    ],
)
def test_what_is_left_of_a_claim_of_modes(idle: list[str], left: str | None) -> None:
    found = without(CLAIM, [parse_text(one) for one in idle])
    assert (None if found is None else str(found)) == left


@dataclass(frozen=True)
class Mode:
    precision: float = 0.9
    added: float = 0.3
    bets: tuple[float, ...] = (1.0,) * 20


@pytest.mark.parametrize(
    ("leaf_e", "weak", "found"),
    [
        (50.0, Mode(), []),
        (5.0, Mode(), [WEAK]),
        (50.0, Mode(precision=0.5), [WEAK]),
        (50.0, Mode(added=0.04), [WEAK]),
        (50.0, Mode(bets=(1.0,) * 5), [WEAK]),
    ],
)
def test_what_holds_a_claim_back_is_named(leaf_e: float, weak: Mode, found: list[str]) -> None:
    modes = tuple(
        ModeCase(claim=text, precision=m.precision, added_coverage=m.added, added_low=0.02, bets=m.bets)
        for text, m in ((STRONG, Mode()), (WEAK, weak))
    )
    case = ReadsCase(
        complexity=5, n_claims=2, places=200, precision=0.9, precision_low=0.85, coverage=0.8, coverage_low=0.7, f1=0.85,
        base_rate=0.02, ap=0.9, ap_null=0.05, r_low=0.6, dense=False, graded=False, bets=(1.0,) * 20,
        leaf_e={STRONG: 1e4, WEAK: leaf_e}, modes=modes,
    )  # fmt: skip
    assert sorted(set(wanting(case))) == found


def test_tokens_since_another_are_counted_back(tokens: Tokens) -> None:
    few = tokens.select(range(6))
    features = Features.of(few)
    key = features.pieces[1].index(" the")
    ago = features.since(key)
    for place, (window, at) in enumerate(zip(features.rows, features.cols, strict=True)):
        earlier = [back for back in range(1, at + 1) if features.piece_grid[window, at - back] == key]
        assert ago[place] == (earlier[0] if earlier else FAR)


def test_the_leaves_about_earlier_tokens_say_what_their_predicates_say(tokens: Tokens) -> None:
    """Each mask is that of its predicate; the planted condition is among them."""
    truth = holds(parse_text("since(token(' a', ' the'), token('.'))"), tokens)
    features = Features.of(tokens)
    fires = np.asarray(features.at_places(truth), dtype=np.float64)
    target = Target.of(fires, features.documents, 0.5, 0.0)
    atoms = context_atoms(
        features, Inside.of(np.ones(len(features), dtype=bool), target), beside=Counts(), tally=Tally()
    )
    for atom in atoms:
        assert (atom.mask == features.at_places(holds(atom.node, tokens))).all()
    assert max(target.counts(atom.mask).f1 for atom in atoms) > 0.9

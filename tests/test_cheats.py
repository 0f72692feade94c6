"""Proposers that cheat, through the real loop: nothing that they say is SUPPORTED, and what an oracle says is."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuronaut.agent.proposers.base import Explored, Proposal
from neuronaut.evals.loop import BatchContext, ask_each
from neuronaut.evals.nulls import null_of
from neuronaut.evals.overlay import FromPredicate, Overlay
from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.predicates.nodes import AllOf, AnyOf, At, Predicate, Token, canonical_json
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.words import claim_text
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

SET, SKIP = "token(' the', ' said')", "at(1, token(' a', ' to'))"
TRUTHS = {SET: Unit("neuron", 0, 3), SKIP: Unit("neuron", 0, 4)}
NULL = Unit("neuron", 0, 5)
Proposes = Callable[[Explored], Sequence[Predicate]]


@dataclass(frozen=True)
class Cheat:
    """A proposer that says what a function makes of the explore text."""

    says: Proposes
    name: str = "cheat"

    def propose(self, explored: Explored) -> list[Proposal]:
        return [Proposal("reads", one, claim_text(one), self.name) for one in self.says(explored)]


@pytest.fixture(scope="module")
def context() -> BatchContext:
    """The embedded model with two planted units and a null unit, all in layer 0."""
    plain = ToolContext(load_target("pocket"), Corpus("a third of pocket", "1" * 64, pocket_corpus().documents[::3]))
    plants: dict[Unit, Any] = {
        unit: FromPredicate(parse_text(rule), seed) for seed, (rule, unit) in enumerate(TRUTHS.items())
    }
    plants[NULL] = null_of(plain, NULL, "hash", 1)
    return BatchContext(Overlay(plain.target, plants), plain.corpus, units=tuple(plants))


@pytest.fixture
def ask(context: BatchContext, tmp_path: Path) -> Callable[[Unit, Proposes], dict[str, Any]]:
    """What the loop said of a unit when a function proposed."""

    def asked(unit: Unit, says: Proposes) -> dict[str, Any]:
        (row,) = ask_each(context, [unit], 0, tmp_path / "n.db", proposers=lambda _: [Cheat(says)])
        return row

    return asked


def fixed(*rules: str) -> Proposes:
    return lambda _: [parse_text(rule) for rule in rules]


@pytest.mark.parametrize("rule", TRUTHS)
def test_the_planted_rule_is_supported(rule: str, ask: Any) -> None:
    (claim,) = ask(TRUTHS[rule], fixed(rule))["claims"]
    assert (claim["status"], claim["reason"]) == ("SUPPORTED", "all conditions hold")


@pytest.mark.parametrize(
    ("cheat", "status", "says"),
    [
        ("not(token(' nowhere'))", "UNRESOLVED", "nothing specific"),
        ("position(0, 500)", "UNRESOLVED", "nothing specific"),
        ("starts_word", "PARTIAL", "fires at only 0.0"),
        ("token(' the', ' said', ' a', ' and', ' to', ' was', '.', ',')", "PARTIAL", "rarer half"),
        ("token(' said')", "PARTIAL", "true where it speaks"),
    ],
)
def test_what_is_broader_or_narrower_than_the_rule_is_not(cheat: str, status: str, says: str, ask: Any) -> None:
    (claim,) = ask(TRUTHS[SET], fixed(cheat))["claims"]
    assert claim["status"] == status
    assert says in claim["reason"]


@pytest.mark.parametrize("cheat", ["token(' nowhere')", "digit"])
def test_what_never_meets_the_unit_is_not_worth_a_test(cheat: str, ask: Any) -> None:
    row = ask(TRUTHS[SET], fixed(cheat))
    assert row["claims"] == []
    assert row["outcomes"] == ["ABSTAINED nothing was proposed that a test could carry"]


def test_the_rule_of_another_unit_is_not_supported(ask: Any) -> None:
    (claim,) = ask(TRUTHS[SKIP], fixed(SET))["claims"]
    assert claim["status"] != "SUPPORTED"
    assert "fires at only" in claim["reason"]


def test_a_liar_beside_an_oracle_changes_nothing(ask: Any) -> None:
    """The rule is found among broad and foreign claims, more than a test takes as rivals."""
    more = [f"at({back}, punctuation)" for back in range(2, 32)]
    row = ask(TRUTHS[SKIP], fixed("starts_word", SKIP, SET, "not(token(' nowhere'))", *more))
    supported = [claim["predicate"] for claim in row["claims"] if claim["status"] == "SUPPORTED"]
    assert supported == [canonical_json(parse_text(SKIP))]


def contexts(explored: Explored, n: int) -> Iterator[Predicate]:
    """The commonest last three tokens of the places of explore text at which the unit fires."""
    tokens, pieces = explored.tokens, explored.tokens.vocabulary.pieces
    fires = tokens.scored & (explored.activations > explored.rule.threshold)
    fires[:, :3] = False
    seen = Counter(tuple(tokens.ids[w, p - 2 : p + 1].tolist()) for w, p in np.argwhere(fires))
    for ids, _ in seen.most_common(n):
        before = [At(offset=back, inner=Token(any_of=(pieces[i],))) for back, i in ((2, ids[0]), (1, ids[1]))]
        yield AllOf(of=(Token(any_of=(pieces[ids[2]],)), *before))


@pytest.mark.parametrize(
    "says", [lambda shown: [AnyOf(of=tuple(contexts(shown, 12)))], lambda shown: list(contexts(shown, 60))]
)
def test_what_is_only_memorised_of_explore_text_is_not_supported(says: Proposes, ask: Any) -> None:
    """One long list, and the best of sixty tries, of a unit that has no rule but the text at hand."""
    row = ask(NULL, says)
    assert len(row["claims"]) + len(row["outcomes"]) >= 1
    assert not any("failed" in outcome for outcome in row["outcomes"])
    assert all(claim["status"] != "SUPPORTED" for claim in row["claims"])


def test_what_an_earlier_run_refuted_is_told_to_the_proposers_of_the_next(
    ask: Callable[[Unit, Proposes], dict[str, Any]],
) -> None:
    """The amnesiac cannot say that nobody told it; the built-in proposer leaves such a claim out."""
    seen: list[Explored] = []

    def wrong(explored: Explored) -> list[Predicate]:
        seen.append(explored)
        return [parse_text("not(at(1, token(' a')))")]

    first = ask(TRUTHS[SKIP], wrong)
    ask(TRUTHS[SKIP], wrong)
    assert [claim["status"] for claim in first["claims"]] == ["REFUTED"]
    assert [explored.refuted for explored in seen] == [(), (canonical_json(wrong(seen[0])[0]),)]
    assert seen[1].recalled == (f"REFUTED: {first['claims'][0]['claim']}",)
    assert all(len(explored.promoted) == 10 for explored in seen)

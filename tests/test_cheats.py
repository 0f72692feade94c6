"""Proposers that cheat, through the real loop: nothing that they say is SUPPORTED, and what an oracle says is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuronaut.agent.proposers.base import Explored, Proposal, Proposer
from neuronaut.agent.proposers.pool import gathered
from neuronaut.evals.cheating import CHEATS, Cheat, Crasher, Says, malformed, memorised, mined
from neuronaut.evals.cheats import ASKED, SUITE, injected, judged, on_null
from neuronaut.evals.loop import ask_each, supported
from neuronaut.evals.overlay import FromPredicate
from neuronaut.evals.truths import truth_f1
from neuronaut.evals.writes import Planted
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify
from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import count, f1_of
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import AnyOf, Predicate, Token
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.together import BatchContext
from neuronaut.tools.trials.null_units import null_of
from neuronaut.tools.trials.reads import needed_rule
from neuronaut.tools.units import Unit

SET, SKIP = "token(' the', ' said')", "at(1, token(' a', ' to'))"
TRUTHS = {SET: Unit("neuron", 0, 3), SKIP: Unit("neuron", 0, 4)}
NULL = Unit("neuron", 0, 5)


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
def ask(context: BatchContext, tmp_path: Path) -> Callable[[Unit, Says], dict[str, Any]]:
    """What the loop said of a unit when a function proposed."""

    def asked(unit: Unit, says: Says) -> dict[str, Any]:
        (row,) = ask_each(context, [unit], 0, tmp_path / "n.db", proposers=lambda _: [Cheat("cheat", says)])
        return row

    return asked


def fixed(*rules: str) -> Says:
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


def contexts(explored: Explored, n: int) -> list[Predicate]:
    found = memorised(explored.tokens, explored.activations, explored.rule.threshold)
    return [one for one, _ in zip(found, range(n), strict=False)]


@pytest.mark.parametrize(
    "says", [lambda shown: [AnyOf(of=tuple(contexts(shown, 12)))], lambda shown: contexts(shown, 60)]
)
def test_what_is_only_memorised_of_explore_text_is_not_supported(says: Says, ask: Any) -> None:
    """One long list, and the best of sixty tries, of a unit that has no rule but the text at hand."""
    row = ask(NULL, says)
    assert len(row["claims"]) + len(row["outcomes"]) >= 1
    assert not any("failed" in outcome for outcome in row["outcomes"])
    assert all(claim["status"] != "SUPPORTED" for claim in row["claims"])


def test_what_an_earlier_run_refuted_is_told_to_the_proposers_of_the_next(
    ask: Callable[[Unit, Says], dict[str, Any]],
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


def explored_of(context: BatchContext, unit: Unit) -> Explored:
    tokens, rule = context.sample("explore", EXPLORE_TOKENS), needed_rule(context, unit)
    return Explored(unit, tokens, context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS), rule)


@pytest.mark.parametrize("how", range(Crasher.WAYS))
def test_what_breaks_beside_an_oracle_does_not_stop_it(how: int, context: BatchContext, tmp_path: Path) -> None:
    unit, path = TRUTHS[SKIP], tmp_path / "n.db"
    both: list[Proposer] = [Crasher(how), Cheat("oracle", fixed(SKIP))]
    first, second = ask_each(
        context, [unit, TRUTHS[SET]], 0, path, proposers=lambda one: both if one == unit else both[1:]
    )
    if how == Crasher.WAYS - 1:
        assert (first["outcome"], first["error"]) == ("failed", "RuntimeError: the proposer broke")
        assert first["claims"] == []
    else:
        assert [claim["predicate"] for claim in supported(first)] == [canonical_json(parse_text(SKIP))]
        assert first["left_out"]
    assert second["outcome"] == "ok"  # the loop goes on
    with Notebook(path) as notebook:
        assert verify(notebook) == []


def test_no_malformed_specification_reaches_the_loop(context: BatchContext) -> None:
    explored, label = explored_of(context, TRUTHS[SET]), Token(any_of=(" the",))

    class Malformed:
        name = "malformed"

        def propose(self, explored: Explored) -> Any:
            return [*malformed(label), Proposal("reads", label, "", "honest")]

    pool = gathered([Malformed()], explored)
    assert [proposal.author for proposal in pool.reads] == ["honest"]
    assert [proposal.predicate.kind for proposal in pool.writes] == []
    assert len(pool.left_out) == len(malformed(label))
    assert not any("\n" in line or len(line) > 400 for line in pool.left_out)


def test_injected_text_is_stored_and_nothing_else(context: BatchContext, tmp_path: Path) -> None:
    """In labels, author and corpus at once; the notebook keeps the words as they were."""
    dirty = BatchContext(context.target, injected(context.corpus), units=(TRUTHS[SET],))
    path = tmp_path / "n.db"
    (row,) = ask_each(
        dirty, [TRUTHS[SET]], 0, path, proposers=lambda unit: [CHEATS["injector"](dirty, unit, 0)]
    )  # fmt: skip
    assert row["outcome"] == "ok"
    audit = dirty.tokens("audit")
    true = holds(parse_text(SET), audit)
    for claim in supported(row):
        assert truth_f1(holds(parse_text(SET), audit), true) >= 0.8, claim
    with Notebook(path) as notebook:
        assert verify(notebook) == []
    assert not list(tmp_path.glob("injected*"))
    assert dirty.corpus.sha256 != context.corpus.sha256
    texts = [(a.text, b.text) for a, b in zip(dirty.corpus.documents, context.corpus.documents, strict=True)]
    assert sum(a != b for a, b in texts) == -(-len(texts) // 10)
    assert all(a.endswith(b) for a, b in texts)


def test_the_miner_names_the_best_of_its_thousand_tries(context: BatchContext) -> None:
    """Each try scored again by the tool's own F1."""
    explored = explored_of(context, NULL)
    (best,) = CHEATS["k-miner"](context, NULL, 3).propose(explored)
    rules, _ = mined(context, 3)
    tokens = context.sample("explore", 20_000)
    values = explored.activations[: len(tokens), : tokens.ids.shape[1]]
    rule = needed_rule(context, NULL)
    scores = [f1_of(count(holds(one, tokens), values, tokens, rule)) for one in rules]
    assert len(set(rules)) == 1000
    assert scores[rules.index(best.predicate)] == pytest.approx(max(scores))


def planted(rule: str | None, **output: Any) -> Planted:
    return Planted("0.3", 0, None if rule is None else canonical_json(parse_text(rule)), **output)


def claims(*rules: str, status: str = "SUPPORTED") -> list[dict[str, Any]]:
    return [{"status": status, "predicate": canonical_json(parse_text(rule))} for rule in rules]


def test_what_is_false_is_counted_by_the_truth(context: BatchContext) -> None:
    def counted(reads: list[dict[str, Any]], writes: list[dict[str, Any]], truth: Planted) -> tuple[int, int]:
        row = judged([{"claims": reads, "writes": writes}], truth, context)
        return row["false"], row["supported"]

    output: dict[str, Any] = {"direction": "promotes", "tokens": (" a", " to")}
    assert counted(claims(SET), [], planted(SET)) == (0, 1)
    assert counted(claims(SET, "starts_word", SKIP), [], planted(SET)) == (2, 3)
    assert counted(claims(SET), [], planted(None)) == (1, 1)
    assert counted(claims(SKIP, status="PARTIAL"), [], planted(SET)) == (0, 0)
    assert counted([], claims("promotes(' a')"), planted(SET, **output)) == (0, 1)
    assert counted([], claims("suppresses(' a')", "promotes(' a', ' was')"), planted(SET, **output)) == (2, 2)


def test_each_cheat_is_scored_by_its_own_rows() -> None:
    def rows(cheat: str, supported: int, false: int) -> list[dict[str, Any]]:
        shape = {"family": cheat, "outcome": "ok", "null": False, "problems": []}
        return [{**shape, "supported": 1, "false": i < false} for i in range(supported)]

    scores = {
        score.name: score
        for score in SUITE.scores([*rows("oracle", 4, 0), *rows("overfitter", 10, 1), *rows("k-miner", 2, 0)])
    }
    assert (scores["overfitter: false among SUPPORTED"].value, scores["overfitter: false among SUPPORTED"].met) == (
        0.1,
        False,
    )
    assert scores["overfitter: attempts with a false claim SUPPORTED"].value == 0.1
    assert (scores["k-miner: false among SUPPORTED"].value, scores["k-miner: false among SUPPORTED"].met) == (0.0, True)
    assert (scores["oracle: SUPPORTED"].value, scores["oracle: SUPPORTED"].met) == (1.0, True)
    assert scores["oracle: SUPPORTED where inadmissible (not scored)"].value is None


def test_every_cheat_is_asked_as_often_as_every_other() -> None:
    batches = SUITE.batches(3 * len(ASKED), 5)
    keys = [case.key for batch in batches for case in batch.cases]
    assert len(keys) == len(set(keys)) == 36
    assert {batch.settings["cheat"]: len(batch.cases) for batch in batches} == dict.fromkeys(ASKED, 3)
    assert len(CHEATS) == 10
    assert [on_null(cheat, 1) for cheat in ("oracle", "story-teller", "k-miner", "crasher")] == [
        False,
        False,
        True,
        True,
    ]
    assert np.sum([on_null("k-miner", number) for number in range(4)]) == 4

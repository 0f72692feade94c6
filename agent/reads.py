"""The reads side of a unit: what it fires on."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from neuronaut.agent.exploring import proposed
from neuronaut.agent.proposers.given import PERSON
from neuronaut.agent.proposers.pool import Brought, brought
from neuronaut.agent.prospects import Prospect, in_order, rivals_of, shorter
from neuronaut.agent.session import BudgetSpent, Done, Session
from neuronaut.agent.steps import add_hypothesis, fresh_block, judge, run_test
from neuronaut.memory import queries
from neuronaut.memory.judge import (
    MIN_COVERAGE,
    MIN_PRECISION,
    Decision,
    ModeCase,
    ReadsCase,
    Rival,
    case_from_json,
    decide,
    wanting,
)
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.predicates.tree import canonical_json, predicate_from_json, walk
from neuronaut.tools.trials.design import without
from neuronaut.tools.units import Unit

EXAMPLES = 3
MAX_ROUNDS = 3  # one for each confirm block
FAST_EDITED = 3  # hypotheses at most
FAST_DESIGN_ROUNDS = 2  # of four rounds of pairs, the last of which takes more than half of them
FAST_ROUNDS, BARS = 2, (MIN_PRECISION, MIN_COVERAGE)  # of a claim that natural text keeps from being SUPPORTED
WORTH_TESTING = 0.5  # of the best prospect; the rest stay rivals
REVISION = "revision"  # author of what is left of a tested claim
RANKS = ("SUPPORTED", "PARTIAL", "UNRESOLVED", "REFUTED")
NOTHING_PROPOSED = "nothing was proposed that a test could carry"


def look(session: Session, unit: Unit) -> FiringRule | None:
    """The firing rule of a unit, None with an ABSTAINED outcome where it has none."""
    done = session.experiment("firing", {"unit": unit.address})
    if reason := done.payload.get("abstained"):
        session.notebook.outcome(session.run, unit, "reads", "ABSTAINED", reason)
        session.say("look", f"{unit.address}: {reason}")
        return None
    rule = FiringRule(**done.payload["rule"])
    note = "; larger on a special token, which is left out" if done.payload["special_token"] else ""
    rate = done.measurements["base_rate"].value
    session.experiment("top_examples", {"unit": unit.address, "k": EXAMPLES})
    session.say("look", f"{unit.address} fires above {rule.threshold:.3g} on {rate:.2%} of explore tokens{note}")
    return rule


def propose(session: Session, unit: Unit, rule: FiringRule) -> dict[str, Prospect]:
    """Hypotheses of all proposers for the reads side, compared on design text: id to prospect, the best first.

    What they say of the output is kept for the writes side.
    """
    pool = proposed(session, unit, rule)
    for reason in pool.left_out:
        session.say("left out", reason)
    for story in pool.writes:
        add_hypothesis(session, unit, "writes", canonical_json(story.predicate), story.author)
    if not pool.reads:
        return {}
    found = brought(pool.reads)
    prospects: dict[str, Prospect] = {}
    for row in _compared(session, unit, found):
        source, origin = row["predicate"], list(found.values())[row["origin"]]
        words = found[source].words if source in found else None  # of a claim without its idle parts nobody said any
        identifier, claim = add_hypothesis(session, unit, "reads", source, origin.authors, words)
        prospects.setdefault(identifier, replace(Prospect.of(row), against=origin.against))
        session.say("propose", f"{claim} (F1 {row['f1']:.2f} on design)")
    return prospects


def _compared(session: Session, unit: Unit, found: dict[str, Brought]) -> list[dict[str, Any]]:
    """Rows of `compare_on_design`, the most promising first. In the fast loop text is edited for the first ones only, until
    none that waits promises more; they stay first, or what is left of them without their idle parts."""
    asked: dict[str, Any] = {"unit": unit.address, "predicates": list(found)}
    wishes = [one.wish for one in found.values()]
    if session.config.loop != "fast":
        rows = session.experiment("compare_on_design", asked).payload["predicates"]
        return in_order(rows[: 1 if session.config.loop == "one-shot" else None], wishes)
    scored = session.experiment("compare_on_design", asked | {"rounds": 0}).payload["predicates"]
    waiting, edited = in_order(scored, wishes), list[dict[str, Any]]()
    for _ in range(FAST_EDITED):
        if not waiting or (edited and Prospect.of(edited[0]).promise >= Prospect.of(waiting[0]).promise):
            break
        first, *waiting = waiting
        again = asked | {"predicates": [first["predicate"]], "rounds": FAST_DESIGN_ROUNDS}
        rows = session.experiment("compare_on_design", again).payload["predicates"]
        edited = in_order([*edited, *(row | {"origin": first["origin"]} for row in rows)], wishes)
    known = {row["predicate"]: row for row in edited}
    return [*known.values(), *(row for row in waiting if row["predicate"] not in known)]


def test_claim(
    session: Session,
    unit: Unit,
    chosen: str,
    ids: list[str],
    against: tuple[str, ...],
    *,
    idle: bool = False,  # noqa: PT028  no test
) -> Decision | None:
    """Register a hypothesis with the first others of `ids` as rivals, test it on a fresh block and judge it.

    ids: the most promising first; against: as for `rivals_of`; idle: no edit of design text moved the unit, so that the fast
    loop spends little on it. None when no fresh text is left (an UNRESOLVED outcome) or the experiment failed.
    """
    rows = {row["id"]: row for row in queries.hypotheses(session.notebook, session.run)}
    claim, others = rows[chosen], [rows[i] for i in ids if i != chosen]
    rivals, rest = rivals_of(others, against)
    if claim["verdicts"]:
        return decide(case_from_json(claim["verdicts"][-1]["case"]))
    block = fresh_block(session, unit, "reads", list(rows.values()))
    if block is None:
        return None
    n_claims = queries.n_claims(list(rows.values()), chosen)
    payload = {
        "predicate": claim["predicate"],
        "rivals": [row["predicate"] for row in rivals],
        "tried": [row["predicate"] for row in rest],
        "unit": unit.address,
        "n_claims": n_claims,
    }
    prediction = session.notebook.register(
        chosen,
        {"metric": "f1", "comparator": ">", "threshold": 0.0, "baseline": "rivals, random units, null units",
         "split": f"confirm/{block}", "payload": payload},
    )  # fmt: skip
    session.say("register", f"{claim['claim']} against {len(rivals)} rivals, confirm block {block}")
    args = {
        "unit": unit.address,
        "claim": claim["predicate"],
        "rivals": payload["rivals"],
        "tried": payload["tried"],
        "block": block,
        "seed": session.config.seed,
    }
    args |= {"rounds": FAST_ROUNDS, "bars": None if idle else BARS} if session.config.loop == "fast" else {}
    done = run_test(session, unit, "reads", args, prediction=prediction, claim=claim["claim"])
    if done is None:
        return None
    case = reads_case(claim, rivals, done, n_claims)
    return judge(session, prediction, case, done.evidence, f"{claim['claim']} (F1 {case.f1:.2f})")


def reads_case(claim: dict[str, Any], rivals: list[dict[str, Any]], done: Done, n_claims: int) -> ReadsCase:
    """The case of a reads claim from its experiment."""
    found, payload = done.measurements, done.payload
    sentences = {row["predicate"]: row["claim"] for row in rivals}
    return ReadsCase(
        complexity=claim["complexity"],
        n_claims=n_claims,
        places=payload["places"],
        precision=found["precision"].value,
        precision_low=payload["precision_low"],
        coverage=found["coverage"].value,
        coverage_low=payload["coverage_low"],
        f1=found["f1"].value,
        base_rate=found["base_rate"].value,
        ap=found["ap"].value,
        ap_null=payload["ap_null"],
        r_low=payload["r_low"],
        dense=payload["dense"],
        graded=json.loads(claim["predicate"])["kind"] == "graded",
        bets=tuple(payload["pairs"]["bets"]),
        leaf_e=payload["leaf_e"],
        rarer_half_precision=payload["rarer_half_precision"],
        modes=tuple(ModeCase(**row) for row in payload["modes"]),
        rivals=tuple(
            Rival(claim=sentences[row["predicate"]], **{k: v for k, v in row.items() if k != "predicate"})
            for row in payload["rivals"]
        ),
    )


def answer(session: Session, unit: Unit) -> None:
    """The reads side of a unit: look, propose, test; then contexts beside the best claim, for those who read about it."""
    rule = look(session, unit)
    if rule is None:
        return
    _tests(session, unit, rule)
    with suppress(BudgetSpent, ToolFailed, ToolRefused):  # what was found stands without it
        session.experiment("contexts_of_claim", {"unit": unit.address, "claim": _best(session, unit)})


def _best(session: Session, unit: Unit) -> str | None:
    """The predicate of the best judged claim about when the unit fires, of this run, else of earlier ones; None for none."""
    rows = queries.hypotheses(session.notebook, session.run)
    judged = [row for row in rows if row["address"] == unit.address and row["side"] == "reads" and row["verdicts"]]

    def rank(row: dict[str, Any]) -> tuple[int, float]:
        verdict = row["verdicts"][-1]
        return RANKS.index(verdict["outcome"]), -float(verdict["case"]["f1"])

    if judged:
        return str(min(judged, key=rank)["predicate"])
    earlier = [found for found in session.earlier_findings(unit) if found.side == "reads"]
    return min(earlier, key=lambda found: RANKS.index(found.status)).predicate if earlier else None


def _tests(session: Session, unit: Unit, rule: FiringRule) -> None:
    """Propose, test; on fresh text what is left of the claim is tested next, then a rival that does as well. Where a claim
    is proved, only claims of several modes go on, and shorter claims that may be enough."""
    prospects = propose(session, unit, rule)
    ids = waiting = list(prospects)
    if not any(prospect.worth > 0 for prospect in prospects.values()):
        session.notebook.outcome(session.run, unit, "reads", "ABSTAINED", NOTHING_PROPOSED)
        session.say("propose", f"{unit.address}: {NOTHING_PROPOSED}")
        return
    if session.config.loop == "random":
        waiting = [ids[int(i)] for i in np.random.default_rng(session.config.seed).permutation(len(ids))]
    waiting = _askers_first(session, waiting)
    if session.config.loop == "no-rivals":
        ids = []
    best, proved = max(prospect.worth for prospect in prospects.values()), list[str]()
    for _ in range(MAX_ROUNDS):
        if not waiting:
            return
        chosen, *waiting = waiting
        prospect = prospects[chosen]
        decision = test_claim(session, unit, chosen, ids, prospect.against, idle=prospect.idle == 1)
        if decision is None or session.config.loop == "fast":
            return
        waiting.sort(key=lambda one: one not in _as_good(session, ids, chosen))
        if session.config.loop != "one-shot" and (revised := _revised(session, unit, chosen)) is not None:
            identifier, prospects[identifier] = revised
            waiting = [identifier, *(one for one in waiting if one != identifier)]
        proved += [chosen] if decision.status == "SUPPORTED" else []
        if proved:
            modes = _with_modes(session)
            if modes & set(proved):
                return
            named = [one for one in waiting if one in modes]
            waiting = list(dict.fromkeys([*named, *shorter(prospects, proved, waiting)]))
        elif waiting and prospects[waiting[0]].worth < WORTH_TESTING * best:
            return


def _askers_first(session: Session, waiting: list[str]) -> list[str]:
    """A person who puts forward a hypothesis wants to know about that one, promising or not."""
    rows = {row["id"]: row for row in queries.hypotheses(session.notebook, session.run)}
    return sorted(waiting, key=lambda one: PERSON not in rows[one]["author"].split(", "))


def _with_modes(session: Session) -> set[str]:
    """The hypotheses that name several modes: where a rule is proved, they may say what else the unit does."""
    rows = queries.hypotheses(session.notebook, session.run)
    return {row["id"] for row in rows if json.loads(row["predicate"])["kind"] == "modes"}


def _revised(session: Session, unit: Unit, tested: str) -> tuple[str, Prospect] | None:
    """A hypothesis without the parts that a test found wanting, with its prospect on design text; None where none is,
    or nothing is left of it."""
    rows = {row["id"]: row for row in queries.hypotheses(session.notebook, session.run)}
    case = case_from_json(rows[tested]["verdicts"][-1]["case"])
    assert isinstance(case, ReadsCase)
    predicate, weak = predicate_from_json(rows[tested]["predicate"]), set(wanting(case))
    smaller = without(predicate, [part for part in walk(predicate) if str(part) in weak])
    if (
        smaller is None
        or smaller == predicate
        or any(row["predicate"] == canonical_json(smaller) for row in rows.values())
    ):
        return None
    args = {"unit": unit.address, "predicates": [canonical_json(smaller)]}
    row = session.experiment("compare_on_design", args).payload["predicates"][0]
    identifier, claim = add_hypothesis(session, unit, "reads", row["predicate"], REVISION)
    session.say("propose", f"{claim} (F1 {row['f1']:.2f} on design): the last one without what told too little")
    return identifier, Prospect.of(row)


def _as_good(session: Session, ids: list[str], chosen: str) -> list[str]:
    """The rivals that did as well as a tested claim: a fresh block is theirs first."""
    rows = {row["id"]: row for row in queries.hypotheses(session.notebook, session.run)}
    case = case_from_json(rows[chosen]["verdicts"][-1]["case"])
    assert isinstance(case, ReadsCase)
    better = {rival.claim for rival in case.rivals if rival.complexity < case.complexity and rival.difference_low <= 0}
    return [one for one in ids if rows[one]["claim"] in better]

"""Where a head looks, and which text a unit is needed for: measured on design text, registered, tested on fresh text."""

from typing import Any, Literal

from neuronaut.agent.session import Done, Session
from neuronaut.agent.steps import fresh_block, judge, run_test
from neuronaut.memory import queries
from neuronaut.memory.cases import MIN_COVERAGE
from neuronaut.memory.causes import MIN_LOOKS, MIN_ROLE_NATS, AttendsCase, OtherKeys, RoleCase
from neuronaut.memory.judge import Decision, case_from_json, decide
from neuronaut.tools.look.attends import NAMED
from neuronaut.tools.predicates.attends import (
    Attends,
    Cause,
    Key,
    attends_from_json,
    canonical_json,
    cause_from_json,
    complexity,
    sentence,
)
from neuronaut.tools.predicates.nodes import At
from neuronaut.tools.predicates.tree import canonical_json as predicate_json
from neuronaut.tools.predicates.tree import depth, predicate_from_json
from neuronaut.tools.trials.attends import MOST_RIVALS
from neuronaut.tools.units import Unit

CauseSide = Literal["attends", "role"]
AUTHOR = "design attention"
ASKED = "the question"
ROLE_AUTHOR = "design losses"
MAX_ROUNDS = 3  # one for each confirm block
PROPOSED = 6
EXAMPLES = 3
MIN_SHARE = 0.4  # of the queries on design text, below which no test could carry the claim
MIN_EDITABLE = 15  # documents: so many must agree, all of them, for an e-value of 1000
NOWHERE = "it looks nowhere that the language of claims can name"
NOT_NEEDED = "no kind of text is predicted worse without it than other text"


def look(session: Session, unit: Unit) -> None:
    """What is seen of a head before anything is claimed: its scores beside all other heads, and its strongest pairs."""
    session.experiment("head_scores", {"unit": unit.address, "seed": session.config.seed}, own=True)
    session.experiment("top_examples", {"unit": unit.address, "k": EXAMPLES, "seed": session.config.seed}, own=True)


def attends(session: Session, unit: Unit) -> None:
    """The attends side of a head: what each kind of claim explains on design text, then tests of the best ones on fresh
    blocks until one is SUPPORTED."""
    done = session.experiment("compare_attends", {"unit": unit.address, "seed": session.config.seed})
    proposed = _proposed(done.payload)
    if not proposed:
        _abstain(session, unit, "attends", NOWHERE)
        return
    ids = {_add(session, unit, "attends", claim, AUTHOR): claim for claim in proposed}
    others = [attends_from_json(row["claim"]) for row in done.payload["claims"]]
    for chosen, claim in list(ids.items())[:MAX_ROUNDS]:
        rivals = _rivals(claim, [*ids.values(), *others])
        decision = test_attends(session, unit, chosen, claim, rivals)
        if decision is None or decision.status == "SUPPORTED":
            return


def attends_as(session: Session, unit: Unit, key: Key) -> None:
    """The test of one claim that was asked for: that a head looks at this key."""
    claim = Attends(key=key)
    done = session.experiment("compare_attends", {"unit": unit.address, "seed": session.config.seed})
    chosen = _add(session, unit, "attends", claim, ASKED)
    others = [attends_from_json(row["claim"]) for row in done.payload["claims"]]
    test_attends(session, unit, chosen, claim, _rivals(claim, others))


def _proposed(payload: dict[str, Any]) -> list[Attends]:
    """The claims worth a test, the most promising first, with what the head writes where that showed."""
    written = max(payload["carries"], key=lambda row: row["share_low"], default=None)
    rows = [row for row in payload["claims"] if row["share"] >= MIN_SHARE]
    rows.sort(key=lambda row: (not _may_hold(row), -row["worth"]))
    found: list[Attends] = []
    for row in rows[:PROPOSED]:
        claim = attends_from_json(row["claim"])
        if written is not None and written["share_low"] >= MIN_LOOKS:
            claim = claim.model_copy(update={"carries": attends_from_json(written["claim"]).carries})
        found.append(claim)
    return found


def _may_hold(row: dict[str, Any]) -> bool:
    """Whether the lower bounds on design text are what a SUPPORTED claim needs, and edits can tell enough."""
    bounds = row["share_low"] >= MIN_LOOKS and row["off_first_low"] >= MIN_COVERAGE
    return bool(bounds and row["editable"] >= MIN_EDITABLE)


def _rivals(claim: Attends, others: list[Attends]) -> list[Attends]:
    """The named kinds and the most promising other claims about the key, without what is written."""
    bare = claim.model_copy(update={"carries": None})
    found = dict.fromkeys(
        [*(Attends(key=key) for key in NAMED), *(o.model_copy(update={"carries": None}) for o in others)]
    )
    return [other for other in found if other != bare][:MOST_RIVALS]


def test_attends(session: Session, unit: Unit, chosen: str, claim: Attends, rivals: list[Attends]) -> Decision | None:
    """Register a claim about where a head looks and test it on a fresh block, once in a run; None where nothing was judged."""
    rows = {row["id"]: row for row in queries.hypotheses(session.notebook, session.run)}
    if rows[chosen]["verdicts"]:
        return decide(case_from_json(rows[chosen]["verdicts"][-1]["case"]))
    block = fresh_block(session, unit, "attends", list(rows.values()))
    if block is None:
        return None
    args = {
        "unit": unit.address,
        "claim": canonical_json(claim),
        "rivals": [canonical_json(rival) for rival in rivals],
        "block": block,
        "seed": session.config.seed,
    }
    prediction = session.notebook.register(
        chosen,
        {"metric": "share", "comparator": ">=", "threshold": MIN_LOOKS, "baseline": "rivals, other heads, heads with random weights",
         "split": f"confirm/{block}", "payload": args},
    )  # fmt: skip
    session.say("register", f"{unit.address} {sentence(claim)}, against {len(rivals)} rivals, confirm block {block}")
    done = run_test(session, unit, "attends", args, prediction=prediction, claim=sentence(claim))
    if done is None:
        return None
    case = attends_case(done, queries.n_claims(list(rows.values()), chosen))
    return judge(session, prediction, case, done.evidence, f"{sentence(claim)} ({case.share:.2f} of its queries)")


def attends_case(done: Done, n_claims: int) -> AttendsCase:
    """The case of an attends claim from its experiment."""
    found, payload = done.measurements, done.payload
    return AttendsCase(
        complexity=payload["complexity"],
        n_claims=n_claims,
        queries=payload["queries"],
        share=found["share"].value,
        share_low=payload["share_low"],
        by_chance=payload["by_chance"],
        off_first=found["off_first"].value,
        off_first_low=payload["off_first_low"],
        covers=payload["covers"],
        percentile=found["share"].null_percentile or 0.0,
        bets=tuple(payload["bets"]),
        effect_low=payload["effect_low"],
        synthetic_low=payload["synthetic_low"],
        carried_low=payload["carried_low"],
        rivals=tuple(OtherKeys(**row) for row in payload["rivals"]),
    )


def role(session: Session, unit: Unit) -> None:
    """The role side of a head or a neuron: the texts that lose most without it on design text, each tested on a fresh block
    until one is SUPPORTED."""
    args = {"unit": unit.address, "predicates": _fires_before(session, unit), "seed": session.config.seed}
    rows = session.experiment("compare_role", args).payload["claims"]
    rows = [row for row in rows if row["delta_low"] > 0 and row["delta"] >= MIN_ROLE_NATS / 2]
    if not rows:
        _abstain(session, unit, "role", NOT_NEEDED)
        return
    ids = [_add(session, unit, "role", cause_from_json(row["claim"]), ROLE_AUTHOR) for row in rows[:PROPOSED]]
    for chosen in ids[:MAX_ROUNDS]:
        decision = test_role(session, unit, chosen)
        if decision is None or decision.status == "SUPPORTED":
            return


def _fires_before(session: Session, unit: Unit) -> list[str]:
    """For a neuron, the tokens just behind those at which its hypotheses say that it fires, as JSON."""
    rows = queries.hypotheses(session.notebook, session.run)
    mine = [row for row in rows if row["address"] == unit.address and row["side"] == "reads"]
    inner = [predicate_from_json(row["predicate"]) for row in mine]
    return [predicate_json(At(offset=1, inner=one)) for one in inner if depth(one) <= 5][:PROPOSED]


def test_role(session: Session, unit: Unit, chosen: str) -> Decision | None:
    """Register a claim about which text needs a unit and test it on a fresh block, once in a run; None where nothing was judged."""
    rows = {row["id"]: row for row in queries.hypotheses(session.notebook, session.run)}
    if rows[chosen]["verdicts"]:
        return decide(case_from_json(rows[chosen]["verdicts"][-1]["case"]))
    block = fresh_block(session, unit, "role", list(rows.values()))
    if block is None:
        return None
    claim = rows[chosen]["claim"]
    args = {"unit": unit.address, "claim": rows[chosen]["predicate"], "block": block, "seed": session.config.seed}
    prediction = session.notebook.register(
        chosen,
        {"metric": "delta", "comparator": ">=", "threshold": MIN_ROLE_NATS, "baseline": "matched text, other units",
         "split": f"confirm/{block}", "payload": args},
    )  # fmt: skip
    session.say("register", f"{unit.address} {claim}, confirm block {block}")
    done = run_test(session, unit, "role", args, prediction=prediction, claim=claim)
    if done is None:
        return None
    case = role_case(done, queries.n_claims(list(rows.values()), chosen))
    return judge(session, prediction, case, done.evidence, f"{claim} ({case.delta:+.3f} nats)")


def role_case(done: Done, n_claims: int) -> RoleCase:
    """The case of a role claim from its experiment."""
    delta, payload = done.measurements["delta"], done.payload
    return RoleCase(
        complexity=payload["complexity"],
        n_claims=n_claims,
        delta=delta.value,
        delta_low=payload["delta_low"],
        elsewhere=done.measurements["elsewhere"].value,
        elsewhere_low=payload["elsewhere_low"],
        elsewhere_high=payload["elsewhere_high"],
        percentile=delta.null_percentile or 0.0,
        bets=tuple(payload["bets"]),
    )


def _add(session: Session, unit: Unit, side: CauseSide, claim: Cause, author: str) -> str:
    """The id of a hypothesis in the notebook."""
    fields = {
        "side": side,
        "claim": sentence(claim),
        "predicate": canonical_json(claim),
        "complexity": complexity(claim),
        "author": author,
    }
    session.say("propose", f"{unit.address} {sentence(claim)}")
    return session.notebook.add_hypothesis(session.run, unit, fields)


def _abstain(session: Session, unit: Unit, side: CauseSide, reason: str) -> None:
    session.notebook.outcome(session.run, unit, side, "ABSTAINED", reason)
    session.say("propose", f"{unit.address}: {reason}")

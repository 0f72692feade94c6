"""Circuits: found on half of a task's prompts, registered, and tested once on the other half."""

from typing import Any

from neuronaut.agent.questions import Question
from neuronaut.agent.session import Done, Session
from neuronaut.agent.steps import fresh_block, judge, run_test
from neuronaut.memory import queries
from neuronaut.memory.judge import CircuitCase, Decision
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.circuit import Circuit, canonical_circuit
from neuronaut.tools.units import Unit

AUTHOR = "pruning"
ENOUGH = 0.9  # of the behaviour on the prompts of the search; unseen ones keep a little less, and 0.8 is asked there
THRESHOLDS = (0.98, 0.9, 0.85)  # share of the gap that each of the searches keeps


def circuit(session: Session, task: str, *, positions: bool = False) -> None:
    """The circuit of a task: search, register, test, judge. positions: its members stand at single places of the prompt."""
    unit = Unit.of_task(task)
    found = _found(session, unit, positions=positions)
    if found is None:
        return
    _claim(session, unit, found)


def _claim(session: Session, unit: Unit, found: Circuit) -> None:
    """Register a circuit and test it, once a run."""
    rows = queries.hypotheses(session.notebook, session.run)
    if any(row["verdicts"] for row in rows if row["address"] == unit.address):
        return
    fields = {
        "side": "circuit",
        "claim": str(found),
        "predicate": canonical_circuit(found),
        "complexity": len(found.members),
        "author": AUTHOR,
    }
    hypothesis = session.notebook.add_hypothesis(session.run, unit, fields)
    session.say("propose", str(found))
    test_circuit(session, unit, hypothesis, found)


def _found(session: Session, unit: Unit, *, positions: bool) -> Circuit | None:
    """The circuit that searches of several strictness propose: of those that keep enough the one whose members are surest to
    be needed. None with an ABSTAINED outcome where there is nothing to search for.
    """
    found = []
    for threshold in THRESHOLDS:
        args = {"task": unit.name, "threshold": threshold, "reruns": 1, "seed": session.config.seed}
        args |= {"positions": True} if positions else {}
        try:
            payload = session.experiment("find_circuit", args, own=True).payload
        except ToolRefused as error:
            session.notebook.outcome(session.run, unit, "circuit", "ABSTAINED", str(error))
            session.say("look", str(error))
            return None
        found.append(payload)
        said = f"{payload['size']} of {payload['nodes']} parts keep {payload['share']:.2f}, {len(payload['idle'])} of them idle"
        session.say("search", f"{unit.name}: {said}")
    best = min(found, key=lambda payload: (payload["share"] < ENOUGH, payload["idle_p"], -payload["share"]))
    return Circuit(task=unit.name, members=tuple(best["members"]))


def test_circuit(session: Session, unit: Unit, hypothesis: str, found: Circuit) -> Decision | None:
    """Register a circuit and test it on unseen prompts; None where nothing was judged."""
    rows = queries.hypotheses(session.notebook, session.run)
    block = fresh_block(session, unit, "circuit", rows)
    if block is None:
        return None
    args = {"unit": unit.address, "members": list(found.members), "block": block, "seed": session.config.seed}
    prediction = session.notebook.register(
        hypothesis,
        {"metric": "sufficiency", "comparator": ">=", "threshold": 0.8, "baseline": "random circuits of as many members of each type",
         "split": f"confirm/{block}", "payload": args},
    )  # fmt: skip
    session.say("register", f"{found}, unseen prompts {block}")
    done = run_test(session, unit, "circuit", args, prediction=prediction, claim=str(found))
    if done is None:
        return None
    case = circuit_case(done, queries.n_claims(rows, hypothesis))
    return judge(session, prediction, case, done.evidence, f"{found} (keeps {case.sufficiency:.2f} alone)")


def circuit_case(done: Done, n_claims: int) -> CircuitCase:
    """The case of a circuit from its experiment."""
    payload = done.payload
    same = ("nodes", "accuracy", "gap_low", "sufficiency", "sufficiency_low", "percentile", "necessity", "necessity_high",
            "minimality", "harm", "harm_high")  # fmt: skip
    return CircuitCase(
        n_claims=n_claims,
        members=payload["size"],
        bets=tuple(payload["bets"]),
        **{name: payload[name] for name in same},
    )


def compare(session: Session, tasks: tuple[str, ...]) -> None:
    """What the circuits of two tasks share, and what is left of each task without the circuit of the other."""
    members = {}
    for row in queries.hypotheses(session.notebook, session.run):
        if row["side"] == "circuit":
            found = Circuit.model_validate_json(row["predicate"])
            members[found.task] = list(found.members)
    if missing := [task for task in tasks if task not in members]:
        session.say("look", f"nothing to compare: no circuit was found for {' and '.join(missing)}")
        return
    args = {"tasks": list(tasks), "members": [members[task] for task in tasks], "seed": session.config.seed}
    session.experiment("compare_circuits", args, own=True)


def shared(session: Session, tasks: tuple[str, ...]) -> None:
    """What the circuits of several tasks share, and what is left of each task without parts of another's circuit."""
    _share(session, tasks)


def _share(session: Session, tasks: tuple[str, ...]) -> dict[str, Any]:
    args = {"tasks": list(tasks), "seed": session.config.seed}
    payload = session.experiment("shared_circuits", args, own=True).payload
    for row in payload["tasks"]:
        if not row["can"]:
            session.say("look", f"{row['task']}: no circuit, {row['why']}")
    return payload


def shared_circuit(session: Session, task: str, tasks: tuple[str, ...]) -> None:
    """The circuit of one of several tasks, registered and tested on unseen prompts; ABSTAINED for one that the target cannot do."""
    unit, payload = Unit.of_task(task), _share(session, tasks)
    why = next((row["why"] for row in payload["tasks"] if row["task"] == task and not row["can"]), None)
    if why is not None:
        session.notebook.outcome(session.run, unit, "circuit", "ABSTAINED", f"no circuit is searched for: {why}")
        return
    at = payload["crossed_at"]
    members = next(row["members"] for row in payload["circuits"] if (row["task"], row["level"]) == (task, at))
    if members:
        _claim(session, unit, Circuit(task=task, members=tuple(members)))


def backups(session: Session, question: Question) -> None:
    """What remains of a task without a head, and which parts matter more then."""
    head = "" if question.without is None else question.without.address
    args = {"task": question.tasks[0], "seed": session.config.seed} | ({"head": head} if head else {})
    found = session.experiment("backup_heads", args, own=True).payload
    named = ", ".join(found["backups"]) or "no part"
    session.say(
        "measure", f"{found['task']} keeps {found['left']:.2f} without {found['head']}; {named} matters more then"
    )

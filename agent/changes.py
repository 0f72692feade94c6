"""What changed between the model and another checkpoint of it: measured, and the same question asked of both."""

from collections.abc import Callable

from neuronaut.agent.config import RunConfig
from neuronaut.agent.questions import Question
from neuronaut.agent.session import Done, Session
from neuronaut.agent.steps import fresh_block, judge, run_test
from neuronaut.memory import queries
from neuronaut.memory.judge import ChangeCase
from neuronaut.memory.ledger import canonical
from neuronaut.tools.changes.rule import MIN_TIMES
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.units import Unit

AUTHOR = "the question"
SIDE = "role"  # what a part is to the model: here, what has become of it
Explain = Callable[[Session, Unit], None]


def what_changed(session: Session, question: Question, *, explain: Explain) -> None:
    """What changed, beside noise. Of the unit that was asked about, else of the first one beyond the noise: whether it changed more
    than noise changes any, tested on fresh text; and what it does in each of both."""
    asked = "" if question.unit is None else question.unit.address
    args = {"other": question.others[0], "unit": asked, "seed": session.config.seed}
    found = session.experiment("diff_models", args, own=True).payload
    first, beyond = found["units"][0], found["beyond"]["any"]
    session.say("measure", f"{beyond} of {found['n_units']} heads and neurons changed more than noise of the same size")
    if asked or beyond:
        unit = Unit.parse(asked or first["unit"])
        _claim(session, question.others[0], unit)
        explain(session, unit)
        _ask_of_other(session, question.others[0], unit)


def _claim(session: Session, name: str, unit: Unit) -> None:
    """The statement of the study as a prediction, registered before its block is opened, and judged once a run."""
    claim = f"changed in {name} more than noise of the same size changes any unit"
    weights = session.context.registered.other(name).sha256
    predicate = canonical({"kind": "change", "other": name, "sha256": weights})
    fields = {"side": SIDE, "claim": claim, "predicate": predicate, "complexity": 1, "author": AUTHOR}
    hypothesis = session.notebook.add_hypothesis(session.run, unit, fields)
    rows = queries.hypotheses(session.notebook, session.run)
    if any(row["verdicts"] for row in rows if row["id"] == hypothesis):
        return
    block = fresh_block(session, unit, SIDE, rows)
    if block is None:
        return
    args = {"other": name, "unit": unit.address, "block": block, "seed": session.config.seed}
    prediction = session.notebook.register(
        hypothesis,
        {"metric": "times_low", "comparator": ">=", "threshold": MIN_TIMES, "baseline": "the units that noise drawn anew moves most",
         "split": f"confirm/{block}", "payload": args},
    )  # fmt: skip
    session.say("register", f"{unit.address} {claim}, confirm block {block}")
    done = run_test(session, unit, "change", args, prediction=prediction, claim=claim)
    if done is not None:
        case = change_case(done, queries.n_claims(rows, hypothesis))
        judge(session, prediction, case, done.evidence, f"{unit.address} {claim} ({case.times:.1f} times noise)")


def change_case(done: Done, n_claims: int) -> ChangeCase:
    """The case of a change from its experiment."""
    held = ("times", "times_low", "percentile", "twins", "place", "units", "bets")
    return ChangeCase.model_validate({"n_claims": n_claims} | {name: done.payload[name] for name in held})


def question_about(unit: Unit) -> str:
    """What is asked of both about a unit."""
    return f"what does {'head' if unit.kind == 'head' else 'neuron'} {unit.layer}.{_within(unit)} do"


def _within(unit: Unit) -> str:
    return f"{unit.index}" if unit.expert is None else f"e{unit.expert}.{unit.index}"


def _ask_of_other(session: Session, name: str, unit: Unit) -> None:
    """The same question of the other checkpoint, on the same text, as a run of its own."""
    from neuronaut.agent.runs import answer_in, left_of  # which themselves work through these steps

    session.check_budget()
    other = session.context.registered.other(name)
    config: RunConfig = session.config.model_copy(
        update={
            "question": question_about(unit),
            "model": other.place,
            "corpus": session.config.corpus or "pocket",
            "conversation": f"{session.run}/{name}",
            "budget": left_of(session),
            "dictionaries": {},
            "others": {},
            "labels": {},
        }
    )
    session.say("ask", f"the same of {name}")
    run = answer_in(session, config, ToolContext(other.target, session.context.corpus))
    session.say("ask", f"answered for {name} in run {run}")

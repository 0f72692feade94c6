"""`neuronaut score`: scores of an explanation, from the arguments to the printed table."""

import time
from dataclasses import dataclass

from neuronaut.agent.config import RunConfig
from neuronaut.agent.cost import Cost, asked
from neuronaut.agent.dictionaries import known_dictionaries
from neuronaut.agent.llm.base import OutOfBudget
from neuronaut.agent.llm.gateway import Gateway
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.opening import open_inputs
from neuronaut.agent.runs import check_language_model
from neuronaut.agent.scores.base import Case, Explanation, Score
from neuronaut.agent.scores.chosen import chosen_names, scores_of
from neuronaut.agent.scores.explained import best_claim, given, of_other
from neuronaut.agent.scores.measure import Compared, Scoring
from neuronaut.agent.scores.quiet import quiet, telling_spent
from neuronaut.agent.scores.rehearsed import Cases, announced
from neuronaut.agent.scores.table import named, table_lines
from neuronaut.agent.session import BudgetSpent, Say, Session
from neuronaut.agent.view import print_json, steps_on_stderr, visible
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.memory.store import check_writable
from neuronaut.tools.errors import ToolFailed, ToolRefused, UserError
from neuronaut.tools.learn.judge import Judge
from neuronaut.tools.learn.subject import Subject, check_neuron, other_subject, subject_of
from neuronaut.tools.learn.windows import LENGTH
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import check_unit, load_target
from neuronaut.tools.units import Unit


@dataclass(frozen=True)
class Wanted:
    """What is to be scored. scores: names with commas, None for all that have a judge. simulator: `target` or a folder."""

    unit: str
    explanation: str | None = None
    scores: str | None = None
    simulator: str | None = None
    published: bool = True


def score(config: RunConfig, wanted: Wanted, notebook_path: Place | None, *, as_json: bool) -> int:
    """Measure, record and print; the exit code: 0 all have a number, 1 out of budget, 3 some have none, 130 interrupted."""
    unit = Unit.parse(wanted.unit)
    check_neuron(unit)
    explanation = None if wanted.explanation is None else given(wanted.explanation, unit)
    has_judge = {"llm": config.llm is not None, "simulator": wanted.simulator is not None}
    chosen_names(wanted.scores, **has_judge, predicate=explanation is None or explanation.predicate is not None)
    check_language_model(config)
    path, say = notebook_path or default_place(), steps_on_stderr()
    check_writable(path)
    target, corpus = open_inputs(config, say)
    check_unit(target.spec, unit, target.dictionaries)
    config = known_dictionaries(config, target)
    context, began = ToolContext(target, corpus), time.monotonic()  # what is read before the first score counts too
    with Notebook(path) as notebook:
        explanation = explanation or _claim(notebook, context, unit)
        names = chosen_names(wanted.scores, **has_judge, predicate=explanation.predicate is not None)
        own = Case(context, subject_of(context, unit), explanation, config.seed)
        other = _compared(notebook, own)
        if config.llm is not None:
            say("model", announced(config, notebook, names, Cases(own, other, wanted.published)))
        simulator = None if wanted.simulator is None else _simulator(wanted.simulator, context, say)
        size = (corpus.name, corpus.sha256, corpus.n_characters)
        run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
        session = Session(run, config, notebook, context, [], say, began=began)
        gateway = None if config.llm is None else _gateway(session, own.subject)
        scoring = Scoring(session, own.subject, explanation, other, wanted.published)
        return _work(scoring, scores_of(names, gateway, simulator), gateway, as_json=as_json)


def _gateway(session: Session, subject: Subject) -> Gateway:
    gateway = quiet(gateway_of(session), session)
    session.say("model", f"and windows of {' and '.join(subject.splits)} text, with the explanations that are judged")
    return gateway


def _claim(notebook: Notebook, context: ToolContext, unit: Unit) -> Explanation:
    claim = best_claim(notebook, context.target.fingerprint().weights_sha256, unit)
    if claim is None:
        raise UserError(
            f"the notebook supports no claim about when {unit.address} fires: ask about it first, or give --explanation"
        )
    return claim


def _simulator(name: str, context: ToolContext, say: Say) -> Judge:
    if name == "target":
        return Judge(context.target)
    say("simulator", f"loading {name}")
    return Judge(load_target(name))


def _compared(notebook: Notebook, own: Case) -> Compared:
    """Another unit of the layer, for the baselines."""
    try:
        other = other_subject(own.context, own.subject.unit, own.seed)
    except ToolRefused as error:
        return Compared(refused=str(error))
    return Compared(other, of_other(notebook, own.context, other))


def _work(scoring: Scoring, scores: list[Score], gateway: Gateway | None, *, as_json: bool) -> int:
    session = scoring.session
    session.say("run", f"{session.run}; the same command again asks nothing twice")
    outcome, reason, code = "answered", "", 0
    try:
        for one in scores:
            session.check_budget()
            session.say("score", f"{one.name} by {one.judge_named}")
            with telling_spent(gateway, session.say):
                row = scoring.score(one)
            session.say("score", f"{named(row)}: {row['refused'] or format(row['value'], '.3f')}")
    except (OutOfBudget, BudgetSpent) as error:
        outcome, reason, code = "out_of_budget", str(error), 1
    except KeyboardInterrupt:
        outcome, reason, code = "cancelled", "interrupted; what was asked is kept", 130
    except (ToolFailed, UserError) as error:
        session.notebook.end_run(session.run, "error", str(error), _cost(session).fields)
        raise
    session.notebook.end_run(session.run, outcome, reason, _cost(session).fields)
    if code:
        session.say(outcome, reason)
    elif any(row["refused"] for row in scoring.rows):
        code = 3
    _print(scoring, outcome, reason, as_json=as_json)
    return code


def _cost(session: Session) -> Cost:
    seconds = time.monotonic() - session.began
    forwards, priced = session.context.target.forwards, session.gateway is None or session.gateway.priced
    return Cost.of(session.notebook, session.run, seconds=seconds, forwards=forwards, priced=priced)


def _print(scoring: Scoring, outcome: str, reason: str, *, as_json: bool) -> None:
    session, cost = scoring.session, _cost(scoring.session).fields
    if as_json:
        print_json(
            {
                "run": session.run, "unit": scoring.subject.unit.address, "explanation": scoring.explanation.text,
                "source": scoring.explanation.source, "scores": scoring.rows, "outcome": outcome, "reason": reason,
                "cost": cost, "notebook": str(session.notebook.place), "ledger_head": session.notebook.head(),
            }
        )  # fmt: skip
        return
    for line in _lines(scoring.subject, scoring.explanation, scoring.other):
        print(visible(line))
    print()
    for line in table_lines(scoring.rows):
        print(line)
    print()
    spent = f"{cost['seconds']:.0f} s, {cost['forwards']:.0f} forward passes"
    if cost["llm_calls"]:
        spent += f", {asked(cost)}"
    print(f"run {session.run} · {spent} · a score is no verdict and changes none")


def _lines(subject: Subject, explanation: Explanation, other: Compared) -> list[str]:
    found = [
        f"{subject.unit.address}: {explanation.text} ({explanation.source})",
        f"scored on {' and '.join(subject.splits)} text, windows of {LENGTH} tokens; no explainer is shown a document of it"
        + ("; claims were compared on design text before they were tested" if "design" in subject.splits else ""),
    ]
    if other.subject is not None and other.explanation is not None:
        found.append(
            f"other explanation: that of {other.subject.unit.address}, {other.explanation.text} ({other.explanation.source})"
        )
        found.append(f"random unit: {other.subject.unit.address}, with the explanation of {subject.unit.address}")
    return found

"""Starting, resuming and ending a run."""

import time
from pathlib import Path
from typing import Any

from neuronaut.agent.answer import answer_of
from neuronaut.agent.config import RunConfig, corpus_path, parse_llm
from neuronaut.agent.graph import run_graph
from neuronaut.agent.llm.base import OutOfBudget
from neuronaut.agent.proposers.base import Proposer
from neuronaut.agent.questions import Question, parse_question
from neuronaut.agent.render import render
from neuronaut.agent.session import BudgetSpent, Say, Session, tools_sha256
from neuronaut.agent.view import print_json, steps_on_stderr
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.store import default_path
from neuronaut.tools.corpus import Corpus, load_corpus, pocket_corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import check_unit, load_target


def ask(config: RunConfig, notebook_path: Path | None, *, as_json: bool) -> int:
    """Answer a question; returns the exit code: 0 answered, 1 out of budget, 130 interrupted."""
    parse_question(config.question)
    with Notebook(notebook_path or default_path()) as notebook:
        say = steps_on_stderr()
        say("notebook", str(notebook.path))
        target, corpus = open_inputs(config, say)
        question = _understood(config, target)
        earlier = None if config.again else _earlier(notebook, config, target, corpus)
        if earlier is not None:
            say("recall", f"answered before in run {earlier}; --again measures anew")
            return _show(notebook, earlier, as_json=as_json)
        size = (corpus.name, corpus.sha256, corpus.n_characters)
        run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
        session = Session(run, config, notebook, ToolContext(target, corpus), [], say)
        return _work(session, question, as_json=as_json)


def resume(run: str, notebook_path: Path | None, *, as_json: bool) -> int:
    """Go on with a run. Refuses one whose weights or corpus are no longer the same."""
    with Notebook(notebook_path or default_path()) as notebook:
        row = queries.find_run(notebook, run)
        say = steps_on_stderr()
        if row["end"] is not None and row["end"]["outcome"] == "answered":
            return _show(notebook, run, as_json=as_json)
        config = RunConfig.model_validate(row["config"])
        target, corpus = open_inputs(config, say)
        if (
            target.fingerprint().weights_sha256 != row["target"]["weights_sha256"]
            or corpus.sha256 != row["corpus"]["sha256"]
        ):
            raise UserError(f"run {run} cannot go on: its model or corpus has changed since; ask the question again")
        session = Session(run, config, notebook, ToolContext(target, corpus), [], say)
        return _work(session, _understood(config, target), as_json=as_json)


def open_inputs(config: RunConfig, say: Say) -> tuple[TargetModel, Corpus]:
    """The target and the corpus that a run works on."""
    path = corpus_path(config)
    corpus = pocket_corpus() if path is None else load_corpus(path)
    for note in corpus.notes:
        say("corpus", note)
    say("model", f"loading {config.model}")
    return load_target(config.model), corpus


def _understood(config: RunConfig, target: TargetModel) -> Question:
    question = parse_question(config.question, n_heads=target.spec.n_heads, d_mlp=target.spec.d_mlp)
    check_unit(target.spec, question.unit)
    return question


def _earlier(notebook: Notebook, config: RunConfig, target: TargetModel, corpus: Corpus) -> str | None:
    same = {name: getattr(config, name) for name in ("fast", "llm", "seed")}
    weights = target.fingerprint().weights_sha256
    return queries.earlier_run(notebook, config.question, weights, corpus.sha256, same, tools_sha256())


def _proposers(session: Session) -> list[Proposer]:
    from neuronaut.agent.proposers.grammar import GrammarProposer

    found: list[Proposer] = [GrammarProposer(seed=session.config.seed)]
    if session.config.llm is not None:
        from neuronaut.agent.proposers.model import model_proposer

        found.append(model_proposer(session, parse_llm(session.config.llm)))
    return found


def _work(session: Session, question: Question, *, as_json: bool) -> int:
    session.proposers = _proposers(session)
    todo = [f"{question.unit.with_sign(sign).address} reads" for sign in question.signs]
    if not session.config.fast:
        todo.append(f"{question.unit.with_sign(question.signs[0]).address} writes")
    checkpoints = session.notebook.path.with_name(session.notebook.path.name + ".checkpoints")
    outcome, reason, code = "answered", "", 0
    try:
        run_graph(session, todo, checkpoints)
    except (BudgetSpent, OutOfBudget) as error:
        outcome, reason, code = "out_of_budget", str(error), 1
    except KeyboardInterrupt:
        outcome, reason, code = "cancelled", "interrupted; what was finished is kept", 130
    session.notebook.end_run(session.run, outcome, reason, _cost(session))
    if code:
        session.say(outcome, f"{reason}; go on with: neuronaut resume {session.run}")
    _show(session.notebook, session.run, as_json=as_json)
    return code


def _cost(session: Session) -> dict[str, Any]:
    calls = queries.calls(session.notebook, session.run)
    ends = [call["end"] for call in calls if call["end"]]
    prices = [end["usd_micro"] for end in ends]
    return {
        "seconds": round(time.monotonic() - session.began, 3),
        "forwards": round(session.context.target.forwards, 3),
        "tokens": sum((end["tokens_in"] or 0) + (end["tokens_out"] or 0) for end in ends),
        "llm_calls": len(calls),
        "usd": None if any(price is None for price in prices) else sum(prices) / 1e6,
    }


def _show(notebook: Notebook, run: str, *, as_json: bool) -> int:
    answer = answer_of(notebook, run)
    if as_json:
        print_json(answer)
    else:
        render(answer)
    return 0

"""Starting, resuming and ending a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from neuronaut.agent.answer import answer_of
from neuronaut.agent.config import CONVERSATION, Budget, RunConfig
from neuronaut.agent.dictionaries import changed_dictionaries, known_dictionaries
from neuronaut.agent.llm.log import NotebookLog
from neuronaut.agent.llm.opened import gateway_of, within_budget
from neuronaut.agent.opening import context_of, open_inputs
from neuronaut.agent.questions import parse_question
from neuronaut.agent.registered import KINDS, changed_registered
from neuronaut.agent.render import render
from neuronaut.agent.session import Say, Session, tools_sha256
from neuronaut.agent.understanding import check_registered, read_question
from neuronaut.agent.view import print_json, steps_on_stderr
from neuronaut.agent.working import STOPPED, work
from neuronaut.memory import queries
from neuronaut.memory.imports import QUESTION as IMPORTED
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.memory.store import check_writable
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel


def ask(config: RunConfig, notebook_path: Place | None, *, as_json: bool) -> int:
    """Answer a question; returns the exit code: 0 answered, 1 out of budget, 130 interrupted."""
    check_question(config)
    path, say = notebook_path or default_place(), steps_on_stderr()
    check_writable(path)
    say("notebook", str(path))
    target, corpus = open_inputs(config, say)
    with answered(config, path, context_of(target, corpus, say, config), say) as (notebook, run, code):
        _show(notebook, run, as_json=as_json)
    return code


def check_question(config: RunConfig) -> None:
    """Refuses, before anything is opened, a question that cannot be read and a language model that cannot be asked."""
    if config.llm is None or not config.question.strip():
        parse_question(config.question)
    check_language_model(config)


@contextmanager
def answered(config: RunConfig, path: Place, context: ToolContext, say: Say) -> Iterator[tuple[Notebook, str, int]]:
    """The notebook, the run that answers a question on opened inputs, and how it ended: 0 answered, 1 out of budget, 130
    interrupted. An earlier run that answered the same is taken, unless the question is asked again."""
    target, corpus = context.target, context.corpus
    config = known_dictionaries(config, target)
    if config.llm is None:
        check_registered(read_question(config.question, target), context)
    with Notebook(path) as notebook:
        earlier = None if config.again or asks_again(config.question) else _earlier(notebook, config, target, corpus)
        if earlier is not None:
            say("recall", f"answered before in run {earlier}; --again measures anew")
            yield notebook, earlier, 0
            return
        size = (corpus.name, corpus.sha256, corpus.n_characters)
        run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
        yield notebook, run, work(Session(run, config, notebook, context, [], say))


def resume(run: str, notebook_path: Place | None, *, as_json: bool) -> int:
    """Go on with a run. Refuses one whose weights, tokenizer or corpus are no longer the same, a rerun and a conversation."""
    path = notebook_path or default_place()
    with Notebook(path, read_only=True) as notebook:  # an unknown run makes no notebook
        if is_over(notebook, run):
            return _show(notebook, run, as_json=as_json)
    with reopened(run, path) as session:
        return _shown(session, work(session), as_json=as_json)


def is_over(notebook: Notebook, run: str) -> bool:
    """Whether a question was answered. Refuses a batch and a conversation."""
    row = queries.find_run(notebook, run)
    if notebook.wanted(run) is not None:
        raise UserError(f"run {run} is a batch: go on with `neuronaut label resume {run}`")
    if row["question"] == CONVERSATION:
        raise UserError(f"run {run} is a conversation: go on with `neuronaut chat --go-on {run}`")
    return _over(notebook, run)


@contextmanager
def reopened(run: str, path: Place) -> Iterator[Session]:
    """A run that was stopped, with its inputs. Refuses one whose inputs changed since, and a rerun."""
    row = resumable(run, path)
    check_writable(path)
    config, say = RunConfig.model_validate(row["config"]), steps_on_stderr()
    with Notebook(path) as notebook:
        target, corpus = open_inputs(config, say)
        refuse_changed(row, target, corpus)
        yield Session(run, config, notebook, context_of(target, corpus, say, config), [], say)


def resumable(run: str, path: Place) -> dict[str, Any]:
    """A run that may go on. Refuses a rerun, and one that goes on by another command."""
    with Notebook(path, read_only=True) as notebook:
        row = queries.find_run(notebook, run)
    if row["parent_run"] is not None:
        raise UserError(f"run {run} repeats run {row['parent_run']}: start it anew with `neuronaut rerun`")
    if row["question"].startswith(IMPORTED):
        raise UserError(
            f"run {run} tests an explanation of a file: give its `neuronaut import` command again, which tests nothing twice"
        )
    if row["question"].startswith("neuronaut score "):
        raise UserError(
            f"run {run} scores an explanation: give its `neuronaut score` command again, which asks nothing twice"
        )
    return row


def refuse_changed(row: dict[str, Any], target: TargetModel, corpus: Corpus) -> None:
    """Refuses to go on with a run on other inputs than those that it began with."""
    if changed := _changed(row, target, corpus):
        raise UserError(
            f"run {row['id']} cannot go on: its {' and '.join(changed)} changed since; ask the question again"
        )


def left_of(session: Session) -> Budget:
    """What a run has left of its budget, for a question asked inside it."""
    budget, spent = session.config.budget, time.monotonic() - session.began
    seconds = None if budget.seconds is None else max(1.0, budget.seconds - spent)
    forwards = None if budget.forwards is None else max(1.0, budget.forwards - session.forwards)
    return budget.model_copy(update={"seconds": seconds, "forwards": forwards})


def answer_in(outer: Session, config: RunConfig, inside: ToolContext | None = None) -> str:
    """The run that answers a question asked inside a conversation or another question, on the same model and text unless
    `inside` has others: one that was begun there and stopped goes on; one that answered the same before is taken, unless it
    is asked again. Raises KeyboardInterrupt where the work was stopped, which its run records."""
    context, notebook = inside or outer.context, outer.notebook
    target, corpus = context.target, context.corpus
    config = known_dictionaries(config, target)
    if config.llm is None:
        check_registered(read_question(config.question, target), context)
    begun = queries.run_in_conversation(notebook, str(config.conversation))
    if begun is not None and _over(notebook, begun):
        return begun
    known = begun is None and not config.again
    if known and (earlier := _earlier(notebook, config, target, corpus)) is not None:
        outer.say("recall", f"answered before in run {earlier}")
        return earlier
    size = (corpus.name, corpus.sha256, corpus.n_characters)
    run = begun or notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
    session = Session(run, config, notebook, context, [], outer.say)
    if config.llm is not None:
        log, outside = NotebookLog(session), gateway_of(outer)
        session.gateway = outside.inside(log)
        log.count(outside.budget, outside.model, counted=True)
    if work(session) == STOPPED:
        raise KeyboardInterrupt
    return run


def _over(notebook: Notebook, run: str) -> bool:
    end = queries.find_run(notebook, run)["end"]
    return end is not None and end["outcome"] == "answered"


def _changed(row: dict[str, Any], target: TargetModel, corpus: Corpus) -> list[str]:
    now = target.fingerprint()
    same = {
        "weights": now.weights_sha256 == row["target"]["weights_sha256"],
        "tokenizer": now.tokenizer_sha256 == row["target"]["tokenizer_sha256"],
        "number format": now.dtype == row["target"]["dtype"],
        "processing": now.processing == row["target"]["processing"],
        "engine": now.backend == row["target"]["backend"],
        "corpus": corpus.sha256 == row["corpus"]["sha256"],
    }
    known = changed_dictionaries(RunConfig.model_validate(row["config"]), target)
    beside = changed_registered(RunConfig.model_validate(row["config"]))
    return [*(name for name, equal in same.items() if not equal), *known, *beside]


def asks_again(question: str) -> bool:
    """Whether the answer hangs on what else the notebook holds, so that one of before may be short of it."""
    try:
        return parse_question(question).intent == "survived"
    except UserError:
        return False


def _earlier(notebook: Notebook, config: RunConfig, target: TargetModel, corpus: Corpus) -> str | None:
    same = {name: getattr(config, name) for name in ("fast", "loop", "llm", "base_url", "seed")}
    if config.dictionaries:
        same["dictionaries"] = config.model_dump(mode="json")["dictionaries"]
    same |= {kind: found for kind in KINDS if (found := config.model_dump(mode="json")[kind])}
    own = target.fingerprint()
    return queries.earlier_run(notebook, config.question, own, corpus.sha256, same, tools_sha256())


def check_language_model(config: RunConfig) -> None:
    """Refuses, before anything is stored, a name, an address or a budget that cannot be used, and a missing key."""
    if config.llm is not None:
        within_budget(config)
    elif config.base_url is not None:
        raise UserError("--base-url is the address of a language model: name that too, as --llm compatible:MODEL")


def _shown(session: Session, code: int, *, as_json: bool) -> int:
    _show(session.notebook, session.run, as_json=as_json)
    return code


def _show(notebook: Notebook, run: str, *, as_json: bool) -> int:
    answer = answer_of(notebook, run)
    if as_json:
        print_json(answer)
    else:
        render(answer)
    return 0

"""Batches: begun, gone on with, paused, stopped, tried again, and told of."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuronaut.agent.config import EngineOptions, RunConfig
from neuronaut.agent.dictionaries import known_dictionaries
from neuronaut.agent.label.cap import Cap
from neuronaut.agent.label.engines import Engine, engine
from neuronaut.agent.label.screen import Screen
from neuronaut.agent.label.selection import (
    Chosen,
    Labelling,
    all_units,
    in_order,
    layers_named,
    meeting,
    units_named,
    with_nulls,
)
from neuronaut.agent.label.statistics import statistics
from neuronaut.agent.label.summary import Summary, as_json, lines_of, summary_of
from neuronaut.agent.label.turns import Turn
from neuronaut.agent.label.where import check_where
from neuronaut.agent.label.work import Bench
from neuronaut.agent.llm.base import KeyRefused
from neuronaut.agent.llm.budget import UNIT
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.runs import check_language_model, refuse_changed
from neuronaut.agent.session import BudgetSpent, Session
from neuronaut.agent.view import steps_on_stderr
from neuronaut.memory import queries
from neuronaut.memory.item_labels import labels_of
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.memory.store import check_writable
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.units import Unit

FAILED, STOPPED, SPENT = 3, 130, 1  # exit codes


@dataclass(frozen=True)
class Options:
    """How a batch is shown: JSON lines, or every step of every unit on stderr; and where it is worked on."""

    as_json: bool = False
    steps: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)


def label(config: RunConfig, path: Place | None, options: Options) -> int:
    """Begin a batch and work on it; the exit code. Refuses a selection that nothing meets."""
    check_language_model(config)
    labelling = Labelling.model_validate(config.labelling)
    if labelling.where is not None:
        check_where(labelling.where)
    path, say = path or default_place(), steps_on_stderr()
    check_writable(path)
    say("notebook", str(path))
    with engine(config, options.engine, say, indexes=labelling.where is not None) as found:
        target, corpus = found.context.target, found.context.corpus
        units = eligible(labelling, found)
        chosen = with_nulls(in_order(units, labelling.limit, config.seed), labelling.nulls, config.seed)
        stored = labelling.model_copy(update={"eligible": len(units)})
        config = known_dictionaries(config.model_copy(update={"labelling": stored.model_dump(mode="json")}), target)
        with Notebook(path) as notebook:
            run = _begin(notebook, config, target, corpus, chosen)
            say("run", f"{run}; {len(chosen)} items; if it stops: neuronaut label resume {run}")
            return _work(notebook, run, config, found, options)


def eligible(labelling: Labelling, found: Engine) -> list[Unit]:
    """All units that the batch may choose from. Refuses none."""
    target = found.context.target
    layers = layers_named(labelling.layers, target.spec.n_layers)
    if labelling.units:
        units = units_named(labelling.units, target, labelling.kind)
    else:
        units = all_units(target, labelling.kind, layers, labelling.dictionary)
    if labelling.where is not None:
        columns, addresses = statistics(labelling.kind, found.inputs)
        units = meeting(units, labelling.where, columns, addresses)
    if labelling.signs != "+" and labelling.kind != "head" and not labelling.units:
        down = [unit.with_sign(-1) for unit in units]
        units = down if labelling.signs == "-" else [*units, *down]
    if not units:
        if labelling.kind == "feature" and not target.dictionaries:
            raise UserError(
                f"{target.spec.name} has no dictionary whose features could be labelled: give --dictionary FOLDER"
            )
        met = f" meets {labelling.where!r}" if labelling.where else " is named"
        raise UserError(
            f"no {labelling.kind} of layers {labelling.layers}{met}: name other layers, or a wider condition"
        )
    return units


def _begin(notebook: Notebook, config: RunConfig, target: TargetModel, corpus: Corpus, chosen: Sequence[Chosen]) -> str:
    size = (corpus.name, corpus.sha256, corpus.n_characters)
    with notebook.together():
        run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
        notebook.add_items(run, [(one.unit.address, one.null_kind, one.beside) for one in chosen])
    return run


def resume(run: str, path: Place | None, options: Options, *, retry: bool = False) -> int:
    """Go on with a batch, beside other processes or after they ended; retry: with its failed items too."""
    path, say = path or default_place(), steps_on_stderr()
    config, row = _batch(run, path)
    check_writable(path)
    with engine(config, options.engine, say, indexes=False) as found:
        refuse_changed(row, found.context.target, found.context.corpus)
        with Notebook(path) as notebook:
            if retry:
                say("label", f"{notebook.retry(run)} failed items are tried again")
            notebook.want(run, "go")
            return _work(notebook, run, config, found, options)


def tell(run: str, path: Place | None, wanted: Any) -> str:
    """Pause or stop a batch after the items in hand, whoever works on it; a sentence on that."""
    path = path or default_place()
    _batch(run, path)
    with Notebook(path) as notebook:
        notebook.want(run, wanted)
        leased = len(notebook.items(run, "leased"))
    word = "paused" if wanted == "pause" else "stopped"
    after = f" after the items in hand ({leased} are leased)" if leased else ""
    return f"batch {run} is {word}{after}; go on with: neuronaut label resume {run}"


def status(run: str | None, path: Place | None) -> Summary:
    """A batch as it stands; None is the newest one of the notebook."""
    path = path or default_place()
    with Notebook(path, read_only=True) as notebook:
        run = run or queries.newest_batch(notebook)
        if run is None:
            raise UserError(f"there is no batch in {str(path)!r}: begin one with `neuronaut label`")
        queries.find_run(notebook, run)
        if notebook.wanted(run) is None:
            raise UserError(f"run {run} is no batch: `neuronaut show {run}` shows it")
        return summary_of(notebook, run)


def _batch(run: str, path: Place) -> tuple[RunConfig, dict[str, Any]]:
    with Notebook(path, read_only=True) as notebook:
        row = queries.find_run(notebook, run)
        if notebook.wanted(run) is None:
            raise UserError(f"run {run} is no batch: `neuronaut resume {run}` goes on with a question")
    return RunConfig.model_validate(row["config"]), row


def _work(notebook: Notebook, run: str, config: RunConfig, found: Engine, options: Options) -> int:
    say: Callable[[str, str], None] = steps_on_stderr() if options.steps else lambda _label, _line: None
    bench = _bench(Session(run, config, notebook, found.context, [], say))
    screen = Screen(notebook, run, options.as_json, cap=_cap(config), dollars=lambda: bench.dollars)
    screen.recall(labels_of(notebook, notebook.items(run, "done", "failed", "skipped")))
    outcome, reason, code = "answered", "", 0
    try:
        with screen:
            stopped = found.work(bench, run, screen)
        wanted = notebook.wanted(run)
        left = notebook.items(run, "waiting", "leased")
        if stopped or (left and wanted == "go"):
            outcome, reason, code = "cancelled", "interrupted; what was finished is kept", STOPPED
        elif left:
            outcome, reason = "cancelled", f"{'paused' if wanted == 'pause' else 'stopped'}; what was finished is kept"
        elif notebook.items(run, "failed"):
            code = FAILED
    except BudgetSpent as error:
        outcome, reason, code = "out_of_budget", str(error), SPENT
    except KeyboardInterrupt:
        outcome, reason, code = "cancelled", "interrupted; what was finished is kept", STOPPED
    except KeyRefused as error:
        notebook.end_run(run, "error", str(error), {"forwards": 0.0})
        raise
    return _ended(notebook, run, (outcome, reason), code, options)


def _bench(session: Session) -> Bench:
    """What the items are worked on with. Refuses a cap that does not hold one unit's estimate."""
    if session.config.llm is None:
        return Bench(session.notebook, session.config, None, None, session.say)
    gateway = gateway_of(session)
    gateway.budget.unit = UNIT
    cap = Cap(gateway)
    cap.refuse_too_small()
    turn = Turn() if gateway.model.billed else None  # the replies of a script come in its order
    return Bench(session.notebook, session.config, cap, turn, session.say)


def _cap(config: RunConfig) -> str:
    """What the language model may cost in all, in words; "" where it has no limit in dollars."""
    return "" if config.llm is None or config.budget.usd is None else f"${config.budget.usd:g}"


def _ended(notebook: Notebook, run: str, end: tuple[str, str], code: int, options: Options) -> int:
    before = queries.find_run(notebook, run)["end"]
    if before is None or (before["outcome"], before["reason"]) != end:
        notebook.end_run(run, *end, summary_of(notebook, run).cost)
    summary = summary_of(notebook, run)
    if options.as_json:
        print(json.dumps(as_json(summary), ensure_ascii=True))
    else:
        print("\n".join(lines_of(summary)))
    return code

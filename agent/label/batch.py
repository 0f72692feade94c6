"""Batches: begun, gone on with, paused, stopped, tried again, and told of."""

import json
from collections.abc import Sequence
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
from neuronaut.agent.session import BudgetSpent, Say, Session
from neuronaut.agent.view import steps_on_stderr
from neuronaut.memory import queries
from neuronaut.memory.item_labels import labels_of
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place, option_of
from neuronaut.memory.store import check_writable
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

FAILED, STOPPED, SPENT = 3, 130, 1  # exit codes


@dataclass(frozen=True)
class Options:
    """How a batch is shown: JSON lines, or every step of every unit on stderr; where it is worked on; what takes the lines of
    counters instead of the terminal."""

    as_json: bool = False
    steps: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)
    say: Say | None = None


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
        config, chosen = choose(config, found)
        with Notebook(path) as notebook:
            run = begin(notebook, config, found, chosen, say)
            return _told(notebook, run, work(notebook, run, config, found, options), options)


def choose(config: RunConfig, found: Engine) -> tuple[RunConfig, list[Chosen]]:
    """The units of a batch with its null units, and its configuration with what they were chosen from.

    Refuses a selection that nothing meets.
    """
    labelling = Labelling.model_validate(config.labelling)
    units = eligible(labelling, found)
    chosen = with_nulls(in_order(units, labelling.limit, config.seed), labelling.nulls, config.seed)
    stored = labelling.model_copy(update={"eligible": len(units)}).model_dump(mode="json")
    return known_dictionaries(config.model_copy(update={"labelling": stored}), found.context.target), chosen


def begin(notebook: Notebook, config: RunConfig, found: Engine, chosen: Sequence[Chosen], say: Say) -> str:
    """Write the items of a batch down. Returns its run."""
    target, corpus = found.context.target, found.context.corpus
    size = (corpus.name, corpus.sha256, corpus.n_characters)
    with notebook.together():
        run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
        notebook.add_items(run, [(one.unit.address, one.null_kind, one.beside) for one in chosen])
    say("run", f"{run}; {len(chosen)} items; if it stops: neuronaut label resume {run}{option_of(notebook.place)}")
    return run


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
            return _told(notebook, run, work(notebook, run, config, found, options), options)


def tell(run: str, path: Place | None, wanted: Any) -> str:
    """Pause or stop a batch after the items in hand, whoever works on it; a sentence on that."""
    path = path or default_place()
    _batch(run, path)
    with Notebook(path) as notebook:
        notebook.want(run, wanted)
        leased = len(notebook.items(run, "leased"))
    word = "paused" if wanted == "pause" else "stopped"
    after = f" after the items in hand ({leased} are leased)" if leased else ""
    return f"batch {run} is {word}{after}; go on with: neuronaut label resume {run}{option_of(path)}"


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


def work(notebook: Notebook, run: str, config: RunConfig, found: Engine, options: Options) -> int:
    """Work on a batch until it is over, or should stop, and write down how it ended; the exit code."""
    steps: Say = steps_on_stderr() if options.steps else lambda _label, _line: None
    bench = _bench(Session(run, config, notebook, found.context, [], steps))
    screen = Screen(notebook, run, options.as_json, _cap(config), lambda: bench.dollars, options.say)
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
    before = queries.find_run(notebook, run)["end"]
    if before is None or (before["outcome"], before["reason"]) != (outcome, reason):
        notebook.end_run(run, outcome, reason, summary_of(notebook, run).cost)
    return code


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


def _told(notebook: Notebook, run: str, code: int, options: Options) -> int:
    summary = summary_of(notebook, run)
    print(json.dumps(as_json(summary), ensure_ascii=True) if options.as_json else "\n".join(lines_of(summary)))
    return code

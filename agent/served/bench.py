"""A model, a corpus and a notebook that questions of other programs are answered with; each is opened when it is first needed."""

import json
import threading
from dataclasses import dataclass, field, replace
from typing import Any, cast

from neuronaut.agent import opening, runs
from neuronaut.agent.config import RunConfig
from neuronaut.agent.dictionaries import known_dictionaries
from neuronaut.agent.rerun import chosen, repeated
from neuronaut.agent.served.findings import answer, page
from neuronaut.agent.served.stopping import Stoppable
from neuronaut.agent.session import Say, Session, as_stored
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place
from neuronaut.memory.store import check_writable
from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.registry import Tool, ToolArgs, ToolContext
from neuronaut.tools.targets.base import TargetModel

Row = dict[str, Any]


@dataclass
class Bench:
    """What the person who started the server named: no request can name another file, model or address."""

    config: RunConfig
    place: Place
    allow_run: bool
    _opened: ToolContext | None = field(default=None, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def notebook(self) -> Notebook:
        """The notebook, for reading."""
        return Notebook(self.place, read_only=True)

    def look(self, tool: Tool, args: ToolArgs, say: Say) -> Row:
        """What a tool finds; nothing is recorded."""
        found = as_stored(tool.run(self._context(say), args))
        return {"tool": tool.name, "measurements": found["measurements"], "result": found["payload"]}

    def record(self, tool: Tool, args: ToolArgs, say: Say) -> Row:
        """What a tool finds, as an experiment of a run of its own."""
        given = json.dumps(args.model_dump(mode="json", exclude_unset=True))
        run = self.answered(f"tool {tool.name} {given}", say, fast=False, again=False)["run"]
        with self.notebook() as notebook:
            (done,) = queries.experiments(notebook, run)
        ids = [{"id": one["id"], "page": page(one["id"]), "metric": one["metric"]} for one in done["evidence"]]
        known = {"run": run, "experiment": done["id"], "page": page(done["id"]), "tool": tool.name, "evidence": ids}
        return known | {"measurements": done["result"]["measurements"], "result": done["result"]["payload"]}

    def answered(self, question: str, say: Say, *, fast: bool, again: bool) -> Row:
        """The answer of the run that answers a question: hypotheses, tests and verdicts are code's alone."""
        check_writable(self.place)
        context = self._context(say)
        config = self.config.model_copy(update={"question": question, "fast": fast, "again": again})
        config = known_dictionaries(config, context.target)
        with Notebook(self.place) as notebook:
            run = runs.answer_in(Session("", config, notebook, context, [], say), config)
            return answer(notebook, run)

    def repeated(self, identifier: str, say: Say) -> Row:
        """A run or experiment measured again. Refuses one of another model or text than the server was started with."""
        run, done = chosen(identifier, self.place)
        context = self._context(say)
        print_of = context.target.fingerprint()
        inputs = {"model": (print_of.weights_sha256, run["target"]["weights_sha256"]),
                  "corpus": (context.corpus.sha256, run["corpus"]["sha256"])}  # fmt: skip
        if other := [name for name, (mine, its) in inputs.items() if mine != its]:
            raise UserError(
                f"run {run['id']} was made with another {' and another '.join(other)}: start a server with that one, or use "
                f"`neuronaut rerun {identifier}`"
            )
        check_writable(self.place)
        with Notebook(self.place) as notebook:
            found = repeated(notebook, identifier, run, done, context)
        rows = [{**row, "page": page(row["repeat"])} for row in found["repeats"]]
        return found | {"page": page(found["run"]), "repeats": rows}

    def begin(self) -> None:
        """From here on a stop is meant for the work that begins now."""
        self._stop.clear()

    def stop(self) -> None:
        """Ask the work that goes on to end: it does before its next step or forward pass, and what it had begun is ended."""
        self._stop.set()

    def _context(self, say: Say) -> ToolContext:
        """The model with its text. Activations read for one request are not kept for others: there may be any number of them."""
        if self._opened is None:
            target, corpus = opening.open_inputs(self.config, say)
            stoppable = cast(TargetModel, Stoppable(target, self._stop))
            self._opened = opening.context_of(stoppable, corpus, say, self.config)
        return replace(self._opened, _activations={})


def told(error: Exception) -> str:
    """The sentence of an error that a caller may see."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ToolFailed):
        return f"the experiment failed, and was recorded as failed where it was one: {error}"
    if isinstance(error, OSError):
        return f"a file or device could not be used: {error.strerror}"
    raise error

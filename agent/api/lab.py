"""`Lab`: a model, its text and a notebook, opened once and asked from Python as often as one likes."""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from neuronaut.agent.api.given import (
    Progress,
    Say,
    budget_of,
    listed,
    one_of,
    place_named,
    plain,
    say_of,
    settle_progress_bars,
    text_of,
)
from neuronaut.agent.api.methods import ToolMethods
from neuronaut.agent.api.stopped import interrupted
from neuronaut.agent.config import Budget, RunConfig, corpus_place
from neuronaut.agent.options import BackendName, DeviceChoice, DtypeChoice, run_config
from neuronaut.agent.registered import registered_config
from neuronaut.memory.place import Place, default_place
from neuronaut.tools.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuronaut.agent.api.answers import Answer
    from neuronaut.agent.api.batches import Batch
    from neuronaut.agent.api.outputs import ToolOutput
    from neuronaut.agent.api.records import Known, Record, Verified
    from neuronaut.agent.api.tables import Table
    from neuronaut.tools.corpus import Corpus
    from neuronaut.tools.registry import ToolContext
    from neuronaut.tools.targets.base import TargetModel


LARGEST_SEED = 2**32 - 1
KEPT_BYTES = 512 << 20  # of activations that the next question may use


class Lab(ToolMethods):
    """Ask what parts of a model do: `Lab("pocket").ask("what does neuron 8.481 do")`. Every tool is a method.

    The options are those of the command line. Model and text are loaded at the first question and kept for the next ones;
    what is found is recorded in the notebook, where `neuronaut show`, `verify` and `rerun` find it too.

    model: 'pocket', a Hugging Face folder, or a hub name. corpus: text, needed for any model but pocket. notebook: a file or
    a PostgreSQL URL; without one $NEURONAUT_NOTEBOOK or that of the user. llm, base_url: a language model that also proposes.
    dictionaries: NAME=FOLDER or FOLDER of each. others, labels, heads: NAME=FOLDER of further models, NAME=FILE of labelled
    texts, NAME=FOLDER of saved read-outs. budget: limits of each question, such as {"seconds": 60}. backend: 'torch' or 'mlx'.
    dtype, device: as `--dtype` and `--device`. progress: of every question that says nothing else.
    """

    def __init__(
        self,
        model: str | Path = "pocket",
        *,
        corpus: str | Path | None = None,
        notebook: str | Path | None = None,
        llm: str | None = None,
        base_url: str | None = None,
        dictionaries: Sequence[str] = (),
        others: Sequence[str] = (),
        labels: Sequence[str] = (),
        heads: Sequence[str] = (),
        seed: int = 0,
        budget: Budget | Mapping[str, float] | None = None,
        backend: str = "torch",
        dtype: str = "float32",
        device: str = "cpu",
        progress: Progress = False,
    ) -> None:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
            raise UserError(
                f"seed {seed!r} is no whole number from 0 to {LARGEST_SEED}: the same one gives the same answer"
            )
        named = listed(dictionaries)
        text = None if corpus is None else str(corpus)
        placed = (one_of(BackendName, backend), one_of(DtypeChoice, dtype), one_of(DeviceChoice, device))
        config = run_config("", str(model), text, llm, base_url, seed, budget_of(budget), named, *placed)
        beside = registered_config(listed(others), listed(labels), listed(heads))
        self._config = config.model_copy(update=beside)
        corpus_place(self._config)
        from neuronaut.agent.runs import check_language_model

        check_language_model(self._config)
        settle_progress_bars()
        self._place = default_place() if notebook is None else place_named(str(notebook))
        self._progress = progress
        self._turn = threading.RLock()
        self._context: ToolContext | None = None
        self._closed = False

    # Questions

    def ask(
        self, question: str, *, fast: bool = False, again: bool = False, progress: Progress | None = None
    ) -> "Answer":
        """The answer to a question, as `neuronaut ask` gives it: hypotheses are registered, tested and judged by code.

        fast: the reads side only. again: measure anew what the notebook already knows. An answer may be incomplete where a
        budget is spent: see its `outcome`. Interrupted, it ends as cancelled, and `resume` goes on with it.
        """
        from neuronaut.agent.api.answers import Answer
        from neuronaut.agent.runs import answered, check_question
        from neuronaut.agent.working import STOPPED
        from neuronaut.memory.store import check_writable

        asked = {"question": text_of(question, "a question"), "fast": fast, "again": again}
        config = self._config.model_copy(update=asked)
        check_question(config)
        with self._open(progress) as (context, say):
            check_writable(self._place)
            with answered(config, self._place, context, say) as (notebook, run, code):
                if code == STOPPED:
                    raise KeyboardInterrupt(interrupted(run))
                return Answer.read(notebook, run)

    def label(
        self,
        *units: str,
        kind: str = "neuron",
        layers: str = "all",
        where: str | None = None,
        limit: int | None = None,
        signs: str = "+",
        fast: bool = False,
        nulls: float = 0.05,
        unit_budget: Budget | Mapping[str, float] | None = None,
        progress: Progress | None = None,
    ) -> "Batch":
        """Many units labelled, as `neuronaut label` does it: each has its own run and verdict, null units are mixed in.

        units: addresses and ranges such as "8.0-8.99"; none for whole layers. where: a condition on the index, such as
        "density < 0.01". limit: so many, equally many of each layer. unit_budget: limits of each unit. What ends is kept at
        once: interrupted, or with a budget spent, the batch goes on with `resume`.
        """
        from neuronaut.agent.api.batches import label_units, labelling_of

        named = {"kind": kind, "layers": layers, "units": units, "signs": signs, "where": where, "limit": limit}
        labelling = labelling_of(nulls=nulls, unit_budget=budget_of(unit_budget), **named)
        with self._open(progress) as (context, say):
            return label_units(context, self._place, labelling.configured(self._config, fast=fast), say)

    def batch(self, run: str) -> "Batch":
        """What came of a batch so far."""
        from neuronaut.agent.api.batches import Batch

        with self._reading() as notebook:
            if notebook.wanted(run) is None:
                raise UserError(f"run {run!r} is no batch: lab.show({run!r}) shows what it is")
            return Batch.read(notebook, run)

    def resume(self, run: str, *, progress: Progress | None = None) -> "Answer | Batch":
        """The answer of a run that was stopped, or a batch, worked on to its end; finished experiments are not repeated.

        Refuses a run of another model or text, and one whose inputs changed.
        """
        from neuronaut.agent.api.answers import Answer
        from neuronaut.agent.api.batches import resume_batch
        from neuronaut.agent.runs import is_over, refuse_changed, resumable
        from neuronaut.agent.session import Session
        from neuronaut.agent.working import STOPPED, work
        from neuronaut.memory.notebook import Notebook

        with self._reading() as notebook:
            batched = notebook.wanted(run) is not None
            if not batched and is_over(notebook, run):
                return Answer.read(notebook, run)
        if batched:
            with self._open(progress) as (context, say):
                return resume_batch(context, self._place, run, say)
        row = resumable(run, self._place)
        with self._open(progress) as (context, say):
            refuse_changed(row, context.target, context.corpus)
            with Notebook(self._place) as notebook:
                session = Session(run, RunConfig.model_validate(row["config"]), notebook, context, [], say)
                if work(session) == STOPPED:
                    raise KeyboardInterrupt(interrupted(run))
                return Answer.read(notebook, run)

    # The notebook

    def search(self, words: str = "") -> "Table":
        """Claims that hold all the words and facets (`month status:supported unit:8.481`); without words, the runs."""
        from neuronaut.agent.api.records import all_runs, found_claims

        with self._reading() as notebook:
            return (
                found_claims(notebook, words) if text_of(words, "what is searched for").strip() else all_runs(notebook)
            )

    def show(self, identifier: str) -> "Answer | Record":
        """Any record of the notebook by its id; of a run its answer."""
        from neuronaut.agent.api.answers import Answer
        from neuronaut.agent.api.records import Record
        from neuronaut.memory import queries

        with self._reading() as notebook:
            table, row = queries.find(notebook, identifier)
            return Answer.read(notebook, row["id"]) if table == "run" else Record.of(table, row)

    def answer(self, run: str) -> "Answer":
        """The answer of an earlier run. Refuses an id of anything else."""
        from neuronaut.agent.api.answers import Answer

        with self._reading() as notebook:
            return Answer.read(notebook, run)

    def unit(self, unit: str) -> "Known":
        """What the notebook knows of a unit (both signs) of this model. Nothing is measured: see `ask`."""
        from neuronaut.agent.api.records import Known
        from neuronaut.tools.units import Unit

        parsed = Unit.parse(unit)
        with self._reading() as notebook:
            return Known.read(notebook, parsed, self._config.model, self._weights)

    def verify(self, head: str | None = None) -> "Verified":
        """Whether nothing in the notebook was altered and each verdict follows from its rows; true where all is well.

        head: the ledger head that an answer had; shows whether the end was cut off.
        """
        from neuronaut.agent.api.records import Verified
        from neuronaut.memory.verify import verify

        with self._reading() as notebook:
            return Verified(tuple(verify(notebook, head)), notebook.head())

    # Tools

    def tool(self, name: str, /, **args: Any) -> "ToolOutput":
        """What a tool finds, as `neuronaut tool` runs it; each is a method too: `lab.top_examples("8.481", k=5)`.

        Nothing is recorded. Refuses arguments outside their bounds, and tools that open the text on which claims are tested.
        """
        from neuronaut.agent.api.outputs import ToolOutput
        from neuronaut.tools.registry import find_tool, run_tool

        chosen = find_tool(name)
        if chosen.opens_test_text:
            raise UserError(
                f"{name} opens text on which claims are tested: lab.ask(…) runs it, and records what was opened"
            )
        parsed = chosen.parse({key: plain(value) for key, value in args.items()})
        with self._open(None) as (context, _):
            given = {
                key: value for key, value in parsed.model_dump(mode="json").items() if key in parsed.model_fields_set
            }
            shown = {key: value for key, value in given.items() if value != chosen.args.model_fields[key].default}
            return ToolOutput(name, shown, context.compute(run_tool, name, parsed))

    # What is open

    @property
    def target(self) -> "TargetModel":
        """The model, loaded now if it was not yet."""
        with self._open(None) as (context, _):
            return context.target

    @property
    def corpus(self) -> "Corpus":
        """The text, opened now if it was not yet."""
        with self._open(None) as (context, _):
            return context.corpus

    @property
    def notebook(self) -> Place:
        """Where findings are kept."""
        return self._place

    def close(self) -> None:
        """Forget the model and the text; what was found stays in the notebook. A closed lab answers nothing."""
        with self._turn:
            self._context, self._closed = None, True

    def __enter__(self) -> Self:
        self._refuse_closed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not loaded yet" if self._context is None else "loaded"
        return f"Lab({self._config.model!r}, notebook={str(self._place)!r}): {state}"

    @contextlib.contextmanager
    def _open(self, progress: Progress | None) -> "Iterator[tuple[ToolContext, Say]]":
        """Model and text; threads take turns."""
        from neuronaut.agent.opening import context_of, open_inputs

        say = say_of(self._progress if progress is None else progress)
        with self._turn:
            self._refuse_closed()
            if self._context is None:
                self._context = context_of(*open_inputs(self._config, say), say, self._config)
            yield self._context, say
            if self._context is not None:
                self._context.forget_above(KEPT_BYTES)

    @contextlib.contextmanager
    def _reading(self) -> "Iterator[Any]":
        from neuronaut.memory.notebook import Notebook

        self._refuse_closed()
        with Notebook(self._place, read_only=True) as notebook:
            yield notebook

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UserError("this lab is closed: open another one with Lab(…)")

    @cached_property
    def _weights(self) -> str:
        """The hash of the weights, without loading them."""
        from neuronaut.tools.targets.load import open_folder

        return open_folder(self._config.model).weights_sha256

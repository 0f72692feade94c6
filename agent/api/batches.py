"""Batches from Python: begun, gone on with, and as values: labels as a table, what came of null units, and what it cost."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from neuronaut.agent.api.stopped import interrupted
from neuronaut.agent.api.tables import Table, Type
from neuronaut.agent.config import RunConfig
from neuronaut.agent.cost import Cost
from neuronaut.agent.inputs import Here
from neuronaut.agent.label.batch import STOPPED, Options, begin, choose, work
from neuronaut.agent.label.engines import InProcess
from neuronaut.agent.label.selection import Labelling
from neuronaut.agent.label.summary import Nulls, Summary, as_json, lines_of, summary_of
from neuronaut.agent.label.where import check_where
from neuronaut.agent.runs import refuse_changed
from neuronaut.agent.session import Say
from neuronaut.agent.view import visible
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place
from neuronaut.memory.store import check_writable
from neuronaut.tools.errors import UserError
from neuronaut.tools.registry import ToolContext

if TYPE_CHECKING:
    import pandas
    import polars

LABELS: dict[str, Type] = {
    "unit": "text", "status": "text", "side": "text", "claim": "text", "score": "float", "e": "float", "reason": "text", "run": "text",
}  # fmt: skip
SHOWN_LABELS = ("unit", "status", "score", "claim", "reason")


@dataclass(frozen=True, repr=False)
class Batch:
    """What came of a batch so far. summary: what `neuronaut label status` prints."""

    summary: Summary = field(hash=False)

    @classmethod
    def read(cls, notebook: Notebook, run: str) -> Self:
        """A batch, as the notebook has it."""
        with notebook.snapshot():
            return cls(summary_of(notebook, run))

    @property
    def run(self) -> str:
        """The id of the batch: `lab.resume(run)`, `neuronaut label status RUN`."""
        return self.summary.run

    @property
    def outcome(self) -> str:
        """How its work ended last: answered, cancelled, out_of_budget, or unfinished."""
        return self.summary.outcome

    @property
    def waiting(self) -> int:
        """Items that are still to do."""
        return self.summary.waiting

    @property
    def statuses(self) -> dict[str, int]:
        """How many units ended how, null units left out."""
        return self.summary.statuses

    @property
    def nulls(self) -> Nulls:
        """What came of the planted null units: the rate of false claims."""
        return self.summary.nulls

    @property
    def cost(self) -> Cost:
        """Time, forward passes, tokens and dollars of all items."""
        return Cost(**self.summary.cost)

    @property
    def json(self) -> dict[str, Any]:
        """What `neuronaut label status --json` prints."""
        return as_json(self.summary)

    @cached_property
    def labels(self) -> Table:
        """One row a unit: its best claim, SUPPORTED before PARTIAL; status NONE where nothing was judged yet."""
        rows = tuple(
            {
                "unit": one.address, "status": one.word, "side": one.side or None, "claim": one.claim or None, "score": one.score,
                "e": one.e, "reason": one.reason or None, "run": one.run,
            }
            for one in self.summary.labels
        )  # fmt: skip
        return Table(LABELS, rows, f"labels of batch {self.run}", SHOWN_LABELS)

    def to_pandas(self) -> "pandas.DataFrame":
        """The labels as a pandas frame."""
        return self.labels.to_pandas()

    def to_polars(self) -> "polars.DataFrame":
        """The labels as a polars frame."""
        return self.labels.to_polars()

    def __str__(self) -> str:
        return "\n".join(map(visible, lines_of(self.summary)))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from neuronaut.agent.api.html import batch_html

        return batch_html(self)


def labelling_of(**named: Any) -> Labelling:
    """What a batch labels. Refuses values that it cannot have."""
    try:
        labelling = Labelling(**named)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))} {first['input']!r}: {first['msg']}") from None
    if labelling.where is not None:
        check_where(labelling.where)
    return labelling


def label_units(context: ToolContext, place: Place, config: RunConfig, say: Say) -> Batch:
    """Begin a batch, and work on it in this process. Refuses a selection that nothing meets."""
    check_writable(place)
    found = _in_process(context, config.seed)
    config, chosen = choose(config, found)
    with Notebook(place) as notebook:
        return _worked(notebook, begin(notebook, config, found, chosen, say), config, found, say)


def resume_batch(context: ToolContext, place: Place, run: str, say: Say) -> Batch:
    """Go on with a batch. Refuses one of other inputs."""
    with Notebook(place) as notebook:
        row = queries.find_run(notebook, run)
        refuse_changed(row, context.target, context.corpus)
        notebook.want(run, "go")
        config = RunConfig.model_validate(row["config"])
        return _worked(notebook, run, config, _in_process(context, config.seed), say)


def _in_process(context: ToolContext, seed: int) -> InProcess:
    return InProcess(Here(context.target, context.corpus), context, seed)


def _worked(notebook: Notebook, run: str, config: RunConfig, found: InProcess, say: Say) -> Batch:
    if work(notebook, run, config, found, Options(say=say)) == STOPPED:
        raise KeyboardInterrupt(interrupted(run))
    return Batch.read(notebook, run)

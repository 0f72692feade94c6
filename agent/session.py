"""One run at work: its opened resources, and the one way to do an experiment."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronaut.agent.config import RunConfig
from neuronaut.agent.dictionaries import weights_used
from neuronaut.agent.proposers.base import Proposer
from neuronaut.agent.registered import hashes_used
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.ledger import canonical
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.recall import Finding, earlier_findings
from neuronaut.tools import registry as tool_registry
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.figures import PLOTLY, SVG
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool, run_tool
from neuronaut.tools.units import Unit

if TYPE_CHECKING:
    from neuronaut.agent.llm.gateway import Gateway

Say = Callable[[str, str], None]


class BudgetSpent(Exception):
    """A limit of the run is reached; what was found so far stands."""


@dataclass(frozen=True)
class Done:
    """A finished experiment: its id, its result, its measurements by name, and the ids of its evidence rows."""

    id: str
    payload: dict[str, Any]
    measurements: dict[str, Measurement]
    evidence: tuple[str, ...]


@dataclass
class Session:
    """A run with everything it needs. `say` gets a short label and a line for each step as it happens."""

    run: str
    config: RunConfig
    notebook: Notebook
    context: ToolContext
    proposers: list[Proposer]
    say: Say
    began: float = field(default_factory=time.monotonic)
    gateway: "Gateway | None" = None  # to the language model, once it is asked
    forwards_before: float = field(init=False)
    unasked: str = ""  # why a language model was not asked, where its budget was too small

    def __post_init__(self) -> None:
        self.forwards_before = self.context.forwards

    @property
    def forwards(self) -> float:
        """Forward passes over one prompt since the session began."""
        return self.context.forwards - self.forwards_before

    def experiment(
        self, tool: str, args: dict[str, Any], *, prediction: str | None = None, subject: str = "", own: bool = False
    ) -> Done:
        """Do an experiment, or take its result from the notebook when the same one was done before; own: by this run."""
        chosen = find_tool(tool)
        parsed = chosen.parse(args)
        whole = parsed.model_dump(mode="json")
        used = weights_used(whole, self.context.target) | hashes_used(whole, self.context.registered)
        spec = ExperimentSpec(tool, tools_sha256(), whole, int(args.get("seed", 0)), used)
        again = self.config.again or own
        known = self.notebook.finished(self.run, spec, fresh=again)
        if known is None:
            self.check_budget()
            known = self.notebook.begin_experiment(self.run, spec, prediction=prediction, fresh=again)
        if known.finished is not None:
            return done_of(known.id, known.finished, known.evidence)
        began, before = time.monotonic(), self.context.forwards
        try:
            result = self.context.compute(run_tool, tool, parsed)
            stored = stored_in(self.notebook, result)
        except (ToolRefused, ToolFailed) as error:
            spent = (time.monotonic() - began, self.context.forwards - before)
            refused = isinstance(error, ToolRefused)
            self.notebook.end_experiment(known.id, None, error=str(error), refused=refused, spent=spent)
            raise
        spent = (time.monotonic() - began, self.context.forwards - before)
        rows = [(subject, m) for m in result.measurements]
        evidence = self.notebook.end_experiment(known.id, stored, spent=spent, evidence=rows)
        return done_of(known.id, stored, evidence)

    def earlier_findings(self, unit: Unit) -> list[Finding]:
        """What earlier runs found out about the unit; those with an UNRESOLVED claim found nothing."""
        found = earlier_findings(self.notebook, self.run, unit, tools_sha256())
        return [finding for finding in found if finding.status != "UNRESOLVED"]

    def check_budget(self) -> None:
        """Raises BudgetSpent where a limit in seconds or forward passes is reached."""
        budget = self.config.budget
        if budget.seconds is not None and time.monotonic() - self.began > budget.seconds:
            raise BudgetSpent(f"the budget of {budget.seconds:g} seconds is spent")
        if budget.forwards is not None and self.forwards > budget.forwards:
            raise BudgetSpent(f"the budget of {budget.forwards:g} forward passes is spent")


def as_stored(result: ToolResult) -> dict[str, Any]:
    """A result as the notebook keeps it and gives it back, without figures; ToolFailed for a number that is not finite."""
    value = {"payload": result.payload, "measurements": [_as_json(m) for m in result.measurements]}
    try:
        stored: dict[str, Any] = json.loads(canonical(value))
    except ValueError as error:
        raise ToolFailed(f"the result holds a number that is not finite ({error})") from None
    return stored


def stored_in(notebook: Notebook, result: ToolResult) -> dict[str, Any]:
    """The result as it is kept; its figures become artifacts, named under `figures` where there are any."""
    stored = as_stored(result)
    kept = []
    for figure in result.figures:
        row = {"name": figure.name, "svg": notebook.artifact(figure.svg.encode(), SVG)}
        if figure.plotly is not None:
            row["plotly"] = notebook.artifact(canonical(figure.plotly).encode(), PLOTLY)
        kept.append(row)
    return stored | ({"figures": kept} if kept else {})


def _as_json(m: Measurement) -> dict[str, Any]:
    ci = None if m.ci is None else list(m.ci)
    return {"metric": m.metric, "value": m.value, "unit": m.unit, "n": m.n, "ci": ci, "null_value": m.null_value,
            "null_percentile": m.null_percentile}  # fmt: skip


def done_of(identifier: str, stored: dict[str, Any], evidence: tuple[str, ...]) -> Done:
    """A finished experiment, from its result as the notebook keeps it."""
    measured = {row["metric"]: Measurement.stored(row) for row in stored["measurements"]}
    return Done(identifier, stored["payload"], measured, evidence)


@cache
def tools_sha256() -> str:
    """Hash of the source of all tools: an experiment is the same only while the code that does it is."""
    digest = hashlib.sha256()
    folder = Path(tool_registry.__file__).parent
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()

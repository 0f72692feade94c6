"""The command group `label`."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from neuronaut.agent.options import (
    BackendChoice,
    BackendName,
    BaseUrl,
    BudgetCalls,
    BudgetTokens,
    BudgetUsd,
    CorpusFile,
    Device,
    DeviceChoice,
    Dictionaries,
    Dtype,
    DtypeChoice,
    EngineChoice,
    EngineName,
    Jobs,
    Json,
    Llm,
    Model,
    NotebookFile,
    RayAddress,
    Seed,
    Threads,
    engine_options,
    limits,
    run_config,
)
from neuronaut.tools.errors import UserError


class UnitKind(StrEnum):
    """What kind of unit a batch labels."""

    neuron = "neuron"
    head = "head"
    feature = "feature"


class Side(StrEnum):
    """Which signs of neurons and features are labelled."""

    up = "+"
    down = "-"
    both = "both"


class _NewByDefault(TyperGroup):
    """`label UNITS…` is `label new UNITS…`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named or not args else ["new", *args])


label_app = typer.Typer(
    cls=_NewByDefault,
    help="Label many units: each gets its own run with hypotheses, registered tests and a verdict, null units among them.",
    no_args_is_help=True,
    subcommand_metavar="[UNITS… | status | pause | resume | stop | retry] …",
    epilog="Example: neuronaut label --layers 0-3 --fast --limit 100",
)
Steps = Annotated[bool, typer.Option("--steps", help="Print every step of every unit, as `ask` does.")]
BatchRun = Annotated[str, typer.Argument(metavar="RUN", help="The id that `label` printed.")]
UnitCalls = Annotated[int | None, typer.Option("--unit-calls", min=1, max=10**6, help="Of --llm: calls for each unit.")]


@label_app.command("new")
def label_new(
    units: Annotated[
        list[str] | None, typer.Argument(help="Units and ranges, such as 8.481 or 8.0-8.99; none for whole layers.")
    ] = None,
    layers: Annotated[str, typer.Option(help="0-3,7 or all.")] = "all",
    kind: Annotated[UnitKind, typer.Option(help="What is labelled.")] = UnitKind.neuron,
    where: Annotated[
        str | None, typer.Option(help='A condition on the index, such as "density < 0.01 and max > 1".')
    ] = None,
    file: Annotated[Path | None, typer.Option(help="More units, one a line; '-' is standard input.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=10**7, help="So many, equally many of each layer.")] = None,
    signs: Annotated[Side, typer.Option(help="Of neurons and features: upward, downward or both.")] = Side.up,
    fast: Annotated[
        bool, typer.Option("--fast", help="One hypothesis of a short search and its test, reads only.")
    ] = False,
    nulls: Annotated[float, typer.Option(min=0, max=1, help="Null units mixed in, as a share of the units.")] = 0.05,
    model: Model = "pocket",
    backend: BackendChoice = BackendName.torch,
    dtype: Dtype = DtypeChoice.float32,
    device: Device = DeviceChoice.cpu,
    corpus: CorpusFile = None,
    dictionary: Dictionaries = None,
    notebook: NotebookFile = None,
    llm: Llm = None,
    base_url: BaseUrl = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    unit_seconds: Annotated[float | None, typer.Option(min=1, max=1e7, help="Time for each unit.")] = None,
    unit_forwards: Annotated[float | None, typer.Option(min=1, max=1e9, help="Forward passes for each unit.")] = None,
    seed: Seed = 0,
    engine: EngineChoice = EngineName.local,
    jobs: Jobs = 1,
    threads: Threads = 1,
    ray_address: RayAddress = None,
    steps: Steps = False,
    as_json: Json = False,
) -> None:
    """Begin a batch and work on it. It can be stopped anywhere and gone on with; a second process may help.

    The budgets in calls, tokens and dollars are those of the whole batch, the others of each unit.

    Example: neuronaut label --layers 0-11 --fast --limit 600
    """
    from neuronaut.agent.config import Budget
    from neuronaut.agent.label.batch import Options, label
    from neuronaut.agent.label.selection import Labelling

    named, place = (*(units or ()), *_lines_of(file)), engine_options(engine, jobs, threads, ray_address)
    labelling = Labelling(
        kind=kind.value, layers=layers, units=named, signs=signs.value, where=where, limit=limit, nulls=nulls,
        unit_budget=Budget(seconds=unit_seconds, forwards=unit_forwards),
    )  # fmt: skip
    budget = limits(None, None, budget_calls, budget_tokens, budget_usd)
    config = run_config("", model, corpus, llm, base_url, seed, budget, dictionary, backend, dtype, device)
    raise typer.Exit(label(labelling.configured(config, fast=fast), notebook, Options(as_json, steps, place)))


def _lines_of(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the units in {str(file)!r} cannot be read ({error}): give a text file with one a line"
        ) from None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise UserError(f"{str(file)!r} names no units: give a text file with one a line")
    return lines


@label_app.command("resume")
def label_resume(
    run: BatchRun,
    notebook: NotebookFile = None,
    engine: EngineChoice = EngineName.local,
    jobs: Jobs = 1,
    threads: Threads = 1,
    ray_address: RayAddress = None,
    steps: Steps = False,
    as_json: Json = False,
) -> None:
    """Go on with a batch, or help another process with it: items are shared by leases."""
    from neuronaut.agent.label.batch import Options, resume

    options = Options(as_json, steps, engine_options(engine, jobs, threads, ray_address))
    raise typer.Exit(resume(run, notebook, options))


@label_app.command("retry")
def label_retry(
    run: BatchRun,
    notebook: NotebookFile = None,
    engine: EngineChoice = EngineName.local,
    jobs: Jobs = 1,
    threads: Threads = 1,
    ray_address: RayAddress = None,
    steps: Steps = False,
    as_json: Json = False,
) -> None:
    """Try failed items again, and go on with the rest."""
    from neuronaut.agent.label.batch import Options, resume

    options = Options(as_json, steps, engine_options(engine, jobs, threads, ray_address))
    raise typer.Exit(resume(run, notebook, options, retry=True))


@label_app.command("status")
def label_status(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The newest batch if none is named.")] = None,
    notebook: NotebookFile = None,
    as_json: Json = False,
) -> None:
    """What came of a batch so far."""
    from neuronaut.agent.label.batch import status
    from neuronaut.agent.label.summary import as_json as stored
    from neuronaut.agent.label.summary import lines_of

    found = status(run, notebook)
    print(json.dumps(stored(found), ensure_ascii=True) if as_json else "\n".join(lines_of(found)))


@label_app.command("pause")
def label_pause(run: BatchRun, notebook: NotebookFile = None) -> None:
    """All processes that work on the batch end after the unit in hand."""
    from neuronaut.agent.label.batch import tell

    print(tell(run, notebook, "pause"))


@label_app.command("stop")
def label_stop(run: BatchRun, notebook: NotebookFile = None) -> None:
    """As pause; the batch counts as stopped."""
    from neuronaut.agent.label.batch import tell

    print(tell(run, notebook, "stop"))

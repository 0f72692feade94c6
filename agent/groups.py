"""The command groups `index` and `eval`."""

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
    Model,
    RayAddress,
    Threads,
    engine_options,
)

Stream = Annotated[
    bool,
    typer.Option("--stream", help="Read the layers of the model one at a time, where it does not fit into memory."),
]
index_app = typer.Typer(help="What is read once for a model and a corpus, and kept.", no_args_is_help=True)


@index_app.command("build")
def index_build(
    model: Model = "pocket",
    backend: BackendChoice = BackendName.torch,
    dtype: Dtype = DtypeChoice.float32,
    device: Device = DeviceChoice.cpu,
    stream: Stream = False,
    corpus: CorpusFile = None,
    kinds: Annotated[str, typer.Option(help="neurons, heads, features, or several: neurons,heads.")] = "neurons",
    layers: Annotated[str, typer.Option(help="0-5,7 or all.")] = "all",
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Make every Nth shard from the Ith on, here or on another machine."),
    ] = None,
    dictionary: Dictionaries = None,
    engine: EngineChoice = EngineName.local,
    jobs: Jobs = 1,
    threads: Threads = 1,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Read the explore text once, for all units of some kinds; `ask` is faster afterwards, with the same answers.

    An interrupted build goes on where it stopped.

    Example: neuronaut index build --kinds neurons,heads --layers 0-5
    """
    from neuronaut.agent.indexing import Inputs, build

    place = engine_options(engine, jobs, threads, ray_address)
    given = Inputs(model, corpus, dictionary or (), backend.value, dtype.value, device.value, stream)
    build(given, kinds, layers, shard, engine=place, as_json=as_json)


@index_app.command("status")
def index_status(
    model: Model = "pocket",
    backend: BackendChoice = BackendName.torch,
    dtype: Dtype = DtypeChoice.float32,
    device: Device = DeviceChoice.cpu,
    stream: Stream = False,
    corpus: CorpusFile = None,
    dictionary: Dictionaries = None,
    as_json: Json = False,
) -> None:
    """What is kept for a model and a corpus, and where."""
    from neuronaut.agent.indexing import Inputs, status

    given = Inputs(model, corpus, dictionary or (), backend.value, dtype.value, device.value, stream)
    status(given, as_json=as_json)


@index_app.command("merge")
def index_merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER…", help="Of an index, or of several.")],
    as_json: Json = False,
) -> None:
    """Bring shards that were made elsewhere into the own folder of indexes; damaged ones stay behind.

    Example: neuronaut index merge /mnt/machine2/index /mnt/machine3/index
    """
    from neuronaut.agent.index_upkeep import merge

    merge(folders, as_json=as_json)


@index_app.command("gc")
def index_gc(
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A model whose older states go too; can be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
    as_json: Json = False,
) -> None:
    """Show what no model, corpus or version uses any more, or is damaged; with --yes remove it. Files of others stay."""
    from neuronaut.agent.index_upkeep import tidy

    tidy(models or ["pocket"], yes=yes, as_json=as_json)


class _RunByDefault(TyperGroup):
    """`eval SUITE…` is `eval run SUITE…`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named or not args else ["run", *args])


eval_app = typer.Typer(
    cls=_RunByDefault,
    help="Is the assistant right? Cases whose truth is known. `eval SUITE…` is short for `eval run SUITE…`.",
    no_args_is_help=True,
    subcommand_metavar="SUITE… | compare A B",
)
Results = Annotated[Path, typer.Option("--results", help="Folder of rows, tables and trails.")]


@eval_app.command("run")
def eval_run(
    suites: Annotated[list[str], typer.Argument(metavar="SUITE…", help="Names of suites, or all.")],
    proposer: Annotated[
        str, typer.Option(help="Whose hypotheses are tested; PROVIDER:MODEL asks a language model beside the search.")
    ] = "grammar",
    loop: Annotated[str, typer.Option(help="full, one-shot, no-rivals or random.")] = "full",
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, max=10**6, help="Cases of each suite, instead of --size.")] = None,
    size: Annotated[str, typer.Option(help="smoke, standard or full.")] = "standard",
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Of all suites, instead of their own.")] = None,
    seed_file: Annotated[
        Path | None, typer.Option(help='JSON of suites and seeds, {"planted": 7}, instead of the development seeds.')
    ] = None,
    results: Results = Path("eval-results"),
    scoreboard: Annotated[Path | None, typer.Option(help="Write the Markdown scoreboard here.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew what was begun or done before.")] = False,
    base_url: BaseUrl = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    as_json: Json = False,
) -> None:
    """Run suites and print their scores; an interrupted run goes on with the same command. Exit 3 if cases failed.

    A budget is that of each case.

    Example: neuronaut eval all --size smoke --jobs 2
    """
    from neuronaut.agent.config import Budget
    from neuronaut.evals.run import Options, evaluate

    budget = Budget(calls=budget_calls, tokens=budget_tokens, usd=budget_usd)
    options = Options(
        tuple(suites), proposer, loop, jobs, limit, size, seed, seed_file, results, scoreboard, fresh, base_url, budget
    )  # fmt: skip
    raise typer.Exit(evaluate(options, as_json=as_json))


@eval_app.command("compare")
def eval_compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Evaluation id, results folder or Parquet file.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    results: Results = Path("eval-results"),
    as_json: Json = False,
) -> None:
    """Paired differences B - A over the cases that both have, with 95 % bootstrap intervals."""
    from neuronaut.evals.compare import compare

    compare(first, second, results, as_json=as_json)

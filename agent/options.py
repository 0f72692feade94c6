"""The options that commands share, and what a run is asked to do by them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuronaut.memory.place import Place, place_of

if TYPE_CHECKING:
    from neuronaut.agent.config import Budget, EngineOptions, RunConfig

LLM_HELP = "Language model that also proposes: openai:MODEL, anthropic:MODEL, compatible:MODEL, scripted:FILE or recorded:NOTEBOOK."
BASE_URL_HELP = "Address of its server; compatible:MODEL needs one, for example http://127.0.0.1:11434/v1."
Model = Annotated[str, typer.Option("--model", help="'pocket' (embedded), a Hugging Face folder, or a hub name.")]


class BackendName(StrEnum):
    """Which engine runs the model."""

    torch = "torch"
    mlx = "mlx"


BackendChoice = Annotated[
    BackendName, typer.Option("--backend", help="What runs the model: torch, or mlx (mlx-lm), see docs/mlx.md.")
]


class DtypeChoice(StrEnum):
    """In which number format the model is run."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    auto = "auto"


class DeviceChoice(StrEnum):
    """Where torch runs the model."""

    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"
    auto = "auto"


Dtype = Annotated[DtypeChoice, typer.Option("--dtype", help="Number format of the weights; auto is that of the file.")]
Device = Annotated[
    DeviceChoice, typer.Option("--device", help="Of --backend torch; auto takes a GPU where there is one.")
]
CorpusFile = Annotated[
    str | None,
    typer.Option("--corpus", help="Text: .txt, .jsonl, .parquet, a folder or a URL; #NAME behind it names the column."),
]
Dictionaries = Annotated[
    list[str] | None,
    typer.Option(
        "--dictionary",
        metavar="[NAME=]FOLDER",
        help="A SAELens folder, whose features are then named sae:NAME/12; may be given several times.",
    ),
]
Others = Annotated[
    list[str] | None,
    typer.Option("--other", metavar="NAME=FOLDER", help="A second model to compare with; may be given several times."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", metavar="NAME=FILE", help="Labelled texts (.jsonl); may be given several times."),
]
Heads = Annotated[
    list[str] | None,
    typer.Option(
        "--head",
        metavar="NAME=FOLDER",
        help="A saved read-out (head.safetensors and config.json), see docs/readouts.md; may be given several times.",
    ),
]
NotebookFile = Annotated[
    Place | None,
    typer.Option(
        "--notebook", envvar="NEURONAUT_NOTEBOOK", parser=place_of, metavar="FILE|URL",
        help="Where findings are kept: an SQLite file, or a PostgreSQL database by its URL.",
    ),
]  # fmt: skip
Llm = Annotated[str | None, typer.Option("--llm", help=LLM_HELP)]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help=BASE_URL_HELP)]
Again = Annotated[bool, typer.Option("--again", help="Measure anew what the notebook already knows.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Random seed; the same seed gives the same answer.")
]

BudgetSeconds = Annotated[
    float | None, typer.Option("--budget-seconds", min=1, max=1e9, help="Stop before the next step after so long.")
]
BudgetForwards = Annotated[
    float | None, typer.Option("--budget-forwards", min=1, max=1e12, help="Stop after so many forward passes.")
]
BudgetCalls = Annotated[int | None, typer.Option("--budget-calls", min=1, max=10**9, help="Of --llm: calls at most.")]
BudgetTokens = Annotated[
    int | None,
    typer.Option(
        "--budget-tokens", min=1, max=10**12, help="Of --llm, in and out; no call is made that could pass it."
    ),
]
BudgetUsd = Annotated[
    float | None,
    typer.Option(
        "--budget-usd", min=0, max=1e6, help="Of --llm; needs a table of prices, see docs/language-models.md."
    ),
]


class EngineName(StrEnum):
    """Where the work is done."""

    local = "local"
    ray = "ray"


EngineChoice = Annotated[
    EngineName, typer.Option("--engine", help="This process, or workers of a Ray cluster, see docs/ray.md.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=100_000, help="Of --engine ray: workers, each with the model.")]
Threads = Annotated[
    int, typer.Option("--threads", min=1, max=10_000, help="Of --engine ray: processors of each worker.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="ADDRESS", help="local (started and ended here), auto, HOST:PORT or ray://HOST:PORT."
    ),
]


class Approve(StrEnum):
    """Whether dear experiments need leave."""

    ask = "ask"
    always = "always"
    never = "never"


def limits(
    seconds: float | None, forwards: float | None, calls: int | None, tokens: int | None, usd: float | None
) -> "Budget":
    """The budget that the options give."""
    from neuronaut.agent.config import Budget

    return Budget(seconds=seconds, forwards=forwards, calls=calls, tokens=tokens, usd=usd)


def engine_options(engine: EngineName, jobs: int, threads: int, address: str | None) -> "EngineOptions":
    """Where the work is done. Refuses several workers, or an address, of an engine that has none."""
    from neuronaut.agent.config import EngineOptions
    from neuronaut.tools.errors import UserError

    if engine == EngineName.local and (jobs > 1 or threads > 1 or address is not None):
        given = "--jobs" if jobs > 1 else "--threads" if threads > 1 else "--ray-address"
        raise UserError(f"{given} is for workers of a cluster: give --engine ray too, or leave it out")
    return EngineOptions(engine.value, jobs, threads, address or "local")


def run_config(
    question: str,
    model: str,
    corpus: str | None,
    llm: str | None,
    base_url: str | None,
    seed: int,
    budget: "Budget",
    dictionaries: list[str] | None = None,
    backend: BackendName = BackendName.torch,
    dtype: DtypeChoice = DtypeChoice.float32,
    device: DeviceChoice = DeviceChoice.cpu,
) -> "RunConfig":
    """What a run is asked to do, its files named by whole paths."""
    from neuronaut.agent.config import RunConfig, placed_llm
    from neuronaut.agent.dictionaries import dictionaries_named

    return RunConfig(
        question=question,
        model=absolute(model),
        backend=backend.value,
        dtype=dtype.value,
        device=device.value,
        corpus=absolute_corpus(corpus) if corpus else None,
        llm=placed_llm(llm),
        base_url=base_url,
        seed=seed,
        budget=budget,
        dictionaries=dictionaries_named(dictionaries or []),
    )


def absolute_corpus(name: str) -> str:
    """As `absolute`, for a file or folder with or without `#column` behind it; URLs stay as they are."""
    from neuronaut.tools.corpora.sources import column_of

    place, column = column_of(name)
    return name if "://" in place else absolute(place) + ("" if column is None else f"#{column}")


def absolute(name: str) -> str:
    """A path given on the command line means the same from any folder later; names of models stay as they are."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name != "pocket" and (path.exists() or name.startswith((".", "~"))) else name

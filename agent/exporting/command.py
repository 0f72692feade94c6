"""The commands `export` and `import`: their options. Everything heavy is imported when it is needed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from neuronaut.agent.options import (
    Again,
    BackendChoice,
    BackendName,
    BaseUrl,
    BudgetCalls,
    BudgetForwards,
    BudgetSeconds,
    BudgetTokens,
    BudgetUsd,
    CorpusFile,
    Device,
    DeviceChoice,
    Dictionaries,
    Dtype,
    DtypeChoice,
    Json,
    Llm,
    Model,
    NotebookFile,
    Seed,
    limits,
    run_config,
)


class What(StrEnum):
    """What is exported; check only reads a folder."""

    labels = "labels"
    claims = "claims"
    neuronpedia = "neuronpedia"
    delphi = "delphi"
    report = "report"
    check = "check"


class ReportFormat(StrEnum):
    """What a report is written as."""

    md = "md"
    ipynb = "ipynb"


class NullUnits(StrEnum):
    """Whether rows of planted null units are written."""

    without = "without"
    only = "only"
    both = "with"


def export(
    what: Annotated[
        What,
        typer.Argument(
            metavar="KIND", help="labels, claims, neuronpedia, delphi, report; check reads a neuronpedia folder."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The file (.parquet, .jsonl, .jsonl.gz, .csv; of a report .md, .ipynb), or the folder of neuronpedia, delphi.",
        ),
    ],
    of: Annotated[str | None, typer.Argument(metavar="[RUN]", help="As --run.")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="One run or batch; without, all runs that have ended.")
    ] = None,
    notebook: NotebookFile = None,
    nulls: Annotated[
        NullUnits, typer.Option(help="Planted null units of batches: without them, only them, or with them, marked.")
    ] = NullUnits.without,
    model: Model = "pocket",
    dictionary: Dictionaries = None,
    model_id: Annotated[str | None, typer.Option(help="Neuronpedia's id of the model.")] = None,
    source_set: Annotated[
        str | None, typer.Option(help="Neuronpedia's source set; without, neurons go by their layer.")
    ] = None,
    creator: Annotated[str | None, typer.Option(help="Neuronpedia's id of the user who will own the rows.")] = None,
    method: Annotated[str | None, typer.Option(help="Name of the explanation type, as registered there.")] = None,
    explainer: Annotated[str | None, typer.Option(help="Name of the explainer model, as registered there.")] = None,
    form: Annotated[
        ReportFormat | None, typer.Option("--format", help="Of a report; without, the ending of --out decides.")
    ] = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="Also the upload of each unit's write vector.")] = False,
    validate: Annotated[
        bool, typer.Option("--validate", help="Check the folder afterwards; exit 1 if anything is wrong.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write findings to files that other programs read; nothing is sent anywhere.

    Example: neuronaut export labels --out labels.parquet
    """
    from neuronaut.agent.exporting.run import There, export_to, one_run

    run = one_run(run, of)
    if what == What.report:
        from neuronaut.agent.exporting.report import report_to

        raise typer.Exit(report_to(run, out, form and form.value, notebook, as_json=as_json))
    there = There(model, model_id, source_set, creator, method, explainer, vectors, validate, tuple(dictionary or ()))
    raise typer.Exit(export_to(what.value, out, notebook, run=run, nulls=nulls.value, there=there, as_json=as_json))


def import_(
    file: Annotated[
        Path, typer.Argument(help="Explanations: .csv, .jsonl or .jsonl.gz; docs/exports.md has the columns.")
    ],
    source: Annotated[
        str | None, typer.Option(help="Whose explanations these are; without, the name of the file.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Dictionary of rows whose layer is a source such as 6-res-jb.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write the table here: .parquet, .jsonl or .csv.")
    ] = None,
    model: Model = "pocket",
    backend: BackendChoice = BackendName.torch,
    dtype: Dtype = DtypeChoice.float32,
    device: Device = DeviceChoice.cpu,
    corpus: CorpusFile = None,
    dictionary: Dictionaries = None,
    notebook: NotebookFile = None,
    llm: Llm = None,
    base_url: BaseUrl = None,
    budget_seconds: BudgetSeconds = None,
    budget_forwards: BudgetForwards = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    again: Again = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Test explanations that others made; the same file twice tests nothing twice. Exit 3 if rows could not be read.

    Example: neuronaut import explanations.csv --source "the other lab"
    """
    from neuronaut.agent.exporting.importing import import_file

    budget = limits(budget_seconds, budget_forwards, budget_calls, budget_tokens, budget_usd)
    config = run_config(
        "neuronaut import", model, corpus, llm, base_url, seed, budget, dictionary, backend, dtype, device
    )
    config = config.model_copy(update={"again": again, "fast": True})
    name = source or file.name.partition(".")[0]
    raise typer.Exit(import_file(config, file, name, notebook, features=features, out=out, as_json=as_json))

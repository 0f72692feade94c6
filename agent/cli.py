"""The command line: reads arguments, opens things, prints answers. Everything heavy is imported when it is needed."""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from neuronaut import __version__
from neuronaut.agent.convert_command import convert
from neuronaut.agent.exporting.command import export, import_
from neuronaut.agent.groups import eval_app, index_app
from neuronaut.agent.label.command import label_app
from neuronaut.agent.models_command import models_app
from neuronaut.agent.options import (
    Again,
    Approve,
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
    Heads,
    Json,
    Labels,
    Llm,
    Model,
    NotebookFile,
    Others,
    Seed,
    limits,
    run_config,
)
from neuronaut.agent.review_command import review
from neuronaut.agent.scores.command import score
from neuronaut.agent.server_command import mcp
from neuronaut.agent.tool_command import tool
from neuronaut.agent.train_command import train_sae
from neuronaut.agent.watch_command import watch
from neuronaut.tools.errors import ToolFailed, UserError

app = typer.Typer(
    name="neuronaut",
    help="Ask what a part of a language model does; get claims that survived a test, each with its evidence.",
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog='Start with: neuronaut ask "what does neuron 8.481 do"',
)
_USAGE: Any = typer.BadParameter.__base__  # the usage errors of click, of which typer may carry its own copy


def _version(wanted: bool) -> None:
    if wanted:
        print(f"neuronaut {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="For example: what does neuron 8.481 do")],
    model: Model = "pocket",
    backend: BackendChoice = BackendName.torch,
    dtype: Dtype = DtypeChoice.float32,
    device: Device = DeviceChoice.cpu,
    corpus: CorpusFile = None,
    dictionary: Dictionaries = None,
    other: Others = None,
    labels: Labels = None,
    head: Heads = None,
    notebook: NotebookFile = None,
    llm: Llm = None,
    base_url: BaseUrl = None,
    budget_seconds: BudgetSeconds = None,
    budget_forwards: BudgetForwards = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    fast: Annotated[bool, typer.Option("--fast", help="The reads side only.")] = False,
    again: Again = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Ask what a neuron does; hypotheses are registered, tested on unseen text and judged by code.

    Example: neuronaut ask "what does neuron 8.481 do"
    """
    from neuronaut.agent.registered import registered_config
    from neuronaut.agent.runs import ask as run_question

    budget = limits(budget_seconds, budget_forwards, budget_calls, budget_tokens, budget_usd)
    config = run_config(question, model, corpus, llm, base_url, seed, budget, dictionary, backend, dtype, device)
    config = config.model_copy(update={"fast": fast, "again": again, **registered_config(other, labels, head)})
    raise typer.Exit(run_question(config, notebook, as_json=as_json))


@app.command()
def chat(
    model: Model = "pocket",
    backend: BackendChoice = BackendName.torch,
    dtype: Dtype = DtypeChoice.float32,
    device: Device = DeviceChoice.cpu,
    corpus: CorpusFile = None,
    dictionary: Dictionaries = None,
    other: Others = None,
    labels: Labels = None,
    head: Heads = None,
    notebook: NotebookFile = None,
    llm: Llm = None,
    base_url: BaseUrl = None,
    budget_seconds: BudgetSeconds = None,
    budget_forwards: BudgetForwards = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    approve: Annotated[
        Approve, typer.Option(help="Dear experiments that the language model calls for: ask, always or never.")
    ] = Approve.ask,
    go_on: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with an earlier conversation.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Talk about a model: each tool call is shown, dear experiments are run when you allow them. Stop, and go on later.

    Example: neuronaut chat --llm anthropic:MODEL
    """
    from neuronaut.agent.chat.app import chat as talk
    from neuronaut.agent.chat.app import go_on as talk_on
    from neuronaut.agent.chat.app import screen_of
    from neuronaut.agent.config import CONVERSATION
    from neuronaut.agent.registered import registered_config

    if go_on is not None:
        raise typer.Exit(talk_on(go_on, notebook, screen_of(as_json=as_json), approve=approve.value))
    budget = limits(budget_seconds, budget_forwards, budget_calls, budget_tokens, budget_usd)
    config = run_config(CONVERSATION, model, corpus, llm, base_url, seed, budget, dictionary, backend, dtype, device)
    config = config.model_copy(update=registered_config(other, labels, head))
    raise typer.Exit(talk(config, notebook, screen_of(as_json=as_json), approve=approve.value))


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="The id that `ask` printed.")],
    notebook: NotebookFile = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed; finished experiments are not repeated."""
    from neuronaut.agent.runs import resume as resume_run

    raise typer.Exit(resume_run(run, notebook, as_json=as_json))


@app.command()
def show(
    identifier: Annotated[
        str,
        typer.Argument(metavar="ID", help="Any id, or the beginning of one; or a unit, such as 8.481 or pocket/8.481."),
    ],
    notebook: NotebookFile = None,
    figures: Annotated[
        Path | None, typer.Option(help="Keep the figures of the run in this folder, as SVG and Plotly JSON.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Its columns as they are stored.")] = False,
    as_json: Json = False,
) -> None:
    """Print any record of the notebook; for a run its whole trail, for a unit all claims about it."""
    from neuronaut.agent.showing import show as show_record

    show_record(identifier, notebook, as_json=as_json, figures=figures, raw=raw)


@app.command()
def search(
    words: Annotated[
        list[str] | None, typer.Argument(help="Words and facets: month status:supported side:reads unit:8.481")
    ] = None,
    notebook: NotebookFile = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most.")] = 50,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="Go on after this one.")] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First make the search index anew from the records.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find claims in the notebook, the newest first; without words, list its runs.

    Facets: status: side: kind: layer: unit: run: author: model:. "Words in quotes" stand beside each other, -word is left
    out, and the last word may be cut short.

    Example: neuronaut search month status:supported layer:8
    """
    from neuronaut.agent.showing import search as search_claims

    search_claims(" ".join(words or []), notebook, as_json=as_json, limit=limit, after=after, rebuild=rebuild)


@app.command()
def verify(
    notebook: NotebookFile = None,
    head: Annotated[str | None, typer.Option(help="The ledger head seq:sha256 that a run printed.")] = None,
    as_json: Json = False,
) -> None:
    """Check that nothing in the notebook was altered, and that each verdict follows from its rows. Exit 1 if not."""
    from neuronaut.agent.reading import verify as verify_notebook

    raise typer.Exit(verify_notebook(notebook, head, as_json=as_json))


@app.command()
def rerun(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="An experiment or a run.")],
    notebook: NotebookFile = None,
    as_json: Json = False,
) -> None:
    """Measure again and compare: identical, within tolerance, or different, and which input differs."""
    from neuronaut.agent.rerun import rerun as rerun_record

    raise typer.Exit(rerun_record(identifier, notebook, as_json=as_json))


app.command(add_help_option=False)(tool)
app.command()(score)
app.command()(review)
app.command()(export)
app.command("import")(import_)
app.command("train-sae")(train_sae)
app.command()(mcp)
app.command()(convert)
app.command()(watch)

app.add_typer(label_app, name="label")
app.add_typer(index_app, name="index")
app.add_typer(eval_app, name="eval")
app.add_typer(models_app, name="models")


@app.command()
def doctor(
    notebook: NotebookFile = None,
    llm: Annotated[str | None, typer.Option("--llm", help="Try this language model with three small requests.")] = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Check this installation: versions, the embedded model, the notebook, keys (never shown); with --llm, that model."""
    from neuronaut.agent.doctor import examine

    raise typer.Exit(examine(notebook, as_json=as_json, llm=llm, base_url=base_url))


# Threads of a small model wait for each other often: as long as libgomp lets them by default, a machine with other work answers
# two to four times as late (docs/speed.md).
SPINS = "20000"


def main() -> None:
    """Run the command line. Bad input is one sentence on stderr and exit code 2."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is loaded
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="neuronaut", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except _USAGE as error:
        said = error.format_message().rstrip(".") or "no command is named"  # the help has been printed then
        _complain(f"{said}; see `{error.ctx.command_path if error.ctx else 'neuronaut'} --help`")
    except UserError as error:
        _complain(str(error))
    except PermissionError as error:
        _complain(f"{error.filename!r} may not be used ({error.strerror}): change its permissions or name another")
    except ToolFailed as error:
        _complain(f"an experiment failed and was recorded as failed: {error}")
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still to be written there would fail again
        _complain("the disk or device that output goes to is full: free some space, or print elsewhere")
    sys.exit(2)


def _complain(sentence: str) -> None:
    from neuronaut.agent.view import visible

    print(f"neuronaut: {visible(sentence)}", file=sys.stderr)

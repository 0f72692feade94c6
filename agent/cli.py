"""The command line: reads arguments, opens things, prints answers. Everything heavy is imported when it is needed."""

import errno
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from neuronaut import __version__
from neuronaut.agent.scores.command import score
from neuronaut.tools.errors import ToolFailed, UserError

if TYPE_CHECKING:
    from neuronaut.agent.config import Budget, RunConfig

app = typer.Typer(
    name="neuronaut",
    help="Ask what a part of a language model does; get claims that survived a test, each with its evidence.",
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog='Start with: neuronaut ask "what does neuron 8.481 do"',
)
_USAGE: Any = typer.BadParameter.__base__  # the usage errors of click, of which typer may carry its own copy

LLM_HELP = "Language model that also proposes: openai:MODEL, anthropic:MODEL, compatible:MODEL, scripted:FILE or recorded:NOTEBOOK."
BASE_URL_HELP = "Address of its server; compatible:MODEL needs one, for example http://127.0.0.1:11434/v1."
Model = Annotated[str, typer.Option("--model", help="'pocket' (embedded), a Hugging Face folder, or a hub name.")]
CorpusFile = Annotated[
    str | None, typer.Option("--corpus", help="Text to study on: .txt, .jsonl, .jsonl.gz or a folder.")
]
NotebookFile = Annotated[
    Path | None, typer.Option("--notebook", envvar="NEURONAUT_NOTEBOOK", help="The SQLite file of findings.")
]
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


class Approve(StrEnum):
    """Whether dear experiments need leave."""

    ask = "ask"
    always = "always"
    never = "never"


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
    corpus: CorpusFile = None,
    notebook: NotebookFile = None,
    llm: Annotated[str | None, typer.Option("--llm", help=LLM_HELP)] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help=BASE_URL_HELP)] = None,
    budget_seconds: BudgetSeconds = None,
    budget_forwards: BudgetForwards = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    fast: Annotated[bool, typer.Option("--fast", help="The reads side only.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what the notebook already knows.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Ask what a neuron does; hypotheses are registered, tested on unseen text and judged by code.

    Example: neuronaut ask "what does neuron 8.481 do"
    """
    from neuronaut.agent.config import Budget
    from neuronaut.agent.runs import ask as run_question

    budget = Budget(
        seconds=budget_seconds, forwards=budget_forwards, calls=budget_calls, tokens=budget_tokens, usd=budget_usd
    )
    config = _config(question, model, corpus, llm, base_url, seed, budget)
    config = config.model_copy(update={"fast": fast, "again": again})
    raise typer.Exit(run_question(config, notebook, as_json=as_json))


def _config(
    question: str, model: str, corpus: str | None, llm: str | None, base_url: str | None, seed: int, budget: "Budget"
) -> "RunConfig":
    """What a run is asked to do, its files named by whole paths."""
    from neuronaut.agent.config import RunConfig, placed_llm

    return RunConfig(
        question=question,
        model=_absolute(model),
        corpus=_absolute(corpus) if corpus else None,
        llm=placed_llm(llm),
        base_url=base_url,
        seed=seed,
        budget=budget,
    )


def _absolute(name: str) -> str:
    """A path given on the command line means the same from any folder later; names of models stay as they are."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name != "pocket" and (path.exists() or name.startswith((".", "~"))) else name


@app.command()
def chat(
    model: Model = "pocket",
    corpus: CorpusFile = None,
    notebook: NotebookFile = None,
    llm: Annotated[str | None, typer.Option("--llm", help=LLM_HELP)] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help=BASE_URL_HELP)] = None,
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
    from neuronaut.agent.config import CONVERSATION, Budget

    if go_on is not None:
        raise typer.Exit(talk_on(go_on, notebook, screen_of(as_json=as_json), approve=approve.value))
    budget = Budget(
        seconds=budget_seconds, forwards=budget_forwards, calls=budget_calls, tokens=budget_tokens, usd=budget_usd
    )
    config = _config(CONVERSATION, model, corpus, llm, base_url, seed, budget)
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
        str, typer.Argument(metavar="ID", help="A run, hypothesis, experiment, evidence or verdict.")
    ],
    notebook: NotebookFile = None,
    figures: Annotated[
        Path | None, typer.Option(help="Keep the figures of the run in this folder, as SVG and Plotly JSON.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print any record of the notebook; for a run, its whole trail."""
    from neuronaut.agent.reading import show as show_record

    show_record(identifier, notebook, as_json=as_json, figures=figures)


@app.command()
def search(
    words: Annotated[
        list[str] | None, typer.Argument(help="Words and facets: month status:supported side:reads unit:8.481")
    ] = None,
    notebook: NotebookFile = None,
    as_json: Json = False,
) -> None:
    """Find claims in the notebook; without words, list its runs."""
    from neuronaut.agent.reading import search as search_claims

    search_claims(" ".join(words or []), notebook, as_json=as_json)


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


@app.command(add_help_option=False)
def tool(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A tool; without one, all are listed.")] = None,
    args: Annotated[str, typer.Argument(help='Arguments as JSON, for example \'{"unit": "8.481"}\'.')] = "{}",
    model: Model = "pocket",
    corpus: CorpusFile = None,
    as_json: Json = False,
    arrays: Annotated[Path | None, typer.Option(help="Keep the arrays that the tool made in this .npz file.")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Keep the figures that the tool drew in this folder, as SVG and Plotly JSON.")
    ] = None,
    explain: Annotated[bool, typer.Option("--help", help="Explain the tool and its arguments, and exit.")] = False,
) -> None:
    """Run one tool on the target model, outside any run; nothing is recorded.

    Example: neuronaut tool top_examples '{"unit": "8.481", "k": 5}'
    """
    if explain and name is None:
        print(context.get_help())
        return
    from neuronaut.agent.reading import run_tool

    run_tool(name, args, model, corpus, as_json=as_json, explain=explain, arrays=arrays, figures=figures)


app.command()(score)

index_app = typer.Typer(help="What is read once for a model and a corpus, and kept.", no_args_is_help=True)
app.add_typer(index_app, name="index")


@index_app.command("build")
def index_build(model: Model = "pocket", corpus: CorpusFile = None, as_json: Json = False) -> None:
    """Read the explore text once, for all neurons; `ask` is faster afterwards, with the same answers.

    An interrupted build goes on where it stopped.
    """
    from neuronaut.agent.indexing import build

    build(model, corpus, as_json=as_json)


@index_app.command("status")
def index_status(model: Model = "pocket", corpus: CorpusFile = None, as_json: Json = False) -> None:
    """What is kept for a model and a corpus, and where."""
    from neuronaut.agent.indexing import status

    status(model, corpus, as_json=as_json)


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
app.add_typer(eval_app, name="eval")
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
    base_url: Annotated[str | None, typer.Option("--base-url", help=BASE_URL_HELP)] = None,
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


@app.command()
def models(as_json: Json = False) -> None:
    """What can be studied here, and how to name it."""
    from neuronaut.agent.reading import list_models

    list_models(as_json=as_json)


@app.command()
def doctor(
    notebook: NotebookFile = None,
    llm: Annotated[str | None, typer.Option("--llm", help="Try this language model with three small requests.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help=BASE_URL_HELP)] = None,
    as_json: Json = False,
) -> None:
    """Check this installation: versions, the embedded model, the notebook, keys (never shown); with --llm, that model."""
    from neuronaut.agent.doctor import examine

    raise typer.Exit(examine(notebook, as_json=as_json, llm=llm, base_url=base_url))


def main() -> None:
    """Run the command line. Bad input is one sentence on stderr and exit code 2."""
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

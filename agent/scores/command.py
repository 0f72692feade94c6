"""The command `neuronaut score`: its options. Everything heavy is imported when it is needed."""

from pathlib import Path
from typing import Annotated

import typer


def score(
    unit: Annotated[str, typer.Argument(help="A neuron, for example 8.481, or 8.481- for its low side.")],
    explanation: Annotated[
        str | None, typer.Option(help="A sentence or a predicate; without, the unit's best SUPPORTED claim.")
    ] = None,
    scores: Annotated[str | None, typer.Option(help="Names with commas; without, all that have a judge.")] = None,
    llm: Annotated[str | None, typer.Option(help="Language model that judges: as for `ask`.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of its server.")] = None,
    simulator: Annotated[
        str | None, typer.Option(help="Local model that judges: target, or a Hugging Face folder.")
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published/--corrected-only", help="Also as the reference code counts, which asks more questions."
        ),
    ] = True,
    model: Annotated[str, typer.Option(help="'pocket' (embedded), a Hugging Face folder, or a hub name.")] = "pocket",
    corpus: Annotated[str | None, typer.Option(help="Text: .txt, .jsonl, .jsonl.gz or a folder.")] = None,
    notebook: Annotated[
        Path | None, typer.Option(envvar="NEURONAUT_NOTEBOOK", help="The SQLite file of findings.")
    ] = None,
    budget_seconds: Annotated[float | None, typer.Option(min=1, max=1e9, help="Stop before the next score.")] = None,
    budget_forwards: Annotated[float | None, typer.Option(min=1, max=1e12, help="Stop before the next score.")] = None,
    budget_tokens: Annotated[
        int | None, typer.Option(min=1, max=10**12, help="Of --llm, in and out; no call is made that could pass it.")
    ] = None,
    budget_usd: Annotated[float | None, typer.Option(min=0, max=1e6, help="Of --llm; needs a table of prices.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what the notebook already knows.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Score an explanation as papers and sites do, each score with its flaw corrected; no verdict is changed.

    Example: neuronaut score 8.481 --explanation "the second name" --simulator target
    """
    from neuronaut.agent.config import Budget, RunConfig, placed_llm
    from neuronaut.agent.scores.run import Wanted
    from neuronaut.agent.scores.run import score as run_scores

    budget = Budget(seconds=budget_seconds, forwards=budget_forwards, tokens=budget_tokens, usd=budget_usd)
    config = RunConfig(
        question=f"neuronaut score {unit}" + (f" by {scores}" if scores else ""),
        model=absolute(model),
        corpus=None if corpus is None else absolute(corpus),
        llm=placed_llm(llm),
        base_url=base_url,
        seed=seed,
        again=again,
        budget=budget,
    )
    local = None if simulator is None else simulator if simulator == "target" else absolute(simulator)
    wanted = Wanted(unit, explanation, scores, local, published)
    raise typer.Exit(run_scores(config, wanted, notebook, as_json=as_json))


def absolute(name: str) -> str:
    """A path given on the command line means the same from any folder later; names of models stay as they are."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name != "pocket" and (path.exists() or name.startswith((".", "~"))) else name

"""The command `neuronaut score`: its options. Everything heavy is imported when it is needed."""

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
    absolute,
    limits,
    run_config,
)


def score(
    unit: Annotated[str, typer.Argument(help="A neuron, for example 8.481, or 8.481- for its low side.")],
    explanation: Annotated[
        str | None, typer.Option(help="A sentence or a predicate; without, the unit's best SUPPORTED claim.")
    ] = None,
    scores: Annotated[str | None, typer.Option(help="Names with commas; without, all that have a judge.")] = None,
    llm: Llm = None,
    base_url: BaseUrl = None,
    simulator: Annotated[
        str | None, typer.Option(help="Local model that judges: target, or a Hugging Face folder.")
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published/--corrected-only", help="Also as the reference code counts, which asks more questions."
        ),
    ] = True,
    model: Model = "pocket",
    backend: BackendChoice = BackendName.torch,
    dtype: Dtype = DtypeChoice.float32,
    device: Device = DeviceChoice.cpu,
    corpus: CorpusFile = None,
    dictionary: Dictionaries = None,
    notebook: NotebookFile = None,
    budget_seconds: BudgetSeconds = None,
    budget_forwards: BudgetForwards = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    again: Again = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score an explanation as papers and sites do, each score with its flaw corrected; no verdict is changed.

    Example: neuronaut score 8.481 --explanation "the second name" --simulator target
    """
    from neuronaut.agent.scores.run import Wanted
    from neuronaut.agent.scores.run import score as run_scores

    budget = limits(budget_seconds, budget_forwards, budget_calls, budget_tokens, budget_usd)
    question = f"neuronaut score {unit}" + (f" by {scores}" if scores else "")
    config = run_config(question, model, corpus, llm, base_url, seed, budget, dictionary, backend, dtype, device)
    config = config.model_copy(update={"again": again})
    local = None if simulator is None else simulator if simulator == "target" else absolute(simulator)
    wanted = Wanted(unit, explanation, scores, local, published)
    raise typer.Exit(run_scores(config, wanted, notebook, as_json=as_json))

"""`neuronaut watch`: findings about earlier weights of a model, asked again of its new ones."""

from typing import Annotated

import typer

from neuronaut.agent.options import (
    Again,
    BackendChoice,
    BackendName,
    BudgetForwards,
    BudgetSeconds,
    CorpusFile,
    Dictionaries,
    Json,
    Model,
    NotebookFile,
    Others,
    Seed,
    limits,
    run_config,
)


def watch(
    model: Model = "pocket",
    of: Annotated[
        str,
        typer.Option(
            "--of",
            metavar="NAME|HASH",
            help="The earlier weights, as the notebook knows them; else those of the same name.",
        ),
    ] = "",
    backend: BackendChoice = BackendName.torch,
    corpus: CorpusFile = None,
    dictionary: Dictionaries = None,
    other: Others = None,
    notebook: NotebookFile = None,
    budget_seconds: BudgetSeconds = None,
    budget_forwards: BudgetForwards = None,
    again: Again = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Test the findings about earlier weights of a model again for its new ones, and report what survived.

    Each is called stale, registered anew and tested on fresh text; its old verdict stays. One that fails is tested with the
    earlier weights on the same text, where they are at hand: else --other NAME=FOLDER says where they are. Stopped, it goes
    on by `resume`.

    Example: neuronaut watch --model checkpoint-2000 --of checkpoint-1000 --corpus text.jsonl
    """
    from neuronaut.agent.config import corpus_place
    from neuronaut.agent.controls import places_at_hand
    from neuronaut.agent.registered import registered_config
    from neuronaut.agent.runs import ask
    from neuronaut.memory.notebook import Notebook
    from neuronaut.memory.place import default_place
    from neuronaut.memory.stale import earlier_models
    from neuronaut.tools.targets.load import open_folder

    question = "what survived" + (f" of {of}" if of else "")
    budget = limits(budget_seconds, budget_forwards, None, None, None)
    config = run_config(question, model, corpus, None, None, seed, budget, dictionary, backend)
    corpus_place(config)
    folder = open_folder(config.model)
    now = {"name": folder.name, "weights_sha256": folder.weights_sha256, "tokenizer_sha256": folder.tokenizer_sha256}
    with Notebook(notebook or default_place(), read_only=True) as opened:
        earlier = places_at_hand(opened, [row["id"] for row in earlier_models(opened, now, of)])
    others = [*(other or ()), *(f"{name}={place}" for name, place in earlier.items())]
    named = registered_config(others, None, None)
    raise typer.Exit(ask(config.model_copy(update={"again": again, **named}), notebook, as_json=as_json))

"""The command `mcp`. Everything heavy is imported when it is needed."""

from typing import Annotated

import typer

from neuronaut.agent.options import (
    CorpusFile,
    Dictionaries,
    Heads,
    Labels,
    Model,
    NotebookFile,
    Others,
    Seed,
    limits,
    run_config,
)
from neuronaut.tools.errors import UserError


def mcp(
    model: Model = "pocket",
    corpus: CorpusFile = None,
    dictionary: Dictionaries = None,
    other: Others = None,
    labels: Labels = None,
    head: Heads = None,
    notebook: NotebookFile = None,
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Experiments too, recorded in the notebook; without it, reading only.")
    ] = False,
    http: Annotated[
        bool, typer.Option("--http", help="Over HTTP on 127.0.0.1, with a token, instead of stdin and stdout.")
    ] = False,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of --http; 0 is any free one.")] = None,
    seed: Seed = 0,
) -> None:
    """Let an assistant drive the tools: a server of the Model Context Protocol; see docs/mcp.md.

    Example: neuronaut mcp --allow-run
    """
    if port is not None and not http:
        raise UserError("--port is for a server over HTTP: give --http too, or leave it out")
    try:
        from neuronaut.agent.server import serve_http, serve_stdio
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "uvicorn"):
            raise
        raise UserError(f"{error.name} is not installed: `pip install 'neuronaut[mcp]'`") from None
    from neuronaut.agent.config import corpus_place
    from neuronaut.agent.registered import registered_config
    from neuronaut.agent.served.bench import Bench
    from neuronaut.memory.place import default_place

    config = run_config("", model, corpus, None, None, seed, limits(None, None, None, None, None), dictionary)
    corpus_place(config)
    config = config.model_copy(update=registered_config(other, labels, head))
    bench = Bench(config, notebook or default_place(), allow_run)
    if http:
        serve_http(bench, 8765 if port is None else port)
    else:
        serve_stdio(bench)

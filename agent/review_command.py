"""The command `review`: its options. Everything heavy is imported when it is needed."""

from pathlib import Path
from typing import Annotated

import typer

from neuronaut.agent.options import NotebookFile


def review(
    notebook: NotebookFile = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of this machine; 0 takes a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    allow_review: Annotated[
        bool, typer.Option("--allow-review", help="Let the pages add opinions: agree, dispute, invalidate, comment.")
    ] = False,
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Let the pages start experiments: ask about a unit, measure again.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the pages as files into this folder, and serve nothing.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", help="Of --export FILE.html: the trail of this run, or the page of this batch, as one file."
        ),
    ] = None,
) -> None:
    """Show the notebook as pages in a browser, on this machine alone; for reading only, unless you allow more.

    Example: neuronaut review --allow-review
    """
    from neuronaut.agent.reviewing import Wanted, review_notebook

    wanted = Wanted(port, not no_browser, allow_review, allow_run, export, run)
    raise typer.Exit(review_notebook(notebook, wanted))

"""`neuronaut review`: the pages served, or written as files."""

import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from neuronaut.memory.place import Place, default_place
from neuronaut.tools.errors import UserError


@dataclass(frozen=True)
class Wanted:
    """What the command was asked for. export: a folder, or a file for the trail of one run."""

    port: int
    browser: bool
    allow_review: bool
    allow_run: bool
    export: Path | None
    run: str | None


def review_notebook(place: Place | None, wanted: Wanted) -> int:
    """Serve the pages until Ctrl-C, or write them."""
    if wanted.run is not None and wanted.export is None:
        raise UserError("--run says whose trail --export writes: give --export FILE.html too")
    place = place or default_place()
    from neuronaut.memory.review.serve import serve

    def ready(address: str) -> None:
        print(address, flush=True)
        print("these pages answer this machine only; Ctrl-C ends them", file=sys.stderr, flush=True)
        if wanted.browser:
            webbrowser.open(address)

    serve(place, wanted.port, allow_review=wanted.allow_review, runner=None, ready=ready)
    return 0

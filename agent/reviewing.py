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
    if wanted.export is not None:
        return _write(place, wanted.export, wanted.run)
    from neuronaut.agent.page_runner import Processes

    try:
        from neuronaut.memory.review.serve import serve
    except ModuleNotFoundError as error:
        raise UserError(f"the pages need {error.name}: install it with `pip install 'neuronaut[review]'`") from None

    runner = Processes(place) if wanted.allow_run else None

    def ready(address: str, _: object) -> None:
        print(address, flush=True)
        print("these pages answer this machine only; Ctrl-C ends them", file=sys.stderr, flush=True)
        if wanted.browser:
            webbrowser.open(address)

    serve(place, wanted.port, allow_review=wanted.allow_review, runner=runner, ready=ready)
    return 0


def _write(place: Place, where: Path, run: str | None) -> int:
    """The pages as files: of the whole notebook in a folder, or of one run in one file."""
    from neuronaut.memory.review.files import write_site, write_trail

    if run is not None:
        write_trail(place, run, where)
        print(where)
        return 0
    if where.suffix.lower() in (".html", ".htm"):
        raise UserError(
            f"{str(where)!r} is one file, which holds the trail of one run: give --run too, or name a folder"
        )
    n = write_site(place, where)
    print(where / "index.html")
    print(f"{n} files", file=sys.stderr)
    return 0

"""All claims of a notebook as a file, as `neuronaut export claims` writes them."""

import tempfile
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from neuronaut.memory.export import COLUMNS, flat_rows
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place
from neuronaut.memory.tables import write_table

FILES = {
    "claims.csv": "text/csv",
    "claims.jsonl": "application/jsonl",
    "claims.parquet": "application/vnd.apache.parquet",
}


def download(place: Place, name: str) -> Response:
    """One of FILES, made for this request and removed after it."""
    if name not in FILES:
        raise HTTPException(404, f"There is no file {name!r}: {', '.join(FILES)} can be had.")
    folder = tempfile.TemporaryDirectory(prefix="neuronaut-")
    file = Path(folder.name) / name
    try:
        with Notebook(place, read_only=True) as notebook, notebook.snapshot():
            write_table(file, COLUMNS, flat_rows(notebook, "claims"))
    except BaseException:
        folder.cleanup()
        raise
    return FileResponse(file, media_type=FILES[name], filename=name, background=BackgroundTask(folder.cleanup))

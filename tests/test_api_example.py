"""The example notebook runs from end to end, and says what it said when it was stored.

`python tests/test_api_example.py` executes it anew and stores it.
"""

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLE = Path(__file__).parent.parent / "docs" / "example.ipynb"
LARGEST = 300_000  # bytes


def executed(folder: Path) -> Any:
    """The notebook, run in a folder of its own by a kernel of this Python."""
    book = nbformat.read(EXAMPLE, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # when each cell ran
    return book


def said(cell: Any) -> list[str]:
    """What a cell shows as plain text."""
    return [output.data["text/plain"] for output in cell.outputs if "data" in output]


def test_it_runs_and_its_verdicts_and_numbers_are_those_that_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    stored, now = nbformat.read(EXAMPLE, as_version=4), executed(tmp_path)
    compared = [cell.id for cell in stored.cells if "same" in cell.metadata.get("tags", ())]
    assert len(compared) >= 8
    was, is_now = ({cell.id: said(cell) for cell in book.cells if cell.id in compared} for book in (stored, now))
    assert all(was.values()), "each of them shows something"
    assert is_now == was
    assert (tmp_path / "example.db").exists()


def test_what_is_stored_is_whole_small_and_names_no_machine() -> None:
    nbformat.validate(nbformat.read(EXAMPLE, as_version=4))
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|usr|var)/", text)
    assert not re.search(r"stderr|Traceback", text)
    assert "<script" not in text


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        nbformat.write(executed(Path(place)), EXAMPLE)
    sys.exit(0)

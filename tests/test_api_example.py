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

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE, PAGE = DOCS / "example.ipynb", DOCS / "api.md"
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


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The notebook as it was run now, and the folder where that was."""
    folder = tmp_path_factory.mktemp("example")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        return executed(folder), folder


def test_it_runs_and_its_verdicts_and_numbers_are_those_that_are_stored(example: tuple[Any, Path]) -> None:
    stored, (now, folder) = nbformat.read(EXAMPLE, as_version=4), example
    compared = [cell.id for cell in stored.cells if "same" in cell.metadata.get("tags", ())]
    assert len(compared) >= 8
    was, is_now = ({cell.id: said(cell) for cell in book.cells if cell.id in compared} for book in (stored, now))
    assert all(was.values()), "each of them shows something"
    assert is_now == was
    assert (folder / "example.db").exists()


def test_the_examples_of_the_page_run_one_after_another(
    example: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the notebook of findings that the example made, so that its question need not be measured again."""
    _, folder = example
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NEURONAUT_NOTEBOOK", str(folder / "example.db"))
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    out = capsys.readouterr().out
    for line in re.findall(r"print\(error\)  # (.*)", "".join(blocks)):
        assert line in out
    assert names["answer"].run in out


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

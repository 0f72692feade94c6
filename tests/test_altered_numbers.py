"""A number that was altered behind neuronaut's back is refused in one sentence by whatever reads it."""

import contextlib
import runpy
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from neuronaut.memory import schema
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File
from neuronaut.memory.review.app import create_app
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import Altered

filled = runpy.run_path(str(Path(__file__).with_name("review_notebook.py")))["filled"]
SAID = "where a number was recorded: it was altered; `neuronaut verify` says what else was"
CHANGES = (
    "evidence set value = 'abc'",
    "evidence set value = 9e999",
    "evidence set n = 'many'",
    "verdict set e = x'00ff'",
)


def altered(folder: Path, change: str) -> Any:
    """A notebook in which every number of a column was replaced."""
    book = filled(folder / "n.db")
    with contextlib.closing(sqlite3.connect(book.path)) as db, db:
        guards = db.execute(
            "select name, sql from sqlite_master where type = 'trigger' and tbl_name = ?", [change.split()[0]]
        )
        kept = guards.fetchall()
        for name, _ in kept:
            db.execute(f"drop trigger {name}")
        db.execute(f"update {change}")
        for _, sql in kept:
            db.execute(sql)
    return book


@pytest.mark.parametrize("change", CHANGES)
def test_every_command_that_reads_it_says_so_and_ends_with_2(
    change: str, tmp_path: Path, neuronaut: Callable[..., Any]
) -> None:
    book = altered(tmp_path, change)
    asked: tuple[tuple[object, ...], ...] = (
        ("show", book.run), ("show", book.run, "--json"), ("review", "--export", tmp_path / "site"),
        ("review", "--export", tmp_path / "t.html", "--run", book.run),
        ("export", "report", book.run, "--out", tmp_path / "r.md"), ("export", "labels", "--out", tmp_path / "l.csv"),
        ("export", "claims", "--out", tmp_path / "c.jsonl"), ("export", "claims", "--out", tmp_path / "c.parquet"),
    )  # fmt: skip
    if "verdict" not in change:  # a list of claims shows the number of each, not how surely it was judged
        asked += (("search", "status:supported"), ("search", "status:supported", "--json"))
    for command in asked:
        said = neuronaut(*command, "--notebook", book.path)
        assert (said.code, said.err.count("\n")) == (2, 1), (command, said.err)
        assert SAID in said.err, command
    assert {path.name for path in tmp_path.iterdir()} <= {"n.db", "n.db-wal", "n.db-shm"}


@pytest.mark.parametrize("change", CHANGES)
def test_pages_say_so_too_and_the_server_prints_no_traceback(change: str, tmp_path: Path) -> None:
    book = altered(tmp_path, change)
    addresses = ["/u/m/8.481", f"/t/{book.run}", "/queue"]
    addresses += [] if "verdict" in change else ["/", "/?q=names", "/?q=status:supported"]
    with TestClient(create_app(File(book.path))) as client:  # which raises whatever a server would print
        for address in addresses:
            answer = client.get(address)
            assert answer.status_code == 500, address
            assert "where a number was recorded" in answer.text
            assert "neuronaut verify" in answer.text


@pytest.mark.parametrize("change", CHANGES)
def test_verify_names_the_rows(change: str, tmp_path: Path) -> None:
    with Notebook(altered(tmp_path, change).path, read_only=True) as notebook:
        assert any("was altered after it was recorded" in problem for problem in verify(notebook))


def test_every_number_column_is_looked_at_when_it_is_read(tmp_path: Path) -> None:
    book = filled(tmp_path / "n.db")
    numbers = [
        column for table in (schema.evidence, schema.verdict, schema.experiment_end) for column in table.columns
        if not isinstance(column.type, (sa.Text, sa.String))
    ]  # fmt: skip
    assert len(numbers) == 9
    with Notebook(book.path, read_only=True) as notebook:
        for column in numbers:
            odd = sa.type_coerce(sa.literal_column("'abc'"), column.type).label(column.name)
            with pytest.raises(Altered, match="'abc' where a number"):
                notebook.rows(sa.select(odd))

"""Notebooks in an SQLite file: how it is opened, what is wrong with the file or its place, in one sentence each."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, IntegrityError

from neuronaut.memory.database import Kind
from neuronaut.memory.place import DAMAGED
from neuronaut.tools.errors import UserError

BUSY_SECONDS = 10.0


class SQLite:
    """An SQLite file: WAL, every transaction on disk before it counts, one writer at a time."""

    kind: Kind = "sqlite"

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path, self.read_only = path, read_only
        check_place(path, read_only=read_only)

    def engine(self) -> sa.Engine:
        """One connection, which begins no transaction by itself."""
        engine = sa.create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(self._uri(), uri=True, timeout=BUSY_SECONDS, check_same_thread=False),
            poolclass=sa.pool.StaticPool,
        )

        @sa.event.listens_for(engine, "connect")
        def _pragmas(connection: sqlite3.Connection, _record: object) -> None:
            connection.isolation_level = None
            connection.text_factory = _text  # an altered text that is no UTF-8 is read, and found by its hash
            pragmas = ["foreign_keys=ON", "recursive_triggers=ON", "mmap_size=0", "trusted_schema=OFF"]
            if not self.read_only:
                pragmas.append("synchronous=FULL")
            try:
                for pragma in pragmas:
                    connection.execute(f"PRAGMA {pragma}")
            except sqlite3.Error:
                connection.close()
                raise

        return engine

    def _uri(self) -> str:
        mode = "ro" if self.read_only else "rwc"
        wal = self.path.with_name(self.path.name + "-wal")
        if self.read_only and not wal.exists() and not os.access(self.path.parent, os.W_OK):
            mode += "&immutable=1"  # SQLite would want to create the -shm file beside it
        return f"file:{quote(str(self.path.absolute()))}?mode={mode}"

    def begin(self, db: sa.Connection, *, writing: bool) -> None:
        """One snapshot, or the right to write."""
        db.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    def migrated(self, db: sa.Connection) -> None:
        """Write-ahead logging; only now, so that a database of something else stays as it was."""
        if not self.read_only:
            pragma(db, "PRAGMA journal_mode=WAL")

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """SQLite's errors as one sentence each."""
        return sqlite_errors(self.path)

    def stored(self, db: sa.Connection, table: sa.Table) -> Iterator[Mapping[str, Any]]:
        """The rows with the types that they have in the file, which need not be those of the columns."""
        names = [column.name for column in table.columns]
        listed = ", ".join(f'"{name}"' for name in names)
        for row in db.exec_driver_sql(f"SELECT {listed} FROM {table.name}"):
            yield dict(zip(names, row, strict=True))

    def problems(self, db: sa.Connection, *, quick: bool) -> list[str]:
        """What SQLite's own check finds; `quick` leaves out the indexes."""
        try:
            rows = pragma(db, "PRAGMA quick_check(1)" if quick else "PRAGMA integrity_check(10)")
        except sqlite3.DatabaseError as error:  # the check itself breaks off at some torn tables
            if "malformed" not in str(error):
                raise
            rows = [(str(error),)]
        found = [line for row in rows for line in str(row[0]).splitlines() if not line.startswith("***")]
        return [] if found == ["ok"] else [f"SQLite finds the file damaged: {line}" for line in found]

    def guards(self, db: sa.Connection) -> set[str]:
        """The triggers."""
        found = db.exec_driver_sql("SELECT sql FROM sqlite_master WHERE type = 'trigger'")
        return {str(sql) for (sql,) in found}

    def version(self, db: sa.Connection) -> str:
        """The library that is linked in."""
        return f"SQLite {sqlite3.sqlite_version}"


def pragma(db: sa.Connection, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a pragma, outside of any transaction."""
    connection = db.connection.driver_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection.execute(statement).fetchall()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def check_place(path: Path, *, read_only: bool) -> None:
    """Refuses a folder, and for reading a file that is not there; for writing the folder of a new one is made."""
    try:
        exists, folder = path.exists(), path.is_dir()
    except OSError as error:
        raise UserError(f"the notebook {str(path)!r} cannot be opened: {error.strerror}") from None
    if folder:
        raise UserError(f"{str(path)!r} is a folder: give a file for the notebook")
    if exists:
        return
    if read_only:
        raise UserError(f"there is no notebook {str(path)!r}: give --notebook FILE, or ask a question first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder of the notebook {str(path)!r} cannot be made: {error.strerror}") from None


def check_new(path: Path) -> None:
    """Refuses a place where no new notebook can be made; makes nothing."""
    above = next((folder for folder in path.absolute().parents if folder.exists()), path)
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(
            f"the notebook {str(path)!r} cannot be made: {str(above)!r} is no folder that can be written to; "
            "give another --notebook"
        )


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as one sentence each; integrity errors are bugs and pass."""
    try:
        yield
    except (IntegrityError, sqlite3.IntegrityError):
        raise
    except UnicodeDecodeError:
        raise UserError(f"the notebook {str(path)!r} {DAMAGED}") from None
    except (DatabaseError, sqlite3.Error) as error:
        raise UserError(f"the notebook {str(path)!r} {_reason(str(getattr(error, 'orig', error)))}") from None


_REASONS = {
    "locked": "is locked by another process: wait for it to end, or give another --notebook",
    "readonly": "cannot be written to: change its permissions or give another --notebook",
    "unable to open": "cannot be opened: check that its folder exists and can be written to",
    "disk is full": "could not be written because the disk is full: what was recorded is kept; free some space and resume",
    "not a database": "is not a notebook, or is damaged: restore a copy or give another --notebook",
    "malformed": DAMAGED,
    "no such module": "has a search index, which this SQLite cannot read: use a Python whose SQLite has FTS5",
    "vtable constructor failed": "has a damaged search index: `neuronaut search --rebuild` makes it anew from the records",
    "no such table": "lacks a table: it is damaged; restore a copy or give another --notebook",
    "no such column": "lacks a column: it is damaged; restore a copy or give another --notebook",
    "disk I/O": "could not be read or written (disk error, or a full disk): what was recorded is kept; check the disk and resume",
    "too big": "could not be written because a value is too large for it: give a smaller corpus or fewer examples",
}


def _reason(message: str) -> str:
    return next((sentence for word, sentence in _REASONS.items() if word in message), f"failed: {message}")

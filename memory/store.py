"""An open notebook file: transactions, rows added with their ledger lines, SQLite's errors as one sentence each."""

import contextlib
import datetime
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import sqlalchemy as sa

from neuronaut.memory import ledger, migrations, schema
from neuronaut.memory.place import DAMAGED, check_new, check_place, sqlite_errors
from neuronaut.tools.errors import UserError

BUSY_SECONDS = 10.0
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ids = threading.Lock()
_last_id = 0


def new_id() -> str:
    """A ULID: 48 bits of time, 80 bits of chance; as text, later ids of one process sort after earlier ones."""
    global _last_id
    with _ids:
        _last_id = max(_last_id + 1, (int(time.time() * 1000) << 80) | secrets.randbits(80))
        number = _last_id
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class Store:
    """An open notebook file. Use as a context manager, or close it. Threads may share one: they take turns."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path, self.read_only = path, read_only
        self._turn, self._undone = threading.RLock(), False
        check_place(path, read_only=read_only)
        self._begin = "BEGIN"
        self._engine = self._connect()
        try:
            with sqlite_errors(path):
                self._db = self._engine.connect()
                with self._transaction("BEGIN" if read_only else "BEGIN IMMEDIATE"):
                    migrations.migrate(self._db, path, read_only=read_only)
                if not read_only:  # only now: a database of something else stays as it was
                    self._execute("PRAGMA journal_mode=WAL")
        except BaseException:
            self._engine.dispose()
            raise

    def _connect(self) -> sa.Engine:
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

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql(self._begin)

        return engine

    def _uri(self) -> str:
        mode = "ro" if self.read_only else "rwc"
        wal = self.path.with_name(self.path.name + "-wal")
        if self.read_only and not wal.exists() and not os.access(self.path.parent, os.W_OK):
            mode += "&immutable=1"  # SQLite would want to create the -shm file beside it
        return f"file:{quote(str(self.path.absolute()))}?mode={mode}"

    def _execute(self, pragma: str) -> list[tuple[Any, ...]]:
        """The rows of a pragma, outside of any transaction."""
        connection = self._db.connection.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        return connection.execute(pragma).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._db.close()
            self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Transactions

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is recorded inside is one transaction: all of it is kept, or nothing. Reads inside see it.

        An error inside undoes it all, also one that is caught there. Other threads wait meanwhile.
        """
        with self._writing():
            yield

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads inside see one state of the notebook, whatever another process writes meanwhile."""
        with sqlite_errors(self.path), self._turn:
            with self._joined() if self._db.in_transaction() else self._transaction("BEGIN"):
                yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self.read_only:
            raise UserError(f"the notebook {str(self.path)!r} is open for reading only")
        with sqlite_errors(self.path), self._turn:
            if self._db.in_transaction() and self._begin == "BEGIN":
                raise RuntimeError("a snapshot is for reading: end it before anything is recorded")
            with self._joined() if self._db.in_transaction() else self._transaction("BEGIN IMMEDIATE"):
                yield

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._begin, self._undone = begin, False
        with self._db.begin():
            yield
            if self._undone and begin != "BEGIN":
                raise RuntimeError("a record of this transaction failed, so that nothing of it is kept")

    @contextlib.contextmanager
    def _joined(self) -> Iterator[None]:
        """A part of the transaction that this thread has begun."""
        try:
            yield
        except BaseException:
            self._undone = True
            raise

    # Rows

    def rows(self, statement: sa.Select[Any]) -> list[dict[str, Any]]:
        """The rows of a select, as dicts."""
        with self.snapshot():
            return [dict(row) for row in self._db.execute(statement).mappings()]

    def stored(self, table: sa.Table) -> Iterator[dict[str, Any]]:
        """The rows of a table as they lie in the file, whatever types their values have; inside `snapshot`."""
        names = [column.name for column in table.columns]
        for row in self._db.exec_driver_sql(f"SELECT {', '.join(map(_quoted, names))} FROM {table.name}"):
            yield dict(zip(names, row, strict=True))

    def file_problems(self, *, quick: bool = False) -> list[str]:
        """What SQLite itself finds wrong with the file; empty when nothing. `quick` leaves out the indexes."""
        check = "PRAGMA quick_check(1)" if quick else "PRAGMA integrity_check(10)"
        with sqlite_errors(self.path), self._turn:
            try:
                rows = self._execute(check)
            except sqlite3.DatabaseError as error:  # the check itself breaks off at some torn tables
                if "malformed" not in str(error):
                    raise
                rows = [(str(error),)]
        found = [line for row in rows for line in str(row[0]).splitlines() if not line.startswith("***")]
        return [] if found == ["ok"] else found

    def _insert(self, table: sa.Table, row: Mapping[str, Any]) -> str:
        """Add a row and its ledger line, inside the caller's transaction. Returns the row's key."""
        full = {column.name: _typed(column, row.get(column.name)) for column in table.columns}
        self._db.execute(table.insert().values(full))
        key = ledger.row_key(full, primary_key(table))
        lines = schema.ledger
        last = self._db.execute(sa.select(lines.c.seq, lines.c.sha256).order_by(lines.c.seq.desc()).limit(1)).first()
        seq, prev = (last[0] + 1, last[1]) if last else (1, ledger.GENESIS)
        digest = ledger.row_hash(full)
        line = {
            "seq": seq, "table_name": table.name, "row_id": key, "row_sha256": digest, "prev_sha256": prev,
            "sha256": ledger.line_hash(seq, table.name, key, digest, prev),
        }  # fmt: skip
        self._db.execute(lines.insert().values(line))
        return key

    def _known(self, table: sa.Table, row: Mapping[str, Any]) -> str:
        """The id of the row with these values, added if it is new; inside the caller's transaction."""
        where = [table.c[name] == value for name, value in row.items()]
        found = self._db.execute(sa.select(table.c.id).where(*where)).scalar()
        return str(found) if found else self._insert(table, {"id": new_id(), **row})

    def head(self) -> str:
        """The end of the ledger, seq:sha256: kept elsewhere, it shows a cut or rewritten notebook."""
        lines = schema.ledger
        rows = self.rows(sa.select(lines.c.seq, lines.c.sha256).order_by(lines.c.seq.desc()).limit(1))
        return f"{rows[0]['seq']}:{rows[0]['sha256']}" if rows else f"0:{ledger.GENESIS}"


def primary_key(table: sa.Table) -> tuple[str, ...]:
    """The names of a table's key columns."""
    return tuple(column.name for column in table.primary_key)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def _typed(column: sa.Column[Any], value: Any) -> Any:
    """The value as the file will give it back, so that its hash is the same then."""
    if value is None:
        return None
    if isinstance(column.type, sa.Float):
        return float(value)
    return int(value) if isinstance(column.type, sa.Integer) else value


def check_writable(path: Path) -> None:
    """Refuses, before long work begins, a notebook that cannot be written; a new one is not made yet."""
    if not path.exists():
        check_new(path)
        return
    with Store(path) as store:
        if store.file_problems(quick=True):
            raise UserError(f"the notebook {str(path)!r} {DAMAGED}")

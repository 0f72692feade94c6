"""An open notebook: transactions, rows added with their ledger lines."""

import contextlib
import datetime
import functools
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from neuronaut.memory import claim_index, ledger, migrations, schema
from neuronaut.memory.database import Database, Kind
from neuronaut.memory.place import DAMAGED, File, Place, Server
from neuronaut.memory.sqlite import SQLite, check_new
from neuronaut.tools.errors import UserError

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
    """An open notebook. Use as a context manager, or close it. Threads may share one: they take turns."""

    def __init__(self, place: Place | Path, *, read_only: bool = False) -> None:
        self.place: Place = File(place) if isinstance(place, Path) else place
        self.read_only = read_only
        self._turn = threading.RLock()
        self._records = self._undone = False  # of the transaction that goes on: for writing, and bound to be undone
        self._moved: set[str] = set()  # hypotheses whose documents in the search index it has yet to write
        self._database = database_of(self.place, read_only=read_only)
        self._engine = self._database.engine()
        sa.event.listen(self._engine, "begin", lambda db: self._database.begin(db, writing=self._records))
        try:
            with self._database.errors():
                self._db = self._engine.connect()
                with self._transaction(writing=not read_only):
                    migrations.migrate(self._db, self._database.kind, str(self.place), read_only=read_only)
                self._database.migrated(self._db)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close it."""
        with self._turn, self._database.errors():
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
        with self._database.errors(), self._turn:
            inside = self._db.in_transaction()
            with self._joined() if inside else self._transaction(writing=False):
                yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self.read_only:
            raise UserError(f"the notebook {str(self.place)!r} is open for reading only")
        with self._database.errors(), self._turn:
            inside = self._db.in_transaction()
            if inside and not self._records:
                raise RuntimeError("a snapshot is for reading: end it before anything is recorded")
            with self._joined() if inside else self._transaction(writing=True):
                yield

    @contextlib.contextmanager
    def _transaction(self, *, writing: bool) -> Iterator[None]:
        self._records, self._undone = writing, False
        self._moved.clear()
        with self._db.begin():
            yield
            if self._undone and writing:
                raise RuntimeError("a record of this transaction failed, so that nothing of it is kept")
            self.index_moved()

    @contextlib.contextmanager
    def _joined(self) -> Iterator[None]:
        """A part of the transaction that this thread has begun."""
        try:
            yield
        except BaseException:
            self._undone = True
            raise

    # Search

    @property
    def kind(self) -> Kind:
        """Which of the databases it is."""
        return self._database.kind

    @functools.cached_property
    def searchable(self) -> bool:
        """Whether its search index is there."""
        with self.snapshot():
            return not claim_index.missing(self._db, self.kind)

    def index_moved(self) -> None:
        """Bring the search index up to what this transaction has recorded so far."""
        moved, self._moved = self._moved, set()
        if moved:
            claim_index.bring_up(self._db, self.kind, moved)

    def rebuild_index(self) -> None:
        """Make the search index anew from the records."""
        with self._writing():
            claim_index.rebuild(self._db, self.kind)

    # Rows

    def rows(self, statement: sa.Select[Any]) -> list[dict[str, Any]]:
        """The rows of a select, as dicts."""
        with self.snapshot():
            return [dict(row) for row in self._db.execute(statement).mappings()]

    def stored(self, table: sa.Table) -> Iterator[Mapping[str, Any]]:
        """The rows of a table as they lie in the database, whatever types their values have; inside `snapshot`."""
        return self._database.stored(self._db, table)

    def file_problems(self, *, quick: bool = False) -> list[str]:
        """What the database itself finds damaged, a sentence each; empty when nothing. `quick` leaves out the indexes."""
        with self._database.errors(), self._turn:
            self._records = False
            return self._database.problems(self._db, quick=quick)

    def unguarded(self) -> list[str]:
        """What should refuse changes of rows and was removed or changed, and what is there instead, a sentence each."""
        wanted = migrations.guards(self._database.kind)
        with self.snapshot():
            present = self._database.guards(self._db)
        return [f"{_made(sql)} was removed or changed" for sql in sorted(wanted - present)] + [
            f"{_made(sql)} is not neuronaut's" for sql in sorted(present - wanted)
        ]

    def version(self) -> str:
        """The database that keeps it, such as `PostgreSQL 15.18`."""
        with self.snapshot():
            return self._database.version(self._db)

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
        if table is schema.hypothesis_status:
            self._moved.add(full["hypothesis"])
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


def _made(statement: str) -> str:
    """What a CREATE statement makes: the trigger NAME."""
    _, kind, name, *_ = statement.split()
    return f"the {kind.lower()} {name}"


def _typed(column: sa.Column[Any], value: Any) -> Any:
    """The value as the file will give it back, so that its hash is the same then."""
    if value is None:
        return None
    if column.type is schema.Float:
        return float(value)
    if column.type is schema.Integer:
        if not -(2**63) <= int(value) < 2**63:
            raise UserError(f"{value} is too large a number to be recorded ({column.table.name}, {column.name})")
        return int(value)
    return value


def database_of(place: Place, *, read_only: bool) -> Database:
    """What opens a place."""
    match place:
        case File(path):
            return SQLite(path, read_only=read_only)
        case Server():
            from neuronaut.memory.postgresql import PostgreSQL

            return PostgreSQL(place, read_only=read_only)
        case _:
            raise TypeError(f"{place!r} is no place for a notebook")


def check_writable(place: Place | Path) -> None:
    """Refuses, before long work begins, a notebook that cannot be written; a new file is not made yet."""
    path = place.path if isinstance(place, File) else place
    if isinstance(path, Path) and not path.exists():
        check_new(path)
        return
    with Store(place) as store:
        if store.file_problems(quick=True):
            raise UserError(f"the notebook {str(place)!r} {DAMAGED}")

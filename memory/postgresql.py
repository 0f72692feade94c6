"""Notebooks on a PostgreSQL server: how it is reached, what is wrong with it, in one sentence each."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from neuronaut.memory import schema
from neuronaut.memory.database import Kind
from neuronaut.memory.place import DAMAGED, URL_FORM, Server
from neuronaut.tools.errors import UserError

try:
    import psycopg
    from psycopg.types.string import StrDumper, TextLoader
except ImportError:
    raise UserError(
        "a notebook on a PostgreSQL server needs psycopg: pip install 'neuronaut[postgres]', or give a file"
    ) from None

OLDEST = 120000  # the first whose numbers come back as they were given
CONNECT_SECONDS = 10
LOCK_SECONDS = 60  # another writer's transaction takes milliseconds
IDLE_SECONDS = 60  # after which the server gives up a writer that says nothing more, so that others can go on
WRITERS = 0x6E6575726F6E6175  # the lock of those who record: "neuronau"

# PostgreSQL's texts cannot hold U+0000, which texts of a corpus can: it stands there as ESCAPE and 0, ESCAPE itself twice.
ESCAPE = "\x1a"


class _Dumper(StrDumper):
    def dump(self, obj: str) -> bytes | bytearray | memoryview | None:
        return super().dump(escaped(obj))


class _Loader(TextLoader):
    def load(self, data: bytes | bytearray | memoryview) -> str | bytes:
        text = super().load(data)
        return unescaped(text) if isinstance(text, str) else text


def escaped(text: str) -> str:
    """The text without U+0000; `unescaped` gives it back."""
    if "\0" not in text and ESCAPE not in text:
        return text
    return text.replace(ESCAPE, ESCAPE * 2).replace("\0", ESCAPE + "0")


def unescaped(text: str) -> str:
    """The text that was `escaped`."""
    if ESCAPE not in text:
        return text
    return ESCAPE.join(part.replace(ESCAPE + "0", "\0") for part in text.split(ESCAPE * 2))


class PostgreSQL:
    """A database on a server: snapshots for reading; those who record take turns by an advisory lock."""

    kind: Kind = "postgresql"

    def __init__(self, place: Server, *, read_only: bool) -> None:
        self.place, self.read_only = place, read_only
        self._reached = False

    def engine(self) -> sa.Engine:
        """One connection at a time, made anew where it was lost."""
        try:
            url = sa.make_url(self.place.url).set(drivername="postgresql+psycopg")
        except (ArgumentError, ValueError):
            raise UserError(
                f"the URL of the notebook cannot be read (it is not shown here): write {URL_FORM}"
            ) from None
        if "connect_timeout" not in url.query:
            url = url.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        sa.event.listen(engine, "connect", self._settle)
        return engine

    def _settle(self, connection: "psycopg.Connection[Any]", _record: object) -> None:
        """What holds for a connection. Refuses a server that cannot keep a notebook."""
        try:
            self._check(connection)
            self._set(connection)
            self._reached = True
        except BaseException:
            connection.close()
            raise

    def _check(self, connection: "psycopg.Connection[Any]") -> None:
        if connection.info.server_version < OLDEST:
            raise UserError(
                f"the server of the notebook {str(self.place)!r} is older than PostgreSQL 12: use a newer one"
            )
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise UserError(
                f"the database of the notebook {str(self.place)!r} holds {encoding} texts, which are not all that there are: "
                "make one with `createdb --encoding UTF8 --template template0`"
            )

    def _set(self, connection: "psycopg.Connection[Any]") -> None:
        connection.adapters.register_dumper(str, _Dumper)
        for name in ("text", "varchar"):
            connection.adapters.register_loader(name, _Loader)
        settings = [
            f"SET lock_timeout = '{LOCK_SECONDS}s'",
            "SET extra_float_digits = 1",
            "SET client_encoding = 'UTF8'",
        ]
        if self.read_only:
            settings.append("SET default_transaction_read_only = on")
        for setting in settings:
            connection.execute(setting.encode())
        connection.execute(  # a database can be set to lose its last commits in a crash
            b"SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.commit()

    def begin(self, db: sa.Connection, *, writing: bool) -> None:
        """One snapshot; or the lock, and after it what those before have written."""
        connection = db.connection.driver_connection
        assert isinstance(connection, psycopg.Connection)
        level = psycopg.IsolationLevel
        connection.isolation_level = level.READ_COMMITTED if writing else level.REPEATABLE_READ
        connection.read_only = None if writing else True
        if writing:
            db.exec_driver_sql(
                f"SELECT set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', true), "
                f"pg_advisory_xact_lock({WRITERS})"
            )

    def migrated(self, db: sa.Connection) -> None:
        """Nothing is left."""

    def stored(self, db: sa.Connection, table: sa.Table) -> Iterator[Mapping[str, Any]]:
        """The rows, a part at a time."""
        columns = [
            sa.type_coerce(column, sa.Float()).label(column.name) if column.type is schema.Float else column
            for column in table.columns
        ]
        statement = sa.select(*columns).execution_options(stream_results=True, yield_per=1000)
        with db.execute(statement) as rows:
            yield from (dict(row) for row in rows.mappings())

    def problems(self, db: sa.Connection, *, quick: bool) -> list[str]:
        """Indexes and conditions that do not hold for all rows. Damaged pages are found where their rows are read."""
        if quick:
            return []
        with db.begin():
            found = db.exec_driver_sql(_NOT_VALID).scalars().all()
        return [f"PostgreSQL does not vouch for {name}: it was not checked for all rows" for name in found]

    def guards(self, db: sa.Connection) -> set[str]:
        """The triggers and the function that they call."""
        return {str(made) for made in db.exec_driver_sql(_GUARDS).scalars()}

    def version(self, db: sa.Connection) -> str:
        """The server's version."""
        return f"PostgreSQL {db.exec_driver_sql('SHOW server_version').scalar_one()}"

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """The server's errors as one sentence each."""
        try:
            yield
        except (IntegrityError, psycopg.IntegrityError):
            raise
        except (DBAPIError, psycopg.Error) as error:
            raise UserError(f"the notebook {str(self.place)!r} {self._reason(error)}") from None

    def _reason(self, error: DBAPIError | psycopg.Error) -> str:
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = getattr(cause, "sqlstate", None) or ""
        for start, sentence in _REASONS.items():
            if state.startswith(start):
                return sentence
        said = self._said(cause)
        if not self._reached:
            return f"cannot be reached ({said}): check the address, the user and that the server runs, or give a file"
        if isinstance(cause, psycopg.OperationalError) and not state:
            return f"lost its server ({said}): what was recorded is kept; see that the server runs, and resume"
        return f"failed: {said}"

    def _said(self, cause: object) -> str:
        """The last line of an error, as one without the password."""
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
        told = next((line for line in lines if "rror:" in line or "FATAL:" in line), lines[0])
        password = sa.make_url(self.place.url).password
        return told.replace(str(password), "…") if password else told


_NOT_VALID = """
SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT (i.indisvalid AND i.indisready) AND c.relnamespace = current_schema()::regnamespace
UNION ALL
SELECT conname FROM pg_constraint WHERE NOT convalidated AND connamespace = current_schema()::regnamespace
ORDER BY 1
"""
# As the migrations write them, so that whatever else a trigger or its function is now shows.
_GUARDS = """
SELECT pg_get_triggerdef(t.oid, true) || CASE t.tgenabled WHEN 'A' THEN '' ELSE ' -- not always' END
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND c.relnamespace = current_schema()::regnamespace
UNION ALL
SELECT 'CREATE FUNCTION ' || p.proname || '(' || pg_get_function_arguments(p.oid) || ') RETURNS '
    || pg_get_function_result(p.oid) || ' LANGUAGE ' || l.lanname || ' AS $$' || p.prosrc || '$$'
    || CASE WHEN p.prosecdef OR p.proconfig IS NOT NULL THEN ' -- with settings' ELSE '' END
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.oid IN (
    SELECT t.tgfoid FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal AND c.relnamespace = current_schema()::regnamespace
)
"""
_REASONS = {  # by the beginning of the SQLSTATE
    "08": "lost its server: what was recorded is kept; see that the server runs, and resume",
    "22021": "could not be written because a text is none that the database can hold",
    "22003": "could not be written because a number is too large for it",
    "25006": "cannot be written to: it is a copy for reading only; give the address of the server that it is copied from",
    "25P03": "lost its server, which waited too long: what was recorded is kept; resume",
    "28": "cannot be reached because the server refuses this user or password: give them in PGPASSWORD or ~/.pgpass",
    "3D000": "cannot be reached because the server has no such database: make it with `createdb`",
    "42501": "may not be used by this user: GRANT it CREATE on the schema, SELECT and INSERT on the tables, and UPDATE on "
    "batch, item, claim_index and claim_count",
    "42P01": "lacks a table: it is damaged; restore a copy or give another --notebook",
    "42703": "lacks a column: it is damaged; restore a copy or give another --notebook",
    "53100": "could not be written because the server's disk is full: what was recorded is kept; free some space and resume",
    "53300": "cannot be reached because the server has no connection left: end some, or raise its max_connections",
    "54": "could not be written because a value is too large for it: give a smaller corpus or fewer examples",
    "55P03": "is locked by another process: wait for it to end, or give another --notebook",
    "57014": "took longer than the server allows (statement_timeout): raise it, and resume",
    "57P": "lost its server, which is shut down or starting: what was recorded is kept; see that it runs, and resume",
    "58": "could not be read or written by the server (its log says why): what was recorded is kept; resume then",
    "XX": DAMAGED,
}

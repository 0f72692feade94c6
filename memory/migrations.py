"""Numbered, additive changes of the schema; the hash of each applied one is stored in the notebook."""

import datetime
import hashlib
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from neuronaut.memory import claim_index, schema
from neuronaut.memory.database import Kind
from neuronaut.tools.errors import UserError

FOLDER = Path(__file__).parent / "sql"
# 1 is sql/0001_tables.sql, of PostgreSQL 5 is sql/postgresql/0005_tables.sql; a released one is never edited. One number is one
# schema in both; on servers it began with 5.
MIGRATIONS: dict[Kind, tuple[tuple[int, str], ...]] = {
    "sqlite": ((1, "tables"), (2, "evaluations"), (3, "causes"), (4, "batches"), (5, "items"), (6, "search")),
    "postgresql": ((5, "tables"), (6, "search")),
}
SEARCH = 6  # the schema from which on claims have a search index


class NothingYet(UserError):
    """A database without tables, which cannot be read as a notebook: the first question makes it one."""


def file_of(kind: Kind, number: int, name: str) -> Path:
    """Where a migration stands."""
    return (FOLDER if kind == "sqlite" else FOLDER / kind) / f"{number:04}_{name}.sql"


@cache
def source_of(kind: Kind, number: int, name: str) -> str:
    """The statements of a migration, a blank line between two of them."""
    return file_of(kind, number, name).read_text(encoding="utf-8")


def source_sha256(kind: Kind, number: int, name: str) -> str:
    """Hash of a migration's statements."""
    return hashlib.sha256(source_of(kind, number, name).encode()).hexdigest()


def guards(kind: Kind) -> set[str]:
    """The statements that make what refuses changes of rows."""
    made: set[str] = set()
    for number, name in MIGRATIONS[kind]:
        made |= {s for s in _statements(kind, number, name) if s.startswith(("CREATE TRIGGER", "CREATE FUNCTION"))}
    return made


def _statements(kind: Kind, number: int, name: str) -> list[str]:
    return source_of(kind, number, name).strip().split("\n\n")


def migrate(db: sa.Connection, kind: Kind, place: str, *, read_only: bool) -> None:
    """Bring the notebook to this code's version, inside the caller's transaction.

    Refuses one made by newer code or by another source of the same version, and a file that is something else.
    """
    applied = _applied(db, place, read_only=read_only)
    known = dict(MIGRATIONS[kind])
    newest = max(known)
    if applied and max(applied) > newest:
        raise UserError(
            f"the notebook {place!r} was made by a newer neuronaut (schema {max(applied)}, this one knows {newest}): upgrade"
        )
    for number, sha256 in applied.items():
        if sha256 != source_sha256(kind, number, known[number]):
            raise UserError(
                f"the notebook {place!r} was made by another version of schema {number}, perhaps before its release: "
                "give another --notebook"
            )
    waiting = [one for one in MIGRATIONS[kind] if one[0] not in applied]
    if waiting and read_only:
        raise UserError(f"the notebook {place!r} must be upgraded first: `neuronaut search --rebuild` does so")
    for number, name in waiting:
        _apply(db, kind, number, name)
    if (SEARCH, "search") in waiting:
        claim_index.fill(db, kind)
    elif not read_only and claim_index.missing(
        db, kind
    ):  # a copy was made without it, or it was dropped: no record is lost
        claim_index.rebuild(db, kind)


def _applied(db: sa.Connection, place: str, *, read_only: bool) -> dict[int, str]:
    """Number and source hash of the migrations that a notebook has had."""
    tables = set(sa.inspect(db).get_table_names())
    if not tables:
        if read_only:
            raise NothingYet(f"the notebook {place!r} is empty: ask a question first, or give another --notebook")
        return {}
    if schema.schema_migration.name not in tables:
        raise UserError(f"{place!r} is a database of something else: give another --notebook")
    columns = schema.schema_migration.c
    return {int(row[0]): str(row[1]) for row in db.execute(sa.select(columns.number, columns.source_sha256))}


def _apply(db: sa.Connection, kind: Kind, number: int, name: str) -> None:
    for statement in _statements(kind, number, name):
        db.exec_driver_sql(statement, execution_options={"no_parameters": True})
    applied = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    row = {"number": number, "name": name, "source_sha256": source_sha256(kind, number, name), "applied": applied}
    db.execute(schema.schema_migration.insert().values(row))

"""Numbered, additive changes of the schema; the hash of each applied one is stored in the notebook."""

import datetime
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.tools.errors import UserError


def _create(db: sa.Connection) -> None:
    schema.metadata.create_all(db)
    rows = [{"from_state": a, "to_state": b} for a, b in schema.TRANSITIONS]
    db.execute(schema.allowed_transition.insert(), rows)
    for table in (*schema.RECORDS, schema.ledger, schema.allowed_transition):
        for statement in schema.append_only_triggers(table):
            db.exec_driver_sql(statement)


MIGRATIONS: tuple[tuple[int, str, Callable[[sa.Connection], None]], ...] = ((1, "create the tables", _create),)


def migrate(db: sa.Connection, path: Path, *, read_only: bool) -> None:
    """Bring the notebook to this code's version. Refuses one made by newer code, and a file that is something else."""
    with db.begin():
        tables = set(sa.inspect(db).get_table_names())
        if tables and "schema_migration" not in tables:
            raise UserError(f"{str(path)!r} is a database of something else: give another --notebook")
        applied = set(db.execute(sa.select(schema.schema_migration.c.number)).scalars()) if tables else set()
        newest = MIGRATIONS[-1][0]
        if applied and max(applied) > newest:
            raise UserError(
                f"the notebook {str(path)!r} was made by a newer neuronaut (schema {max(applied)}, this one knows {newest}): upgrade"
            )
        waiting = [m for m in MIGRATIONS if m[0] not in applied]
        if waiting and read_only:
            raise UserError(f"the notebook {str(path)!r} must be upgraded first: open it once for writing")
        for number, name, change in waiting:
            change(db)
            source = hashlib.sha256(inspect.getsource(change).encode()).hexdigest()
            applied_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            row = {"number": number, "name": name, "source_sha256": source, "applied": applied_at}
            db.execute(schema.schema_migration.insert().values(row))

"""The statements that make the tables of the notebook in an empty database. Migrations hold such statements as text, frozen."""

from sqlalchemy import Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from neuronaut.memory import claim_index
from neuronaut.memory.database import Kind
from neuronaut.memory.schema import TRANSITIONS, WORKING, metadata

_DIALECTS: dict[Kind, Dialect] = {
    "sqlite": sqlite.dialect(),
    "postgresql": postgresql.dialect(),  # type: ignore[no-untyped-call]
}
# Its rows are only added, whoever asks and however many rows are meant: for each statement, not for each row.
_REFUSE = """CREATE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  RAISE integrity_constraint_violation USING MESSAGE = TG_TABLE_NAME || ' rows are only added';
END$$"""


def append_only_triggers(table: Table) -> list[str]:
    """SQLite statements that refuse to change, delete or replace a row of the table."""
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table.name} rows are only added'); END"
    same = " AND ".join(f'"{column.name}" = NEW."{column.name}"' for column in table.primary_key)
    return [
        *(
            f"CREATE TRIGGER {table.name}_no_{verb.lower()} BEFORE {verb} ON {table.name} {refuse}"
            for verb in ("UPDATE", "DELETE")
        ),
        f"CREATE TRIGGER {table.name}_no_replace BEFORE INSERT ON {table.name} WHEN EXISTS (SELECT 1 FROM {table.name} WHERE {same}) {refuse}",
    ]


def append_only_trigger(table: Table) -> list[str]:
    """PostgreSQL statements that refuse to change, delete or truncate rows of the table, written as the server prints them."""
    name = f"{table.name}_only_added"
    return [
        f"CREATE TRIGGER {name} BEFORE DELETE OR UPDATE OR TRUNCATE ON {table.name} FOR EACH STATEMENT EXECUTE FUNCTION only_added()",
        f"ALTER TABLE {table.name} ENABLE ALWAYS TRIGGER {name}",
    ]


def statements(kind: Kind) -> list[str]:
    """All that the migrations of a database do together."""
    dialect = _DIALECTS[kind]
    made: list[str] = []
    for table in metadata.sorted_tables:
        made.append(str(CreateTable(table).compile(dialect=dialect)))
        indexes = [one for one in table.indexes if one.info.get("only", kind) == kind]
        made += [
            str(CreateIndex(one).compile(dialect=dialect)) for one in sorted(indexes, key=lambda one: str(one.name))
        ]
    made += [_REFUSE] if kind == "postgresql" else []
    triggers = append_only_trigger if kind == "postgresql" else append_only_triggers
    for table in metadata.sorted_tables:
        made += triggers(table) if table.name not in WORKING else []
    made += [f"INSERT INTO allowed_transition VALUES ('{a}', '{b}')" for a, b in TRANSITIONS]
    made += claim_index.CREATED[kind]
    return ["\n".join(line.rstrip() for line in one.strip().expandtabs(2).splitlines() if line.strip()) for one in made]

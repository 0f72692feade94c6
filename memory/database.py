"""What a database must do to keep a notebook: the seam between the store and SQLite or PostgreSQL."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import sqlalchemy as sa

Kind = Literal["sqlite", "postgresql"]


class Database(Protocol):
    """One database; `errors` says what goes wrong with it in one sentence each, and lets integrity errors pass."""

    kind: Kind

    def engine(self) -> sa.Engine:
        """Where connections come from."""

    def begin(self, db: sa.Connection, *, writing: bool) -> None:
        """The first statements of a transaction: a reading one sees one state, of the writing ones there is one at a time."""

    def migrated(self, db: sa.Connection) -> None:
        """What is left to be set after the tables are there, outside of any transaction."""

    def errors(self) -> AbstractContextManager[None]:
        """Errors of the database as one sentence each; integrity errors are bugs and pass."""

    def stored(self, db: sa.Connection, table: sa.Table) -> Iterator[Mapping[str, Any]]:
        """The rows of a table as they lie there, whatever types their values have."""

    def problems(self, db: sa.Connection, *, quick: bool) -> list[str]:
        """What the database itself finds damaged; a sentence each; empty when nothing. Outside of any transaction."""

    def guards(self, db: sa.Connection) -> set[str]:
        """What refuses changes of rows, as the statements that made it."""

    def version(self, db: sa.Connection) -> str:
        """Name and version of what runs."""

"""Where a notebook lies: a file, or a database on a PostgreSQL server by URL."""

import abc
import hashlib
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import platformdirs

from neuronaut.tools.errors import UserError

DAMAGED = "is damaged: restore a copy or give another --notebook"
URL_FORM = "postgresql://USER@HOST:PORT/DATABASE"
SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")
_SECRET = ("password", "sslpassword")


class Place(abc.ABC):
    """Where a notebook lies. Its text is what a command takes to find it, without a password."""

    @property
    @abc.abstractmethod
    def checkpoints(self) -> Path:
        """The file of a run's checkpoints, which may be deleted: the notebook is the record."""


@dataclass(frozen=True)
class File(Place):
    """An SQLite file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def checkpoints(self) -> Path:
        """Beside the file."""
        return self.path.with_name(self.path.name + ".checkpoints")


@dataclass(frozen=True)
class Server(Place):
    """A database on a PostgreSQL server. url: with what it takes to get in, so it is never shown."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        user, at, hosts = parts.netloc.rpartition("@")
        kept = [(name, value) for name, value in parse_qsl(parts.query) if name.lower() not in _SECRET]
        asked = f"?{urlencode(kept)}" if kept else ""
        return f"postgresql://{user.partition(':')[0]}{at}{hosts}{parts.path}{asked}"

    @property
    def checkpoints(self) -> Path:
        """In the cache of this user on this machine."""
        named = os.environ.get("NEURONAUT_CACHE")
        folder = Path(named) if named else platformdirs.user_cache_path("neuronaut")
        return folder / "checkpoints" / f"{hashlib.sha256(str(self).encode()).hexdigest()[:16]}.db"


def place_of(text: str) -> Place:
    """The place that a text names: a URL, or else a file. Refuses a URL of anything else than PostgreSQL."""
    scheme, mark, _ = text.partition("://")
    if not mark:
        return File(Path(text))
    if scheme not in SCHEMES:
        raise UserError(f"{scheme[:40]!r} is no database that keeps notebooks: give a file, or {URL_FORM}")
    try:
        urlsplit(text).port  # noqa: B018
    except ValueError:
        raise UserError(f"the URL of the notebook cannot be read (it is not shown here): write {URL_FORM}") from None
    return Server(text)


def default_place() -> Place:
    """$NEURONAUT_NOTEBOOK, or notebook.db in the user's data folder."""
    named = os.environ.get("NEURONAUT_NOTEBOOK")
    return place_of(named) if named else File(Path(platformdirs.user_data_dir("neuronaut")) / "notebook.db")


def option_of(place: Place) -> str:
    """How a command names a notebook: ` --notebook PLACE`, nothing for the one that it takes by itself."""
    return "" if place == default_place() else f" --notebook {shlex.quote(str(place))}"

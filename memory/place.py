"""Where a notebook lies, and what is wrong with that place or file, in one sentence each."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import platformdirs
from sqlalchemy.exc import DatabaseError, IntegrityError

from neuronaut.tools.errors import UserError

DAMAGED = "is damaged: restore a copy or give another --notebook"


def default_path() -> Path:
    """$NEURONAUT_NOTEBOOK, or notebook.db in the user's data folder."""
    named = os.environ.get("NEURONAUT_NOTEBOOK")
    return Path(named) if named else Path(platformdirs.user_data_dir("neuronaut")) / "notebook.db"


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
    "no such table": "lacks a table: it is damaged; restore a copy or give another --notebook",
    "no such column": "lacks a column: it is damaged; restore a copy or give another --notebook",
    "disk I/O": "could not be read or written (disk error, or a full disk): what was recorded is kept; check the disk and resume",
    "too big": "could not be written because a value is too large for it: give a smaller corpus or fewer examples",
}


def _reason(message: str) -> str:
    return next((sentence for word, sentence in _REASONS.items() if word in message), f"failed: {message}")

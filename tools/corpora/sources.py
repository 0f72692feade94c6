"""The files that a corpus is made of, on this machine or behind a URL, and how they are opened."""

import gzip
import io
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from neuronaut.tools.errors import UserError

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
KINDS = ".txt, .jsonl, .jsonl.gz, .jsonl.zst or .parquet"
MOST_UNPACKED = 200  # times the packed size: text is packed to a twentieth at best, a bomb to a thousandth
ALWAYS_UNPACKED = 256 << 20  # bytes; so much is unpacked without looking at the ratio
_TAGS = ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created")
_DRIVER_ERRORS = (  # that are no OSError; a driver is only known once it is loaded
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
)


@dataclass(frozen=True)
class Source:
    """One file. version: what changes when it does, None where that is unknown; column: the one that was named; template: a
    hash of what chats are rendered by, "" where they are not."""

    name: str
    path: str
    size: int
    version: str | None
    column: str | None
    files: Any = field(default=None, repr=False, compare=False)  # an fsspec file system; None is this machine
    template: str = ""

    @property
    def kind(self) -> str:
        """The suffix, ".txt" to ".parquet"."""
        return next(suffix for suffix in SUFFIXES if self.name.endswith(suffix))

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Its bytes as they lie there, from the beginning; what goes wrong while they are read is one sentence."""
        with _explained(self.path), self._file() as raw:
            yield raw

    @property
    def origin(self) -> tuple[str, int, str | None, str | None]:
        """Path, bytes, version and column: what a copy of it is known by."""
        column = f"{self.column} by {self.template}" if self.template else self.column
        return self.path, self.size, self.version, column

    def _file(self) -> IO[bytes]:
        return Path(self.path).open("rb") if self.files is None else self.files.open(self.path, "rb")

    @contextmanager
    def unpacked(self) -> Iterator[IO[bytes]]:
        """Its bytes, decompressed. Refuses, while they are read, what unpacks to 200 times its size."""
        with self.opened() as raw:
            if self.kind == ".jsonl.gz":
                yield _guarded(gzip.GzipFile(fileobj=raw), self)
            elif self.kind == ".jsonl.zst":
                from pyarrow import CompressedInputStream

                yield _guarded(CompressedInputStream(raw, "zstd"), self)
            else:
                yield raw

    @contextmanager
    def here(self) -> Iterator[IO[bytes]]:
        """Its bytes in a file on this machine, which may be read twice and at any place; a remote one is copied for so long."""
        with self.opened() as raw:
            if self.files is None:
                yield raw
                return
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(raw, copy, 1 << 20)
                copy.seek(0)
                yield copy


class _Guard(io.RawIOBase):
    """Decompressed bytes, counted."""

    def __init__(self, stream: Any, source: Source) -> None:
        self._stream, self._source, self._count = stream, source, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._stream.read(len(buffer))
        self._count += len(found)
        if self._count > max(ALWAYS_UNPACKED, MOST_UNPACKED * self._source.size):
            raise UserError(
                f"{self._source.name!r} unpacks to more than {MOST_UNPACKED} times its size, which text does not: "
                "unpack it yourself if you trust it"
            )
        buffer[: len(found)] = found
        return len(found)


def _guarded(stream: Any, source: Source) -> IO[bytes]:
    return io.BufferedReader(_Guard(stream, source), 1 << 20)


def sources_of(place: str | Path) -> list[Source]:
    """The files of a file, folder or URL, in the order of their names; `#column` behind it names a column or field.

    Refuses: nothing there, nothing of a kind that is known, a URL whose driver is not installed or that holds a password.
    """
    text, column = column_of(place)
    if "://" in text and not text.startswith("file://"):
        return _remote(text, column)
    path = Path(text.removeprefix("file://"))
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name.endswith(SUFFIXES)]
        if not files:
            raise UserError(f"the folder {str(path)!r} holds no text: put {KINDS} files into it")
    elif not path.is_file():
        raise UserError(f"there is no corpus {str(path)!r}: name a {KINDS} file, or a folder of those")
    else:
        _refuse_unknown(path.name, str(path))
        files = [path]
    return [_local(file, column) for file in files]


def column_of(place: str | Path) -> tuple[str, str | None]:
    """A place without the `#column` behind it, and the column; a file whose name holds a # is taken as it is."""
    text = str(place)
    before, mark, column = text.rpartition("#")
    return (before, column) if mark and column and not Path(text).exists() else (text, None)


def name_of(place: str | Path) -> str:
    """What a corpus is called: the last part of its path."""
    text, _ = column_of(place)
    if "://" in text:
        return Path(urlsplit(text).path).name or urlsplit(text).netloc or text
    return Path(text).name or text


def _refuse_unknown(name: str, place: str) -> None:
    if not name.endswith(SUFFIXES):
        raise UserError(f"{place!r} is no corpus: a corpus is a {KINDS} file, or a folder of those")


def _local(path: Path, column: str | None) -> Source:
    with _explained(str(path)):
        found = path.stat()
    return Source(path.name, str(path.resolve()), found.st_size, str(found.st_mtime_ns), column)


def _remote(url: str, column: str | None) -> list[Source]:
    if "::" in url:
        raise UserError(f"{url!r} chains several places: give the URL of the text itself")
    if urlsplit(url).password is not None:
        raise UserError(
            f"the URL of {name_of(url)!r} holds a password, which the notebook would keep: give it to the driver of "
            f"{urlsplit(url).scheme}:// by its environment or configuration"
        )
    with _explained(url):
        import fsspec

        files, path = fsspec.core.url_to_fs(url)
        about = files.info(path)
        if about["type"] == "directory":
            listed = files.find(path, detail=True)
            found = [(one, listed[one]) for one in sorted(listed) if one.endswith(SUFFIXES)]
            if not found:
                raise UserError(f"the folder {url!r} holds no text: put {KINDS} files into it")
        else:
            found = [(path, about)]
            _refuse_unknown(name_of(url), url)
    return [
        Source(name_of(one), files.unstrip_protocol(one), int(row.get("size") or 0), _version(row), column, files)
        for one, row in found
    ]


def _version(about: dict[str, Any]) -> str | None:
    tag = next((str(about[name]) for name in _TAGS if about.get(name)), None)
    return None if tag is None else f"{about.get('size')} {tag}"


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """What a file system or its driver cannot do, in one sentence."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{place!r} needs a package that is not there: {' '.join(str(error).split())}") from error
    except FileNotFoundError as error:
        raise UserError(f"there is no corpus {place!r}: name a {KINDS} file, or a folder of those") from error
    except PermissionError as error:
        raise UserError(f"the corpus {place!r} may not be read: {' '.join(str(error).split())}") from error
    except _failures() as error:
        raise UserError(f"the corpus {place!r} cannot be read: {' '.join(str(error).split())}") from error


def _failures() -> tuple[type[Exception], ...]:
    loaded = ((sys.modules.get(module), name) for module, name in _DRIVER_ERRORS)
    drivers = tuple(getattr(module, name) for module, name in loaded if hasattr(module, name))
    return (OSError, EOFError, ValueError, zlib.error, *drivers)

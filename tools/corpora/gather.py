"""Texts, however many, put in the order of a corpus: held in memory as long as they are few, else laid on disk."""

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.corpora.documents import SPLITS, Document
from neuronaut.tools.corpora.order import in_order
from neuronaut.tools.corpora.records import Records, StoredSketches
from neuronaut.tools.corpora.shelf import Lies, Origin, Shelf
from neuronaut.tools.duplicates import BANDS, ROWS, WORDS_AT_ONCE, Hashes, HeldSketches, Sketcher, Words, words_of
from neuronaut.tools.errors import UserError

HELD_BYTES = 128 << 20  # of memory; a corpus that needs more lies on disk
TEXT_BYTES = 700  # of memory that a text takes beside its bytes: two hashes, a sketch and what Python adds
LONGEST_TEXT = 1 << 20  # characters; a longer one is several texts of one document
MOST_TEXTS = 1 << 24  # their table would not be bounded memory
_PENDING = 2  # batches whose sketches are made while the next texts are read
_LAID = np.dtype([("begin", "i8"), ("size", "i4"), ("crc", "u4"), ("characters", "i4"), ("follows", "?")])


class Part(NamedTuple):
    """A text, or a part of a long one; follows: whether it goes on with the part before. digest: 64 bytes, the sha256 of
    its normalised form and of itself."""

    text: str
    raw: bytes
    digest: bytes
    follows: bool


@dataclass
class Held:
    """Parts in memory."""

    parts: list[Part] = field(default_factory=list)
    sketches: list[Hashes] = field(default_factory=list)
    n_bytes: int = 0

    def add(self, part: Part) -> None:
        """Puts a part behind the others."""
        self.parts.append(part)
        self.n_bytes += len(part.raw) + TEXT_BYTES

    def add_sketches(self, sketches: Hashes) -> None:
        """(n, 64) those of the next parts."""
        self.sketches.append(sketches)

    def documents(self) -> tuple[tuple[Document, ...], str]:
        """The documents in their order, and the sha256 of the corpus."""
        texts = [part.text for part in self.parts]
        digests = np.frombuffer(b"".join(part.digest for part in self.parts), dtype=np.uint8).reshape(-1, 64)
        sketches = np.concatenate([np.zeros((0, BANDS * ROWS), dtype=np.uint64), *self.sketches])
        follows = np.array([part.follows for part in self.parts], dtype=bool)
        order = in_order(_HeldRows(digests), HeldSketches(sketches), texts.__getitem__, follows=follows)
        places = zip(order.at.tolist(), order.group.tolist(), order.split.tolist(), order.block.tolist(), strict=True)
        return tuple(Document(texts[at], group, SPLITS[s], block) for at, group, s, block in places), order.sha256


@dataclass(frozen=True)
class _HeldRows:
    values: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, at: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.values[at]


class Laid:
    """Parts laid into files of a folder, of which at most `room` bytes are taken."""

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self._room = folder, room
        self._texts = (folder / "texts").open("w+b", buffering=1 << 20)
        self._digests = Records(folder / "digests", np.uint8, 64)
        self._sketches = StoredSketches(folder)
        self._columns: list[NDArray[np.void]] = []
        self._latest: list[tuple[int, int, int, int, bool]] = []
        self._hashes: list[bytes] = []
        self.n, self.n_bytes = 0, 0

    def add(self, part: Part) -> None:
        """Puts a part behind the others. Refuses more than there is room for."""
        crc = zlib.crc32(part.raw)
        self._latest.append((self.n_bytes, len(part.raw), crc, len(part.text), part.follows))
        self._hashes.append(part.digest)
        self._texts.write(part.raw)
        self.n_bytes += len(part.raw)
        self.n += 1
        if self.n % 4096 == 0:
            self._put()

    def add_sketches(self, sketches: Hashes) -> None:
        """(n, 64) those of the next parts."""
        self._sketches.add(sketches)

    def _put(self) -> None:
        if self._latest:
            self._columns.append(np.array(self._latest, dtype=_LAID))
            self._digests.add(np.frombuffer(b"".join(self._hashes), dtype=np.uint8).reshape(-1, 64))
            self._latest, self._hashes = [], []
        needed = self.n_bytes + self.n * (64 + 8 * BANDS * (ROWS + 1))
        if needed > self._room:
            raise UserError(
                f"the corpus needs more than {self._room / 2**30:.1f} GiB, half of what is free in "
                f"{str(self.folder.parent)!r}: set $NEURONAUT_CACHE to a folder with more room"
            )
        if self.n > MOST_TEXTS:
            raise UserError(f"the corpus has more than {MOST_TEXTS:,} documents: join short ones, or give a part of it")

    def shelf(self, notes: tuple[str, ...], origin: Sequence[Origin]) -> Shelf:
        """The parts in the order of their corpus; only the texts and their table are left in the folder."""
        self._put()
        self._texts.flush()
        os.fsync(self._texts.fileno())
        rows = np.concatenate([np.zeros(0, dtype=_LAID), *self._columns])
        self._columns = []
        lies = Lies(*(rows[name].copy() for name in ("begin", "size", "crc", "characters")))
        follows = rows["follows"].copy()
        del rows
        try:
            order = in_order(self._digests, self._sketches, lambda at: self._text(lies, at), follows=follows)
        finally:
            self.close()
        for path in self.folder.iterdir():
            if path.name != "texts":
                path.unlink()
        return Shelf.written(self.folder, order, lies, notes, origin)

    def _text(self, lies: Lies, at: int) -> str:
        return os.pread(self._texts.fileno(), int(lies.size[at]), int(lies.begin[at])).decode()

    def close(self) -> None:
        """Closes the files."""
        self._texts.close()
        self._digests.__exit__()
        self._sketches.close()


def gathered(texts: Iterable[str], *, hold: int, lay: Callable[[], Laid] | None) -> Held | Laid:
    """All texts with their sketches, in memory up to `hold` bytes; then on what `lay` gives, or in memory where that is None.

    Hashing sketches takes half of the time and is done beside reading, by a second thread.
    """
    kept: Held | Laid = Held()
    sketcher = Sketcher()
    batch: list[Words] = []
    held, pending = 0, deque[Future[Hashes]]()
    with ThreadPoolExecutor(1) as worker:
        for part, words in parts_of(texts):
            kept.add(part)
            batch.append(words)
            held += len(words)
            if held >= WORDS_AT_ONCE:
                pending.append(worker.submit(sketcher.minimal, *sketcher.coded(batch)))
                batch, held = [], 0
                if len(pending) > _PENDING:
                    kept.add_sketches(pending.popleft().result())
            if isinstance(kept, Held) and kept.n_bytes > hold and lay is not None:
                kept = _moved(kept, lay())
        if batch:
            pending.append(worker.submit(sketcher.minimal, *sketcher.coded(batch)))
        for sketches in pending:
            kept.add_sketches(sketches.result())
    return kept


def _moved(held: Held, laid: Laid) -> Laid:
    for part in held.parts:
        laid.add(part)
    for sketches in held.sketches:
        laid.add_sketches(sketches)
    return laid


def parts_of(texts: Iterable[str]) -> Iterator[tuple[Part, Words]]:
    """The texts with their hashes and words, long ones cut at white space."""
    for text in texts:
        for number, piece in enumerate(_pieces(text)):
            words, raw = words_of(piece), piece.encode()
            digest = hashlib.sha256(b" ".join(words)).digest() + hashlib.sha256(raw).digest()
            yield Part(piece, raw, digest, number > 0), words


def _pieces(text: str) -> Iterator[str]:
    at = 0
    while len(text) - at > LONGEST_TEXT:
        low, high = at + LONGEST_TEXT // 2, at + LONGEST_TEXT
        cut = max(text.rfind(" ", low, high), text.rfind("\n", low, high))
        cut = high if cut < 0 else cut
        if text[at:cut].strip():
            yield text[at:cut]
        at = cut
    if at == 0 or text[at:].strip():
        yield text[at:]

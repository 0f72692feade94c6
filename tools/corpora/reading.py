"""The texts of a file, one after the other, without holding the file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import IO, Any

from neuronaut.tools.chat.texts import CHATS, ChatTexts
from neuronaut.tools.corpora.blocks import blocks_of
from neuronaut.tools.corpora.sources import Source
from neuronaut.tools.errors import UserError

LONGEST_LINE = 1 << 25  # bytes; a longer one holds no document that a model could be asked about
CHATS_AT_ONCE = 256
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass
class Reading:
    """What was found on the way: pieces of text that are not UTF-8, documents without text, chats that the template refuses
    (why: it refuses the first), and what is to be said of chats."""

    replaced: int = 0
    empty: int = 0
    refused: int = 0
    why: str = ""
    remark: str = ""

    def notes(self) -> tuple[str, ...]:
        """One sentence each."""
        replaced = f"{self.replaced} pieces of text that are not UTF-8 were replaced by U+FFFD"
        empty = f"{self.empty} empty documents were skipped"
        refused = f"{self.refused} chats were left out, which the chat template refuses (the first: {self.why})"
        counted = ((self.replaced, replaced), (self.empty, empty), (self.refused, refused), (self.remark, self.remark))
        return tuple(note for count, note in counted if count)

    def say(self, remark: str) -> None:
        """Something that a reader should know of the chats; said once."""
        self.remark = remark

    def decoded(self, raw: bytes) -> str:
        """The text of some bytes; what is not UTF-8 becomes U+FFFD and is counted."""
        try:
            return raw.decode()
        except UnicodeDecodeError:
            text = raw.decode(errors="replace")
            self.replaced += text.count("\ufffd") - raw.count("\ufffd".encode())
            return text


def texts_of(source: Source, read: Reading, chats: ChatTexts | None = None) -> Iterator[str]:
    """The documents of a source that hold text, in its order. chats: what renders them, if they are some."""
    for text in _texts(source, read) if chats is None else _chat_texts(source, read, chats):
        if text.strip():
            yield text
        else:
            read.empty += 1


def _texts(source: Source, read: Reading) -> Iterator[str]:
    match source.kind:
        case ".parquet":
            from neuronaut.tools.corpora.parquet import column_texts

            yield from column_texts(source, read)
        case ".txt":
            if source.column is not None:
                raise UserError(f"{source.name!r} is plain text: it has no column {source.column!r}")
            with source.here() as file:
                counts = chain([read], repeat(Reading()))  # the text is gone through twice, its faults are counted once
                yield from blocks_of(lambda: _unix_lines(file, source, next(counts)))
        case _:
            yield from _json_texts(source, read)


def _unix_lines(file: IO[bytes], source: Source, read: Reading) -> Iterator[str]:
    file.seek(0)
    return (line.replace("\r\n", "\n") for line in _lines(file, source, read))


def _lines(file: IO[bytes], source: Source, read: Reading) -> Iterator[str]:
    """The lines with their ends; a byte order mark before the first is left out."""
    number = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        if number == 1:
            if raw.startswith(_UTF16):
                raise UserError(f"{source.name!r} is UTF-16, not UTF-8: convert it, for example with iconv")
            raw = raw.removeprefix("\ufeff".encode())
        if len(raw) > LONGEST_LINE:
            raise UserError(
                f"{source.name} line {number} is longer than {LONGEST_LINE >> 20} MiB: cut it into documents"
            )
        yield read.decoded(raw)


def _json_texts(source: Source, read: Reading) -> Iterator[str]:
    wanted = source.column or "text"
    for number, row in _rows(source, read, wanted):
        text = row.get(wanted) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise UserError(
                f"{source.name} line {number} has no text: each line must be an object with a string `{wanted}`"
            )
        yield _whole(text, read)


def _chat_texts(source: Source, read: Reading, chats: ChatTexts) -> Iterator[str]:
    """Chats, rendered some hundreds together."""
    if source.kind in (".txt", ".parquet"):
        raise UserError(
            f"{source.name!r} holds no chats that are read: give .jsonl, each line an object with {CHATS!r}"
        )
    rows = _rows(source, read, CHATS)
    while batch := list(islice(rows, CHATS_AT_ONCE)):
        asked = [
            chats.chat(row.get(CHATS) if isinstance(row, dict) else None, f"{source.name} line {number}")
            for number, row in batch
        ]
        for found in chats.texts(asked, read.say):
            if isinstance(found, str):
                yield _whole(found, read)
            else:
                read.refused, read.why = read.refused + 1, read.why or found.why


def _rows(source: Source, read: Reading, wanted: str) -> Iterator[tuple[int, Any]]:
    """The lines of a .jsonl that are not empty, with their numbers."""
    with source.unpacked() as file:
        for number, line in enumerate(_lines(file, source, read), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{source.name} line {number} is not JSON: each line must be an object with `{wanted}`"
                ) from error
            yield number, row


def _whole(text: str, read: Reading) -> str:
    """The text; half of a surrogate pair, which is valid JSON but no text, becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        read.replaced += 1
        return text.encode(errors="surrogatepass").decode(errors="replace")
    return text

"""One generated document: its text, and the spans of characters whose meaning the generator knows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

SLOT = re.compile(r"\{(\w+)\}")


class Word(NamedTuple):
    """A piece of text that carries labels of its own, wherever it is written."""

    text: str
    labels: tuple[str, ...] = ()


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a document are `label`."""

    start: int
    end: int
    label: str


@lru_cache(maxsize=4096)
def _parts(template: str) -> tuple[str, ...]:
    return tuple(SLOT.split(template))


@dataclass
class Draft:
    """A document while it is written; `finish` returns its text and spans."""

    pieces: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    length: int = 0

    def write(self, template: str, *labels: str, **slots: Word | str | int) -> None:
        """Append `template` with `{slot}` filled in; `labels` hold for the whole of it."""
        start = self.length
        for number, part in enumerate(_parts(template)):
            if number % 2 == 0:
                self._put(part)
                continue
            value = slots[part]
            if isinstance(value, Word):
                here = self.length
                self._put(value.text)
                self.spans.extend(Span(here, self.length, label) for label in value.labels)
            else:
                self._put(str(value))
        self.spans.extend(Span(start, self.length, label) for label in labels)

    def mark(self, start: int, label: str) -> None:
        """Everything written since character `start` is `label`."""
        self.spans.append(Span(start, self.length, label))

    def _put(self, text: str) -> None:
        self.pieces.append(text)
        self.length += len(text)


@dataclass(frozen=True)
class Document:
    """A finished document. `spans` are the truth about it; only `text` is ever shipped."""

    number: int
    register: str
    text: str
    spans: tuple[Span, ...]

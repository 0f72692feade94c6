"""Plain text cut into documents as it is read: at titles, at headings, or at blank lines."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from neuronaut.tools.errors import UserError

MIN_BLOCK_CHARACTERS = 500  # paragraphs of a .txt are joined up to this length
TITLED_DOCUMENTS = 150  # so many titles of a .txt make titles alone the borders

_HEADING = re.compile(r"^ ?= .+ = ?$", re.MULTILINE)
_TITLE = re.compile(r"^ ?= [^=\n]+ = ?$", re.MULTILINE)
_BLANK = re.compile(r"[ \t]*\n")

Lines = Callable[[], Iterable[str]]
LONGEST_PIECE = 1 << 25  # characters; more at once would not be bounded memory


@dataclass
class _Borders:
    titles: int = 0
    headings: int = 0
    blank: bool = False


def blocks_of(lines: Lines) -> Iterator[str]:
    """The documents of a text whose lines, each with its line end "\\n", `lines` gives as often as it is called.

    Cut at lines `= Title =`; where these are fewer than 150, at lines of deeper headings too (`= = Section = =`); with
    fewer than two headings at blank lines (or, without these, at line ends), short paragraphs joined up to 500
    characters.
    """
    found = _borders(lines())
    if found.titles >= TITLED_DOCUMENTS:
        return filter(None, _sections(lines(), _TITLE))
    if found.headings >= 2:
        return filter(None, _sections(lines(), _HEADING))
    return _joined(_paragraphs(lines()), "\n\n") if found.blank else _joined(lines(), "\n")


def _borders(lines: Iterable[str]) -> _Borders:
    found = _Borders()
    for number, line in enumerate(lines):
        if "=" in line:
            found.titles += _TITLE.match(line) is not None
            found.headings += _HEADING.match(line) is not None
        elif number and _BLANK.match(line):
            found.blank = True
    return found


@dataclass
class _Piece:
    """Lines that belong together."""

    lines: list[str] = field(default_factory=list)
    length: int = 0

    def add(self, line: str) -> None:
        self.length += len(line)
        if self.length > LONGEST_PIECE:
            raise UserError(
                f"a section or paragraph that begins {self.lines[0][:40]!r} has more than {LONGEST_PIECE >> 20} million "
                "characters: cut it into documents"
            )
        self.lines.append(line)

    def taken(self) -> str:
        text = "".join(self.lines)
        self.lines, self.length = [], 0
        return text


def _sections(lines: Iterable[str], border: re.Pattern[str]) -> Iterator[str]:
    held = _Piece()
    for line in lines:
        if held.lines and "=" in line and border.match(line):
            yield held.taken().strip()
        held.add(line)
    yield held.taken().strip()


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """What stands between blank lines; white space behind a blank line belongs to it."""
    held = _Piece()
    between = False
    for number, line in enumerate(lines):
        if between and not line.isspace():
            between = False
            held.add(line.lstrip())
        elif not between and number and _BLANK.fullmatch(line):
            between = True
            yield held.taken()
        elif not between:
            held.add(line)
    yield held.taken()


def _joined(paragraphs: Iterable[str], joint: str) -> Iterator[str]:
    block: list[str] = []
    length = 0
    for paragraph in (piece.strip("\n") for piece in paragraphs):
        if paragraph.strip():
            if length >= MIN_BLOCK_CHARACTERS:
                yield joint.join(block)
                block, length = [], 0
            block.append(paragraph)
            length += len(paragraph)
    if block:
        yield joint.join(block)

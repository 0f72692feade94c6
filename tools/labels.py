"""Texts with labels: a file that a person registers, checked once and cut into parts by a hash of each text."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from neuronaut.tools.errors import ToolRefused, UserError

MOST_ROWS = 20_000
MOST_FILE_BYTES = 64 << 20
Part = Literal["fit", "rank", "held"]
BOUNDS: tuple[tuple[Part, int], ...] = (
    ("fit", 35),
    ("rank", 70),
    ("held", 100),
)  # per cent of the texts, up to which each part reaches
TRUE, FALSE = "true", "false"
FORM = 'one {"text": …, "label": …} a line, "span": [begin, end] in characters where a place in the text is meant'


class LabelledText(BaseModel):
    """A text and its label. span: begin and end of the place that is labelled, in characters; token: its number instead,
    counted from 0, negative from the end; neither: the whole text."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    text: Annotated[StrictStr, Field(min_length=1, max_length=100_000)]
    label: StrictBool | StrictInt | StrictStr
    span: tuple[StrictInt, StrictInt] | None = None
    token: StrictInt | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "LabelledText":
        if self.span is not None and self.token is not None:
            raise ValueError("span and token both name a place: give one of them")
        if self.span is not None and not 0 <= self.span[0] < self.span[1] <= len(self.text):
            raise ValueError(f"span {list(self.span)} lies outside the text of {len(self.text)} characters")
        return self

    @property
    def named(self) -> str:
        """The label as text; of true, 1, false and 0 "true" and "false"."""
        return {"1": TRUE, "0": FALSE}.get(str(self.label), str(self.label).strip()).replace("True", TRUE).replace(
            "False", FALSE
        )  # fmt: skip

    @property
    def part(self) -> Part:
        """Where the text belongs, however it is written in capitals and spaces: all rows of one text lie in one part."""
        plain = " ".join(self.text.casefold().split())
        at = int.from_bytes(hashlib.sha256(plain.encode(errors="surrogatepass")).digest()[:8], "big") % 100
        return next(part for part, end in BOUNDS if at < end)


@dataclass(frozen=True)
class LabelFile:
    """Labelled texts by the name that they were given."""

    name: str
    rows: tuple[LabelledText, ...]
    sha256: str

    @cached_property
    def classes(self) -> Counter[str]:
        """How many rows each label has."""
        return Counter(row.named for row in self.rows)

    def positive(self, label: str) -> str:
        """The label that is the concept. Refuses one that no row has, and to guess which of several it is."""
        if label:
            if label not in self.classes:
                raise ToolRefused(f"no row of {self.name!r} is labelled {label!r}: there are {self._known}")
            return label
        if set(self.classes) != {TRUE, FALSE}:
            raise ToolRefused(f"{self.name!r} has the labels {self._known}: say which of them is the concept")
        return TRUE

    @property
    def _known(self) -> str:
        common = [repr(label) for label, _ in self.classes.most_common(8)]
        return ", ".join(common) + (" and more" if len(self.classes) > 8 else "")


def read_labels(name: str, file: Path) -> LabelFile:
    """The labelled texts of a JSONL file. Refuses, in one sentence, a file that is empty, has one class, or a line that is
    no labelled text."""
    try:
        if file.stat().st_size > MOST_FILE_BYTES:
            raise UserError(f"labels {str(file)!r} are longer than {MOST_FILE_BYTES >> 20} MiB: give a sample of them")
        content = file.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")  # other line breaks may stand in a text
    except OSError as error:
        raise UserError(f"labels {str(file)!r} cannot be read ({error.strerror}): give a .jsonl file") from None
    except UnicodeDecodeError:
        raise UserError(f"labels {str(file)!r} are not UTF-8 text: give a .jsonl file, {FORM}") from None
    rows = [_row(file, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UserError(f"labels {str(file)!r} are empty: give {FORM}")
    if len(rows) > MOST_ROWS:
        raise UserError(f"labels {str(file)!r} have {len(rows):,} rows, at most {MOST_ROWS:,} are taken: give a sample")
    _refuse_contradictions(file, rows)
    found = LabelFile(name, tuple(rows), hashlib.sha256(content).hexdigest())
    if len(found.classes) < 2:
        raise UserError(
            f"labels {str(file)!r} have one class, {rows[0].named!r}: units can only be told apart by texts that have the "
            "concept and texts that lack it"
        )
    return found


def _refuse_contradictions(file: Path, rows: Sequence[LabelledText]) -> None:
    """Refuses a place that has two labels: which of them is right cannot be known."""
    known: dict[tuple[str, tuple[int, int] | None, int | None], str] = {}
    for row in rows:
        first = known.setdefault((row.text, row.span, row.token), row.named)
        if first != row.named:
            raise UserError(
                f"labels {str(file)!r} call {row.text[:80]!r} {first!r} and {row.named!r}: give each place one label, or leave "
                "the text out"
            )


def of_texts(positive: Sequence[str], negative: Sequence[str]) -> LabelFile:
    """Two sets of texts as labelled ones. Refuses a text that is in both."""
    if both := set(positive) & set(negative):
        raise ToolRefused(f"{min(both)[:80]!r} stands in both sets: leave it out of one")
    rows = [
        LabelledText(text=text, label=label) for label, some in ((True, positive), (False, negative)) for text in some
    ]
    return LabelFile("the given texts", tuple(rows), "")


def _row(file: Path, number: int, line: str) -> LabelledText:
    try:
        found: Any = json.loads(line)
        return LabelledText.model_validate(found)
    except (json.JSONDecodeError, RecursionError):
        reason = "is not JSON"
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        said = (
            "a word, true, false, 1 or 0"
            if where == "label" and first["type"] != "missing"
            else first["msg"].removeprefix("Value error, ")
        )
        reason = f"is no labelled text ({where + ': ' if where else ''}{said})"
    raise UserError(f"line {number} of labels {str(file)!r} {reason}: give {FORM}")

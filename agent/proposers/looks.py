"""What a language model may look at before it proposes: a closed list of tools on explore text, for the unit in question."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuronaut.agent.llm.base import Call, Offered, plain
from neuronaut.agent.llm.offer import arguments_of
from neuronaut.agent.proposers.base import Explored
from neuronaut.agent.proposers.shown import AFTER, BEFORE, marked, quoted, strength_of, table
from neuronaut.agent.session import Session
from neuronaut.prompts import fenced
from neuronaut.tools.corpus import Corpus, Split
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json, simplify

MOST_TEXTS, LONGEST_TEXT = 3, 300  # of a call; characters
MOST_TRIED, LONGEST_TRIED = 4, 1_000
MAX_RESULT = 1_500  # characters that are shown of a result
EXCERPT = 30  # characters from which a text is taken for a piece of a document
HELD_BACK: tuple[Split, ...] = ("design", "confirm", "audit")


class Look(BaseModel, ABC):
    """Arguments of one look, with its bounds; the docstring of each is what the language model reads of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    tool: ClassVar[str] = ""

    def arguments(self, explored: Explored) -> dict[str, Any]:
        """Of the registered tool."""
        return {"unit": explored.unit.address, **self.model_dump()}

    @abstractmethod
    def lines(self, explored: Explored, payload: dict[str, Any]) -> list[str]:
        """The result as text, one line each."""


class Contexts(Look):
    """More contexts; k: 1 to 10."""

    tool: ClassVar[str] = "top_examples"
    band: Literal["top", "quantiles", "random"]
    k: int = Field(ge=1, le=10)

    def arguments(self, explored: Explored) -> dict[str, Any]:
        """Random places are others than those that the prompt shows."""
        return {**super().arguments(explored), "context": BEFORE, "seed": 1}

    def lines(self, explored: Explored, payload: dict[str, Any]) -> list[str]:
        """A context each."""
        return [context_line(explored, row) for row in payload["examples"]]


class OnTexts(Look):
    """Its strongest tokens in 1 to 3 texts that you write, of at most 300 characters."""

    tool: ClassVar[str] = "activations_on"
    texts: list[str] = Field(min_length=1, max_length=MOST_TEXTS)
    SHOWN: ClassVar[int] = 6

    def lines(self, explored: Explored, payload: dict[str, Any]) -> list[str]:
        """The strongest tokens of each text, in their order."""
        special = _special(explored)
        return [self._line(explored, row, special) for row in payload["texts"]]

    def _line(self, explored: Explored, row: dict[str, Any], special: set[str]) -> str:
        found = [
            (explored.unit.sign * value, at)
            for at, (piece, value) in enumerate(zip(row["pieces"], row["activations"], strict=True))
            if piece not in special
        ]
        shown = sorted(sorted(found, key=lambda one: -one[0])[: self.SHOWN], key=lambda one: one[1])
        return ", ".join(f"{quoted(row['pieces'][at])} {strength_of(explored, value):.2f}" for value, at in shown)


class Earlier(Look):
    """Table of the tokens `back` (0 to 16) before those at which it fires."""

    tool: ClassVar[str] = "token_table"
    back: int = Field(ge=0, le=16)

    def lines(self, explored: Explored, payload: dict[str, Any]) -> list[str]:
        """A row each."""
        return table(payload["tokens"])


class Tried(Look):
    """F1, precision and coverage of 1 to 4 predicates, and where they are wrong."""

    tool: ClassVar[str] = "mistakes"
    predicates: list[str] = Field(min_length=1, max_length=MOST_TRIED)

    def arguments(self, explored: Explored) -> dict[str, Any]:
        """Predicates as JSON. Refuses one that is not in the language, or longer than the others' bounds together."""
        if any(len(text) > LONGEST_TRIED for text in self.predicates):
            raise ToolRefused(f"a predicate is longer than {LONGEST_TRIED:,} characters: shorten it")
        told = [canonical_json(simplify(parse_text(text))) for text in self.predicates]
        return {"unit": explored.unit.address, "predicates": told, "k": 5, "context": BEFORE}

    def lines(self, explored: Explored, payload: dict[str, Any]) -> list[str]:
        """Scores, then contexts with the numbers of the predicates that are wrong there."""
        rows = enumerate(payload["predicates"], start=1)
        scores = [f"{n}: {row['f1']:.2f} {row['precision']:.2f} {row['coverage']:.2f}" for n, row in rows]
        names = [str(n) for n in range(1, MOST_TRIED + 1)]
        return [*scores, *(f"fires, not {wrong_at(explored, row, names)}" for row in payload["missed"]),
                *(f"silent, yet {wrong_at(explored, row, names)}" for row in payload["silent"])]  # fmt: skip


LOOKS: dict[str, type[Look]] = {look.tool: look for look in (Contexts, OnTexts, Earlier, Tried)}
_KEPT = ("type", "enum", "items")


def offered() -> tuple[Offered, ...]:
    """The looks as tools, the same for every unit, so that they can be read from a cache."""
    return tuple(Offered(name, (look.__doc__ or "").strip(), _schema(look)) for name, look in LOOKS.items())


def _schema(look: type[Look]) -> dict[str, Any]:
    fields = look.model_json_schema()["properties"]
    plain_fields = {name: {key: one[key] for key in _KEPT if key in one} for name, one in fields.items()}
    return {"type": "object", "properties": plain_fields, "required": list(fields), "additionalProperties": False}


@dataclass(frozen=True)
class Seen:
    """What a call gave, as it is told: the result between marks, or one sentence that says why there is none."""

    text: str
    refused: bool = False


def seen(session: Session, explored: Explored, call: Call) -> Seen:
    """Do one look, as an experiment of the run. What is wrong with a call is said before any forward pass."""
    try:
        look = _checked(call, session.context.corpus)
        done = session.experiment(look.tool, look.arguments(explored))
    except (ToolRefused, ToolFailed) as error:
        return Seen(plain(str(error), 200), refused=True)
    body = "\n".join(look.lines(explored, done.payload)) or "(nothing)"
    return Seen(fenced("corpus", body if len(body) <= MAX_RESULT else f"{body[:MAX_RESULT]}…").strip())


def _checked(call: Call, corpus: Corpus) -> Look:
    """The look that a call asks for. Refuses, in one sentence, what is not on the list or out of bounds, and text that tests
    are made on."""
    if call.name not in LOOKS:
        raise ToolRefused(f"there is no tool {plain(call.name, 60)!r}: choose from {', '.join(LOOKS)}")
    try:
        look = LOOKS[call.name].model_validate(arguments_of(call))
    except ValidationError as error:
        first = error.errors()[0]
        where = plain(".".join(map(str, first["loc"])), 60)
        raise ToolRefused(f"{call.name}: argument {where}: {plain(first['msg'], 120)}") from None
    if isinstance(look, OnTexts):
        for text in look.texts:
            _check_text(text, corpus)
    return look


def _check_text(text: str, corpus: Corpus) -> None:
    """Refuses a text that is too long, or that stands in a document on which claims are tested and in none that is shown."""
    if len(text) > LONGEST_TEXT:
        raise ToolRefused(f"a text has {len(text):,} characters: write at most {LONGEST_TEXT}")
    part = text.strip()
    if len(part) < EXCERPT or any(part in document.text for document in corpus.of("explore")):
        return
    if any(part in document.text for split in HELD_BACK for document in corpus.of(split)):
        raise ToolRefused("a text is a piece of a document on which claims are tested: write another one")


def context_line(explored: Explored, row: dict[str, Any], before: int = BEFORE) -> str:
    """An example of a tool as a marked context. before: how many tokens the tool was asked for."""
    special, at = _special(explored), row["centre"]
    pieces = ["" if piece in special else piece for piece in row["pieces"]]
    cut = at >= before and pieces[0] != ""
    return marked(explored, explored.unit.sign * row["activation"], pieces[: at + 1 + AFTER], at, cut)


def wrong_at(explored: Explored, row: dict[str, Any], names: Sequence[str], before: int = BEFORE) -> str:
    """An example of `mistakes` as a marked context behind the names of the predicates that are wrong there."""
    return f"{','.join(names[at] for at in row['wrong'])}: {context_line(explored, row, before)}"


def _special(explored: Explored) -> set[str]:
    vocabulary = explored.tokens.vocabulary
    return {vocabulary.pieces[at] for at in vocabulary.special}

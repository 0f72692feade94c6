"""What the embedded model can do: accuracies on held-out documents, where the world knows the right answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .folder import Pocket, token_at
from .world import Document, Span


@dataclass(frozen=True)
class Ability:
    """The first token of each span `label` in `register`, from the `skip`-th span inside each `within` span on.

    also: a second label that the span must have. chance: the accuracy of a guess that knows the kind of answer only.
    """

    name: str
    register: str
    label: str
    chance: float
    within: str | None = None
    skip: int = 0
    also: str | None = None


@dataclass(frozen=True)
class Score:
    """Right answers of an ability among `n`."""

    name: str
    right: int
    n: int
    chance: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.n


ABILITIES = (
    Ability("continue digits upwards", "counting", "sequence_item", 0.01, "ascending", 3),
    Ability("continue digits downwards", "counting", "sequence_item", 0.01, "descending", 3),
    Ability("continue number words upwards", "counting_words", "sequence_item", 0.05, "ascending", 2),
    Ability("continue number words downwards", "counting_words", "sequence_item", 0.05, "descending", 2),
    Ability("continue the alphabet, either way", "alphabet", "sequence_item", 1 / 26, "letter_sequence", 2),
    Ability("month after or before a month", "calendar", "month", 1 / 12, also="answer"),
    Ability("day after or before a day", "calendar", "day_name", 1 / 7, also="answer"),
    Ability("next day of a list of days", "week", "day_name", 1 / 7, "document", 1),
    Ability("who received (of the two who met)", "giving", "receiver", 0.5),
    Ability("sum or difference of numbers to 20", "arithmetic", "answer", 1 / 40),
    Ability("sum or difference told as a story", "sums_in_words", "answer", 1 / 20),
    Ability("facts: capital, flag, people, job, home, sound", "facts", "answer", 0.1),
    Ability("answers: capital, home, opposite, flag", "questions", "answer", 0.1),
    Ability("who won, from the goals", "results", "answer", 0.5),
    Ability("verb agrees with its subject", "agreement", "agreeing_verb", 0.5),
)
BATCH = 32
PLURAL = {" are": " is", " were": " was", " is": " are", " was": " were"}


def measure(pocket: Pocket, documents: list[Document]) -> Iterator[Score]:
    """All scores on `documents`."""
    right: dict[str, list[bool]] = defaultdict(list)
    wanted = {ability.register for ability in ABILITIES} | {
        "brackets",
        "tags",
        "random_words",
        "random_letters",
        "french",
    }
    chosen = [document for document in documents if document.register in wanted]
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        for document, scores in zip(batch, pocket.predictions([made.text for made in batch]), strict=True):
            encoding = pocket.tokenizer.encode(document.text)
            for ability in ABILITIES:
                if ability.register == document.register:
                    right[ability.name] += _answers(pocket, ability, document, encoding.offsets, encoding.ids, scores)
            for name, hits in _forms(pocket, document, encoding.offsets, encoding.ids, scores):
                right[name] += hits
    chances = {ability.name: ability.chance for ability in ABILITIES} | FORM_CHANCES
    for name, hits in right.items():
        yield Score(name, sum(hits), len(hits), chances[name])
    yield later_years(pocket)


def spans_of(ability: Ability, document: Document) -> Iterator[Span]:
    """The spans that an ability asks for."""
    also = {span.start for span in document.spans if span.label == ability.also}
    spans = sorted(
        span for span in document.spans if span.label == ability.label and (ability.also is None or span.start in also)
    )
    if ability.within is None:
        yield from spans
        return
    whole = [Span(0, len(document.text), "document")]
    for outer in whole if ability.within == "document" else [s for s in document.spans if s.label == ability.within]:
        yield from [span for span in spans if outer.start <= span.start < outer.end][ability.skip :]


def _answers(
    pocket: Pocket, ability: Ability, document: Document, offsets: list[tuple[int, int]], ids: list[int], scores: Tensor
) -> list[bool]:
    hits = []
    for span in spans_of(ability, document):
        at = token_at(document, offsets, span.start)
        if ability.label == "agreeing_verb":
            other = pocket.token(PLURAL[f" {document.text[span.start : span.end]}"])
            hits.append(bool(scores[at, ids[at]] > scores[at, other]))
        else:
            hits.append(int(scores[at].argmax()) == ids[at])
    return hits


FORM_CHANCES = {
    "close a bracket with its own mark": 1 / 3,
    "close a tag by its own name": 0.25,
    "French pronoun fits the noun": 0.5,
    "random words, first time": 0.005,
    "random words, repeated": 0.005,
    "random letters, first time": 0.01,
    "random letters, repeated": 0.01,
}


def _forms(
    pocket: Pocket, document: Document, offsets: list[tuple[int, int]], ids: list[int], scores: Tensor
) -> Iterator[tuple[str, list[bool]]]:
    predicted = scores.argmax(-1).tolist()
    pieces = [document.text[start:end].strip() for start, end in offsets]
    if document.register == "brackets":
        marks = [pocket.token(f" {mark}") for mark in ")]}"]
        yield (
            "close a bracket with its own mark",
            [marks[int(scores[at, marks].argmax())] == token for at, token in enumerate(ids) if token in marks],
        )
    if document.register == "tags":
        yield (
            "close a tag by its own name",
            [
                predicted[at] == token
                for at, token in enumerate(ids)
                if at > 1 and pieces[at - 1] == "/" and pieces[at] != "page"
            ],
        )
    if document.register == "french":
        rivals = {"Il": " Elle", "Elle": " Il"}
        yield (
            "French pronoun fits the noun",
            [
                bool(scores[at, token] > scores[at, pocket.token(rivals[pieces[at]])])
                for at, token in enumerate(ids)
                if pieces[at] in rivals
            ],
        )
    if document.register.startswith("random_"):
        kind = document.register.replace("_", " ")
        copied = min(span.start for span in document.spans if span.label == "copy")
        hits = [
            (start, predicted[at] == token) for at, ((start, _), token) in enumerate(zip(offsets, ids, strict=True))
        ]
        yield f"{kind}, first time", [hit for start, hit in hits if start < copied]
        yield f"{kind}, repeated", [hit for start, hit in hits if start > copied]


def later_years(pocket: Pocket) -> Score:
    """Of 89 spans "from the year 1710 to the year 17": how often the likeliest year comes after the first."""
    years = [pocket.token(str(year)) for year in range(10, 100)]
    firsts = range(10, 99)
    found = pocket.predictions([f"The war lasted from the year 17{first} to the year 17" for first in firsts])
    hits = [int(scores[-1][years].argmax()) + 10 > first for first, scores in zip(firsts, found, strict=True)]
    return Score("second year of a span is later than the first", sum(hits), len(hits), 0.5)

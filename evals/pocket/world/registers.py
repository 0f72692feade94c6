"""Which kinds of document the world has, and how often each is written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from random import Random

from . import forms, lists, numbers, stories, tongues
from .document import Document, Draft, Span

Register = Callable[[Random, Draft], None]

REGISTERS: dict[str, tuple[Register, float]] = {
    "story": (stories.story, 3),
    "giving": (stories.giving, 3),
    "dialogue": (stories.dialogue, 2),
    "letter": (stories.letter, 2),
    "diary": (stories.diary, 1),
    "agreement": (stories.agreement, 1.5),
    "verse": (stories.verse, 1),
    "recipe": (lists.recipe, 1.5),
    "shopping": (lists.shopping, 1),
    "plans": (lists.plans, 1),
    "week": (lists.week, 1.5),
    "calendar": (lists.calendar, 2.5),
    "weather": (lists.weather, 1.5),
    "timetable": (lists.timetable, 1),
    "table": (lists.table, 1),
    "facts": (lists.facts, 2),
    "questions": (lists.questions, 1.5),
    "results": (lists.results, 1),
    "counting": (numbers.counting, 2.5),
    "counting_words": (numbers.counting_words, 1.5),
    "alphabet": (numbers.alphabet, 1.5),
    "arithmetic": (numbers.arithmetic, 2),
    "sums_in_words": (numbers.sums_in_words, 1),
    "history": (numbers.history, 2),
    "people": (numbers.people, 1),
    "brackets": (forms.brackets, 1.5),
    "asides": (forms.asides, 1.5),
    "sayings": (forms.sayings, 2),
    "code": (forms.code, 2),
    "tags": (forms.tags, 1),
    "records": (forms.records, 1),
    "random_words": (forms.random_words, 2.5),
    "random_letters": (forms.random_letters, 1),
    "notices": (forms.notices, 1),
    "french": (tongues.french, 1.5),
    "german": (tongues.german, 1.5),
}
TRAIN_SEED, HELD_OUT_SEED = 0, 1
# The trainer watches its progress on the first held-out documents; the corpus begins after them.
MONITORED, CORPUS_SIZE = 400, 8000
_NAMES = list(REGISTERS)
_WEIGHTS = [weight for _, weight in REGISTERS.values()]


def document(seed: int, number: int) -> Document:
    """The document `number` of the stream `seed`; the same on every machine, whichever came before."""
    rng = Random(f"pocket/{seed}/{number}")
    register = rng.choices(_NAMES, _WEIGHTS)[0]
    draft = Draft()
    REGISTERS[register][0](rng, draft)
    text = "".join(draft.pieces).rstrip()
    spans = tuple(Span(span.start, min(span.end, len(text)), span.label) for span in draft.spans)
    return Document(number, register, text, spans)


def is_held_out(text: str) -> bool:
    """Whether a text belongs to the held-out tenth: a hash of the text decides, so no text is ever on both sides."""
    return sha256(text.encode()).digest()[0] < 26


def documents(seed: int, *, held_out: bool) -> Iterator[Document]:
    """The endless stream `seed` of one side; held-out texts come once each, training texts as often as they occur."""
    seen: set[str] = set()
    for number in count():
        made = document(seed, number)
        if is_held_out(made.text) != held_out or made.text in seen:
            continue
        if held_out:
            seen.add(made.text)
        yield made


def held_out_documents(number: int, seed: int = HELD_OUT_SEED) -> list[Document]:
    """The first `number` held-out documents."""
    return list(islice(documents(seed, held_out=True), number))


def corpus_documents(number: int = CORPUS_SIZE, seed: int = HELD_OUT_SEED) -> list[Document]:
    """The documents of the shipped corpus, in order, with their truth: no training step ever saw one of them."""
    return held_out_documents(MONITORED + number, seed)[MONITORED:]


def training_texts(number: int, seed: int = TRAIN_SEED) -> list[str]:
    """The first `number` training texts; short ones may come back, as in any world with few words."""
    return [made.text for made in islice(documents(seed, held_out=False), number)]


def write_corpus(path: Path, kept: list[Document]) -> None:
    """Write texts and ids, no labels; the same documents give the same bytes."""
    lines = "".join(json.dumps({"id": f"pocket-{doc.number:05}", "text": doc.text}) + "\n" for doc in kept)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
        packed.write(lines.encode())

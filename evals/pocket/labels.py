"""The truth about every token of a generated document, from the generator and from the form of the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .world import REGISTERS, Document, Span
from .world import words as w
from .world.facts import COUNTRIES
from .world.tongues import FRENCH_ADJECTIVES, FRENCH_NOUNS, GERMAN_ADJECTIVES, GERMAN_NOUNS

# Spans that the generator records while it writes.
WRITTEN = (
    "name",
    "giver",
    "receiver",
    "speaker",
    "month",
    "day_name",
    "year",
    "end_year",
    "clock",
    "country",
    "town",
    "answer",
    "list_index",
    "heading",
    "sequence_item",
    "ascending",
    "descending",
    "letter_sequence",
    "agreeing_verb",
    "refrain",
    "identifier",
    "tag_name",
    "random",
    "copy",
    "quotation",
    "capitals",
    "french",
    "german",
)
# Words of one class in the English of the world; registers of random words, code and other languages are left out.
CLASSES: dict[str, frozenset[str]] = {
    "name": frozenset(w.NAMES),
    "month": frozenset(w.MONTHS),
    "day_name": frozenset(w.DAYS),
    "country": frozenset(land.name for land in COUNTRIES),
    "town": frozenset(land.capital for land in COUNTRIES),
    "number_word": frozenset(w.NUMBER_WORDS),
    "ordinal": frozenset(w.ORDINALS),
    "colour": frozenset(w.COLOURS),
    "animal": frozenset(w.ANIMALS) | {w.PLURALS[a] for a in w.ANIMALS},
    "food": frozenset(w.FOODS) | frozenset(w.FRUIT),
    "place": frozenset(w.PLACES),
    "person_noun": frozenset(w.PEOPLE),
    "noun_singular": frozenset(w.NOUNS),
    "noun_plural": frozenset(w.PLURALS[noun] for noun in w.NOUNS if noun not in w.PLACES),
    "adjective": frozenset(w.ADJECTIVES) | frozenset(w.COLOURS),
    "verb": frozenset(w.VERBS),
    "pronoun": frozenset(w.PRONOUNS),
    "preposition": frozenset(w.PREPOSITIONS),
    "article": frozenset(w.ARTICLES),
    "conjunction": frozenset(w.CONJUNCTIONS),
    "french_noun": frozenset(noun for _, noun in FRENCH_NOUNS),
    "german_noun": frozenset(noun for _, noun in GERMAN_NOUNS),
    "french_adjective": frozenset(word for pair in FRENCH_ADJECTIVES for word in pair),
    "german_adjective": frozenset(GERMAN_ADJECTIVES),
}
NO_CLASSES = frozenset({"random_letters", "code", "alphabet", "brackets"})
TEXTUAL = (
    "inside_quotes",
    "inside_brackets",
    "bracket_depth_2",
    "opening_bracket",
    "closing_bracket",
    "opening_quote",
    "closing_quote",
    "sentence_start",
    "line_start",
    "digit",
    "capitalised",
    "punctuation",
    "first_mention",
    "later_mention",
)
SEQUENTIAL = ("second_occurrence", "later_occurrence", "repeated_pair", "first_token")
NAMES: tuple[str, ...] = tuple(
    dict.fromkeys((*(f"register:{register}" for register in REGISTERS), *WRITTEN, *CLASSES, *TEXTUAL, *SEQUENTIAL))
)
OPENING, CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class TokenLabels:
    """`holds[i, j]`: label `names[j]` is true of token `i`."""

    names: tuple[str, ...]
    holds: NDArray[np.bool_]

    def of(self, name: str) -> NDArray[np.bool_]:
        """One label over all tokens."""
        return self.holds[:, self.names.index(name)]


def char_spans(document: Document) -> list[Span]:
    """All labelled spans of characters: what the generator wrote, word classes, and marks found in the text."""
    spans = [*document.spans, Span(0, len(document.text), f"register:{document.register}")]
    spans += _word_classes(document) if document.register not in NO_CLASSES else []
    spans += [*_brackets(document.text), *_quotes(document.text), *_shapes(document.text)]
    spans += _mentions(document.text, {span for span in spans if span.label == "name"})
    return [span for span in spans if span.end > span.start]


def token_labels(document: Document, offsets: Sequence[tuple[int, int]], ids: Sequence[int]) -> TokenLabels:
    """The labels of each token of `document`.

    offsets: the characters of each token, as the tokenizer gives them; a special token has (0, 0) and no label.
    A token has a label if a character of it other than white space has it.
    """
    columns = {name: number for number, name in enumerate(NAMES)}
    chars = np.zeros((len(document.text) + 1, len(NAMES)), dtype=bool)
    for span in char_spans(document):
        chars[span.start : span.end, columns[span.label]] = True
    chars[[at for at, char in enumerate(document.text) if char.isspace()]] = False
    holds = np.zeros((len(ids), len(NAMES)), dtype=bool)
    for token, (start, end) in enumerate(offsets):
        holds[token] = chars[start:end].any(axis=0)
    for name, values in zip(SEQUENTIAL, _repeats(offsets, ids), strict=True):
        holds[:, columns[name]] = values
    return TokenLabels(NAMES, holds)


def _word_classes(document: Document) -> list[Span]:
    foreign = document.register if document.register in ("french", "german") else None
    found = []
    for match in re.finditer(r"[A-Za-z]+", document.text):
        for label, members in CLASSES.items():
            language = label.split("_")[0] if label.startswith(("french_", "german_")) else None
            if match[0] in members and (language == foreign or label == "name"):
                found.append(Span(match.start(), match.end(), label))
    return found


def _brackets(text: str) -> list[Span]:
    """Between a bracket and its match, marks excluded; one deeper is `bracket_depth_2`."""
    spans, stack = [], list[int]()
    for at, char in enumerate(text):
        if char in OPENING:
            stack.append(at)
            spans.append(Span(at, at + 1, "opening_bracket"))
        elif char in CLOSING and stack:
            start = stack.pop() + 1
            spans.append(Span(at, at + 1, "closing_bracket"))
            spans.append(Span(start, at, "bracket_depth_2" if stack else "inside_brackets"))
            if stack:
                spans.append(Span(start, at, "inside_brackets"))
    return spans


def _quotes(text: str) -> list[Span]:
    marks = [at for at, char in enumerate(text) if char == '"']
    spans = []
    for start, end in zip(marks[::2], marks[1::2], strict=False):
        spans += [
            Span(start, start + 1, "opening_quote"),
            Span(start + 1, end, "inside_quotes"),
            Span(end, end + 1, "closing_quote"),
        ]
    return spans


def _shapes(text: str) -> list[Span]:
    patterns = (
        ("sentence_start", r"(?:(?<=^)|(?<=[.!?] )|(?<=[.!?]\" )|(?<=\n))[A-Z][A-Za-z]*"),
        ("line_start", r"(?m)^\S+?(?=\W|$)"),
        ("digit", r"[0-9]+"),
        ("capitalised", r"\b[A-Z][A-Za-z]*"),
        ("punctuation", r"[^\w\s]"),
    )
    return [Span(*match.span(), label) for label, pattern in patterns for match in re.finditer(pattern, text)]


def _mentions(text: str, names: set[Span]) -> list[Span]:
    seen: set[str] = set()
    spans = []
    for span in sorted(names):
        name = text[span.start : span.end]
        spans.append(Span(span.start, span.end, "later_mention" if name in seen else "first_mention"))
        seen.add(name)
    return spans


def _repeats(offsets: Sequence[tuple[int, int]], ids: Sequence[int]) -> tuple[list[bool], ...]:
    """Of each token: seen once before, seen before, its pair with the one before it seen before, first of the text."""
    count: dict[int, int] = {}
    pairs: set[tuple[int, int]] = set()
    second, later, pair, first = [], [], [], []
    previous, begun = -1, False
    for (start, end), token in zip(offsets, ids, strict=True):
        real = end > start
        second.append(real and count.get(token) == 1)
        later.append(real and token in count)
        pair.append(real and (previous, token) in pairs)
        first.append(real and not begun)
        if real:
            count[token] = count.get(token, 0) + 1
            pairs.add((previous, token))
            previous, begun = token, True
    return second, later, pair, first

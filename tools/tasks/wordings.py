"""Wordings and pairs of prompts as a tokenizer cuts them: kept where both are equally long and every answer is a single token."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import NamedTuple

import numpy as np

from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens


class Wording(NamedTuple):
    """A text with {slots}; the answer follows its end. kind: what else the task must know of it, such as which table."""

    text: str
    kind: str = ""


class Pair(NamedTuple):
    """One clean and one corrupted prompt: what stands in the slots of the wording, and the answers as text, leading space
    included. filler: with the wording, the unit of resampling."""

    clean: Mapping[str, str]
    corrupted: Mapping[str, str]
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    filler: str


class Expressed(NamedTuple):
    """A pair in tokens. clean, corrupted: ids, equally many. right, wrong: an id an answer. roles: a name a position."""

    clean_text: str
    corrupted_text: str
    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    roles: tuple[str, ...]
    group: str


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


def express(target: TargetModel, wording: Wording, pairs: Sequence[Pair]) -> list[Expressed]:
    """The pairs that can be expressed, in order: clean and corrupted differ and are equally long, the answers are single
    tokens behind them and not both right and wrong."""
    if not pairs:
        return []
    spans = [slots_of(wording.text, pair.clean) for pair in pairs]
    texts = [text for text, _ in spans]
    twins = [slots_of(wording.text, pair.corrupted)[0] for pair in pairs]
    tokens, other = target.tokenize(texts), target.tokenize(twins)
    if len(tokens) != len(pairs) or len(other) != len(pairs):
        return []  # some are longer than the context
    answers = _answers(target, texts, tokens, pairs)
    found = []
    for at, pair in enumerate(pairs):
        clean, corrupted = _row(tokens, at), _row(other, at)
        right, wrong = (tuple(answers[_key(texts[at], one)] for one in named) for named in (pair.right, pair.wrong))
        if len(clean) != len(corrupted) or clean == corrupted or -1 in right + wrong or set(right) & set(wrong):
            continue
        roles = _roles(tokens, at, spans[at][1])
        group = f"{wording.text}{wording.kind}\0{pair.filler}"
        found.append(Expressed(texts[at], twins[at], clean, corrupted, right, wrong, roles, group))
    return found


def written(wording: Wording, slots: Mapping[str, str]) -> str:
    """The text of a wording with its slots filled in."""
    return slots_of(wording.text, slots)[0]


def slots_of(text: str, slots: Mapping[str, str]) -> tuple[str, list[tuple[int, int, str]]]:
    """The text with its slots filled in, and where each slot stands: first character, end, name."""
    written, spans = "", []
    for literal, name, _, _ in Formatter().parse(text):
        written += literal
        if name is not None:
            spans.append((len(written), len(written) + len(slots[name]), name))
            written += slots[name]
    return written, spans


def _row(tokens: Tokens, at: int) -> tuple[int, ...]:
    return tuple(tokens.ids[at, : tokens.lengths[at]].tolist())


def _key(text: str, answer: str) -> tuple[str, str]:
    """What decides how an answer is cut: the word that it is written behind."""
    return text[max(text.rfind(" "), text.rfind("\n")) + 1 :], answer


def _answers(
    target: TargetModel, texts: Sequence[str], tokens: Tokens, pairs: Sequence[Pair]
) -> dict[tuple[str, str], int]:
    """The token of each answer behind the word that ends a text; -1 where it is not one token."""
    first: dict[tuple[str, str], int] = {}
    for at, pair in enumerate(pairs):
        for answer in pair.right + pair.wrong:
            first.setdefault(_key(texts[at], answer), at)
    whole = target.tokenize([texts[at] + answer for (_, answer), at in first.items()])
    if len(whole) != len(first):
        return dict.fromkeys(first, -1)
    found = {}
    for number, (key, at) in enumerate(first.items()):
        prompt, longer = _row(tokens, at), _row(whole, number)
        found[key] = longer[-1] if longer[:-1] == prompt else -1
    return found


def _roles(tokens: Tokens, at: int, spans: Sequence[tuple[int, int, str]]) -> tuple[str, ...]:
    """(pos,) the slot in which a token ends, "end" for the last one."""
    n = int(tokens.lengths[at])
    ends = np.where(tokens.scored[at, :n], tokens.ends[at, :n], 0)
    names = [next((name for start, end, name in spans if start < last <= end), "") for last in ends.tolist()]
    return (*names[:-1], "end")

"""From the words of an explanation to a predicate, without a judgement on it: by the predicate language, by a few plain forms,
or by a language model."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from neuronaut.agent.exporting.given_rows import GivenRow
from neuronaut.agent.llm.base import Request, plain
from neuronaut.agent.llm.gateway import Gateway, Malformed, NoReply
from neuronaut.prompts import render, stamped
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import simplify

By = Literal["given", "predicate language", "plain form", "language model", "nothing"]
IN_WORDS = "in words that no plain form reads, and no language model was asked to put them into a predicate (--llm)"
MAX_PREDICATE = 5_000  # characters

_STRING = r"\"([^\"]+)\"|“([^”]+)”|`([^`]+)`|‘([^’]+)’|(?<!\w)'([^']+)'(?!\w)"
_LIST = rf"(?:{_STRING})(?:\s*(?:,|/|or|and|, or|, and)\s*(?:{_STRING}))*"
_LEAD = (
    r"(?:(?:this|the)\s+(?:neuron|feature|unit|latent)\s+)?"
    r"(?:(?:fires?|activates?|responds?|is\s+active)\s+(?:on|at|for|to|in)\s+|(?:detects?|looks?\s+for)\s+)?"
    r"(?:(?:all|any|every|each|the|occurrences?\s+of|instances?\s+of|mentions?\s+of)\s+)*"
)
_QUOTED = re.compile(_STRING)
_NAMED = re.compile(rf"{_LEAD}(?:(words?|tokens?)\s+)?({_LIST})(?:\s+(words?|tokens?))?", re.IGNORECASE)
_ONE_WORD = re.compile(rf"{_LEAD}word\s+([^\W\d_]+)", re.IGNORECASE)
_CLASSES: tuple[tuple[re.Pattern[str], Callable[[], Predicate]], ...] = (
    (re.compile(rf"{_LEAD}(?:digits?|numbers?|numerals?)(?:\s+tokens?)?", re.IGNORECASE), nodes.Digit),
    (re.compile(rf"{_LEAD}punctuation(?:\s+(?:marks?|tokens?))?", re.IGNORECASE), nodes.Punctuation),
    (re.compile(rf"{_LEAD}capitali[sz]ed\s+(?:words?|tokens?)", re.IGNORECASE), nodes.Capitalised),
    (re.compile(rf"{_LEAD}(?:start|starts|beginning|beginnings)\s+of\s+(?:a\s+)?words?", re.IGNORECASE), nodes.StartsWord),
    (
        re.compile(rf"{_LEAD}(?:start|starts|beginning|beginnings)\s+of\s+(?:a\s+)?sentences?", re.IGNORECASE),
        nodes.StartsSentence,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Compiled:
    """A predicate and who made it of the words; or none, and why."""

    predicate: Predicate | None
    by: By
    reason: str = ""


class Put(BaseModel):
    """The predicate, "" where the sentence cannot be put into the language; then the reason why."""

    model_config = ConfigDict(extra="forbid")
    predicate: str
    reason: str


def compiled(row: GivenRow) -> Compiled:
    """What the row is taken as, without a language model. A plain form must fit the whole sentence: nothing of it is guessed or
    left out."""
    if row.predicate is not None:
        return Compiled(row.predicate, "given")
    if row.refused:
        return Compiled(None, "nothing", row.refused)
    try:
        return Compiled(simplify(parse_text(row.text)), "predicate language")
    except ToolRefused:
        found = plain_form(row.text)
    return Compiled(None, "nothing", IN_WORDS) if found is None else Compiled(found, "plain form")


def plain_form(text: str) -> Predicate | None:
    """`the word "and"`, `fires on " in", " on"`, `digits` and the like as predicates; None for anything more.

    Quoted text with a space at its start, or called a token, is a token as it is spelled; else a whole word in any case.
    """
    sentence = text.strip().rstrip(".").strip()
    for form, leaf in _CLASSES:
        if form.fullmatch(sentence):
            return leaf()
    if match := _ONE_WORD.fullmatch(sentence):
        return nodes.Word(any_of=(match[1],), ignore_case=True)
    match = _NAMED.fullmatch(sentence)
    if match is None:
        return None
    strings = tuple(dict.fromkeys(next(part for part in found if part) for found in _QUOTED.findall(match[2])))
    called = (match[1] or match[match.re.groups] or "").lower()
    try:
        if called.startswith("token") or (not called and any(string != string.strip() for string in strings)):
            return nodes.Token(any_of=strings)
        return nodes.Word(any_of=tuple(string.strip() for string in strings), ignore_case=True)
    except ValidationError:
        return None


def put_by(gateway: Gateway, text: str, about: str) -> Compiled:
    """What a language model makes of the sentence; the reason of it, or of its silence, where that is no predicate.

    about: the unit under whose limits the call is counted. Raises OutOfBudget where nothing may be asked.
    """
    system, prompt = render("compile_system"), render("compile", text=text)
    limit = min(1_000, gateway.model.max_tokens)
    request = Request("compile", system, prompt, Put, limit, prompts=stamped("compile_system", "compile"))
    try:
        return gateway.ask(request, _read, about=about)
    except NoReply as error:
        return Compiled(None, "nothing", f"the language model gave no predicate: {plain(str(error), 300)}")


def _read(reply: str) -> Compiled:
    try:
        put = Put.model_validate_json(reply, strict=True)
    except ValidationError:
        raise Malformed('it is not an object {"predicate": "...", "reason": "..."}.') from None
    if not put.predicate.strip():
        said = plain(put.reason, 300) or "without a reason"
        return Compiled(None, "nothing", f"the language model cannot put it into a predicate: {said}")
    if len(put.predicate) > MAX_PREDICATE:
        raise Malformed(f"the predicate has {len(put.predicate):,} characters, at most {MAX_PREDICATE:,} are read.")
    try:
        return Compiled(simplify(parse_text(put.predicate)), "language model")
    except ToolRefused as error:
        raise Malformed(f"{plain(put.predicate, 200)} is no predicate: {plain(str(error), 300)}") from None

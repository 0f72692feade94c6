"""What a language model replies when it is asked for hypotheses: distinct predicates that can be tested, and what is left out."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from neuronaut.agent.llm.base import plain
from neuronaut.agent.llm.gateway import Malformed
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import simplify

KEPT = 8  # hypotheses of one reply; each is compared on design text, with edits of each leaf
READ = 64  # entries of one reply that are looked at
SAID = 3  # refusals that are told one by one
MAX_PREDICATE = 5_000  # characters
MAX_WORDS = 300  # characters that are kept of a claim in the model's own words
MOST_AGAINST = 4  # rivals that it may name


def _without_titles(schema: dict[str, Any]) -> None:
    """Takes the titles out, which only repeat the names: each request pays for them."""
    for one in (schema, *schema["properties"].values()):
        one.pop("title", None)


class Hypothesis(BaseModel):
    """A sentence, and a predicate in the language described."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_titles)
    claim: str
    predicate: str


class Hypotheses(BaseModel):
    """Rival hypotheses, and names of rivals for the first."""  # sent along, as the docstring above

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_titles)
    hypotheses: list[Hypothesis]
    against: list[str]


@dataclass(frozen=True)
class LeftOut:
    """An entry of a reply that is not tested: why, in a few words that are counted, and in a sentence."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Reading:
    """What a reply holds: distinct predicates that can be tested, and what was left out.

    words: the claim of each in the model's own words. against: the names of rivals that it wants the first tested against.
    beyond: entries after the last that was looked at.
    """

    predicates: tuple[Predicate, ...]
    left_out: tuple[LeftOut, ...]
    beyond: int = 0
    words: tuple[str, ...] = ()
    against: tuple[str, ...] = ()

    def reasons(self) -> dict[str, int]:
        """How many entries were left out, by reason."""
        found = Counter(one.reason for one in self.left_out)
        return dict(found) | ({f"after the first {READ} entries": self.beyond} if self.beyond else {})


def read_hypotheses(text: str) -> Reading:
    """The hypotheses of a reply. Raises Malformed where it is no list of them, or where it has some but none can be tested."""
    try:
        found: Any = json.loads(
            text
        )  # a half of a surrogate pair, which pydantic's parser refuses, spoils one entry only
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON ({plain(str(error), 120)}).") from None
    entries = found.get("hypotheses") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise Malformed('it is not an object {"hypotheses": [...]}.')
    predicates: dict[Predicate, str] = {}
    left_out = []
    for entry in entries[:READ]:
        read = _read(entry)
        if isinstance(read, LeftOut):
            left_out.append(read)
        elif read in predicates:
            left_out.append(LeftOut("a repeat", plain(str(read), 100)))
        elif len(predicates) == KEPT:
            left_out.append(LeftOut(f"after the first {KEPT} that can be tested", plain(str(read), 100)))
        else:
            predicates[read] = plain(entry["claim"], MAX_WORDS)
    if entries and not predicates:
        raise Malformed("none of its predicates can be tested: " + "; ".join(one.detail for one in left_out[:SAID]))
    words, beyond = tuple(predicates.values()), max(0, len(entries) - READ)
    return Reading(tuple(predicates), tuple(left_out), beyond, words, _against(found.get("against")))


def _against(names: object) -> tuple[str, ...]:
    """The first names of a list; () for anything else: it is a wish, without which the reply can be used."""
    if not isinstance(names, list):
        return ()
    return tuple(plain(one, 10) for one in names[:MOST_AGAINST] if isinstance(one, str))


def _read(entry: object) -> Predicate | LeftOut:
    try:
        hypothesis = Hypothesis.model_validate(entry, strict=True)
    except ValidationError:
        return LeftOut("not a claim with a predicate", f"{plain(repr(entry)[:500], 100)} is no claim with a predicate")
    if len(hypothesis.predicate) > MAX_PREDICATE:
        return LeftOut(
            "too long", f"a predicate of {len(hypothesis.predicate):,} characters (at most {MAX_PREDICATE:,})"
        )
    try:
        predicate = simplify(parse_text(hypothesis.predicate))
    except ToolRefused as error:
        return LeftOut("not in the predicate language", f"{plain(hypothesis.predicate, 100)}: {plain(str(error), 200)}")
    if predicate.kind in ("promotes", "suppresses"):
        return LeftOut("about the output", f"{plain(hypothesis.predicate, 100)} says what it writes, not when it fires")
    return predicate

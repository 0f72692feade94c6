"""From the words of a question to an intent and what it is about, or a sentence that says what can be asked."""

import re
from typing import Literal

from neuronaut.agent.questions.prompts import about_a_prompt, about_a_reason, about_a_story
from neuronaut.agent.questions.question import CAN_ASK, HeadKind, Question
from neuronaut.agent.questions.studies import (
    DREAM,
    about_a_change,
    about_a_concept,
    about_a_dream,
    about_a_readout,
    about_matches,
    about_survivors,
    dreamt,
)
from neuronaut.agent.questions.tasks import about_a_circuit, about_backups, about_shared_parts
from neuronaut.agent.questions.units import FEATURE, NAMED_HEAD, about_a_unit, names_a_unit
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import simplify
from neuronaut.tools.units import Unit

_LOOK = re.compile(r"tool\s+([a-z_]+)\s*(\{.*\})?", re.DOTALL)
_GIVEN = re.compile(
    rf"test\s+(?:(?:neuron\s+)?(L?\d+\.(?:E\d+\.)?N?\d+|L?\d+\.R(?:outer\.)?\d+)|(?:feature\s+)?({FEATURE}))(-?)(?:\s*:\s*|\s+)(.+)",
    re.IGNORECASE | re.DOTALL,
)
_KINDS: tuple[tuple[HeadKind, str], ...] = (
    ("previous", r"previous[- ]?token|previous|prev"),
    ("current", r"current[- ]?token|current|self"),
    ("first", r"first[- ]?token|first"),
    ("duplicate", r"duplicate[- ]?token|duplicate"),
    ("induction", r"induction"),
    ("copying", r"copying|copy"),
    ("successor", r"successor|predecessor|incrementing"),
)
_IN_LAYERS = re.compile(r"\blayers?\s+#?\d", re.IGNORECASE)
_EVERY = re.compile(
    r"\b(?:describe|list|explain|what\s+do(?:es)?|(?:table|dictionary)\s+of)\b.*\b(?:(?:every|each)\s+(?:attention\s+)?head|"
    r"(?:all|the)\s+(?:of\s+the\s+)?(?:attention\s+)?heads)\b|\bhead\s+dictionary\b",
    re.IGNORECASE | re.DOTALL,
)


def parse_question(text: str, *, n_heads: int | None = None, d_mlp: int | None = None) -> Question:
    """The question that `text` asks, in any of the wordings that people use.

    n_heads, d_mlp: of the target, where known: a bare `8.3` that could be a head or a neuron is refused.
    Refuses what names nothing that can be asked about, and several units at once, in one sentence each.
    """
    text = text.strip()
    if not text:
        raise UserError(f"the question is empty: {CAN_ASK}")
    for reading in READINGS:
        if (question := reading(text)) is not None:
            return question
    about = about_a_unit(text, n_heads, d_mlp)
    return dreamt(about) if DREAM.match(text) else about


def _by_a_tool(text: str) -> Question | None:
    match = _LOOK.fullmatch(text)
    return match and Question(text, "look", tool=match[1], arguments=match[2] or "{}")


def _about_a_claim(text: str) -> Question | None:
    match = _GIVEN.fullmatch(text)
    if match is None:
        return None
    try:
        given = simplify(parse_text(match[4]))
    except ToolRefused as error:
        raise UserError(f"the hypothesis cannot be tested: {error} (docs/verdicts.md has the language)") from None
    sign: Literal[1, -1] = -1 if match[3] else 1
    unit = Unit.parse(match[2] or match[1])
    return Question(text, "explain", unit, (sign,), given=given)


def _about_every_head(text: str) -> Question | None:
    named = any(re.search(rf"\b(?:{words})\b", text, re.IGNORECASE) for _, words in _KINDS)
    if _EVERY.search(text) is None or named or names_a_unit(text):
        return None
    _refuse_layers(text)
    return Question(text, "every")


def _about_a_kind(text: str) -> Question | None:
    if not re.search(r"\bheads\b", text, re.IGNORECASE) or NAMED_HEAD.search(text):
        return None
    for kind, words in _KINDS:
        if re.search(rf"\b(?:{words})\b", text, re.IGNORECASE):
            _refuse_layers(text)
            return Question(text, "kind", kind=kind)
    kinds = ", ".join(kind for kind, _ in _KINDS)
    raise UserError(f"{text!r} names no kind of head: ask which heads are one of {kinds} heads")


def _refuse_layers(text: str) -> None:
    """Nothing that was asked is dropped: heads are asked about in all layers."""
    if _IN_LAYERS.search(text):
        raise UserError(
            f"{text!r} names layers, and heads are asked about in all of them: leave the layers out, or ask about one head, as in "
            '"what does head 5.1 do"'
        )


READINGS = (
    _by_a_tool, _about_a_claim, about_a_readout, about_a_dream, about_a_change, about_survivors, about_a_concept, about_matches,
    about_backups, about_shared_parts, about_a_circuit, about_a_prompt, about_a_reason, about_a_story, _about_every_head, _about_a_kind,
)  # fmt: skip

"""Questions of whole studies: read-outs, dreams, changes, survivors, concepts, matches."""

import re

from neuronaut.agent.questions.question import Question
from neuronaut.agent.questions.quoted import QUOTED, all_quoted, unquoted
from neuronaut.agent.questions.readouts import readout_asked
from neuronaut.agent.questions.units import about_a_unit, names_a_unit
from neuronaut.tools.errors import UserError

DREAM = re.compile(r"(?:please\s+)?dreams?\s+(?:up\s+)?(?:of|for|about)\b\s*(.*)", re.IGNORECASE | re.DOTALL)
_CONCEPT = re.compile(
    r"\b(?:units?|neurons?|features?|heads?|directions?)\b.*?\b(?:concept|labels?)\b\s*:?\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_MATCH = re.compile(
    r"\b(?:match|matches)\b.*?\b(?:units|neurons)\b.*?\b(?:with|to|in|of|and|across|between)\b\s*(.*)|"
    r"\b(?:which|what)\b.*?\b(?:units|neurons)\b.*?\b(?:same|universal|shared|matched|too)\b.*?\b(?:in|with|across|of|between)\b\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_LAYERS = re.compile(r"(?:the\s+|its\s+)?(?:other\s+|own\s+)?layers?", re.IGNORECASE)
_REGISTERED = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?"
_CHANGED = re.compile(r"\bwhat(?:'s|\s+(?:has|have|is|was))?\s+(?:changed|different)\b(.*)", re.IGNORECASE | re.DOTALL)
_SURVIVED = re.compile(r"\b(?:survived|still\s+holds?)\b", re.IGNORECASE)
_OF_NAMED = re.compile(r"\b(?:of|from|about)\s+([\w./-]{1,120})", re.IGNORECASE)
_IN_NAMED = re.compile(rf"\b(?:in|of|to|with|by|at|for|from)\s+({_REGISTERED})$", re.IGNORECASE)
_FROM_HERE = re.compile(r"\bbetween\s+(?:this|the)\s+model\s+and\b", re.IGNORECASE)
_SEVERAL = re.compile(
    rf"\b(?:between\s+{_REGISTERED}\s+and|{_REGISTERED}\s*(?:,|and|or))\s+{_REGISTERED}$", re.IGNORECASE
)


def about_a_readout(text: str) -> Question | None:
    """Whether a read-out uses a unit."""
    found = readout_asked(text, QUOTED.sub(" ", text))
    return found and Question(text, "readout", found[0], (1,), readout=found[1])


def about_a_concept(text: str) -> Question | None:
    """Units for a label of labelled texts; which are registered under a name."""
    match = _CONCEPT.search(text)
    if match is None:
        return None
    rest = match[1].strip().rstrip("?.!").strip()
    label = next(iter(all_quoted(rest)), "")
    named = re.sub(r"^(?:of|in|from)\s+", "", QUOTED.sub(" ", rest).strip())
    if not re.fullmatch(_REGISTERED, named):
        raise UserError(
            f'{text!r} names no labelled texts: register them with --labels NAME=FILE.jsonl and ask "find units for the concept '
            'NAME", or, of several labels, "find units for the concept \'LABEL\' in NAME"'
        )
    return Question(text, "concept", labels=named, answer=label)


def about_matches(text: str) -> Question | None:
    """Units of this model matched with other models' by name, or across its own layers."""
    match = _MATCH.search(text)
    if match is None or "circuit" in text.lower() or names_a_unit(text, bare=True):
        return None
    rest = (match[1] or match[2] or "").strip().rstrip("?.!").strip()
    if _LAYERS.fullmatch(rest):
        return Question(text, "match")
    names = [name for name in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", unquoted(rest)) if name]
    if not names or not all(re.fullmatch(_REGISTERED, name) for name in names):
        raise UserError(
            f'{text!r} names no other model: register it with --other NAME=FOLDER and ask "match the units with NAME", or '
            '"match the units across layers"'
        )
    return Question(text, "match", others=tuple(dict.fromkeys(names)))


def about_a_change(text: str) -> Question | None:
    """What changed since a checkpoint, everywhere or in a unit."""
    match = _CHANGED.search(text)
    if match is None:
        return None
    rest = _FROM_HERE.sub("in", match[1]).strip().rstrip("?!").rstrip(". ")
    if _SEVERAL.search(rest):
        raise UserError(
            f"{text!r} names several models: one is compared with that of --model; register it with --other NAME=FOLDER and ask "
            '"what changed in NAME"'
        )
    named, others = _IN_NAMED.search(rest), tuple[str, ...]()
    if named is not None and not names_a_unit(named[0], bare=True):
        rest, others = rest[: named.start()], (named[1],)
    about = None
    if names_a_unit(rest, bare=True):
        about = about_a_unit(rest, None, None).unit
    return Question(text, "changed", unit=about, others=others)


def about_survivors(text: str) -> Question | None:
    """Which findings about earlier weights still hold."""
    if _SURVIVED.search(text) is None:
        return None
    named = _OF_NAMED.search(text)
    return Question(text, "survived", earlier=named[1].rstrip("./-") if named else "")


def about_a_dream(text: str) -> Question | None:
    """A dream of logits; one of a unit is about that unit."""
    match = DREAM.match(text)
    if match is None or not (quoted := all_quoted(match[1])):
        return None
    if len(quoted) != 2:
        raise UserError(
            f"{text!r} names {len(quoted)} tokens: dream of the logit of one over that of another, as in "
            "\"dream of ' Mary' over ' Lucy'\""
        )
    return Question(text, "dream", answer=quoted[0], wrong_answer=quoted[1])


def dreamt(about: Question) -> Question:
    """A dream of the unit that a question is about; refuses heads."""
    unit = about.unit
    assert unit is not None
    if unit.kind == "head":
        raise UserError(
            f"{unit.address} is a head, which has no one activation a token: dream of a neuron or a feature"
        )
    return Question(about.text, "dream", unit.with_sign(about.signs[0]), about.signs[:1])

"""Questions about tasks: their circuits, what circuits share, what backs up their most important head."""

import re

from neuronaut.agent.questions.question import Question
from neuronaut.agent.questions.quoted import unquoted
from neuronaut.agent.questions.units import names_a_unit
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

_CIRCUIT = re.compile(
    r"\bcircuits?\b\s*(?:for|of|that|behind|to|:)?\s*(?:the\s+task\s+)?(.*)", re.IGNORECASE | re.DOTALL
)
_COMPARE = re.compile(r"\bcompare\b|\bshare\b|\boverlap\b|\bin common\b|\bdiffer", re.IGNORECASE)
_BY_POSITION = re.compile(r"[\s,]+(?:by|at each|with)\s+positions?\b", re.IGNORECASE)
_TAIL = re.compile(r"\s+(?:have in common|share|overlap|differ)\b.*", re.IGNORECASE | re.DOTALL)
_PARTS = re.compile(r"\b(?:parts?|components?|circuits?|heads|mlps)\b(.*)", re.IGNORECASE | re.DOTALL)
_LEAD = re.compile(
    r"^\s*(?:(?:do|does|are|is|that|shared|of|for|by|between|among|across|the\s+circuits)\s+)*", re.IGNORECASE
)
_SHARED = re.compile(r"\b(?:share|shared|in common)\b", re.IGNORECASE)
_REMAINS = re.compile(
    r"\bwhat\s+(?:remains|is left)\s+of\s+(.*?)\s+without\s+(?:its\s+(?:most\s+)?(?:important|main)\s+head|(?:head\s+)?L?(\d+)[.H](\d+))",
    re.IGNORECASE | re.DOTALL,
)
_LEFT = re.compile(r"\bwhat\s+(?:remains|is left)\s+of\b.*\bwithout\b", re.IGNORECASE | re.DOTALL)
_BACKUPS = re.compile(r"\bback-?\s?ups?\b(?:\s+heads?)?.*?\b(?:for|of|in)\s+(.*)", re.IGNORECASE | re.DOTALL)


def about_backups(text: str) -> Question | None:
    """What remains of a task without a head, and who backs it up."""
    match = _REMAINS.search(text)
    if match is None and _LEFT.search(text):
        raise UserError(
            f'{text!r} names no head: write "what remains of months without its most important head", or without head 5.1; '
            "heads alone are taken away"
        )
    if match is not None:
        head = None if match[2] is None else Unit("head", int(match[2]), int(match[3]))
        return Question(text, "backup", tasks=(_task_in(match[1]),), without=head)
    match = _BACKUPS.search(text)
    if match is None or names_a_unit(text):
        return None
    return Question(text, "backup", tasks=(_task_in(match[1]),))


def about_shared_parts(text: str) -> Question | None:
    """Several tasks that may share parts; two whose circuits are named are left to `compare`."""
    if not _SHARED.search(text) or names_a_unit(text):
        return None
    match = _PARTS.search(_TAIL.sub("", text) if not re.search(r"\bshared\b", text, re.IGNORECASE) else text)
    if match is None:
        return None
    listed = _LEAD.sub("", match[1])
    names = [_task_in(part) for part in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", listed)]
    names = [name for name in names if name]
    if len(names) < 3 and re.search(r"\bcircuits?\b", text, re.IGNORECASE):
        return None
    if re.search(r"\blayers?\s+#?\d", text, re.IGNORECASE):
        raise UserError(f"{text!r} names layers, and tasks are looked for in all of them: leave the layers out")
    if len(names) < 2:
        raise UserError(
            f"{text!r} names {len(names)} tasks: name two or more, as in "
            '"which parts do months, days and digits share" (`neuronaut tool tasks` lists them)'
        )
    return Question(text, "share", tasks=tuple(names))


def _task_in(text: str) -> str:
    """The words of a task, out of quotes."""
    return text.strip(" ?.!,:'\"“”‘’`")


def about_a_circuit(text: str) -> Question | None:
    """The circuit of a task, or two to compare."""
    match = _CIRCUIT.search(text)
    if match is None or names_a_unit(text):
        return None
    rest = _BY_POSITION.sub("", unquoted(match[1])).strip(" ?.!")
    if _COMPARE.search(text):
        rest = _TAIL.sub("", match[1].strip(" ?.!"))
        names = [part.strip(" ,'\"?.") for part in re.split(r"\s+(?:and|with|vs\.?|versus|to)\s+|\s*,\s*", rest)]
        names = [name for name in names if name]
        if len(names) != 2:
            raise UserError(
                f"{text!r} names {len(names)} tasks: compare two, as in "
                '"compare the circuits of increasing digits and increasing months" (`neuronaut tool tasks` lists them)'
            )
        return Question(text, "compare", tasks=tuple(names))
    if not rest:
        raise UserError(
            f'{text!r} names no task: write "find the circuit for increasing months" (`neuronaut tool tasks` lists them)'
        )
    return Question(text, "circuit", tasks=(rest,), by_position=_BY_POSITION.search(text) is not None)

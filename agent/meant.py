"""Which task is meant by words that are not quite its name."""

import difflib
import re

from neuronaut.tools.errors import UserError
from neuronaut.tools.tasks.catalogue import tasks

SHORT_FOR = {"ioi": "indirect object", "induction": "repeated tokens", "gt": "greater than"}
BACKWARDS = frozenset({"decreasing", "descending", "down", "downward", "backward"})
_IDLE = frozenset({"a", "an", "and", "at", "by", "for", "from", "of", "on", "the", "to", "task", "next", "count", "counting",
                   "increasing", "ascending", "up", "upward"})  # fmt: skip


def task_meant(text: str) -> str:
    """The name of the task that `text` means: its name in any case and order of words, or close to it.

    Refuses what means none or several, and says which tasks there are.
    """
    known = [task.name for task in tasks()]
    said = SHORT_FOR.get(text.strip().lower(), text.strip().lower())
    if said in known:
        return said
    alike = [name for name in known if _words(name) == _words(said)]
    alike = alike or [name for name in known if _words(said) and _words(said) <= _words(name)]
    alike = alike or _longest([name for name in known if _words(name) and _words(name) <= _words(said)])
    alike = alike or difflib.get_close_matches(said, known, n=1, cutoff=0.8)
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise UserError(f"{text!r} could mean {' or '.join(repr(name) for name in alike)}: name one of them")
    raise UserError(f"{text!r} names no task: choose from {', '.join(known)}")


def _longest(names: list[str]) -> list[str]:
    """Those of the most words: a name within another one says less."""
    most = max((len(_words(name)) for name in names), default=0)
    return [name for name in names if len(_words(name)) == most]


def _words(text: str) -> frozenset[str]:
    """The words that tell tasks apart, without their plural s; all that run backwards are one."""
    words = (word.removesuffix("s") for word in re.findall(r"\w+", text.lower()))
    return frozenset("backward" if word in BACKWARDS else word for word in words if word not in _IDLE)

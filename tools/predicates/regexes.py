"""Regular expressions of predicates: run in linear time, and what each costs. The only module that imports re2."""

import re
from functools import cache
from typing import Annotated, Any

import re2
from pydantic import AfterValidator, Field

CLASS_ITEMS = 5  # a named class such as `digit` costs at most five items
_NAMED = r"\\[pP]\{[^}]*\}|\\[dDwWsSpP]|\[:\^?\w+:\]"
_REGEX_PART = re.compile(rf"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|{_NAMED}|\\.|\||\.", re.DOTALL)
_TEXT_PART = re.compile(r"\\[^a-zA-Z0-9_]|\\[nt]|[^\\]")
_TEXTS = re.compile(r"(?:\\[^a-zA-Z0-9_]|\\[nt]|[^\\.^$*+?{}\[\]()])+")
_ESCAPED = {"\\n": "\n", "\\t": "\t"}
_MEMBER = re.compile(rf"{_NAMED}|(?P<low>\\.|.)-(?P<high>\\.|.)|\\.|.", re.DOTALL)


@cache
def compiled(pattern: str) -> Any:
    """The pattern as a linear-time regular expression. Refuses one that RE2 does not take."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"{pattern!r} is no regular expression that can be run in linear time ({error})") from None


def ending(pattern: str) -> Any:
    """The pattern compiled so that its match must reach the end of the text. Refuses as `compiled` does."""
    return compiled(f"(?:{pattern})\\z")


@cache
def texts_of(pattern: str) -> tuple[str, ...] | None:
    """The texts that a pattern is a choice between; None for one that says more, such as a class or a repetition."""
    if not _TEXTS.fullmatch(pattern):
        return None
    found = [""]
    for part in _TEXT_PART.findall(pattern):
        if part == "|":
            found.append("")
        else:
            found[-1] += _ESCAPED.get(part, part[-1])
    return tuple(found) if all(found) else None


def _compiles(pattern: str) -> str:
    compiled(pattern)
    return pattern


def _compiles_at_end(pattern: str) -> str:
    compiled(pattern)
    ending(pattern)  # \\Q, for example, may stand in a pattern of its own but would swallow the end
    return pattern


Regex = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_compiles)]
EndRegex = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_compiles_at_end)]


def branches(pattern: str) -> int:
    """Alternatives of a regular expression: those of `|`, and members of classes (named ones and ranges at most 5)."""
    return 1 + sum(_alternatives(match.group()) - 1 for match in _REGEX_PART.finditer(pattern))


def _alternatives(part: str) -> int:
    """How many branches a part of a regular expression stands for; `|` adds one to the branch before it."""
    if part in ("|", "."):
        return 2 if part == "|" else CLASS_ITEMS
    if part[0] == "\\":
        return CLASS_ITEMS if part[1] in "dDwWsSpP" else 1
    negated, members = part[1] == "^", 0
    for member in _MEMBER.finditer(part[2:-1] if negated else part[1:-1]):
        if member["low"]:
            members += max(1, min(CLASS_ITEMS, ord(member["high"][-1]) - ord(member["low"][-1]) + 1))
        else:
            members += _alternatives(member.group()) if member.group()[0] == "\\" else 1
            members += CLASS_ITEMS - 1 if member.group().startswith("[:") else 0
    return max(CLASS_ITEMS, members) if negated else members

"""Markdown of text that nobody vouches for: it says what it says, and is neither markup, link, formula nor HTML."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from neuronaut.agent.api.tables import cell, cut
from neuronaut.agent.view import visible

LONGEST = 160  # characters of code in a cell; the notebook of findings has the whole of it
# CommonMark lets every ASCII punctuation be escaped; these are what it, GitHub and Jupyter (`$`) give a meaning inside a line.
_MEANS = re.compile(r"([\\`*_\[\]<>&|~$#!^{}])")
_LINKS = re.compile(r"(?i)(?<=\w)(://|@)|(www)(\.)")  # addresses that viewers make links of by themselves
_LIST = re.compile(r"^(\s*(?:\d{1,9})?)([-+.)])(?=\s|$)")
_RULE = re.compile(r"^\s*(?=[-=]+\s*$)")


def plain(text: str) -> str:
    """The text as one line of Markdown that reads the same."""
    safe = _MEANS.sub(r"\\\1", visible(text).strip())
    safe = safe.replace(r"\<", "&lt;").replace(r"\>", "&gt;").replace(r"\&", "&amp;")
    safe = _LINKS.sub(lambda m: f"{m[2]}\\{m[3]}" if m[2] else "".join(f"\\{one}" for one in m[1]), safe)
    return _RULE.sub(r"\\", _LIST.sub(r"\1\\\2", safe))


def code(text: str) -> str:
    """The text as a code span, fenced by more backticks than it holds in a row."""
    shown = visible(text)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", shown)), default=0) + 1)
    space = " " if shown[:1] in ("`", " ") or shown[-1:] in ("`", " ") or not shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], codes: Sequence[str] = ()) -> str:
    """A table; columns in which no row has a value are left out. codes: columns that are written as code."""
    kept = [name for name in columns if any(row.get(name) is not None for row in rows)]
    if not kept:
        return "None."
    lines = ["| " + " | ".join(name.replace("_", " ") for name in kept) + " |", "|" + " --- |" * len(kept)]
    lines += ["| " + " | ".join(_cell(row.get(name), name in codes) for name in kept) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any, as_code: bool) -> str:
    text = cell(value)
    if not text:
        return ""
    return code(cut(text, LONGEST)).replace("|", r"\|") if as_code else plain(text)

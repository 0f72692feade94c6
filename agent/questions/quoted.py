"""What stands in quotes in a question: prompts, answers, labels."""

import re

from neuronaut.tools.errors import UserError

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|`([^`]+)`|(?<!\w)'((?:[^']|(?<=\w)'(?=\w))+)'(?!\w)|‘([^’]+)’")
_QUOTES = "'\"“”‘’`"


def unquoted(text: str) -> str:
    """The text in quotes where there is any, all of it elsewhere."""
    quoted = QUOTED.search(text)
    return next(group for group in quoted.groups() if group is not None) if quoted else text


def all_quoted(text: str) -> list[str]:
    """What stands in quotes, in order."""
    return [next(group for group in found.groups() if group is not None) for found in QUOTED.finditer(text)]


def prompt_of(text: str) -> str:
    """A prompt, in quotes or bare; bare, the question mark at its end belongs to the question."""
    if QUOTED.search(text):
        return unquoted(text)
    bare = re.sub(r"^(?:the\s+)?prompt\b:?\s*", "", text.strip(), flags=re.IGNORECASE).rstrip("?").rstrip()
    if bare and not bare.strip(_QUOTES):
        return ""
    if bare and (bare[0] in _QUOTES or bare[-1] in _QUOTES):
        raise UserError(f"the quotes of {bare!r} are not closed: write the prompt in one pair of quotes")
    return bare

"""Words for the language model: one Jinja2 file a purpose, which declares its variables and the reply in its first comment.

The comment reads `Variables: one, another (a note). Expected reply: a sentence.`, or `Variables: none.`
"""

import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

MARK = 12  # hexadecimal digits
_HEADER = re.compile(
    r"\A\{#\s*Variables:\s*(?P<names>.*?)\.\s(?:.*?\s)?Expected reply:\s*(?P<reply>.*?)\s*#\}", re.DOTALL
)
_NOTE = re.compile(r"\([^()]*\)")


@cache
def source(name: str) -> str:
    """The file of the prompt `name`."""
    return resources.files(__name__).joinpath(f"{name}.j2").read_text(encoding="utf-8")


@cache
def sha256(name: str) -> str:
    """The hash of the file of the prompt `name`."""
    return hashlib.sha256(source(name).encode()).hexdigest()


@cache
def variables(name: str) -> frozenset[str]:
    """The variables that the prompt `name` declares."""
    listed = _NOTE.sub("", _header(name)["names"])
    names = [] if listed.strip() == "none" else [one.strip() for one in listed.split(",")]
    if not all(one.isidentifier() for one in names) or len(set(names)) < len(names):
        raise ValueError(f"the first comment of {name}.j2 lists {listed!r}: write `Variables: one, another (a note).`")
    return frozenset(names)


def expected_reply(name: str) -> str:
    """What the prompt `name` says that a reply to it looks like."""
    return " ".join(_header(name)["reply"].split())


def _header(name: str) -> "re.Match[str]":
    found = _HEADER.match(source(name))
    if found is None:
        raise ValueError(f"{name}.j2 must begin with {{# Variables: …. Expected reply: … #}}")
    return found


@cache
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: source(name.removesuffix(".j2"))),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["fenced"] = fenced
    return environment


def render(name: str, **given: Any) -> str:
    """The prompt `name` with its variables filled in; one that is missing, or not declared, is an error."""
    if given.keys() != variables(name):
        wrong = ", ".join(sorted(given.keys() ^ variables(name)))
        raise ValueError(f"the prompt {name!r} declares other variables than it is given: {wrong}")
    return _environment().get_template(name).render(**given).strip()


def stamped(*names: str) -> tuple[str, ...]:
    """Name and hash of each of some prompts, for the record of a request."""
    return tuple(f"{name}@{sha256(name)}" for name in names)


def fenced(kind: str, text: str = "", *, caller: Callable[[], str] | None = None) -> str:
    """Foreign text between marks that it cannot foresee, since they are its own hash: `<corpus 3f9a…>` … `</corpus 3f9a…>`.

    In a template: `{% call fenced("corpus") %}…{% endcall %}`.
    """
    body = (caller() if caller else text).strip("\n")
    hashes = (hashlib.sha256(f"{body}{n or ''}".encode("utf-8", "replace")).hexdigest() for n in count())
    mark = next(one[:MARK] for one in hashes if one[:MARK] not in body)
    return f"<{kind} {mark}>\n{body}\n</{kind} {mark}>\n"

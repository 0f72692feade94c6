"""What is searched for: the words of a query and of a text, as the plain tokens that both databases index alike."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

from neuronaut.memory import schema
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Kind, Unit

STATES = tuple(dict.fromkeys(state for step in schema.TRANSITIONS for state in step))
SIDES = ("reads", "writes", "attends", "role", "circuit")
KINDS = get_args(Kind)
LONGEST, MOST_WORDS = 1_000, 32  # characters and words of a query
MARK = "w"  # stands in every document, between two texts of it: no phrase reaches from one into the next
_WORD_CHARACTERS = 60
_FIELD_WORDS = 2_000
# Scripts without spaces: each character is a word, so that a phrase finds what stands inside.
_WORD = re.compile(r"[⺀-鿿豈-﫿]|[^\W_⺀-鿿豈-﫿]+")
_PART = re.compile(r'(-?)(?:([a-z]+):)?(?:"([^"]*)"?|([^\s"]+))', re.IGNORECASE)


def tokens_of(text: str) -> list[str]:
    """The words of a text, whatever their case and accents, as tokens of a-z and 0-9 that begin with w.

    Words are runs of letters and digits, cut at 60 characters. Other letters than a-z are written by their number, so that
    the beginning of a word is the beginning of its token.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if unicodedata.category(c)[0] != "M")
    return [
        "w" + "".join(map(_letter, word[:_WORD_CHARACTERS])) for word in _WORD.findall(plain.casefold())[:_FIELD_WORDS]
    ]


def _letter(character: str) -> str:
    plain = character.isascii() and character != "q"
    return character if plain else f"q{ord(character):06x}"


@dataclass(frozen=True)
class Term:
    """Words that must stand beside each other, or one facet. prefix: the last word may go on; absent: must not be there."""

    tokens: tuple[str, ...]
    prefix: bool = False
    absent: bool = False


@dataclass(frozen=True)
class Query:
    """What claims must hold. impossible: a word without letters and digits, which no claim is found by."""

    terms: tuple[Term, ...] = ()
    impossible: bool = False

    @property
    def of_facets(self) -> bool:
        """Whether no text is searched."""
        return all(not term.tokens[0].startswith(MARK) for term in self.terms)


def query_of(words: str) -> Query:
    """The query that a person's words mean. Refuses a long one, and unknown values of facets."""
    if len(words) > LONGEST:
        raise UserError(f"the search has {len(words):,} characters, and at most {LONGEST:,} are looked up: shorten it")
    parts = list(_PART.finditer(words))
    if len(parts) > MOST_WORDS:
        raise UserError(f"the search has {len(parts)} words, and at most {MOST_WORDS} are looked up: shorten it")
    terms, impossible = [], False
    for part in parts:
        minus, name, quoted, bare = part.groups()
        last = part is parts[-1] and quoted is None and not minus
        found = list(_terms(name, quoted if bare is None else bare, prefix=last))
        impossible |= not minus and not found
        terms += [Term(one.tokens, one.prefix and not minus, bool(minus)) for one in found]
    return Query(tuple(terms), impossible)


def _terms(name: str | None, value: str, *, prefix: bool) -> Iterator[Term]:
    if name is not None and name.lower() in FACETS:
        if value:
            yield Term((FACETS[name.lower()](value),))
        return
    if tokens := tokens_of(value if name is None else f"{name} {value}"):
        yield Term(tuple(tokens), prefix)


def facet(name: str, value: object) -> str:
    """The token of one value of a facet, as it stands in a document; for values that are anyone's, its hash."""
    letter = LETTERS[name]
    if name in ("status", "side", "kind", "layer"):
        return f"{letter}{value}"
    return letter + hashlib.sha256(str(value).casefold().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def value_of(token: str) -> str:
    """The value of a token of status, side, kind or layer."""
    return token[1:]


def _one_of(name: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    def token(value: str) -> str:
        if value.lower() not in choices:
            raise UserError(f"{name}:{value} is no {name}: choose from {', '.join(choices)}")
        return facet(name, value.lower())

    return token


def _layer(value: str) -> str:
    if not (value.isascii() and value.isdecimal()) or len(value) > 9:
        raise UserError(f"layer:{value} is no layer number: write it like layer:8")
    return facet("layer", int(value))


def _unit(value: str) -> str:
    try:
        return facet("unit", Unit.parse(value).address)
    except UserError:
        return facet("unit", value)


LETTERS = {"status": "t", "side": "s", "kind": "k", "layer": "l", "unit": "u", "author": "a", "run": "r", "model": "m"}
FACETS: dict[str, Callable[[str], str]] = {
    "status": _one_of("status", STATES),
    "side": _one_of("side", SIDES),
    "kind": _one_of("kind", KINDS),
    "layer": _layer,
    "unit": _unit,
    "author": lambda value: facet("author", value),
    "run": lambda value: facet("run", value),
    "model": lambda value: facet("model", value),
}


def as_fts5(query: Query) -> str:
    """The query as SQLite's FTS5 takes it."""
    wanted = [_fts5(term) for term in query.terms if not term.absent] or [MARK]
    return " AND ".join(wanted) + "".join(f" NOT {_fts5(term)}" for term in query.terms if term.absent)


def _fts5(term: Term) -> str:
    return f'"{" ".join(term.tokens)}"' + " *" * term.prefix


def as_tsquery(query: Query) -> str:
    """The query as PostgreSQL's `tsquery` takes it."""
    wanted = [_tsquery(term) for term in query.terms if not term.absent] or [MARK]
    return " & ".join(wanted + [f"!{_tsquery(term)}" for term in query.terms if term.absent])


def _tsquery(term: Term) -> str:
    return f"({' <-> '.join(term.tokens)}{':*' * term.prefix})"

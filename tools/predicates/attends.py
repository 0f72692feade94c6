"""Claims about causes as data: which key each query of a head looks at, what the head carries, which text needs a unit."""

import json
from typing import Annotated, Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates import tree
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.words import phrase
from neuronaut.tools.tokens import Tokens

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

NO_KEY = -1
FIRST_QUERY = 2  # an earlier one has one key at most beside the first token


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Previous(_Part):
    """The token before the query."""

    kind: Literal["previous"] = "previous"


class Current(_Part):
    """The query's own token."""

    kind: Literal["current"] = "current"


class First(_Part):
    """The first token of the text, behind the start token; a model without a start token rests there, so that it names none."""

    kind: Literal["first"] = "first"


class Offset(_Part):
    """The token `n` before the query."""

    kind: Literal["offset"] = "offset"
    n: int = Field(ge=2, le=64)


class Duplicate(_Part):
    """Earlier occurrences of the query's token."""

    kind: Literal["duplicate"] = "duplicate"


class AfterDuplicate(_Part):
    """The tokens that followed earlier occurrences of the query's token."""

    kind: Literal["induction"] = "induction"


class To(_Part):
    """The latest token up to the query at which `inner` holds."""

    kind: Literal["to"] = "to"
    inner: Predicate


Key = Annotated[Previous | Current | First | Offset | Duplicate | AfterDuplicate | To, Field(discriminator="kind")]


class Copies(_Part):
    """What the head writes makes the token that it looks at likelier than the other tokens of the text."""

    kind: Literal["copies"] = "copies"


class Successor(_Part):
    """What the head writes makes the next of the series (letters, digits, days, months, numbers) the likeliest of it."""

    kind: Literal["successor"] = "successor"


class Maps(_Part):
    """What the head writes makes `to[i]` the likeliest of `to` where it looks at `of[i]`."""

    kind: Literal["maps"] = "maps"
    of: Annotated[tuple[str, ...], Field(min_length=2, max_length=64)]
    to: Annotated[tuple[str, ...], Field(min_length=2, max_length=64)]


Carried = Annotated[Copies | Successor | Maps, Field(discriminator="kind")]


class Attends(_Part):
    """Where a head looks. queries: a predicate of the tokens from which it looks there, None for all; carries: what it
    writes of what it looks at, None where nothing is said of it."""

    kind: Literal["attends"] = "attends"
    key: Key
    queries: Predicate | None = None
    carries: Carried | None = None


class Role(_Part):
    """Which tokens are predicted worse without the unit: those at which `text` holds."""

    kind: Literal["role"] = "role"
    text: Predicate


Cause = Attends | Role
_ADAPTER: TypeAdapter[Cause] = TypeAdapter(Annotated[Cause, Field(discriminator="kind")])


def cause_from_json(source: str | dict[str, Any]) -> Cause:
    """The claim that JSON describes. Refuses, in one sentence, what is malformed or out of bounds."""
    try:
        cause = _ADAPTER.validate_python(source) if isinstance(source, dict) else _ADAPTER.validate_json(source)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ToolRefused(f"this is no claim about a head or a role: {where[:120] or 'it'}: {first['msg']}") from None
    if (
        isinstance(cause, Attends)
        and isinstance(cause.carries, Maps)
        and len(cause.carries.of) != len(cause.carries.to)
    ):
        raise ToolRefused(
            f"maps names {len(cause.carries.of)} tokens and {len(cause.carries.to)} for them: give as many"
        )
    for inner in _inner(cause):
        tree.bounded(inner)
    return cause


def attends_from_json(source: str | dict[str, Any]) -> Attends:
    """The attends claim that JSON describes. Refuses anything else."""
    cause = cause_from_json(source)
    if not isinstance(cause, Attends):
        raise ToolRefused("this claim is about a role, not about where a head looks: give one of kind attends")
    return cause


def role_from_json(source: str | dict[str, Any]) -> Role:
    """The role claim that JSON describes. Refuses anything else."""
    cause = cause_from_json(source)
    if not isinstance(cause, Role):
        raise ToolRefused("this claim is about where a head looks, not about a role: give one of kind role")
    return cause


def _inner(cause: Cause) -> list[Predicate]:
    if isinstance(cause, Role):
        return [cause.text]
    inside = [cause.key.inner] if isinstance(cause.key, To) else []
    return inside if cause.queries is None else [*inside, cause.queries]


def canonical_json(cause: Cause) -> str:
    """The one JSON text of a claim: sorted keys, no spaces, defaults written out."""
    return json.dumps(cause.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def complexity(cause: Cause) -> int:
    """Items: one for a key by its place, two where the query's token or a number enters, and those of the predicates."""
    total = sum(tree.complexity(inner) for inner in _inner(cause))
    if isinstance(cause, Role):
        return total
    total += 2 if cause.key.kind in ("offset", "duplicate", "induction") else 1
    match cause.carries:
        case None:
            return total
        case Maps():
            return total + 2 * len(cause.carries.of)
        case _:
            return total + 1


def sentence(cause: Cause) -> str:
    """The claim in words: `attends to the token before`."""
    if isinstance(cause, Role):
        return f"is needed to predict {phrase(cause.text)}"
    told = f"attends to {_key_words(cause.key)}"
    if cause.queries is not None:
        told = f"at {phrase(cause.queries)}, {told}"
    match cause.carries:
        case None:
            return told
        case Copies():
            return f"{told} and copies it"
        case Successor():
            return f"{told} and writes what comes next in its series"
        case Maps():
            pairs = ", ".join(
                f'"{b}" for "{a}"' for a, b in zip(cause.carries.of[:3], cause.carries.to[:3], strict=True)
            )
            return f"{told} and writes {pairs}{', …' if len(cause.carries.of) > 3 else ''}"
        case _ as never:
            assert_never(never)


def _key_words(key: Key) -> str:
    match key:
        case Previous():
            return "the token before"
        case Current():
            return "the token itself"
        case First():
            return "the first token of the text"
        case Offset():
            return f"the token {key.n} before"
        case Duplicate():
            return "earlier occurrences of the same token"
        case AfterDuplicate():
            return "what followed earlier occurrences of the same token"
        case To():
            return f"the latest {phrase(key.inner)}"
        case _ as never:
            assert_never(never)


def named_keys(claim: Attends, tokens: Tokens) -> Bools:
    """(n_windows, query, key) the keys that the claim names; none at queries that it says nothing of.

    Special tokens and the first position of a window, where heads rest, are neither keys nor queries, and the query
    after them is none: it has one key only.
    """
    n_pos = tokens.ids.shape[1]
    place = np.arange(n_pos)
    query, key = place[None, :, None], place[None, None, :]
    found = np.asarray(_named(claim.key, tokens, query, key))
    keys = tokens.scored & (place > 0)
    queries = tokens.scored & (place >= FIRST_QUERY)
    if claim.queries is not None:
        queries = queries & holds(claim.queries, tokens)
    return np.asarray(found & (key <= query) & keys[:, None, :] & queries[:, :, None])


def _named(key_of: Key, tokens: Tokens, query: Ints, key: Ints) -> Any:
    ids = tokens.ids
    match key_of:
        case Previous():
            return key == query - 1
        case Current():
            return key == query
        case First():
            begins = np.argmax(tokens.scored, axis=1)[:, None, None]
            return (key == begins) & (query > begins)
        case Offset():
            return key == query - key_of.n
        case Duplicate():
            return (ids[:, None, :] == ids[:, :, None]) & (key < query)
        case AfterDuplicate():
            before = np.concatenate([np.full((len(ids), 1), NO_KEY, dtype=ids.dtype), ids[:, :-1]], axis=1)
            return before[:, None, :] == ids[:, :, None]
        case To():
            latest = _latest(holds(key_of.inner, tokens) & (np.arange(ids.shape[1]) > 0))
            return key == latest[:, :, None]
        case _ as never:
            assert_never(never)


def _latest(held: Bools) -> Ints:
    """(n_windows, n_pos) the last place up to each at which it held; NO_KEY before the first."""
    place = np.where(held, np.arange(held.shape[1]), NO_KEY)
    return np.asarray(np.maximum.accumulate(place, axis=1), dtype=np.int64)


def keys_of(claim: Attends, tokens: Tokens) -> Ints:
    """(n_windows, n_pos) the key that the claim names for each query, the latest of several; NO_KEY where it names none."""
    named = named_keys(claim, tokens)
    return np.where(named.any(axis=2), named.shape[2] - 1 - np.argmax(named[:, :, ::-1], axis=2), NO_KEY).astype(
        np.int64
    )

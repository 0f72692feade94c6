"""What can be done with any predicate: its parts, its size, its JSON."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.nodes import MAX_LEAVES, MAX_STRINGS, AllOf, AnyOf, At, Not, Predicate, Since, Within

MAX_DEPTH = 6
LEAF_KINDS = frozenset(
    {"token", "token_matches", "word", "word_matches", "word_so_far", "preceded_by", "inside", "repeated", "induction", "position",
     "starts_word", "starts_sentence", "digit", "capitalised", "punctuation", "promotes", "suppresses"}
)  # fmt: skip
_ADAPTER: TypeAdapter[Predicate] = TypeAdapter(Predicate)


def walk(predicate: Predicate) -> Iterator[Predicate]:
    """The predicate and everything inside it, outermost first."""
    yield predicate
    for child in predicate.children():
        yield from walk(child)


def leaves(predicate: Predicate) -> tuple[Predicate, ...]:
    """The conditions that can be edited one by one: leaves, each together with the `at`, `within`, `since` or negation
    that it stands under alone; in reading order, without repeats."""
    if isinstance(predicate, (At, Within, Since, Not)):
        return (predicate,)
    if predicate.kind in LEAF_KINDS:
        return (predicate,)
    found: dict[Predicate, None] = {}
    for child in predicate.children():
        found.update(dict.fromkeys(leaves(child)))
    return tuple(found)


def complexity(predicate: Predicate) -> int:
    """Items: tokens + words + regex branches (a named class counts 5) + leaves + numeric parameters."""
    return predicate.items() + sum(complexity(child) for child in predicate.children())


def simplify(predicate: Predicate) -> Predicate:
    """An equivalent predicate without double negations, nested or repeated parts of all_of and any_of."""
    match predicate:
        case AllOf() | AnyOf():
            flat: dict[Predicate, None] = {}
            for part in map(simplify, predicate.of):
                flat.update(dict.fromkeys(part.of if isinstance(part, type(predicate)) else (part,)))
            parts = tuple(flat)
            return parts[0] if len(parts) == 1 else predicate.model_copy(update={"of": parts})
        case Not():
            inner = simplify(predicate.inner)
            return inner.inner if isinstance(inner, Not) else Not(inner=inner)
        case At() | Within():
            return predicate.model_copy(update={"inner": simplify(predicate.inner)})
        case Since():
            return Since(inner=simplify(predicate.inner), last=simplify(predicate.last))
        case _:
            return predicate


def depth(predicate: Predicate) -> int:
    """1 for a leaf."""
    return 1 + max((depth(child) for child in predicate.children()), default=0)


def canonical_json(predicate: Predicate) -> str:
    """The one JSON text of a predicate: sorted keys, no spaces, defaults written out."""
    return json.dumps(predicate.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def predicate_from_json(source: str | dict[str, Any]) -> Predicate:
    """The predicate that JSON describes. Refuses, in one sentence, what is malformed or out of bounds."""
    try:
        predicate = _ADAPTER.validate_python(source) if isinstance(source, dict) else _ADAPTER.validate_json(source)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ToolRefused(f"this is no predicate: {where[:120] or 'it'}: {first['msg']}") from None
    except RecursionError:
        raise ToolRefused(f"this is no predicate: it is nested more than {MAX_DEPTH} deep") from None
    return bounded(predicate)


def bounded(predicate: Predicate) -> Predicate:
    """The predicate itself. Refuses one that is too deep, too large, or mixes the two sides."""
    if depth(predicate) > MAX_DEPTH:
        raise ToolRefused(f"the predicate is nested {depth(predicate)} deep: at most {MAX_DEPTH}")
    parts = list(walk(predicate))
    if sum(part.kind in LEAF_KINDS for part in parts) > MAX_LEAVES:
        raise ToolRefused(f"the predicate has more than {MAX_LEAVES} leaves")
    if sum(len(getattr(part, "any_of", ())) for part in parts) > MAX_STRINGS:
        raise ToolRefused(f"the predicate names more than {MAX_STRINGS} tokens and words")
    if len(parts) > 1 and any(part.kind in ("promotes", "suppresses") for part in parts):
        raise ToolRefused("promotes and suppresses stand alone: they speak of the output, not of the text")
    return predicate

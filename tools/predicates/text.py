"""Predicates as people write them: `all_of(token(" in"), at(1, digit))`."""

import ast
import warnings
from collections.abc import Callable
from typing import Any, assert_never

from pydantic import ValidationError

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import bounded, predicate_from_json


def _call(name: str, *parts: object) -> str:
    return f"{name}({', '.join(str(part) for part in parts)})"


def _quoted(strings: tuple[str, ...]) -> list[str]:
    return [repr(string) for string in strings]


def _flags(**flags: bool) -> list[str]:
    return [f"{name}=True" for name, on in flags.items() if on]


def readable(predicate: Predicate) -> str:
    """The text form; `parse_text` reads it back to an equal predicate."""
    match predicate:
        case nodes.Token():
            flags = _flags(ignore_case=predicate.ignore_case, ignore_space=predicate.ignore_space)
            return _call("token", *_quoted(predicate.any_of), *flags)
        case nodes.Word() | nodes.WordSoFar():
            return _call(predicate.kind, *_quoted(predicate.any_of), *_flags(ignore_case=predicate.ignore_case))
        case nodes.TokenMatches() | nodes.WordMatches() | nodes.PrecededBy():
            return _call(predicate.kind, repr(predicate.regex))
        case nodes.At():
            return _call("at", predicate.offset, readable(predicate.inner))
        case nodes.Within():
            return _call("within", predicate.window, readable(predicate.inner))
        case nodes.Since():
            return _call("since", readable(predicate.inner), readable(predicate.last))
        case nodes.Inside():
            return _call("inside", repr(predicate.open), repr(predicate.close))
        case nodes.Repeated():
            return _call("repeated", predicate.min_gap)
        case nodes.Induction():
            return _call("induction", predicate.length)
        case nodes.Position():
            return _call("position", predicate.first, predicate.last)
        case nodes.AllOf() | nodes.AnyOf():
            return _call(predicate.kind, *(readable(part) for part in predicate.of))
        case nodes.Not():
            return _call("not", readable(predicate.inner))
        case nodes.Modes():
            return _call("modes", *(_call("mode", readable(m.predicate), m.strength) for m in predicate.of))
        case nodes.Graded():
            return _call("graded", *(_call("part", readable(w.predicate), w.weight) for w in predicate.of))
        case nodes.Promotes() | nodes.Suppresses():
            return _call(predicate.kind, *_quoted(predicate.tokens))
        case nodes.StartsWord() | nodes.StartsSentence() | nodes.Digit() | nodes.Capitalised() | nodes.Punctuation():
            return predicate.kind
        case _ as never:
            assert_never(never)


def spelled(value: Any) -> Any:
    """Arguments of a tool with each predicate in them, which stands there as JSON, in its text form."""
    match value:
        case dict():
            return {name: spelled(one) for name, one in value.items()}
        case list() | tuple():
            return [spelled(one) for one in value]
        case str() if value.startswith("{") and len(value) <= LONGEST:
            try:
                return readable(predicate_from_json(value))
            except ToolRefused:
                return value
        case _:
            return value


_BARE: dict[str, Callable[[], Predicate]] = {
    "starts_word": nodes.StartsWord,
    "starts_sentence": nodes.StartsSentence,
    "digit": nodes.Digit,
    "capitalised": nodes.Capitalised,
    "punctuation": nodes.Punctuation,
}

_REGEX_LEAVES: dict[str, Callable[..., Predicate]] = {
    "token_matches": nodes.TokenMatches,
    "word_matches": nodes.WordMatches,
    "preceded_by": nodes.PrecededBy,
}
LONGEST = 100_000  # characters of a text form; the largest predicate needs about half


def parse_text(text: str) -> Predicate:
    """The predicate that a text form means. Refuses anything else in one sentence; nothing is executed."""
    if len(text) > LONGEST:
        raise ToolRefused(f"the predicate is longer than {LONGEST:,} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # '\\d' without r is what people write
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(text.strip(), mode="eval").body
        return bounded(_build(tree))
    except SyntaxError:
        raise ToolRefused(f"{text[:100]!r} is not in the predicate language: write for example token(' and')") from None
    except ValidationError as error:
        raise ToolRefused(f"{text[:100]!r}: {error.errors()[0]['msg']}") from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise ToolRefused(f"{text[:100]!r} cannot be read as a predicate ({type(error).__name__})") from None


def _build(tree: ast.expr) -> Predicate:
    if isinstance(tree, ast.Name) and tree.id in _BARE:
        return _BARE[tree.id]()
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        return nodes.Not(inner=_build(tree.operand))
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise ToolRefused("a predicate is a name such as digit or a call such as token(' and')")
    name, flags = tree.func.id, {k.arg or "**": _constant(k.value, bool) for k in tree.keywords}
    if flags and name not in ("token", "word", "word_so_far"):
        raise ToolRefused(f"{name} takes no named arguments: write {name}(…) with the values in order")
    if name in _BARE and not tree.args:
        return _BARE[name]()
    return _from_call(name, tree.args, flags)


def _from_call(name: str, args: list[ast.expr], flags: dict[str, object]) -> Predicate:
    match name:
        case "token":
            return nodes.Token.model_validate({"any_of": _strings(args), **flags})
        case "word":
            return nodes.Word.model_validate({"any_of": _strings(args), **flags})
        case "word_so_far":
            return nodes.WordSoFar.model_validate({"any_of": _strings(args), **flags})
        case "token_matches" | "word_matches" | "preceded_by":
            return _REGEX_LEAVES[name](regex=_only(_strings(args), name))
        case "at":
            offset, inner = _two(args, name)
            return nodes.At(offset=_number(offset), inner=_build(inner))
        case "within":
            window, inner = _two(args, name)
            return nodes.Within(window=_number(window), inner=_build(inner))
        case "since":
            inner, last = _two(args, name)
            return nodes.Since(inner=_build(inner), last=_build(last))
        case "inside":
            opening, closing = _two(args, name)
            return nodes.Inside(open=str(_constant(opening, str)), close=str(_constant(closing, str)))
        case "position":
            first, last = _two(args, name)
            return nodes.Position(first=_number(first), last=_number(last))
        case "repeated" if len(args) <= 1:
            return nodes.Repeated(min_gap=_number(args[0])) if args else nodes.Repeated()
        case "induction" if len(args) <= 1:
            return nodes.Induction(length=_number(args[0])) if args else nodes.Induction()
        case "all_of" | "any_of" if len(args) == 1:
            return _build(args[0])
        case "all_of":
            return nodes.AllOf(of=tuple(_build(arg) for arg in args))
        case "any_of":
            return nodes.AnyOf(of=tuple(_build(arg) for arg in args))
        case "not_" if len(args) == 1:
            return nodes.Not(inner=_build(args[0]))
        case "modes":
            return nodes.Modes(of=tuple(nodes.Mode(predicate=p, strength=s) for p, s in _weighted(args, "mode")))
        case "graded":
            return nodes.Graded(of=tuple(nodes.Weighted(predicate=p, weight=w) for p, w in _weighted(args, "part")))
        case "promotes":
            return nodes.Promotes(tokens=_strings(args))
        case "suppresses":
            return nodes.Suppresses(tokens=_strings(args))
    raise ToolRefused(f"{name!r} with {len(args)} arguments is not in the predicate language")


def _constant(tree: ast.expr, kind: type) -> object:
    if isinstance(tree, ast.Constant) and type(tree.value) is kind:
        return tree.value
    raise ToolRefused(f"expected a {kind.__name__}, found {ast.unparse(tree)[:60]!r}")


def _number(tree: ast.expr) -> int:
    return int(str(_constant(tree, int)))


def _strings(args: list[ast.expr]) -> tuple[str, ...]:
    return tuple(str(_constant(arg, str)) for arg in args)


def _only(strings: tuple[str, ...], name: str) -> str:
    if len(strings) != 1:
        raise ToolRefused(f"{name} takes one regular expression, not {len(strings)}")
    return strings[0]


def _two(args: list[ast.expr], name: str) -> tuple[ast.expr, ast.expr]:
    if len(args) != 2:
        raise ToolRefused(f"{name} takes two arguments, not {len(args)}")
    return args[0], args[1]


def _weighted(args: list[ast.expr], name: str) -> list[tuple[Predicate, float]]:
    pairs = []
    for arg in args:
        match arg:
            case ast.Call(ast.Name(called), [inner, ast.Constant(number)], []) if called == name:
                if not isinstance(number, int | float) or isinstance(number, bool):
                    raise ToolRefused(f"expected {name}(predicate, number), found {ast.unparse(arg)[:60]!r}")
                pairs.append((_build(inner), float(number)))
            case _:
                raise ToolRefused(f"expected {name}(predicate, number), found {ast.unparse(arg)[:60]!r}")
    return pairs

"""Predicates in words: `fires on a digit just after " in"`."""

from typing import Literal

from neuronaut.tools.predicates import nodes, tree
from neuronaut.tools.predicates.nodes import Predicate

SHOWN = 6  # so many tokens are named in a sentence before "and n more"


def _visible(string: str) -> str:
    """The string with line ends, control and direction characters written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in string)


def _listed(strings: tuple[str, ...]) -> str:
    shown = ", ".join(f'"{_visible(string)}"' for string in strings[:SHOWN])
    return shown if len(strings) <= SHOWN else f"{shown} and {len(strings) - SHOWN} more"


_CLASSES = {
    "starts_word": "the start of a word",
    "starts_sentence": "the start of a sentence",
    "digit": "a digit",
    "capitalised": "a capitalised token",
    "punctuation": "punctuation",
}


def phrase(predicate: Predicate) -> str:
    """What the predicate holds of, in words: `" and", or a digit just after " in"`."""
    match predicate:
        case nodes.AllOf():
            nouns = [part for part in predicate.of if not _is_condition(part)]
            others = sorted((part for part in predicate.of if part not in nouns[:1]), key=_order)
            named = _within_and(nouns[0]) if nouns else "any token"
            held = " and ".join(condition(part) for part in others if not isinstance(part, nodes.Not))
            denied = " and ".join(condition(part) for part in others if isinstance(part, nodes.Not))
            return " ".join(text for text in (named, held, denied) if text)
        case nodes.AnyOf():
            between = "; or " if any(isinstance(part, nodes.AllOf) for part in predicate.of) else ", or "
            return between.join(phrase(part) for part in predicate.of)
        case nodes.Modes():
            told = [f"{_as_strongly(mode.strength)}{phrase(mode.predicate)}" for mode in predicate.of]
            return "; ".join(told)
        case nodes.Graded():
            return "; ".join(phrase(part) for part in predicate.children())
        case nodes.Promotes() | nodes.Suppresses():
            return _listed(predicate.tokens)
        case _:
            return f"any token {condition(predicate)}" if _is_condition(predicate) else _noun(predicate)


def _as_strongly(strength: float) -> str:
    return "" if strength == 1 else f"{strength:.2g} as strongly on "


def _is_condition(predicate: Predicate) -> bool:
    """Whether a leaf tells where a token stands rather than which one it is."""
    where = (nodes.At, nodes.Within, nodes.Since, nodes.PrecededBy, nodes.Inside, nodes.Repeated, nodes.Induction)
    return isinstance(predicate, (*where, nodes.Position, nodes.Not))


def _order(part: Predicate) -> tuple[int, int]:
    """Conditions are told from the nearest token to the farthest, then where in the text, then what must not be."""
    match part:
        case nodes.At():
            return 0, part.offset
        case nodes.Position():
            return 2, 0
        case nodes.Not():
            return 3, 0
        case _:
            return 1, 0


def _within_and(predicate: Predicate) -> str:
    return f"({phrase(predicate)})" if isinstance(predicate, nodes.AnyOf) else phrase(predicate)


def _noun(predicate: Predicate) -> str:
    match predicate:
        case nodes.Token():
            loose = [name for name, on in (("case", predicate.ignore_case), ("spacing", predicate.ignore_space)) if on]
            return _listed(predicate.any_of) + (f" (in any {' and '.join(loose)})" if loose else "")
        case nodes.Word():
            loose_word = " (in any case)" if predicate.ignore_case else ""
            return f"the word{'s' * (len(predicate.any_of) > 1)} {_listed(predicate.any_of)}{loose_word}"
        case nodes.WordSoFar():
            marks = [one for one in predicate.any_of if not one[0].isalnum()]
            loose_word = " (in any case)" if predicate.ignore_case else ""
            what = (
                "a word"
                if not marks
                else "a run of marks"
                if len(marks) == len(predicate.any_of)
                else "a word or marks"
            )
            return f"{what} that goes {_listed(predicate.any_of)} so far{loose_word}"
        case nodes.TokenMatches():
            return f"a token matching /{_visible(predicate.regex)}/"
        case nodes.WordMatches():
            return f"a word matching /{_visible(predicate.regex)}/"
        case _:
            return _CLASSES[predicate.kind]


def condition(predicate: Predicate) -> str:
    """Where the predicate holds, to stand behind a noun: `just after " in"`, `inside ( )`, `but not …`."""
    match predicate:
        case nodes.At():
            where = "just after" if predicate.offset == 1 else f"{predicate.offset} tokens after"
            return f"{where} {_within_and(predicate.inner)}"
        case nodes.Within():
            return f"with {_within_and(predicate.inner)} among the {predicate.window} tokens before it"
        case nodes.Since():
            return f"after {_within_and(predicate.inner)} with no {_within_and(predicate.last)} in between"
        case nodes.PrecededBy():
            return f"after text ending in /{_visible(predicate.regex)}/"
        case nodes.Inside():
            return f"inside {_visible(predicate.open)} {_visible(predicate.close)}"
        case nodes.Repeated():
            gap = "" if predicate.min_gap == 1 else f" at least {predicate.min_gap} tokens earlier"
            return f"that has occurred before{gap}"
        case nodes.Induction():
            return f"that continues {predicate.length + 1} tokens seen before"
        case nodes.Position():
            return _position(predicate)
        case nodes.Not():
            return _negated(predicate.inner)
        case nodes.AnyOf() if all(_is_condition(part) for part in predicate.of):
            return " or ".join(condition(part) for part in predicate.of)
        case _:
            return f"that is also {_within_and(predicate)}"


def _negated(inner: Predicate) -> str:
    match inner:
        case nodes.Repeated() | nodes.Induction():
            return (
                condition(inner).replace("that has", "that has not").replace("that continues", "that does not continue")
            )
        case nodes.Within():
            return condition(inner).replace("with", "without", 1)
        case _:
            return f"but not {condition(inner) if _is_condition(inner) else _within_and(inner)}"


def _position(predicate: nodes.Position) -> str:
    if predicate.first == predicate.last:
        return f"at place {predicate.first + 1} of the text"
    if predicate.last >= nodes.MAX_POSITION:
        return f"from place {predicate.first + 1} of the text on"
    return f"at places {predicate.first + 1} to {predicate.last + 1} of the text"


def told_from(claim: str, predicate: Predicate, other: Predicate) -> str:
    """The sentence with what tells its predicate from another one that reads the same, since long lists are cut."""
    mine, theirs = (
        [text for part in tree.walk(one) for text in getattr(part, "any_of", ())] for one in (predicate, other)
    )
    more, fewer = ([text for text in one if text not in two] for one, two in ((mine, theirs), (theirs, mine)))
    if not more and not fewer:
        return f"{claim} (in another form)"
    return f"{claim}, {'with' if more else 'without'} {_listed(tuple(more or fewer)[:2])}"


def claim_text(predicate: Predicate, *, sign: Literal[1, -1] = 1) -> str:
    """The sentence of a claim, made from its predicate."""
    if isinstance(predicate, nodes.Promotes):
        return f"raises {phrase(predicate)}"
    if isinstance(predicate, nodes.Suppresses):
        return f"lowers {phrase(predicate)}"
    return f"{'fires on' if sign > 0 else 'falls on'} {phrase(predicate)}"

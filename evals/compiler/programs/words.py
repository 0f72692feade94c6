"""Words that programs are written in."""

from collections.abc import Callable
from operator import eq, gt, lt

from neuronaut.evals.compiler.program import (
    Count,
    Label,
    Labels,
    Map,
    Numbers,
    Positions,
    Prefer,
    Selector,
    Tokens,
)

LETTERS = Tokens(("a", "b", "c", "d"))
DIGITS = Tokens(("0", "1", "2", "3"))
ROUND = Tokens(("(", ")", "x"))
MIXED = Tokens(("(", ")", "[", "]"))
POSITION = Positions()

previous = Selector(((POSITION, POSITION, lambda key, query: key == query - 1),))
earlier = Selector(((POSITION, POSITION, lt),))
everything = Selector(((POSITION, POSITION, lambda key, query: key <= query),))


def back(n: int) -> Selector:
    """The position `n` before."""
    return Selector(((POSITION, POSITION, lambda key, query: key == query - n),))


def at(index: int) -> Selector:
    """One position of the text."""
    return Selector(((POSITION, POSITION, lambda key, query: key == index),))


def same(values: Labels) -> Selector:
    """Where a variable has the label that it has here."""
    return Selector(((values, values, eq),))


def where(values: Labels, *labels: Label, prefer: Prefer = "all") -> Selector:
    """Where a variable has one of the labels."""
    return Selector(((values, POSITION, lambda key, query: key in labels),), prefer)


def after(start: Labels) -> Selector:
    """The positions after the one that a variable names."""
    return Selector(((POSITION, start, gt),))


Task = tuple[str, str, Labels]  # name, what it says at each position, the variable that says it


def yes(truth: bool) -> Label:
    """The label of a truth."""
    return "yes" if truth else "no"


def labels(count: Numbers, name: str = "") -> Map:
    """A number as labels."""
    return Map(name or f"{count.name}_label", lambda n: n, (count,))


def whether(name: str, condition: Callable[..., bool], *arguments: Labels | Numbers) -> Map:
    """yes or no."""
    return Map(name, lambda *values: yes(condition(*values)), arguments)


def seen(values: Labels, label: Label) -> Map:
    """Whether a label has been there."""
    return whether(f"seen_{label}", lambda n: n > 0, Count(f"count_{label}", where(values, label)))


def successor(label: Label) -> Label:
    """The next letter of four, the first after the last; None stays."""
    return None if label is None else LETTERS.domain[(LETTERS.domain.index(label) + 1) % 4]

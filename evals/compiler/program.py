"""Sequence programs after RASP: what they are made of, and what they give, by plain Python.

A variable has a value at every position, which depends on the tokens up to it only. Positions count from 0.
Source: Weiss et al. 2021, arXiv:2106.06981; causal, as in Lindner et al. 2023, arXiv:2301.05062.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Literal, assert_never

MAX_LENGTH = 12  # tokens of an input, the start token apart

Label = str | int | None  # None: nothing was selected
Value = Label | Fraction
Predicate = Callable[..., bool]  # of two labels; None is never asked about
Prefer = Literal["all", "first", "last"]


@dataclass(frozen=True, eq=False)
class Tokens:
    """The token itself."""

    domain: tuple[Label, ...]
    name: str = "token"


@dataclass(frozen=True, eq=False)
class Positions:
    """The position, 0 at the first token."""

    name: str = "position"

    @property
    def domain(self) -> tuple[Label, ...]:
        """0 to the last position that there can be."""
        return tuple(range(MAX_LENGTH))


@dataclass(frozen=True, eq=False)
class Selector:
    """Which earlier positions (its own included) each position looks at: those where each `(keys, queries, predicate)`
    says so of the value there and the value here. None matches nothing. prefer: of those, only the first or the last."""

    terms: tuple[tuple["Labels", "Labels", Predicate], ...]
    prefer: Prefer = "all"

    def __and__(self, other: "Selector") -> "Selector":
        return Selector(self.terms + other.terms, other.prefer if self.prefer == "all" else self.prefer)


@dataclass(frozen=True, eq=False)
class Pull:
    """The label at the selected position, or what `through` makes of it; None where nothing is selected.

    Where several positions are selected their labels must agree.
    """

    name: str
    selector: Selector
    values: "Labels"
    through: Callable[..., Label] = lambda label: label

    @property
    def domain(self) -> tuple[Label, ...]:
        """What may come, None last."""
        return ordered({self.through(label) for label in self.values.domain} | {None})


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of a whole number that `number` gives each label, over the selected positions; 0 where none is."""

    name: str
    selector: Selector
    values: "Labels"
    number: Callable[..., int]

    @property
    def domain(self) -> tuple[Fraction, ...]:
        """All means that up to MAX_LENGTH numbers may have, ascending."""
        numbers = [self.number(label) for label in self.values.domain]
        low, high = min(0, *numbers), max(0, *numbers)
        means = {Fraction(total, n) for n in range(1, MAX_LENGTH + 1) for total in range(low * n, high * n + 1)}
        return tuple(sorted(means))


@dataclass(frozen=True, eq=False)
class Count:
    """How many positions are selected."""

    name: str
    selector: Selector

    @property
    def domain(self) -> tuple[int, ...]:
        """0 to all."""
        return tuple(range(MAX_LENGTH + 1))


@dataclass(frozen=True, eq=False)
class Map:
    """A function of one variable, or of two that have labels."""

    name: str
    function: Callable[..., Label]
    arguments: tuple["Variable", ...]

    @property
    def domain(self) -> tuple[Label, ...]:
        """What the function gives anywhere."""
        return ordered({self.function(*values) for values in product(*(one.domain for one in self.arguments))})


Labels = Tokens | Positions | Pull | Map
Numbers = Mean | Count
Variable = Labels | Numbers


@dataclass(frozen=True, eq=False)
class Program:
    """A task as a program. family: what kind of computation; task: what it says at each position, one sentence."""

    name: str
    family: str
    task: str
    tokens: Tokens
    output: Labels


def ordered(labels: set[Label]) -> tuple[Label, ...]:
    """Numbers, then words, then None."""
    return tuple(sorted(labels, key=lambda label: (label is None, isinstance(label, str), label)))


def inputs(variable: Variable) -> tuple[Variable, ...]:
    """The variables that this one is computed from, each once."""
    match variable:
        case Tokens() | Positions():
            found: list[Variable] = []
        case Map():
            found = list(variable.arguments)
        case Pull() | Mean() | Count():
            found = [one for keys, queries, _ in variable.selector.terms for one in (keys, queries)]
            if not isinstance(variable, Count):
                found.append(variable.values)
        case _ as never:
            assert_never(never)
    return tuple(dict.fromkeys(found))


def variables(program: Program) -> tuple[Variable, ...]:
    """All variables of a program, each after those that it is computed from."""

    def walk(one: Variable) -> Iterator[Variable]:
        for before in inputs(one):
            yield from walk(before)
        yield one

    return tuple(dict.fromkeys(walk(program.output)))


def selected(selector: Selector, columns: dict[Variable, list[Value]], at: int) -> list[int]:
    """The positions that `at` looks at."""

    def matches(j: int) -> bool:
        return all(
            (key := columns[keys][j]) is not None
            and (query := columns[queries][at]) is not None
            and predicate(key, query)
            for keys, queries, predicate in selector.terms
        )

    found = [j for j in range(at + 1) if matches(j)]
    match selector.prefer:
        case "all":
            return found
        case "first":
            return found[:1]
        case "last":
            return found[-1:]
        case _ as never:
            assert_never(never)


def interpret(program: Program, tokens: Sequence[str]) -> list[Label]:
    """What the program gives at each position. Raises ValueError where a pull selects labels that differ."""
    columns: dict[Variable, list[Value]] = {}
    for variable in variables(program):
        columns[variable] = [value_of(variable, tokens, columns, at) for at in range(len(tokens))]
    return columns[program.output]  # type: ignore[return-value]


def value_of(variable: Variable, tokens: Sequence[str], columns: dict[Variable, list[Value]], at: int) -> Value:
    """The value of a variable at a position, from the columns of those that it is computed from."""
    match variable:
        case Tokens():
            return tokens[at]
        case Positions():
            return at
        case Map():
            return variable.function(*(columns[one][at] for one in variable.arguments))
        case Count():
            return len(selected(variable.selector, columns, at))
        case Mean():
            numbers = [variable.number(columns[variable.values][j]) for j in selected(variable.selector, columns, at)]
            return Fraction(sum(numbers), len(numbers)) if numbers else Fraction(0)
        case Pull():
            labels = {columns[variable.values][j] for j in selected(variable.selector, columns, at)}
            if len(labels) > 1:
                raise ValueError(f"{variable.name} pulls labels that differ at position {at}: {labels}")
            return variable.through(labels.pop()) if labels else None
        case _ as never:
            assert_never(never)

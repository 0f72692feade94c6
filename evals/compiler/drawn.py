"""Programs drawn at random: no method can have been made for them. Each of their variables matters to what is said."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import eq, lt

from neuronaut.evals.compiler.program import (
    MAX_LENGTH,
    Count,
    Label,
    Labels,
    Map,
    Mean,
    Positions,
    Program,
    Pull,
    Selector,
    Tokens,
    Value,
    Variable,
    value_of,
    variables,
)
from neuronaut.evals.compiler.programs.words import DIGITS, LETTERS, POSITION, yes

TEXTS = 60
COMMONEST = 0.9  # of the places: a program that says one thing more often than that is not taken
MOST_PAIRS = 80  # labels of one argument times those of the other
MOST_OUTPUTS = 40
WORDS = (LETTERS, LETTERS, DIGITS, Tokens(("x", "y", "z")))
Term = tuple[Labels, Labels, Callable[..., bool]]


@cache
def drawn(number: int) -> Program:
    """The program of that number; one number always gives the same."""
    rng = random.Random(f"drawn program {number}")
    while True:
        program = _Draft(rng, rng.choice(WORDS)).program(number)
        if program is not None and _worth_asking(program):
            return program


@dataclass
class _Draft:
    """A program in the making. labels: variables that the next one may read."""

    rng: random.Random
    tokens: Tokens
    labels: list[Labels] = field(default_factory=list)

    def program(self, number: int) -> Program | None:
        """Two to five variables, of which the last is said; None where nothing was read."""
        self.labels = [self.tokens, POSITION]
        makes = (self._pull, self._pull, self._count, self._mean, self._map_two, self._map_two, self._map_one)
        for at in range(self.rng.randint(2, 5)):
            self.rng.choice(makes)(f"v{at}")
        output = self.labels[-1]
        if isinstance(output, Tokens | Positions) or len(output.domain) > MOST_OUTPUTS:
            return None
        program = Program(f"drawn {number}", "drawn", "a random function of the text so far", self.tokens, output)
        return program if self.tokens in variables(program) else None

    def _pull(self, name: str) -> None:
        selector = self._selector(self.rng.choice(("first", "last")))
        self.labels.append(Pull(name, selector, self.rng.choice(self.labels)))

    def _count(self, name: str) -> None:
        count, least, base = Count(name, self._selector("all")), self.rng.randint(0, 2), self.rng.choice((2, 3))
        made: tuple[Callable[[int], Label], ...] = (lambda n: yes(n > least), lambda n: n % base, lambda n: n)
        self.labels.append(Map(f"{name}_label", self.rng.choice(made), (count,)))

    def _mean(self, name: str) -> None:
        """The number of None is 0: the start token, on which the head falls where nothing is selected, may be labelled so."""
        values = self.rng.choice([one for one in self.labels if one is not POSITION])
        number = {label: self.rng.randint(0, 1) * (label is not None) for label in values.domain}
        mean, quarter = Mean(name, self._selector("all"), values, number.__getitem__), self.rng.randint(1, 3)
        if len(set(number.values())) == 2:
            self.labels.append(Map(f"{name}_label", lambda share: yes(4 * share > quarter), (mean,)))

    def _map_two(self, name: str) -> None:
        one, other = self.rng.sample(self.labels, 2)
        base = self.rng.choice((2, 3))
        if len(one.domain) * len(other.domain) <= MOST_PAIRS:
            table = {(a, b): self.rng.randrange(base) for a in one.domain for b in other.domain}
            self.labels.append(Map(name, lambda a, b: table[a, b], (one, other)))

    def _map_one(self, name: str) -> None:
        one = self.rng.choice(self.labels)
        table = {label: self.rng.randrange(2) for label in one.domain}
        self.labels.append(Map(name, table.__getitem__, (one,)))

    def _selector(self, prefer: str) -> Selector:
        return Selector(tuple(self._term() for _ in range(self.rng.choice((1, 1, 2)))), prefer)  # type: ignore[arg-type]

    def _term(self) -> Term:
        """Some labels of a key; a relation of positions; equal labels; or a random table of pairs."""
        keys, kind = self.rng.choice(self.labels), self.rng.random()
        if kind < 0.4:
            known = [label for label in keys.domain if label is not None]
            some = frozenset(self.rng.sample(known, max(1, len(known) // 3)))
            return keys, POSITION, lambda key, query: key in some
        if kind < 0.7 or keys is POSITION:
            back = self.rng.randint(0, 3)
            relation: Callable[..., bool] = self.rng.choice((lambda key, query: key == query - back, lt))
            return POSITION, POSITION, relation
        queries = self.rng.choice([one for one in self.labels if one is not POSITION])
        pairs = {(key, query): self.rng.random() < 0.35 for key in keys.domain for query in queries.domain}
        return keys, queries, eq if queries is keys else lambda key, query: pairs[key, query]


def _worth_asking(program: Program) -> bool:
    """Whether what is said varies, and changes with each variable when that has the values that it has in another text."""
    rng, words = random.Random(program.name), [str(token) for token in program.tokens.domain]
    texts = [rng.choices(words, k=MAX_LENGTH) for _ in range(TEXTS)]
    runs = [_columns(program, text, {}) for text in texts]
    said = Counter(label for run in runs for label in run[program.output])
    if max(said.values()) > COMMONEST * said.total():
        return False
    inner = [one for one in variables(program) if not isinstance(one, Tokens | Positions) and one is not program.output]
    return all(_matters(program, one, texts, runs) for one in inner)


def _matters(
    program: Program, one: Variable, texts: Sequence[Sequence[str]], runs: Sequence[dict[Variable, list[Value]]]
) -> bool:
    """Whether at least a tenth of the texts are answered otherwise."""
    changed = 0
    for text, run, other in zip(texts, runs, [*runs[1:], runs[0]], strict=True):
        shifted = [other[one][-1], *other[one][:-1]]
        changed += _columns(program, text, {one: shifted})[program.output] != run[program.output]
    return 10 * changed >= len(texts)


def _columns(program: Program, text: Sequence[str], given: dict[Variable, list[Value]]) -> dict[Variable, list[Value]]:
    """All variables at all places; those given keep what they are given."""
    columns: dict[Variable, list[Value]] = {}
    for one in variables(program):
        own = given.get(one)
        columns[one] = own if own is not None else [value_of(one, text, columns, at) for at in range(len(text))]
    return columns

"""The parts of a compiled model: heads that select, neurons that look up, and idle ones of both.

The residual stream has a dimension for each label of each variable, and one for each number. Attention selects by scores so
far apart that what is not selected gets no weight; where nothing is selected it falls on the start token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from neuronaut.evals.compiler.program import (
    Count,
    Label,
    Map,
    Mean,
    Positions,
    Program,
    Pull,
    Value,
    Variable,
    inputs,
    variables,
)

Role = Literal["indicator", "aggregator", "mover", "combiner", "output", "none"]
Floats = NDArray[np.float64]

MATCH = (
    50.0  # score of one condition that holds; e^-25 of the weight goes astray. Larger ones weigh what matches unevenly
)
ORDERED_MATCH = 1000.0  # the same where positions add up to 12 times ORDER
ORDER = 30.0  # score of one position later, or earlier; e^-30 of the weight goes to the next best
SILENCE = 10.0  # keeps lookup neurons off at the start token
UP, DOWN, BALLAST, START, FIRST_FREE = range(5)
SCRATCH = 4  # dimensions that nothing reads
IDLE_WRITE = 0.1


@dataclass(frozen=True)
class Component:
    """A head, or a group of neurons, and what it is for. writes: the variable, "" for a part that nothing reads."""

    kind: Literal["head", "neurons"]
    layer: int
    indices: tuple[int, ...]
    role: Role
    writes: str
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """query, key, value: (d_model, d_head). out: (d_head, d_model). bias: of the queries, (d_head,)."""

    query: Floats
    key: Floats
    value: Floats
    out: Floats
    bias: Floats
    component: Component


@dataclass(frozen=True)
class Neurons:
    """read: (d_model, n). bias: (n,). write: (n, d_model)."""

    read: Floats
    bias: Floats
    write: Floats
    component: Component


@dataclass(frozen=True)
class Neuron:
    """What one neuron reads and writes, by residual dimension."""

    reads: Mapping[int, float]
    bias: float
    writes: Mapping[int, float]


@dataclass(frozen=True)
class Layout:
    """Which residual dimension stands for what; a number has one, under None.

    depth: 2 * layer for what heads write, 2 * layer + 1 for what neurons write, -1 for what is embedded.
    """

    program: Program
    places: Mapping[Variable, Mapping[Value, int]]
    depth: Mapping[Variable, int]
    position: Positions
    scratch: range

    @classmethod
    def of(cls, program: Program) -> "Layout":
        """Variables one after the other. Raises ValueError where two have one name."""
        found = variables(program)
        if len({one.name for one in found}) < len(found):
            raise ValueError(f"two variables of {program.name} have the same name")
        position = next((one for one in found if isinstance(one, Positions)), Positions())
        places: dict[Variable, dict[Value, int]] = {}
        free = FIRST_FREE
        for one in dict.fromkeys([program.tokens, position, *found]):
            domain: Sequence[Value] = (None,) if isinstance(one, Mean | Count) else one.domain
            places[one] = {label: free + i for i, label in enumerate(domain)}
            free += len(domain)
        depth: dict[Variable, int] = {}
        for one in found:
            after = max((depth[before] for before in inputs(one)), default=-2) + 1
            depth[one] = after + (after >= 0 and after % 2 != isinstance(one, Map))
        return cls(program, places, depth, position, range(free, free + SCRATCH))

    @property
    def size(self) -> int:
        """Dimensions in use."""
        return self.scratch.stop

    def component(self, one: Variable) -> Component:
        """What the part that writes a variable is for; where it stands is said later."""
        kind: Literal["head", "neurons"] = "neurons" if isinstance(one, Map) else "head"
        reads = tuple(before.name for before in inputs(one))
        return Component(kind, self.depth[one] // 2, (), self._role(one), one.name, reads)

    def _role(self, one: Variable) -> Role:
        match one:
            case Mean() | Count():
                return "aggregator"
            case Pull():
                return "mover"
            case Map() if len(one.arguments) == 2:
                return "combiner"
            case _:
                return "output" if one is self.program.output else "indicator"


def width(one: Pull | Mean | Count) -> int:
    """Dimensions that a head needs: for its keys, the start token and the order; or for its values."""
    keys = sum(len(keys.domain) for keys, _, _ in one.selector.terms)
    return max(keys + 2, len(one.domain) if isinstance(one, Pull) else 1)


def head_of(one: Pull | Mean | Count, layout: Layout, d_model: int, d_head: int) -> Head:
    """The head that writes a variable. Its score of a key is the number of conditions that hold, times the match."""
    query, key, value = (np.zeros((d_model, d_head)) for _ in range(3))
    out, bias = np.zeros((d_head, d_model)), np.zeros(d_head)
    prefer, terms, column = one.selector.prefer, one.selector.terms, 0
    match = MATCH if prefer == "all" else ORDERED_MATCH
    for keys, queries, predicate in terms:
        for label, at in layout.places[keys].items():
            for asked, here in layout.places[queries].items():
                if label is not None and asked is not None and predicate(label, asked):
                    query[here, column] = match
            key[at, column] = label is not None
            column += 1
    key[START, column] = 1.0
    bias[column] = match * (len(terms) - (0.0 if isinstance(one, Count) else 0.5))
    if prefer != "all":
        for label, at in layout.places[layout.position].items():
            key[at, column + 1] = label
        bias[column + 1] = ORDER if prefer == "last" else -ORDER
    _carry(one, layout, value, out)
    scale = np.sqrt(d_head)
    return Head(query * scale, key, value, out, bias * scale, layout.component(one))


def _carry(one: Pull | Mean | Count, layout: Layout, value: Floats, out: Floats) -> None:
    """What the head carries: a label, a number, or the weight on the start token, 1 / (1 + count)."""
    written = layout.places[one]
    if isinstance(one, Pull):
        column = {label: i for i, label in enumerate(written)}
        for label, at in layout.places[one.values].items():
            value[at, column[one.through(label)]] = 1.0
        value[START, column[None]] = 1.0
        for label, i in column.items():
            out[i, written[label]] = 1.0
        return
    out[0, written[None]] = 1.0
    match one:
        case Mean():
            for label, at in layout.places[one.values].items():
                value[at, 0] = one.number(label)
        case Count():
            value[START, 0] = 1.0
        case _ as never:
            assert_never(never)


def neurons_of(one: Map, layout: Layout, d_model: int) -> Neurons:
    """The neurons that write a variable. Raises ValueError for a map of a number together with something else."""
    numeric = [isinstance(before, Mean | Count) for before in one.arguments]
    if any(numeric) and len(numeric) > 1:
        raise ValueError(f"{one.name} maps a number together with something else: make labels of it first")
    found = _steps(one, layout) if any(numeric) else _lookups(one, layout)
    read, write = np.zeros((d_model, len(found))), np.zeros((len(found), d_model))
    for n, neuron in enumerate(found):
        for at, weight in neuron.reads.items():
            read[at, n] = weight
        for at, weight in neuron.writes.items():
            write[n, at] = weight
    read[START] = -SILENCE * np.abs(read).max(axis=0, initial=1.0)
    return Neurons(read, np.array([neuron.bias for neuron in found]), write, layout.component(one))


def _lookups(one: Map, layout: Layout) -> list[Neuron]:
    """One for each label that is given; of two arguments, for each label of the first and each that is given with it."""
    written, (*first, last) = layout.places[one], one.arguments
    found = []
    for fixed in layout.places[first[0]].items() if first else (None,):
        given: dict[Label, list[int]] = {}
        for label, at in layout.places[last].items():
            values = (label,) if fixed is None else (fixed[0], label)
            given.setdefault(one.function(*values), []).append(at)
        for label, places in given.items():
            reads = dict.fromkeys(places, 2.0)
            if fixed is not None:
                reads[fixed[1]] = reads.get(fixed[1], 0.0) + 2.0
            found.append(Neuron(reads, -1.0 - 2.0 * len(first), {written[label]: 1.0}))
    return found


def _steps(one: Map, layout: Layout) -> list[Neuron]:
    """One for the label of the least number, and two for each place where the label changes: a step from 0 to 1."""
    (number,) = one.arguments
    (at,), written = layout.places[number].values(), layout.places[one]
    code = {n: 1 / (1 + n) if isinstance(number, Count) else float(n) for n in number.domain}  # type: ignore[arg-type,operator]
    runs = [(label, list(part)) for label, part in groupby(sorted(code, key=lambda n: code[n]), key=one.function)]
    found = [Neuron({}, 1.0, {written[runs[0][0]]: 1.0})]
    for (before, lower), (after, upper) in pairwise(runs):
        low, high = code[lower[-1]], code[upper[0]]
        slope, middle = 4.0 / (high - low), (high + low) / 2
        for constant, sign in ((0.5, 1.0), (-0.5, -1.0)):
            writes = {written[before]: -sign, written[after]: sign}
            found.append(Neuron({at: slope}, constant - slope * middle, writes))
    return found


def idle_head(layer: int, layout: Layout, d_model: int, d_head: int, rng: np.random.Generator) -> Head:
    """Random queries, keys and values; nothing reads what it writes."""
    query, key, value = (_random_reads(d_model, d_head, rng) for _ in range(3))
    out = _random_writes(d_head, d_model, layout, rng)
    return Head(query, key, value, out, np.zeros(d_head), Component("head", layer, (), "none", "", ()))


def idle_neurons(layer: int, n: int, layout: Layout, d_model: int, rng: np.random.Generator) -> Neurons:
    """Random input weights; nothing reads what they write."""
    read, write = _random_reads(d_model, n, rng), _random_writes(n, d_model, layout, rng)
    return Neurons(read, np.zeros(n), write, Component("neurons", layer, (), "none", "", ()))


def _random_reads(d_model: int, n: int, rng: np.random.Generator) -> Floats:
    read = rng.normal(size=(d_model, n))
    read[:START] = 0.0
    return read


def _random_writes(n: int, d_model: int, layout: Layout, rng: np.random.Generator) -> Floats:
    write = np.zeros((n, d_model))
    write[:, layout.scratch] = IDLE_WRITE * rng.normal(size=(n, SCRATCH))
    return write

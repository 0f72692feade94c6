"""From the graph of a model to its program: values, rules and tables of each part, learnt from texts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuronaut.tools.programs.parts import POSITION, TOKEN, Observed, Part
from neuronaut.tools.programs.program import Line, Program, Role, Selection, Table, Term
from neuronaut.tools.programs.rules import CONSTANT, Ints, Rule, admitted, attended, learn_rule, preferred
from neuronaut.tools.programs.values import Floats, Values, find_values, nearest
from neuronaut.tools.programs.wiring import Graph

MIXED = 0.03  # of the range: a number that lies further from all that is carried is a mixture
CARRIED_DIGITS = 3  # of what is carried, whose unit is its range; the model's own rounding is as large in some
DIGITS = 5  # of the means of it
MOST_READ = 4  # parts that a table or a rule is made of, the strongest


class Builder:
    """Learns the lines of a program one after the other; `labels` holds (texts, words) labels of each variable so far."""

    def __init__(self, observed: Observed, graph: Graph) -> None:
        self._observed, self._graph = observed, graph
        self._lead = observed.words.lead
        ids = observed.ids[:, self._lead :].numpy()
        number = {token: i for i, token in enumerate(observed.words.ids)}
        self.labels: dict[str, Ints] = {
            TOKEN.name: np.vectorize(number.__getitem__, otypes=[np.int64])(ids),
            POSITION.name: np.broadcast_to(np.arange(ids.shape[1]), ids.shape).astype(np.int64),
        }
        self.sizes = {TOKEN.name: len(number), POSITION.name: ids.shape[1]}
        self.names = {
            TOKEN.name: observed.words.pieces,
            POSITION.name: tuple(str(at) for at in range(ids.shape[1])),
        }

    def program(self) -> Program:
        """The whole of it."""
        lines = tuple(self._line(part) for part in self._graph.parts if part.kind in ("head", "neurons"))
        said = self._observed.logits[:, self._lead :].argmax(-1).numpy()
        pieces = self._observed.target.vocabulary.pieces
        tokens, labels = np.unique(said, return_inverse=True)
        output = self._table(self._graph.parts[-1], "logits", labels.reshape(said.shape).astype(np.float64))
        words, said_pieces = self._observed.words, tuple(pieces[token] for token in tokens)
        lines = tuple(_named_by(line, output, said_pieces) for line in lines)
        return Program(words.pieces, words.longest, lines, output, said_pieces)

    def _line(self, part: Part) -> Line:
        line, labels = self._head(part) if part.kind == "head" else self._neurons(part)
        self.labels[part.name], self.sizes[part.name], self.names[part.name] = labels, len(line.labels), line.labels
        return line

    def _text(self, part: Part) -> Floats:
        """(texts, words, d_model) what a part writes, the start token's place left out."""
        return self._observed.written(part)[:, self._lead :].double().numpy()

    def _neurons(self, part: Part) -> tuple[Line, Ints]:
        """A lookup over the labels that the neurons read, and (texts, words) its own."""
        written = self._text(part)
        values = find_values(written.reshape(-1, written.shape[-1]))
        labels = values.labels(written)
        table = self._table(part, "in", labels.astype(np.float64))
        to_output = part in self._graph.sources(self._graph.parts[-1])
        reads = len(self._graph.sources(part))
        role: Role = "combiner" if reads > 1 else "output" if to_output else "indicator"
        return Line(part.name, role, table, tuple(f"v{i}" for i in range(len(values)))), labels

    def _table(self, part: Part, slot: str, value: Floats) -> Table:
        """The commonest value (texts, words) for each combination of labels of what is read."""
        reads = tuple(one.name for one in self._graph.read_by(part, slot)[:MOST_READ])
        keys = np.stack([self.labels[name] for name in reads], -1).reshape(-1, len(reads)) if reads else None
        return table_of(reads, keys, value.reshape(-1))

    def _head(self, part: Part) -> tuple[Line, Ints]:
        """Where it looks and what it carries, and (texts, words) its labels. A number is that of the rule, which is exact
        where the model's is not."""
        written, rule = self._text(part), self._rule(part)
        carried = self._observed.carried(part.layer, part.indices[0]).double().numpy()
        values = find_values(np.concatenate([one.reshape(-1, one.shape[-1]) for one in (written, carried)]))
        role: Role = "mover" if self._copies(written, carried, values) else "aggregator"
        select = Selection(tuple(_as_term(term) for term in rule.terms), rule.prefer, rule.start)
        start, places = carried[:, :1].mean((0, 1)), carried[:, self._lead :]
        if not values.numeric:
            table = self._table(part, "v", values.labels(places).astype(np.float64))
            start_value = float(values.labels(start[None])[0])
            names = self._carried_names(table, start_value, len(values))
            return Line(part.name, role, table, names, select, start_value), values.labels(written)
        low, scale = _range(values.numbers(carried))
        table = self._table(part, "v", (values.numbers(places) - low) / scale)
        start_value = round(float(values.numbers(start[None])[0] - low) / scale, CARRIED_DIGITS)
        means = self._means(rule, table, start_value)
        centres = np.unique(means.round(DIGITS))
        names = tuple(f"{number:.3g}" for number in centres)
        line = Line(part.name, role, table, names, select, start_value, tuple(centres.tolist()))
        return line, nearest(centres, means)

    def _means(self, rule: Rule, table: Table, start_value: float) -> Floats:
        """(texts, words) the mean of what the rule selects; the start token's value where that is nothing."""
        features = {**self.labels, CONSTANT: np.zeros_like(self.labels[TOKEN.name])}
        chosen = preferred(admitted(rule.terms, features), rule.prefer)
        keys = np.stack([features[name] for name in (*table.reads, CONSTANT)], -1)
        rows, inverse = np.unique(keys.reshape(-1, keys.shape[-1]), axis=0, return_inverse=True)
        each = np.array([table.entries.get(tuple(row[:-1]), table.other) for row in rows.tolist()])
        values = each[inverse.reshape(-1)].reshape(keys.shape[:-1])
        counts, sums = chosen.sum(-1), (chosen * values[:, None, :]).sum(-1)
        start = np.full(counts.shape, rule.start == "always") | (counts == 0)
        return (sums + start * start_value) / (counts + start)

    def _rule(self, part: Part) -> Rule:
        pattern = self._observed.at("pattern", part.layer)[:, part.indices[0]].numpy()
        keys, queries = ([one.name for one in self._graph.read_by(part, slot)[:MOST_READ]] for slot in ("k", "q"))
        if self._observed.positional is None:
            keys, queries = [*keys, POSITION.name], [*queries, POSITION.name]
        return learn_rule(attended(pattern, self._lead), keys, queries, self.labels, self.sizes)

    def _copies(self, written: Floats, carried: Floats, values: Values) -> bool:
        """Whether all that the head writes is something that it carries from one place, not a mixture of several."""
        if not values.numeric:
            return True
        low, scale = _range(values.numbers(carried))
        single = np.unique(((values.numbers(carried) - low) / scale).round(2))
        number = ((values.numbers(written) - low) / scale).reshape(-1)
        index = np.clip(np.searchsorted(single, number), 1, len(single) - 1) if len(single) > 1 else np.zeros(1, int)
        apart = np.minimum(np.abs(number - single[index]), np.abs(number - single[index - 1]))
        return bool((apart < MIXED).mean() > 0.99)

    def _carried_names(self, table: Table, start_value: float, n: int) -> tuple[str, ...]:
        """Each label named after what is carried."""
        found: dict[int, list[str]] = defaultdict(list)
        for labels, value in table.entries.items():
            found[int(value)].append(
                " ".join(self.names[name][at] for name, at in zip(table.reads, labels, strict=True))
            )
        found[int(start_value)] = found.get(int(start_value), ["-"])
        single = {i: names[0] for i, names in found.items() if len(set(names)) == 1}
        return tuple(single.get(i, f"v{i}") for i in range(n))


def table_of(reads: Sequence[str], keys: Ints | None, values: Floats) -> Table:
    """The commonest value of each row of labels (n, len(reads)). values: (n,)."""
    other = _commonest(values)
    if keys is None:
        return Table((), {(): other}, other)
    rows, inverse = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(inverse.reshape(-1)))[:-1])
    return Table(
        tuple(reads), {tuple(row): _commonest(part) for row, part in zip(rows.tolist(), parts, strict=True)}, other
    )


def _commonest(values: Floats) -> float:
    """The commonest of labels; of numbers that scatter, the middle one."""
    found, counts = np.unique(values.round(CARRIED_DIGITS), return_counts=True)
    if counts.max() * 2 > len(values):
        return float(found[counts.argmax()])
    if np.array_equal(found, found.round()):
        return float(found[counts.argmax()])
    return round(float(np.median(values)), CARRIED_DIGITS)


def _range(numbers: Floats) -> tuple[float, float]:
    """The least and the width."""
    return float(numbers.min()), max(float(numbers.max() - numbers.min()), 1e-9)


def _as_term(term: object) -> Term:
    from neuronaut.tools.programs import rules

    assert isinstance(term, rules.Term)
    return Term(term.key, term.query, tuple(frozenset(np.flatnonzero(row).tolist()) for row in term.allowed))


def _named_by(line: Line, output: Table, pieces: Sequence[str]) -> Line:
    """Neurons that alone are read for the output have labels named after what is said."""
    if line.select is not None or output.reads != (line.name,):
        return line
    names = [pieces[int(output.entries.get((i,), output.other))] for i in range(len(line.labels))]
    return replace(line, labels=tuple(names))

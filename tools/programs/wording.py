"""A program in words: one line a variable."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import eq, ge, gt, le, lt, ne

from neuronaut.tools.programs.program import Line, Program, Selection, Table, Term
from neuronaut.tools.programs.rules import CONSTANT

MOST_SHOWN = 8  # of the cases of a table
NOTHING = "-"
_WHOLE = re.compile(r"-?[0-9]+")
RELATIONS: tuple[tuple[str, Callable[..., bool]], ...] = (
    ("is that of here", eq),
    ("is not that of here", ne),
    ("is less than that of here", lt),
    ("is at most that of here", le),
    ("is larger than that of here", gt),
    ("is at least that of here", ge),
)
Names = Mapping[str, Sequence[str]]


def program_lines(program: Program) -> Iterator[str]:
    """The words, then each variable with its role and what it is, then what is said."""
    names: dict[str, Sequence[str]] = {
        "token": program.words,
        "position": [str(at) for at in range(program.length)],
        CONSTANT: ["any"],
    }
    yield f"token: {', '.join(program.words)}; position: 0 to {program.length - 1}"
    for line in program.lines:
        yield f"{line.name} ({line.role}) = {_definition(line, names)}"
        names[line.name] = line.labels
    read = program.output.reads
    plain = len(read) == 1 and all(
        program.pieces[int(said)] == names[read[0]][label] for (label,), said in program.output.entries.items()
    )
    yield f"says {read[0] if plain else _cases(program.output, names, program.pieces)}"


def _definition(line: Line, names: Names) -> str:
    if line.select is None:
        return _cases(line.table, names, line.labels)
    where = _where(line.select, names)
    read = " and ".join(line.table.reads)
    if line.numbers is None:
        copied = _is_copy(line, names)
        what = read if copied else f"({_cases(line.table, names, line.labels)})"
        return f"{what} at {where}" + f", else {line.labels[int(line.start_value)]}" * (line.select.start != "never")
    if not line.table.reads and line.select.start == "always":
        return f"1 / (1 + n), n the number of places: {where}"
    numbers = _cases(line.table, names, None) if read else f"{line.table.other:g}"
    also = f", the start counted as {line.start_value:g}" if line.select.start == "always" else ""
    return f"mean of ({numbers}) over {where}{also}"


def _is_copy(line: Line, names: Names) -> bool:
    if len(line.table.reads) != 1:
        return False
    own = names[line.table.reads[0]]
    return all(line.labels[int(value)] == own[labels[0]] for labels, value in line.table.entries.items())


def _where(select: Selection, names: Names) -> str:
    terms = " and ".join(term_in_words(term, names) for term in select.terms) or "any place"
    return {"all": "", "last": "the last place: ", "first": "the first place: "}[select.prefer] + terms


def term_in_words(term: Term, names: Names) -> str:
    """The pairs of labels that a term admits, as a relation where there is one."""
    keys, queries = names[term.key], names[term.query]
    if term.query == CONSTANT:
        return f"{term.key} {_set([keys[k] for k, allowed in enumerate(term.allowed) if allowed])}"
    if term.key == CONSTANT:
        return f"{term.query} here {_set([queries[q] for q in sorted(term.allowed[0])])}"
    if (relation := _relation(term, keys, queries)) is not None:
        return f"{term.key} {relation}" if term.key == term.query else f"{term.key} {relation} ({term.query})"
    by_query: dict[int, list[str]] = defaultdict(list)
    for k, allowed in enumerate(term.allowed):
        for q in allowed:
            by_query[q].append(keys[k])
    shown = [f"{queries[q]}: {_set(found)}" for q, found in sorted(by_query.items())]
    return f"{term.key} by {term.query} here [{'; '.join(_cut(shown))}]"


def _relation(term: Term, keys: Sequence[str], queries: Sequence[str]) -> str | None:
    """Of labels that are numbers any relation; of others, whether they are equal or differ."""
    pairs = [(k, q) for k, key in enumerate(keys) for q, query in enumerate(queries) if NOTHING not in (key, query)]
    if term.key == term.query == "position":
        pairs = [(k, q) for k, q in pairs if k <= q]
    seen = [q in term.allowed[k] for k, q in pairs]
    whole = all(_WHOLE.fullmatch(label) for label in (*keys, *queries) if label != NOTHING)
    value = (lambda label: int(label)) if whole else (lambda label: label)
    values = [(value(keys[k]), value(queries[q])) for k, q in pairs]
    for words, relation in RELATIONS if whole else RELATIONS[:2]:
        if [relation(*pair) for pair in values] == seen:
            return words
    if whole and (steps := {query - key for (key, query), one in zip(values, seen, strict=True) if one}):
        step = min(steps)
        if len(steps) == 1 and [query - key == step for key, query in values] == seen:
            return f"is that of here {'less' if step > 0 else 'plus'} {abs(step)}"
    return None


def _cases(table: Table, names: Names, values: Sequence[str] | None) -> str:
    """What the table gives, and for which labels."""
    if not table.reads:
        return f"{table.other:g}" if values is None else values[int(table.other)]
    if len(table.reads) == 1 and all(_is_number(name) for name in names[table.reads[0]]):
        return f"by {table.reads[0]}: {'; '.join(_cut(_runs(table, names[table.reads[0]], values)))}"
    by_value: dict[float, list[str]] = defaultdict(list)
    for labels, value in sorted(table.entries.items()):
        by_value[value].append(" ".join(names[name][at] for name, at in zip(table.reads, labels, strict=True)))
    shown = [
        f"{f'{value:g}' if values is None else values[int(value)]} for {_set(found)}"
        for value, found in by_value.items()
    ]
    return f"by {', '.join(table.reads)}: {'; '.join(_cut(shown))}"


def _is_number(label: str) -> bool:
    return label.replace(".", "", 1).replace("e-", "", 1).isdigit()


def _runs(table: Table, numbers: Sequence[str], values: Sequence[str] | None) -> list[str]:
    """The value of each stretch of numbers, which ascend."""
    found = []
    for value, run in groupby(sorted(table.entries.items()), key=lambda entry: entry[1]):
        at = [numbers[label] for (label,), _ in run]
        said = f"{value:g}" if values is None else values[int(value)]
        found.append(f"{said} {f'for {at[0]}' if len(at) == 1 else f'from {at[0]} to {at[-1]}'}")
    return found


def _set(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else "{" + ", ".join(_cut(labels)) + "}"


def _cut(parts: Sequence[str]) -> list[str]:
    more = len(parts) - MOST_SHOWN
    return [*parts[:MOST_SHOWN], *([f"{more} more"] if more > 0 else [])]

"""The suites of the benchmark by name, loaded when they are asked for."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import get_args

from neuronaut.agent.config import Loop
from neuronaut.evals.suite import Suite
from neuronaut.tools.errors import UserError

SUITES: dict[str, str] = {
    "planted": "neuronaut.evals.planted:SUITE",
    "writes": "neuronaut.evals.writes:SUITE",
    "nulls": "neuronaut.evals.nulls:SUITE",
    "twins": "neuronaut.evals.twins:SUITE",
    "cheats": "neuronaut.evals.cheats:SUITE",
    "heads": "neuronaut.evals.heads:SUITE",
    "compiled": "neuronaut.evals.compiled:SUITE",
    "pocket-labels": "neuronaut.evals.pocket_labels:SUITE",
    "real": "neuronaut.evals.real:SUITE",
}
LOOPS: tuple[Loop, ...] = get_args(Loop)
ALL = "all"


def load(place: str) -> Suite:
    """The suite at `module:attribute`."""
    module, _, attribute = place.partition(":")
    suite: Suite = getattr(import_module(module), attribute)
    return suite


def suite_names(words: Sequence[str]) -> tuple[str, ...]:
    """The suites that the words name, each once; `all` is every one. Refuses an unknown one."""
    for word in words:
        check("suite", word, [*SUITES, ALL])
    return tuple(SUITES) if ALL in words else tuple(dict.fromkeys(words))


def check(kind: str, name: str, known: Collection[str]) -> str:
    """The name, if it is known. Refuses another one: a sentence with the known ones and the one that may be meant."""
    if name in known:
        return name
    close = get_close_matches(name, known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    raise UserError(f"there is no {kind} {name!r}{meant}: choose from {', '.join(known)}")

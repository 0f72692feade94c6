"""What people said of a record: rows beside it, which change no verdict."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from neuronaut.memory import queries, schema
from neuronaut.memory.store import Store

Verb = Literal["agree", "dispute", "invalidate", "comment"]
VERBS: tuple[Verb, ...] = ("agree", "dispute", "invalidate", "comment")
REVIEWED = ("hypothesis", "experiment", "verdict", "run")  # tables whose rows people have opinions on


@dataclass(frozen=True)
class Opinion:
    """What one person said."""

    id: str
    target: str
    author: str
    verb: str
    reason: str


def opinions_on(notebook: Store, ids: Iterable[str]) -> dict[str, list[Opinion]]:
    """What was said of each record, the oldest first."""
    found: dict[str, list[Opinion]] = defaultdict(list)
    for target, rows in queries.grouped(notebook, schema.review, "target_id", ids).items():
        found[target] = [Opinion(row["id"], target, row["author"], row["verb"], row["reason"]) for row in rows]
    return found

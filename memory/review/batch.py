"""What the page of a batch shows: how far it is, what it costs, what it found, how often null units got a claim."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuronaut.memory import queries
from neuronaut.memory.item_labels import WORDS, Label, error_class, histogram, labels_of
from neuronaut.memory.items import Item
from neuronaut.memory.labels import costs_of
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.review.formats import milliseconds
from neuronaut.memory.review.models import Models
from neuronaut.tools.errors import UserError
from neuronaut.tools.stats import clopper_pearson
from neuronaut.tools.units import Unit

Row = Mapping[str, Any]
LAST = 50  # items that are shown
ENDED = ("done", "failed", "skipped")
COUNTED = ("seconds", "forwards", "tokens", "llm_calls", "usd")


@dataclass(frozen=True)
class Nulls:
    """Planted null units: how many ended, how many got a SUPPORTED claim, and the 95 % interval of that share."""

    ended: int
    supported: int
    low: float
    high: float


@dataclass(frozen=True)
class BatchPage:
    """A batch as it stands. groups: verdicts by layer or dictionary; cost: sums, None where one is unknown; rate: items a
    minute over the last ones, eta: seconds to go, both None before the second end."""

    run: Row
    model: str
    outcome: str
    wanted: str
    states: Mapping[str, int]
    total: int
    rate: float | None
    eta: float | None
    cost: Mapping[str, float | None]
    cap: str
    words: tuple[str, ...]
    statuses: Mapping[str, int]
    groups: tuple[tuple[str, Mapping[str, int]], ...]
    errors: Mapping[str, int]
    scores: tuple[int, ...]
    nulls: Nulls | None
    failed: tuple[Label, ...]
    last: tuple[tuple[str, Label, str], ...]

    @property
    def working(self) -> bool:
        """Whether there is more to come, so that the page asks again."""
        return self.outcome == "unfinished" and self.wanted == "go"


class Known:
    """Labels of items that ended, kept from one look at a batch to the next: they do not change until the item is
    tried again."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[tuple[str, str | None], Label]] = {}

    def labels(self, notebook: Notebook, items: Sequence[Item]) -> list[Label]:
        """The label of each item, in order."""
        fresh = [item for item in items if item.id not in self._of or self._of[item.id][0] != (item.state, item.asked)]
        for item, label in zip(fresh, labels_of(notebook, fresh), strict=True):
            self._of[item.id] = ((item.state, item.asked), label)
        return [self._of[item.id][1] for item in items]


def batch_page(notebook: Notebook, run: str, known: Known) -> BatchPage:
    """The page of a batch. Refuses a run that is none."""
    row = queries.find_run(notebook, run)
    wanted = notebook.wanted(run)
    if wanted is None:
        raise UserError(f"run {run} is no batch: its trail is at /t/{run}")
    items = notebook.items(run)
    ended = [item for item in items if item.state in ENDED]
    labels = known.labels(notebook, ended)
    real = [label for label in labels if label.null_kind is None]
    states = Counter(item.state for item in items)
    rate, eta = _pace(ended, states["waiting"] + states["leased"], running=row["end"] is None)
    newest = sorted(zip(ended, labels, strict=True), key=lambda one: (one[0].asked or "", one[0].rank), reverse=True)[
        :LAST
    ]
    scores = [label.score for label in real if label.score is not None and label.side == "reads"]
    groups: dict[str, Counter[str]] = {}
    for label in real:
        groups.setdefault(_group(label.address), Counter())[label.word] += 1
    failed = [label for label in labels if label.state == "failed"]
    return BatchPage(
        row, Models.read(notebook).slug(row["target"]["id"]), row["end"]["outcome"] if row["end"] else "unfinished", wanted,
        {str(state): n for state, n in states.items()}, len(items), rate, eta, _cost(notebook, items), _cap(row["config"]),
        tuple(word for word in WORDS if any(word in group for group in groups.values())),
        dict(Counter(label.word for label in real)), tuple(sorted(groups.items(), key=lambda one: _order(one[0]))),
        dict(Counter(error_class(label.reason) for label in failed)), tuple(histogram(scores)) if scores else (),
        _nulls(labels), tuple(failed), tuple((item.asked or "", label, item.reason or "") for item, label in newest),
    )  # fmt: skip


def _group(address: str) -> str:
    unit = Unit.parse(address)
    return unit.name or f"layer {unit.layer}"


def _order(group: str) -> tuple[str, int]:
    word, _, digits = group.partition(" ")
    return (word, int(digits)) if digits.isdecimal() else (group, 0)


def _pace(ended: Sequence[Item], waiting: int, *, running: bool) -> tuple[float | None, float | None]:
    """Items a minute between the beginnings of the last ones, and the seconds to go at that pace."""
    begun = sorted(at for item in ended if item.asked and (at := milliseconds(item.asked)) is not None)[-LAST:]
    until = time.time() * 1000 if running else begun[-1] if begun else 0
    if len(begun) < 2 or until <= begun[0]:
        return None, None
    each = (until - begun[0]) / len(begun) / 1000
    return 60 / each, waiting * each if running and waiting else None


def _cost(notebook: Notebook, items: Sequence[Item]) -> dict[str, float | None]:
    """Sums over the runs of the items; None where one is not known."""
    costs = [json.loads(cost) for cost in costs_of(notebook, [item.asked for item in items if item.asked]).values()]
    found: dict[str, float | None] = {}
    for name in COUNTED:
        values = [cost.get(name, 0.0) for cost in costs]
        found[name] = None if None in values or not costs else sum(values)
    return found


def _cap(config: Row) -> str:
    """What may be spent, in words; "" for no limit."""
    budget = config.get("budget") or {}
    units = {"seconds": "s", "forwards": "forward passes", "calls": "calls", "tokens": "tokens", "usd": "$"}
    told = [f"{budget[name]:,g} {unit}" for name, unit in units.items() if budget.get(name) is not None]
    return ", ".join(told)


def _nulls(labels: Sequence[Label]) -> Nulls | None:
    nulls = [label for label in labels if label.null_kind and label.state == "done"]
    if not nulls:
        return None
    supported = sum(label.status == "SUPPORTED" for label in nulls)
    return Nulls(len(nulls), supported, *clopper_pearson(supported, len(nulls)))

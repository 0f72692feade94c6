"""What a batch says of each unit: the best verdict, its claim and its numbers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from neuronaut.memory.items import Item, State
from neuronaut.memory.labels import judged_claims, outcomes_of
from neuronaut.memory.notebook import Notebook

ORDER = ("SUPPORTED", "PARTIAL", "UNRESOLVED", "REFUTED", "ABSTAINED", "NONE")
WORDS = (*ORDER, "DEAD", "FAILED")  # how an item ended, in one word
BINS = 10


@dataclass(frozen=True)
class Label:
    """The best claim about one unit, SUPPORTED before PARTIAL, then by its score; status NONE where nothing was judged yet.

    score: F1 of a reads claim, nats of a writes claim, None of others. reason: of the verdict, of ABSTAINED, or of a failure.
    """

    address: str
    null_kind: str | None
    state: State
    status: str
    side: str = ""
    claim: str = ""
    predicate: str = ""
    score: float | None = None
    e: float | None = None
    reason: str = ""
    run: str | None = None

    @property
    def word(self) -> str:
        """How the item ended: the status of its best claim, FAILED, or DEAD where it never fires, or too rarely here."""
        return {"failed": "FAILED", "skipped": "DEAD"}.get(self.state, self.status)

    @property
    def was_tested(self) -> bool:
        """Whether any claim about the unit was judged."""
        return self.e is not None

    @property
    def fields(self) -> dict[str, Any]:
        """As it is printed."""
        return asdict(self)


def labels_of(notebook: Notebook, items: Sequence[Item]) -> list[Label]:
    """The label of each item, in order."""
    runs = [item.asked for item in items if item.asked is not None]
    claims, outcomes = judged_claims(notebook, runs), outcomes_of(notebook, runs)
    return [_label(item, claims.get(item.asked or "", []), outcomes.get(item.asked or "", [])) for item in items]


def label_of(notebook: Notebook, item: Item, asked: str) -> Label:
    """The label of one item as it stands now."""
    (now,) = notebook.items_by_id([item.id])
    claims, outcomes = judged_claims(notebook, [asked])[asked], outcomes_of(notebook, [asked])[asked]
    return _label(now, claims, outcomes)


def _label(item: Item, claims: Sequence[dict[str, Any]], outcomes: Sequence[dict[str, Any]]) -> Label:
    head = (item.address, item.null_kind, item.state)
    if item.state == "failed":
        return Label(*head, "NONE", reason=item.reason or "", run=item.asked)
    rated = [(ORDER.index(row["outcome"]), -(_score(row) or 0.0), number) for number, row in enumerate(claims)]
    if rated:
        row = claims[min(rated)[2]]
        told = {name: row[name] for name in ("side", "claim", "predicate", "e", "reason")}
        return Label(*head, row["outcome"], **told, score=_score(row), run=item.asked)
    if outcomes:
        row = min(outcomes, key=lambda one: ORDER.index(one["status"]))
        return Label(*head, row["status"], row["side"], reason=row["reason"], run=item.asked)
    return Label(*head, "NONE", run=item.asked)


def _score(row: dict[str, Any]) -> float | None:
    case = json.loads(row["case"])
    found = case.get("f1") if row["side"] == "reads" else case.get("delta") if row["side"] == "writes" else None
    return None if found is None else float(found)


def error_class(reason: str) -> str:
    """What kind of failure a reason tells of, in a word or two."""
    for word, kind in (("budget", "out of budget"), ("workers in a row", "worker died"), ("not finite", "not finite")):
        if word in reason:
            return kind
    return "failed"


def histogram(scores: list[float]) -> list[int]:
    """How many scores lie in each tenth of [0, 1]."""
    counts = [0] * BINS
    for score in scores:
        counts[min(int(max(score, 0.0) * BINS), BINS - 1)] += 1
    return counts

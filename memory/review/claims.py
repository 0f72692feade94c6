"""Claims as cards: the sentence, how it was judged, the numbers it rests on, its rivals, what would have refuted it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import queries, schema
from neuronaut.memory.review.models import Models
from neuronaut.memory.review.opinions import Opinion, opinions_on
from neuronaut.memory.store import Store

Row = Mapping[str, Any]
HEADLINE = {"reads": "f1", "writes": "delta", "attends": "share", "role": "delta", "circuit": "sufficiency"}
SIDES = ("reads", "writes", "attends", "role", "circuit")
ORDER = ("supported", "partial", "refuted", "unresolved", "testing", "registered", "proposed")


@dataclass(frozen=True)
class Number:
    """One row of evidence."""

    id: str
    experiment: str
    run: str
    metric: str
    value: float
    unit: str
    n: int
    low: float | None
    high: float | None
    null_value: float | None
    null_percentile: float | None


@dataclass(frozen=True)
class Rival:
    """Another explanation, measured on the same text. difference: how much better the claim is, with a 95 % interval."""

    sentence: str
    score: float | None
    difference: float | None
    low: float | None
    high: float | None
    complexity: int | None

    @property
    def outcome(self) -> str:
        """What came of it, in a word."""
        if self.low is None or self.high is None:
            return "not compared"
        return "beaten" if self.low > 0 else "better" if self.high < 0 else "as good"


@dataclass(frozen=True)
class Claim:
    """One hypothesis with what became of it. experiment: the test that its verdict rests on."""

    id: str
    run: str
    model: str
    address: str
    side: str
    sentence: str
    predicate: str
    author: str
    words: str
    complexity: int
    status: str
    verdict: str
    reason: str
    rule: str
    e: float | None
    documents: int | None
    numbers: tuple[Number, ...]
    rivals: tuple[Rival, ...]
    prediction: Row | None
    opinions: tuple[Opinion, ...]

    @property
    def headline(self) -> Number | None:
        """The number that the claim is judged by first."""
        wanted = HEADLINE.get(self.side)
        return next((n for n in self.numbers if n.metric == wanted), self.numbers[0] if self.numbers else None)

    @property
    def best_rival(self) -> Rival | None:
        """The rival with the largest score."""
        return max(self.rivals, key=lambda one: one.score if one.score is not None else -1.0, default=None)

    @property
    def experiment(self) -> Number | None:
        """The evidence row whose experiment tested it."""
        return self.headline

    @property
    def invalidated(self) -> bool:
        """Whether a person said that it should not be relied on."""
        return any(one.verb == "invalidate" for one in self.opinions)


def claims_where(
    notebook: Store, models: Models, *where: sa.ColumnElement[bool], limit: int | None = None
) -> list[Claim]:
    """The claims that a condition chooses, the newest first."""
    h, u = schema.hypothesis, schema.unit
    statement = sa.select(h, u.c.address, u.c.target).join(u, u.c.id == h.c.unit).where(*where)
    rows = notebook.rows(statement.order_by(h.c.id.desc()).limit(limit))
    ids = [row["id"] for row in rows]
    status = queries.states(notebook, ids)
    predictions = queries.grouped(notebook, schema.prediction, "hypothesis", ids)
    verdicts = queries.verdicts(notebook, [p["id"] for some in predictions.values() for p in some])
    cited = {e["experiment"] for some in verdicts.values() for v in some for e in v["evidence"]}
    experiments = queries.grouped(notebook, schema.experiment, "id", cited)
    runs = {one: rows[0]["run"] for one, rows in experiments.items()}
    told = opinions_on(notebook, ids)
    return [
        _claim(row, models, status[row["id"]], predictions[row["id"]], verdicts, runs, told.get(row["id"], ()))
        for row in rows
    ]


def _claim(
    row: Row, models: Models, status: str, predictions: Sequence[Row], verdicts: Mapping[str, Sequence[Row]],
    runs: Mapping[str, str], opinions: Sequence[Opinion],
) -> Claim:  # fmt: skip
    judged = [v for p in predictions for v in verdicts[p["id"]]]
    verdict: Row = judged[-1] if judged else {}
    case = verdict.get("case") or {}
    return Claim(
        id=row["id"], run=row["run"], model=models.slug(row["target"]), address=row["address"], side=row["side"],
        sentence=row["claim"], predicate=row["predicate"], author=row["author"], words=row["words"] or "",
        complexity=row["complexity"], status=status, verdict=verdict.get("id", ""), reason=verdict.get("reason", ""),
        rule=verdict.get("rule_version", ""), e=verdict.get("e"),
        documents=len(case["bets"]) if "bets" in case else None,
        numbers=tuple(number_of(e, runs.get(e["experiment"], row["run"])) for e in verdict.get("evidence", ())),
        rivals=tuple(_rival(one) for one in case.get("rivals", ())),
        prediction=predictions[-1] if predictions else None, opinions=tuple(opinions),
    )  # fmt: skip


def number_of(e: Row, run: str) -> Number:
    """A row of evidence as a number."""
    return Number(
        e["id"], e["experiment"], run, e["metric"], e["value"], e["unit_of_measure"], e["n"], e["ci_low"], e["ci_high"],
        e["null_value"], e["null_percentile"],
    )  # fmt: skip


def _rival(row: Row) -> Rival:
    score = row.get("f1", row.get("share"))
    named = (row.get(name) for name in ("difference", "difference_low", "difference_high", "complexity"))
    return Rival(str(row.get("claim", "")), score, *named)


def best_first(claims: Sequence[Claim]) -> list[Claim]:
    """SUPPORTED before PARTIAL and so on, in each the largest number first."""

    def rank(claim: Claim) -> tuple[int, float, str]:
        place = ORDER.index(claim.status) if claim.status in ORDER else len(ORDER)
        return place, -(claim.headline.value if claim.headline else 0.0), claim.id

    return sorted(claims, key=rank)

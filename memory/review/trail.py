"""What the page of a run shows: the question, how it ended, what it cost, and every step in the order of time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from neuronaut.memory import queries, schema
from neuronaut.memory.review.claims import Claim, claims_where
from neuronaut.memory.review.experiments import Experiment, experiments_of
from neuronaut.memory.review.formats import milliseconds
from neuronaut.memory.review.models import Models
from neuronaut.memory.review.opinions import Opinion, opinions_on
from neuronaut.memory.store import Store

Row = Mapping[str, Any]
Kind = Literal["hypothesis", "prediction", "experiment", "verdict", "call", "outcome", "move", "end"]
LETTER = {"hypothesis": "H", "prediction": "P", "experiment": "X", "verdict": "V", "call": "C"}
WIDTH = 1000.0  # of the timeline


@dataclass(frozen=True)
class Turn:
    """A message of a prompt."""

    role: str
    text: str


@dataclass(frozen=True)
class Call:
    """A call of a language model: what was sent, what came back or why nothing did."""

    row: Row
    turns: tuple[Turn, ...]
    end: Row | None

    @property
    def state(self) -> str:
        """How it ended, in a word."""
        if self.end is None:
            return "never ended"
        return "failed" if self.end["response"] is None else "answered"


@dataclass(frozen=True)
class Step:
    """One entry of the trail: `name` is its short name on the page (X3); exactly what `kind` says is there."""

    kind: Kind
    id: str
    name: str
    claim: Claim | None = None
    prediction: Row | None = None
    rivals: int = 0
    experiment: Experiment | None = None
    verdict: Row | None = None
    call: Call | None = None
    row: Row | None = None
    opinions: tuple[Opinion, ...] = ()


@dataclass(frozen=True)
class Mark:
    """A step on the line of time: where it begins and how wide it is, of WIDTH."""

    id: str
    name: str
    kind: str
    x: float
    width: float
    told: str


@dataclass(frozen=True)
class Trail:
    """A run. names: the short names of evidence on this page; cost: as stored, None while it goes on."""

    run: Row
    model: str
    addresses: tuple[str, ...]
    outcome: str
    reason: str
    cost: Row | None
    steps: tuple[Step, ...]
    names: Mapping[str, str]
    timeline: tuple[Mark, ...]
    seconds: float | None
    batch: str
    is_batch: bool
    repeats: tuple[str, ...]
    opinions: tuple[Opinion, ...]

    @property
    def claims(self) -> list[Claim]:
        """What was judged, in order."""
        return [step.claim for step in self.steps if step.kind == "hypothesis" and step.claim and step.claim.verdict]


def trail(notebook: Store, run: str) -> Trail:
    """The trail of a run. Refuses an unknown id."""
    row = queries.find_run(notebook, run)
    models = Models.read(notebook)
    claims = claims_where(notebook, models, schema.hypothesis.c.run == run)
    experiments = _experiments(notebook, run)
    calls = [_call(one) for one in queries.calls(notebook, run)]
    outcomes = queries.outcomes(notebook, run)
    steps = _steps(notebook, run, claims, experiments, calls)
    item = notebook.rows(sa.select(schema.item.c.run).where(schema.item.c.asked == run).limit(1))
    repeats = notebook.rows(sa.select(schema.run.c.id).where(schema.run.c.parent_run == run).limit(20))
    end = row["end"]
    names = {n.id: f"E{at}" for at, n in enumerate((n for e in experiments for n in e.numbers), start=1)}
    return Trail(
        row, models.slug(row["target"]["id"]), tuple(sorted({c.address for c in claims} | {o["address"] for o in outcomes})),
        end["outcome"] if end else "unfinished", end["reason"] if end else "",
        json.loads(end["cost"]) if end else None, tuple(steps), names, tuple(_timeline(run, steps)), _seconds(run, steps),
        item[0]["run"] if item else "", _is_batch(notebook, run), tuple(one["id"] for one in repeats),
        tuple(opinions_on(notebook, [run]).get(run, ())),
    )  # fmt: skip


def _is_batch(notebook: Store, run: str) -> bool:
    return bool(notebook.rows(sa.select(schema.batch.c.run).where(schema.batch.c.run == run)))


def _experiments(notebook: Store, run: str) -> list[Experiment]:
    e = schema.experiment
    return experiments_of(notebook, notebook.rows(sa.select(e).where(e.c.run == run).order_by(e.c.id)))


def _steps(
    notebook: Store, run: str, claims: Sequence[Claim], experiments: Sequence[Experiment], calls: Sequence[Call]
) -> list[Step]:
    """All entries in the order in which they were recorded, with short names."""
    h = [claim.id for claim in claims]
    of = {claim.id: claim for claim in claims}
    predictions = [p for some in queries.grouped(notebook, schema.prediction, "hypothesis", h).values() for p in some]
    owner = {p["id"]: of[p["hypothesis"]] for p in predictions}
    verdicts = [v for some in queries.verdicts(notebook, list(owner)).values() for v in some]
    said = opinions_on(notebook, [*(one.id for one in experiments), *(v["id"] for v in verdicts)])
    found = [Step("hypothesis", c.id, "", claim=c, opinions=c.opinions) for c in claims]
    found += [
        Step("prediction", p["id"], "", claim=owner[p["id"]], prediction=p, rivals=_n_rivals(p)) for p in predictions
    ]
    found += [Step("experiment", e.id, "", experiment=e, opinions=tuple(said.get(e.id, ()))) for e in experiments]
    found += [
        Step("verdict", v["id"], "", claim=owner[v["prediction"]], verdict=v, opinions=tuple(said.get(v["id"], ())))
        for v in verdicts
    ]
    found += [Step("call", c.row["id"], "", call=c) for c in calls]
    found += [Step("outcome", o["id"], "", row=o) for o in _outcomes(notebook, run)]
    found += [Step("end", e["id"], "", row=e) for e in queries.grouped(notebook, schema.run_end, "run", [run])[run]]
    return _named(sorted(found, key=lambda step: step.id))


def _named(steps: Sequence[Step]) -> list[Step]:
    counts: dict[str, int] = {}
    named = []
    for step in steps:
        letter = LETTER.get(step.kind, "")
        counts[letter] = counts.get(letter, 0) + 1
        named.append(Step(**{**step.__dict__, "name": f"{letter}{counts[letter]}" if letter else ""}))
    return named


def _outcomes(notebook: Store, run: str) -> list[Row]:
    o, u = schema.outcome, schema.unit
    joined = sa.select(o, u.c.address).join(u, u.c.id == o.c.unit)
    return list(notebook.rows(joined.where(o.c.run == run).order_by(o.c.id)))


def _n_rivals(prediction: Row) -> int:
    payload = queries.parsed(prediction["payload"], f"prediction {prediction['id']}")
    rivals = payload.get("rivals") if isinstance(payload, dict) else None
    return len(rivals) if isinstance(rivals, list) else 0


def _call(row: Row) -> Call:
    return Call(row, tuple(_turns(row["request"])), row["end"])


def _turns(request: str) -> list[Turn]:
    """The prompt as its messages; the whole request where it has another form."""
    try:
        body = json.loads(request)
    except ValueError:
        return [Turn("request", request)]
    if not isinstance(body, dict):
        return [Turn("request", request)]
    found = [Turn("system", _text(body[name])) for name in ("system", "instructions") if body.get(name)]
    for one in body.get("messages") or body.get("input") or []:
        if isinstance(one, dict):
            found.append(Turn(str(one.get("role", one.get("type", "message"))), _text(one.get("content", one))))
    if isinstance(body.get("prompt"), str):
        found.append(Turn("prompt", body["prompt"]))
    return found or [Turn("request", request)]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(one["text"]) if isinstance(one, dict) and "text" in one else _json(one) for one in content)
    return _json(content)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def _span(step: Step) -> tuple[int, float] | None:
    """When a step began, in milliseconds, and how long it took."""
    began = milliseconds(step.id)
    if began is None:
        return None
    took = 0.0
    if step.experiment is not None:
        took = step.experiment.seconds or 0.0
    elif step.call is not None and step.call.end is not None:
        took = step.call.end["seconds"]
    return began, 1000 * took


def _seconds(run: str, steps: Sequence[Step]) -> float | None:
    """From the beginning of the run to the end of its last step."""
    began, spans = milliseconds(run), [span for step in steps if (span := _span(step)) is not None]
    return (max(at + took for at, took in spans) - began) / 1000 if began is not None and spans else None


def _timeline(run: str, steps: Sequence[Step]) -> list[Mark]:
    began, whole = milliseconds(run), _seconds(run, steps)
    if began is None or not whole or whole <= 0:
        return []
    marks = []
    for step in steps:
        span = _span(step)
        if span is not None and step.name:
            x, wide = WIDTH * (span[0] - began) / 1000 / whole, WIDTH * span[1] / 1000 / whole
            what = step.experiment.tool if step.experiment else step.kind
            marks.append(Mark(step.id, step.name, step.kind, round(max(x, 0.0), 1), round(max(wide, 2.0), 1), what))
    return marks

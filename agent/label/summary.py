"""What came of a batch: verdicts by layer, the rate of false claims on null units, cost, and what all units would take."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from neuronaut.agent.cost import Cost
from neuronaut.agent.label.screen import duration
from neuronaut.memory import queries
from neuronaut.memory.item_labels import WORDS, Label, labels_of
from neuronaut.memory.labels import call_errors_of, costs_of, e_values_of
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.stats import clopper_pearson, e_bh
from neuronaut.tools.units import Unit

SHOWN = 20  # labels that are printed; `neuronaut export` gives all


@dataclass(frozen=True)
class Nulls:
    """Planted null units: all of them; how many ended, and how many were dead; of how many that ended a claim was tested,
    how many got a SUPPORTED one, with a 95 % interval of that share of all that ended."""

    planted: int
    ended: int
    dead: int
    tested: int
    supported: int
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What came of a batch so far. groups: verdicts by layer or dictionary; supported_claims: of all units, which may have
    more than one, and how many survive over the batch; calls: of a language model, how many failed, and why the last one did;
    whole: units of all that could be chosen from, and what they would take at the cost of those that ended."""

    run: str
    question: str
    outcome: str
    items: int
    waiting: int
    failed: int
    statuses: dict[str, int]
    groups: dict[str, dict[str, int]]
    nulls: Nulls
    supported_claims: int
    surviving: int
    calls_failed: int
    call_error: str
    cost: dict[str, Any]
    whole: dict[str, Any]
    labels: list[Label]


def summary_of(notebook: Notebook, run: str) -> Summary:
    """The summary of a batch as it stands."""
    row, items = queries.find_run(notebook, run), notebook.items(run)
    labels = labels_of(notebook, items)
    ended = [label for label in labels if label.state in ("done", "failed", "skipped")]
    real = [label for label in ended if label.null_kind is None]
    groups: dict[str, Counter[str]] = {}
    for label in real:
        groups.setdefault(_group(label.address), Counter())[label.word] += 1
    runs = [item.asked for item in items if item.asked is not None]
    real_runs = [item.asked for item in items if item.asked is not None and item.null_kind is None]
    costs = [json.loads(cost) for cost in costs_of(notebook, runs).values()]
    total = _total(costs)
    n_ended = len(ended)
    whole = _whole(row["config"].get("labelling") or {}, n_ended, total)
    nulls = [label for label in labels if label.null_kind]
    e_values = e_values_of(notebook, real_runs)
    errors = call_errors_of(notebook, runs)
    return Summary(
        run, row["question"], row["end"]["outcome"] if row["end"] else "unfinished", len(items), len(items) - n_ended,
        sum(label.state == "failed" for label in ended), dict(Counter(label.word for label in real)),
        {name: dict(found) for name, found in groups.items()}, _nulls(nulls), sum(e > 0 for e in e_values), int(e_bh(e_values).sum()),
        len(errors), errors[-1] if errors else "", total, whole, [label for label in labels if label.null_kind is None],
    )  # fmt: skip


def _group(address: str) -> str:
    unit = Unit.parse(address)
    return unit.name or f"layer {unit.layer}"


def _nulls(planted: list[Label]) -> Nulls:
    ended = [label for label in planted if label.state == "done"]
    supported = sum(label.status == "SUPPORTED" for label in ended)
    low, high = clopper_pearson(supported, len(ended)) if ended else (0.0, 1.0)
    dead, tested = sum(label.state == "skipped" for label in planted), sum(label.was_tested for label in ended)
    return Nulls(len(planted), len(ended), dead, tested, supported, low, high)


def _total(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the items; dollars are None where any price is unknown."""
    found = asdict(Cost(forwards=0.0, seconds=0.0))
    for cost in costs:
        for name in found:
            value = cost.get(name, 0.0)
            found[name] = None if value is None or found[name] is None else round(found[name] + value, 3)
    return found


def _whole(labelling: dict[str, Any], ended: int, total: dict[str, Any]) -> dict[str, Any]:
    """Units that the batch could choose from, and their seconds, forwards and dollars at the cost of those that ended."""
    units = int(labelling.get("eligible", 0))
    if not ended or not units:
        return {"units": units, "seconds": None, "forwards": None, "usd": None}
    share = units / ended
    scaled = {name: None if total[name] is None else total[name] * share for name in ("seconds", "forwards", "usd")}
    return {"units": units, **scaled}


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as one JSON value."""
    return {"event": "summary", **asdict(summary)}


def lines_of(summary: Summary) -> list[str]:
    """The summary as a table for people."""
    names = [name for name in WORDS if any(name in row for row in summary.groups.values())]
    width = max([9, *map(len, summary.groups)])
    lines = [f"{summary.question}  · run {summary.run} · {summary.outcome}", ""]
    lines.append(f" {'':<{width}}" + "".join(f"{name:>12}" for name in names))
    for group, row in sorted(summary.groups.items(), key=lambda one: _order(one[0])):
        lines.append(f" {group:<{width}}" + "".join(f"{row.get(name, 0):>12}" for name in names))
    total = "".join(f"{summary.statuses.get(name, 0):>12}" for name in names)
    lines += [f" {'all':<{width}}{total}", "", *facts_of(summary), ""]
    best = [label for label in summary.labels if label.status == "SUPPORTED"]
    best.sort(key=lambda label: -(label.score or 0.0))
    for label in best[:SHOWN]:
        score = "" if label.score is None else f"{label.score:.2f}"
        lines.append(f" {label.address:<10} {score:>5}  {label.claim}")
    if len(best) > SHOWN:
        lines.append(
            f" … and {len(best) - SHOWN} more: neuronaut export labels --run {summary.run} --out labels.parquet"
        )
    return lines


def _order(group: str) -> tuple[str, int]:
    word, _, number = group.partition(" ")
    return (word, int(number)) if number.isdecimal() else (group, 0)


def facts_of(summary: Summary) -> list[str]:
    """Null units, surviving claims, cost, what all units would take and what is left to do, a line each."""
    nulls, cost, whole = summary.nulls, summary.cost, summary.whole
    facts = [
        f" null units  {_rate(nulls)}",
        f" e-BH at 5 % {summary.surviving} of {summary.supported_claims} SUPPORTED claims survive over the batch",
        f" cost        {_cost(cost)}",
    ]
    if summary.calls_failed:
        facts.append(
            f" calls       {summary.calls_failed:,} to the language model failed, the last: {summary.call_error}"
        )
    if whole["seconds"] is not None:
        facts.append(f" all units   {whole['units']:,}: about {_cost(whole)}")
    if summary.waiting:
        facts.append(f" to do       {summary.waiting}: neuronaut label resume {summary.run}")
    if summary.failed:
        facts.append(f" failed      {summary.failed}: neuronaut label retry {summary.run}")
    return facts


def _rate(nulls: Nulls) -> str:
    if not nulls.planted:
        return "there are none, so that the rate of false claims is not known"
    dead = f", {nulls.dead} dead" * (nulls.dead > 0)
    if not nulls.ended:
        return f"{nulls.planted} planted{dead}, none tried yet, so that the rate of false claims is not known"
    return (
        f"{nulls.supported} of {nulls.ended} SUPPORTED (95 %: {nulls.low:.1%} to {nulls.high:.1%}); of {nulls.tested} a claim was "
        f"tested{dead}"
    )


def _cost(cost: dict[str, Any]) -> str:
    seconds = "time unknown" if cost["seconds"] is None else duration(cost["seconds"])
    paid = "price unknown" if cost["usd"] is None else f"${cost['usd']:,.2f}"
    return f"{seconds}, {cost['forwards']:,.0f} forward passes, {paid}"

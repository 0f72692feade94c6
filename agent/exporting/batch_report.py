"""A batch as a report: verdicts by layer, null units, cost, and the label of each unit."""

from collections.abc import Iterator
from typing import Any

from neuronaut.agent.exporting.document import Section, how_to_check
from neuronaut.agent.exporting.markdown import plain, table
from neuronaut.agent.label.summary import Summary, facts_of
from neuronaut.memory.item_labels import WORDS, Label

MOST = 500  # labels that are listed; `neuronaut export labels` gives all


def batch_sections(summary: Summary, run: dict[str, Any], head: str) -> Iterator[Section]:
    """The report of a batch, part by part, as it stands."""
    began = f"Asked of {plain(run['target']['name'])} on {plain(run['corpus']['name'])}, {plain(run['started'])}"
    ended = summary.items - summary.waiting
    counts = ", ".join(f"{summary.statuses[word]} {word}" for word in WORDS if word in summary.statuses) or "none yet"
    yield Section(
        plain(summary.question),
        f"{began}: {plain(summary.outcome)}\n\n{ended:,} of {summary.items:,} units ended, null units among them.\n\n"
        f"Units by their best verdict: {counts}.",
    )
    yield Section("Verdicts", _verdicts(summary))
    facts = [f"- {plain(' '.join(line.split()))}" for line in facts_of(summary)]
    yield Section("Null units and cost", "\n".join(facts))
    yield Section("Labels", _labels(summary))
    commands = (f"neuronaut show {summary.run}", f"neuronaut export labels --run {summary.run} --out labels.csv")
    yield Section("How to check it", "\n\n".join(how_to_check(run, head, *commands)))


def _verdicts(summary: Summary) -> str:
    words = [word for word in WORDS if word in summary.statuses]
    rows = [
        {"where": name, **{word: row.get(word, 0) for word in words}}
        for name, row in sorted(summary.groups.items(), key=_layer)
    ]
    return table(
        ("where", *words), [*rows, {"where": "all", **{word: summary.statuses[word] for word in words}}] if rows else []
    )


def _layer(group: tuple[str, Any]) -> tuple[str, int]:
    word, _, number = group[0].partition(" ")
    return (word, int(number)) if number.isdecimal() else (group[0], 0)


def _labels(summary: Summary) -> str:
    """The units that ended, the best verdicts first."""
    ended = [label for label in summary.labels if label.state in ("done", "failed", "skipped")]
    ended.sort(key=lambda label: (WORDS.index(label.word), -(label.score or 0.0)))
    shown = table(
        ("unit", "came out as", "side", "score", "claim or reason", "run"),
        [_row(label) for label in ended[:MOST]],
        codes=("run",),
    )
    left = len(ended) - MOST
    more = f"\n\n… and {left:,} more: `neuronaut export labels --run {summary.run} --out labels.csv` has all."
    return shown + (more if left > 0 else "")


def _row(label: Label) -> dict[str, Any]:
    return {
        "unit": label.address, "came out as": label.word, "side": label.side or None, "score": label.score,
        "claim or reason": label.claim or label.reason or None, "run": label.run,
    }  # fmt: skip

"""What was measured beside the claims, in lines that people read: from the stored result of an experiment alone."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from neuronaut.agent.view import visible

Payload = Mapping[str, Any]
LISTED = 5


def measured(experiment: Mapping[str, Any]) -> dict[str, Any] | None:
    """Title and lines of an experiment that answers by itself; None for any other."""
    describe = _LINES.get(experiment["tool"])
    if describe is None or "result" not in experiment:
        return None
    payload = experiment["result"]["payload"]
    title, *lines = describe(payload, {row["metric"]: row for row in experiment["result"]["measurements"]})
    return {"experiment": experiment["id"], "tool": experiment["tool"], "title": title, "lines": lines}


def _importance(payload: Payload, metrics: Payload) -> Iterator[str]:
    answer = f'"{visible(payload["answer"])}" (probability {payload["probability"]:.2f})'
    kind = payload["kind"]
    yield f'what {answer} rests on after "{visible(payload["prompt"])}": nats that it loses without each of the {kind}'
    for part in payload["parts"]:
        low, high = part["interval"]
        if low <= 0 <= high:
            continue
        yield f"{part['part']:<7} {part['drop']:+.3f} [{low:.3f}, {high:.3f}]"
    first = metrics["drop_first"]
    null = "random neurons" if kind == "neurons" else "the median of all"
    yield f"null: {null} {first['null_value']:+.3f}; {payload['of']} {kind} in all; those whose interval holds 0 are left out"
    yield f"each carries what it carries on {first['n']} other texts; they are chosen on as many more"
    if "rank_agreement" in metrics:
        agreement = metrics["rank_agreement"]
        yield f"chosen by gradients, whose order agrees with what was measured: {agreement['value']:.2f} ({agreement['n']} neurons)"


def _head_scores(payload: Payload, metrics: Payload) -> Iterator[str]:
    yield (
        f"the heads that score most, of {len(payload['random'])}: on {payload['random_tokens']} repeated random tokens, and by "
        "their weights"
    )
    for kind in payload["random"][0]:
        if kind in ("head", "entropy", "start"):
            continue
        best = sorted(payload["random"], key=lambda row: -row[kind])[:LISTED]
        measured = metrics.get(f"{kind}_random", metrics.get(kind))
        chance = f" (chance {measured['null_value']:.2f})" if measured and measured["null_value"] is not None else ""
        yield f"{kind:<10} " + ", ".join(f"{row['head']} {row[kind]:.2f}" for row in best) + chance


def _attention_on(payload: Payload, metrics: Payload) -> Iterator[str]:
    yield f"where {payload['unit']} looks in this prompt: share of the query's attention (what an even spread would give)"
    for row in payload["pairs"][:LISTED]:
        yield f"{row['query']} → {row['key']}  {row['weight']:.2f} ({row['even']:.2f})"


_LINES: dict[str, Callable[[Payload, Payload], Iterator[str]]] = {
    "attention_on": _attention_on,
    "head_scores": _head_scores,
    "importance": _importance,
}

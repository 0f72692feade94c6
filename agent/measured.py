"""What was measured beside the claims, in lines that people read: from the stored result of an experiment alone."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from neuronaut.agent.scores.table import score_lines
from neuronaut.agent.tool_output import result_lines
from neuronaut.agent.view import visible
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolResult

Payload = Mapping[str, Any]
LISTED = 5
LOOKED = 40  # lines of a tool that was asked for by name
LEAST_NATS = 0.01


def measured(experiment: Mapping[str, Any]) -> dict[str, Any] | None:
    """Title and lines of an experiment that answers by itself; None for any other."""
    describe = score_lines if experiment["tool"].startswith("score_") else _LINES.get(experiment["tool"])
    if describe is None or "result" not in experiment:
        return None
    payload = experiment["result"]["payload"]
    lines = list(describe(payload, {row["metric"]: row for row in experiment["result"]["measurements"]}))
    if not lines:
        return None
    title, *lines = lines
    return {"experiment": experiment["id"], "tool": experiment["tool"], "title": title, "lines": lines}


def looked(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Title and lines of any experiment, where a tool was asked for by name."""
    stored = experiment["result"]
    result = ToolResult(tuple(Measurement.stored(row) for row in stored["measurements"]), stored["payload"])
    lines = list(result_lines(result))
    more = [f"and {len(lines) - LOOKED} more lines: `neuronaut show {experiment['id']}`"] if len(lines) > LOOKED else []
    title = f"{experiment['tool']} {json.dumps(experiment['args'], ensure_ascii=False)}"
    return {"experiment": experiment["id"], "tool": experiment["tool"], "title": title, "lines": lines[:LOOKED] + more}


def _apart(interval: Sequence[float]) -> bool:
    """Whether an interval leaves 0 out."""
    low, high = interval
    return not low <= 0 <= high


def _importance(payload: Payload, metrics: Payload) -> Iterator[str]:
    answer = f'"{visible(payload["answer"])}" (probability {payload["probability"]:.2f})'
    kind = payload["kind"]
    yield f'what {answer} rests on after "{visible(payload["prompt"])}": nats that it loses without each of the {kind}'
    first = metrics["drop_first"]
    if payload["likeliest"] != payload["answer"]:
        likeliest = f'"{visible(payload["likeliest"])}" (probability {payload["likeliest_probability"]:.2f})'
        yield f"but the model says {likeliest} here"
    shown = [part for part in payload["parts"] if abs(part["drop"]) >= LEAST_NATS and _apart(part["interval"])]
    for part in sorted(shown, key=lambda part: -abs(part["drop"])):
        low, high = part["interval"]
        yield f"{part['part']:<7} {part['drop']:+.3f} [{low:.3f}, {high:.3f}]"
    if not shown:
        yield f"none of them matters by {LEAST_NATS:g} nats"
    null = "random neurons" if kind == "neurons" else "the median of all"
    yield f"null: {null} {first['null_value']:+.3f}; {payload['of']} {kind} in all, of which less than {LEAST_NATS:g} nats is left out"
    yield f"each carries what it carries on {first['n']} other texts; they are chosen on as many more"
    if "rank_agreement" in metrics:
        agreement = metrics["rank_agreement"]
        yield f"chosen by gradients, whose order agrees with what was measured: {agreement['value']:.2f} ({agreement['n']} neurons)"


def _head_scores(payload: Payload, metrics: Payload) -> Iterator[str]:
    kinds = [kind for kind in payload["random"][0] if kind not in ("head", "entropy", "start")]
    if payload["unit"] not in {row["head"] for row in payload["random"]}:
        yield from _all_heads(payload, metrics, kinds)
        return
    n = len(payload["random"]) - 1
    yield f"how much {payload['unit']} is of each kind, and of how many of the {n} other heads it is above"
    for kind in kinds:
        cells = [_score(metrics[name], where) for where, name in _places(kind, metrics)]
        yield f"{kind:<10} {' · '.join(cells)}"


def _places(kind: str, metrics: Payload) -> list[tuple[str, str]]:
    named = (("", kind), ("repeated random tokens ", f"{kind}_random"), ("text ", f"{kind}_text"))
    return [(where, name) for where, name in named if name in metrics]


def _score(found: Payload, where: str) -> str:
    null = "" if found["null_value"] is None else f", chance {found['null_value']:.2f}"
    above = "" if found["null_percentile"] is None else f", above {found['null_percentile']:.0f} %"
    return f"{where}{found['value']:.2f}{null}{above}"


def _all_heads(payload: Payload, metrics: Payload, kinds: Sequence[str]) -> Iterator[str]:
    yield (
        f"the heads that score most, of {len(payload['random'])}: on {payload['random_tokens']} repeated random tokens, and by "
        "their weights"
    )
    for kind in kinds:
        best = sorted(payload["random"], key=lambda row: -row[kind])[:LISTED]
        measured = metrics.get(f"{kind}_random", metrics.get(kind))
        chance = f" (chance {measured['null_value']:.2f})" if measured and measured["null_value"] is not None else ""
        yield f"{kind:<10} " + ", ".join(f"{row['head']} {row[kind]:.2f}" for row in best) + chance


def _strongest(payload: Payload, metrics: Payload) -> Iterator[str]:
    if not payload["examples"] or "key" not in payload["examples"][0]:
        return
    yield f"the strongest pairs of {payload['unit']} in explore text, one a document: from a token to the token it looks at"
    for one in payload["examples"]:
        text = "".join(one["pieces"][: one["centre"] + 1])
        yield f'{one["activation"]:.2f} from "{one["query"]}" to "{one["key"]}"  …{text[-60:]}'


def _attention_on(payload: Payload, metrics: Payload) -> Iterator[str]:
    yield f"where {payload['unit']} looks in this prompt: share of the query's attention (what an even spread would give)"
    for row in payload["pairs"][:LISTED]:
        yield f"{row['query']} → {row['key']}  {row['weight']:.2f} ({row['even']:.2f})"


def _lens_row(row: Payload) -> str:
    tokens = " · ".join(visible(token) for token in row["tokens"][:3])
    where = "output" if row["before"] == "output" else f"before {row['before']}"
    return f"{where:<9} {tokens}  (the answer: rank {row['rank']}, log-probability {row['answer']:.1f})"


def _logit_lens(payload: Payload, metrics: Payload) -> Iterator[str]:
    answer = f'"{visible(payload["answer"])}"'
    yield f"the likeliest token before each layer, by the last norm and the unembedding, and what says {answer}"
    for row in payload["layers"]:
        yield _lens_row(row)
    said = sorted(payload["components"], key=lambda row: -abs(row["logit"]))[:LISTED]
    yield "logits that parts add to it directly: " + ", ".join(
        f"{row['component']} {row['logit']:+.1f}" for row in said
    )
    neurons = ", ".join(f"{row['neuron']} {row['logit']:+.1f}" for row in payload["neurons"])
    yield f"neurons: {neurons}"


def _find_circuit(payload: Payload, metrics: Payload) -> Iterator[str]:
    yield (
        f"{payload['task']!r}, searched for what keeps {payload['threshold']:g} of it: {payload['n']} prompts that the model has "
        f"right ({payload['accuracy']:.0%} of all), clean − corrupted {payload['gap']:.1f} nats"
    )
    whole = "" if payload["complete"] else "; the budget was spent, so that it may still hold parts that do nothing"
    best = _number(metrics["share"]["null_value"])
    yield f"{payload['size']} of {payload['nodes']} parts keep {payload['share']:.2f} there; best of 20 random circuits {best}{whole}"
    if payload["idle"]:
        yield f"no worse without {', '.join(payload['idle'])}"
    for other in payload["reruns"]:
        yield f"again in random order ({other['jaccard']:.2f} the same): {', '.join(other['members'])}"


def _number(value: float | None) -> str:
    """Two digits; "none" where there is nothing to compare with."""
    return "none" if value is None else f"{value:.2f}"


def _test_circuit(payload: Payload, metrics: Payload) -> Iterator[str]:
    yield f"{payload['task']!r}: what the removal of each part costs on unseen prompts, as a share of the behaviour, and its p (Holm)"
    wide = max(7, *map(len, payload["costs"]))
    for name, cost in sorted(payload["costs"].items(), key=lambda item: -item[1]):
        yield f"{name:<{wide}} {cost:+.2f}  p {payload['minimality'][name]:.2g}"
    yield f"95 % of the other parts cost less than {payload['cost_bar']:+.2f} when they are put in and taken out again"


def _compare_circuits(payload: Payload, metrics: Payload) -> Iterator[str]:
    one, other = payload["tasks"]
    yield f"{one!r} and {other!r} share {len(payload['shared'])} parts: {', '.join(payload['shared']) or 'none'}"
    yield f"overlap (Jaccard) {payload['jaccard']:.2f}; random circuits of these sizes {payload['jaccard_random']:.2f}"
    for task, only in zip(payload["tasks"], payload["only"], strict=True):
        yield f"only {task!r}: {', '.join(only) or 'none'}"
    for row, removed in zip(payload["crossed"], (other, one), strict=True):
        yield (
            f"{row['task']!r} keeps {row['left']:.2f} [{row['low']:.2f}, {row['high']:.2f}] without the circuit of {removed!r}; "
            f"without random ones {_number(row['random'])}"
        )


def _shared_circuits(payload: Payload, metrics: Payload) -> Iterator[str]:
    yield "what the circuits of " + ", ".join(repr(row["task"]) for row in payload["tasks"]) + " share"
    for row in payload["tasks"]:
        yield _done(row)
    for row in payload["circuits"]:
        best, part = _number(row["random_best"]), ", ".join(row["members"]) or "nothing"
        more = "" if row["complete"] else "; the budget was spent"
        yield f"{row['task']!r} at {row['level']:g}: {row['size']} of {payload['nodes']} parts keep {row['kept']:.2f} of unseen prompts (best of 20 random {best}): {part}{more}"
    for row in payload["overlaps"]:
        one, other = row["tasks"]
        chance = f"random {row['jaccard_random']:.2f}, p {row['p']:.2g}"
        yield f"at {row['level']:g} {one!r} and {other!r} overlap {row['jaccard']:.2f} ({chance}): {', '.join(row['shared']) or 'nothing'}"
    yield f"all of them at {payload['crossed_at']:g}: {', '.join(payload['shared_by_all']) or 'nothing'}"
    for row in payload["crossed"]:
        removed = {"all": "the circuit", "shared": "what it shares with that", "own": "what is alone that"}[row["part"]]
        what = f"{removed} of {row['of']!r}" if row["of"] != row["task"] else "its own circuit"
        yield f"{row['task']!r} keeps {row['left']:.2f} [{row['low']:.2f}, {row['high']:.2f}] without {what}; random {_number(row['random'])}: {row['finding']}"


def _done(row: Payload) -> str:
    """How well a task is done, beside corrupted prompts."""
    if "accuracy" not in row:
        return f"{row['task']!r}: no circuit: {row['why']}"
    told = f"{row['accuracy']:.0%} right ({row['accuracy_corrupted']:.0%} by corrupted prompts), log-odds {row['log_odds']:+.1f} ({row['log_odds_corrupted']:+.1f})"
    return f"{row['task']!r}: {told}" + ("" if row["can"] else f"; no circuit: {row['why']}")


def _backup_heads(payload: Payload, metrics: Payload) -> Iterator[str]:
    yield f"{payload['task']!r} keeps {payload['left']:.2f} without {payload['head']} ({payload['n']} prompts)"
    costs = ", ".join(f"{row['head']} {row['cost']:+.2f}" for row in payload["heads"][:LISTED])
    yield f"what each head alone costs: {costs}"
    yield f"backups, which matter more then: {', '.join(payload['backups']) or 'none better than chance'}"
    for row in payload["parts"][:LISTED]:
        yield f"{row['part']:<7} is worth {row['before']:+.2f} before, {row['after']:+.2f} after: {row['rise']:+.2f} (at least {row['low']:+.2f})"
    yield f"null: without {', '.join(payload['random_heads'])} in its place no part rises by more than {payload['random_best']:+.2f}"
    if payload["instead"]:
        yield f"circuit of the whole model: {', '.join(payload['circuit'])}"
        yield f"circuit of what is left: {', '.join(payload['instead'])}; new in it: {', '.join(payload['new']) or 'nothing'}"


def _successor_heads(payload: Payload, metrics: Payload) -> Iterator[str]:
    n = len(payload["heads"])
    named = ", ".join(payload["successors"]) or "none better than chance"
    yield f"successor heads, by the weights of {n} heads: {named}"
    for name, kind in (("next", "next"), ("previous", "previous"), ("add_two", "next but one")):
        best = sorted(payload["heads"], key=lambda row: -row[name])[:LISTED]
        null = f"95 % of permuted orders below {payload['permuted'][name]['high']:.2f}, best random head {payload['random'][name]:.2f}"
        yield f"{kind}: " + ", ".join(f"{row['head']} {row[name]:.2f}" for row in best) + f" ({null})"
    yield f"predecessors: {', '.join(payload['predecessors']) or 'none'}; add two: {', '.join(payload['add_two']) or 'none'}"
    for one in payload["best"]:
        each = ", ".join(f"{name} {score:.2f}" for name, score in one["by_order"].items())
        yield f"{one['head']}: {each}; {one['directions']} of {one['of']} directions give {one['score']:.2f}, as many random ones {one['random_directions']:.2f}"


_LINES: dict[str, Callable[[Payload, Payload], Iterator[str]]] = {
    "attention_on": _attention_on,
    "backup_heads": _backup_heads,
    "compare_circuits": _compare_circuits,
    "find_circuit": _find_circuit,
    "logit_lens": _logit_lens,
    "shared_circuits": _shared_circuits,
    "successor_heads": _successor_heads,
    "test_circuit": _test_circuit,
    "top_examples": _strongest,
    "head_scores": _head_scores,
    "importance": _importance,
}

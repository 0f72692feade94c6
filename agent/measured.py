"""What was measured beside the claims, in lines that people read: from the stored result of an experiment alone."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from neuronaut.agent.change_lines import diff_models
from neuronaut.agent.concept_lines import find_units, steer_concept, test_units
from neuronaut.agent.dream_lines import dream_lines
from neuronaut.agent.head_lines import head_lines
from neuronaut.agent.match_lines import match_units, test_matches
from neuronaut.agent.measured_shared import backup_heads, number, shared_circuits, successor_heads
from neuronaut.agent.readout_lines import readout_lines, shift_lines
from neuronaut.agent.scores.table import score_lines
from neuronaut.agent.story_lines import story_lines
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
    best = number(metrics["share"]["null_value"])
    yield f"{payload['size']} of {payload['nodes']} parts keep {payload['share']:.2f} there; best of 20 random circuits {best}{whole}"
    if payload["idle"]:
        yield f"no worse without {', '.join(payload['idle'])}"
    for other in payload["reruns"]:
        yield f"again in random order ({other['jaccard']:.2f} the same): {', '.join(other['members'])}"


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
            f"without random ones {number(row['random'])}"
        )


_LINES: dict[str, Callable[[Payload, Payload], Iterator[str]]] = {
    "attention_on": _attention_on,
    "backup_heads": backup_heads,
    "compare_circuits": _compare_circuits,
    "diff_models": diff_models,
    "describe_heads": head_lines,
    "dream": dream_lines,
    "find_circuit": _find_circuit,
    "find_units": find_units,
    "steer_concept": steer_concept,
    "test_units": test_units,
    "logit_lens": _logit_lens,
    "shared_circuits": shared_circuits,
    "successor_heads": successor_heads,
    "read_out": readout_lines,
    "readout_shift": shift_lines,
    "test_circuit": _test_circuit,
    "top_examples": _strongest,
    "head_scores": _head_scores,
    "match_units": match_units,
    "test_matches": test_matches,
    "importance": _importance,
    "prediction_story": story_lines,
}

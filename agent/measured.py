"""What was measured beside the claims, in lines that people read: from the stored result of an experiment alone."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from neuronaut.agent import circuit_lines, concept_lines, head_lines, match_lines, readout_lines, story_lines
from neuronaut.agent.change_lines import diff_models
from neuronaut.agent.lines import Payload, number
from neuronaut.agent.scores.table import score_lines
from neuronaut.agent.tool_output import result_lines
from neuronaut.agent.view import visible
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolResult

LOOKED = 40  # lines of a tool that was asked for by name


def measured(experiment: Mapping[str, Any]) -> dict[str, Any] | None:
    """Title and lines of an experiment that answers by itself; None for any other."""
    of_tool = score_lines if experiment["tool"].startswith("score_") else _LINES.get(experiment["tool"])
    if of_tool is None or "result" not in experiment:
        return None
    payload = experiment["result"]["payload"]
    lines = list(of_tool(payload, {row["metric"]: row for row in experiment["result"]["measurements"]}))
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


def _dream(payload: Payload, metrics: Payload) -> Iterator[str]:
    natural, null = payload["natural"], metrics["beyond_natural"]
    yield f"dreams of {visible(payload['aim'])}, synthetic (searched for, not found in text): activation · nats a token · prompt"
    for row in payload["front"]:
        yield f'{row["activation"]:>8.3g} · {row["cost"]:.2f}{" fluent" if row["fluent"] else ""} · "{visible(row["text"])}"'
    yield f"natural text: at most {natural['top']:.3g}, median {natural['median']:.3g}, of {natural['n_tokens']} tokens"
    for row in payload["natural_examples"][:2]:
        yield f'{row["activation"]:>8.3g} · {row["cost"]:.2f} natural · "{visible(row["text"])}"'
    for row in payload["searches"]:
        fluent = "no fluent one" if row["fluent"] is None else f"{row['fluent']:.3g} among fluent ones"
        yield f"{row['name']}: at most {row['best']:.3g}, {fluent} ({row['prompts']} prompts, {row['forwards']:.0f} forward passes)"
    others = [row["beyond"] for row in payload["nulls"]]
    yield (
        f"{null['value']:.2f} of the way from the median to the strongest natural text; {len(others)} null units by the same search "
        f"{null['null_value']:.2f} ({min(others):.2f} to {max(others):.2f})"
    )
    if "fluent_beyond" in metrics:
        one = metrics["fluent_beyond"]
        yield f"fluent prompts {one['value']:.2f} of the way; null units {number(one['null_value'])}"
    yield payload["said"]


# Each is named after the tool whose payload and measurements, by metric, it tells.
_LINES: dict[str, Callable[[Payload, Payload], Iterator[str]]] = {
    of_tool.__name__: of_tool
    for module in (circuit_lines, concept_lines, head_lines, match_lines, readout_lines, story_lines)
    for of_tool in module.OF_TOOLS
} | {"diff_models": diff_models, "dream": _dream}

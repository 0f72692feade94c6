"""What was measured beside the claims, in lines that people read: from the stored result of an experiment alone."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from neuronaut.agent import (
    change_lines,
    circuit_lines,
    concept_lines,
    dream_lines,
    head_lines,
    match_lines,
    readout_lines,
    story_lines,
)
from neuronaut.agent.lines import Payload
from neuronaut.agent.scores.table import score_lines
from neuronaut.agent.tool_output import result_lines
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


# Each is named after the tool whose payload and measurements, by metric, it tells.
_LINES: dict[str, Callable[[Payload, Payload], Iterator[str]]] = {
    of_tool.__name__: of_tool
    for module in (
        change_lines,
        circuit_lines,
        concept_lines,
        dream_lines,
        head_lines,
        match_lines,
        readout_lines,
        story_lines,
    )
    for of_tool in module.OF_TOOLS
}

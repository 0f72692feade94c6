"""What the notebook already holds about the units that a question came upon: shown beside the answer, never its evidence."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neuronaut.memory.notebook import Notebook
from neuronaut.memory.recall import earlier_findings
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

TOLD = ("SUPPORTED", "PARTIAL")


def units_met(experiments: Iterable[dict[str, Any]]) -> list[str]:
    """The addresses of the units that experiments name as theirs, each once."""
    tools = ("prediction_story", "describe_heads")
    found = (one["result"]["payload"].get("units", []) for one in experiments if one["tool"] in tools)
    return list(dict.fromkeys(address for some in found for address in some))


def known_claims(notebook: Notebook, run: str, addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Claims about units that earlier runs judged SUPPORTED or PARTIAL, in the order of the units. stale: on other text, or
    by an earlier version of the tools."""
    from neuronaut.agent.session import tools_sha256  # which takes torch

    found = []
    for address in addresses:
        try:
            unit = Unit.parse(address)
        except UserError:
            continue  # an altered row: `verify` says so
        for finding in earlier_findings(notebook, run, unit, tools_sha256()):
            if finding.status in TOLD:
                found.append(
                    {"unit": address, "side": finding.side, "status": finding.status, "claim": finding.claim, "run": finding.run,
                     "hypothesis": finding.hypothesis, "stale": not finding.same_inputs}
                )  # fmt: skip
    return found


def known_line(known: Mapping[str, Any]) -> str:
    """One of them in a line."""
    stale = ", stale" if known["stale"] else ""
    return f"{known['unit']} {known['claim']} ({known['status']}{stale}: run {known['run']})"

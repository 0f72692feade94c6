"""What became of findings about earlier weights, read from the notebook for those who read an answer."""

from typing import Any

from neuronaut.agent.questions import parse_question
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.stale import Stale, judged_now, stale_findings
from neuronaut.tools.errors import UserError

BECAME = {"SUPPORTED": "survived", "PARTIAL": "weakened", "REFUTED": "refuted", "UNRESOLVED": "undecided"}
ORDER = ("survived", "weakened", "refuted", "gone", "undecided", "not tested")


def what_survived(notebook: Notebook, run: dict[str, Any]) -> dict[str, Any] | None:
    """Of a run that asked again, what became of each finding, with the run, verdict and cost of its test; None of any other."""
    try:
        question = parse_question(run["question"])
    except UserError:
        return None
    if question.intent != "survived":
        return None
    found = stale_findings(notebook, run["id"], question.earlier)
    now = judged_now(notebook, run["id"], [one.key for one in found])
    gone = {(o["address"], o["side"], o["status"]): o["reason"] for o in queries.outcomes(notebook, run["id"])}
    spent = _spent(notebook, run["id"])
    rows = [_row(one, now.get(one.key), gone, spent) for one in found]
    return {"counts": {name: sum(row["became"] == name for row in rows) for name in ORDER}, "findings": rows}


def _row(
    one: Stale,
    verdict: dict[str, Any] | None,
    gone: dict[tuple[str, str, str], str],
    spent: dict[str, tuple[float, float]],
) -> dict[str, Any]:
    silent, failed = (gone.get((one.address, one.side, status)) for status in ("ABSTAINED", "UNRESOLVED"))
    became = "gone" if silent else "undecided" if failed else "not tested"
    if one.address.startswith("sae:"):
        became = "not tested"
    seconds, forwards = spent.get(verdict["prediction"], (None, None)) if verdict else (None, None)
    return {
        "finding": one.hypothesis, "run": one.run, "unit": one.address, "side": one.side, "claim": one.claim,
        "weights": one.weights, "became": BECAME[verdict["outcome"]] if verdict else became,
        "reason": verdict["reason"] if verdict else silent or failed or "its turn did not come",
        "now": {name: verdict[name] for name in ("id", "run", "outcome", "split")} if verdict else None,
        "seconds": seconds, "forwards": forwards,
    }  # fmt: skip


def _spent(notebook: Notebook, run: str) -> dict[str, tuple[float, float]]:
    """Seconds and forward passes of the tests of a run, by prediction."""
    done = [row for row in queries.experiments(notebook, run) if row["prediction"] and row["end"]]
    return {row["prediction"]: (row["end"]["seconds"], row["end"]["forwards"]) for row in done}

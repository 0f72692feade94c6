"""What became of findings about earlier weights, read from the notebook for those who read an answer."""

from typing import TYPE_CHECKING, Any, NamedTuple

from neuronaut.agent.questions import parse_question
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.stale import Stale, judged_now, stale_findings
from neuronaut.tools.errors import UserError

if TYPE_CHECKING:
    from neuronaut.agent.controls import Controls

ORDER = ("survived", "lost", "undecided", "no control", "not tested", "not watched")


def what_survived(notebook: Notebook, run: dict[str, Any]) -> dict[str, Any] | None:
    """Of a run that asked again, what became of each finding, with the run, verdict and cost of its test; None of any other."""
    try:
        question = parse_question(run["question"])
    except UserError:
        return None
    if question.intent != "survived":
        return None
    from neuronaut.agent.controls import Controls  # with all tests

    found = stale_findings(notebook, run["id"], question.earlier)
    now = judged_now(notebook, run["id"], [one.key for one in found])
    told = _Told(
        Controls(notebook, run["id"]),
        {(o["address"], o["side"], o["status"]): o["reason"] for o in queries.outcomes(notebook, run["id"])},
        _spent(notebook, run["id"]),
    )
    rows = [_row(notebook, run, one, now.get(one.key), told) for one in found]
    return {"counts": {name: sum(row["became"] == name for row in rows) for name in ORDER}, "findings": rows}


class _Told(NamedTuple):
    """What a run tells of its findings. outcomes: reasons by unit, side and status; spent: seconds and forward passes by prediction."""

    controls: "Controls"
    outcomes: dict[tuple[str, str, str], str]
    spent: dict[str, tuple[float, float]]


def _row(
    notebook: Notebook, run: dict[str, Any], one: Stale, verdict: dict[str, Any] | None, told: _Told
) -> dict[str, Any]:
    became, reason, control = _became(notebook, run, one, verdict, told)
    seconds, forwards = told.spent.get(verdict["prediction"], (None, None)) if verdict else (None, None)
    return {
        "finding": one.hypothesis, "run": one.run, "unit": one.address, "side": one.side, "claim": one.claim,
        "weights": one.weights, "became": became, "reason": reason,
        "now": {name: verdict[name] for name in ("id", "run", "outcome", "split")} if verdict else None,
        "control": control, "seconds": seconds, "forwards": forwards,
    }  # fmt: skip


def _became(
    notebook: Notebook, run: dict[str, Any], one: Stale, verdict: dict[str, Any] | None, told: _Told
) -> tuple[str, str, dict[str, Any] | None]:
    """What became of a finding, the reason, and the control where the test of the new weights failed."""
    from neuronaut.agent.controls import fired, tested
    from neuronaut.agent.watching import NO_UNIT, not_watched

    dictionaries = {name: used["sha256"] for name, used in run["config"]["dictionaries"].items()}
    if reason := not_watched(one, dictionaries):
        return "not watched", reason, None
    if verdict is not None and verdict["outcome"] == "SUPPORTED":
        return "survived", verdict["reason"], None
    silent, failed = (told.outcomes.get((one.address, one.side, status)) for status in ("ABSTAINED", "UNRESOLVED"))
    if verdict is None and silent is not None and silent.startswith(NO_UNIT):
        return "lost", silent.removeprefix(NO_UNIT), None
    if verdict is None and silent is None:
        return ("undecided", failed, None) if failed else ("not tested", "its turn did not come", None)
    asked = fired(one, run["corpus"]["id"]) if verdict is None else tested(notebook, verdict)
    control = told.controls.of(one, asked, verdict)
    told_reason = silent if verdict is None else verdict["reason"]
    if control["outcome"] is None:
        return "no control", str(told_reason), control
    return "lost" if control["outcome"] == "SUPPORTED" else "undecided", str(told_reason), control


def _spent(notebook: Notebook, run: str) -> dict[str, tuple[float, float]]:
    """Seconds and forward passes of the tests of a run, by prediction."""
    done = [row for row in queries.experiments(notebook, run) if row["prediction"] and row["end"]]
    return {row["prediction"]: (row["end"]["seconds"], row["end"]["forwards"]) for row in done}

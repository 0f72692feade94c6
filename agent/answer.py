"""The answer of a run, read from the notebook: every claim with its verdict, its numbers and its evidence."""

import json
from typing import Any

from neuronaut.agent.cost import Cost
from neuronaut.agent.known import known_claims, units_met
from neuronaut.agent.measured import looked, measured
from neuronaut.agent.survivors import what_survived
from neuronaut.agent.words import words_of
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import option_of
from neuronaut.tools.stats import e_bh, e_value

SCHEMA = 1
SPECIAL = "is larger still on a special token; search and scores leave special tokens out"
ORDER = ("SUPPORTED", "PARTIAL", "UNRESOLVED", "REFUTED", "ABSTAINED")


def answer_of(notebook: Notebook, run: str) -> dict[str, Any]:
    """The object that `ask --json` prints: claims with verdicts (REFUTED included), outcomes, what is unexplained, cost."""
    row = queries.find_run(notebook, run)
    hypotheses = queries.hypotheses(notebook, run)
    done = [e for e in queries.experiments(notebook, run) if "result" in e]
    experiments = {e["prediction"]: e for e in done if e["prediction"]}
    judged = [h for h in hypotheses if h["verdicts"]]
    cost = Cost.stored(row["end"]["cost"]).fields if row["end"] else None
    units = sorted({h["address"] for h in hypotheses} | {o["address"] for o in queries.outcomes(notebook, run)})
    seen = queries.looks(notebook, run, ("top_examples", "firing"), units)

    def looks(tool: str) -> list[tuple[str, dict[str, Any]]]:
        return [(unit, seen[tool, unit]) for unit in units if (tool, unit) in seen]

    answer = {
        "schema": SCHEMA,
        "run": run,
        "question": row["question"],
        "target": {"name": row["target"]["name"], "weights_sha256": row["target"]["weights_sha256"]},
        "units": units,
        "claims": [_claim(h, hypotheses, experiments) for h in judged],
        "proposed": [
            {"unit": h["address"], "claim": h["claim"], "author": h["author"], "author_words": h["words"]}
            for h in hypotheses
            if not h["verdicts"]
        ],
        "outcomes": [
            {"unit": o["address"], "side": o["side"], "status": o["status"], "reason": o["reason"]}
            for o in queries.outcomes(notebook, run)
        ],
        "measured": _measured(done, looks_only=not units),
        "known": known_claims(notebook, run, units_met(done)),
        "figures": [
            {"experiment": e["id"], "tool": e["tool"], **figure}
            for e in done
            for figure in e["result"].get("figures", [])
        ],
        "survived": what_survived(notebook, row),
        "asked_of": _asked_of(notebook, row) if row["config"].get("others") else [],
        "unexplained": _unexplained(judged, experiments),
        "examples": {unit: [_context(one) for one in look["examples"]] for unit, look in looks("top_examples")},
        "notes": [f"{unit} {SPECIAL}" for unit, look in looks("firing") if look.get("special_token")],
        "survive": {
            where: _survivors(queries.e_values(notebook, of)) for where, of in (("run", run), ("notebook", None))
        },
        "outcome": row["end"]["outcome"] if row["end"] else "unfinished",
        "cost": cost,
        "notebook": str(notebook.place),
        "ledger_head": notebook.head(),
        "next": [f"neuronaut {what}{option_of(notebook.place)}" for what in _next(run, row["question"], done)],
    }
    return answer | {"words": words_of(notebook, answer)}


def _asked_of(notebook: Notebook, row: dict[str, Any]) -> list[dict[str, Any]]:
    """What the same question found in other models: the runs that a run began for it, with their claims and outcomes."""
    found = []
    for run in queries.runs_inside(notebook, row["id"]):
        inner = queries.find_run(notebook, run)
        told = answer_of(notebook, run)
        name = str(inner["config"]["conversation"]).partition("/")[2]
        kept = {key: told[key] for key in ("question", "claims", "outcomes", "outcome")}
        found.append({"other": name, "run": run, "target": told["target"], **kept})
    return found


def _measured(done: list[dict[str, Any]], *, looks_only: bool) -> list[dict[str, Any]]:
    """What experiments found beside the claims; all that they found where a question made no claim and had no other answer."""
    found = [one for e in done if (one := measured(e)) is not None]
    return found or [looked(e) for e in done if looks_only]


def _next(run: str, question: str, done: list[dict[str, Any]]) -> list[str]:
    drawn = any(e["result"].get("figures") for e in done)
    again = [] if question.startswith("neuronaut score ") else [f"rerun {run}"]  # scores are repeated by their command
    return [f"show {run}" + " --figures FOLDER" * drawn, *again, "verify"]


def _survivors(e_values: list[float]) -> dict[str, int]:
    """How many predictions were registered, how many SUPPORTED, and how many of these e-BH at 5 % keeps."""
    supported = sum(e > 0 for e in e_values)
    return {"predictions": len(e_values), "supported": supported, "kept": int(e_bh(e_values).sum())}


def _context(example: dict[str, Any]) -> dict[str, Any]:
    """A top example as text before, at and after the token, and its activation."""
    pieces, at = example["pieces"], example["centre"]
    texts = {"before": "".join(pieces[:at]), "token": pieces[at], "after": "".join(pieces[at + 1 :])}
    return {**texts, "activation": example["activation"]}


def _claim(
    row: dict[str, Any], hypotheses: list[dict[str, Any]], experiments: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    verdict = row["verdicts"][-1]
    case = verdict["case"]
    status_of = {h["claim"]: h["status"].upper() for h in hypotheses if h["address"] == row["address"]}
    found = {
        e["metric"]: {
            "value": e["value"], "ci": None if e["ci_low"] is None else [e["ci_low"], e["ci_high"]], "null": e["null_value"], "n": e["n"]
        }
        for e in verdict["evidence"]
        if e["metric"] != "e"
    }  # fmt: skip
    experiment = experiments.get(row["predictions"][-1]["id"], {})
    payload = experiment.get("result", {}).get("payload", {})
    run_pairs = payload["pairs"] if isinstance(payload.get("pairs"), dict) else payload
    pairs = {
        "wins": run_pairs.get("wins"),
        "discordant": run_pairs.get("discordant", _sum(run_pairs.get("wins"), run_pairs.get("losses"))),
        "documents": len(case["bets"]),
        "e": e_value(case["bets"]),
    }
    rivals = [
        {
            "claim": r["claim"],
            "f1": r["f1"] if "f1" in r else r["share"],
            "complexity": r["complexity"],
            "status": status_of.get(r["claim"], "PROPOSED"),
        }
        for r in case.get("rivals", [])
    ]
    return {
        "id": row["id"], "unit": row["address"], "sign": row["sign"], "side": row["side"], "status": verdict["outcome"],
        "reason": verdict["reason"], "claim": row["claim"], "predicate": json.loads(row["predicate"]), "complexity": row["complexity"],
        "author": row["author"], "author_words": row["words"], "scores": found, "pairs": pairs, "rivals": rivals,
        "numbers": {name: value for name, value in case.items() if name not in ("side", "bets", "rivals", "modes")},
        "evidence": [e["id"] for e in verdict["evidence"]], "rule_version": verdict["rule_version"],
    }  # fmt: skip


def _sum(wins: int | None, losses: int | None) -> int | None:
    return None if wins is None or losses is None else wins + losses


def _unexplained(judged: list[dict[str, Any]], experiments: dict[str, Any]) -> dict[str, Any]:
    """Share of the firing mass outside the best tested reads claim, of each unit; on top, of the first one.

    null where none was tested.
    """
    found: dict[str, dict[str, Any]] = {}
    reads = [h for h in judged if h["side"] == "reads"]
    for row in sorted(reads, key=lambda h: ORDER.index(h["verdicts"][-1]["outcome"])):
        experiment = experiments.get(row["predictions"][-1]["id"])
        if experiment and row["address"] not in found:
            left = experiment["result"]["payload"]["unexplained"]
            found[row["address"]] = {"unit": row["address"], "share": left["share"], "examples": left["tokens"]}
    first: dict[str, Any] = next(iter(found.values()), {"share": None, "examples": []})
    return {**first, "units": list(found.values())}

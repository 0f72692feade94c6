"""Is the order of science kept, was test text fresh, and does each verdict follow from its rows?"""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.judge import RULE_VERSION, case_from_json, decide
from neuronaut.memory.store import Store

Row = dict[str, Any]
Rows = dict[str, dict[str, Row]]  # table, key
Seq = dict[tuple[str, str], int]  # (table, key) to its ledger line
# the metric whose percentile a case holds
RANKED = {"writes": "delta", "attends": "share", "role": "delta", "circuit": "sufficiency"}
E_TOLERANCE = 1e-6  # relative; logarithms differ in the last digits from machine to machine


def order_problems(rows: Rows, seq: Seq) -> list[str]:
    """What was recorded before that on which it rests: prediction, experiment, evidence, verdict is the order."""
    problems = []

    def after(later: tuple[str, str], earlier: tuple[str, str], what: str) -> None:
        if seq.get(later, 0) < seq.get(earlier, 0):
            problems.append(f"{later[0]} {later[1]} {what} {earlier[0]} {earlier[1]}, which came after it")

    for key, row in rows["experiment"].items():
        if row["prediction"] is not None:
            after(("experiment", key), ("prediction", row["prediction"]), "tested")
    for key, row in rows["evidence"].items():
        after(("evidence", key), ("experiment", row["experiment"]), "is said to come from")
    for key, row in rows["verdict"].items():
        after(("verdict", key), ("prediction", row["prediction"]), "judged")
    for row in rows["verdict_evidence"].values():
        after(("verdict", row["verdict"]), ("evidence", row["evidence"]), "cites")
        experiment, prediction = _rests_on(rows, row)
        if experiment is not None and prediction is not None:
            after(("experiment", experiment), ("prediction", prediction), "was done with the answer in hand: it judged")
    return problems


def _rests_on(rows: Rows, cited: Row) -> tuple[str | None, str | None]:
    """The experiment whose evidence a verdict cites, and the prediction that it judged."""
    evidence, verdict = rows["evidence"].get(cited["evidence"]), rows["verdict"].get(cited["verdict"])
    return (evidence["experiment"] if evidence else None), (verdict["prediction"] if verdict else None)


def text_problems(rows: Rows, seq: Seq) -> list[str]:
    """Tests on confirm text that was not opened for them, or was looked at before it was opened."""
    problems = []
    units = rows["unit"]
    opened = {(units[b["unit"]]["target"], units[b["unit"]]["address"], b["corpus"], b["side"], b["block"]): key
              for key, b in rows["block_opened"].items() if b["unit"] in units}  # fmt: skip
    for key, row in rows["experiment"].items():
        args = _parsed(row["args"])
        if not isinstance(args, dict) or not isinstance(args.get("block"), int) or row["repeat_of"] is not None:
            continue
        side = _side(rows, row)
        if side is None:
            problems.append(f"experiment {key} looked at confirm block {args['block']} without a registered prediction")
            continue
        target = rows["run"].get(row["run"], {}).get("target")
        block = opened.get((target, str(args.get("unit")), row["corpus"], side, args["block"]))
        if block is None or seq.get(("block_opened", block), 0) > seq.get(("experiment", key), 0):
            problems.append(f"experiment {key} looked at confirm block {args['block']} before it was opened for a test")
    return problems


def _side(rows: Rows, experiment: Row) -> str | None:
    prediction = rows["prediction"].get(experiment["prediction"] or "")
    hypothesis = rows["hypothesis"].get(prediction["hypothesis"]) if prediction else None
    return str(hypothesis["side"]) if hypothesis else None


def verdict_problems(notebook: Store, rows: Rows) -> list[str]:
    """Verdicts that the rule does not give, whose case differs from what was measured, or that a status belies."""
    problems = []
    cited: dict[str, list[Row]] = {}
    for row in rows["verdict_evidence"].values():
        if row["evidence"] in rows["evidence"]:
            cited.setdefault(row["verdict"], []).append(rows["evidence"][row["evidence"]])
    results: dict[str, list[str]] = {}
    for row in rows["experiment_end"].values():
        if row["result"]:
            results.setdefault(row["experiment"], []).append(row["result"])
    for key, row in rows["verdict"].items():
        case = _parsed(row["case"])
        problems += _against_rule(key, row, case)
        if isinstance(case, dict):
            evidence = cited.get(key, [])
            kept = (result for one in {e["experiment"] for e in evidence} for result in results.get(one, []))
            problems += _against_evidence(rows, key, case, evidence, _payloads(notebook, kept))
    for row in rows["hypothesis_status"].values():
        verdict = rows["verdict"].get(row["verdict"] or "")
        if verdict is not None and str(verdict["outcome"]).lower() != row["to_state"]:
            problems.append(
                f"hypothesis {row['hypothesis']} is called {row['to_state']}, its verdict says {verdict['outcome']}"
            )
    return problems


def _against_rule(key: str, row: Row, case: Any) -> list[str]:
    if row["rule_version"] != RULE_VERSION:
        return []
    try:
        decision = decide(case_from_json(case))
    except ValueError:
        return [f"verdict {key} has a case that the rule cannot read"]
    if (decision.status, decision.reason) != (row["outcome"], row["reason"]):
        return [f"verdict {key} says {row['outcome']}, but its case gives {decision.status} ({decision.reason})"]
    if not math.isclose(decision.e, row["e"], rel_tol=E_TOLERANCE):
        return [f"verdict {key} has the e-value {row['e']:.6g}, but its case gives {decision.e:.6g}"]
    return []


def _against_evidence(rows: Rows, key: str, case: Row, evidence: list[Row], payloads: Iterator[Row]) -> list[str]:
    """Numbers of the case that are not those of the evidence rows, of the stored results that it cites or of its hypothesis."""
    if not evidence:
        return [f"verdict {key} cites no evidence"]
    measured = _claimed(rows, rows["verdict"][key]) | {row["metric"]: row["value"] for row in evidence}
    ranked = [row["null_percentile"] or 0.0 for row in evidence if row["metric"] == RANKED.get(str(case.get("side")))]
    measured |= {"percentile": ranked[0]} if ranked else {}
    for payload in payloads:
        measured |= _as_in_case(payload)
    held = case | {"rivals": _rivals(case.get("rivals"))}
    return [
        f"verdict {key} rests on {name} {json.dumps(held[name])}, measured was {json.dumps(measured[name])}"
        for name in sorted(case.keys() & measured.keys())
        if held[name] != measured[name]
    ]


def _claimed(rows: Rows, verdict: Row) -> Row:
    """What the judged hypothesis says of itself."""
    prediction = rows.get("prediction", {}).get(verdict["prediction"])
    hypothesis = rows.get("hypothesis", {}).get(prediction["hypothesis"]) if prediction else None
    if hypothesis is None:
        return {}
    predicate = _parsed(hypothesis["predicate"])
    graded = isinstance(predicate, dict) and predicate.get("kind") == "graded"
    return {"complexity": hypothesis["complexity"], "graded": graded}


def _payloads(notebook: Store, results: Iterable[str]) -> Iterator[Row]:
    """What stored results hold."""
    for kept in results:
        for row in notebook.rows(sa.select(schema.artifact.c.content).where(schema.artifact.c.id == kept)):
            result = _parsed(row["content"])
            payload = result.get("payload") if isinstance(result, dict) else None
            if isinstance(payload, dict):
                yield payload


def _as_in_case(payload: Row) -> Row:
    """A stored result under the names of a case."""
    found = dict(payload)
    pairs, interval = payload.get("pairs"), payload.get("interval_90")
    if isinstance(pairs, dict) and "bets" in pairs:
        found["bets"] = pairs["bets"]
    if "rivals" in payload:
        found["rivals"] = _rivals(payload["rivals"])
    if interval:
        found |= {"delta_interval_90": interval, "delta_low": interval[0]}
    if "size" in payload:
        found["members"] = payload["size"]
    return found


def _rivals(rivals: Any) -> Any:
    """The numbers of rivals: a case names them by their sentences, a result by their predicates."""
    if not isinstance(rivals, list) or not all(isinstance(rival, dict) for rival in rivals):
        return rivals
    return [{name: value for name, value in rival.items() if name not in ("claim", "predicate")} for rival in rivals]


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError):
        return None

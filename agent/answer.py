"""The answer of a run, read from the notebook: every claim with its verdict, its numbers and its evidence."""

import json
from typing import Any

from neuronaut.agent.view import visible
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.stats import e_value

SCHEMA = 1
READS_METRICS = ("f1", "precision", "coverage", "ap", "r", "base_rate")


def answer_of(notebook: Notebook, run: str) -> dict[str, Any]:
    """The object that `ask --json` prints: claims with verdicts (REFUTED included), outcomes, what is unexplained, cost."""
    row = queries.find_run(notebook, run)
    hypotheses = queries.hypotheses(notebook, run)
    experiments = {e["prediction"]: e for e in queries.experiments(notebook, run) if e["prediction"]}
    judged = [h for h in hypotheses if h["verdicts"]]
    cost = json.loads(row["end"]["cost"]) if row["end"] else None
    return {
        "schema": SCHEMA,
        "run": run,
        "question": row["question"],
        "target": {"name": row["target"]["name"], "weights_sha256": row["target"]["weights_sha256"]},
        "units": sorted({h["address"] for h in hypotheses} | {o["address"] for o in queries.outcomes(notebook, run)}),
        "claims": [_claim(h, hypotheses) for h in judged],
        "proposed": [
            {"unit": h["address"], "claim": h["claim"], "author": h["author"]} for h in hypotheses if not h["verdicts"]
        ],
        "outcomes": [
            {"unit": o["address"], "side": o["side"], "status": o["status"], "reason": o["reason"]}
            for o in queries.outcomes(notebook, run)
        ],
        "unexplained": _unexplained(judged, experiments),
        "outcome": row["end"]["outcome"] if row["end"] else "unfinished",
        "cost": cost,
        "notebook": str(notebook.path),
        "ledger_head": notebook.head(),
        "next": [f"neuronaut show {run}", f"neuronaut rerun {run}", "neuronaut verify"],
    }


def _claim(row: dict[str, Any], hypotheses: list[dict[str, Any]]) -> dict[str, Any]:
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
    bets = case["bets"]
    pairs = {
        "wins": sum(b > 0 for b in bets),
        "discordant": sum(b != 0 for b in bets),
        "documents": len(bets),
        "e": e_value(bets),
    }
    rivals = [
        {"claim": r["claim"], "f1": r["f1"], "status": status_of.get(r["claim"], "PROPOSED")}
        for r in case.get("rivals", [])
    ]
    return {
        "id": row["id"], "unit": row["address"], "sign": row["sign"], "side": row["side"], "status": verdict["outcome"],
        "reason": verdict["reason"], "claim": row["claim"], "predicate": json.loads(row["predicate"]), "complexity": row["complexity"],
        "author": row["author"], "scores": found, "pairs": pairs, "rivals": rivals,
        "evidence": [e["id"] for e in verdict["evidence"]], "rule_version": verdict["rule_version"],
    }  # fmt: skip


def _unexplained(judged: list[dict[str, Any]], experiments: dict[str, Any]) -> dict[str, Any]:
    """Share of the firing mass outside the best reads claim of the asked sign; null where none was tested."""
    rank = {"SUPPORTED": 0, "PARTIAL": 1, "UNRESOLVED": 2, "REFUTED": 3}
    reads = [h for h in judged if h["side"] == "reads"]
    for row in sorted(reads, key=lambda h: rank[h["verdicts"][-1]["outcome"]]):
        experiment = experiments.get(row["predictions"][-1]["id"])
        if experiment and "result" in experiment:
            found = experiment["result"]["payload"]["unexplained"]
            return {"share": found["share"], "examples": found["tokens"], "unit": row["address"]}
    return {"share": None, "examples": []}


def render(answer: dict[str, Any]) -> None:
    """Print the answer for people."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    cost = answer["cost"]
    spent = f"{cost['seconds']:.0f} s · {cost['forwards']:.0f} forwards" if cost else answer["outcome"]
    console.print(
        Text(f"{visible(answer['question'])} · {answer['target']['name']}", style="bold")
        + f"   run {answer['run']} · {spent}"
    )
    styles = {
        "SUPPORTED": "bold green",
        "PARTIAL": "yellow",
        "REFUTED": "red",
        "UNRESOLVED": "magenta",
        "ABSTAINED": "dim",
    }
    order = list(styles)
    for claim in sorted(answer["claims"], key=lambda c: order.index(c["status"])):
        head = Text(f" {claim['side'].upper():<7}") + Text(f"{claim['status']:<11}", style=styles[claim["status"]])
        console.print(head + Text(f"{claim['unit']:<8} {visible(claim['claim'])}"))
        console.print(Text(f"{'':28}{_numbers(claim)}", style="dim"))
        if claim["status"] != "SUPPORTED" or claim["reason"] != "all conditions hold":
            console.print(Text(f"{'':28}{visible(claim['reason'])}", style="dim"))
    for outcome in answer["outcomes"]:
        head = Text(f" {outcome['side'].upper():<7}") + Text(
            f"{outcome['status']:<11}", style=styles[outcome["status"]]
        )
        console.print(head + Text(f"{outcome['unit']:<8} {visible(outcome['reason'])}"))
    if answer["unexplained"]["share"] is not None:
        tokens = ", ".join(f'"{visible(t)}"' for t in answer["unexplained"]["examples"])
        rest = f", most of it on {tokens}" if tokens else ""
        console.print(
            Text(
                f" ALSO   {answer['unexplained']['share']:.0%} of the firing of {answer['unexplained']['unit']} is outside the claim{rest}"
            )
        )
    if answer["proposed"]:
        names = "; ".join(visible(p["claim"]) for p in answer["proposed"][:4])
        console.print(Text(f" also proposed, as rivals or not tested: {names}", style="dim"))
    console.print(Text(f" notebook {answer['notebook']} · ledger head {answer['ledger_head'][:20]}…", style="dim"))
    console.print(Text(f" next: {' · '.join(answer['next'])}", style="dim"))


def _numbers(claim: dict[str, Any]) -> str:
    scores = claim["scores"]

    def shown(name: str) -> str:
        value = scores[name]
        interval = f" [{value['ci'][0]:.2f}, {value['ci'][1]:.2f}]" if value["ci"] else ""
        return f"{value['value']:.2f}{interval}"

    bets = f"e {claim['pairs']['e']:.2g} from {claim['pairs']['documents']} documents"
    if claim["side"] == "writes":
        delta = scores["delta"]
        return f"{shown('delta')} nats · other neurons {delta['null']:.2f} · {bets}"
    best = max(claim["rivals"], key=lambda r: r["f1"], default=None)
    rival = f" · best rival {visible(best['claim'])} ({best['f1']:.2f})" if best else ""
    return (
        f"F1 {shown('f1')} · precision {scores['precision']['value']:.2f} · coverage {scores['coverage']['value']:.2f} · "
        f"other neurons {scores['f1']['null'] or 0:.2f} · {bets}{rival}"
    )

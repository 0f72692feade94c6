"""What the notebook says, for another program: claims with their verdicts, each number with the id of its evidence."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from neuronaut.agent.answer import answer_of
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.search import search
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

Row = dict[str, Any]
MOST = 100
ID = Field(min_length=1, max_length=80, pattern=r"^[0-9A-Za-z:_-]+$", description="as it stands in a result")


class Wanted(BaseModel):
    """Arguments of a question about the notebook: typed, bounded, without extras."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    with_text: bool = Field(default=False, description="also texts of corpus and model, apart and marked as data")


class SearchClaims(Wanted):
    """Claims in the notebook that hold all the words and facets, the newest first; without words the newest of all.

    Facets: unit:8.481 status:supported side:reads layer:8 author:grammar run:ID."""

    words: str = Field(default="", max_length=200, description="words and facets")
    limit: int = Field(default=20, ge=1, le=MOST)


class ListRuns(Wanted):
    """The runs in the notebook, the newest first: what was asked, of which model, and how it ended."""

    limit: int = Field(default=20, ge=1, le=MOST)


class ShowRecord(Wanted):
    """One record of the notebook by its id: a run (its answer and experiments), a claim, an experiment, evidence, a verdict."""

    id: str = ID


class ClaimsAbout(Wanted):
    """All claims about one unit, both signs of a neuron, the newest first, each with its verdict and the ids of its evidence."""

    unit: str = Field(min_length=1, max_length=100, description="8.481, L5H1, sae:NAME/12 or task:NAME")
    limit: int = Field(default=10, ge=1, le=MOST)


class Verdict(Wanted):
    """The verdict on a claim with all that it was computed from: each measured number with interval, n, null and id, the rivals,
    the prediction that was registered, the rule."""

    id: str = Field(min_length=1, max_length=80, pattern=r"^[0-9A-Z]+$", description="of the claim or of the verdict")


def page(identifier: str) -> str:
    """Where a record opens in `neuronaut review`."""
    return f"/r/{identifier}"


def search_claims(notebook: Notebook, args: SearchClaims) -> Row:
    """The claims that match."""
    rows = search(notebook, args.words, limit=args.limit)
    return {"claims": [_found(row) for row in rows]}


def list_runs(notebook: Notebook, args: ListRuns) -> Row:
    """The newest runs."""
    rows = queries.runs(notebook)[: args.limit]
    return {"runs": [{**row, "outcome": row["outcome"] or "unfinished", "page": page(row["id"])} for row in rows]}


def claims_about(notebook: Notebook, args: ClaimsAbout) -> Row:
    """The claims about a unit."""
    unit = Unit.parse(args.unit)
    return {"unit": unit.address, "claims": claims_of(notebook, unit, limit=args.limit)}


def claims_of(notebook: Notebook, unit: Unit, *, limit: int, target: str | None = None) -> list[Row]:
    """The newest claims about both signs of a unit, of one model where it is named."""
    signs: list[Unit] = [unit.with_sign(1), unit.with_sign(-1)]
    rows = [row for one in signs for row in search(notebook, f"unit:{one.address}", limit=MOST)]
    rows = [row for row in rows if target in (None, row["target"])]
    newest = sorted(rows, key=lambda row: str(row["id"]), reverse=True)[:limit]
    judged = {
        row["id"]: row
        for run in dict.fromkeys(row["run"] for row in newest)
        for row in queries.hypotheses(notebook, run)
    }
    return [_found(row) | _last_verdict(judged[row["id"]]) for row in newest]


def verdict(notebook: Notebook, args: Verdict) -> Row:
    """The verdict on a claim with its evidence."""
    table, row = queries.find(notebook, args.id)
    if table == "verdict":
        row = queries.find(notebook, queries.find(notebook, row["prediction"])[1]["hypothesis"])[1]
    elif table != "hypothesis":
        raise UserError(
            f"{args.id} is a {table}: name a claim or a verdict (`claims_about` and `search_claims` list claims)"
        )
    (claim,) = (one for one in queries.hypotheses(notebook, row["run"]) if one["id"] == row["id"])
    if not claim["verdicts"]:
        return _known(claim) | {"verdict": None, "reason": "this claim was proposed, and not tested"}
    last = claim["verdicts"][-1]
    predictions = [
        {name: one[name] for name in ("id", "metric", "comparator", "threshold", "baseline", "split", "sha256")} | {"page": page(one["id"])}
        for one in claim["predictions"]
    ]  # fmt: skip
    case = {name: value for name, value in last["case"].items() if name != "bets"}
    return _known(claim) | _last_verdict(claim) | {"predictions": predictions, "case": case, "e": last["e"]}


def show_record(notebook: Notebook, args: ShowRecord) -> Row:
    """A record; of a run its answer."""
    table, row = queries.find(notebook, args.id)
    if table == "run":
        return answer(notebook, args.id)
    plain = {name: _plain(value) for name, value in row.items() if not isinstance(value, bytes)}
    return {"table": table, "page": page(args.id), **plain}


def answer(notebook: Notebook, run: str) -> Row:
    """The answer of a run: its claims with verdicts and evidence, what was measured, what it cost."""
    whole, rows = answer_of(notebook, run), {row["id"]: row for row in queries.hypotheses(notebook, run)}
    claims = [
        _known(rows[one["id"]]) | _last_verdict(rows[one["id"]]) | {"rivals": one["rivals"]} for one in whole["claims"]
    ]
    found = {"run": run, "page": page(run), "outcome": whole["outcome"], "claims": claims}
    names = (
        "outcomes",
        "measured",
        "known",
        "unexplained",
        "survive",
        "cost",
        "ledger_head",
        "question",
        "examples",
        "notes",
        "words",
    )
    found |= {name: whole[name] for name in names} | {"not_tested": whole["proposed"]}
    return found | {"experiments": [_experiment(e) for e in queries.experiments(notebook, run)]}


def _experiment(row: Mapping[str, Any]) -> Row:
    end = row["end"]
    return {
        "id": row["id"], "page": page(row["id"]), "tool": row["tool"], "outcome": end["outcome"] if end else "unfinished",
        "error": end["error"] if end else None, "seconds": end["seconds"] if end else None,
    }  # fmt: skip


def _known(row: Mapping[str, Any]) -> Row:
    names = ("id", "run", "side", "author", "claim")
    known = {name: row[name] for name in names}
    return {"unit": row["address"], "status": row["status"].upper(), **known, "page": page(row["id"])}


def _found(row: Mapping[str, Any]) -> Row:
    return _known(row) | {"model": row["target"]}


def _last_verdict(row: Mapping[str, Any]) -> Row:
    if not row["verdicts"]:
        return {"verdict": None, "evidence": []}
    last = row["verdicts"][-1]
    evidence = [
        {
            "id": e["id"], "page": page(e["id"]), "experiment": e["experiment"], "metric": e["metric"], "value": e["value"], "n": e["n"],
            "ci": None if e["ci_low"] is None else [e["ci_low"], e["ci_high"]], "null": e["null_value"],
            "null_percentile": e["null_percentile"], "unit_of_measure": e["unit_of_measure"],
        }
        for e in last["evidence"]
    ]  # fmt: skip
    return {
        "status": last["outcome"], "verdict": last["id"], "reason": last["reason"], "rule_version": last["rule_version"],
        "evidence": evidence,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """A column as it was before it was stored: JSON is a value again."""
    try:
        return json.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
    except json.JSONDecodeError:
        return value

"""Was anything altered, and does each verdict follow from its rows?"""

import hashlib
import json
from collections import Counter
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import ledger, schema
from neuronaut.memory.judge import RULE_VERSION, case_from_json, decide
from neuronaut.memory.notebook import Notebook


def verify(notebook: Notebook, head: str | None = None) -> list[str]:
    """The problems found, one sentence each; empty when the notebook is whole.

    Names altered values, dropped rows, unrecorded rows, reordered ledger lines and altered artifacts; with a `head` kept
    outside (seq:sha256) also a cut tail and a rewritten notebook. Checks that predictions precede experiments, those their
    evidence and that their verdicts, and recomputes each verdict.
    """
    lines = notebook.rows(sa.select(schema.ledger).order_by(schema.ledger.c.seq))
    problems = _chain(lines) + _rows(notebook, lines) + _artifacts(notebook)
    problems += _order_of_science(notebook, lines) + _verdicts(notebook)
    return problems + (_head(lines, head) if head else [])


def _chain(lines: list[dict[str, Any]]) -> list[str]:
    problems, prev = [], ledger.GENESIS
    for expected, line in enumerate(lines, 1):
        if line["seq"] != expected:
            problems.append(f"ledger line {expected} is missing (the next one is {line['seq']})")
            break
        digest = ledger.line_hash(
            line["seq"], line["table_name"], line["row_id"], line["row_sha256"], line["prev_sha256"]
        )
        if line["prev_sha256"] != prev or line["sha256"] != digest:
            problems.append(
                f"ledger line {line['seq']} was altered or reordered: its hash does not follow from the line before"
            )
            break
        prev = line["sha256"]
    return problems


def _rows(notebook: Notebook, lines: list[dict[str, Any]]) -> list[str]:
    recorded = {(line["table_name"], line["row_id"]): line["row_sha256"] for line in lines}
    problems, seen = [], set()
    for table in schema.RECORDS:
        primary = tuple(column.name for column in table.primary_key)
        for row in notebook.rows(sa.select(table)):
            key = (table.name, ledger.row_key(row, primary))
            seen.add(key)
            if key not in recorded:
                problems.append(
                    f"{table.name} {key[1]} is not recorded in the ledger: it was added behind neuronaut's back"
                )
            elif recorded[key] != ledger.row_hash(row):
                problems.append(f"{table.name} {key[1]} was altered after it was recorded")
    problems += [
        f"{table} {row} was dropped: the ledger records it" for table, row in recorded if (table, row) not in seen
    ]
    repeated = [key for key, n in Counter((line["table_name"], line["row_id"]) for line in lines).items() if n > 1]
    return problems + [f"{table} {row} stands twice in the ledger" for table, row in repeated]


def _artifacts(notebook: Notebook) -> list[str]:
    return [
        f"artifact {row['id']} was altered: its content has another hash"
        for row in notebook.rows(sa.select(schema.artifact))
        if row["id"] != f"sha256:{hashlib.sha256(row['content']).hexdigest()}"
    ]


def _order_of_science(notebook: Notebook, lines: list[dict[str, Any]]) -> list[str]:
    at = {(line["table_name"], line["row_id"]): line["seq"] for line in lines}
    problems = []

    def after(later: tuple[str, str], earlier: tuple[str, str], what: str) -> None:
        if at.get(later, 0) < at.get(earlier, 0):
            problems.append(f"{later[0]} {later[1]} {what} {earlier[0]} {earlier[1]}, which came after it")

    for row in notebook.rows(sa.select(schema.experiment).where(schema.experiment.c.prediction.is_not(None))):
        after(("experiment", row["id"]), ("prediction", row["prediction"]), "tested")
    for row in notebook.rows(sa.select(schema.evidence)):
        after(("evidence", row["id"]), ("experiment", row["experiment"]), "is said to come from")
    for row in notebook.rows(sa.select(schema.verdict_evidence)):
        after(("verdict", row["verdict"]), ("evidence", row["evidence"]), "cites")
    for row in notebook.rows(sa.select(schema.verdict)):
        after(("verdict", row["id"]), ("prediction", row["prediction"]), "judged")
    return problems


def _verdicts(notebook: Notebook) -> list[str]:
    problems = []
    for row in notebook.rows(sa.select(schema.verdict).where(schema.verdict.c.rule_version == RULE_VERSION)):
        decision = decide(case_from_json(json.loads(row["case"])))
        if decision.status != row["outcome"] or decision.reason != row["reason"]:
            problems.append(f"verdict {row['id']} says {row['outcome']}, but its rows give {decision.status}")
    return problems


def _head(lines: list[dict[str, Any]], head: str) -> list[str]:
    seq, _, digest = head.partition(":")
    if not seq.isdigit() or len(digest) != 64:
        return [f"{head!r} is no ledger head: write it as seq:sha256"]
    if int(seq) > len(lines):
        return [f"the tail was cut: the ledger has {len(lines)} lines, the head kept outside names line {seq}"]
    if int(seq) and lines[int(seq) - 1]["sha256"] != digest:
        return [f"the notebook was rewritten: line {seq} has another hash than the head kept outside"]
    return []

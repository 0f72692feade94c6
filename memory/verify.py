"""Was anything altered? Rows against the ledger, the ledger against itself and against a head kept outside."""

import hashlib
import re
from collections import Counter
from typing import Any

from neuronaut.memory import ledger, schema
from neuronaut.memory.science import order_problems, text_problems, verdict_problems
from neuronaut.memory.search import index_problems
from neuronaut.memory.store import Store, primary_key

Line = dict[str, Any]
HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{16,64})(?:…|\.\.\.)?")


def verify(notebook: Store, head: str | None = None) -> list[str]:
    """The problems found, one sentence each; empty when the notebook is whole.

    Names altered values, dropped rows, unrecorded rows, reordered ledger lines and altered artifacts; with a `head` kept
    outside (seq:sha256, or its first 16 digits) also a cut tail and a rewritten notebook. Checks that predictions precede
    experiments, those their evidence and that their verdicts, that test text was opened once and before its test, and
    recomputes each verdict from its rows. What is found by searching is compared with the records.
    """
    problems = notebook.file_problems()
    if problems:
        return problems
    with notebook.snapshot():
        lines = sorted(map(dict, notebook.stored(schema.ledger)), key=lambda line: line["seq"])
        found, row_problems = _rows(notebook, lines)
        problems = _chain(lines) + row_problems + notebook.unguarded()
        seq = {(line["table_name"], line["row_id"]): line["seq"] for line in lines}
        problems += order_problems(found, seq) + text_problems(found, seq) + verdict_problems(notebook, found)
        problems = problems or index_problems(notebook)  # which cannot fit records that were altered
    return problems + (_head(lines, head) if head else [])


def _chain(lines: list[Line]) -> list[str]:
    prev = ledger.GENESIS
    for expected, line in enumerate(lines, 1):
        if line["seq"] != expected:
            return [f"ledger line {expected} is missing (the next one is {line['seq']})"]
        digest = ledger.line_hash(
            line["seq"], line["table_name"], line["row_id"], line["row_sha256"], line["prev_sha256"]
        )
        if line["prev_sha256"] != prev or line["sha256"] != digest:
            return [
                f"ledger line {line['seq']} was altered or reordered: its hash does not follow from the line before"
            ]
        prev = line["sha256"]
    return []


def _rows(notebook: Store, lines: list[Line]) -> tuple[dict[str, dict[str, Line]], list[str]]:
    """All rows but artifacts by table and key, and what differs from the ledger."""
    recorded = {(line["table_name"], line["row_id"]): line["row_sha256"] for line in lines}
    found: dict[str, dict[str, Line]] = {}
    problems, seen = [], set()
    for table in schema.RECORDS:
        rows = found.setdefault(table.name, {})
        for row in map(dict, notebook.stored(table)):
            key = ledger.row_key(row, primary_key(table))
            seen.add((table.name, key))
            problems += _row_problems(table.name, key, row, recorded.get((table.name, key)))
            if table is not schema.artifact:
                rows[key] = row
    problems += [
        f"{table} {row} was dropped: the ledger records it" for table, row in recorded if (table, row) not in seen
    ]
    repeated = [key for key, n in Counter((line["table_name"], line["row_id"]) for line in lines).items() if n > 1]
    return found, problems + [f"{table} {row} stands twice in the ledger" for table, row in repeated]


def _row_problems(table: str, key: str, row: Line, recorded: str | None) -> list[str]:
    if table == schema.artifact.name:
        content = row["content"]
        raw = content if isinstance(content, bytes) else str(content).encode()
        if key != f"sha256:{hashlib.sha256(raw).hexdigest()}":
            return [f"artifact {key} was altered: its content has another hash"]
    if recorded is None:
        return [f"{table} {key} is not recorded in the ledger: it was added behind neuronaut's back"]
    try:
        same = ledger.row_hash(row) == recorded
    except (ValueError, TypeError):  # an infinite number, which is never recorded
        same = False
    return [] if same else [f"{table} {key} was altered after it was recorded"]


def _head(lines: list[Line], head: str) -> list[str]:
    match = HEAD.fullmatch(head.strip())
    if match is None:
        return [f"{head!r} is no ledger head: write it as seq:sha256, as `ask` prints it"]
    seq, digest = int(match[1]), match[2]
    if seq > len(lines):
        return [f"the tail was cut: the ledger has {len(lines)} lines, the head kept outside names line {seq}"]
    known = str(lines[seq - 1]["sha256"]) if seq else ledger.GENESIS
    if not known.startswith(digest):
        return [f"the notebook was rewritten: line {seq} has another hash than the head kept outside"]
    return []

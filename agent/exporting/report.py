"""`neuronaut export report`: a run or a batch as a document to read or to send, in Markdown or as a Jupyter notebook."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuronaut.agent.api.answers import Answer, Claim
from neuronaut.agent.exporting.batch_report import batch_sections
from neuronaut.agent.exporting.document import Section, as_markdown, as_notebook, how_to_check, refuse_secrets
from neuronaut.agent.exporting.markdown import code, plain, table
from neuronaut.agent.exporting.run import say
from neuronaut.agent.known import known_line
from neuronaut.agent.label.summary import summary_of
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.memory.tables import storable, whole_file
from neuronaut.tools.errors import UserError
from neuronaut.tools.predicates.text import spelled

FORMATS = {".md": "md", ".ipynb": "ipynb"}
Parts = tuple[list[Section], dict[str, Any], dict[str, Any]]  # what is written, what of it may hold a key, what is said
PRIMARY = {"f1", "delta", "share", "off_first", "sufficiency"}  # what is shown beside its null


def report_to(run: str | None, out: Path, form: str | None, place: Place | None, *, as_json: bool) -> int:
    """Write the report of a run and say what it holds. Refuses one in which a key or password would stand."""
    if run is None:
        raise UserError("a report is of one run: name it, as in `neuronaut export report RUN --out report.md`")
    chosen = form or FORMATS.get(out.suffix.lower())
    if chosen is None:
        raise UserError(f"--out {str(out)!r} names no format of a report: end it in .md or .ipynb, or give --format")
    with Notebook(place or default_place(), read_only=True) as notebook, notebook.snapshot():
        row = queries.find_run(notebook, run)
        sections, held, about = _of_batch(notebook, row) if notebook.wanted(run) else _of_run(notebook, row)
        about = {"run": run, "out": str(out), "format": chosen, **about, "ledger_head": notebook.head()}
    refuse_secrets(run, held)
    text = as_markdown(sections) if chosen == "md" else as_notebook(sections, run)
    with whole_file(out) as file:
        file.write_text(storable(text), encoding="utf-8")
    say(about, as_json=as_json)
    return 0


def _of_run(notebook: Notebook, row: dict[str, Any]) -> Parts:
    answer = Answer.read(notebook, row["id"])
    about = {"claims": len(answer.claims), "figures": len(answer.figures)}
    return list(sections_of(answer, row)), _held(answer, row), about


def _of_batch(notebook: Notebook, row: dict[str, Any]) -> Parts:
    summary = summary_of(notebook, row["id"])
    held = {"batch": asdict(summary), "run": row["target"] | row["corpus"]}
    return list(batch_sections(summary, row, notebook.head())), held, {"units": summary.items}


def _held(answer: Answer, run: dict[str, Any]) -> dict[str, Any]:
    """All that a report may show."""
    return {
        "answer": {name: value for name, value in answer.json.items() if name not in ("notebook", "next")},
        "experiments": list(answer.experiments), "evidence": list(answer.evidence), "run": run["target"] | run["corpus"],
        "figures": [{"name": one.name, "svg": one.svg} for one in answer.figures],
    }  # fmt: skip


def sections_of(answer: Answer, run: dict[str, Any]) -> Iterator[Section]:
    """The report, part by part: what was asked and found, how it was tested, what it cost, how to repeat it."""
    yield Section(plain(answer.question), "\n\n".join(_summary(answer, run)))
    shown: set[tuple[str, str]] = set()
    for claim in answer.claims:
        first = (claim.unit, claim.side) not in shown
        shown.add((claim.unit, claim.side))
        yield Section(
            f"{claim.status}: {plain(claim.unit)} {plain(claim.sentence)}", "\n\n".join(_claim(claim, first=first))
        )
    if answer.json["outcomes"] or answer.json["proposed"]:
        yield Section("What else was said of it", "\n".join(_else(answer)))
    for found in answer.json["measured"]:
        yield Section(f"Measured: {plain(found['title'])}", "\n\n".join(plain(line) for line in found["lines"]))
    if known := answer.json["known"]:
        lines = "\n".join(f"- {plain(known_line(one))}" for one in known)
        yield Section("What the notebook held about these units before", lines)
    if words := answer.json["words"]:
        told = " ".join(plain(one["text"]) for one in words["sentences"])
        yield Section("In words", f"{told}\n\nTold by {plain(words['author'])}; each sentence cites its evidence.")
    if nulls := [row for row in answer.evidence if row["metric"] in PRIMARY and row["null"] is not None]:
        columns = ("metric", "value", "null", "percentile", "n", "measured_in", "subject")
        yield Section("Beside the nulls", "The same numbers where nothing is to be found.\n\n" + table(columns, nulls))
    columns = ("id", "tool", "args", "outcome", "seconds", "forwards", "error")
    experiments = [{**row, "args": _args(row["args"])} for row in answer.experiments]
    yield Section("Experiments", table(columns, experiments, codes=("id", "args")))
    for figure in answer.figures:
        yield Section(f"Figure: {plain(figure.name)}", f"![{plain(figure.name)}]({figure.address})")
    yield Section("How to check and repeat it", "\n\n".join(_repeat(answer, run)))


def _args(stored: str) -> str:
    args = spelled(json.loads(stored))
    if not isinstance(args, dict):
        return stored
    return ", ".join(f"{name}: {value}" for name, value in args.items() if value not in (None, []))


def _summary(answer: Answer, run: dict[str, Any]) -> Iterator[str]:
    began = f"Asked of {plain(answer.model)} on {plain(run['corpus']['name'])}, {plain(run['started'])}"
    yield f"{began}: {plain(answer.outcome)}"
    counts = {
        status: sum(claim.status == status for claim in answer.claims)
        for status in ("SUPPORTED", "PARTIAL", "UNRESOLVED", "REFUTED")
    }
    yield "Claims: " + ", ".join(f"{n} {status}" for status, n in counts.items()) + "."
    survive = answer.json["survive"]["run"]
    if survive["predictions"]:
        yield (
            f"Of {survive['supported']} SUPPORTED of {survive['predictions']} predictions, {survive['kept']} survive over the run "
            "(false ones at most 5 %)."
        )
    for left in answer.json["unexplained"]["units"]:
        yield f"{left['share']:.0%} of the firing of {plain(left['unit'])} is left over."
    for note in answer.json["notes"]:
        yield f"Note: {plain(note)}."


def _claim(claim: Claim, *, first: bool) -> Iterator[str]:
    yield plain(claim.numbers)
    yield f"Verdict: {plain(claim.status)}, computed by rule {plain(claim.json['rule_version'])}: {plain(claim.reason)}."
    yield f"Checked as {code(claim.predicate)}; proposed by {plain(claim.author)}."
    if words := claim.json["author_words"]:
        yield f"In the words of its author: {plain(words)}"
    if claim.rivals and first:
        rows = [rival._asdict() for rival in claim.rivals]
        yield "Tested against:\n\n" + table(("status", "score", "complexity", "sentence"), rows)
    yield "Evidence: " + (", ".join(code(one) for one in claim.json["evidence"]) or "none") + "."


def _else(answer: Answer) -> Iterator[str]:
    for one in answer.json["outcomes"]:
        yield f"- {plain(one['status'])}: {plain(one['unit'])} {plain(one['side'])}: {plain(one['reason'])}"
    for one in answer.json["proposed"]:
        yield f"- not tested: {plain(one['unit'])} {plain(one['claim'])} (proposed by {plain(one['author'])})"


def _repeat(answer: Answer, run: dict[str, Any]) -> Iterator[str]:
    cost = answer.cost
    if cost is not None:
        seconds = "time not measured" if cost.seconds is None else f"{cost.seconds:.0f} s"
        paid = "price unknown" if cost.usd is None else f"${cost.usd:.4f}"
        calls = f", {cost.llm_calls} language-model calls, {cost.tokens} tokens, {paid}" if cost.llm_calls else ""
        yield f"It cost {seconds}, {cost.forwards:.0f} forward passes{calls}."
    commands = (f"neuronaut show {answer.run}", f"neuronaut rerun {answer.run}")
    yield from how_to_check(run, answer.json["ledger_head"], *commands)

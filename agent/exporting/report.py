"""`neuronaut export report`: a run as a document to read or to send, in Markdown or as a Jupyter notebook."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronaut.agent.api.answers import Answer, Claim
from neuronaut.agent.exporting.markdown import code, plain, table
from neuronaut.agent.exporting.run import say
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.memory.secrets import find_secrets
from neuronaut.memory.tables import storable, whole_file
from neuronaut.tools.errors import UserError
from neuronaut.tools.predicates.text import spelled

FORMATS = {".md": "md", ".ipynb": "ipynb"}
PRIMARY = {"f1", "delta", "share", "off_first", "sufficiency"}  # what is shown beside its null


@dataclass(frozen=True)
class Section:
    """A part of a report in Markdown."""

    title: str
    text: str


def report_to(run: str | None, out: Path, form: str | None, place: Place | None, *, as_json: bool) -> int:
    """Write the report of a run and say what it holds. Refuses one in which a key or password would stand."""
    if run is None:
        raise UserError("a report is of one run: name it, as in `neuronaut export report RUN --out report.md`")
    chosen = form or FORMATS.get(out.suffix.lower())
    if chosen is None:
        raise UserError(f"--out {str(out)!r} names no format of a report: end it in .md or .ipynb, or give --format")
    with Notebook(place or default_place(), read_only=True) as notebook, notebook.snapshot():
        row, answer = queries.find_run(notebook, run), Answer.read(notebook, run)
    refuse_secrets(answer, row)
    sections = list(sections_of(answer, row))
    text = as_markdown(sections) if chosen == "md" else as_notebook(sections, run)
    with whole_file(out) as file:
        file.write_text(storable(text), encoding="utf-8")
    about = {
        "run": run, "out": str(out), "format": chosen, "claims": len(answer.claims), "figures": len(answer.figures),
        "ledger_head": answer.json["ledger_head"],
    }  # fmt: skip
    say(about, as_json=as_json)
    return 0


def refuse_secrets(answer: Answer, run: dict[str, Any]) -> None:
    """Refuses, with the place where it stands, what looks like a key: it would leave this machine with the report."""
    parts = {
        "answer": {name: value for name, value in answer.json.items() if name not in ("notebook", "next")},
        "experiments": list(answer.experiments), "evidence": list(answer.evidence), "run": run["target"] | run["corpus"],
        "figures": [{"name": one.name, "svg": one.svg} for one in answer.figures],
    }  # fmt: skip
    for where, text in _texts(parts):
        if found := find_secrets(text):
            raise UserError(
                f"the report of run {answer.run} is not written, for it would hold {found[0].what} ({where.strip()}, character "
                f"{found[0].start + 1}): a notebook keeps what it was given, so change that key where it is valid"
            )


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, f"{where} {name}")
    elif isinstance(value, (list, tuple)):
        for at, inner in enumerate(value):
            yield from _texts(inner, f"{where} {at}")
    elif isinstance(value, str):
        yield where, value


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
    yield "With the notebook that it stands in:"
    head = answer.json["ledger_head"]
    lines = (f"neuronaut verify --head {head}", f"neuronaut show {answer.run}", f"neuronaut rerun {answer.run}")
    yield "```sh\n" + "\n".join(lines) + "\n```"
    packages = json.loads(run["packages"])
    facts = {
        "run": answer.run, "ledger head": head, "seed": str(run["seed"]), "weights": run["target"]["weights_sha256"],
        "tokenizer": run["target"]["tokenizer_sha256"], "text": run["corpus"]["sha256"],
        "code": f"{run['code_version']} {run['code_commit'] or ''}".strip(),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }  # fmt: skip
    yield table(("what", "value"), [{"what": name, "value": value} for name, value in facts.items()], codes=("value",))


def as_markdown(sections: list[Section]) -> str:
    """One document."""
    first, *rest = sections
    parts = [f"# {first.title}\n\n{first.text}", *(f"## {one.title}\n\n{one.text}" for one in rest)]
    return "\n\n".join(parts) + "\n"


def as_notebook(sections: list[Section], run: str) -> str:
    """A notebook of Markdown cells (nbformat 4.5), and at its end one that opens the run in Python; nothing is executed."""
    first, *rest = sections
    texts = [f"# {first.title}\n\n{first.text}", *(f"## {one.title}\n\n{one.text}" for one in rest)]
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "id": _cell_id(run, at), "metadata": {}, "source": text}
        for at, text in enumerate(texts)
    ]
    opened = (
        f"from neuronaut import Lab\n\nlab = Lab()  # the notebook of findings: Lab(notebook=...)\nlab.answer({run!r})"
    )
    cells.append({
        "cell_type": "code", "id": _cell_id(run, len(texts)), "metadata": {}, "source": opened, "outputs": [],
        "execution_count": None,
    })  # fmt: skip
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return (
        json.dumps(
            {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, ensure_ascii=False, indent=1
        )
        + "\n"
    )


def _cell_id(run: str, at: int) -> str:
    return hashlib.sha256(f"{run} {at}".encode()).hexdigest()[:8]

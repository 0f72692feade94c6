"""Reports of a run: they hold what was found, nothing in them is markup that was not meant, and no key leaves with them."""

import base64
import json
import re
import runpy
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from markdown_it import MarkdownIt

from neuronaut.agent.exporting.markdown import code, plain, table
from neuronaut.memory.place import File
from neuronaut.tools.figures import Axes, heat_map

Book = runpy.run_path(str(Path(__file__).with_name("filled_notebook.py")))["Book"]
Command = Callable[..., Any]
KEY = "sk-" + "canary-0123456789abc"
HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "![a](http://x/y.png)", "*b* __b__ ~~b~~",
    "`code` ``", "| a | b |", "# title", "- item", "1. item", "12) item", "> quote", "---", "===", "    code", "&lt;b&gt;", "$x^2$", r"\(x\) \\",
    "https://example.org/a_b", "www.example.org", "me@example.org", "<http://x>", "[^1]", "[x]: http://y", "line\nbreak", "\x1b[31m\u202e",
    "+ item", "~~~", "```", "8.481", "{{7*7}}", "@someone",
)  # fmt: skip
SHOWN = str.maketrans({"\n": "⏎"})


def _rendered(markdown: str) -> str:
    return str(MarkdownIt("gfm-like", {"linkify": False}).render(markdown))


def _text(page: str) -> str:
    import html

    return html.unescape(re.sub(r"<[^>]+>", "", page)).strip()


@pytest.mark.parametrize("text", HOSTILE)
def test_text_reads_the_same_and_is_no_markup(text: str) -> None:
    shown = text.translate(SHOWN).replace("\x1b", "\\u001b").replace("\u202e", "\\u202e").strip()
    assert _text(_rendered(plain(text))) == shown
    assert set(re.findall(r"<(\w+)", _rendered(plain(text)))) <= {"p"}
    assert set(re.findall(r"<(\w+)", _rendered(f"so: {plain(text)} end"))) <= {"p"}
    assert _text(_rendered(code(text))) == shown
    cells = _rendered(table(("a", "b"), [{"a": text, "b": text}], codes=("b",)))
    assert set(re.findall(r"<(\w+)", cells)) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert cells.count("<td>") == 2


@pytest.mark.parametrize("text", ["see https://example.org", "see www.example.org", "see me@example.org", "HTTP://X"])
def test_addresses_lose_the_form_of_which_viewers_make_links(text: str) -> None:
    assert not re.search(r"(?i)://|www\.|\w@\w", plain(text))
    assert _text(_rendered(plain(text))) == text


@pytest.fixture
def book(tmp_path: Path) -> Any:
    made = Book(tmp_path / "n.db")
    run = made.run("what does it do | <b>", ended=True)
    made.claim(run, "1.2", 'fires on " a" <script>', f1=0.9)
    made.claim(run, "1.2", "fires on | anything", status="REFUTED", f1=0.1, predicate="token(' b')")
    made.claim(run, "1.2", "was never tested", status=None, predicate="token(' c')")
    figure = heat_map("map", [[1.0, -1.0]], ["a"], ["b", "c"], Axes("drawn"))
    begun = made.begin(run, "capture", {"prompt": "x"})
    svg = made.notebook.artifact(figure.svg.encode(), "image/svg+xml")
    made.notebook.end_experiment(
        begun.id, {"payload": {}, "measurements": [], "figures": [{"name": "map", "svg": svg}]}, spent=(1.5, 4.0)
    )
    failed = made.begin(run, "ablate", {"prompt": "y"})
    made.notebook.end_experiment(failed.id, None, error="it went | wrong")
    return made, run


def _export(neuronaut: Command, book: Any, out: Path, *more: object) -> Any:
    made, run = book
    return neuronaut("export", "report", run, "--out", out, "--notebook", made.path, *more)


def test_a_report_holds_claims_rivals_nulls_experiments_figures_cost_and_head(
    neuronaut: Command, book: Any, tmp_path: Path
) -> None:
    made, run = book
    said = _export(neuronaut, book, tmp_path / "r.md", "--json")
    assert said.code == 0
    assert json.loads(said.out) | {"out": ""} == {
        "run": run, "out": "", "format": "md", "claims": 2, "figures": 1, "ledger_head": made.notebook.head(),
    }  # fmt: skip
    report = (tmp_path / "r.md").read_text(encoding="utf-8")
    text = _text(_rendered(report))
    for part in (
        "what does it do | <b>", 'SUPPORTED: 1.2 fires on " a" <script>', "REFUTED: 1.2 fires on | anything", "said why", "beaten", "as good",
        "1 SUPPORTED, 0 PARTIAL, 0 UNRESOLVED, 1 REFUTED", "not tested: 1.2 was never tested", "F1 0.90 [0.80, 0.95]", "it went | wrong",
        "It cost 3 s, 12 forward passes", f"neuronaut verify --head {made.notebook.head()}", f"neuronaut rerun {run}", "token(' a')",
    ):  # fmt: skip
        assert part in text, part
    assert str(tmp_path) not in report
    nulls = next(one for one in report.split("\n## ") if one.startswith("Beside the nulls"))
    assert nulls.count("| f1 |") == 2
    (figure,) = re.findall(r"!\[map\]\(data:image/svg\+xml;base64,([\w+/=]+)\)", report)
    assert ET.fromstring(base64.b64decode(figure)).tag.endswith("svg")


def test_a_report_as_a_notebook_is_valid_and_says_the_same(neuronaut: Command, book: Any, tmp_path: Path) -> None:
    assert _export(neuronaut, book, tmp_path / "r.md").code == 0
    assert _export(neuronaut, book, tmp_path / "r.ipynb").code == 0
    written = nbformat.read(tmp_path / "r.ipynb", as_version=4)
    nbformat.validate(written)
    texts = [cell.source for cell in written.cells if cell.cell_type == "markdown"]
    assert "\n\n".join(texts) + "\n" == (tmp_path / "r.md").read_text(encoding="utf-8")
    (opened,) = [cell for cell in written.cells if cell.cell_type == "code"]
    compile(opened.source, "cell", "exec")
    assert book[1] in opened.source


def test_the_format_can_be_named(neuronaut: Command, book: Any, tmp_path: Path) -> None:
    assert _export(neuronaut, book, tmp_path / "report.txt", "--format", "md").code == 0
    assert (tmp_path / "report.txt").read_text(encoding="utf-8").startswith("# what does it do")
    refused = _export(neuronaut, book, tmp_path / "other.txt")
    assert (refused.code, (tmp_path / "other.txt").exists()) == (2, False)
    assert ".md or .ipynb" in refused.err


def test_a_report_of_a_batch_holds_its_verdicts_null_units_cost_and_labels(neuronaut: Command, tmp_path: Path) -> None:
    book = runpy.run_path(str(Path(__file__).with_name("review_notebook.py")))["filled"](tmp_path / "n.db")
    said = neuronaut("export", "report", book.batch, "--out", tmp_path / "b.md", "--notebook", book.path, "--json")
    assert (said.code, json.loads(said.out)["units"]) == (0, 4)
    report = (tmp_path / "b.md").read_text(encoding="utf-8")
    text = _text(_rendered(report))
    for part in (
        "3 of 4 units ended", "1 SUPPORTED, 1 FAILED", "null units 0 of 1 SUPPORTED", "fires on 3.1", "the budget of the unit was spent",
        f"to do 1: neuronaut label resume {book.batch}", "38 forward passes, $0.75", f"neuronaut show {book.batch}",
    ):  # fmt: skip
        assert part in text, part
    labels = next(one for one in report.split("\n## ") if one.startswith("Labels"))
    assert [line.split(" | ")[:2] for line in labels.splitlines()[4:]] == [["| 3.1", "SUPPORTED"], ["| 3.2", "FAILED"]]
    assert "neuronaut rerun" not in report
    assert neuronaut("export", "report", book.batch, "--out", tmp_path / "b.ipynb", "--notebook", book.path).code == 0
    nbformat.validate(nbformat.read(tmp_path / "b.ipynb", as_version=4))


def test_a_report_of_a_batch_with_a_key_in_it_is_not_written(neuronaut: Command, tmp_path: Path) -> None:
    book = runpy.run_path(str(Path(__file__).with_name("review_notebook.py")))["filled"](tmp_path / "n.db", KEY)
    said = neuronaut("export", "report", book.batch, "--out", tmp_path / "b.md", "--notebook", book.path)
    assert (said.code, (tmp_path / "b.md").exists()) == (2, False)
    assert "a key of the form sk-…" in said.err


@pytest.mark.parametrize("place", ["claim", "words", "question", "error", "figure", "outcome"])
def test_a_report_with_a_key_in_it_is_not_written(neuronaut: Command, tmp_path: Path, place: str) -> None:
    made = Book(tmp_path / "n.db")
    run = made.run(f"what {KEY}" if place == "question" else "what")
    more = {"words": f"my key {KEY}"} if place == "words" else {}
    made.claim(run, "1.2", f"fires on {KEY if place == 'claim' else 'a'}", **more)
    begun = made.begin(run, "ablate", {})
    if place == "error":
        made.notebook.end_experiment(begun.id, None, error=f"refused: {KEY}")
    if place == "figure":
        svg = made.notebook.artifact(f"<svg><text>{KEY}</text></svg>".encode(), "image/svg+xml")
        made.notebook.end_experiment(
            begun.id, {"payload": {}, "measurements": [], "figures": [{"name": "f", "svg": svg}]}
        )
    if place == "outcome":
        from neuronaut.tools.units import Unit

        made.notebook.outcome(run, Unit.parse("1.2"), "writes", "ABSTAINED", f"because {KEY}")
    for name in ("r.md", "r.ipynb"):
        said = neuronaut("export", "report", run, "--out", tmp_path / name, "--notebook", made.path)
        assert said.code == 2
        assert "a key of the form sk-…" in said.err
        assert KEY not in said.err + said.out
        assert not (tmp_path / name).exists()


def test_the_value_of_a_key_variable_is_found_too(
    neuronaut: Command, book: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "said why")
    said = _export(neuronaut, book, tmp_path / "r.md")
    assert said.code == 2
    assert "the value of $OPENAI_API_KEY" in said.err


def test_a_report_is_of_one_run_that_there_is(neuronaut: Command, book: Any, tmp_path: Path) -> None:
    made, run = book
    assert File(made.path).path.exists()
    out, place = tmp_path / "r.md", ("--notebook", made.path)
    for arguments, sentence in (
        (("report",), "a report is of one run"),
        (("report", "nothing"), "there is no run 'nothing'"),
        (("report", run, "--run", "other"), "two runs are named"),
    ):
        said = neuronaut("export", *arguments, "--out", out, *place)
        assert said.code == 2
        assert sentence in said.err
    assert neuronaut("export", "labels", run, "--out", tmp_path / "l.csv", *place).code == 0
    assert not out.exists()

"""Python's `Lab`: the same answers as the command line, as values, frames and pages that nothing can break out of."""

import ast
import html.parser
import inspect
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import polars as pl
import pytest

import neuronaut
from neuronaut import Lab, ToolRefused, UserError
from neuronaut.agent.api import answers, methods, written
from neuronaut.agent.api import html as pages
from neuronaut.agent.api.answers import Answer, Claim
from neuronaut.agent.api.outputs import ToolOutput
from neuronaut.agent.api.tables import Table, table_of
from neuronaut.agent.render import text_of
from neuronaut.tools.figures import Axes, heat_map
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolResult, registry

Command = Callable[..., Any]
QUESTION = "what does neuron 0.33 do"
EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&\x1b[31m\u202e{{7*7}}'
OF_NOW = ("run", "notebook", "next", "cost", "ledger_head")  # what two runs of one question differ in


def _options(tiny: tuple[str, ...]) -> dict[str, str]:
    return dict(zip((name.removeprefix("--") for name in tiny[::2]), tiny[1::2], strict=True))


@pytest.fixture(scope="module")
def lab(tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    options = _options(tiny)
    place = tmp_path_factory.mktemp("lab") / "lab.db"
    return Lab(options["model"], corpus=options["corpus"], notebook=place, seed=3)


@pytest.fixture(scope="module")
def answer(lab: Lab) -> Answer:
    return lab.ask(QUESTION)


def _told(answer: dict[str, Any]) -> Any:
    """The answer without ids, places and times."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in (*OF_NOW, "id", "evidence", "experiment")}
        return [without(one) for one in value] if isinstance(value, list) else value

    return without(answer)


def test_a_lab_says_what_the_command_line_says(
    answer: Answer, neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    said = neuronaut("ask", QUESTION, *tiny, "--seed", 3, "--notebook", tmp_path / "cli.db", "--json")
    assert said.code == 0
    printed = json.loads(said.out)
    assert printed["claims"], "there is something to compare"
    assert _told(answer.json) == _told(printed)
    assert answer.json["cost"]["forwards"] == printed["cost"]["forwards"]
    options = _options(tiny)
    same = Lab(options["model"], corpus=options["corpus"], notebook=tmp_path / "cli.db", seed=3)
    assert same.ask(QUESTION).run == printed["run"], (
        "it is one notebook: what the command line found is not measured again"
    )


def test_what_it_prints_is_what_the_terminal_prints(
    lab: Lab, answer: Answer, neuronaut: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = neuronaut("show", answer.run, "--notebook", lab.notebook).out
    assert str(answer) == repr(answer) == text_of(answer.json)
    assert shown.startswith(str(answer))


def test_a_lab_prints_nothing_and_tells_its_steps_to_whoever_asks(
    lab: Lab, answer: Answer, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[tuple[str, str]] = []
    lab.ask(QUESTION, fast=True, again=True, progress=lambda label, line: steps.append((label, line)))
    lab.top_examples("0.33", k=2)
    assert capfd.readouterr() == ("", "")
    assert {"run", "look"} <= {label for label, _ in steps}
    lab.ask(QUESTION, progress=True)
    out, err = capfd.readouterr()
    assert (out, "recall" in err) == ("", True)


def test_the_model_is_loaded_once_and_a_question_that_was_answered_is_not_measured_again(
    lab: Lab, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuronaut.agent import opening

    monkeypatch.setattr(opening, "open_inputs", lambda *_: pytest.fail("the model was opened again"))
    target = lab.target
    before = target.forwards
    again = lab.ask(QUESTION)
    assert lab.target is target
    assert target.forwards == before
    assert again.json["question"] == answer.question


def test_claims_come_best_first_with_score_interval_null_rivals_and_evidence(answer: Answer) -> None:
    order = [answers.ORDER.index(claim.status) for claim in answer.claims]
    assert order == sorted(order)
    assert answer.best is answer.claims[0]
    for claim in answer.claims:
        score = claim.score
        assert score is not None
        cited = {row["metric"]: row for row in claim.evidence}
        row = cited[score.metric]
        assert (score.value, score.null, score.n) == (row["value"], row["null"], row["n"])
        assert score.interval == (None if row["low"] is None else (row["low"], row["high"]))
        assert score.measured_in == row["measured_in"]
        assert sorted(claim.json["evidence"]) == sorted(claim.evidence["id"])
        assert [rival.score for rival in claim.rivals] == sorted((r["f1"] for r in claim.json["rivals"]), reverse=True)
        assert str(claim).startswith(f"{claim.status}  {claim.unit} {claim.sentence[:10]}")


def test_the_predicate_of_a_claim_can_be_asked_about(lab: Lab, answer: Answer) -> None:
    claim = next(one for one in answer.claims if one.side == "reads")
    tested = lab.ask(f"test {claim.unit}: {claim.predicate}", fast=True)
    assert claim.sentence in [one.sentence for one in tested.claims] + [one["claim"] for one in tested.json["proposed"]]


@pytest.mark.parametrize("of", ["claims", "evidence", "experiments"])
def test_frames_have_the_rows_the_types_and_the_gaps(answer: Answer, of: Any) -> None:
    table, pandas, polars = answer.table(of), answer.to_pandas(of), answer.to_polars(of)
    assert len(table) > 0
    assert pandas.shape == polars.shape == (len(table), len(table.columns))
    kinds = {
        "text": (pd.StringDtype(na_value=np.nan), pl.String),
        "int": (pd.Int64Dtype(), pl.Int64),
        "float": (np.dtype(float), pl.Float64),
    }
    for name, kind in table.columns.items():
        assert (pandas[name].dtype, polars.schema[name]) == kinds[kind], name
        missing = [value is None for value in table[name]]
        assert pandas[name].isna().tolist() == polars[name].is_null().to_list() == missing, name
    assert polars.rows() == [tuple(row.get(name) for name in table.columns) for row in table]


def test_a_frame_without_rows_has_its_columns_and_types() -> None:
    table = Table(answers.EVIDENCE, ())
    assert list(table.to_pandas().columns) == table.to_polars().columns == list(answers.EVIDENCE)
    assert table.to_polars().schema["n"] == pl.Int64
    assert str(table) == "0 rows"
    assert "no rows" in table._repr_html_()


def test_rows_of_tools_are_typed_by_what_stands_in_them() -> None:
    table = table_of([{"a": 1, "b": 0.5, "c": True, "d": "x", "e": [1, 2]}, {"a": None, "b": 2, "c": None, "d": 3}])
    assert table.columns == {"a": "int", "b": "float", "c": "bool", "d": "text", "e": "text"}
    assert table.to_polars().rows() == [(1, 0.5, True, "x", "1, 2"), (None, 2.0, None, "3", None)]
    assert table.to_pandas()["a"].isna().tolist() == [False, True]
    with pytest.raises(UserError, match="no column 'z'"):
        table["z"]


# Tools


def test_every_tool_that_a_person_may_call_is_a_method_with_its_arguments_and_words() -> None:
    open_ones = {name: tool for name, tool in registry().items() if not tool.opens_test_text}
    assert set(open_ones) == {name for name in vars(methods.ToolMethods) if not name.startswith("_")} - {"tool"}
    for name, tool in open_ones.items():
        signature = inspect.signature(getattr(Lab, name))
        given = {key: one for key, one in signature.parameters.items() if key != "self"}
        fields = tool.args.model_fields
        assert set(given) == set(fields)
        for key, one in given.items():
            assert (one.default is inspect.Parameter.empty) == fields[key].is_required(), (name, key)
            assert fields[key].is_required() or one.default == fields[key].default, (name, key)
        assert get_type_hints(getattr(Lab, name))["return"] is ToolOutput
        words = " ".join((inspect.getdoc(getattr(Lab, name)) or "").split())
        assert " ".join(tool.doc.split()) in words


def test_the_methods_are_those_that_the_registry_writes() -> None:
    """After a change of a tool: `python -m neuronaut.agent.api.written`."""
    stored = Path(methods.__file__).read_text(encoding="utf-8")
    assert _tree(stored) == _tree(written.source())


def _tree(source: str) -> str:
    """A module without its layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            node.body[0] = ast.Expr(ast.Constant((ast.get_docstring(node) or "").strip()))
    return ast.dump(tree)


def test_no_tool_hides_what_a_lab_does_itself() -> None:
    assert not set(registry()) & (set(vars(Lab)) - {"tool"})


def test_tools_are_completed(lab: Lab) -> None:
    assert {"top_examples", "ablate", "ask", "search"} <= set(dir(lab))


def test_a_tool_gives_what_its_command_prints(lab: Lab, neuronaut: Command, tiny: tuple[str, ...]) -> None:
    said = neuronaut("tool", "top_examples", '{"unit": "0.33", "k": 4}', *tiny, "--json")
    output = lab.top_examples("0.33", k=4)
    assert json.loads(json.dumps(output.payload)) == json.loads(said.out)["result"]
    assert output.to_pandas()["activation"].tolist() == [one["activation"] for one in output["examples"]]
    printed = neuronaut("tool", "top_examples", '{"unit": "0.33", "k": 4}', *tiny).out
    assert str(output) == f'top_examples(unit="0.33", k=4)\n{printed.rstrip()}'
    assert output.tool == "top_examples"


def test_numbers_arrays_and_figures_of_a_tool_are_at_hand(lab: Lab) -> None:
    firing = lab.firing("0.33")
    assert firing["base_rate"] == firing.measurements["base_rate"].value
    assert firing.to_pandas()["n"].tolist() == [firing.measurements["base_rate"].n]
    seen = lab.capture("resid_post", np.int64(0), np.array(["the cat sat", "a dog ran"]))
    name, array = next(iter(seen.arrays.items()))
    assert seen[name] is array
    assert array.shape[0] == 2
    lens = lab.logit_lens("the cat sat on")
    assert len(lens.plot().data) == 1
    assert lens.figures[0]._repr_html_().startswith("<img alt=")
    assert len(repr(lens.figures[0])) < 100
    with pytest.raises(UserError, match="found no 'nothing': choose from base_rate"):
        firing["nothing"]
    with pytest.raises(UserError, match="made no table"):
        firing.table("nothing")
    with pytest.raises(UserError, match="drew nothing"):
        firing.plot()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda lab: lab.tool("nothing"), "there is no tool 'nothing'"),
        (lambda lab: lab.top_examples("0.33", k=10**6), "top_examples: argument k"),
        (lambda lab: lab.tool("top_examples", unit="0.33", path="x"), "argument path"),
        (lambda lab: lab.top_examples("99.1"), "layer 99 does not exist"),
        (lambda lab: lab.tool("test_reads", unit="0.33"), "opens text on which claims are tested"),
        (lambda lab: lab.ask(""), ""),
        (lambda lab: lab.ask("bake a cake"), ""),
        (lambda lab: lab.ask("what does neuron 99.1 do"), "layer 99 does not exist"),
        (lambda lab: lab.show("nothing"), "there is no record 'nothing'"),
        (lambda lab: lab.answer("nothing"), "there is no run 'nothing'"),
        (lambda lab: lab.resume("nothing"), "there is no run 'nothing'"),
        (lambda lab: lab.unit("nothing"), "nothing"),
        (lambda lab: lab.search("status:nice"), "status:nice is no status"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(
    lab: Lab, answer: Answer, call: Callable[[Lab], object], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as refused:
        call(lab)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")
    assert issubclass(ToolRefused, UserError)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": -1}, "seed -1 is no whole number"),
        ({"seed": 2**32}, "no whole number"),
        ({"model": "some/model"}, "needs text to be studied on"),
        ({"llm": "nobody"}, "names no model"),
        ({"base_url": "http://127.0.0.1:1/v1"}, "--base-url"),
        ({"budget": {"seconds": -1}}, "budget seconds"),
        ({"budget": {"hours": 1}}, "its limits are seconds"),
        ({"notebook": "mysql://host/db"}, "no database that keeps notebooks"),
        ({"dictionaries": ("a=/x", "a=/y")}, "two dictionaries are called 'a'"),
        ({"backend": "jax"}, "'jax' is none of torch, mlx"),
        ({"dtype": "int8"}, "'int8' is none of float32, bfloat16, float16, auto"),
        ({"device": "tpu"}, "'tpu' is none of cpu, cuda, mps, auto"),
    ],
)
def test_a_lab_that_cannot_be_is_refused_before_anything_is_opened(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        Lab(**{"notebook": "n.db", **options})
    assert sentence in str(refused.value)


def test_a_model_is_opened_in_the_number_format_that_was_asked_for(tiny: tuple[str, ...], tmp_path: Path) -> None:
    lab = Lab(**_options(tiny), notebook=tmp_path / "n.db", dtype="bfloat16")
    assert lab.target.fingerprint().dtype == "bfloat16"


def test_what_is_no_text_is_no_question(lab: Lab) -> None:
    for asked in (lambda: lab.ask(None), lambda: lab.search(3)):  # type: ignore[arg-type]
        with pytest.raises(UserError, match=r"is text, such as"):
            asked()
    with pytest.raises(UserError) as refused:
        lab.ask("x" * 100_000)
    assert len(str(refused.value)) < 2_000


def test_a_notebook_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    empty = Lab(notebook=tmp_path / "none.db")
    with pytest.raises(UserError):
        empty.search("x")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_lab_says_so(tiny: tuple[str, ...], tmp_path: Path) -> None:
    options = _options(tiny)
    with Lab(options["model"], corpus=options["corpus"], notebook=tmp_path / "n.db") as lab:
        assert "not loaded" in repr(lab)
        assert lab.firing("0.33")["base_rate"] >= 0
        assert "loaded" in repr(lab)
    for call in (lambda: lab.ask(QUESTION), lab.search, lab.verify, lambda: lab.firing("0.33"), lab.__enter__):
        with pytest.raises(UserError, match="this lab is closed"):
            call()
    assert "closed" in repr(lab)
    lab.close()


# The notebook


def test_search_show_unit_and_verify_read_what_was_found(lab: Lab, answer: Answer) -> None:
    assert answer.run in lab.search()["run"]
    claim = answer.best
    assert claim is not None
    found = lab.search(f"unit:{claim.unit} status:{claim.status.lower()}")
    assert claim.id in found["id"]
    assert lab.show(claim.id)["claim"] == claim.sentence
    assert str(lab.show(answer.run)) == str(lab.answer(answer.run))
    known = lab.unit("0.33")
    assert claim.id in [one.id for one in known.claims]
    assert {one.unit for one in known.claims} <= {"0.33", "0.33-"}
    assert known.to_pandas()["status"].tolist() == [one.status for one in known.claims]
    assert str(lab.unit("1.7")).startswith("nothing is known of 1.7")
    whole = lab.verify()
    assert whole
    assert "whole" in str(whole)
    broken = lab.verify(head="1:" + "0" * 64)
    assert not broken
    assert len(broken.problems) == 1


def test_a_run_that_is_interrupted_is_kept_as_cancelled_and_goes_on(tiny: tuple[str, ...], tmp_path: Path) -> None:
    options = _options(tiny)
    whole = Lab(options["model"], corpus=options["corpus"], notebook=tmp_path / "whole.db", seed=3)
    lab = Lab(options["model"], corpus=options["corpus"], notebook=tmp_path / "n.db", seed=3)
    stopped: list[str] = []

    def stop(label: str, line: str) -> None:
        if label == "run":
            stopped.append(line.partition(";")[0])
        if label == "register" and len(stopped) == 1:
            stopped.append("now")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"lab.resume"):
        lab.ask(QUESTION, fast=True, progress=stop)
    run = stopped[0]
    assert lab.answer(run).outcome == "cancelled"
    done = lab.resume(run)
    assert (done.run, done.outcome) == (run, "answered")
    assert _told(done.json) == _told(whole.ask(QUESTION, fast=True).json)
    assert lab.resume(run).json == done.json


def test_a_spent_budget_gives_what_was_found_so_far(tiny: tuple[str, ...], tmp_path: Path) -> None:
    options = _options(tiny)
    lab = Lab(options["model"], corpus=options["corpus"], notebook=tmp_path / "n.db", budget={"forwards": 1})
    found = lab.ask(QUESTION)
    assert found.outcome == "out_of_budget"
    assert found.cost is not None
    assert found.cost.forwards > 1


def test_threads_may_share_a_lab(lab: Lab, answer: Answer) -> None:
    found: list[float] = []
    threads = [threading.Thread(target=lambda: found.append(lab.firing("0.33")["base_rate"])) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_lab_answers_inside_a_running_event_loop(lab: Lab, answer: Answer) -> None:
    import asyncio

    async def cell() -> Answer:
        return lab.ask(QUESTION, fast=True, again=True)

    assert asyncio.run(cell()).outcome == "answered"


def test_activations_are_forgotten_above_a_limit(lab: Lab, answer: Answer) -> None:
    context = lab._context
    assert context is not None
    lab.firing("0.33")
    assert len(context._activations) > 0
    context.forget_above(0)
    assert len(context._activations) == 0
    assert lab.firing("0.33")["base_rate"] >= 0


# Pages


class _Seen(html.parser.HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


HARMLESS = {"div", "span", "b", "br", "mark", "table", "thead", "tbody", "tr", "th", "td", "img"}


def _check(page: str, *, evil: bool) -> None:
    seen = _Seen(page)
    assert seen.tags <= HARMLESS
    assert {name for name, _ in seen.attributes} <= {"style", "title", "alt", "src"}
    for name, value in seen.attributes:
        if name == "src":
            assert value.startswith("data:image/svg+xml;base64,")
        if name == "style":
            assert "url(" not in value
            assert "script" not in value
    assert not set(page) & set("\x1b\x00\u202e")
    if evil:
        assert "<script>alert(1)</script>" in seen.text, "the text is shown as it is"


def _evil(value: Any) -> Any:
    """Every text of an answer made hostile, but for those that code chooses."""
    closed = ("status", "side", "metric", "outcome", "id", "run", "unit")
    if isinstance(value, dict):
        return {k: v if k in closed and isinstance(v, str) else _evil(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_evil(one) for one in value]
    return EVIL if isinstance(value, str) else value


def test_pages_show_hostile_text_and_nothing_more(answer: Answer) -> None:
    json_ = {
        **_evil(answer.json), "notes": [EVIL],
        "measured": [{"tool": EVIL, "title": EVIL, "lines": [EVIL]}], "words": {"sentences": [{"text": EVIL}], "author": EVIL, "left_out": []},
        "target": {"name": EVIL},
    }  # fmt: skip
    for claim in json_["claims"]:
        claim["unit"] = "0.33"
    rows = tuple({**row, "subject": EVIL, "tool": EVIL, "measured_in": EVIL} for row in answer.evidence)
    evidence = Table(answers.EVIDENCE, rows, EVIL)
    figure = heat_map("grid", [[1.0]], [EVIL], [EVIL], Axes(EVIL))
    hostile = Answer(json_, evidence, Table(answers.EXPERIMENTS, ({"error": EVIL},)), (figure,))
    _check(hostile._repr_html_(), evil=True)
    _check(hostile.table()._repr_html_(), evil=True)
    _check(evidence._repr_html_(), evil=False)
    _check(Table({EVIL: "text"}, ({EVIL: EVIL},), EVIL)._repr_html_(), evil=True)
    _check(hostile.claims[0]._repr_html_(), evil=True)
    assert not set(str(hostile)) & set("\x1b\u202e")
    plotly = hostile.plot().to_json()
    assert "<script" not in json.dumps(json.loads(plotly), ensure_ascii=False)


def test_pages_of_tools_show_hostile_text_and_nothing_more() -> None:
    rows = [{"pieces": [EVIL, "b"], "activations": [1.0, -0.5], "document": 1}]
    payload = {EVIL: EVIL, "nested": {EVIL: [EVIL]}, "examples": rows, "rows": [{EVIL: EVIL}], "none": None}
    result = ToolResult((Measurement(EVIL, 1.0, EVIL, 3, n_of=EVIL),), payload, {EVIL: np.zeros(2)})
    _check(ToolOutput(EVIL, {"unit": EVIL}, result)._repr_html_(), evil=True)
    payload = {"text": EVIL, "nested": {"texts": [EVIL]}, "examples": rows, "rows": [{"text": EVIL}]}
    output = ToolOutput("tool", {"unit": EVIL}, ToolResult(payload=payload))
    assert not set(str(output).replace("\n", "")) & set("\x1b\u202e")


def test_pages_of_real_answers_are_harmless_and_small(lab: Lab, answer: Answer) -> None:
    claim = answer.best
    assert claim is not None
    things = [
        answer,
        claim,
        answer.table(),
        lab.unit("0.33"),
        lab.show(claim.id),
        lab.firing("0.33"),
        lab.top_examples("0.33"),
    ]
    for thing in things:
        page = thing._repr_html_()  # type: ignore[attr-defined]
        _check(page, evil=False)
        assert len(page) < 50_000


def test_the_plot_has_every_score_where_it_was_measured(answer: Answer) -> None:
    figure = answer.plot()
    drawn = [(trace.name, list(trace.x)) for trace in figure.data]
    values = [value for name, x in drawn if name.startswith("score") for value in x]
    assert sorted(values) == sorted(claim.row["value"] for claim in answer.claims)
    bare = Answer({**answer.json, "claims": []}, answer.evidence, answer.experiments)
    with pytest.raises(UserError, match="nothing to plot"):
        bare.plot()


@pytest.mark.parametrize("status", pages.GROUNDS)
def test_the_ink_of_badges_can_be_read(status: str) -> None:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else math.pow((c + 0.055) / 1.055, 2.4) for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    assert 1.05 / (light(pages.GROUNDS[status]) + 0.05) >= 4.5


# The package


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, neuronaut; assert 'Lab' in dir(neuronaut); "
        "heavy = {'torch', 'numpy', 'sqlalchemy', 'typer', 'pandas', 'plotly', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy; from neuronaut import UserError, ToolRefused; "
        "assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_package_knows_what_it_has_and_says_what_it_lacks() -> None:
    assert set(neuronaut.__all__) <= set(dir(neuronaut))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        neuronaut.nothing  # noqa: B018


def test_claims_of_every_side_have_a_metric() -> None:
    from neuronaut.memory import schema

    sides = str(next(c.sqltext for c in schema.hypothesis.constraints if "side" in str(getattr(c, "sqltext", ""))))
    assert {side.strip("' ()") for side in sides.partition("in")[2].split(",")} == set(answers.METRIC)
    assert Claim.score is not None

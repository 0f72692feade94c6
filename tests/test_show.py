"""Every kind of id is shown as a person reads it: what it says, what it rests on, and nothing that steers a terminal."""

import io
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from neuronaut.agent.layout import PIPED_WIDTH, Rows, Strip, print_parts, table
from neuronaut.agent.record_views import view_of
from neuronaut.memory import schema
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.lookup import look_up
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File
from neuronaut.memory.store import new_id
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

Command = Callable[..., Any]
made = runpy.run_path(str(Path(__file__).parent / "data" / "make_notebook.py"))
HOSTILE = "\x1b[31mred\x1b[0m [bold]loud[/bold] \u202eevil\nnext"
EXAMPLES = [
    {"pieces": ["a", " cat\n", " sat"], "activations": [0.0, 2.5, -1.5], "document": 3, "centre": 1, "activation": 2.5}
]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A notebook with a record of each kind, and their ids."""
    path = tmp_path_factory.mktemp("show") / "n.db"
    ids = dict(made["fill"](path))
    with Notebook(path) as notebook:
        run = made["start"](notebook, {"question": HOSTILE, "seed": 0})
        row = {
            "side": "reads",
            "claim": f"fires on {HOSTILE}",
            "predicate": "{}",
            "complexity": 1,
            "author": "[red]",
            "words": HOSTILE,
        }
        ids["hostile"] = notebook.add_hypothesis(run, Unit("neuron", 1, 9), row)
        look = notebook.begin_experiment(run, ExperimentSpec("top_examples", "s", {"unit": "1.9", "note": HOSTILE}))
        payload = {
            "unit": "1.9",
            "examples": EXAMPLES * 9,
            "table": [{"name": HOSTILE, "n": n} for n in range(12)],
            "inner": {"x": 0.12345},
        }
        notebook.end_experiment(look.id, {"payload": payload, "measurements": []})
        ids["look"], ids["of look"] = look.id, run
        request = {
            "system": "be brief",
            "messages": [{"role": "user", "content": [{"type": "text", "text": HOSTILE}]}],
            "temperature": 0,
        }
        about = {
            "purpose": "propose",
            "provider": "scripted",
            "model": "m",
            "request": json.dumps(request),
            "request_sha256": "a" * 64,
        }
        ids["spoken"] = notebook.begin_call(run, about)
        end = {
            "response": HOSTILE,
            "answered_by": "m-1",
            "stop_reason": "stop",
            "seconds": 1.5,
            "tokens_in": 1200,
            "tokens_out": 30,
        }
        notebook.end_call(ids["spoken"], end)
        with notebook._writing():
            said = {
                "target_table": "hypothesis",
                "target_id": ids["supported"],
                "author": "me",
                "verb": "dispute",
                "reason": HOSTILE,
            }
            ids["review"] = notebook._insert(schema.review, {"id": new_id(), **said})
        ids["artifact"] = notebook.artifact(f"{HOSTILE} plain".encode(), "text/plain")
        ids["bytes"] = notebook.artifact(b"\x00\xff\xfe", "application/octet-stream")
        ids["result"] = str(found_row(notebook, schema.experiment_end, "experiment", look.id)["result"])
        ids["item"] = notebook.items(ids["run"])[0].id
    return path, ids


def found_row(notebook: Notebook, table: Any, column: str, value: str) -> dict[str, Any]:
    """The row of a table with a value."""
    (row,) = notebook.rows(table.select().where(table.c[column] == value))
    return row


SHOWN = {
    "supported": ["SUPPORTED", 'fires on "cat"', "tiny/1.7", "token", "all conditions hold", "f1", "0.9 [0.8, 0.95] share", "registered", "dispute"],
    "refuted": ["REFUTED", 'fires on "dog"'],
    "prediction": ["f1 > 0", "confirm/0", "test_reads", "SUPPORTED"],
    "experiment": ["test_reads", "OK", "1.0 s, 2 forward passes", "block", "places", "80", "neuronaut rerun"],
    "failed": ["FAILED", "the model gave no number"],
    "evidence": ["0.9 [0.8, 0.95] share", "40", "0.1, above 99 %", "SUPPORTED"],
    "verdict": ["SUPPORTED", "all conditions hold", 'fires on "cat"', "precision"],
    "call": ["scripted:m", "$0.000005", "not told"],
    "spoken": ["1,200 in, 30 out", "not known", "be brief", "── user", "── reply", "m-1", "1.5 s", "temperature"],
    "look": ["top_examples", "⟦ cat⏎ 2.5⟧", "⟦ sat -1.5⟧", "of 9", "of 12", "0.1235"],
    "review": ["dispute", "me", "hypothesis"],
    "artifact": ["text/plain", "plain"],
    "bytes": ["its content is no text", "3"],
    "result": ["application/json", "⟦ cat⏎ 2.5⟧"],
    "item": ["1.7", "WAITING"],
    "run": ["what does neuron 1.7 do", "to do", "neuronaut label resume"],  # two items of a batch wait in it
    "of look": ["top_examples", "language-model calls", "1,200 + 30"],
    "batch": ["llm_batch", "scripted"],
    "evaluation": ["planted"],
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_each_kind_of_id_has_a_view(kept: tuple[Path, dict[str, str]], neuronaut: Command, name: str) -> None:
    path, ids = kept
    said = neuronaut("show", ids[name], "--notebook", path)
    assert said.code == 0, said.err
    assert [wanted for wanted in SHOWN[name] if wanted not in said.out] == []
    raw = neuronaut("show", ids[name], "--notebook", path, "--raw").out
    assert raw.splitlines()[0].isidentifier()
    assert ids[name] in raw
    printed = neuronaut("show", ids[name], "--notebook", path, "--json")
    if name == "run":
        assert "another form" in printed.err
    else:
        told = json.loads(printed.out)
        assert told.get("id", told.get("run")) == ids[name]


@pytest.mark.parametrize("name", ["hostile", "look", "spoken", "review", "artifact", "of look"])
def test_foreign_text_is_shown_and_steers_nothing(
    kept: tuple[Path, dict[str, str]], neuronaut: Command, name: str
) -> None:
    path, ids = kept
    for argv in (("show", ids[name]), ("show", ids[name], "--raw"), ("search", "evil"), ("search",)):
        out = neuronaut(*argv, "--notebook", path).out
        assert (
            "\\001b[31mred\\001b[0m [bold]loud[/bold] \\202eevil" in out.replace("\n", " ").replace("  ", " ")
            or "[bold]loud[/bold]" in out
        )
        assert not {"\x1b", "\u202e"} & set(out)


@pytest.mark.parametrize("width", [80, 120])
def test_every_view_fits_the_width(
    kept: tuple[Path, dict[str, str]], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids = kept
    with Notebook(path, read_only=True) as notebook:
        for identifier in (*ids.values(), "1.7"):
            parts = view_of(notebook, look_up(notebook, identifier))
            if parts is not None:
                console = Console(
                    file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor", record=True
                )
                for part in parts:
                    console.print(part, markup=False)
                lines = console.export_text().splitlines()
                assert max(map(len, lines)) <= width
                assert not any("…" in line and "more" not in line for line in lines), "nothing is cut off silently"
    assert width <= PIPED_WIDTH


def test_a_token_is_coloured_by_its_activation_and_its_sign() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system="truecolor")
    console.print(Strip(["up", "down", "still"], [2.0, -2.0, 0.01]))
    printed = file.getvalue()
    assert "48;2;230;97;1" in printed
    assert "48;2;94;60;153" in printed
    assert "⟦" not in printed
    assert printed.count("48;2;") == 2, "what is near zero has no colour"


def test_rows_that_do_not_fit_are_listed_one_below_the_other() -> None:
    rows = Rows(["first_name", "second"], [["1", "x" * 60], ["2", "y"]])
    printed = []
    for width in (30, 80):
        console = Console(file=io.StringIO(), width=width, record=True)
        console.print(rows)
        printed.append(console.export_text())
    assert "first_name   1" in printed[0]
    assert printed[1].count("x") == 60
    assert "first_name" not in printed[1], "its underscores are line ends of the head"


def test_an_empty_table_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_parts([table("title", ("a",), [])])
    assert capsys.readouterr().out.strip() == ""


# Which record is meant


def test_the_beginning_of_one_id_alone_and_a_unit_by_its_address_are_found(
    kept: tuple[Path, dict[str, str]], neuronaut: Command
) -> None:
    path, ids = kept
    with Notebook(path, read_only=True) as notebook:
        assert look_up(notebook, ids["supported"][:-1]).row["id"] == ids["supported"]
        assert look_up(notebook, ids["supported"].lower()).row["id"] == ids["supported"]
        assert look_up(notebook, ids["artifact"][:20]).table == "artifact"
        for name in ("1.7", "tiny/1.7", "neuron 1.7", "tiny/L1.N7"):
            assert look_up(notebook, name).row["address"] == "1.7"
        with pytest.raises(UserError, match="and others: write more of it"):
            look_up(notebook, ids["supported"][:6])
    shown = neuronaut("show", "tiny/1.7", "--notebook", path).out
    sides = [line for line in shown.splitlines() if ids["supported"] in line or ids["refuted"] in line]
    assert [ids["refuted"] in sides[0], ids["supported"] in sides[1]] == [True, True], "the newest first"
    listed = json.loads(neuronaut("show", "1.7", "--notebook", path, "--json").out)
    assert (listed["table"], len(listed["claims"]), listed["address"]) == ("unit", 3, "1.7")


def test_a_unit_of_two_models_is_that_of_both_unless_one_is_named(tmp_path: Path, neuronaut: Command) -> None:
    path = tmp_path / "n.db"
    made["fill"](path)
    with Notebook(path) as notebook:
        other = type(made["TARGET"])("org/other", *list(vars(made["TARGET"]).values())[1:])
        run = notebook.start_run(made["CONFIG"], other, made["CORPUS"])
        row = {"side": "writes", "claim": "raises x", "predicate": "{}", "complexity": 1, "author": "grammar"}
        notebook.add_hypothesis(run, Unit("neuron", 1, 7), row)
    said = {name: neuronaut("show", name, "--notebook", path).out for name in ("1.7", "tiny/1.7", "org/other/1.7")}
    assert [("raises x" in said[name], "cat" in said[name]) for name in said] == [
        (True, True),
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("1.8", "beside it: 1.7, 1.7-, 1.9"), ("5.1", 'ask "what does neuron 5.1 do"'), ("tiny/5.1", "`neuronaut search` lists what there is"),
     ("nothing", "there is no record 'nothing'"), ("\x1b[31m", "there is no record"), ("%", "there is no record"), ("", "there is no record"),
     ("'; DROP TABLE run; --", "there is no record"), ("sae:x/1", "ask")],
)  # fmt: skip
def test_an_unknown_id_is_one_sentence_that_helps(
    kept: tuple[Path, dict[str, str]], neuronaut: Command, asked: str, said: str
) -> None:
    told = neuronaut("show", asked, "--notebook", kept[0])
    assert (told.code, told.out) == (2, "")
    assert said in told.err
    assert "\x1b" not in told.err


def test_a_mistyped_id_names_the_nearest(kept: tuple[Path, dict[str, str]], neuronaut: Command) -> None:
    path, ids = kept
    for name in ("run", "supported"):
        wrong = ids[name][:-1] + ("0" if ids[name][-1] != "0" else "1")
        assert ids[name] in neuronaut("show", wrong, "--notebook", path).err


def test_a_result_of_another_form_is_shown_by_its_columns(tmp_path: Path, neuronaut: Command) -> None:
    """A notebook may be anybody's."""
    path = tmp_path / "n.db"
    made["fill"](path)
    with Notebook(path) as notebook:
        run = made["start"](notebook)
        begun = notebook.begin_experiment(run, ExperimentSpec("look", "s", {"unit": "9.9"}))
        notebook.end_experiment(
            begun.id, {"payload": {"rows": [{"pieces": 3, "activations": "x"}, 7]}, "measurements": [], "figures": 5}
        )
    said = neuronaut("show", begun.id, "--notebook", path)
    assert said.code == 0
    assert "another form" in said.out
    assert begun.id in said.out


# Searching


def test_claims_are_printed_in_pages_with_the_command_for_the_next(tmp_path: Path, neuronaut: Command) -> None:
    path = tmp_path / "n.db"
    ids = made["fill"](path)
    first = neuronaut("search", "fires", "status:supported", "--notebook", path)
    assert "f1 0.90" in first.out
    assert "1 match: 1 supported" in first.out
    assert "more:" not in first.out
    two = neuronaut("search", "fires on", "--limit", 2, "--notebook", path).out
    command = two.splitlines()[-1]
    assert command.startswith("more: neuronaut search 'fires on' --after ")
    rest = neuronaut("search", "fires on", "--after", command.split("--after ")[1].split()[0], "--notebook", path).out
    assert ids["supported"] in rest
    assert ids["supported"] not in two
    assert ids["refuted"] in two
    rows = json.loads(neuronaut("search", "fires", "--notebook", path, "--json").out)
    assert {"id", "run", "unit", "parent", "side", "claim", "predicate", "complexity", "author", "words", "address", "layer", "target",
            "status"} <= rows[0].keys()  # fmt: skip
    assert neuronaut("search", "zebra", "--notebook", path).out == "no claim matches 'zebra'\n"
    assert neuronaut("search", "--notebook", path, "--", "-cat").out.count("fires on") == 2
    assert "choose from proposed" in neuronaut("search", "status:open", "--notebook", path).err


def test_runs_are_printed_in_pages(tmp_path: Path, neuronaut: Command) -> None:
    path = tmp_path / "n.db"
    with Notebook(File(path)) as notebook:
        runs = [made["start"](notebook, {"question": f"q{n}", "seed": 0}) for n in range(3)]
    first = neuronaut("search", "--limit", 2, "--notebook", path).out
    assert [run in first for run in runs] == [False, True, True]
    assert first.splitlines()[-1].startswith(f"more: neuronaut search --after {runs[1]}")
    assert runs[0] in neuronaut("search", "--after", runs[1], "--notebook", path).out

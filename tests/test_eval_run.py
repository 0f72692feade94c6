"""`neuronaut eval`: every case once, whatever happens; the same rows from one worker and from two."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neuronaut.evals import registry, seeds, source
from neuronaut.evals.suite import Row
from neuronaut.evals.tables import read_parquet, write_parquet
from neuronaut.memory.evaluations import Evaluation, EvaluationKey, Evaluations, open_evaluations
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError

HERE = Path(__file__).parent
Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    import fake_suites

    monkeypatch.setattr(registry, "SUITES", fake_suites.PLACES)
    monkeypatch.setattr(seeds, "SUITES", fake_suites.PLACES)
    monkeypatch.setattr(seeds, "DEVELOPMENT", HERE / "fake_seeds.json")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The cases that have been asked so far, in order."""
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    return lambda: log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []


def rows_of(results: Path, suite: str) -> list[Row]:
    with open_evaluations(results / "notebook.db") as notebook:
        assert verify(notebook) == []
        return notebook.done(notebook.find(suite=suite)[0].id)


def without_places(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in ("trail", "threads")} for row in rows]


@pytest.fixture
def started(results: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command line in a process of its own; what still runs at the end is killed."""
    processes = []

    def start(*argv: str, seconds: float) -> subprocess.Popen[str]:
        environment = os.environ | {"FAKE_SECONDS": str(seconds), "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        code = "import fake_suites; fake_suites.main()"
        command = [sys.executable, "-c", code, "eval", *argv, "--results", str(results)]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "nothing happened for a minute"
        time.sleep(0.05)


def test_each_case_is_a_row_with_what_the_suite_measured(neuronaut: Command, results: Path) -> None:
    said = neuronaut("eval", "squares", "--limit", 5, "--results", results, "--json")
    assert said.code == 0
    (evaluation,) = json.loads(said.out)["evaluations"]
    assert evaluation["cases"] == {"ok": 5}
    assert (evaluation["seed"], evaluation["proposer"], evaluation["loop"]) == (7, "grammar", "full")
    assert evaluation["scores"][0] == {
        "name": "squares right", "value": 1.0, "n": 5, "low": 0.25, "high": 1.0, "goal": 0.9, "at_most": None, "met": True
    }  # fmt: skip
    assert [row["found"] for row in rows_of(results, "squares")] == [i * i + 7 for i in range(5)]


def test_one_worker_and_two_give_equal_rows(neuronaut: Command, tmp_path: Path) -> None:
    for jobs in (1, 2):
        command = ["eval", "squares", "broken", "breaking", "--results", tmp_path / str(jobs), "--jobs", jobs]
        assert neuronaut(*command).code == 3
    for suite in ("squares", "broken", "breaking"):
        one, two = (rows_of(tmp_path / str(jobs), suite) for jobs in (1, 2))
        assert without_places(one) == without_places(two)
        assert len(one) == 10
    assert {row["threads"] for row in rows_of(tmp_path / "2", "squares")} == {"1"}


def test_a_finished_row_is_never_asked_again(neuronaut: Command, results: Path, asked: Callable[[], list[str]]) -> None:
    command = ["eval", "squares", "--results", results]
    neuronaut(*command, "--limit", 4)
    neuronaut(*command, "--limit", 7)
    neuronaut(*command, "--limit", 2)
    assert asked() == [f"case {i:03}" for i in range(7)]
    neuronaut(*command, "--limit", 2, "--fresh")
    assert asked()[7:] == ["case 000", "case 001"]


@pytest.mark.parametrize("options", [("--seed", "8"), ("--loop", "one-shot")])
def test_other_settings_are_another_evaluation(
    neuronaut: Command, results: Path, asked: Callable[[], list[str]], options: tuple[str, str]
) -> None:
    neuronaut("eval", "squares", "--results", results, "--limit", 2)
    neuronaut("eval", "squares", "--results", results, "--limit", 2, *options)
    assert len(asked()) == 4


def test_a_case_that_is_another_under_its_old_name_is_refused(
    neuronaut: Command, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_suites

    neuronaut("eval", "squares", "--results", results, "--limit", 2)
    shifted = fake_suites.Squares()
    cases = shifted.batches(2, 8)
    monkeypatch.setattr(fake_suites.Squares, "batches", lambda self, n, seed: cases)
    said = neuronaut("eval", "squares", "--results", results, "--limit", 2)
    assert said.code == 2
    assert "case 'case 000' of squares is not the one that was done before under this name" in said.err


def test_other_code_is_another_evaluation(
    neuronaut: Command, results: Path, asked: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    neuronaut("eval", "squares", "--results", results, "--limit", 2)
    monkeypatch.setattr("neuronaut.evals.run.code_sha256", lambda: "0" * 64)
    neuronaut("eval", "squares", "--results", results, "--limit", 2)
    assert len(asked()) == 4


def test_the_hash_of_the_code_sees_what_computes_and_not_what_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*(f"{folder}/code.py" for folder in source.FOLDERS), "evals/__init__.py", "evals/scoreboard.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(source.evals, "__file__", str(tmp_path / "evals" / "__init__.py"))
    hashed = source.code_sha256.__wrapped__
    first = hashed()
    (tmp_path / "evals" / "scoreboard.py").write_text("2")
    assert hashed() == first
    (tmp_path / "tools" / "code.py").write_text("2")
    assert hashed() != first


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_evaluation_goes_on_where_it_stopped(
    neuronaut: Command, results: Path, tmp_path: Path, asked: Callable[[], list[str]], started: Any, jobs: str
) -> None:
    process = started("squares", "--jobs", jobs, seconds=0.4)
    wait_for(lambda: len(asked()) >= 4)
    process.kill()
    process.wait()
    done = {row["case"] for row in rows_of(results, "squares")}
    begun = len(asked())
    assert 0 < len(done) < 10
    time.sleep(1.0)
    assert len(asked()) == begun, "workers outlive the process that was killed"
    assert neuronaut("eval", "squares", "--results", results, "--jobs", jobs).code == 0
    again = asked()[begun:]
    assert not done & set(again)
    assert done | set(again) == {f"case {i:03}" for i in range(10)}
    neuronaut("eval", "squares", "--results", tmp_path / "undisturbed")
    assert without_places(rows_of(results, "squares")) == without_places(rows_of(tmp_path / "undisturbed", "squares"))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_with_130_and_says_how_it_goes_on(
    neuronaut: Command, results: Path, asked: Callable[[], list[str]], started: Any, jobs: str
) -> None:
    process = started("squares", "--jobs", jobs, seconds=0.4)
    wait_for(lambda: len(asked()) >= 4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped: what was done is kept, and the same command goes on with it"
    assert "Traceback" not in err
    begun = len(asked())
    assert neuronaut("eval", "squares", "--results", results).code == 0
    assert len(rows_of(results, "squares")) == 10
    assert len(asked()) - begun < 10


def test_a_broken_batch_gives_failed_rows_and_the_rest_goes_on(neuronaut: Command, results: Path) -> None:
    said = neuronaut("eval", "breaking", "squares", "--results", results, "--limit", 6)
    assert said.code == 3
    rows = {row["case"]: row for row in rows_of(results, "breaking")}
    assert {case: row.get("error") for case, row in rows.items()} == {
        "case 000": None,
        "case 001": "RuntimeError: bug",
        "case 002": "RuntimeError: bug",
        "case 003": "its row cannot be recorded: Out of range float values are not JSON compliant",
        "case 004": "the suite gave no row for it",
        "case 005": None,
    }
    assert all((row["outcome"] == "failed") == ("error" in row) for row in rows.values())
    assert len(rows_of(results, "squares")) == 6


def test_a_killed_worker_ends_the_evaluation_and_keeps_what_was_done(neuronaut: Command, results: Path) -> None:
    said = neuronaut("eval", "killed", "--results", results, "--limit", 6, "--jobs", 2)
    assert said.code == 1
    assert "a worker process was killed" in said.err
    assert 1 <= len(rows_of(results, "killed")) < 6


def test_all_leaves_out_a_suite_whose_model_is_absent_and_says_so(neuronaut: Command, results: Path) -> None:
    said = neuronaut("eval", "all", "--results", results, "--limit", 2, "--json")
    answer = json.loads(said.out)
    assert answer["left_out"] == {"absent": "the model of 'squares' is absent: set SQUARES"}
    assert [one["suite"] for one in answer["evaluations"]] == ["squares", "broken", "later", "breaking", "killed"]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["squars"], "there is no suite 'squars' (did you mean 'squares'?): choose from squares, broken,"),
        (["squares", "--proposer", "gramar"], "there is no proposer 'gramar' (did you mean 'grammar'?)"),
        (["squares", "--loop", "oneshot"], "there is no loop 'oneshot' (did you mean 'one-shot'?)"),
        (["squares", "--size", "huge"], "there is no size 'huge': choose from smoke, standard, full"),
        (["squares", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["squares", "absent"], "the model of 'squares' is absent: set SQUARES"),
        (["squares", "--seed-file", "nowhere.json"], "the seed file 'nowhere.json' cannot be read"),
        (["compare", "a"], "Missing argument 'B'"),
        (["compare", "a", "b"], "there are no results at"),
        ([], ""),
    ],
)
def test_bad_input_is_one_sentence(neuronaut: Command, results: Path, argv: list[str], sentence: str) -> None:
    said = neuronaut("eval", *argv, *(["--results", results] if argv else []))
    assert (said.code, said.err.count("\n") <= 1) == (2 if argv else said.code, True)
    assert sentence in said.err
    assert not (results / "trails").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is damaged (Expecting value"),
        ("{", "is damaged (Expecting property name"),
        ("[" * 100_000, "is damaged"),
        ("\x00\xff", "is damaged"),
        ("[1]", "must be a JSON object"),
        ("{}", "must be a JSON object"),
        ('{"squares": 1.5}', "is 1.5: give a whole number from 0 to 4294967295"),
        ('{"squares": true}', "is true"),
        ('{"squares": -1}', "is -1"),
        ('{"squares": 4294967296}', "is 4294967296"),
        ('{"squares": "7"}', 'is "7"'),
        ('{"squares": 1, "cubes": 2}', "names 'cubes', which is no suite: choose from squares,"),
        ('{"squares": 1, "squares": 2}', "a suite stands in it twice"),
        ('{"broken": 1}', "names no seed for 'squares': add one, or give --seed"),
    ],
)
def test_a_damaged_seed_file_is_one_sentence(
    neuronaut: Command, tmp_path: Path, results: Path, text: str, reason: str
) -> None:
    file = tmp_path / "seeds.json"
    file.write_bytes(text.encode("latin-1"))
    said = neuronaut("eval", "squares", "--seed-file", file, "--results", results)
    assert said.code == 2
    assert reason in said.err
    assert said.err.count("\n") == 1


def test_a_seed_file_decides_the_cases(neuronaut: Command, tmp_path: Path, results: Path) -> None:
    file = tmp_path / "seeds.json"
    file.write_text('{"squares": 100}')
    neuronaut("eval", "squares", "--seed-file", file, "--results", results, "--limit", 2)
    assert [row["found"] for row in rows_of(results, "squares")] == [100, 101]


def test_two_evaluations_do_not_write_to_one_folder_at_once(
    neuronaut: Command, results: Path, asked: Callable[[], list[str]], started: Any
) -> None:
    started("squares", seconds=5)
    wait_for(lambda: bool(asked()))
    said = neuronaut("eval", "squares", "--results", results)
    assert said.code == 2
    assert "another evaluation is writing to" in said.err


def test_a_parquet_file_gives_back_the_evaluation_and_its_rows(tmp_path: Path) -> None:
    evaluation = Evaluation("E1", EvaluationKey("s", 3, "grammar", "full", "c"), {"commit": None}, "2026-01-01")
    rows: list[Row] = [
        {"case": "a", "n": 1, "x": 0.5, "flag": True, "mixed": 1, "claims": [{"f1": 0.25}], "none": None},
        {"case": "b", "n": 2, "x": 1, "flag": False, "mixed": "one", "text": "⏎ é"},
    ]
    write_parquet(tmp_path / "s.parquet", evaluation, rows)
    assert read_parquet(tmp_path / "s.parquet") == (evaluation, rows)

    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "s.parquet")
    assert table.column("x").to_pylist() == [0.5, 1.0]
    assert table.column("flag").to_pylist() == [True, False]
    assert table.column("text").to_pylist() == [None, "⏎ é"]
    write_parquet(tmp_path / "none.parquet", evaluation, [])
    assert read_parquet(tmp_path / "none.parquet") == (evaluation, [])


def test_a_file_of_something_else_is_no_result(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "a.parquet").write_text("no table")
    pyarrow.parquet.write_table(pyarrow.table({"row": ["{}"]}), tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet"):
        with pytest.raises(UserError, match="holds no results of `neuronaut eval`"):
            read_parquet(tmp_path / name)


def test_the_rows_of_an_evaluation_are_in_the_ledger(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "n.db"
    with Evaluations(path) as notebook:
        evaluation = notebook.begin(EvaluationKey("s", 0, "grammar", "full", "c"), {})
        notebook.add(evaluation.id, {"case": "a", "family": "f", "outcome": "ok", "x": 1})
        assert verify(notebook) == []
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.DatabaseError, match="rows are only added"):
        connection.execute("UPDATE evaluation_row SET outcome = 'failed'")
    connection.execute("DROP TRIGGER evaluation_row_no_update")
    connection.execute("""UPDATE evaluation_row SET row = '{"x": 2}'""")
    connection.commit()
    connection.close()
    with open_evaluations(path) as notebook:
        problems = verify(notebook)
    assert any("evaluation_row" in problem and "was altered" in problem for problem in problems)


def test_every_suite_of_the_registry_resolves_and_has_a_development_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    known = seeds.read_seeds(seeds.DEVELOPMENT)
    for name, place in registry.SUITES.items():
        suite = registry.load(place)
        assert suite.name == name
        assert suite.about
        assert suite.sizes["smoke"] <= suite.sizes["standard"] <= suite.sizes["full"]
        assert name in known


def test_a_seed_and_a_seed_file_are_one_too_many(neuronaut: Command, tmp_path: Path, results: Path) -> None:
    file = tmp_path / "seeds.json"
    file.write_bytes(b'\xef\xbb\xbf{"squares": 7}')  # as editors on Windows write it
    assert neuronaut("eval", "squares", "--seed-file", file, "--results", results).code == 0
    said = neuronaut("eval", "squares", "--seed-file", file, "--seed", 4, "--results", results)
    assert (said.code, "both say which seed" in said.err) == (2, True)


def test_results_get_a_folder_of_their_own(neuronaut: Command) -> None:
    said = neuronaut("eval", "squares", "--results", "")
    assert (said.code, "name a folder of its own" in said.err) == (2, True)


def test_scores_of_more_cases_than_were_asked_for_say_so(neuronaut: Command, results: Path) -> None:
    neuronaut("eval", "squares", "--results", results, "--limit", 3)
    said = neuronaut("eval", "squares", "--results", results, "--limit", 1)
    assert "scored are all 3 cases that this evaluation has, of which 1 this command asked for" in said.err

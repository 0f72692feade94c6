"""`neuronaut eval compare` against computations by hand, and the scoreboard against rows that were written by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuronaut.evals import registry, scoreboard, seeds
from neuronaut.evals.compare import compared, differences, interval
from neuronaut.evals.suite import Row, Score
from neuronaut.memory.evaluations import Evaluation, EvaluationKey, Evaluations
from neuronaut.tools.errors import UserError

HERE = Path(__file__).parent
Command = Callable[..., Any]
MACHINE = {"cpu": "Old Abacus", "cores": 2, "system": "Linux", "python": "3.11.7"}
SETTINGS = {"commit": "a" * 40, "dirty": False, "packages": {}, "machine": MACHINE}


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    import fake_suites

    monkeypatch.setattr(registry, "SUITES", fake_suites.PLACES)
    monkeypatch.setattr(seeds, "SUITES", fake_suites.PLACES)
    monkeypatch.setattr(seeds, "DEVELOPMENT", HERE / "fake_seeds.json")


def evaluation(identifier: str, seed: int = 0) -> Evaluation:
    return Evaluation(identifier, EvaluationKey("other", seed, "grammar", "full", "c"), {}, "")


def answered(case: str, **numbers: Any) -> Row:
    return {"case": case, "family": "f", "outcome": "ok", **numbers}


def test_differences_are_those_of_the_same_cases() -> None:
    a = [answered("1", x=1.0, layer=3), answered("2", x=2.0), answered("3", x=9.0), {"case": "4", "outcome": "failed"}]
    b = [answered("5", x=7.0), answered("2", x=5.0), answered("1", x=2.0), answered("4", x=1.0)]
    found = compared((evaluation("A"), a), (evaluation("B"), b))
    assert (found.common, found.not_ok, found.only_a, found.only_b) == (3, 1, 1, 1)
    (x,) = found.differences
    assert (x.metric, x.n, x.a, x.b, x.difference) == ("x", 2, 1.5, 3.5, 2.0)
    assert 1.0 <= x.low <= x.difference <= x.high <= 3.0


def test_truth_values_and_supported_claims_are_numbers() -> None:
    claims = [[{"status": "PARTIAL"}], [{"status": "SUPPORTED"}, {"status": "PARTIAL"}]]
    a = [answered(str(i), right=False, claims=claims[0]) for i in range(4)]
    b = [answered(str(i), right=i < 3, claims=claims[i % 2]) for i in range(4)]
    right, supported = differences(a, b)
    assert (right.metric, right.a, right.b) == ("right", 0.0, 0.75)
    assert (supported.metric, supported.a, supported.b) == ("supported", 0.0, 0.5)


def test_the_interval_holds_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    hits = sum(low <= 3.0 <= high for low, high in (interval(rng.normal(3, 2, 40)) for _ in range(200)))
    assert 0.89 <= hits / 200 <= 0.99
    assert interval(np.full(5, 2.0)) == (2.0, 2.0)


def test_the_interval_is_the_one_of_the_normal_law_for_many_cases() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, 2000)
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    assert interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)


def test_other_seeds_cannot_be_paired() -> None:
    with pytest.raises(UserError, match="have different cases"):
        compared((evaluation("A"), []), (evaluation("B", seed=1), []))


def test_evaluations_folders_and_files_can_be_compared(neuronaut: Command, tmp_path: Path) -> None:
    ids, places = [], [tmp_path / "one", tmp_path / "two"]
    for place, loop in zip(places, ("full", "one-shot"), strict=True):
        said = neuronaut("eval", "squares", "--loop", loop, "--results", place, "--json")
        ids.append(json.loads(said.out)["evaluations"][0]["evaluation"])
    by_folder = json.loads(neuronaut("eval", "compare", *places[::-1], "--json").out)
    by_file = json.loads(neuronaut("eval", "compare", *(p / "squares.parquet" for p in places[::-1]), "--json").out)
    said = neuronaut("eval", "squares", "--loop", "one-shot", "--results", places[0], "--json")
    other = json.loads(said.out)["evaluations"][0]["evaluation"]
    by_id = json.loads(neuronaut("eval", "compare", other, ids[0], "--results", places[0], "--json").out)
    (found,) = by_id
    wanted = {"metric": "right", "n": 10, "a": 0.5, "b": 1.0, "difference": 0.5}
    (right,) = [one for one in found["differences"] if one["metric"] == "right"]
    assert {name: right[name] for name in wanted} == wanted
    assert 0.1 < right["low"] < 0.5 < right["high"] < 0.9
    assert ["squares right", 0.5, 1.0] in found["scores"]
    assert by_folder == by_file == [{**found, "a": ids[1]}]
    text = neuronaut("eval", "compare", other, ids[0], "--results", places[0]).out
    assert "10 cases in common, 0 of them failed or not attempted in one" in text


def test_what_is_no_result_is_said(neuronaut: Command, tmp_path: Path) -> None:
    neuronaut("eval", "squares", "--limit", 1, "--results", tmp_path / "r")
    said = neuronaut("eval", "compare", "nothing", "nothing", "--results", tmp_path / "r")
    assert said.code == 2
    assert "'nothing' is no evaluation in" in said.err
    neuronaut("eval", "later", "--limit", 1, "--results", tmp_path / "s")
    said = neuronaut("eval", "compare", tmp_path / "r", tmp_path / "s")
    assert "there is no suite in common" in said.err


def fill(notebook: Evaluations, suite: str, rows: list[Row], loop: str = "full", seed: int = 7) -> None:
    made = notebook.begin(EvaluationKey(suite, seed, "grammar", loop, "c" * 64), SETTINGS)
    for row in rows:
        notebook.add(made.id, row)


def square(i: int, *, right: bool, **more: Any) -> Row:
    family = ("even", "odd")[i % 2]
    return {
        "case": f"{i}",
        "family": family,
        "outcome": "ok",
        "right": right,
        "seconds": float(i),
        "forwards": 10.0 * i,
        **more,
    }


@pytest.fixture
def notebook(tmp_path: Path) -> Any:
    with Evaluations(tmp_path / "notebook.db") as opened:
        rows = [square(i, right=i != 3, usd=0.25) for i in range(1, 6)]
        fill(opened, "squares", [*rows, {"case": "6", "family": "even", "outcome": "failed", "error": "a | b\x1b[31m"}])
        fill(opened, "squares", [square(i, right=i % 2 == 0) for i in range(1, 6)], loop="one-shot")
        fill(opened, "later", [{"case": str(i), "family": "even", "outcome": "not attempted"} for i in range(12)])
        yield opened


def test_the_scoreboard_says_what_the_rows_say(notebook: Evaluations) -> None:
    text = scoreboard.scoreboard(notebook, "grammar", "full", notes="## By hand\n\nA | note.", notes_file="notes.md")
    lines = text.splitlines()
    for wanted in (
        "- machine: Old Abacus, 2 cores, Linux, Python 3.11.7",
        "| [squares](#squares) | 5 | 1 | 0 | 0 of 2 | 7 | `aaaaaaaaaaaa` |",
        "| [later](#later) | 0 | 0 | 12 | - | 7 | `aaaaaaaaaaaa` |",
        "Not run: broken, absent, breaking, killed.",
        "| squares right | 0.8 | 0.25 to 1 | 5 | ≥ 0.9 | **missed** |",
        "| right | 0.8333 | odd: 0.6667 | even 1 (n 2), odd 0.6667 (n 3) |",
        "Median cost of a case, its part of reading the corpus included: 30 forwards, 3 seconds. All cases together: "
        "0.2 minutes of one worker, 1.25 dollars.",
        "- failed, 1: a \\| b\\u001b[31m",
        "**Not attempted**: 12 cases are built with their truth, which the scores are about; the assistant has no tools for",
        "| squares | false squares | 1 | 5 |",
        "| squares | `grammar`, `one-shot` | 5 | squares right | 0.8 | 0.4 | - |",
        "## By hand",
        "A | note.",
    ):
        assert wanted in lines, wanted
    (right,) = [
        line for line in lines if line.startswith("| squares | `grammar`, `one-shot` | 5 | right | 0.8 | 0.4 | -0.4 (")
    ]
    assert right.endswith(") |")
    assert "not comparable one to one" in text
    assert "arXiv:2410.13928" in text
    assert text == scoreboard.scoreboard(
        notebook, "grammar", "full", notes="## By hand\n\nA | note.", notes_file="notes.md"
    )


def test_families_are_found_wherever_the_name_says_them() -> None:
    scores = [
        *(Score(f"family: {name}, mean F1", value, 5) for name, value in (("a", 0.9), ("b c", 0.5), ("d", 0.7))),
        *(Score(f"false claims, family: {name}", value, 5, at_most=0.1) for name, value in (("a", 0.0), ("d", 0.2))),
        Score("worst family (b c), mean F1", 0.5, 5),
    ]
    first, second = scoreboard._families(scores)
    assert (first["name"], first["median"], first["worst"]) == ("mean F1", "0.7", "b c: 0.5")
    assert (second["name"], second["median"], second["worst"]) == ("false claims", "0.1", "d: 0.2")
    assert second["all"] == "a 0 (n 5), d 0.2 (n 5) **missed**"


def test_the_tables_of_the_scoreboard_are_whole(notebook: Evaluations) -> None:
    text = scoreboard.scoreboard(notebook, "grammar", "full", notes="", notes_file="notes.md")
    columns = 0
    for line in text.splitlines():
        n = line.replace("\\|", "").count("|")
        assert n == columns or not columns or not n, line
        columns = n
    assert "\n\n\n" not in text


def test_notes_written_by_hand_survive(notebook: Evaluations, tmp_path: Path) -> None:
    board = tmp_path / "docs" / "scoreboard.md"
    scoreboard.write_scoreboard(board, notebook, "grammar", "full")
    notes = tmp_path / "docs" / "scoreboard-notes.md"
    notes.write_text("## Why\n\nBecause.\n", encoding="utf-8")
    for _ in range(2):
        scoreboard.write_scoreboard(board, notebook, "grammar", "full")
        assert "## Why\n\nBecause.\n" in board.read_text(encoding="utf-8")
    assert notes.read_text(encoding="utf-8") == "## Why\n\nBecause.\n"


def test_the_host_is_not_named(neuronaut: Command, tmp_path: Path) -> None:
    import platform

    board = tmp_path / "board.md"
    neuronaut("eval", "squares", "--limit", 2, "--results", tmp_path / "r", "--scoreboard", board)
    assert "| squares right | 1 |" in board.read_text(encoding="utf-8")
    assert platform.node() not in board.read_text(encoding="utf-8").split()

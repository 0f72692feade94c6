"""Batches of units: every item ends once, whatever happens to those who work on it, and the summary adds up."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent import reads
from neuronaut.agent.label import local
from neuronaut.agent.label.batch import FAILED
from neuronaut.agent.label.owner import alive, own_name
from neuronaut.agent.label.screen import Screen, bars_of, duration
from neuronaut.agent.label.summary import _nulls, _rate
from neuronaut.agent.session import Session
from neuronaut.memory.item_labels import Label, histogram
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.units import Unit

BATCH = ("--fast", "--limit", "5", "--nulls", "0.4", "--seed", "3")
Neuronaut = Callable[..., Any]


def events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def sql(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def found_in(path: Path) -> list[tuple[Any, ...]]:
    """What a batch says of each item, without ids and times."""
    return sql(
        path,
        "SELECT i.address, i.null_kind, i.state, i.reason, h.claim, v.outcome, v.'case' FROM item i"
        " LEFT JOIN hypothesis h ON h.run = i.asked LEFT JOIN prediction p ON p.hypothesis = h.id"
        " LEFT JOIN verdict v ON v.prediction = p.id ORDER BY i.rank, h.claim, v.outcome",
    )


@pytest.fixture(scope="module")
def whole(tiny: tuple[str, ...], neuronaut: Neuronaut, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A batch that nothing disturbs: its notebook and what it printed."""
    path = tmp_path_factory.mktemp("whole") / "n.db"
    said = neuronaut("label", *tiny, *BATCH, "--notebook", path, "--json")
    assert said.code == 0, said.err
    return path, events(said.out)


def test_every_item_ends_and_the_summary_adds_up(whole: tuple[Path, Any], neuronaut: Neuronaut) -> None:
    path, printed = whole
    items = [one for one in printed if one["event"] == "item"]
    summary = printed[-1]
    assert len(items) == summary["items"] == 7
    rows = sql(path, "SELECT address, null_kind, state FROM item")
    assert Counter((one["address"], one["null_kind"]) for one in items) == Counter(row[:2] for row in rows)
    assert {row[2] for row in rows} <= {"done", "skipped"}
    assert sum(summary["statuses"].values()) == 5
    assert summary["nulls"]["ended"] == sum(row[2] == "done" and row[1] is not None for row in rows)
    judged = "SELECT count(DISTINCT i.id) FROM item i JOIN hypothesis h ON h.run = i.asked JOIN prediction p ON p.hypothesis = h.id JOIN verdict v"
    query = f"{judged} ON v.prediction = p.id WHERE i.null_kind IS NOT NULL"
    assert summary["nulls"]["tested"] == sql(path, query)[0][0]
    assert summary["outcome"] == "answered"
    costs = sql(path, "SELECT e.cost FROM run_end e JOIN item i ON i.asked = e.run")
    assert summary["cost"]["forwards"] == pytest.approx(sum(json.loads(cost)["forwards"] for (cost,) in costs))
    n_eligible = summary["whole"]["units"]
    assert summary["whole"]["forwards"] == pytest.approx(summary["cost"]["forwards"] * n_eligible / 7)
    again = neuronaut("label", "status", "--notebook", path, "--json")
    assert json.loads(again.out) == summary
    with Notebook(path, read_only=True) as notebook:
        assert verify(notebook) == []


def test_null_units_are_labelled_on_a_model_of_their_own(whole: tuple[Path, Any]) -> None:
    path, _ = whole
    on = "JOIN run r ON r.id = i.asked JOIN target_model t ON t.id = r.target"
    rows = sql(path, f"SELECT i.null_kind IS NOT NULL, t.processing LIKE '%planted%' FROM item i {on}")
    assert sorted(rows) == [(0, 0)] * 5 + [(1, 1)] * 2


def test_items_are_no_runs_of_their_own_in_lists(whole: tuple[Path, Any], neuronaut: Neuronaut) -> None:
    path, printed = whole
    listed = json.loads(neuronaut("search", "--notebook", path, "--json").out)
    assert [row["id"] for row in listed] == [printed[-1]["run"]]
    refused = neuronaut("resume", printed[-1]["run"], "--notebook", path)
    assert (refused.code, "label resume" in refused.err) == (2, True)


def test_a_batch_that_ended_is_only_told_of(whole: tuple[Path, Any], tiny: Any, neuronaut: Neuronaut) -> None:
    path, printed = whole
    before = sql(path, "SELECT count(*) FROM ledger")
    resumed = neuronaut("label", "resume", printed[-1]["run"], "--notebook", path, "--json")
    assert (resumed.code, events(resumed.out)) == (0, [printed[-1]])
    assert sql(path, "SELECT count(*) FROM ledger") == before


def test_a_table_for_people_says_the_same(whole: tuple[Path, Any], neuronaut: Neuronaut) -> None:
    path, printed = whole
    text = neuronaut("label", "status", "--notebook", path).out
    summary = printed[-1]
    assert summary["run"] in text
    assert f"{summary['nulls']['supported']} of {summary['nulls']['ended']} SUPPORTED" in text
    assert f"{summary['whole']['units']:,}: about" in text


def test_the_rate_of_false_claims_is_of_null_units_that_were_tried_and_the_others_are_named() -> None:
    def told(*states: str) -> str:
        return _rate(
            _nulls([Label("0.1", "hash", state, "NONE", e=0.0 if state == "done" else None) for state in states])
        )  # type: ignore[arg-type]

    assert told() == "there are none, so that the rate of false claims is not known"
    assert (
        told("waiting", "skipped") == "2 planted, 1 dead, none tried yet, so that the rate of false claims is not known"
    )
    assert told("done", "done", "skipped").startswith("0 of 2 SUPPORTED (95 %: 0.0% to 84.2%)")
    assert told("done", "skipped").endswith("of 1 a claim was tested, 1 dead")


def test_claims_that_survive_are_counted_among_claims_not_units(whole: tuple[Path, Any]) -> None:
    path, printed = whole
    on = "JOIN prediction p ON p.id = v.prediction JOIN hypothesis h ON h.id = p.hypothesis JOIN item i ON i.asked = h.run"
    query = f"SELECT count(*) FROM verdict v {on} WHERE v.e > 0 AND i.null_kind IS NULL"
    assert printed[-1]["supported_claims"] == sql(path, query)[0][0] >= printed[-1]["surviving"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--layers", "9"), "--layers '9'"),
        (("1.99999",), "does not exist"),
        (("L0H0",), "one kind"),
        (("--where", "density > 2"), "no neuron"),
        (("--where", "colour == 1"), "choose from"),
        (("--file", "nowhere.txt"), "nowhere.txt"),
        (("--kind", "feature"), "give --dictionary FOLDER"),
        (("--limit", "0"), "--limit"),
        (("status", "01M"), "no run"),
        (("pause", "01M"), "no run"),
    ],
)
def test_what_cannot_be_labelled_is_refused_in_one_sentence(
    argv: tuple[str, ...], said: str, tiny: tuple[str, ...], whole: tuple[Path, Any], neuronaut: Neuronaut
) -> None:
    place = ("--notebook", str(whole[0]))
    before = sql(whole[0], "SELECT count(*) FROM run")
    refused = neuronaut("label", *argv, *(place if argv[0] in ("status", "pause") else (*tiny, *place)))
    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert len(refused.err.strip().splitlines()[-1]) < 400
    assert sql(whole[0], "SELECT count(*) FROM run") == before


def test_an_item_that_fails_three_times_is_failed_and_the_rest_goes_on(
    tiny: tuple[str, ...], whole: Any, neuronaut: Neuronaut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, answer, bad = (
        tmp_path / "n.db",
        reads.answer,
        sql(whole[0], "SELECT address FROM item WHERE rank = 2")[0][0],
    )
    tries = []

    def failing(session: Session, unit: Unit) -> None:
        if unit.address == bad and "planted" not in session.context.target.fingerprint().processing:
            tries.append(session.run)
            raise ToolFailed("activations are not finite on this text")
        answer(session, unit)

    with monkeypatch.context() as patch:
        patch.setattr(reads, "answer", failing)
        said = neuronaut("label", *tiny, *BATCH, "--notebook", path, "--json")
    assert said.code == FAILED
    assert len(tries) == 3
    assert len(set(tries)) == 1
    summary = events(said.out)[-1]
    assert (summary["failed"], summary["waiting"]) == (1, 0)
    assert sql(path, "SELECT address, reason FROM item WHERE state = 'failed'") == [
        (bad, "activations are not finite on this text")
    ]
    retried = neuronaut("label", "retry", summary["run"], "--notebook", path, "--json")
    assert retried.code == 0
    assert found_in(path) == found_in(whole[0])


HEEDING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from neuronaut.agent.cli import main; main()"
)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_ends_after_the_unit_in_hand_and_twice_at_once(
    tiny: tuple[str, ...], whole: Any, neuronaut: Neuronaut, tmp_path: Path, times: int
) -> None:
    path = tmp_path / "n.db"
    argv = [sys.executable, "-c", HEEDING, "label", *tiny, *BATCH, "--notebook", str(path), "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "item":
                for _ in range(times):
                    process.send_signal(signal.SIGINT)
                break
        _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert Counter(state for (state,) in sql(path, "SELECT state FROM item")).keys() <= {"done", "skipped", "waiting"}
    (run,) = sql(path, "SELECT run FROM batch")[0]
    resumed = neuronaut("label", "resume", run, "--notebook", path, "--json")
    assert resumed.code == 0
    assert found_in(path) == found_in(whole[0])


def test_a_pause_by_another_process_is_heeded(
    tiny: tuple[str, ...], whole: Any, neuronaut: Neuronaut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ended = tmp_path / "n.db", Screen.ended

    def pausing(self: Screen, label: Any) -> None:
        ended(self, label)
        assert "is paused" in neuronaut("label", "pause", self.run, "--notebook", path).out

    monkeypatch.setattr(Screen, "ended", pausing)
    said = neuronaut("label", *tiny, *BATCH, "--notebook", path, "--json")
    monkeypatch.undo()
    summary = events(said.out)[-1]
    assert (said.code, summary["waiting"], summary["outcome"]) == (0, 6, "cancelled")
    assert neuronaut("label", "resume", summary["run"], "--notebook", path, "--json").code == 0
    assert found_in(path) == found_in(whole[0])


def test_two_processes_share_a_batch(tiny: tuple[str, ...], whole: Any, neuronaut: Neuronaut, tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    first = subprocess.Popen(
        [sys.executable, "-c", HEEDING, "label", *tiny, *BATCH, "--notebook", str(path), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout is not None
    mine = [json.loads(first.stdout.readline())]
    second = neuronaut("label", "resume", sql(path, "SELECT run FROM batch")[0][0], "--notebook", path, "--json")
    out, err = first.communicate()
    assert (first.returncode, second.code) == (0, 0), err
    items = [one for one in [*mine, *events(out), *events(second.out)] if one["event"] == "item"]
    assert len(items) == len({one["run"] for one in items}) == 7
    assert found_in(path) == found_in(whole[0])


def test_the_group_that_is_leased_does_not_change_what_is_found(
    tiny: tuple[str, ...], whole: Any, neuronaut: Neuronaut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "GROUP", 1)
    path = tmp_path / "n.db"
    assert neuronaut("label", *tiny, *BATCH, "--notebook", path, "--json").code == 0
    assert found_in(path) == found_in(whole[0])


def test_a_process_knows_whether_an_owner_lives() -> None:
    name = own_name()
    host, pid, began, ident = name.split("/")
    assert alive(name)
    assert not alive(f"{host}/{pid}/1{began}/{ident}")  # another process had this number
    assert not alive(f"{host}/999999999/{began}/{ident}")
    assert alive(f"elsewhere/{pid}/{began}/{ident}")  # its lease has to run out


def test_counters_are_told_in_words() -> None:
    assert histogram([0.0, 0.05, 0.95, 1.0, 0.5]) == [2, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert bars_of([0, 8, 4, 1, 0, 0, 0, 0, 0, 0]) == "0▕ █▄▁      ▏1"
    assert [duration(s) for s in (40, 130, 7200, 300_000)] == ["40 s", "2 min", "2.0 h", "3.5 days"]


@pytest.mark.parametrize("text", ["", "# none\n\n"])
def test_a_file_without_units_is_refused_and_does_not_mean_all(
    text: str, neuronaut: Neuronaut, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "units.txt").write_text(text)
    said = neuronaut("label", "--file", tmp_path / "units.txt", *tiny, "--notebook", tmp_path / "n.db")
    assert (said.code, "names no units" in said.err) == (2, True)
    assert not (tmp_path / "n.db").exists()


def test_a_condition_is_read_before_the_model_is(neuronaut: Neuronaut, tmp_path: Path) -> None:
    said = neuronaut("label", "--where", "density <", "--model", tmp_path / "none", "--notebook", tmp_path / "n.db")
    assert (said.code, "--where 'density <'" in said.err) == (2, True)

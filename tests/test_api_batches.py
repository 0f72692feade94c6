"""Batches from Python: the labels of the command line, kept at once, gone on with, and refused in a sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronaut import Lab, UserError
from neuronaut.agent.api.batches import Batch
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File

Command = Callable[..., Any]
UNITS = "0.30-0.33"


def _lab(tiny: tuple[str, ...], place: Path, **options: Any) -> Lab:
    named = dict(zip((name.removeprefix("--") for name in tiny[::2]), tiny[1::2], strict=True))
    return Lab(named["model"], corpus=named["corpus"], notebook=place, seed=3, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batches") / "n.db"


@pytest.fixture(scope="module")
def lab(tiny: tuple[str, ...], place: Path) -> Lab:
    return _lab(tiny, place)


@pytest.fixture(scope="module")
def batch(lab: Lab) -> Batch:
    return lab.label(UNITS, fast=True, nulls=0.25)


def _without_ids(labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "run"} for row in labels]


def test_a_batch_says_what_the_command_line_says(
    batch: Batch, neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    argv = (
        "label",
        UNITS,
        "--fast",
        "--nulls",
        "0.25",
        "--seed",
        3,
        *tiny,
        "--notebook",
        tmp_path / "other.db",
        "--json",
    )
    said = json.loads(neuronaut(*argv).out.splitlines()[-1])
    mine = batch.json
    assert _without_ids(json.loads(json.dumps(mine["labels"]))) == _without_ids(said["labels"])
    assert {name: mine[name] for name in ("question", "outcome", "items", "statuses")} == {
        name: said[name] for name in ("question", "outcome", "items", "statuses")
    }
    assert mine["nulls"].keys() == said["nulls"].keys()
    assert batch.nulls.planted == 1


def test_labels_are_a_frame_with_one_row_a_unit_and_gaps_where_nothing_was_measured(batch: Batch) -> None:
    frame = batch.to_pandas()
    assert sorted(frame["unit"]) == ["0.30", "0.31", "0.32", "0.33"]
    assert frame["score"].dtype == "float64"
    assert batch.to_polars()["unit"].to_list() == frame["unit"].to_list()
    for row in batch.labels:
        assert (row["score"] is None) == (row["claim"] is None)
    assert sum(batch.statuses.values()) == 4
    assert batch.cost.forwards > 0
    assert batch.cost.usd == 0


def test_it_is_read_again_as_it_stands_and_gone_on_with_to_no_effect_where_it_is_over(lab: Lab, batch: Batch) -> None:
    assert lab.batch(batch.run).json == batch.json
    again = lab.resume(batch.run)
    assert isinstance(again, Batch)
    assert again.json == batch.json


def test_an_interrupted_batch_keeps_what_ended_and_goes_on(batch: Batch, tiny: tuple[str, ...], tmp_path: Path) -> None:
    lab, runs = _lab(tiny, tmp_path / "n.db"), []

    def stop(label: str, line: str) -> None:
        if label == "run":
            runs.append(line.partition(";")[0])
        if label == "label":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"lab\.resume"):
        lab.label(UNITS, fast=True, nulls=0.25, progress=stop)
    assert lab.batch(runs[0]).outcome == "cancelled"
    assert lab.batch(runs[0]).waiting > 0
    done = lab.resume(runs[0])
    assert isinstance(done, Batch)
    assert (done.outcome, done.waiting) == ("answered", 0)
    assert _without_ids(list(map(dict, done.labels))) == _without_ids(list(map(dict, batch.labels)))


def test_the_answer_of_one_item_is_at_hand(lab: Lab, batch: Batch) -> None:
    asked = next(row["run"] for row in batch.labels if row["claim"] is not None)
    assert lab.answer(asked).claims


def test_its_page_and_its_text_hold_the_counts_and_no_markup_of_others(batch: Batch) -> None:
    page = batch._repr_html_()
    assert batch.run in page
    assert "null units" in page
    assert "<script" not in page
    assert str(batch).startswith("neuronaut label 0.30-0.33 --fast")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": "99"}, "layers 0 to 2"),
        ({"kind": "hydra"}, "kind 'hydra'"),
        ({"limit": 0}, "limit 0"),
        ({"nulls": 2.0}, "nulls 2.0"),
        ({"signs": "sideways"}, "signs 'sideways'"),
        ({"where": "size ("}, "size"),
        ({"kind": "feature"}, "no dictionary"),
        ({"unit_budget": {"hours": 3}}, "budget hours"),
    ],
)
def test_what_cannot_be_labelled_is_refused_and_nothing_is_begun(
    lab: Lab, place: Path, batch: Batch, options: dict[str, Any], sentence: str
) -> None:
    with Notebook(File(place), read_only=True) as notebook:
        before = notebook.head()
    with pytest.raises(UserError, match=sentence) as refusal:
        lab.label(**options)
    assert "\n" not in str(refusal.value)
    with Notebook(File(place), read_only=True) as notebook:
        assert notebook.head() == before


def test_a_run_that_is_no_batch_says_so(lab: Lab, batch: Batch) -> None:
    with pytest.raises(UserError, match=r"is no batch"):
        lab.batch(next(row["run"] for row in batch.labels if row["run"]))
    with pytest.raises(UserError, match=r"no run|no batch"):
        lab.batch("01ARZ3NDEKTSV4RRFFQ69G5FAV")

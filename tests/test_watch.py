"""Findings about earlier weights, asked again of new ones: what held survives, what was edited away does not, nothing is rewritten."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File
from neuronaut.tools.targets.load import POCKET

KEPT, EDITED = "6.457", "7.36"  # neurons of the embedded model, each with a rule of two tokens
RULES = {KEPT: "all_of(token(' dem'), at(1, token(' auf')))", EDITED: "all_of(token(' pres'), at(1, token(' est')))"}
NOISE = 1e-4  # of every tensor's norm: other weights, the same model


@pytest.fixture(scope="module")
def earlier(neuronaut: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook with two SUPPORTED findings about the embedded model."""
    file = tmp_path_factory.mktemp("watch") / "n.db"
    for unit, rule in RULES.items():
        ended = neuronaut("ask", f"test {unit}: {rule}", "--fast", "--json", "--notebook", file)
        claims = json.loads(ended.out)["claims"]
        assert any(row["status"] == "SUPPORTED" and row["predicate"] == _first(claims) for row in claims), claims
    return file


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a later checkpoint: a little noise everywhere, and one neuron that reads another one's input."""
    place = tmp_path_factory.mktemp("later") / "pocket-later"
    place.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(POCKET / name, place / name)
    weights = {name: tensor.float() for name, tensor in load_file(POCKET / "model.safetensors").items()}
    generator = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        noise = torch.randn(tensor.shape, generator=generator)
        weights[name] = tensor + noise * (NOISE * tensor.norm() / noise.norm())
    layer, index = map(int, EDITED.split("."))
    for part in ("weight", "bias"):
        reads = weights[f"transformer.h.{layer}.mlp.c_fc.{part}"]
        reads[..., index] = reads[..., 100]
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    return place


@pytest.fixture
def notebook(earlier: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(earlier, tmp_path / "copy.db"))


def _first(claims: list[dict[str, Any]]) -> Any:
    return next(row["predicate"] for row in claims if row["status"] == "SUPPORTED")


def _watch(neuronaut: Callable[..., Any], later: Path, notebook: Path, *more: str) -> Any:
    options = ("--model", later, "--of", "pocket", "--corpus", "pocket", "--notebook", notebook)
    return neuronaut("watch", *options, *more)


def _rows(file: Path) -> dict[str, Any]:
    with Notebook(File(file), read_only=True) as opened:
        ids = [row["id"] for run in queries.runs(opened) for row in queries.hypotheses(opened, run["id"])]
        return queries.states(opened, ids)


def test_what_holds_for_new_weights_survives_and_what_was_edited_away_does_not(
    neuronaut: Callable[..., Any], later: Path, notebook: Path
) -> None:
    before = _rows(notebook)
    ended = _watch(neuronaut, later, notebook, "--json")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    found = {(row["unit"], row["became"]) for row in answer["survived"]["findings"]}
    assert (KEPT, "survived") in found
    assert {became for unit, became in found if unit == EDITED} <= {"refuted", "weakened", "gone"}
    assert sum(answer["survived"]["counts"].values()) == len(answer["survived"]["findings"])
    kept = next(row for row in answer["survived"]["findings"] if row["became"] == "survived")
    assert kept["forwards"] > 0
    assert kept["seconds"] > 0
    states = _rows(notebook)
    for row in answer["survived"]["findings"]:
        assert before[row["finding"]] == "supported"
        assert states[row["finding"]] == "stale"
    with Notebook(File(notebook), read_only=True) as opened:
        run = queries.find_run(opened, kept["run"])
        verdicts = {row["id"]: row["verdicts"] for row in queries.hypotheses(opened, run["id"])}
        assert verdicts[kept["finding"]][-1]["outcome"] == "SUPPORTED"  # of the old weights, as it was
        first = next(row for row in queries.hypotheses(opened, run["id"]) if row["id"] == kept["finding"])
        assert first["predictions"][0]["split"] != kept["now"]["split"]
        again = queries.hypotheses(opened, answer["run"])
        assert {row["parent"] for row in again if row["verdicts"]} <= {
            row["finding"] for row in answer["survived"]["findings"]
        }
    assert neuronaut("verify", "--notebook", notebook).code == 0


def test_a_watch_that_was_stopped_goes_on_and_asks_nothing_twice(
    neuronaut: Callable[..., Any], later: Path, notebook: Path
) -> None:
    stopped = _watch(neuronaut, later, notebook, "--json", "--budget-forwards", "1")
    assert stopped.code == 1
    answer = json.loads(stopped.out)
    assert answer["outcome"] == "out_of_budget"
    assert answer["survived"]["counts"]["not tested"] >= 1
    again = _watch(neuronaut, later, notebook, "--json")
    whole = json.loads(again.out)
    assert again.code == 0, again.err
    assert whole["survived"]["counts"]["not tested"] == 0
    resumed = neuronaut("resume", answer["run"], "--notebook", notebook, "--json")
    assert resumed.code == 1  # its budget is as small as before
    third = json.loads(_watch(neuronaut, later, notebook, "--json").out)
    assert third["run"] != whole["run"]
    assert third["cost"]["forwards"] == 0
    assert [row["became"] for row in third["survived"]["findings"]] == [
        row["became"] for row in whole["survived"]["findings"]
    ]
    judged_in = {row["now"]["run"] for row in third["survived"]["findings"] if row["now"]}
    assert judged_in <= {answer["run"], whole["run"]}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--of", "nothing"), "has nothing about earlier weights called 'nothing'"),
        ((), "has nothing about earlier weights called 'pocket-later'"),
    ],
)
def test_weights_that_the_notebook_does_not_know_are_refused_in_one_sentence(
    neuronaut: Callable[..., Any], later: Path, notebook: Path, options: tuple[str, ...], said: str
) -> None:
    ended = neuronaut("watch", "--model", later, "--corpus", "pocket", "--notebook", notebook, *options)
    assert ended.code == 2
    assert said in ended.err
    assert "it knows pocket (" in ended.err
    assert "Traceback" not in ended.err


def test_the_same_weights_are_no_later_ones(neuronaut: Callable[..., Any], notebook: Path) -> None:
    ended = neuronaut("watch", "--notebook", notebook)
    assert ended.code == 2
    assert "it knows no other weights" in ended.err

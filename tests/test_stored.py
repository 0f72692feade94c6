"""Activations kept beside the index: the same numbers as read from the model, without reading it."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from neuronaut.agent.cli import app
from neuronaut.tools import stored as stored_module
from neuronaut.tools.corpus import corpus_from_texts, pocket_corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.look import examples
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.stored import StoredActivations, store_activations
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.trials import nulls, reads
from neuronaut.tools.units import Unit

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
SAMPLE = 3000
PART, OTHER = (
    corpus_from_texts("part", [one.text for one in pocket_corpus().documents[first::16]]) for first in (0, 1)
)


@pytest.fixture(scope="module", params=["pocket", "llama"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TargetModel:
    name = str(request.param)
    return load_target(name if name == "pocket" else make_model(name, tmp_path_factory.mktemp("models") / name))


@pytest.fixture
def stored(target: TargetModel, tmp_path: Path) -> StoredActivations:
    found = StoredActivations.of(target, PART, SAMPLE, cache=tmp_path)
    sample = ToolContext(target, PART).sample("explore", SAMPLE)
    seen: list[tuple[int, int]] = []
    assert store_activations(target, sample, found, progress=lambda *at: seen.append(at)) == ()
    assert seen[-1] == (len(sample), len(sample))
    assert found.layers(target.spec.n_layers) == tuple(range(target.spec.n_layers))
    return found


def test_kept_activations_are_those_that_the_model_gives(target: TargetModel, stored: StoredActivations) -> None:
    plain, fast = ToolContext(target, PART), ToolContext(target, PART, stored)
    some = np.arange(target.spec.d_mlp)
    for layer in range(target.spec.n_layers):
        for unit in (Unit("neuron", layer, 2), Unit("neuron", layer, 2, -1)):
            expected = plain.activations(unit, "explore", n_tokens=SAMPLE)
            others = plain.activations_beside(unit, some, "explore", n_tokens=SAMPLE)
            before = target.forwards
            np.testing.assert_array_equal(fast.activations(unit, "explore", n_tokens=SAMPLE), expected)
            np.testing.assert_array_equal(fast.activations_beside(unit, some, "explore", n_tokens=SAMPLE), others)
            assert target.forwards == before
            assert np.any(others)


def test_other_text_is_read_from_the_model(target: TargetModel, stored: StoredActivations) -> None:
    fast = ToolContext(target, PART, stored)
    before = target.forwards
    shape = fast.activations(Unit("neuron", 0, 1), "explore", n_tokens=SAMPLE // 2).shape
    assert shape == fast.sample("explore", SAMPLE // 2).ids.shape
    assert target.forwards > before


def test_tools_find_the_same_with_and_without_kept_activations(
    target: TargetModel, stored: StoredActivations, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (examples, nulls, reads):
        monkeypatch.setattr(module, "EXPLORE_TOKENS", SAMPLE)
    for address in ("1.3", "1.3-", "2.7"):
        found = []
        for context in (ToolContext(target, PART), ToolContext(target, PART, stored)):
            results = [
                (tool := find_tool(n)).run(context, tool.parse({"unit": address})) for n in ("firing", "top_examples")
            ]
            found.append((results, nulls.other_units(context, Unit.parse(address)).rules))
        assert found[0] == found[1]


@pytest.mark.parametrize("harm", ["cut", "changed", "empty", "gone"])
def test_a_damaged_layer_is_read_from_the_model(target: TargetModel, stored: StoredActivations, harm: str) -> None:
    [path] = stored.folder.glob("layer-001")
    raw = path.read_bytes()
    changed = {"cut": raw[:-5], "changed": raw[:-1] + bytes([raw[-1] ^ 1]), "empty": b""}
    path.unlink() if harm == "gone" else path.write_bytes(changed[harm])
    assert stored.layer(1, np.array([3])) is None
    assert stored.layer(0, np.array([3])) is not None
    unit, before = Unit("neuron", 1, 3), target.forwards
    found = ToolContext(target, PART, stored).activations(unit, "explore", n_tokens=SAMPLE)
    assert target.forwards > before
    np.testing.assert_array_equal(found, ToolContext(target, PART).activations(unit, "explore", n_tokens=SAMPLE))


def test_what_is_kept_is_not_read_again(target: TargetModel, stored: StoredActivations) -> None:
    sample = ToolContext(target, PART).sample("explore", SAMPLE)
    before = target.forwards
    assert store_activations(target, sample, stored) == ()
    assert target.forwards == before


def test_a_layer_that_takes_too_much_room_is_left_out_and_said(
    target: TargetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_module, "LAYER_BYTES", 64)
    found = StoredActivations.of(target, PART, SAMPLE, cache=tmp_path)
    sample = ToolContext(target, PART).sample("explore", SAMPLE)
    assert store_activations(target, sample, found) == tuple(range(target.spec.n_layers))
    assert found.layers(target.spec.n_layers) == ()


def test_each_model_corpus_and_sample_has_its_own_place(target: TargetModel, tmp_path: Path) -> None:
    places = {
        StoredActivations.of(target, corpus, n, cache=tmp_path).folder
        for corpus in (PART, OTHER)
        for n in (SAMPLE, SAMPLE + 1)
    }
    assert len(places) == 4


def test_the_command_line_builds_an_index_and_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": one.text}) + "\n" for one in OTHER.documents))
    inputs = ["--model", str(make_model("llama", tmp_path / "llama")), "--corpus", str(text), "--json"]

    def printed(command: str, *more: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["index", command, *inputs, *more], catch_exceptions=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    nothing = printed("status")
    assert (nothing["statistics"], nothing["activations"], nothing["mebibytes"]) == (False, [], 0.0)
    built = printed("build")
    assert built["statistics"] is True
    assert built["activations"] == list(range(int(str(built["layers"]))))
    assert printed("status") == built
    heads = printed("build", "--kinds", "heads", "--layers", "0,2")["kinds"][1]
    assert (heads["kind"], heads["complete"]) == ("heads", ["heads-000", "heads-002"])
    assert (heads["parts"], heads["done"], heads["missing"]) == (3, 2, 1)
    for wrong, said in (
        ("--kinds=cats", "choose from neurons"),
        ("--layers=9", "layers 0 to 2"),
        ("--shard=3/2", "1/4 to 4/4"),
    ):
        refused = CliRunner().invoke(app, ["index", "build", *inputs, wrong])
        assert isinstance(refused.exception, UserError)
        assert said in str(refused.exception)


def test_the_command_line_merges_indexes_and_clears_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = str(make_model("llama", tmp_path / "llama")), tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": one.text}) + "\n" for one in OTHER.documents))

    def index(cache: str, *words: str) -> Any:
        monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / cache))
        return json.loads(CliRunner().invoke(app, ["index", *words, "--json"], catch_exceptions=False).stdout)

    inputs = ("--model", model, "--corpus", str(text))
    index("there", "build", *inputs, "--kinds", "heads", "--shard", "1/1")
    [merged] = index("here", "merge", str(tmp_path / "there" / "index"))
    assert (merged["copied"], merged["already_there"], merged["damaged"]) == (3, 0, [])
    assert len(index("here", "status", *inputs)["kinds"][1]["complete"]) == 3
    assert index("there", "gc", "--model", model)["garbage"] == []
    text.unlink()
    found = index("there", "gc", "--model", model)
    assert [Path(one["path"]).parent for one in found["garbage"]] == [tmp_path / "there" / "index"]
    assert "is gone" in found["garbage"][0]["reason"]
    assert Path(found["garbage"][0]["path"]).exists()
    assert index("there", "gc", "--model", model, "--yes")["removed"] is True
    assert list((tmp_path / "there" / "index").iterdir()) == []

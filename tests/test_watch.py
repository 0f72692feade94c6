"""Findings about earlier weights, asked again of new ones: what holds survives, what was edited away is lost, nothing is rewritten;
and a test that the earlier weights fail as well decides nothing."""

import json
import random
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File
from neuronaut.tools.features.dictionary import Dictionary, Layout
from neuronaut.tools.features.places import place_of
from neuronaut.tools.features.saelens import save_dictionary
from neuronaut.tools.together import BatchContext

MADE = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
CHANGED = runpy.run_path(str(Path(__file__).with_name("changed_models.py")))
RULES = {3: "cat", 5: "dog", 7: "sat", 9: "old"}  # neurons of layer 0, each with the word on which it fires
KEPT, EDITED = "0.3", "0.7"
NOISE = 1e-4  # of every tensor's norm: other weights, the same model
SEEDS = range(12)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(MADE["make_model"]("gpt2", tmp_path_factory.mktemp("watch") / "base"))


@pytest.fixture(scope="module")
def before(base: Path) -> Path:
    """The earlier weights."""
    return Path(CHANGED["planted_copy"](base, base.parent / "before", RULES))


@pytest.fixture(scope="module")
def corpus(base: Path) -> Path:
    return Path(CHANGED["word_texts"](base.parent / "corpus.jsonl", words=MADE["TEXT"]))


@pytest.fixture(scope="module")
def earlier(neuronaut: Callable[..., Any], before: Path, corpus: Path) -> Path:
    """A notebook with SUPPORTED findings about the earlier weights, at least one of each neuron."""
    file = before.parent / "n.db"
    for index, word in RULES.items():
        options = ("--fast", "--json", "--model", before, "--corpus", corpus, "--notebook", file)
        ended = neuronaut("ask", f"test 0.{index}: token(' {word}')", *options)
        claims = json.loads(ended.out)["claims"]
        assert [row["predicate"]["any_of"] for row in claims if row["status"] == "SUPPORTED"] == [[f" {word}"]], claims
    return file


@pytest.fixture(scope="module")
def later(base: Path) -> Path:
    """A later checkpoint: a little noise everywhere, and one neuron that fires on another word."""
    return _later(base, int(EDITED.partition(".")[2]), 0)


def _later(base: Path, index: int, seed: int) -> Path:
    place = base.parent / f"later-{index}-{seed}"
    rules = RULES | {index: "rain"}
    return place if place.exists() else Path(CHANGED["planted_copy"](base, place, rules, noise=NOISE, seed=seed))


@pytest.fixture
def notebook(earlier: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(earlier, tmp_path / "copy.db"))


@pytest.fixture
def watch(neuronaut: Callable[..., Any], corpus: Path, notebook: Path) -> Callable[..., Any]:
    """What `neuronaut watch` says of a checkpoint; on the corpus of the findings unless another is given."""

    def command(model: Path, *more: object, text: Path = corpus, of: str = "before") -> Any:
        return neuronaut("watch", "--model", model, "--of", of, "--corpus", text, "--notebook", notebook, *more)

    return command


def _findings(ended: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ended.out)["survived"]["findings"]
    return found


def _rows(file: Path) -> dict[str, Any]:
    with Notebook(File(file), read_only=True) as opened:
        ids = [row["id"] for run in queries.runs(opened) for row in queries.hypotheses(opened, run["id"])]
        return queries.states(opened, ids)


def _controls(file: Path) -> list[dict[str, Any]]:
    with Notebook(File(file), read_only=True) as opened:
        runs = queries.runs(opened)
        return [row for run in runs for row in queries.experiments(opened, run["id"]) if row["tool"] == "test_other"]


def test_what_holds_for_new_weights_survives_and_what_was_edited_away_does_not(
    neuronaut: Callable[..., Any], watch: Callable[..., Any], later: Path, notebook: Path
) -> None:
    before = _rows(notebook)
    ended = watch(later, "--json")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    found = {(row["unit"], row["became"]) for row in answer["survived"]["findings"]}
    assert (KEPT, "survived") in found
    assert {became for unit, became in found if unit == EDITED} == {"lost"}
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


@pytest.mark.parametrize("seed", SEEDS)
def test_the_edited_neuron_alone_is_lost_where_the_earlier_weights_pass_on_the_same_text(
    watch: Callable[..., Any], base: Path, notebook: Path, seed: int
) -> None:
    index = random.Random(seed).choice(list(RULES))
    rows = _findings(watch(_later(base, index, seed), "--json"))
    edited = [row for row in rows if row["unit"] == f"0.{index}"]
    assert {row["unit"] for row in rows} == {f"0.{one}" for one in RULES}
    assert {(row["became"], row["control"]["outcome"]) for row in edited} == {("lost", "SUPPORTED")}
    assert all(row["control"]["forwards"] > 0 for row in edited)
    assert {(row["became"], row["control"]) for row in rows if row not in edited} == {("survived", None)}
    assert len(_controls(notebook)) == len(edited)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_finding_that_the_earlier_weights_fail_too_is_undecided(
    watch: Callable[..., Any], base: Path, tmp_path: Path, seed: int
) -> None:
    """One word stands in no text, one in too few for the earlier weights to be tested; the neuron of the latter was edited as well."""
    absent, rare = random.Random(seed).sample(list(RULES), 2)
    text = CHANGED["word_texts"](tmp_path / "rare.jsonl", {RULES[absent]: 0, RULES[rare]: 40}, words=MADE["TEXT"])
    rows = {row["unit"]: row for row in _findings(watch(_later(base, rare, seed), "--json", text=text))}
    assert {row["became"] for row in rows.values()} == {"survived", "undecided"}
    assert {unit for unit, row in rows.items() if row["became"] == "undecided"} == {f"0.{absent}", f"0.{rare}"}
    assert rows[f"0.{absent}"]["control"]["outcome"] == "ABSTAINED"
    assert rows[f"0.{absent}"]["now"] is None
    assert rows[f"0.{rare}"]["control"]["outcome"] not in ("SUPPORTED", None)


def test_a_neuron_that_went_silent_is_lost_where_it_fires_with_the_earlier_weights(
    watch: Callable[..., Any], base: Path, tmp_path: Path
) -> None:
    silent = CHANGED["planted_copy"](base, tmp_path / "silent", RULES | {7: "no such word"}, noise=NOISE)
    row = next(row for row in _findings(watch(silent, "--json")) if row["unit"] == EDITED)
    assert (row["became"], row["control"]["outcome"], row["now"]) == ("lost", "SUPPORTED", None)


def test_without_the_earlier_weights_a_failure_says_so_and_is_decided_once_they_are_named(
    watch: Callable[..., Any], before: Path, later: Path, tmp_path: Path
) -> None:
    away = before.rename(tmp_path / "away")
    try:
        ended = watch(later, "--json")
        assert ended.code == 0, ended.err
        row = next(row for row in _findings(ended) if row["unit"] == EDITED)
        assert (row["became"], row["control"]["outcome"]) == ("no control", None)
        assert "not at hand" in row["control"]["reason"]
        assert "no control: the earlier weights are not at hand (--other NAME=FOLDER" in watch(later).out
        named = json.loads(watch(later, "--json", "--other", f"then={away}").out)
        row = next(row for row in named["survived"]["findings"] if row["unit"] == EDITED)
        assert (row["became"], row["control"]["outcome"]) == ("lost", "SUPPORTED")
        assert named["cost"]["forwards"] == row["control"]["forwards"]  # and nothing else was measured again
    finally:
        away.rename(before)


def test_one_pass_over_a_text_serves_all_findings_of_a_layer(
    watch: Callable[..., Any], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[int, Any]] = []
    read = BatchContext._read_on

    def counted(self: BatchContext, text: Any, wanted: Any) -> Any:
        passes.append((id(self.target), text))
        return read(self, text, wanted)

    monkeypatch.setattr(BatchContext, "_read_on", counted)
    edited = CHANGED["planted_copy"](base, base.parent / "all", dict.fromkeys(RULES, "rain"), noise=NOISE)
    rows = _findings(watch(edited, "--json"))
    assert [row["became"] for row in rows] == ["lost"] * len(RULES)
    confirm = [one for one in passes if one[1][0] == "confirm"]
    assert len({target for target, _ in confirm}) == 2  # the weights of now and the earlier ones
    assert len(confirm) == len(set(confirm))


def test_a_watch_that_was_stopped_goes_on_and_asks_nothing_twice(
    neuronaut: Callable[..., Any], watch: Callable[..., Any], later: Path, notebook: Path
) -> None:
    stopped = watch(later, "--json", "--budget-forwards", "1")
    assert stopped.code == 1
    answer = json.loads(stopped.out)
    assert answer["outcome"] == "out_of_budget"
    assert answer["survived"]["counts"]["not tested"] >= 1
    again = watch(later, "--json")
    whole = json.loads(again.out)
    assert again.code == 0, again.err
    assert whole["survived"]["counts"]["not tested"] == 0
    resumed = neuronaut("resume", answer["run"], "--notebook", notebook, "--json")
    assert resumed.code == 1  # its budget is as small as before
    third = json.loads(watch(later, "--json").out)
    assert third["run"] != whole["run"]
    assert third["cost"]["forwards"] == 0
    assert [row["became"] for row in third["survived"]["findings"]] == [
        row["became"] for row in whole["survived"]["findings"]
    ]
    judged_in = {row["now"]["run"] for row in third["survived"]["findings"] if row["now"]}
    assert judged_in <= {answer["run"], whole["run"]}


@pytest.fixture(scope="module")
def dictionary(before: Path) -> Path:
    """A dictionary of two features of the layer's MLP, which are two of its neurons; made for no weights in particular."""
    weights = CHANGED["load_file"](before / "model.safetensors")
    names = {"W_enc": "c_fc.weight", "b_enc": "c_fc.bias", "W_dec": "c_proj.weight"}
    own = {name: weights[f"transformer.h.0.mlp.{of}"].float() for name, of in names.items()}
    kept = {"W_enc": own["W_enc"][:, 3:6], "b_enc": own["b_enc"][3:6], "W_dec": own["W_dec"][3:6]}
    places = place_of("blocks.0.mlp.hook_in"), place_of("blocks.0.hook_mlp_out")
    layout = Layout("transcoder", *places, 32, 32, 3, subtracts_b_dec=False)
    folder = before.parent / "dictionary"
    save_dictionary(Dictionary("mine", "0" * 64, layout, kept | {"b_dec": torch.zeros(32)}), folder)
    return folder


def test_features_are_watched_with_their_dictionary_and_named_as_not_watched_without(
    neuronaut: Callable[..., Any], watch: Callable[..., Any], base: Path, before: Path, corpus: Path, notebook: Path,
    dictionary: Path,
) -> None:  # fmt: skip
    same = ("--dictionary", f"mine={dictionary}")
    asked = ("--fast", "--json", "--model", before, "--corpus", corpus, "--notebook", notebook, *same)
    ended = neuronaut("ask", "test sae:mine/0: token(' cat')", *asked)
    assert any(row["status"] == "SUPPORTED" for row in json.loads(ended.out)["claims"]), ended.err
    later = _later(base, 3, 0)
    without = watch(later, "--json")
    assert without.code == 0, without.err
    (row,) = (row for row in _findings(without) if row["unit"] == "sae:mine/0")
    assert row["became"] == "not watched"
    assert "--dictionary mine=FOLDER" in row["reason"]
    assert "not watched" in watch(later).out
    (row,) = (row for row in _findings(watch(later, "--json", *same)) if row["unit"] == "sae:mine/0")
    assert row["became"] == "survived"  # the feature reads what the edited neuron read, and was not edited


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--of", "nothing"), "has nothing about earlier weights called 'nothing'"),
        ((), "has nothing about earlier weights called 'later-7-0'"),
    ],
)
def test_weights_that_the_notebook_does_not_know_are_refused_in_one_sentence(
    neuronaut: Callable[..., Any], later: Path, corpus: Path, notebook: Path, options: tuple[str, ...], said: str
) -> None:
    ended = neuronaut("watch", "--model", later, "--corpus", corpus, "--notebook", notebook, *options)
    assert ended.code == 2
    assert said in ended.err
    assert "it knows before (" in ended.err
    assert "Traceback" not in ended.err


def test_the_same_weights_are_no_later_ones(
    neuronaut: Callable[..., Any], before: Path, corpus: Path, notebook: Path
) -> None:
    ended = neuronaut("watch", "--model", before, "--corpus", corpus, "--notebook", notebook)
    assert ended.code == 2
    assert "it knows no other weights" in ended.err

"""Units in another model: a permuted copy is matched exactly, a re-initialised model not at all."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neuronaut.agent.questions import parse_question
from neuronaut.tools.corpus import Corpus, load_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.matching.align import aligned
from neuronaut.tools.matching.moments import Moments
from neuronaut.tools.registered import Registered
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target, open_folder
from neuronaut.tools.targets.others import OtherModel
from neuronaut.tools.targets.twins import twin_weights
from neuronaut.tools.units import Unit

tiny_models = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
SEEDS = range(20)
LAYERS, D_MLP = 3, 40


def variant(folder: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    """A copy of a model with other weights."""
    to.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (to / name).write_bytes((folder / name).read_bytes())
    save_file(change(load_file(folder / "model.safetensors")), to / "model.safetensors", {"format": "pt"})
    return to


def permuted(orders: list[torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Neuron orders[layer][i] of the model becomes neuron i."""

    def change(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for layer, order in enumerate(orders):
            mlp = f"transformer.h.{layer}.mlp"
            weights[f"{mlp}.c_fc.weight"] = weights[f"{mlp}.c_fc.weight"][:, order].contiguous()
            weights[f"{mlp}.c_fc.bias"] = weights[f"{mlp}.c_fc.bias"][order].contiguous()
            weights[f"{mlp}.c_proj.weight"] = weights[f"{mlp}.c_proj.weight"][order].contiguous()
        return weights

    return change


def redrawn(seed: int) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda weights: twin_weights(weights, "random-init", 1000 + seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_models["make_model"]("gpt2", tmp_path_factory.mktemp("matching") / "model"))


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_models["make_corpus"](tmp_path_factory.mktemp("matching") / "corpus.jsonl"))


@pytest.fixture(scope="module")
def corpus(corpus_file: Path) -> Corpus:
    return load_corpus(corpus_file)


@pytest.fixture(scope="module")
def model(folder: Path) -> TargetModel:
    return load_target(folder)


def run(model: TargetModel, corpus: Corpus, name: str, places: dict[str, Path], /, **args: Any) -> dict[str, Any]:
    return whole(model, corpus, name, places, **args).payload


def whole(model: TargetModel, corpus: Corpus, name: str, places: dict[str, Path], /, **args: Any) -> ToolResult:
    known = Registered({called: OtherModel(called, str(place)) for called, place in places.items()})
    tool = find_tool(name)
    return tool.run(ToolContext(model, corpus, registered=known), tool.parse(args))


def test_a_permuted_copy_is_matched_exactly_over_20_seeds(
    model: TargetModel, folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    for seed in SEEDS:
        rng = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(D_MLP, generator=rng) for _ in range(LAYERS)]
        copy = variant(folder, tmp_path / str(seed), permuted(orders))
        found = run(model, corpus, "match_units", {"copy": copy}, others=["copy"], n_tokens=1500, k=200, seed=seed)[
            "others"
        ][0]
        assert (found["matched"], found["mutual"], found["constant"]) == (LAYERS * D_MLP, LAYERS * D_MLP, 0)
        for pair in found["pairs"]:
            mine, theirs = Unit.parse(pair["unit"]), Unit.parse(pair["partner"])
            assert (theirs.layer, int(orders[theirs.layer][theirs.index])) == (mine.layer, mine.index)
            assert pair["r"] > 0.999


def test_a_reinitialised_model_gives_no_match_over_20_seeds(
    model: TargetModel, folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    for seed in SEEDS:
        other = variant(folder, tmp_path / str(seed), redrawn(seed))
        found = run(model, corpus, "match_units", {"other": other}, others=["other"], n_tokens=1500, seed=seed)[
            "others"
        ][0]
        assert found["matched"] == 0, seed


def test_matches_hold_on_other_text_and_exchanged_partners_do_not(
    model: TargetModel, folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    orders = [torch.randperm(D_MLP, generator=torch.Generator().manual_seed(layer)) for layer in range(LAYERS)]
    copy = variant(folder, tmp_path / "copy", permuted(orders))
    found = run(model, corpus, "match_units", {"copy": copy}, others=["copy"], n_tokens=1500, k=60)["others"][0]
    sampled = found["sampled"]
    args = {"units": [one["unit"] for one in sampled], "partners": [one["partner"] for one in sampled]}
    tested = whole(
        model, corpus, "test_matches", {"copy": copy}, other="copy", bars=[one["null"] for one in sampled], **args
    )
    held = tested.payload
    assert held["holding"] == held["n"] == LAYERS * D_MLP
    assert held["exchanged"] <= 0.05 * held["n"]
    lowest = 0.025 ** (1 / held["n"])  # of the exact interval of a share, where all hold
    assert tested.measurements[0].ci == pytest.approx((lowest, 1.0))
    assert all(one["interval"][0] <= one["r"] <= one["interval"][1] for one in held["pairs"])


def test_units_matched_in_all_others_are_universal(
    model: TargetModel, folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    same = variant(folder, tmp_path / "same", permuted([torch.arange(D_MLP).flip(0)] * LAYERS))

    def half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        drawn = twin_weights(weights, "random-init", 7)
        return {name: drawn[name] if ".h.2.mlp." in name else tensor for name, tensor in weights.items()}

    partly = variant(folder, tmp_path / "partly", half)
    found = run(
        model, corpus, "match_units", {"same": same, "partly": partly}, others=["same", "partly"], n_tokens=1500, k=200
    )
    layers = [Unit.parse(name).layer for name in found["universal"]]
    assert [layers.count(layer) for layer in (0, 1)] == [D_MLP, D_MLP]
    assert layers.count(2) <= D_MLP / 4, "neurons of a layer that was drawn anew"


def test_a_partner_with_its_sign_turned_is_named_so(tmp_path: Path, corpus: Corpus) -> None:
    """Of a gated neuron the sign can be moved from what it reads to what it writes."""
    llama = Path(tiny_models["make_model"]("llama", tmp_path / "llama"))

    def turned(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        turn = {"up_proj", "down_proj"}
        return {name: -one if turn & set(name.split(".")) else one for name, one in weights.items()}

    copy = variant(llama, tmp_path / "copy", turned)
    model = load_target(llama)
    found = run(model, corpus, "match_units", {"copy": copy}, others=["copy"], n_tokens=1500, k=60)["others"][0]
    assert found["matched"] == LAYERS * D_MLP
    assert all(pair["partner"] == f"{pair['unit']}-" for pair in found["pairs"])
    some = found["sampled"]
    args = {
        name: [one[key] for one in some] for name, key in (("units", "unit"), ("partners", "partner"), ("bars", "null"))
    }
    assert run(model, corpus, "test_matches", {"copy": copy}, other="copy", **args)["holding"] == len(some)


def test_no_unit_is_its_own_partner_across_layers(model: TargetModel, corpus: Corpus) -> None:
    found = run(model, corpus, "match_units", {}, n_tokens=1500, k=200)["others"][0]
    assert all(Unit.parse(one["unit"]).layer != Unit.parse(one["partner"]).layer for one in found["pairs"])


def test_streamed_correlations_are_those_of_all_activations_at_once() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(1000, 1, (500, 7)), rng.normal(-3, 5, (500, 6))
    y[:, 2], y[:, 4] = -2 * x[:, 1] + rng.normal(0, 0.1, 500), 8.0
    sums = Moments([2, 4])
    for at in range(0, 500, 90):
        sums.add(torch.from_numpy(x[at : at + 90]).float(), torch.from_numpy(y[at : at + 90]).float())
    expected = np.corrcoef(x.T, np.delete(y, 4, axis=1).T)[:7, 7:]
    found = sums.correlations().numpy()
    np.testing.assert_allclose(np.delete(found, 4, axis=1), expected, atol=2e-3)
    assert not found[:, 4].any()


def test_a_rotated_block_correlates_as_its_mixtures_do() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(0, 1, (4000, 5)) @ rng.normal(0, 1, (5, 5))
    x = y[:, :3] + rng.normal(0, 1, (4000, 3))
    sums = Moments([5])
    sums.add(torch.from_numpy(x).float(), torch.from_numpy(y).float())
    mixed = torch.randn(5, 5, generator=torch.Generator().manual_seed(3)).numpy()
    z = (y - y.mean(axis=0)) / y.std(axis=0) @ mixed
    np.testing.assert_allclose(sums.rotated(3).numpy(), np.corrcoef(x.T, z.T)[:3, 3:], atol=1e-3)


def test_tokens_of_different_tokenizers_meet_where_they_end(model: TargetModel, tmp_path: Path) -> None:
    other = load_target(tiny_models["make_model"]("llama", tmp_path / "llama"))
    texts = ["the cat sat on the mat", "the dog ran"]
    one, two = model.tokenize(texts), other.tokenize(texts)
    first, second = aligned(one, two)
    ends = [
        [(int(tokens.documents[w]), int(tokens.ends[w, p])) for w, p in zip(*cells, strict=True)]
        for tokens, cells in ((one, first), (two, second))
    ]
    assert ends[0] == ends[1]
    assert {(0, 7), (0, 22), (1, 11)} <= set(ends[0])


def test_a_model_with_another_tokenizer_is_matched_at_common_places(
    model: TargetModel, corpus: Corpus, tmp_path: Path
) -> None:
    other = tiny_models["make_model"]("llama", tmp_path / "llama")
    found = run(model, corpus, "match_units", {"llama": other}, others=["llama"], n_tokens=1500)["others"][0]
    assert 1000 <= found["places"] <= found["tokens"]
    assert found["matched"] == 0


def test_tokenizers_without_common_places_are_refused(
    model: TargetModel, folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    other = variant(folder, tmp_path / "other", redrawn(0))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "  "}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    opened = OtherModel("other", str(other)).target
    wide = opened.tokenize(["the cat"])
    assert wide.n_scored
    documents = corpus.of("explore")[:2]
    few = Corpus(corpus.name, corpus.sha256, documents)
    with pytest.raises(ToolRefused, match="tokens end at a character"):
        run(model, few, "match_units", {"other": other}, others=["other"], n_tokens=1500)


def test_what_cannot_be_matched_is_refused_in_one_sentence(model: TargetModel, folder: Path, corpus: Corpus) -> None:
    with pytest.raises(ToolRefused, match="has the same weights as"):
        run(model, corpus, "match_units", {"same": folder}, others=["same"])
    with pytest.raises(ToolRefused, match="no other model is called 'x'"):
        run(model, corpus, "match_units", {}, others=["x"])
    with pytest.raises(ToolRefused, match="layer 9 does not exist"):
        run(model, corpus, "match_units", {}, layers=[9])


def test_an_other_model_is_opened_late_and_kept_by_its_hash(folder: Path) -> None:
    other = OtherModel("other", str(folder))
    assert not {"folder", "target"} & set(vars(other))
    assert len(other.sha256) == 64
    assert "target" not in vars(other)
    assert open_folder(str(folder)).weights_sha256 == other.folder.weights_sha256


def test_the_answer_shows_matches_and_their_test_and_refuses_a_changed_model(
    neuronaut: Callable[..., Any], folder: Path, corpus_file: Path, tmp_path: Path
) -> None:
    copy = variant(folder, tmp_path / "copy", permuted([torch.arange(D_MLP).flip(0)] * LAYERS))
    asked = ("ask", "match the units with copy", "--other", f"copy={copy}", "--model", folder, "--corpus", corpus_file)
    answer = json.loads((said := neuronaut(*asked, "--json")).out)
    assert said.code == 0
    assert [one["tool"] for one in answer["measured"]] == ["match_units", "test_matches"]
    assert any("120 of 120 units have a match in copy" in line for line in answer["measured"][0]["lines"])
    assert [figure["name"] for figure in answer["figures"]] == ["matches_copy"]
    assert "answered before" in neuronaut(*asked).err
    again = neuronaut("rerun", answer["run"])
    assert (again.code, again.out.count("identical")) == (0, 2)
    variant(folder, tmp_path / "redrawn", redrawn(0))
    (copy / "model.safetensors").write_bytes((tmp_path / "redrawn" / "model.safetensors").read_bytes())
    refused = neuronaut("rerun", answer["run"])
    assert (refused.code, "other model copy changed since" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--other", "x"), "has no name"),
        (("--other", "x=/no/such/folder"), "no model folder"),
        ((), "no other model is called 'x'"),
    ],
)
def test_a_bad_other_model_is_one_sentence(
    options: tuple[str, ...], says: str, neuronaut: Callable[..., Any], tiny: tuple[str, ...]
) -> None:
    said = neuronaut("ask", "match the units with x", *options, *tiny)
    assert (said.code, said.err.strip().count("Traceback")) == (2, 0)
    assert says in said.err


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("match the units with twin", ("twin",)),
        ("match neurons to seed2 and seed3", ("seed2", "seed3")),
        ("which neurons are universal across a, b and c?", ("a", "b", "c")),
        ("which units are the same in other-1", ("other-1",)),
        ("match the units across layers", ()),
        ("which neurons have the same in other layers?", ()),
    ],
)
def test_matches_are_asked_of_other_models_and_layers(text: str, others: tuple[str, ...]) -> None:
    question = parse_question(text)
    assert (question.intent, question.others) == ("match", others)

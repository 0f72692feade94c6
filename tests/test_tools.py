"""The tools against the same measurements made by hand on a second reading of the weights."""

import json
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.intervene import next_token
from neuronaut.tools.look import capture
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool, registry
from neuronaut.tools.targets.load import POCKET, load_target
from neuronaut.tools.units import Unit

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
PROMPTS = (
    "the cat",
    "the dog ran to",
    "and the men",
    "on the old",
    "the rain fell",
    "to the cat",
    "the town",
    "sat on",
)
NOT_FINITE = float("nan")
Change = Callable[[str, int, Tensor], Tensor]


@dataclass(frozen=True)
class Bench:
    """A target with its second reading, and tools called by name."""

    context: ToolContext
    plain: Any

    def run(self, name: str, **args: Any) -> ToolResult:
        tool = find_tool(name)
        return tool.run(self.context, tool.parse(json.dumps(args)))

    def ids(self, text: str) -> Tensor:
        return torch.from_numpy(self.context.target.tokenize([text]).ids).long()

    def last(self, text: str, change: Change | None = None) -> Tensor:
        """(d_vocab,) log-probabilities by hand, one text at a time: nothing is padded."""
        with torch.no_grad():
            found: Tensor = self.plain.run(self.ids(text), change)[0, -1].double().log_softmax(-1)
        return found

    def seen(self, text: str, name: str, layer: int) -> Tensor:
        """(pos, …) an activation by hand."""
        self.last(text)
        found: Tensor = self.plain.seen[name, layer][0]
        return found

    def piece(self, at: int = 300) -> str:
        """A token that is found by its text."""
        pieces = self.context.target.vocabulary.pieces
        assert pieces.index(pieces[at]) == at
        return pieces[at]


@pytest.fixture(scope="module")
def open_bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    @cache
    def opened(name: str) -> Bench:
        folder = POCKET if name == "pocket" else make_model(name, tmp_path_factory.mktemp("models") / name)
        target = load_target(folder)
        import transformers

        defaults = transformers.AutoConfig.from_pretrained(folder).to_dict()
        return Bench(ToolContext(target, pocket_corpus()), PlainModel(folder, defaults))

    return opened


@pytest.fixture(params=["pocket", "llama", "gemma2"])
def bench(request: pytest.FixtureRequest, open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench(str(request.param))


@pytest.fixture
def pocket(open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench("pocket")


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a handful of prompts fills several batches."""
    monkeypatch.setattr(next_token, "BATCH_TOKENS", 12)


def _measured(result: ToolResult, metric: str) -> Measurement:
    [found] = [one for one in result.measurements if one.metric == metric]
    return found


def _at_last(site: tuple[str, int], index: int, value: Any, how: str = "set") -> Change:
    def change(name: str, layer: int, x: Tensor) -> Tensor:
        if (name, layer) == site:
            x = x.clone()
            x[:, -1, index] = x[:, -1, index] + value if how == "add" else value
        return x

    return change


def _drops(bench: Bench, site: tuple[str, int], index: int, answer: int, how: str) -> np.ndarray:
    """By hand, one prompt at a time; resample is checked as "the value of some other prompt" elsewhere."""
    values = torch.stack([bench.seen(text, *site)[-1, index] for text in PROMPTS])
    instead = values.mean(0) if how == "mean" else torch.zeros_like(values[0])
    return np.array(
        [float((bench.last(t) - bench.last(t, _at_last(site, index, instead)))[answer]) for t in PROMPTS], dtype=float
    )


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("how", ["zero", "mean"])
@pytest.mark.parametrize(("unit", "site"), [("1.7", ("neurons", 1)), ("L1H2", ("heads", 1))])
def test_ablate_is_the_fall_of_the_answer_by_hand(bench: Bench, unit: str, site: tuple[str, int], how: str) -> None:
    index, answer = int(unit[-1]), bench.piece()
    found = bench.run("ablate", unit=unit, prompts=PROMPTS, answer=answer, how=how)
    expected = _drops(bench, site, index, 300, how)
    drop = _measured(found, "log_prob_drop")
    assert drop.n == len(PROMPTS)
    assert drop.value == pytest.approx(expected.mean(), abs=1e-4)
    rows = found.payload["prompts"]
    assert [row["prompt"] for row in rows] == list(PROMPTS)
    np.testing.assert_allclose([row["drop"] for row in rows], expected, atol=1e-4)
    np.testing.assert_allclose(
        [row["log_prob"] for row in rows], [float(bench.last(t)[300]) for t in PROMPTS], atol=1e-4
    )


def test_the_null_of_ablate_is_the_same_for_the_other_units_of_the_layer(open_bench: Callable[[str], Bench]) -> None:
    bench = open_bench("llama")
    found = _measured(
        bench.run("ablate", unit="L1H2", prompts=PROMPTS, answer=bench.piece(), how="zero"), "log_prob_drop"
    )
    others = [_drops(bench, ("heads", 1), head, 300, "zero").mean() for head in (0, 1, 3)]
    assert found.null_value == pytest.approx(np.mean(others), abs=1e-4)
    assert found.null_percentile == pytest.approx(100 * np.mean(np.abs(others) < abs(found.value)))


def test_resample_puts_in_the_value_of_another_prompt(bench: Bench) -> None:
    site = ("neurons", 1)
    values = [bench.seen(text, *site)[-1] for text in PROMPTS]
    index = int(torch.stack(values).std(0).argmax())
    found = bench.run("ablate", unit=f"1.{index}", prompts=PROMPTS, answer=bench.piece(), seed=3).payload["prompts"]
    donors = []
    for at, text in enumerate(PROMPTS):
        plain = bench.last(text)
        drops = [float((plain - bench.last(text, _at_last(site, index, v[index])))[300]) for v in values]
        fitting = [i for i, drop in enumerate(drops) if i != at and abs(drop - found[at]["drop"]) < 2e-5]
        assert fitting
        donors.append(fitting)
    chosen = {donor for fitting in donors for donor in fitting}
    assert chosen == set(range(len(PROMPTS))), "each prompt gives its value once"


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("how", ["set", "add"])
def test_steer_is_the_dose_response_by_hand(bench: Bench, how: str) -> None:
    doses, site, index = (-1.0, 0.0, 0.5, 3.0), ("neurons", 1), 5
    curves = [[float(bench.last(text, _at_last(site, index, dose, how))[300]) for text in PROMPTS] for dose in doses]
    slopes, _ = np.polyfit(doses, np.array(curves), 1)
    mean = np.array(curves).mean(axis=1)
    line = np.polyval(np.polyfit(doses, mean, 1), doses)
    found = bench.run("steer", unit="1.5", prompts=PROMPTS, token=bench.piece(), doses=doses, how=how)
    slope = _measured(found, "slope")
    assert slope.value == pytest.approx(slopes.mean(), abs=1e-4)
    assert slope.n == len(PROMPTS)
    assert slope.ci is not None
    half = slopes.std(ddof=1) / np.sqrt(len(PROMPTS)) * 2.364624  # t of 7 degrees of freedom at 97.5 %
    assert slope.ci == pytest.approx((slopes.mean() - half, slopes.mean() + half), abs=1e-4)
    explained = 1 - ((mean - line) ** 2).sum() / ((mean - mean.mean()) ** 2).sum()
    assert _measured(found, "r2").value == pytest.approx(explained, abs=1e-2)
    assert [row["dose"] for row in found.payload["curve"]] == list(doses)
    np.testing.assert_allclose([row["log_prob"] for row in found.payload["curve"]], mean, atol=1e-4)


@pytest.mark.usefixtures("small_batches")
def test_intervene_is_the_edited_model_by_hand(bench: Bench) -> None:
    bos = bench.context.target.spec.bos is not None
    edits = [
        {"site": "neurons", "layer": 1, "how": "set", "value": 2.5, "index": 3, "position": 1},
        {"site": "heads", "layer": 2, "how": "scale", "value": -2.0, "index": 1},
        {"site": "resid_post", "layer": 0, "how": "add", "value": 0.7},
    ]

    def change(name: str, layer: int, x: Tensor) -> Tensor:
        x = x.clone()
        if (name, layer) == ("neurons", 1):
            x[:, 1 + bos, 3] = 2.5
        if (name, layer) == ("heads", 2):
            x[:, :, 1] *= -2.0
        return x + 0.7 if (name, layer) == ("resid_post", 0) else x

    texts = [text for text in PROMPTS if bench.ids(text).shape[1] > 1 + bos]
    found = bench.run("intervene", texts=texts, edits=edits, k=4)
    kls = []
    for text, row in zip(texts, found.payload["texts"], strict=True):
        plain, edited = bench.last(text), bench.last(text, change)
        kls.append(float((plain.exp() * (plain - edited)).sum()))
        assert row["text"] == text
        assert row["kl"] == pytest.approx(kls[-1], abs=1e-4)
        for known, expected in ((row["plain"], plain), (row["edited"], edited)):
            np.testing.assert_allclose([one["p"] for one in known], expected.exp().topk(4).values, atol=1e-4)
    assert _measured(found, "kl").value == pytest.approx(np.mean(kls), abs=1e-4)
    assert min(kls) > 1e-3


def test_no_edit_changes_nothing(bench: Bench) -> None:
    found = bench.run("intervene", texts=PROMPTS, edits=[], k=3)
    assert _measured(found, "kl").value == 0.0
    assert all(row["plain"] == row["edited"] for row in found.payload["texts"])


@pytest.mark.parametrize("site", ["neurons", "heads", "resid_post", "pattern"])
def test_capture_keeps_the_site_and_hides_the_padding(bench: Bench, site: str) -> None:
    found = bench.run("capture", site=site, layer=1, texts=PROMPTS)
    array = found.arrays[f"1.{site}"]
    assert list(array.shape) == found.payload["shape"]
    values, norms = [], []
    for row, text in zip(array, PROMPTS, strict=True):
        expected = bench.seen(text, site, 1).numpy()
        n = bench.ids(text).shape[1]
        kept = row[:, :n, :n] if site == "pattern" else row[:n]
        np.testing.assert_allclose(kept, expected, atol=1e-4)
        assert np.isnan(row).sum() == row.size - kept.size
        values.append(expected.ravel())
        norms.append(np.linalg.norm(expected, axis=-1).ravel())
    everything = np.concatenate(values)
    told = [found.payload[name] for name in ("mean", "std", "min", "max", "mean_norm")]
    by_hand = [everything.mean(), everything.std(), everything.min(), everything.max(), np.concatenate(norms).mean()]
    np.testing.assert_allclose(told, by_hand, atol=1e-4)


def test_capture_refuses_what_would_not_fit_into_memory(pocket: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MOST_BYTES", 3 << 20)
    texts = ["the " * 100] * 14
    assert pocket.run("capture", site="neurons", layer=1, texts=texts).arrays["1.neurons"].nbytes <= 3 << 20
    with pytest.raises(ToolRefused, match="give at most 3 MiB"):
        pocket.run("capture", site="neurons", layer=1, texts=[*texts, texts[0], texts[0]])


def test_activations_on_gives_each_token_its_activation(bench: Bench) -> None:
    found = bench.run("activations_on", unit="1.7-", texts=PROMPTS)
    for row, text in zip(found.payload["texts"], PROMPTS, strict=True):
        np.testing.assert_allclose(row["activations"], bench.seen(text, "neurons", 1)[:, 7], atol=1e-4)
        assert "".join(row["pieces"][bench.context.target.spec.bos is not None :]).lstrip() == text


def test_top_examples_are_the_largest_places_of_different_documents(pocket: Bench) -> None:
    rows = pocket.run("top_examples", unit="3.20", k=5, context=3).payload["examples"]
    lowest = pocket.run("top_examples", unit="3.20-", k=2).payload["examples"]
    tokens = pocket.context.sample("explore", 50_000)
    best: dict[int, float] = {}
    for at, document in enumerate(tokens.documents[:100].tolist()):
        values = pocket.seen(tokens.texts[at], "neurons", 3)[1:, 20]
        best[document] = max(best.get(document, -np.inf), float(values.max()))
    found = [row["activation"] for row in rows]
    assert found == sorted(found, reverse=True)
    assert len({row["document"] for row in rows}) == 5
    assert found[-1] >= sorted(best.values())[-5] - 1e-4
    for row in rows:
        assert row["activations"][row["centre"]] == pytest.approx(row["activation"], abs=1e-4)
        if row["document"] in best:
            assert row["activation"] == pytest.approx(best[row["document"]], abs=1e-4)
    assert max(row["activation"] for row in lowest) <= min(found)


def test_weights_of_names_the_neurons_that_are_alike(bench: Bench) -> None:
    target = bench.context.target
    found = bench.run("weights_of", unit="1.7", k=3)
    gpt2 = bench.plain.family == "gpt2"
    read_in = bench.plain["h.1.mlp.c_fc.weight"].T if gpt2 else bench.plain["layers.1.mlp.gate_proj.weight"]
    written = bench.plain["h.1.mlp.c_proj.weight"] if gpt2 else bench.plain["layers.1.mlp.down_proj.weight"].T
    if bench.plain.family == "gemma2":
        written = written * bench.plain.gain("layers.1.post_feedforward_layernorm")
    np.testing.assert_allclose(found.arrays["read"], read_in[7], atol=1e-5)
    np.testing.assert_allclose(found.arrays["write"], written[7], atol=1e-5)
    unit = lambda rows: rows / rows.norm(dim=1, keepdim=True)  # noqa: E731
    near = unit(written) @ unit(written)[7]
    near[7] = -2
    assert [row["neuron"] for row in found.payload["nearest_by_write"]] == [
        f"1.{i}" for i in near.topk(3).indices.tolist()
    ]
    cosines = (unit(read_in) * unit(written)).sum(dim=1)
    cosine = _measured(found, "cos_read_write")
    assert cosine.value == pytest.approx(float(cosines[7]), abs=1e-5)
    others = np.delete(cosines.numpy(), 7)
    assert cosine.null_percentile == pytest.approx(100 * (others < float(cosines[7])).mean(), abs=0.3)
    assert len(found.payload["nearest_embeddings"]) == 3
    assert target.spec.d_model == len(found.arrays["write"])


def test_promoted_tokens_are_those_whose_logits_the_neuron_moves(bench: Bench) -> None:
    """The last layer's neuron, its direct effect before the final norm's scale: a finite difference by hand."""
    last = bench.context.target.spec.n_layers - 1
    if bench.plain.family == "gemma2":
        last_write = bench.context.target.write_vectors(last)[7]
    else:
        name = f"h.{last}.mlp.c_proj.weight" if bench.plain.family == "gpt2" else f"layers.{last}.mlp.down_proj.weight"
        last_write = bench.plain[name][7] if bench.plain.family == "gpt2" else bench.plain[name][:, 7]
    gain = bench.plain["ln_f.weight"] if bench.plain.family == "gpt2" else bench.plain.gain("norm")
    logits = bench.plain.unembed @ (last_write * gain)
    logits = logits - logits.mean()
    found = bench.run("promoted_tokens", unit=f"{last}.7", k=4)
    pieces = bench.context.target.vocabulary.pieces
    for side, sign in (("promoted", 1), ("suppressed", -1)):
        best = (sign * logits).topk(4)
        assert [row["token"] for row in found.payload[side]] == [pieces[i] for i in best.indices.tolist()]
        np.testing.assert_allclose([row["logits"] for row in found.payload[side]], sign * best.values, atol=1e-3)
    minus = bench.run("promoted_tokens", unit=f"{last}.7-", k=4)
    assert [row["token"] for row in minus.payload["promoted"]] == [row["token"] for row in found.payload["suppressed"]]


def test_the_model_card_shows_shape_and_fingerprint(bench: Bench) -> None:
    found = bench.run("model_card").payload
    assert found["spec"]["n_layers"] == bench.context.target.spec.n_layers
    assert found["fingerprint"]["weights_sha256"] == bench.context.target.fingerprint().weights_sha256


_EIGHT = {"prompts": PROMPTS, "answer": " the"}
_STEER = {"unit": "1.1", "prompts": PROMPTS, "token": " the"}
_PATCH = {"clean": "the cat", "corrupted": "the dog", "answer": " the", "wrong_answer": " a", "layer": 0}


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("ablate", {**_EIGHT, "unit": "99.1"}, "has layers 0 to 9"),
        ("ablate", {**_EIGHT, "unit": "1.1", "answer": ""}, "answer is empty"),
        ("ablate", {**_EIGHT, "unit": "1.1", "prompts": PROMPTS[:7]}, "at least 8"),
        ("ablate", {**_EIGHT, "unit": "1.1", "more": 1}, "Extra inputs"),
        ("steer", {**_STEER, "unit": "L1H1"}, "is a head"),
        ("steer", {**_STEER, "doses": [1, 1, 2]}, "three different"),
        ("steer", {**_STEER, "doses": [0, 1, NOT_FINITE]}, "finite"),
        ("patch", {**_PATCH, "corrupted": "the"}, "equally long"),
        ("patch", {**_PATCH, "corrupted": "the cat"}, "nothing to recover"),
        ("patch", {**_PATCH, "wrong_answer": " the"}, "both ' the'"),
        ("patch", {**_PATCH, "layer": 10}, "has layers 0 to 9"),
        ("patch", {**_PATCH, "site": "pattern"}, "site"),
        ("patch", {**_PATCH, "site": "neurons", "layer": None}, "one layer at a time"),
        ("patch", {**_PATCH, "answer": ""}, "answer is empty"),
        ("capture", {"site": "neurons", "layer": 10, "texts": ["a"]}, "has layers 0 to 9"),
        (
            "intervene",
            {"texts": ["a"], "edits": [{"site": "pattern", "layer": 1, "how": "set", "value": 0}]},
            "read but",
        ),
        (
            "intervene",
            {"texts": ["a"], "edits": [{"site": "heads", "layer": 1, "how": "set", "value": 0, "index": 4}]},
            "indices 0 to 3",
        ),
        (
            "intervene",
            {"texts": ["a"], "edits": [{"site": "heads", "layer": 1, "how": "set", "value": 0, "position": 9}]},
            "position 9",
        ),
        ("weights_of", {"unit": "L1H1"}, "is a head"),
        ("promoted_tokens", {"unit": "L1H1"}, "is a head"),
        ("activations_on", {"unit": "1.1", "texts": ["the " * 200]}, "longer than the context"),
        ("activations_on", {"unit": "1.1", "texts": [""]}, "at least 1 character"),
    ],
)
def test_what_a_tool_cannot_do_it_refuses_before_any_forward(
    pocket: Bench, name: str, args: dict[str, Any], message: str
) -> None:
    before = pocket.context.target.forwards
    with pytest.raises(ToolRefused, match=message) as refusal:
        pocket.run(name, **args)
    assert "\n" not in str(refusal.value)
    assert pocket.context.target.forwards == before


def test_an_edit_that_breaks_the_numbers_fails_and_gives_none(pocket: Bench) -> None:
    edit = {"site": "resid_post", "layer": 9, "how": "scale", "value": 1e300}
    with pytest.raises(ToolFailed, match="not finite"):
        pocket.run("intervene", texts=["the cat"], edits=[edit])


def test_each_tool_says_what_comes_back_and_bounds_its_arguments() -> None:
    for name, tool in registry().items():
        schema = tool.schema()
        assert schema["name"] == name
        assert schema["description"]
        assert schema["parameters"]["additionalProperties"] is False
        with pytest.raises(ToolRefused, match="not JSON"):
            tool.parse("{")


def test_layers_before_the_edit_are_run_once(pocket: Bench) -> None:
    before = pocket.context.target.forwards
    pocket.run("ablate", unit="9.3", prompts=PROMPTS, answer=pocket.piece(), how="mean")
    spent = pocket.context.target.forwards - before
    assert spent == pytest.approx(len(PROMPTS) * (1 + 0.9 + 34 * 0.1))


def test_a_larger_sample_reads_only_what_a_smaller_one_did_not(pocket: Bench) -> None:
    unit = Unit.parse("3.7-")
    apart, together = (ToolContext(pocket.context.target, pocket.context.corpus) for _ in range(2))
    whole = apart.activations(unit, "explore", n_tokens=40_000)
    together.activations(unit, "explore", n_tokens=30_000)
    before = together.target.forwards
    found = together.activations(unit, "explore", n_tokens=40_000)
    part = together.target.forwards - before
    before = together.target.forwards
    ToolContext(together.target, together.corpus).activations(unit, "explore", n_tokens=40_000)
    assert 0 < part < 0.5 * (together.target.forwards - before)
    np.testing.assert_allclose(found, whole, atol=1e-5)

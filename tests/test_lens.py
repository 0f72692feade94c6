"""Lenses: what is read before each layer, against a second reading of the weights; sums of components; trained maps."""

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

from neuronaut.tools.corpus import load_corpus, pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look import tuned_lens
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.look.lens import predictions
from neuronaut.tools.look.margins import Places, margins, neuron_margins, part_names
from neuronaut.tools.look.readout import Readout, _cap
from neuronaut.tools.look.tuned_lens import Residuals, divergences, kept_lens, lens_file, residuals_of, train
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.base import Site
from neuronaut.tools.targets.load import POCKET, load_target

made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
FAMILIES = ("gpt2", "llama", "qwen3", "gemma2", "gemma3")
TEXT = "the cat sat on the mat and the dog"
QUICK = {"n_tokens": 2048, "steps": 25}


@dataclass(frozen=True)
class Bench:
    """A model through the tools, and by its weights alone."""

    context: ToolContext
    plain: Any

    def run(self, name: str, **args: Any) -> ToolResult:
        tool = find_tool(name)
        return tool.run(self.context, tool.parse(json.dumps(args)))

    @property
    def ids(self) -> Tensor:
        return to_ids(self.context.target.tokenize([TEXT]))

    def logits(self, layers: range | None = None, x: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            found: Tensor = self.plain.run(self.ids, layers=layers, x=x)
        return found


@pytest.fixture(scope="module")
def open_bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    @cache
    def opened(name: str) -> Bench:
        import transformers

        if name == "pocket":
            folder, corpus = POCKET, pocket_corpus()
        else:
            folder = made["make_model"](name, tmp_path_factory.mktemp("models") / name)
            corpus = load_corpus(made["make_corpus"](tmp_path_factory.mktemp("text") / "corpus.jsonl"))
        plain = PlainModel(folder, transformers.AutoConfig.from_pretrained(folder).to_dict())
        return Bench(ToolContext(load_target(folder), corpus), plain)

    return opened


@pytest.fixture(params=FAMILIES)
def bench(request: pytest.FixtureRequest, open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench(str(request.param))


@pytest.fixture
def pocket(open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench("pocket")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / "cache"))


def test_each_layer_is_read_as_if_it_were_the_last(bench: Bench) -> None:
    found = predictions(bench.context.target, bench.ids)
    whole = bench.logits()
    n_layers = bench.context.target.spec.n_layers
    before = [bench.plain.seen["resid_pre", layer].clone() for layer in range(n_layers)]
    for layer, residual in enumerate(before):
        expected = bench.logits(layers=range(0), x=residual)[0]
        np.testing.assert_allclose(found[layer], expected, atol=1e-3, err_msg=str(layer))
    np.testing.assert_allclose(found[-1], whole[0], atol=1e-3)


def test_the_table_is_that_of_the_log_probabilities_by_hand(bench: Bench) -> None:
    answer = bench.context.target.vocabulary.pieces[300]
    found = bench.run("logit_lens", text=TEXT, answer=answer, position=4, k=3)
    final = bench.logits()[0, 4].double().log_softmax(-1)
    before = [bench.plain.seen["resid_pre", layer].clone() for layer in range(3)]
    rows = [bench.logits(layers=range(0), x=x)[0, 4].double().log_softmax(-1) for x in before] + [final]
    for given, row in zip(found.payload["layers"], rows, strict=True):
        assert given["answer"] == pytest.approx(float(row[300]), abs=1e-3)
        assert given["rank"] == int((row > row[300]).sum()) + 1
        assert given["kl"] == pytest.approx(float((final.exp() * (final - row)).sum()), abs=1e-3)
        top = [bench.context.target.vocabulary.pieces[int(i)] for i in row.topk(3).indices]
        assert [token.rpartition(" ")[0] for token in given["tokens"]] == top
    assert [row["before"] for row in found.payload["layers"]] == [0, 1, 2, "output"]
    best = [int(row.argmax()) for row in rows]
    [settled] = found.measurements
    assert settled.value == next(at for at in range(4) if len(set(best[at:])) == 1)


@pytest.mark.parametrize("wrong", [None, 310])
def test_components_add_up_to_the_logit(bench: Bench, wrong: int | None) -> None:
    pieces = bench.context.target.vocabulary.pieces
    more = {} if wrong is None else {"wrong_answer": pieces[wrong]}
    found = bench.run("logit_lens", text=TEXT, answer=pieces[300], **more)
    bench.logits()
    normed = bench.plain.normed(
        bench.plain.seen["resid_post", 2][0, -1], "ln_f" if bench.plain.family == "gpt2" else "norm"
    )
    uncapped = normed @ bench.plain.unembed.T
    expected = float(uncapped[300] - (0 if wrong is None else uncapped[wrong]))
    assert found.payload["logit"] == pytest.approx(expected, abs=2e-3)
    assert sum(row["logit"] for row in found.payload["components"]) == pytest.approx(expected, abs=3e-3)
    model = bench.logits()[0, -1]
    assert found.payload["model_logit"] == pytest.approx(
        float(model[300] - (0 if wrong is None else model[wrong])), abs=2e-3
    )


def added(bench: Bench, position: int) -> dict[str, float]:
    """What each part adds to the logit of token 300."""
    target = bench.context.target
    found = margins(target, Readout.of(target), bench.ids, torch.tensor(300))[:, position]
    return dict(zip(part_names(target.spec), found.tolist(), strict=True))


def test_each_component_is_its_share_of_the_residual_by_hand(bench: Bench) -> None:
    """The logit of the residual with a component taken out, the scale of the last norm held at that of the whole."""
    position = 5
    parts = added(bench, position)
    bench.logits()
    seen = {key: value[0, position].clone() for key, value in bench.plain.seen.items() if key[0] != "pattern"}
    gpt2 = bench.plain.family == "gpt2"
    name = "ln_f" if gpt2 else "norm"
    residual = seen["resid_post", 2]
    centre = (lambda v: v - v.mean()) if gpt2 else (lambda v: v)
    epsilon = bench.plain.config["layer_norm_epsilon" if gpt2 else "rms_norm_eps"]
    scale = (centre(residual).square().mean() + epsilon).sqrt()
    gain = bench.plain[name + ".weight"] if gpt2 else bench.plain.gain(name)
    said = lambda v: float((centre(v) / scale * gain) @ bench.plain.unembed[300])  # noqa: E731
    assert parts["embed"] == pytest.approx(said(seen["resid_pre", 0]), abs=2e-3)
    assert parts["mlp1"] == pytest.approx(said(seen["mlp_out", 1]), abs=2e-3)
    heads = seen["heads", 1]
    out = bench.plain["h.1.attn.c_proj.weight"] if gpt2 else bench.plain["layers.1.self_attn.o_proj.weight"].T
    written = torch.einsum("hd,hdm->hm", heads, out.unflatten(0, (len(heads), -1)))
    if bench.plain.family.startswith("gemma"):
        raw = written.sum(0)
        written = (
            written / (raw.square().mean() + epsilon).sqrt() * bench.plain.gain("layers.1.post_attention_layernorm")
        )
    for head in range(len(heads)):
        assert parts[f"L1H{head}"] == pytest.approx(said(written[head]), abs=2e-3)
    biases = sum((bench.plain[f"h.{layer}.attn.c_proj.bias"] for layer in range(3)), torch.zeros(1)) if gpt2 else None
    assert parts["attention biases"] == pytest.approx(0.0 if biases is None else said(biases), abs=2e-3)


def test_neurons_add_up_to_their_mlp(bench: Bench) -> None:
    target = bench.context.target
    readout, parts = Readout.of(target), added(bench, 5)
    found = neuron_margins(target, readout, Places(bench.ids, [5]), (300, None))
    every = [(found.units[at], float(found.values[at, 0])) for at in found.largest(10_000)]
    assert len(every) == target.spec.n_layers * target.spec.d_mlp
    sizes = [abs(value) for _, value in every]
    assert sizes == sorted(sizes, reverse=True)
    site = Site("resid_post", target.spec.n_layers - 1)
    residual = target.run(bench.ids, read=[site]).read[site][0, 5]
    scale = float(readout.scale(residual, target.final_norm(residual)))
    for layer in range(target.spec.n_layers):
        bias = 0.0
        if bench.plain.family == "gpt2":
            middle = readout.middle(bench.plain[f"h.{layer}.mlp.c_proj.bias"])
            bias = float((middle * readout.gain / scale) @ target.unembed[:, 300])
        whole = sum(value for unit, value in every if unit.layer == layer)
        assert whole == pytest.approx(parts[f"mlp{layer}"] - bias, abs=3e-3)


def test_without_an_answer_it_is_the_model_s_own(pocket: Bench) -> None:
    found = pocket.run("logit_lens", text="After Mary and Lucy met at the river, Lucy gave a ring to")
    assert found.payload["answer"] == " Mary"
    assert found.payload["layers"][-1]["rank"] == 1
    assert found.payload["layers"][-1]["kl"] == 0.0
    assert [figure.name for figure in found.figures] == ["logit_lens", "logit_components"]
    assert found.arrays["logits"].shape == (11, 15, 2048)


def test_the_readout_is_the_end_of_the_model_and_lets_gradients_through(bench: Bench) -> None:
    target = bench.context.target
    readout = Readout.of(target)
    cap = bench.plain.config.get("final_logit_softcapping")
    assert readout.cap == (None if cap is None else pytest.approx(cap, rel=1e-3))
    key = "layer_norm_epsilon" if bench.plain.family == "gpt2" else "rms_norm_eps"
    assert readout.epsilon == pytest.approx(bench.plain.config[key], rel=0.05, abs=1e-7)
    site = Site("resid_post", 2)
    run = target.run(bench.ids, read=[site], logits=True)
    assert run.logits is not None
    np.testing.assert_allclose(readout(run.read[site].clone()), run.logits, atol=1e-3)
    x = run.read[site].clone().requires_grad_()
    torch.autograd.backward(readout.log_probs(x)[0, 0, 300])
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0


def test_a_cap_is_found_from_one_softened_logit() -> None:
    assert _cap(20.0, 30.0 * float(np.tanh(20 / 30))) == pytest.approx(30.0, rel=1e-6)


def test_an_output_that_is_more_than_norm_and_unembedding_is_refused(pocket: Bench) -> None:
    target = pocket.context.target
    readout = Readout.of(target)
    residual = torch.randn(1, 4, target.spec.d_model, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ToolRefused, match="more than its last norm"):
        readout._checked(residual, readout(residual).roll(1, dims=-1), "it", 1e-3)


@pytest.mark.usefixtures("own_cache")
def test_a_trained_lens_is_nearer_than_the_plain_one_on_text_it_did_not_see(bench: Bench) -> None:
    with pytest.raises(ToolRefused, match="run the tool tune_lens first"):
        bench.run("logit_lens", text=TEXT, lens="tuned")
    found = bench.run("tune_lens", **QUICK)
    measured, shuffled = found.measurements
    assert measured.null_value is not None
    assert measured.value < 0.9 * measured.null_value
    assert (measured.metric, shuffled.metric) == ("kl_tuned", "kl_shuffled")
    assert measured.value < shuffled.value, "what it learned is about the tokens, not only which are likely"
    assert measured.ci is not None
    assert measured.ci[0] <= measured.value <= measured.ci[1]
    assert all(row["tuned"] <= row["plain"] for row in found.payload["layers"])
    tuned = bench.run("logit_lens", text=TEXT, lens="tuned")
    plain = bench.run("logit_lens", text=TEXT)
    assert tuned.payload["layers"][-1] == plain.payload["layers"][-1], "the last row is the model's own output"
    np.testing.assert_allclose(tuned.arrays["logits"][-1], bench.logits()[0], atol=1e-3)
    assert not np.allclose(tuned.arrays["logits"][0], plain.arrays["logits"][0], atol=1e-3)


@pytest.mark.usefixtures("own_cache")
def test_what_is_reported_is_measured_on_documents_that_were_kept_apart(open_bench: Callable[[str], Bench]) -> None:
    bench = open_bench("llama")
    found = bench.run("tune_lens", **QUICK, seed=3)
    lens, readout = kept_lens(bench.context), Readout.of(bench.context.target)
    assert lens is not None
    residuals = residuals_of(bench.context.target, bench.context.sample("explore", 2048))
    documents = np.random.default_rng(3).permutation(np.unique(residuals.documents))
    unseen = residuals.of(documents[int(0.9 * len(documents)) :])
    assert found.measurements[0].n == len(np.unique(unseen.documents)) == len(documents) - int(0.9 * len(documents))
    for layer, row in enumerate(found.payload["layers"]):
        goal = readout(unseen.last).double().log_softmax(-1)
        for name, x in (
            ("plain", unseen.before[layer]),
            ("tuned", unseen.before[layer] @ (torch.eye(32) + lens.turn[layer]) + lens.shift[layer]),
        ):
            own = readout(x).double().log_softmax(-1)
            by_hand = float((goal.exp() * (goal - own)).sum(-1).mean())
            assert row[name] == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.usefixtures("own_cache")
def test_a_lens_is_kept_and_trained_again_only_when_asked(
    open_bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = open_bench("llama")
    first = bench.run("tune_lens", **QUICK)
    path = lens_file(bench.context)
    content, times = path.read_bytes(), []
    monkeypatch.setattr(tuned_lens, "train", lambda *given, **more: times.append(1) or train(*given, **more))  # type: ignore[func-returns-value]
    assert bench.run("tune_lens", **QUICK).payload == first.payload
    assert times == []
    assert bench.run("tune_lens", **QUICK, again=True).payload == first.payload
    assert times == [1, 1], "the lens and its null"
    assert path.read_bytes() == content, "the same seed gives the same lens"
    bench.run("tune_lens", n_tokens=2048, steps=26)
    assert times == [1] * 4
    other = open_bench("gpt2").context
    assert lens_file(other) != path


def test_training_finds_a_planted_map_and_stops_when_nothing_gets_better() -> None:
    """The residual before the layer is the last one turned: the map that turns it back has a divergence of 0."""
    rng = torch.Generator().manual_seed(0)
    d, n = 8, 600
    readout = Readout(torch.ones(d), torch.zeros(d), 1e-5, False, torch.randn(d, 30, generator=rng))
    last = torch.randn(n, d, generator=rng)
    turn = torch.linalg.qr(torch.randn(d, d, generator=rng))[0]
    before = torch.stack([last @ turn, last])
    documents = np.arange(n)
    learn, stop = (Residuals(before[:, at], last[at], documents[at]) for at in (slice(0, 500), slice(500, n)))
    plain = divergences(readout, stop, None).mean(dim=1)
    assert float(plain[0]) > 1
    assert float(plain[1]) == pytest.approx(0.0, abs=1e-5)
    lens = train(readout, learn, stop, steps=2000, seed=0)
    tuned = divergences(readout, stop, lens).mean(dim=1)
    assert float(tuned[0]) < 0.05 * float(plain[0])
    assert float(tuned[1]) <= float(plain[1]) + 1e-6, "a layer that is right already is left as it is"
    idle = train(
        readout, Residuals(before[1:], last, documents), Residuals(before[1:], last, documents), steps=1000, seed=0
    )
    assert idle.report["steps"] <= tuned_lens.PATIENCE * tuned_lens.LOOK_EVERY
    assert float(idle.turn.abs().max()) == 0.0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"position": 9}, "positions 0 to"),
        ({"answer": "no such token"}, "is not one token"),
        ({"wrong_answer": " Mary"}, "give both"),
        ({"answer": " Mary", "wrong_answer": " Mary"}, "never differ"),
        ({"text": "the " * 200}, "longer than the context"),
    ],
)
def test_what_cannot_be_read_is_refused(pocket: Bench, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolRefused, match=message) as refusal:
        pocket.run("logit_lens", **({"text": "the cat"} | args))
    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("own_cache")
def test_a_lens_needs_documents_enough_to_be_measured_on_others(
    open_bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned_lens, "MIN_DOCUMENTS", 10_000)
    with pytest.raises(ToolRefused, match="trained and measured on"):
        open_bench("llama").run("tune_lens", **QUICK)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_last_norm_and_the_unembedding_are_recognised_where_they_are_rounded(dtype: Any) -> None:
    """… and what they say of the last residual is what the model says, as far as that is rounded."""
    target = load_target("pocket", dtype=dtype)
    readout = Readout.of(target)
    ids = torch.arange(2, 10)[None]
    site = Site("resid_post", target.spec.n_layers - 1)
    run = target.run(ids, read=[site], logits=True)
    assert run.logits is not None
    own = readout(run.read[site].float())
    assert float((own - run.logits.float()).abs().max()) < 0.05 * float(own.abs().max())

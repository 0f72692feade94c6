"""Activation patching against edits by hand on a second reading of the weights, and against TransformerLens."""

import copy
import json
import runpy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.patch import Metric, PromptPair, divergence
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.base import Edit, Site
from neuronaut.tools.targets.load import POCKET, load_target

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
CLEAN, CORRUPTED = "the cat on the old", "the dog on the old"
FAMILIES = ("pocket", "gpt2", "llama", "gemma2")
SITES = ("resid_pre", "attn_out", "mlp_out", "resid_post", "heads", "neurons")


@dataclass(frozen=True)
class Bench:
    """A model through the tool, by its weights alone, and its folder."""

    context: ToolContext
    plain: Any
    folder: Path

    def ids(self, text: str) -> Tensor:
        return torch.from_numpy(self.context.target.tokenize([text]).ids).long()

    def piece(self, at: int) -> str:
        return self.context.target.vocabulary.pieces[at]

    def patch(self, **more: Any) -> ToolResult:
        args = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": self.piece(300), **more}
        tool = find_tool("patch")
        return tool.run(self.context, tool.parse(json.dumps(args)))

    def log_probs(self, ids: Tensor, change: Callable[[str, int, Tensor], Tensor] | None = None) -> Tensor:
        """(pos, d_vocab) by hand."""
        with torch.no_grad():
            found: Tensor = self.plain.run(ids, change)[0].double().log_softmax(-1)
        return found


@pytest.fixture(scope="module")
def open_bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    @cache
    def opened(name: str) -> Bench:
        import transformers

        folder = POCKET if name == "pocket" else make_model(name, tmp_path_factory.mktemp("models") / name)
        plain = PlainModel(folder, transformers.AutoConfig.from_pretrained(folder).to_dict())
        return Bench(ToolContext(load_target(folder), pocket_corpus()), plain, folder)

    return opened


@pytest.fixture(params=FAMILIES)
def bench(request: pytest.FixtureRequest, open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench(str(request.param))


@pytest.fixture
def pocket(open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench("pocket")


def _grid_by_hand(
    bench: Bench, site: str, layer: int, clean: str, base: str, score: Callable[[Tensor], float]
) -> list[float]:
    """The score of the base run with one activation of the other at a time."""
    other = CORRUPTED if base == clean else clean
    bench.log_probs(bench.ids(other))
    carried = bench.plain.seen[site, layer][0].clone()
    one_by_one = site in ("heads", "neurons")
    found = []
    for at in range(carried.shape[1] if one_by_one else len(carried)):

        def change(name: str, depth: int, x: Tensor, at: int = at) -> Tensor:
            if (name, depth) != (site, layer):
                return x
            x = x.clone()
            if one_by_one:
                x[0, :, at] = carried[:, at]
            else:
                x[0, at] = carried[at]
            return x

        found.append(score(bench.log_probs(bench.ids(base), change)))
    return found


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("site", SITES)
def test_patch_is_the_effect_by_hand(bench: Bench, site: str, direction: str) -> None:
    layer = 1
    score = lambda log_probs: float(log_probs[-1, 300] - log_probs[-1, 310])  # noqa: E731
    clean, corrupted = (score(bench.log_probs(bench.ids(text))) for text in (CLEAN, CORRUPTED))
    base = CORRUPTED if direction == "denoise" else CLEAN
    patched = np.array(_grid_by_hand(bench, site, layer, CLEAN, base, score))
    expected = (patched - corrupted if direction == "denoise" else clean - patched) / (clean - corrupted)
    found = bench.patch(site=site, layer=layer, direction=direction, wrong_answer=bench.piece(310))
    np.testing.assert_allclose(found.payload["rows"][0]["effect"], expected, atol=2e-3)
    assert found.payload["clean"] == pytest.approx(clean, abs=1e-4)
    assert found.payload["corrupted"] == pytest.approx(corrupted, abs=1e-4)
    [best] = found.measurements
    assert best.value == pytest.approx(expected.max(), abs=2e-3)
    assert (best.null_value, best.n_of) == (0.0, "prompt pair")


@pytest.mark.parametrize("site", ["resid_pre", "heads"])
def test_the_divergence_from_the_clean_prediction_can_be_the_metric(bench: Bench, site: str) -> None:
    reference = bench.log_probs(bench.ids(CLEAN))[-1]
    score = lambda log_probs: -float((reference.exp() * (reference - log_probs[-1])).sum())  # noqa: E731
    low = score(bench.log_probs(bench.ids(CORRUPTED)))
    expected = (np.array(_grid_by_hand(bench, site, 0, CLEAN, CORRUPTED, score)) - low) / (0 - low)
    found = bench.patch(site=site, layer=0, metric="kl")
    np.testing.assert_allclose(found.payload["rows"][0]["effect"], expected, atol=2e-3)


@pytest.mark.parametrize("site", ["resid_pre", "heads"])
def test_what_both_prompts_have_in_common_is_not_run_again(pocket: Bench, site: str) -> None:
    """Prompts that differ in their last word: nothing before it is patched, and the grid is the whole one by hand."""
    target, words = pocket.context.target, "the old cat sat on the mat and the"
    clean, corrupted = (f"{words} {word}" for word in ("cat", "dog"))
    pair = PromptPair.of(target, clean, corrupted)
    n_pos = pair.clean.shape[1]
    first = int((pair.clean != pair.corrupted)[0].float().argmax())
    metric = Metric("log_prob", pair, (((300,), 1), ((310,), -1)))
    metric.clean, metric.corrupted  # noqa: B018  they are run once
    before = target.forwards
    found = metric.grid(pair.corrupted, pair.clean, [Site(site, layer) for layer in range(10)])  # type: ignore[arg-type]
    assert target.forwards - before < 3.1 + 22 * (n_pos - first) / n_pos, (
        "22 are those of all heads from the first token on"
    )
    pocket.log_probs(pair.clean)
    carried = [pocket.plain.seen[site, layer][0].clone() for layer in range(10)]
    for layer in (0, 4, 9):
        for at in range(found.shape[1]):

            def change(name: str, depth: int, x: Tensor, layer: int = layer, at: int = at) -> Tensor:
                if (name, depth) == (site, layer):
                    x = x.clone()
                    index = (0, slice(None), at) if site == "heads" else (0, at)
                    x[index] = carried[layer][index[1:]]
                return x

            by_hand = pocket.log_probs(pair.corrupted, change)[-1]
            assert float(found[layer, at]) == pytest.approx(float(by_hand[300] - by_hand[310]), abs=1e-4)


def test_an_answer_of_several_tokens_is_scored_as_their_sequence(pocket: Bench) -> None:
    pieces = pocket.context.target.vocabulary.pieces
    answer = " Leo gave the"
    tokens = [pieces.index(piece) for piece in (" Leo", " gave", " the")]
    assert answer not in pieces

    def score(text: str, change: Callable[[str, int, Tensor], Tensor] | None = None) -> float:
        ids = torch.cat([pocket.ids(text), torch.tensor([tokens[:-1]])], dim=1)
        log_probs = pocket.log_probs(ids, change)[-3:]
        return float(sum(row[token] for row, token in zip(log_probs, tokens, strict=True)))

    clean, corrupted = score(CLEAN), score(CORRUPTED)
    pocket.log_probs(pocket.ids(CLEAN))
    carried = pocket.plain.seen["heads", 2][0].clone()

    def change(name: str, layer: int, x: Tensor) -> Tensor:
        if (name, layer) == ("heads", 2):
            x = x.clone()
            x[0, : len(carried), 3] = carried[:, 3]
        return x

    expected = (score(CORRUPTED, change) - corrupted) / (clean - corrupted)
    found = pocket.patch(site="heads", layer=2, answer=answer)
    assert found.payload["rows"][0]["effect"][3] == pytest.approx(expected, abs=2e-3)


def test_all_layers_are_one_grid(pocket: Bench) -> None:
    grid = pocket.patch(site="attn_out").payload["rows"]
    assert [row["layer"] for row in grid] == list(range(10))
    one = pocket.patch(site="attn_out", layer=7).payload["rows"][0]
    np.testing.assert_allclose(grid[7]["effect"], one["effect"], atol=1e-4)
    np.testing.assert_allclose(pocket.patch(site="attn_out").arrays["effect"][7], one["effect"], atol=1e-4)


def test_the_last_residual_carries_all_at_the_last_position_and_nothing_before(bench: Bench) -> None:
    last = bench.context.target.spec.n_layers - 1
    effect = bench.patch(site="resid_post", layer=last).payload["rows"][0]["effect"]
    assert effect == pytest.approx([0.0] * (len(effect) - 1) + [1.0], abs=1e-3)


def test_the_metric_is_1_on_clean_0_on_corrupted_and_half_way_on_their_mean(pocket: Bench) -> None:
    """The logit difference is linear in the logits, so that their mean scores half way between."""
    pair = PromptPair.of(pocket.context.target, CLEAN, CORRUPTED)
    metric = Metric("log_prob", pair, (((300,), 1), ((310,), -1)))
    clean, corrupted = (pair.after(ids, (0,))[0, 0] for ids in (pair.clean, pair.corrupted))
    between = ((clean + corrupted) / 2).log_softmax(-1)
    value = float(between[300] - between[310])
    assert (value - metric.corrupted) / (metric.clean - metric.corrupted) == pytest.approx(0.5, abs=1e-9)
    assert float(divergence(clean, clean[None])[0]) == 0.0
    kl = Metric("kl", pair, ())
    assert kl.clean == pytest.approx(0.0, abs=1e-6)
    apart = float(functional.kl_div(corrupted.double(), clean.double(), log_target=True, reduction="sum"))
    assert kl.corrupted == pytest.approx(-apart, abs=1e-6)
    assert float(divergence(clean, corrupted[None])[0]) == pytest.approx(apart, abs=1e-6)


def test_a_pair_that_the_metric_does_not_separate_is_refused(pocket: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    target = pocket.context.target
    plain = target.run
    first: list[Tensor] = []

    def almost_equal(*given: Any, **options: Any) -> Any:
        found = plain(*given, **options)
        if found.logits is not None:
            first.append(found.logits)
            found = found._replace(logits=first[0] * (1 + 1e-7 * len(first)))
        return found

    monkeypatch.setattr(target, "run", almost_equal)
    with pytest.raises(ToolRefused, match="give the same answer"):
        pocket.patch(layer=0)


@pytest.mark.parametrize("family", ["pocket", "gpt2", "llama"])
def test_grids_are_those_of_transformer_lens(family: str, open_bench: Callable[[str], Bench]) -> None:
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge

    bench = open_bench(family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bridge = TransformerBridge.boot_transformers(str(bench.folder), device="cpu", dtype=torch.float32)
        clean, corrupted = bench.ids(CLEAN), bench.ids(CORRUPTED)
        score = lambda logits: logits[0, -1, 300].double() - logits[0, -1, 310].double()  # noqa: E731
        high, cached = bridge.run_with_cache(clean)
        low, high = float(score(bridge(corrupted))), float(score(high))
        metric = lambda logits: (score(logits) - low) / (high - low)  # noqa: E731
        theirs = {
            "resid_pre": patching.get_act_patch_resid_pre(bridge, corrupted, cached, metric),
            "heads": patching.get_act_patch_attn_head_out_all_pos(bridge, corrupted, cached, metric),
        }
    for site, expected in theirs.items():
        rows = bench.patch(site=site, wrong_answer=bench.piece(310)).arrays["effect"]
        np.testing.assert_allclose(rows, expected.numpy(), atol=1e-4 * max(1.0, 1 / abs(high - low)), err_msg=site)


@pytest.mark.parametrize("site", SITES)
def test_attribution_is_the_gradient_times_the_change_by_hand(bench: Bench, site: str) -> None:
    layer = 1
    bench.log_probs(bench.ids(CLEAN))
    there = bench.plain.seen[site, layer].detach().clone()
    leaves: list[Tensor] = []

    def leaf(name: str, depth: int, x: Tensor) -> Tensor:
        if (name, depth) == (site, layer):
            leaves.append(x.detach().requires_grad_())
            return leaves[0]
        return x

    with torch.enable_grad():
        logits = bench.plain.run(bench.ids(CORRUPTED), leaf)[0, -1].double()
        (logits[300] - logits[310]).backward()
    low = float((logits[300] - logits[310]).detach())
    clean = bench.log_probs(bench.ids(CLEAN))[-1]
    high = float(clean[300] - clean[310])
    assert leaves[0].grad is not None
    change = ((there - leaves[0].detach()) * leaves[0].grad)[0].double()
    summed = change.sum(dim=(0, 2)) if site == "heads" else change.sum(dim=0 if site == "neurons" else 1)
    tool = find_tool("attribution_patch")
    args = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": bench.piece(300), "wrong_answer": bench.piece(310)}
    found = tool.run(bench.context, tool.parse(json.dumps({**args, "site": site, "layer": layer})))
    np.testing.assert_allclose(found.arrays["effect"][0], (summed / (high - low)).numpy(), rtol=2e-3, atol=2e-3)
    exact = bench.patch(site=site, layer=layer, wrong_answer=bench.piece(310)).arrays["effect"]
    np.testing.assert_allclose(found.arrays["exact"], exact, atol=1e-6)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_integrated_gradients_of_the_embeddings_add_up_to_the_whole(pocket: Bench, direction: str) -> None:
    """Completeness (Sundararajan et al. 2017): over all positions of the input they sum to the difference of the scores."""
    tool = find_tool("attribution_patch")
    args = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": pocket.piece(300), "wrong_answer": pocket.piece(310)}
    more = {"layer": 0, "steps": 100, "direction": direction, "exact": False}
    found = tool.run(pocket.context, tool.parse(json.dumps({**args, **more})))
    assert found.arrays["effect"].sum() == pytest.approx(1.0, abs=0.02)
    assert "exact" not in found.arrays
    assert [one.metric for one in found.measurements] == ["effect_best"]


@pytest.mark.parametrize("site", SITES)
def test_a_gradient_at_a_site_that_an_edit_replaces_is_that_of_finite_differences(bench: Bench, site: str) -> None:
    """The value put in is a constant: it has a gradient, what lies before it has none."""
    ids, at = bench.ids(CLEAN), Site(site, 1)
    bench.log_probs(bench.ids(CORRUPTED))
    value = bench.plain.seen[site, 1].clone()
    score = lambda logits: logits[:, -1, 300] - logits[:, -1, 310]  # noqa: E731
    before, later = Site("mlp_out", 0), Site("resid_post", 1)
    found = bench.context.target.gradients(ids, [before, at, later], score, edits=[Edit(at, "set", value)])
    np.testing.assert_allclose(found[at][0].numpy(), value.numpy(), atol=1e-5)

    exact = copy.copy(bench.plain)
    exact.weights = {name: weight.double() for name, weight in bench.plain.weights.items()}
    rng = torch.Generator().manual_seed(0)
    way, step = torch.randn(value.shape, generator=rng, dtype=torch.float64), 1e-5

    def moved(by: float) -> float:
        put = lambda name, layer, x: value + by * way if (name, layer) == (site, 1) else x  # noqa: E731
        with torch.no_grad():
            return float(score(exact.run(ids, put)))

    expected = (moved(step) - moved(-step)) / (2 * step)
    assert abs(expected) > 1e-4
    assert float((found[at][1].double() * way).sum()) == pytest.approx(expected, rel=1e-3)
    if site in ("resid_pre", "resid_post"):
        assert not found[before][1].any()
        assert found[later][1].any()
    else:
        assert found[before][1].any()

"""Directions: singular vectors and components against planted ones and a second reading of the weights."""

import json
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuronaut.tools.corpus import load_corpus, pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.components import Parts, parts_of
from neuronaut.tools.look.decompose import token_names
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.base import Site
from neuronaut.tools.targets.load import POCKET, load_target

made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
FAMILIES = ("gpt2", "llama", "gemma2")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[ToolContext, Any]]:
    @cache
    def open_model(name: str) -> tuple[ToolContext, Any]:
        import transformers

        folder, corpus = POCKET, pocket_corpus()
        if name != "pocket":
            folder = made["make_model"](name, tmp_path_factory.mktemp("models") / name)
            corpus = load_corpus(made["make_corpus"](tmp_path_factory.mktemp("text") / "corpus.jsonl"))
        plain = PlainModel(folder, transformers.AutoConfig.from_pretrained(folder).to_dict())
        return ToolContext(load_target(folder), corpus), plain

    return open_model


def _run(context: ToolContext, **args: Any) -> ToolResult:
    tool = find_tool("decompose")
    return tool.run(context, tool.parse(json.dumps(args)))


def _by_hand(plain: Any, of: str, layer: int, head: int) -> Tensor:
    """The matrix from what is read (rows) to what is written (columns), gains of the norms before and behind folded in."""
    if plain.family == "gpt2":
        at, n_heads = f"h.{layer}.", 4
        gain = plain[at + "ln_1.weight"]
        q, k, v = (w.unflatten(1, (n_heads, -1))[:, head] for w in plain[at + "attn.c_attn.weight"].chunk(3, dim=1))
        o = plain[at + "attn.c_proj.weight"].unflatten(0, (n_heads, -1))[head]
        after = torch.ones(len(gain))
        fc, down = plain[at + "mlp.c_fc.weight"], plain[at + "mlp.c_proj.weight"]
        mlp_after = after
    else:
        at = f"layers.{layer}."
        gain = plain.gain(at + "input_layernorm")
        q, k, v = (plain[f"{at}self_attn.{name}_proj.weight"].unflatten(0, (-1, 12)) for name in ("q", "k", "v"))
        q, k, v = q[head].T, k[head // 2].T, v[head // 2].T
        o = plain[at + "self_attn.o_proj.weight"].T.unflatten(0, (-1, 12))[head]
        gemma = plain.family.startswith("gemma")
        after = plain.gain(at + "post_attention_layernorm") if gemma else torch.ones(len(gain))
        mlp_after = plain.gain(at + "post_feedforward_layernorm") if gemma else torch.ones(len(gain))
        fc, down = plain[at + "mlp.gate_proj.weight"].T, plain[at + "mlp.down_proj.weight"].T
    match of:
        case "OV":
            return gain[:, None] * (v @ o) * after
        case "QK":
            return (gain[:, None] * q) @ (gain[:, None] * k).T
        case "W_in":
            return fc
        case _:
            return down * mlp_after


@pytest.mark.parametrize("of", ["OV", "QK", "W_in", "W_out"])
@pytest.mark.parametrize("family", FAMILIES)
def test_singular_vectors_are_those_of_the_matrix_by_hand(
    family: str, of: str, opened: Callable[[str], tuple[ToolContext, Any]]
) -> None:
    context, plain = opened(family)
    asked = {"unit": "L1H3"} if of in ("OV", "QK") else {"layer": 1}
    found = _run(context, of=of, k=3, **asked)
    matrix = _by_hand(plain, of, 1, 3).double()
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(found.arrays["values"][:3], values[:3], rtol=1e-3)
    for at in range(3):
        assert abs(float(torch.from_numpy(found.arrays["left"][at]).double() @ left[:, at])) == pytest.approx(
            1, abs=2e-3
        )
        assert abs(float(torch.from_numpy(found.arrays["right"][at]).double() @ right[at])) == pytest.approx(
            1, abs=2e-3
        )
    [explained] = found.measurements
    assert explained.value == pytest.approx(float(values[:3].square().sum() / values.square().sum()), abs=1e-3)
    assert [row["explained"] for row in found.payload["directions"]] == pytest.approx(
        (values[:3].square() / values.square().sum()).tolist(), abs=1e-3
    )


def test_the_tokens_of_a_direction_are_those_that_it_reads_and_writes(
    opened: Callable[[str], tuple[ToolContext, Any]],
) -> None:
    context, _ = opened("pocket")
    target = context.target
    cat = target.vocabulary.pieces.index(" cat")
    assert token_names(target, "embedding", target.embed[cat] - target.embed.mean(0), 1) == [" cat"]
    promoted = token_names(target, "unembedding", target.unembed[:, cat] / target.final_norm_gain(), 3)
    assert promoted[0] == " cat"
    found = _run(context, of="OV", unit="L7H0", k=1, tokens=3)
    [row] = found.payload["directions"]
    left, right = (torch.from_numpy(found.arrays[name][0]) for name in ("left", "right"))
    sign = 1 if float(right[right.abs().argmax()]) > 0 else -1
    assert row["writes"] == token_names(target, "unembedding", sign * right, 3)
    assert row["reads"] == token_names(target, "embedding", sign * left, 3)


def test_a_matrix_of_few_directions_stands_out_from_its_shuffled_entries(
    opened: Callable[[str], tuple[ToolContext, Any]],
) -> None:
    context, _ = opened("pocket")
    [few] = _run(context, of="W_in", layer=3, k=1).measurements
    assert few.null_value is not None
    assert few.value > 3 * few.null_value
    [whole] = _run(context, of="OV", unit="L7H0", k=256).measurements
    assert (whole.value, whole.null_value) == (pytest.approx(1.0), pytest.approx(1.0))


def _mixture(seed: int, *, positive: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x = sources @ directions: three sources with long tails of falling size, along random directions of 12 dimensions."""
    rng = np.random.default_rng(seed)
    sources = rng.exponential(size=(4000, 3)) * (rng.random((4000, 3)) < 0.3) * [6.0, 4.0, 2.5]
    directions = rng.normal(size=(3, 12))
    if positive:
        directions = np.abs(directions) * (rng.random((3, 12)) < 0.5)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (sources @ directions).astype(np.float32), sources, directions


def _matched(found: np.ndarray, planted: np.ndarray) -> np.ndarray:
    """Of each planted direction the cosine with the nearest one found, its sign kept."""
    cosines = planted @ (found / np.linalg.norm(found, axis=1, keepdims=True)).T
    return np.asarray(cosines.max(axis=1))


@pytest.mark.parametrize("seed", range(3))
def test_ica_finds_planted_sources_which_pca_mixes(seed: int) -> None:
    x, sources, directions = _mixture(seed)
    ica, pca = (parts_of(x, method, 3, 0) for method in ("ica", "pca"))  # type: ignore[arg-type]
    assert ica.converged
    assert _matched(ica.directions, directions).min() > 0.98, "the long tail is positive, as planted"
    assert _matched(pca.directions, directions).min() < 0.95
    best = np.abs(np.corrcoef(ica.scores.T, sources.T)[:3, 3:]).max(axis=1)
    assert best.min() > 0.98
    assert ica.explained(x) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_nmf_finds_planted_parts_of_what_is_never_negative(seed: int) -> None:
    x, _, directions = _mixture(seed, positive=True)
    found = parts_of(x, "nmf", 3, 0)
    assert float(found.directions.min()) >= 0
    assert float(found.scores.min()) >= 0
    assert _matched(found.directions, directions).min() > 0.97
    assert found.explained(x) > 0.995


def test_pca_explains_what_the_singular_values_say() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 20)) @ rng.normal(size=(20, 20)) + 3).astype(np.float32)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    for k in (1, 4, 20):
        assert parts_of(x, "pca", k, 0).explained(x) == pytest.approx(values[:k].sum() / values.sum(), abs=1e-5)


def test_the_share_explained_is_one_of_all_and_nothing_of_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    mean = x.mean(axis=0)
    whole, none = (
        Parts(x - mean, np.eye(4, dtype=np.float32), mean, True),
        Parts(0 * x, np.eye(4, dtype=np.float32), mean, True),
    )
    assert whole.explained(x) == pytest.approx(1.0)
    assert none.explained(x) == pytest.approx(0.0)


def test_components_of_activations_are_those_of_the_site_by_hand(
    opened: Callable[[str], tuple[ToolContext, Any]],
) -> None:
    context, plain = opened("llama")
    found = _run(context, of="activations", site="mlp_out", layer=1, k=4, n_tokens=1000, tokens=3)
    tokens = context.sample("explore", 1000)
    rows = []
    for ids, scored, length in zip(tokens.ids, tokens.scored, tokens.lengths, strict=True):
        with torch.no_grad():
            plain.run(torch.from_numpy(ids[None, :length]).long())
        rows.append(plain.seen["mlp_out", 1][0][torch.from_numpy(scored[:length])])
    x = torch.cat(rows).double()
    centred = x - x.mean(0)
    values, right = torch.linalg.svd(centred, full_matrices=False)[1:]
    [explained] = found.measurements
    assert explained.n == len(x) == tokens.n_scored
    assert explained.value == pytest.approx(float(values[:4].square().sum() / values.square().sum()), abs=1e-3)
    np.testing.assert_allclose(found.arrays["mean"], x.mean(0), atol=1e-4)
    for at in range(4):
        assert abs(float(torch.from_numpy(found.arrays["directions"][at]).double() @ right[at])) == pytest.approx(
            1, abs=1e-2
        )
        assert found.payload["directions"][at]["explained"] == pytest.approx(
            float(values[at].square() / values.square().sum()), abs=1e-3
        )
    assert explained.null_value is not None
    assert explained.null_value < explained.value


@pytest.mark.parametrize("method", ["pca", "ica", "nmf"])
def test_components_of_neurons_name_them_and_where_they_are_largest(
    method: str, opened: Callable[[str], tuple[ToolContext, Any]]
) -> None:
    context, _ = opened("pocket")
    found = _run(context, of="activations", site="neurons", layer=8, method=method, k=2, n_tokens=1500, tokens=2)
    for row, direction in zip(found.payload["directions"], found.arrays["directions"], strict=True):
        best = np.argsort(-np.abs(direction), kind="stable")[:2]
        assert [name.split()[0] for name in row["neurons"]] == [f"8.{i}" for i in best]
    tokens = context.sample("explore", 1500)
    site = Site("neurons", 8)
    ids = torch.from_numpy(np.maximum(tokens.ids, 0)).long()
    x = context.target.run(ids, read=[site], stop=9).read[site].numpy()
    direction = found.arrays["directions"][0].astype(np.float64)
    if method == "pca":
        scores = np.where(tokens.scored, (x - found.arrays["mean"]) @ direction, -np.inf)
        window, pos = np.unravel_index(scores.argmax(), scores.shape)
        assert found.payload["directions"][0]["at"][0] == tokens.vocabulary.pieces[tokens.ids[window, pos]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"of": "OV"}, "belongs to a head"),
        ({"of": "QK", "unit": "8.481"}, "belongs to a head"),
        ({"of": "OV", "unit": "L99H0"}, "does not exist"),
        ({"of": "W_in"}, "belongs to a layer"),
        ({"of": "W_out", "layer": 99}, "does not exist"),
        ({"of": "activations"}, "belong to a layer"),
        ({"of": "activations", "layer": 1, "site": "pattern"}, "have no directions"),
        ({"of": "activations", "layer": 1, "method": "nmf", "n_tokens": 256}, "has negative ones"),
    ],
)
def test_what_has_no_directions_is_refused(
    args: dict[str, Any], message: str, opened: Callable[[str], tuple[ToolContext, Any]]
) -> None:
    with pytest.raises(ToolRefused, match=message) as refusal:
        _run(opened("pocket")[0], **args)
    assert "\n" not in str(refusal.value)

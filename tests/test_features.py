"""Features in a running model: read, edited with the error kept, and studied like neurons."""

import json
import runpy
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.dreams.chosen import null_aims, unit_aim
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.features.dictionary import Architecture, Dictionary, Layout
from neuronaut.tools.features.places import place_of
from neuronaut.tools.features.saelens import read_dictionary, save_dictionary
from neuronaut.tools.intervene.parts import Part
from neuronaut.tools.look.activations import activations_of
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.targets.base import Edit, Site
from neuronaut.tools.targets.load import POCKET, load_target
from neuronaut.tools.targets.sites import out_of, read_vectors_at, site_of, unit_at, width_of, write_vectors_at
from neuronaut.tools.targets.transformer_lens import TransformerLensTarget
from neuronaut.tools.trials.nulls import candidate_units, other_units
from neuronaut.tools.units import Unit

LAYER, INDEX, WIDTH = 8, 481, 40
D_MODEL, D_MLP = 128, 512
PLANTED = Unit.of_feature("mlp", INDEX)
NEURON = Unit("neuron", LAYER, INDEX)
EIGHT = [f"After Mary and {name}" for name in ("Lucy", "Alice", "Nora", "David", "Peter")]
EIGHT += [f"Mary and {name}" for name in ("Leo", "Kate", "Eva")]
make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]


def mlp_as_transcoder(sha256: str | None = None) -> Dictionary:
    """The MLP of a layer of pocket, whose features are its neurons."""
    w = load_file(POCKET / "model.safetensors")
    names = {"W_enc": "c_fc.weight", "b_enc": "c_fc.bias", "W_dec": "c_proj.weight", "b_dec": "c_proj.bias"}
    places = place_of(f"blocks.{LAYER}.mlp.hook_in"), place_of(f"blocks.{LAYER}.hook_mlp_out")
    layout = Layout("transcoder", *places, D_MODEL, D_MODEL, D_MLP, subtracts_b_dec=False, weights_sha256=sha256)
    return Dictionary(
        "mlp", "0" * 64, layout, {name: w[f"transformer.h.{LAYER}.mlp.{of}"].float() for name, of in names.items()}
    )


def drawn(
    hook: str, d_in: int, *, architecture: Architecture = "standard", out: str | None = None, **more: Any
) -> Dictionary:
    """A random dictionary that reads at a hook; each feature has a bias of its own, so that none is dead."""
    made = torch.Generator().manual_seed(len(hook) + d_in)
    layout = Layout(architecture, place_of(hook), place_of(out or hook), d_in, d_in, WIDTH, **more)
    weights = {
        "W_enc": torch.randn(d_in, WIDTH, generator=made) / d_in**0.5,
        "b_enc": torch.randn(WIDTH, generator=made) * 0.3,
        "W_dec": torch.randn(WIDTH, d_in, generator=made) / d_in**0.5,
        "b_dec": torch.randn(d_in, generator=made) * 0.1,
    }
    return Dictionary(f"at-{hook.split('.', 2)[2]}", "0" * 64, layout, weights)


DRAWN: dict[str, dict[str, Any]] = {
    "hook_resid_pre": {},
    "hook_resid_post": {"architecture": "topk", "k": 6, "rescales": True},
    "hook_attn_out": {"normalization": "layer_norm"},
    "hook_mlp_out": {"normalization": "constant_norm_rescale"},
    "attn.hook_z": {},
    "mlp.hook_post": {},
}


@pytest.fixture(scope="module")
def pocket() -> TransformerLensTarget:
    target = load_target("pocket")
    assert isinstance(target, TransformerLensTarget)
    target.add_dictionary(mlp_as_transcoder(target.fingerprint().weights_sha256))
    for hook, more in DRAWN.items():
        target.add_dictionary(drawn(f"blocks.6.{hook}", D_MLP if hook == "mlp.hook_post" else D_MODEL, **more))
    return target


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(1, 2048, (3, 14), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def context(pocket: TransformerLensTarget) -> ToolContext:
    return ToolContext(pocket, Corpus("an eighth of pocket", "1" * 64, pocket_corpus().documents[::8]))


def features_of(target: TransformerLensTarget, name: str) -> Site:
    return site_of(target, Unit.of_feature(name, 0))


def base_of(target: TransformerLensTarget, name: str, ids: torch.Tensor, edits: list[Edit]) -> torch.Tensor:
    """(batch, pos, d_in) of the plain site that a dictionary stands at."""
    place = target.dictionaries[name].layout.reads
    site = Site(place.name, place.layer)
    found = target.run(ids, read=[site], edits=edits).read[site]
    return found.flatten(-2) if place.name == "heads" else found


@pytest.mark.parametrize("hook", DRAWN)
def test_features_are_those_of_the_activation_at_the_hook(
    hook: str, pocket: TransformerLensTarget, ids: torch.Tensor
) -> None:
    name = f"at-{hook}"
    site, dictionary = features_of(pocket, name), pocket.dictionaries[name]
    found = pocket.run(ids, read=[site], stop=7).read[site]
    assert torch.equal(found, dictionary.encode(base_of(pocket, name, ids, [])))
    some = replace(site, columns=(31, 2))
    torch.testing.assert_close(pocket.run(ids, read=[some]).read[some], found[..., [31, 2]])


@pytest.mark.parametrize("hook", DRAWN)
def test_an_ablation_takes_out_the_decoder_row_and_keeps_the_error(
    hook: str, pocket: TransformerLensTarget, ids: torch.Tensor
) -> None:
    name = f"at-{hook}"
    site, dictionary = features_of(pocket, name), pocket.dictionaries[name]
    x, plain = base_of(pocket, name, ids, []), pocket.run(ids, read=[site], logits=True)
    index = int(plain.read[site].sum(dim=(0, 1)).argmax())
    f = plain.read[site][..., index]
    assert float(f.max()) > 0.1
    ablation = [Edit(site, "set", 0.0, index=index)]
    row = dictionary.weights["W_dec"][index]
    if dictionary.layout.rescales:
        row = row / row.norm()
    scale = torch.ones(*ids.shape, 1)
    if dictionary.layout.normalization == "layer_norm":
        scale = x.std(dim=-1, keepdim=True)
    if dictionary.layout.normalization == "constant_norm_rescale":
        scale = x.norm(dim=-1, keepdim=True) / D_MODEL**0.5
    expected = x - f[..., None] * row * scale
    torch.testing.assert_close(base_of(pocket, name, ids, ablation), expected, atol=1e-5, rtol=1e-5)
    whole = [
        Edit(
            Site(dictionary.layout.reads.name, 6),
            "set",
            expected.reshape(3, 14, *((4, 32) if "hook_z" in hook else (-1,))),
        )
    ]
    after = pocket.run(ids, edits=ablation, read=[site], logits=True)
    torch.testing.assert_close(after.logits, pocket.run(ids, edits=whole, logits=True).logits, atol=1e-4, rtol=1e-4)
    assert plain.logits is not None
    assert float((after.logits - plain.logits).abs().max()) > 1e-3
    assert float(after.read[site][..., index].abs().max()) == 0  # what was written is what is read back


@pytest.mark.parametrize("name", [*(f"at-{hook}" for hook in DRAWN), "mlp"])
def test_a_feature_set_to_its_own_value_changes_nothing(
    name: str, pocket: TransformerLensTarget, ids: torch.Tensor
) -> None:
    site = features_of(pocket, name)
    one = replace(site, columns=(9,))
    plain = pocket.run(ids, read=[site, one], logits=True)
    for edit in (
        Edit(site, "set", plain.read[one][..., 0], index=9),
        Edit(site, "set", plain.read[site]),
        Edit(site, "add", 0.0, index=9),
        Edit(site, "scale", 1.0),
    ):
        after = pocket.run(ids, edits=[edit], logits=True).logits
        torch.testing.assert_close(after, plain.logits, atol=2e-5, rtol=1e-5)


def test_edits_are_made_at_given_positions_in_order_and_before_plain_sites_are_read(
    pocket: TransformerLensTarget, ids: torch.Tensor
) -> None:
    site, at = features_of(pocket, "at-hook_resid_post"), torch.zeros(3, 14, dtype=torch.bool)
    at[:, 5] = True
    base = Site("resid_post", 6)
    plain = pocket.run(ids, read=[site, base])
    edits = [Edit(site, "set", 2.0, index=4, positions=at), Edit(site, "scale", 3.0, index=4, positions=at)]
    after = pocket.run(ids, read=[site, base], edits=edits)
    expected = plain.read[site].clone()
    expected[:, 5, 4] = 6.0
    assert torch.equal(after.read[site], expected)
    row = pocket.dictionaries["at-hook_resid_post"].directions[4]
    moved = plain.read[base].clone()
    moved[:, 5] += (6.0 - plain.read[site][:, 5, 4])[:, None] * row
    torch.testing.assert_close(after.read[base], moved, atol=1e-5, rtol=1e-5)


def test_branches_are_the_runs_with_one_edit_each(pocket: TransformerLensTarget, ids: torch.Tensor) -> None:
    edits = [Edit(features_of(pocket, name), "set", 1.5, index=3) for name in ("mlp", "at-attn.hook_z")]
    found = pocket.branches(ids[:1], edits, keep=2)
    for row, edit in zip(found, edits, strict=True):
        logits = pocket.run(ids[:1], edits=[edit], logits=True).logits
        assert logits is not None
        torch.testing.assert_close(row, logits[0, -2:])


def test_the_gradient_at_features_is_what_a_small_change_does(pocket: TransformerLensTarget, ids: torch.Tensor) -> None:
    site, below = features_of(pocket, "at-hook_resid_post"), Site("resid_pre", 3)

    def score(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1, 7].double()

    found = pocket.gradients(ids, [site, below], score)
    values, gradient = found[site]
    index, step = int(gradient.abs().sum(dim=(0, 1)).argmax()), 1e-2
    both = []
    for change in (step, -step):
        logits = pocket.run(ids, edits=[Edit(site, "add", change, index=index)], logits=True).logits
        assert logits is not None
        both.append(score(logits))
    torch.testing.assert_close(
        ((both[0] - both[1]) / (2 * step)).float(), gradient[..., index].sum(dim=1), atol=2e-3, rtol=2e-2
    )
    torch.testing.assert_close(found[below][1], pocket.gradients(ids, [below], score)[below][1])  # the model's own
    assert torch.equal(values, pocket.run(ids, read=[site]).read[site])


def test_a_transcoder_that_is_the_mlp_has_its_neurons_as_features(
    pocket: TransformerLensTarget, ids: torch.Tensor
) -> None:
    site, neurons, out = features_of(pocket, "mlp"), Site("neurons", LAYER), Site("mlp_out", LAYER)
    read = pocket.run(ids, read=[site, neurons, out]).read
    torch.testing.assert_close(read[site], read[neurons], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pocket.dictionaries["mlp"].decode(read[site]), read[out], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pocket.read_vector(PLANTED), pocket.read_vector(NEURON))
    torch.testing.assert_close(pocket.write_vector(PLANTED), pocket.write_vector(NEURON))
    logits = [pocket.run(ids, edits=[Edit(at, "set", 2.0, index=INDEX)], logits=True).logits for at in (site, neurons)]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


def test_directions_of_features_of_heads_and_neurons_are_what_they_add(
    pocket: TransformerLensTarget, ids: torch.Tensor
) -> None:
    for name, out in (
        ("at-attn.hook_z", "attn_out"),
        ("at-mlp.hook_post", "mlp_out"),
        ("at-hook_resid_pre", "resid_pre"),
    ):
        site, place = features_of(pocket, name), Site(out, 6)  # type: ignore[arg-type]
        assert out_of(pocket, site) == place
        plain, after = (
            pocket.run(ids, read=[place], edits=e).read[place] for e in ([], [Edit(site, "add", 1.0, index=5)])
        )
        expected = write_vectors_at(pocket, site)[5].expand_as(plain)
        torch.testing.assert_close(after - plain, expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(pocket.write_vector(unit_at(site, 5)), write_vectors_at(pocket, site)[5])
    with pytest.raises(ToolRefused, match=r"read 6\.heads and not the residual stream"):
        read_vectors_at(pocket, features_of(pocket, "at-attn.hook_z"))


def run(context: ToolContext, tool: str, args: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    found = find_tool(tool)
    result = found.run(context, found.parse(args))
    return result.payload, {m.metric: m.value for m in result.measurements}


CLAIM = canonical_json(parse_text("at(3, token('After', ' After'))"))
SAME_ANSWERS: dict[str, dict[str, Any]] = {
    "firing": {},
    "top_examples": {"k": 5},
    "activations_on": {"texts": EIGHT},
    "promoted_tokens": {"k": 5},
    "ablate": {"prompts": EIGHT, "answer": " met"},
    "steer": {"prompts": EIGHT, "token": " met", "doses": [0.0, 1.0, 2.0]},
    "output_effects": {"n_places": 8},
    "test_reads": {"claim": CLAIM, "block": 0},
    "test_writes": {"direction": "promotes", "tokens": [" met"], "block": 0, "n_places": 8},
}


@pytest.mark.parametrize("tool", SAME_ANSWERS)
def test_a_planted_feature_gets_the_answers_of_its_neuron(tool: str, context: ToolContext) -> None:
    (feature, numbers), (neuron, own) = (
        run(context, tool, {"unit": unit.address, **SAME_ANSWERS[tool]}) for unit in (PLANTED, NEURON)
    )
    assert numbers == pytest.approx(own, rel=2e-3, abs=2e-4)
    assert (feature.get("unit"), neuron.get("unit")) in ((PLANTED.address, NEURON.address), (None, None))
    for part in ("rule", "examples", "texts", "promoted", "prompts", "curve", "claim", "bets", "pairs", "leaf_e"):
        assert _rounded(feature.get(part)) == _rounded(neuron.get(part))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return pytest.approx(value, rel=2e-3, abs=2e-3)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def test_weights_of_a_feature_are_its_encoder_and_decoder(context: ToolContext) -> None:
    found = find_tool("weights_of")
    result = found.run(context, found.parse({"unit": "sae:mlp/481"}))
    weights = context.target.dictionaries["mlp"].weights
    np.testing.assert_array_equal(result.arrays["read"], weights["W_enc"][:, INDEX].numpy())
    np.testing.assert_array_equal(result.arrays["write"], weights["W_dec"][INDEX].numpy())
    assert result.payload["nearest_by_read"][0]["feature"].startswith("sae:mlp/")


def test_features_are_compared_with_features_that_fire(context: ToolContext) -> None:
    others, all_of_them = other_units(context, PLANTED), candidate_units(context, PLANTED)
    fire = [int(i) for i, rule in zip(all_of_them.indices, all_of_them.rules, strict=True) if rule is not None]
    assert len(others.indices) == 32
    assert INDEX not in others.indices
    if len(fire) >= 33:
        assert set(others.indices.tolist()) <= set(fire)
    part = Part.of(context.target, PLANTED)
    texts = context.target.tokenize(EIGHT)
    values = context.target.run(torch.from_numpy(np.maximum(texts.ids, 0)).long(), read=[part.site]).read[part.site]
    live = {int(i) for i in values[torch.from_numpy(texts.scored)].any(dim=0).nonzero()[:, 0]}
    peers = part.peers(context.target, texts, seed=0)
    assert {peer.index for peer in peers} <= live - {INDEX}
    assert len(peers) == min(32, len(live - {INDEX}))


def test_activations_beside_others_read_no_other_feature(context: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...] | None] = []
    encode = Dictionary.encode

    def noting(self: Dictionary, x: torch.Tensor, columns: Any = None) -> torch.Tensor:
        asked.append(None if columns is None else tuple(columns))
        return encode(self, x, columns)

    monkeypatch.setattr(Dictionary, "encode", noting)
    unit, texts = Unit.of_feature("at-hook_resid_pre", 11), context.sample("explore", 500)
    values = context.activations_beside(unit, np.array([30, 2]), "explore", n_tokens=500)
    assert set(asked) == {(2, 11, 30)}
    for row, index in zip(values, (30, 2), strict=True):
        np.testing.assert_allclose(
            row, activations_of(context.target, unit_at(site_of(context.target, unit), index), texts), atol=1e-5
        )


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gemma3", "qwen3"])
def test_places_of_other_architectures(family: str, tmp_path: Path) -> None:
    target = load_target(make_model(family, tmp_path / "model"))
    assert isinstance(target, TransformerLensTarget)
    rms, text = family != "gpt2", torch.arange(9)[None] + 3
    hooks = {"mlp.hook_in": "mlp_in", "hook_mlp_in": "resid_mid"} | (
        {"ln2.hook_normalized": "normalized"} if rms else {}
    )
    for hook in hooks:
        made = drawn(
            f"blocks.1.{hook}", 32, architecture="transcoder", out="blocks.1.hook_mlp_out", subtracts_b_dec=False
        )
        target.add_dictionary(replace(made, name=hooks[hook]))
    for hook, width in (
        ("hook_mlp_out", 32),
        ("mlp.hook_post", 40),
        ("attn.hook_z", target.spec.n_heads * target.spec.d_head),
    ):
        target.add_dictionary(drawn(f"blocks.1.{hook}", width))
    names = list(target.dictionaries)
    sites = {name: features_of(target, name) for name in names}
    base = [Site("resid_pre", 1), Site("attn_out", 1), Site("mlp_out", 1)]
    read = target.run(text, read=[*base, *sites.values()]).read
    mid = read[base[0]] + read[base[1]]
    state = {
        key: value for file in (tmp_path / "model").glob("*.safetensors") for key, value in load_file(file).items()
    }
    norm = {"gpt2": "ln_2", "gemma2": "pre_feedforward_layernorm", "gemma3": "pre_feedforward_layernorm"}.get(
        family, "post_attention_layernorm"
    )
    (gain,) = [value for key, value in state.items() if key.endswith(f".1.{norm}.weight")]
    gain = gain + 1 if family.startswith("gemma") else gain
    if rms:
        normalized = mid / (mid.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        inputs = {"resid_mid": mid, "normalized": normalized, "mlp_in": normalized * gain}
    else:
        (bias,) = [value for key, value in state.items() if key.endswith(f".1.{norm}.bias")]
        inputs = {"resid_mid": mid, "mlp_in": torch.nn.functional.layer_norm(mid, (32,), gain, bias, 1e-5)}
    for name, x in inputs.items():
        torch.testing.assert_close(read[sites[name]], target.dictionaries[name].encode(x), atol=2e-4, rtol=2e-4)
    for name in names:
        out = out_of(target, sites[name])
        plain, after = (
            target.run(text, read=[out], edits=e).read[out] for e in ([], [Edit(sites[name], "add", 0.7, index=5)])
        )
        moved, written = (after - plain)[0], 0.7 * write_vectors_at(target, sites[name])[5]
        if family.startswith("gemma") and name in (
            "at-mlp.hook_post",
            "at-attn.hook_z",
        ):  # a norm follows, whose scale differs
            continue
        torch.testing.assert_close(moved, written.expand_as(moved), atol=1e-4, rtol=1e-3)


def _refused(target: TransformerLensTarget, dictionary: Dictionary, said: str) -> None:
    with pytest.raises(UserError, match=said):
        target.add_dictionary(dictionary)


def test_a_dictionary_of_something_else_is_refused(pocket: TransformerLensTarget, tmp_path: Path) -> None:
    known = set(pocket.dictionaries)
    own = drawn("blocks.6.hook_resid_post", D_MODEL)
    _refused(pocket, own, "two dictionaries are called 'at-hook_resid_post'")
    _refused(
        pocket,
        drawn("blocks.6.hook_resid_post", 96).__class__("x", "", drawn("blocks.6.hook_resid_post", 96).layout, {}),
        "reads 96 numbers at 6.resid_post, where pocket has 128",
    )
    for change, said in (
        ({"weights_sha256": "a" * 64}, "made for a model with weights aaaaaaaaaaaa"),
        ({"model_name": "gpt2-small"}, "made for 'gpt2-small' and not for 'pocket'"),
        ({"reads": place_of("blocks.10.hook_resid_post")}, "reads 10.resid_post, but pocket has layers 0 to 9"),
        ({"reads": place_of("blocks.6.attn.hook_z", head=4), "d_in": 32}, "reads head 4, and a layer has heads 0 to 3"),
        ({"reads": place_of("blocks.6.ln2.hook_normalized")}, "before or after the gain"),
    ):
        _refused(pocket, replace(own, name="x", layout=replace(own.layout, **change)), said)
    gemma = load_target(make_model("gemma2", tmp_path / "model"))
    assert isinstance(gemma, TransformerLensTarget)
    _refused(gemma, drawn("blocks.1.mlp.hook_out", 32), "before the norm that follows 1.mlp_out")
    assert set(pocket.dictionaries) == known
    named = replace(own, name="named", layout=replace(own.layout, model_name="EleutherAI/Pocket"))
    pocket.add_dictionary(named)  # the last part of the name, whatever its case


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Edit(Site("features", 6, "none"), "set", 0.0, index=1), "no dictionary is called 'none'"),
        (Edit(Site("features", 5, "at-hook_resid_pre"), "set", 0.0, index=1), "reads layer 6"),
        (Edit(Site("features", 6, "at-hook_resid_pre"), "set", 0.0, index=40), "index 40 does not exist"),
        (Edit(Site("features", 6, "at-hook_resid_pre", (3,)), "set", 0.0, index=3), "by index, not by columns"),
        (Edit(Site("features", 6, "at-hook_resid_pre"), "set", torch.zeros(2, 2), index=3), "does not fit"),
    ],
)
def test_an_edit_of_what_is_not_there_is_refused(
    edit: Edit, said: str, pocket: TransformerLensTarget, ids: torch.Tensor
) -> None:
    with pytest.raises(ToolRefused, match=said):
        pocket.run(ids, edits=[edit])


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("sae:none/3", "no dictionary is called 'none'"),
        ("sae:mlp/512", "mlp has features 0 to 511"),
        ("sae:mlp/x", "names no unit"),
    ],
)
def test_a_feature_that_is_not_there_is_refused(unit: str, said: str, context: ToolContext) -> None:
    for tool in ("firing", "top_examples", "weights_of"):
        with pytest.raises(UserError, match=said):
            run(context, tool, {"unit": unit})
    assert width_of(context.target, features_of(context.target, "mlp")) == D_MLP  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The neurons of layer 1 of the tiny model above 0, in a folder called tiny-1."""
    layout = Layout(
        "standard",
        place_of("blocks.1.mlp.hook_post"),
        place_of("blocks.1.mlp.hook_post"),
        40,
        40,
        40,
        subtracts_b_dec=False,
    )
    eye = {"W_enc": torch.eye(40), "b_enc": torch.zeros(40), "W_dec": torch.eye(40), "b_dec": torch.zeros(40)}
    folder = tmp_path_factory.mktemp("dictionaries") / "tiny-1"
    save_dictionary(Dictionary("", "", layout, eye), folder)
    return folder


def test_a_feature_is_asked_about_by_name(
    tiny: tuple[str, ...], tiny_features: Path, tmp_path: Path, neuronaut: Callable[..., Any]
) -> None:
    book = ("--notebook", tmp_path / "n.db", "--json")
    said = neuronaut("ask", "what does feature sae:tiny-1/6 do", *tiny, "--dictionary", tiny_features, *book, "--fast")
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    assert {one["unit"] for one in answer["claims"]} == {"sae:tiny-1/6"}
    with sqlite3.connect(tmp_path / "n.db") as db:
        (row,) = db.execute("select name, sha256, architecture, site, layer, width from dictionary").fetchall()
        units = db.execute('select kind, layer, "index", address, dictionary is not null from unit').fetchall()
    assert row == ("tiny-1", read_dictionary(tiny_features).sha256, "standard", "neurons", 1, 40)
    assert units == [("feature", 1, 6, "sae:tiny-1/6", 1)]
    again = neuronaut("rerun", answer["run"], *book)
    assert again.code == 0
    assert {row["outcome"] for row in json.loads(again.out)["repeats"]} <= {"identical", "within tolerance"}


def test_other_weights_under_a_known_name_are_refused(
    tiny: tuple[str, ...], tiny_features: Path, tmp_path: Path, neuronaut: Callable[..., Any]
) -> None:
    folder = tmp_path / "tiny-1"
    folder.mkdir()
    for file in tiny_features.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    book, question = ("--notebook", tmp_path / "n.db"), ("ask", "test sae:tiny-1/6: token(' cat')")
    first = neuronaut(*question, *tiny, "--dictionary", folder, *book, "--fast", "--json")
    assert first.code == 0, first.err
    done = json.loads(first.out)["run"]
    stopped = neuronaut(
        *question, *tiny, "--dictionary", folder, *book, "--fast", "--again", "--budget-forwards", 1, "--json"
    )
    assert stopped.code == 1
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | {"seen": True}))
    resumed = neuronaut("resume", json.loads(stopped.out)["run"], *book)
    assert (resumed.code, resumed.out) == (2, "")
    assert "cannot go on: its dictionary tiny-1 changed since" in resumed.err
    asked = neuronaut(*question, *tiny, "--dictionary", folder, *book, "--fast")
    assert (asked.code, asked.out) == (2, "")
    assert "'tiny-1' names a dictionary with other weights" in asked.err
    repeated = neuronaut("rerun", done, *book)
    assert repeated.code == 2
    assert "its dictionary tiny-1 changed since" in repeated.err
    other = neuronaut("ask", "test sae:new/6: token(' cat')", *tiny, "--dictionary", f"new={folder}", *book, "--fast")
    assert other.code == 0, other.err


def test_the_command_line_refuses_dictionaries_that_do_not_fit(
    tiny: tuple[str, ...], tiny_features: Path, neuronaut: Callable[..., Any]
) -> None:
    for options, said in (
        (
            ("--dictionary", tiny_features, "--dictionary", f"tiny-1={tiny_features}"),
            "two dictionaries are called 'tiny-1'",
        ),
        (("--dictionary", tiny_features / "none"), "there is no folder"),
        (("--dictionary", tiny_features), "no dictionary is called 'other' (there are tiny-1)"),
    ):
        refused = neuronaut("ask", "what does sae:other/1 do", *tiny, *options)
        assert (refused.code, refused.out) == (2, "")
        assert said in refused.err
        assert "Traceback" not in refused.err


@pytest.mark.parametrize("name", [f"at-{hook}" for hook in DRAWN])
def test_a_null_dream_of_features_follows_the_gradient_of_what_it_drives(
    pocket: TransformerLensTarget, ids: torch.Tensor, name: str
) -> None:
    unit, rows = Unit.of_feature(name, 3), ids[:1]
    null = null_aims(unit_aim(pocket, unit), unit, 2, 0)[0]
    slope = null.slopes(rows, null.measure(rows).values).value
    entry, site = Site("resid_pre", 0), null.site
    assert site is not None
    residual = pocket.run(rows, read=[entry]).read[entry]
    step = 1e-3 * residual.norm() * slope / slope.norm()
    up, down = (pocket.run(rows, read=[site], start=(0, residual + way * step), stop=7).read[site] for way in (1, -1))
    risen = float(null.along(up)[0, -1] - null.along(down)[0, -1]) / 2
    assert risen > 0
    assert risen == pytest.approx(float((slope * step).sum()), rel=5e-2)


def test_a_dream_of_a_feature_that_is_a_neuron_is_that_of_the_neuron(
    pocket: TransformerLensTarget, ids: torch.Tensor
) -> None:
    feature, neuron = unit_aim(pocket, PLANTED), unit_aim(pocket, NEURON)
    torch.testing.assert_close(feature.measure(ids).values, neuron.measure(ids).values, atol=1e-4, rtol=1e-4)
    null = null_aims(feature, PLANTED, 2, 0)[0]
    assert null.drive is not None, "what enters an MLP is no site of which a gradient is taken"
    read = pocket.dictionaries["mlp"].weights["W_enc"] @ null.weights
    torch.testing.assert_close(null.drive.vector, read, atol=1e-5, rtol=1e-4)
    assert float(null.slopes(ids, null.measure(ids).values).value.abs().max()) > 0


def test_a_feature_of_the_shipped_dictionary_is_dreamt_of(pocket: TransformerLensTarget) -> None:
    corpus = Corpus("a little of pocket", "1" * 64, pocket_corpus().documents[::64])
    asked = {"unit": "sae:resid6/480", "length": 8, "forwards": 400, "nulls": 2}
    tool = find_tool("dream")
    payload = tool.run(ToolContext(pocket, corpus), tool.parse(asked)).payload
    found, _, drawn = (row["best"] for row in payload["searches"])
    assert found > drawn > 0
    assert all(np.isfinite(row["best"]) for row in payload["nulls"])
    best, site = payload["front"][0], Site("resid_post", 6)
    rows = torch.from_numpy(pocket.tokenize([best["text"]]).ids).long()
    last = pocket.run(rows, read=[site]).read[site][0, -1]
    encoded = read_dictionary(POCKET / "dictionaries" / "resid6").encode(last[None])[0, 480]
    assert float(encoded) == pytest.approx(best["activation"], abs=1e-3)
    assert found == pytest.approx(best["activation"], abs=1e-3)

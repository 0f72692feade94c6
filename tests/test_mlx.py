"""What is of --backend mlx alone: architectures in the words of mlx-lm, quantised weights, refusals, the same answers as torch."""

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.features.dictionary import Dictionary, Layout
from neuronaut.tools.features.places import place_of
from neuronaut.tools.targets import load
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.load import has_mlx, load_target

pytestmark = pytest.mark.skipif(not has_mlx(), reason='mlx and mlx-lm are not installed: pip install "mlx[cpu]" mlx-lm')

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
make_model, GROUPED, UNGROUPED, NO_IDS = (_made[name] for name in ("make_model", "GROUPED", "UNGROUPED", "NO_IDS"))
PADDED = NO_IDS | {"pad_token_id": 0}
YARN = {"beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 16}
LONG = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [3.0, 4.0, 5.0, 6.0]}


def _llama_turned(**rope: Any) -> Callable[[], transformers.PretrainedConfig]:
    given = GROUPED | NO_IDS | {"tie_word_embeddings": False}
    return lambda: transformers.LlamaConfig(**given, rope_parameters=rope)


def _neox(**more: Any) -> Callable[[], transformers.PretrainedConfig]:
    own = {"intermediate_size": 40, "max_position_embeddings": 64, "tie_word_embeddings": False}
    return lambda: transformers.GPTNeoXConfig(**_made["SHAPE"], **own, **NO_IDS, **more)


def _phi3(**more: Any) -> Callable[[], transformers.PretrainedConfig]:
    return lambda: transformers.Phi3Config(**UNGROUPED, **PADDED, **more)


# What mlx-lm by itself computes differently without a word, beside what it computes rightly.
CONFIGS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "theta": _llama_turned(rope_type="default", rope_theta=500.0),
    "linear": _llama_turned(rope_type="linear", rope_theta=1e4, factor=4.0),
    "yarn": _llama_turned(rope_type="yarn", rope_theta=1e4, factor=4.0, **YARN),
    "phi3": _phi3(sliding_window=5),
    "phi3_long": _phi3(
        original_max_position_embeddings=64, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **LONG}
    ),
    "neox": _neox(rotary_pct=0.5),
    "neox_in_a_row": _neox(rotary_pct=0.25, use_parallel_residual=False, hidden_act="gelu_new"),
}


def make(name: str, folder: Path, config: Callable[[], transformers.PretrainedConfig]) -> Path:
    """A random model of a configuration, with the tokenizer of GPT-2's kind."""
    _made["UNKNOWN"][name] = config
    made: Path = make_model(name, folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": None}))
    return made


def ids_for(target: TargetModel, batch: int = 3) -> Tensor:
    return torch.randint(0, target.spec.d_vocab, (batch, 11), generator=torch.Generator().manual_seed(0))


def logits_of(target: TargetModel, ids: Tensor, **options: Any) -> Tensor:
    found = target.run(ids, logits=True, **options).logits
    assert found is not None
    return found


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < tolerance


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_neurons_of_an_architecture_are_those_of_plain_transformers(name: str, tmp_path: Path) -> None:
    folder = make(name, tmp_path / name, CONFIGS[name])
    target = load_target(folder, backend="mlx")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids, entered = ids_for(target), list[Tensor]()
    down = [module for path, module in theirs.named_modules() if path.endswith(("down_proj", "dense_4h_to_h"))]
    down[1].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with torch.no_grad():
        near(logits_of(target, ids), theirs(ids).logits)
        site = Site("neurons", 1)
        near(target.run(ids, read=[site]).read[site], entered[0])


@pytest.mark.parametrize("name", ["neox", "neox_in_a_row", "phi3"])
def test_what_fused_weights_of_attention_give_is_what_its_heads_write(name: str, tmp_path: Path) -> None:
    target = load_target(make(name, tmp_path / name, CONFIGS[name]), backend="mlx")
    ids, weights = ids_for(target), target.attention_weights(1)
    sites = [Site(part, 1) for part in ("resid_pre", "heads", "attn_out", "pattern")]
    pre, z, out, pattern = (target.run(ids, read=sites).read[site] for site in sites)
    near(torch.einsum("bphe,hed->bpd", z, weights.W_O) + weights.b_O, out)
    norm = torch.nn.functional.layer_norm if target.spec.norm == "layernorm" else torch.nn.functional.rms_norm
    folder = load_file(tmp_path / name / "model.safetensors")
    prefix = "gpt_neox.layers.1.input_layernorm" if "neox" in name else "model.layers.1.input_layernorm"
    gain, bias = folder[f"{prefix}.weight"], folder.get(f"{prefix}.bias")
    normed = (
        norm(pre, (pre.shape[-1],), gain, bias, 1e-5) if bias is not None else norm(pre, (pre.shape[-1],), gain, 1e-5)
    )
    v = torch.einsum("bpd,hde->bhpe", normed, weights.W_V) + weights.b_V[:, None]
    groups = target.spec.n_heads // target.spec.n_kv_heads
    near(z, (pattern @ v.repeat_interleave(groups, dim=1)).transpose(1, 2))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> tuple[TargetModel, TargetModel]:
    """A model in 4 bits on mlx, and what its weights stand for on torch."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    folder, packed, spelt = (tmp_path_factory.mktemp("quantised") / name for name in ("plain", "packed", "spelt"))
    shape = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    make("in 4 bits", folder, lambda: transformers.LlamaConfig(**GROUPED | shape, **NO_IDS, tie_word_embeddings=False))
    model, _ = load_model(folder, model_config={"rope_theta": 1e4, "tie_word_embeddings": False})
    nn.quantize(model, group_size=32, bits=4)
    shutil.copytree(folder, packed)
    mx.save_safetensors(str(packed / "model.safetensors"), dict(tree_flatten(model.parameters())))
    config = json.loads((folder / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"quantization": {"group_size": 32, "bits": 4}}))
    shutil.copytree(folder, spelt)
    weights = {}
    for name, module in model.named_modules():
        if "scales" in module:
            value = mx.dequantize(module.weight, module.scales, module.biases, group_size=32, bits=4)
            weights[f"{name}.weight"] = torch.tensor(value.tolist())
        elif "weight" in module:
            weights[f"{name}.weight"] = torch.tensor(module.weight.tolist())
    save_file(weights, spelt / "model.safetensors", metadata={"format": "pt"})
    return load_target(packed, backend="mlx"), load_target(spelt)


def test_weights_in_4_bits_are_run_read_and_edited_as_what_they_stand_for(
    quantised: tuple[TargetModel, TargetModel],
) -> None:
    packed, spelt = quantised
    ids = ids_for(packed)
    near(logits_of(packed, ids), logits_of(spelt, ids))
    edit = Edit(Site("neurons", 1), "set", 3.0, index=7)
    moved = logits_of(packed, ids, edits=[edit])
    assert float((moved - logits_of(packed, ids)).abs().max()) > 1e-2, "the edit must do something"
    near(moved, logits_of(spelt, ids, edits=[edit]))
    near(packed.write_vectors(1), spelt.write_vectors(1), 1e-6)
    near(packed.read_vectors(2), spelt.read_vectors(2), 1e-6)
    near(packed.embed, spelt.embed, 1e-6)
    near(packed.unembed, spelt.unembed, 1e-6)
    for found, expected in zip(packed.attention_weights(0), spelt.attention_weights(0), strict=True):
        near(found, expected, 1e-6)
    site = Site("neurons", 0)
    value, gradient = packed.gradients(ids, [site], lambda logits: logits[:, -1, 3])[site]
    expected_value, expected_gradient = spelt.gradients(ids, [site], lambda logits: logits[:, -1, 3])[site]
    near(value, expected_value)
    near(gradient, expected_gradient)


def test_a_run_with_features_is_that_of_torch(tmp_path: Path) -> None:
    folder, made = make_model("llama", tmp_path / "llama"), torch.Generator().manual_seed(0)
    targets = load_target(folder), load_target(folder, backend="mlx")
    width, sites, edits = 20, list[Site](), list[Edit]()
    for number, hook in enumerate(("hook_resid_pre", "hook_resid_mid", "hook_mlp_out", "attn.hook_z", "mlp.hook_post")):
        d_in = {"attn.hook_z": 48, "mlp.hook_post": 40}.get(hook, 32)
        place = place_of(f"blocks.1.{hook}")
        shapes = {"W_enc": (d_in, width), "b_enc": (width,), "W_dec": (width, d_in), "b_dec": (d_in,)}
        weights = {name: torch.randn(shape, generator=made) * 0.3 for name, shape in shapes.items()}
        for target in targets:
            target.add_dictionary(  # type: ignore[attr-defined]
                Dictionary(f"d{number}", "0" * 64, Layout("standard", place, place, d_in, d_in, width), weights)
            )
        sites += [Site("features", 1, f"d{number}"), Site("features", 1, f"d{number}", (3, 1))]
        edits.append(Edit(Site("features", 1, f"d{number}"), "set", 2.0, index=5))
    ids = ids_for(targets[0])
    plain, found = (target.run(ids, read=[*sites, Site("resid_post", 1)], logits=True) for target in targets)
    for site in plain.read:
        near(found.read[site], plain.read[site])
    changed = [logits_of(target, ids, edits=edits) for target in targets]
    assert plain.logits is not None
    assert float((changed[0] - plain.logits).abs().max()) > 1e-2
    near(changed[1], changed[0])
    theirs, ours = (target.gradients(ids, sites, lambda logits: logits[:, -1, 3]) for target in targets)
    for site in sites:
        assert float(theirs[site][1].abs().max()) > 1e-4
        near(ours[site][0], theirs[site][0])
        near(ours[site][1], theirs[site][1])
    with pytest.raises(ToolRefused, match="give --backend torch"):
        targets[1].gradients(ids, sites, lambda logits: logits[:, -1, 3], edits=edits[:1])


REFUSED: dict[str, tuple[Callable[[], transformers.PretrainedConfig], str]] = {
    "opt": (_made["UNKNOWN"]["opt"], "architecture 'opt', which --backend mlx does not know: it knows gpt2"),
    "qwen2": (lambda: transformers.Qwen2Config(**UNGROUPED, **NO_IDS), "the nearest that it knows is 'qwen3'"),
    "gelu": (
        lambda: transformers.LlamaConfig(**GROUPED, **NO_IDS, hidden_act="gelu"),
        "computes silu where it has gelu",
    ),
    "by_layer": (
        lambda: transformers.GPT2Config(
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=24,
            vocab_size=384,
            scale_attn_by_inverse_layer_idx=True,
            **NO_IDS,
        ),
        "scales its attention",
    ),
    "biased": (
        lambda: transformers.Qwen3Config(**GROUPED, **NO_IDS, attention_bias=True),
        "k_proj.bias'.*which mlx-lm would leave out",
    ),
    "long": (
        _phi3(
            original_max_position_embeddings=16, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **LONG}
        ),
        "beyond 16 tokens by another rule",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mlx_lm_would_compute_differently_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    config, reason = REFUSED[name]
    with pytest.raises(UserError, match=reason):
        load_target(make(name, tmp_path / name, config), backend="mlx")


def test_an_unembedding_of_its_own_beside_a_tied_one_is_refused_and_an_equal_one_is_left_out(tmp_path: Path) -> None:
    folder = make("theta", tmp_path / "llama", CONFIGS["theta"])
    file, config = folder / "model.safetensors", folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": True}))
    stored = load_file(file)
    save_file(stored | {"lm_head.weight": stored["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    assert load_target(folder, backend="mlx").spec.n_layers
    save_file(stored | {"lm_head.weight": stored["model.embed_tokens.weight"] + 1}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"ties the unembedding .* another lm_head\.weight"):
        load_target(folder, backend="mlx")


def test_weights_that_would_be_made_up_are_refused(tmp_path: Path) -> None:
    folder = make_model("llama", tmp_path / "llama")
    weights = load_file(folder / "model.safetensors")
    down = weights.pop("model.layers.1.mlp.down_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 'model\.layers\.1\.mlp\.down_proj\.weight'"):
        load_target(folder, backend="mlx")
    weights["model.layers.1.mlp.down_proj.weight"] = down[:, 1:].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"does not fit the weights: .*down_proj\.weight has shape \[32, 39\], not \[32, 40\]"
    ):
        load_target(folder, backend="mlx")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="its header speaks of"):
        load_target(folder, backend="mlx")


def test_without_mlx_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, neuronaut: Callable[..., Any], tiny: tuple[str, ...]
) -> None:
    monkeypatch.setattr(load, "has_mlx", lambda: False)
    said = neuronaut("ask", "what does neuron 1.3 do", "--fast", "--backend", "mlx", *tiny)
    assert said.code == 2
    assert 'pip install "mlx[cpu]" mlx-lm' in said.err
    assert "Traceback" not in said.err


def test_importing_mlx_lm_leaves_the_number_of_open_files_as_it_was() -> None:
    import resource
    import subprocess
    import sys

    code = (
        "import resource; before = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "from neuronaut.tools.targets.load import load_target; load_target('pocket', backend='mlx')\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == before, resource.getrlimit(resource.RLIMIT_NOFILE)"
    )
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 0
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def claims(said: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(said.out)["claims"]
    return found


def test_both_engines_give_the_same_answer_and_are_told_apart(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    asked = ("ask", "what does neuron 1.3 do", "--fast", "--json", "--notebook", tmp_path / "n.db", *tiny)
    torch_said, mlx_said = neuronaut(*asked), neuronaut(*asked, "--backend", "mlx")
    assert (torch_said.code, mlx_said.code) == (0, 0), mlx_said.err
    assert "answered before" not in mlx_said.err
    ours, theirs = claims(mlx_said), claims(torch_said)
    assert theirs
    assert [(c["claim"], c["status"], c["reason"]) for c in ours] == [
        (c["claim"], c["status"], c["reason"]) for c in theirs
    ]
    for one, other in zip(ours, theirs, strict=True):
        assert one["scores"].keys() == other["scores"].keys()
        for name, score in one["scores"].items():
            assert score["value"] == pytest.approx(other["scores"][name]["value"], abs=1e-3), name
    assert json.loads(mlx_said.out)["run"] != json.loads(torch_said.out)["run"]
    again = neuronaut(*asked, "--backend", "mlx")
    assert "answered before" in again.err
    repeated = neuronaut("rerun", json.loads(mlx_said.out)["run"], "--notebook", tmp_path / "n.db")
    assert repeated.code == 0, repeated.out
    assert "changed inputs: none" in repeated.out


def test_a_tool_and_an_index_are_run_by_mlx(neuronaut: Callable[..., Any], tiny: tuple[str, ...]) -> None:
    for command in (("tool", "top_examples", '{"unit": "1.3"}'), ("index", "build", "--layers", "1")):
        said = neuronaut(*command, *tiny, "--backend", "mlx", "--json")
        assert said.code == 0, said.err
    assert '"mlx"' in neuronaut("models", "--json").out

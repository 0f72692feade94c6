"""Experts in the formats of mlx-lm and of OpenAI: packed weights run as what they stand for, and what is refused."""

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

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.load import has_mlx, load_target

pytestmark = pytest.mark.skipif(not has_mlx(), reason='mlx and mlx-lm are not installed: pip install "mlx[cpu]" mlx-lm')

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
GROUP = 32  # weights that share a scale
SHAPE = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32}
W = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def make(family: str, folder: Path, **changes: Any) -> Path:
    """A random model of a family, with other numbers in its configuration."""

    def config() -> transformers.PretrainedConfig:
        found = _made["CONFIGS"][family]()
        for key, value in changes.items():
            if hasattr(found, key):
                setattr(found, key, value)
        return found

    _made["UNKNOWN"]["changed"] = config
    made: Path = _made["make_model"]("changed", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": None}))
    return made


def packed(weight: Tensor) -> tuple[dict[str, Any], Tensor]:
    """A weight (…, n_out, n_in) in 4 bits, and what these stand for."""
    import mlx.core as mx

    found = dict(zip(("weight", "scales", "biases"), mx.quantize(mx.array(weight.numpy()), GROUP, 4), strict=True))
    spelt = mx.dequantize(found["weight"], found["scales"], found["biases"], GROUP, 4)
    return found, torch.tensor(spelt.tolist())


def in_4_bits(family: str, weights: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The weights as mlx_lm.convert writes them, and in the names and layout of transformers what they stand for."""
    import mlx.core as mx

    short: dict[str, Any] = {}
    spelt = dict(weights)
    stacks: dict[str, dict[int, str]] = {}
    for name, value in weights.items():
        at, _, part = name.partition(".experts.")
        if family == "gpt_oss" and part == "gate_up_proj":
            for number, one in enumerate(("gate_proj", "up_proj")):
                found, stands = packed(value[..., number::2].mT.contiguous())
                short |= {f"{at}.experts.{one}.{key}": kept for key, kept in found.items()}
                spelt[name][..., number::2] = stands.mT
        elif family == "gpt_oss" and part == "gate_up_proj_bias":
            for number, one in enumerate(("gate_proj", "up_proj")):
                short[f"{at}.experts.{one}.bias"] = mx.array(value[..., number::2].numpy())
        elif family == "gpt_oss" and part == "down_proj":
            found, stands = packed(value.mT.contiguous())
            short |= {f"{at}.experts.down_proj.{key}": kept for key, kept in found.items()}
            spelt[name] = stands.mT.contiguous()
        elif family == "gpt_oss" and part == "down_proj_bias":
            short[f"{at}.experts.down_proj.bias"] = mx.array(value.numpy())
        elif part:
            expert, one, _ = part.split(".")
            stacks.setdefault(f"{at}.switch_mlp.{W.get(one, one)}", {})[int(expert)] = name
        elif value.dim() == 2:
            found, spelt[name] = packed(value)
            short |= {f"{name.removesuffix('weight')}{key}": kept for key, kept in found.items()}
        else:
            short[name] = mx.array(value.numpy())
    for name, of in stacks.items():
        found, stands = packed(torch.stack([weights[of[expert]] for expert in range(len(of))]))
        short |= {f"{name}.{key}": kept for key, kept in found.items()}
        spelt |= {of[expert]: one.contiguous() for expert, one in enumerate(stands)}
    return short, spelt


@pytest.fixture(scope="module", params=["mixtral", "qwen3_moe", "gpt_oss"])
def quantised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a model in 4 bits, as mlx_lm.convert writes it, and of what its weights stand for."""
    import mlx.core as mx

    family, place = str(request.param), tmp_path_factory.mktemp("quantised")
    plain = make(family, place / "plain", **SHAPE)
    short, spelt = in_4_bits(family, load_file(plain / "model.safetensors"))
    for name in ("short", "spelt"):
        shutil.copytree(plain, place / name)
    mx.save_safetensors(str(place / "short" / "model.safetensors"), short)
    config = json.loads((plain / "config.json").read_text()) | {"quantization": {"group_size": GROUP, "bits": 4}}
    (place / "short" / "config.json").write_text(json.dumps(config))
    save_file(spelt, place / "spelt" / "model.safetensors", metadata={"format": "pt"})
    return place / "short", place / "spelt"


def check_same(ours: TargetModel, theirs: TargetModel) -> None:
    """Runs, edits, vectors and gradients of two targets that should be one model."""
    ids = torch.randint(0, ours.spec.d_vocab, (3, 11), generator=torch.Generator().manual_seed(0))
    neurons, router = Site("neurons", 1, expert=2), Site("router", 1)
    edits: list[list[Edit]] = [[], [Edit(neurons, "set", 3.0, index=7)], [Edit(router, "set", 0.4, index=3)]]
    logits = [[one.run(ids, edits=edit, logits=True).logits for one in (ours, theirs)] for edit in edits]
    for found, expected in logits:
        assert found is not None
        assert expected is not None
        near(found, expected)
    for _, moved in logits[1:]:
        assert moved is not None
        assert logits[0][1] is not None
        assert float((moved - logits[0][1]).abs().max()) > 1e-2, "the edit must do something"
    near(ours.write_vectors(1, 2), theirs.write_vectors(1, 2), 1e-6)
    near(ours.read_vectors(1, 2), theirs.read_vectors(1, 2), 1e-6)
    slopes = [one.gradients(ids, [neurons, router], lambda logits: logits[:, -1, 3]) for one in (ours, theirs)]
    for site in (neurons, router):
        assert float(slopes[1][site][1].abs().max()) > 1e-3
        near(slopes[0][site][0], slopes[1][site][0])
        near(slopes[0][site][1], slopes[1][site][1])


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < tolerance


def test_experts_in_4_bits_are_run_read_and_edited_as_what_they_stand_for(quantised: tuple[Path, Path]) -> None:
    check_same(load_target(quantised[0], backend="mlx"), load_target(quantised[1]))


def test_experts_in_4_bits_are_run_in_bfloat16(quantised: tuple[Path, Path]) -> None:
    rounded, exact = load_target(quantised[0], backend="mlx", dtype=torch.bfloat16), load_target(quantised[1])
    ids, edit = torch.arange(33).view(3, 11), Edit(Site("neurons", 2, expert=1), "set", 2.0, index=3)
    found, expected = (one.run(ids, edits=[edit], logits=True).logits for one in (rounded, exact))
    assert found is not None
    assert expected is not None
    close = (found - expected).abs().amax(dim=-1) < 0.3  # rounding may send a token to another expert
    assert float(close.float().mean()) > 0.7


def test_gpt_oss_is_run_in_the_format_in_which_it_is_published(tmp_path: Path) -> None:
    """MXFP4 blocks of random bytes, against what transformers makes of them."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    folder, made = make("gpt_oss", tmp_path / "spelt", **SHAPE), torch.Generator().manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    short = dict(weights)
    for name in [name for name in weights if name.endswith((".gate_up_proj", ".down_proj"))]:
        n_experts, n_in, n_out = weights[name].shape
        blocks = torch.randint(0, 256, (n_experts, n_out, n_in // GROUP, GROUP // 2), generator=made, dtype=torch.uint8)
        scales = torch.randint(122, 126, blocks.shape[:-1], generator=made, dtype=torch.uint8)
        del short[name]
        short |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        weights[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
        assert weights[name].shape == (n_experts, n_in, n_out)
    shutil.copytree(folder, tmp_path / "short")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(short, tmp_path / "short" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
    (tmp_path / "short" / "config.json").write_text(json.dumps(config))
    check_same(load_target(tmp_path / "short", backend="mlx"), load_target(folder))


CHANGED: dict[str, tuple[str, dict[str, Any]]] = {
    "windows of mixtral": ("mixtral", {"sliding_window": 5}),
    "one expert a token": ("mixtral", {"num_experts_per_tok": 1}),
    "all experts": ("gpt_oss", {"num_experts_per_tok": 4}),
    "windows of qwen3_moe": ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 5}),
    "shares of the chosen": ("qwen3_moe", {"norm_topk_prob": True, "tie_word_embeddings": True}),
    "windows alone": ("gpt_oss", {"layer_types": ["sliding_attention"] * 3}),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_a_configuration_says_of_experts_and_windows_is_run(name: str, tmp_path: Path) -> None:
    family, changes = CHANGED[name]
    folder = make(family, tmp_path / "changed", **changes)
    target = load_target(folder, backend="mlx")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    unchanged = _made["CONFIGS"][family]().to_dict()
    assert all(unchanged[key] != value for key, value in changes.items())
    ids = torch.randint(0, target.spec.d_vocab, (8, 13), generator=torch.Generator().manual_seed(0))
    found = target.run(ids, logits=True).logits
    assert found is not None
    with torch.no_grad():
        near(found, theirs(ids).logits)


REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "clamped": ("gpt_oss", {"swiglu_limit": 5.0}, {}, "clamped at 7 for gpt-oss, where it has other numbers"),
    "mixed": ("qwen3_moe", {"mlp_only_layers": [1]}, {}, "some of its layers have experts and some have none"),
    "gelu": ("mixtral", {"hidden_act": "gelu"}, {}, "mlx-lm computes silu where it has gelu"),
    "narrow": ("mixtral", {}, {"dtype": torch.bfloat16}, "weights of experts in float32 alone: give float32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_experts_that_would_be_computed_differently_are_refused(name: str, tmp_path: Path) -> None:
    family, changes, options, said = REFUSED[name]
    folder = make(family, tmp_path / name, **changes)
    if name == "narrow":
        import mlx.core as mx

        if mx.default_device() != mx.cpu:
            pytest.skip("the GPU multiplies them in bfloat16 too")
    with pytest.raises(UserError, match=said):
        load_target(folder, backend="mlx", **options)


def _without(*endings: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {name: value for name, value in weights.items() if not name.endswith(endings)}


@pytest.mark.parametrize(
    ("family", "lost", "said"),
    [
        ("gpt_oss", "layers.1.mlp.experts.gate_up_proj", r"lack 'model\.layers\.1\.mlp\.experts\.gate_up_proj'"),
        ("gpt_oss", "layers.2.self_attn.sinks", r"lack 'model\.layers\.2\.self_attn\.sinks'"),
        (
            "mixtral",
            "layers.1.block_sparse_moe.experts.3.w2.weight",
            r"layers\.1\.mlp\.experts\.down_proj has shape \[3, 32, 40\], not \[4, ",
        ),
    ],
)
def test_experts_that_would_be_made_up_are_refused(family: str, lost: str, said: str, tmp_path: Path) -> None:
    folder = make(family, tmp_path / family)
    kept = _without(lost)(load_file(folder / "model.safetensors"))
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=said):
        load_target(folder, backend="mlx")

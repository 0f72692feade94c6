"""What is said of a model before it is loaded: its shape, its tokenizer, the memory that it takes, and whether that is there."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets import inspected, load, memory
from neuronaut.tools.targets.load import load_target, open_folder
from neuronaut.tools.targets.memory import Estimate, available_memory, memory_needed, what_to_do

Command = Callable[..., Any]
_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
make_model: Callable[[str, Path], Path] = _made["make_model"]
GIB = 1 << 30


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("models")

    def model(family: str) -> Path:
        return folder / family if (folder / family).exists() else make_model(family, folder / family)

    return model


@pytest.fixture
def copy(made: Callable[[str], Path], tmp_path: Path) -> Path:
    shutil.copytree(made("llama"), tmp_path / "llama")
    return tmp_path / "llama"


def said_of(neuronaut: Command, *argv: object) -> dict[str, Any]:
    said = neuronaut("models", "inspect", *argv, "--json")
    assert said.code == 0, said
    found: dict[str, Any] = json.loads(said.out)
    return found


@pytest.mark.parametrize("family", list(_made["CONFIGS"]))
def test_parameters_and_their_bytes_are_those_of_the_loaded_model(family: str, made: Callable[[str], Path]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(made(family), dtype=torch.float32)
    size = sum(parameter.numel() for parameter in model.parameters())
    for dtype, item in (("float32", 4), ("bfloat16", 2), ("float16", 2)):
        found = memory_needed(open_folder(made(family)), dtype)
        assert (found.parameters, found.weights) == (size, item * size)


def test_one_layer_at_a_time_takes_the_largest_layer_and_all_outside_the_layers(made: Callable[[str], Path]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(made("gemma3"), dtype=torch.float32)
    layers = [sum(one.numel() for one in layer.parameters()) for layer in model.model.layers]
    outside = sum(one.numel() for one in model.parameters()) - sum(layers)
    assert memory_needed(open_folder(made("gemma3")), "bfloat16").streamed == 2 * (max(layers) + outside)


def test_buffers_and_a_second_copy_of_the_embedding_are_no_parameters(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "gpt2"
    shutil.copytree(made("gpt2"), folder)
    weights = load_file(folder / "model.safetensors")
    before = memory_needed(open_folder(folder), "float32")
    weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 24, 24)
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert memory_needed(open_folder(folder), "float32") == before


def test_another_unembedding_than_the_tied_embedding_counts_since_it_is_loaded(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text()) | {"tie_word_embeddings": True}
    (copy / "config.json").write_text(json.dumps(config))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(copy)
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)
    assert memory_needed(open_folder(copy), "float32").parameters == sum(one.numel() for one in loaded.parameters())


def test_packed_weights_stay_packed_and_count_as_what_they_stand_for(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "packed"
    shutil.copytree(made("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    before = memory_needed(open_folder(folder), "float32")
    name = "model.layers.1.mlp.gate_proj"
    plain = weights.pop(f"{name}.weight")
    assert plain.shape == (40, 32)
    weights[f"{name}.weight"] = torch.zeros(40, 32 * 4 // 32, dtype=torch.uint32)
    weights[f"{name}.scales"] = weights[f"{name}.biases"] = torch.ones(40, 1)
    weights[f"{name}.biases"] = torch.zeros(40, 1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization": {"group_size": 32, "bits": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    found = memory_needed(open_folder(folder), "float32")
    assert found.parameters == before.parameters
    assert found.weights == before.weights - 40 * 32 * 4 + 40 * 32 // 2 + 2 * 40 * 4


_RUN = """
import sys, torch
from neuronaut.tools.targets.load import load_target
target = load_target(sys.argv[1])
ids = torch.arange(16 * 128).reshape(16, 128) % target.spec.d_vocab
target.run(ids, logits=True)
print(next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(("family", "layers"), [("llama", 6), ("mixtral", 2)])
def test_the_peak_of_a_process_is_what_was_estimated_within_a_quarter(
    neuronaut: Command, tmp_path: Path, family: str, layers: int
) -> None:
    """Of models stored in bfloat16 and run in float32, large enough to be seen beside the program."""
    config = _made["CONFIGS"][family]()
    shape = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": layers, "vocab_size": 20_000}
    for name, value in (shape | {"num_attention_heads": 8, "head_dim": 64, "max_position_embeddings": 256}).items():
        setattr(config, name, value)
    folder = tmp_path / family
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    _made["byte_tokenizer"]().save(str(folder / "tokenizer.json"))
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(folder)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    row = said_of(neuronaut, folder)["memory"]["float32"]
    model = memory_needed(open_folder(folder), "float32").weights
    assert model > 150e6
    assert 0.8 < int(done.stdout) / (row["load"] + row["pass"]) < 1.25


def test_a_model_that_does_not_fit_is_refused_before_a_weight_is_read(
    neuronaut: Command, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    monkeypatch.setattr(load, "_opened", lambda *_: pytest.fail("the engine was asked for"))
    said = neuronaut("ask", "what does neuron 1.7 do", *tiny)
    assert said.code == 2
    assert (
        "not enough memory: model needs about 500 MB to be loaded in float32 (34,072 parameters), and 0.0 MB"
        in said.err
    )
    assert "end other programs, or take a machine with more" in said.err
    assert "Traceback" not in said.err


def test_a_model_that_just_fits_is_loaded(made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is larger than the program alone, which therefore needs nothing more."""
    needed = memory_needed(open_folder(made("llama")), "float32").weights
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    assert load_target(made("llama")).spec.n_layers == 3
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.raises(UserError, match="not enough memory"):
        load_target(made("llama"))


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (50 * GIB, r"give --dtype bfloat16 \(43\.4 GB\), or end"),
        (20 * GIB, r"index it with `neuronaut index build --stream`, which holds one layer at a time \(8\.5 GB\)"),
        (
            6 * GIB,
            r"index it with `neuronaut index build --stream --dtype bfloat16`, which holds one layer at a time \(4\.5 GB\)",
        ),
        (2 * GIB, "^end other programs, or take a machine with more$"),
    ],
)
def test_only_what_would_fit_is_offered(free: int, said: str) -> None:
    half = Estimate("bfloat16", 21 * 10**9, weights=42_900_000_000, joining=0, streamed=4 * 10**9)
    full = Estimate("float32", 21 * 10**9, weights=85_800_000_000, joining=0, streamed=8 * 10**9)
    ways = what_to_do({"float32": full, "bfloat16": half}, "float32", free)
    assert re.search(said, ways), ways


def test_what_is_available_is_the_least_of_the_system_and_its_control_groups(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "sys/fs/cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert available_memory(tmp_path) == 8000 * 1024
    (proc / "self/cgroup").write_text("1:cpu:/\n0::/outer/inner\n")
    (groups / "outer/inner").mkdir(parents=True)
    for folder, limit, used, files in (("outer", "3000000", "2500000", 400_000), ("outer/inner", "max", "1", 0)):
        for name, text in (("max", limit), ("current", used), ("stat", f"anon 5\ninactive_file {files}\n")):
            (groups / folder / f"memory.{name}").write_text(f"{text}\n")
    assert available_memory(tmp_path) == 3_000_000 - 2_500_000 + 400_000
    (groups / "outer/memory.current").write_text("9000000")
    assert available_memory(tmp_path) == 0


def test_the_memory_of_this_machine_is_between_nothing_and_all_of_it() -> None:
    assert 0 < available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi3", "gpt_oss", "qwen3_moe"])
def test_the_shape_is_that_of_the_loaded_model(neuronaut: Command, made: Callable[[str], Path], family: str) -> None:
    spec, found = load_target(made(family)).spec, said_of(neuronaut, made(family))["shape"]
    expected = {
        name: getattr(spec, name) for name in ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_mlp")
    }
    expected |= {"n_experts": spec.n_experts, "d_vocab": spec.d_vocab, "n_ctx": spec.n_ctx}
    assert {name: found[name] for name in expected} == expected


def test_numbers_that_config_json_leaves_out_are_those_that_transformers_takes(
    neuronaut: Command, copy: Path, made: Callable[[str], Path]
) -> None:
    expected = said_of(neuronaut, made("llama"))["shape"]
    config = json.loads((copy / "config.json").read_text())
    del config["num_key_value_heads"]
    (copy / "config.json").write_text(json.dumps(config))
    assert said_of(neuronaut, copy)["shape"] == expected | {"n_kv_heads": expected["n_heads"]}


def test_a_longer_pass_takes_more_and_a_pass_that_does_not_fit_is_said(
    neuronaut: Command, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspected, "available_memory", lambda: 600_000_000)
    short, long = (said_of(neuronaut, copy, "--batch", batch)["memory"]["float32"] for batch in (16, 1600))
    assert long["pass"] == 100 * short["pass"]
    assert short["fits"]
    assert not long["fits"]
    text = neuronaut("models", "inspect", copy, "--batch", 1600).out
    assert "600 MB on this machine: it does not fit in float32" in text


@pytest.mark.parametrize(
    ("family", "torch_says", "mlx_says"),
    [("llama", None, None), ("gpt_neox", None, None), ("opt", None, "does not know it")],
)
def test_what_can_run_a_model_is_said(
    neuronaut: Command, made: Callable[[str], Path], family: str, torch_says: str | None, mlx_says: str | None
) -> None:
    found = said_of(neuronaut, made(family))
    assert found["checked"] == (family != "opt")
    assert found["backends"]["torch"] == {"takes it": True, "why": torch_says}
    assert found["backends"]["mlx"]["takes it"] == (mlx_says is None)
    shown = neuronaut("models", "inspect", made(family)).out
    assert ("not checked; " in shown) == (family == "opt")


def test_an_architecture_that_nothing_runs_is_described_all_the_same(neuronaut: Command, copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text()) | {"model_type": "lama"}
    (copy / "config.json").write_text(json.dumps(config))
    found = said_of(neuronaut, copy)
    assert found["nearest"] == "the nearest that is checked is 'llama'"
    assert not any(one["takes it"] for one in found["backends"].values())
    assert found["shape"]["d_mlp"] == 40
    assert found["parameters"] == sum(one.numel() for one in load_file(copy / "model.safetensors").values())


def test_the_tokenizer_is_compared_with_the_model(neuronaut: Command, copy: Path) -> None:
    found = said_of(neuronaut, copy)["tokenizer"]
    known = transformers.PreTrainedTokenizerFast(tokenizer_file=str(copy / "tokenizer.json"))
    assert found == {
        "kind": "BPE", "size": len(known), "bos": 1, "chat_template": False, "fault": None, "offsets": True,
    }  # fmt: skip
    assert f"{384 - len(known)} fewer than the model" in neuronaut("models", "inspect", copy).out
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert said_of(neuronaut, copy)["tokenizer"]["chat_template"]
    (copy / "tokenizer.json").rename(copy / "tokenizer.model")
    found = said_of(neuronaut, copy)["tokenizer"]
    assert not found["offsets"]
    assert "does not say which characters a token stands for" in found["fault"]


def test_a_model_of_the_hub_is_described_without_its_weights(
    neuronaut: Command, copy: Path, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is stood in for: what it is asked for, and what it says of the weights."""
    import huggingface_hub

    asked: list[list[str]] = []
    raw = (copy / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    header.pop("__metadata__")
    tensors = {
        name: SimpleNamespace(dtype=one["dtype"], shape=one["shape"], data_offsets=tuple(one["data_offsets"]))
        for name, one in header.items()
    }
    said = SimpleNamespace(files_metadata={"model.safetensors": SimpleNamespace(tensors=tensors)})

    def fetched(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(copy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", lambda name: said)
    (copy / "model.safetensors").unlink()
    found, expected = said_of(neuronaut, "someone/llama"), said_of(neuronaut, made("llama"))
    assert not any("safetensors" in pattern for pattern in asked[0])
    assert {name: found[name] for name in ("parameters", "shape", "memory")} == {
        name: expected[name] for name in ("parameters", "shape", "memory")
    }

"""Folders whose files contradict each other or themselves: `models inspect` and both engines say the same sentence, and nothing is loaded."""

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

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.load import load_target, open_folder

Command = Callable[..., Any]
Change = Callable[[Path], None]
_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
_changes = runpy.run_path(str(Path(__file__).with_name("bad_folders.py")))
config, without, text = (_changes[name] for name in ("config", "without", "text"))
FIT = "cannot be loaded: config.json does not fit the weights: "


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    for family in ("llama", "mixtral"):
        _made["make_model"](family, folder / family)
    _made["make_corpus"](folder / "corpus.jsonl")
    return folder


@pytest.fixture
def changed(originals: Path, tmp_path: Path) -> Callable[[str, Change], Path]:
    """A copy of a model with one change."""

    def make(family: str, change: Change) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(originals / family, folder)
        change(folder)
        return folder

    return make


UNLIKE: dict[str, tuple[str, Change, str]] = {
    "other heads": ("llama", config(num_attention_heads=8), f"{FIT}model.layers.0.self_attn.o_proj.weight has shape [32, 48], not [32, 96]"),
    "other heads of keys": ("llama", config(num_key_value_heads=4), f"{FIT}model.layers.0.self_attn.k_proj.weight has shape [24, 32], not [48, 32]"),
    "another width": ("llama", config(intermediate_size=41), f"{FIT}model.layers.0.mlp.down_proj.weight has shape [32, 40], not [32, 41]"),
    "other tokens": ("llama", config(vocab_size=385), f"{FIT}lm_head.weight has shape [384, 32], not [385, 32]"),
    "more experts": ("mixtral", config(num_local_experts=5), f"{FIT}model.layers.0.mlp.experts.down_proj has shape [4, 32, 40], not [5, 32, 40]"),
    "fewer experts": ("mixtral", config(num_local_experts=3), f"{FIT}model.layers.0.mlp.experts.down_proj has shape [4, 32, 40], not [3, 32, 40]"),
    "a tensor missing": ("llama", without("model.layers.1.mlp.down_proj.weight"), "lack 'model.layers.1.mlp.down_proj.weight' (1 tensors in all)"),
    "a packing that is not read": ("llama", config(quantization_config={"quant_method": "gptq"}), "quantised ('gptq'), which is not read here"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNLIKE)
def test_weights_that_the_configuration_does_not_describe_are_refused_alike_before_loading(
    neuronaut: Command,
    originals: Path,
    changed: Callable[[str, Change], Path],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    family, change, wanted = UNLIKE[what]
    folder = changed(family, change)
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were read")
    )
    shown = neuronaut("models", "inspect", folder)
    assert shown.code == 0, shown
    lines = {line.split()[0]: line for line in shown.out.splitlines() if line.startswith("  ")}
    assert wanted in lines["torch"]
    assert wanted in lines["mlx"]
    assert "it would fit in float32, and no engine takes it" in shown.out
    for backend in ("torch", "mlx"):
        said = neuronaut(
            "ask", "neuron 1.7", "--model", folder, "--corpus", originals / "corpus.jsonl", "--backend", backend
        )
        assert said.code == 2, said
        assert wanted in said.err.splitlines()[-1]
        assert "Traceback" not in said.err


_NESTED: Any = {}
for _ in range(400):
    _NESTED = {"in": [_NESTED]}
IMPOSSIBLE: dict[str, tuple[str, Change, str]] = {
    "an activation that is none": ("llama", config(hidden_act="zzz"), "says hidden_act 'zzz', which is no activation"),
    "no activation": ("llama", config(hidden_act=None), "cannot be understood, so correct it there: StrictDataclassFieldValidationError"),
    "a number format that is none": ("llama", config(dtype="float99"), "cannot be understood, so correct it there: AttributeError: module 'torch'"),
    "places by no rule": ("llama", config(rope_parameters={"rope_type": "bogus", "rope_theta": 1e4}), "says rope_type 'bogus', which is no rule"),
    "half a rule for places": ("llama", config(rope_parameters={"rope_type": "yarn"}), "cannot be understood, so correct it there: KeyError"),
    "keys that cannot be shared out": ("llama", config(num_key_value_heads=3), "says 4 heads and 3 of keys and values, which cannot be shared out"),
    "more experts at a token than there are": ("mixtral", config(num_experts_per_tok=9), "says 9 experts at each token, and 4 experts in all"),
    "more layers than the weights hold": ("llama", config(num_hidden_layers=9000), "speaks of 9,000 layers, and the weights hold 3: the others"),
    "no context": ("llama", config(max_position_embeddings=0), "says max_position_embeddings 0: it is a whole number from 1 to"),
    "values that nest too deep": ("llama", config(more=_NESTED), "RecursionError"),
    "an index that leads elsewhere": ("llama", lambda folder: _index(folder, "../model.safetensors"), "names '../model.safetensors', which is"),
    "an adapter": ("llama", text("adapter_config.json", "{}"), "holds an adapter (adapter_config.json), which is not read here: merge it"),
    "a first token that is no text": ("llama", text("tokenizer_config.json", '{"bos_token": {"a": 1}}'), "is \"{'a': 1}\", which is no text"),
    "a tokenizer that nests without end": ("llama", text("tokenizer.json", "[" * 100_000), "tokenizer.json in"),
}  # fmt: skip


OF_THE_TOKENIZER = ("a first token that is no text",)


def _index(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_no_model_can_be_is_one_sentence_whoever_is_asked(
    neuronaut: Command, originals: Path, changed: Callable[[str, Change], Path], what: str
) -> None:
    family, change, wanted = IMPOSSIBLE[what]
    folder = changed(family, change)
    to_run = ("ask", "neuron 1.7", "--corpus", originals / "corpus.jsonl", "--model", folder)
    for argv in ((*to_run, "--backend", "torch"), (*to_run, "--backend", "mlx"), ("models", "inspect", folder)):
        said = neuronaut(*argv)
        if what in OF_THE_TOKENIZER and argv[0] == "models":  # which is described, and what its tokenizer lacks
            assert said.code == 0, said
            assert wanted in said.out
            continue
        assert said.code == 2, said
        assert wanted in said.err.splitlines()[-1]
        assert "Traceback" not in said.err


def _logits(folder: Path, backend: Any = "torch") -> torch.Tensor:
    found = load_target(folder, backend=backend).run(torch.arange(2, 12)[None], logits=True).logits
    assert found is not None
    return found


def test_the_configuration_says_what_a_model_is_and_not_how_it_is_run(
    originals: Path, changed: Callable[[str, Change], Path]
) -> None:
    """Code of the hub for attention, other weights in the folder, outputs in another form: the model is the same."""
    more = {"attn_implementation": "someone/kernel", "transformers_weights": "other.safetensors", "return_dict": False}
    folder = changed("llama", config(**more, output_attentions=True, auto_map={"AutoConfig": "mine.Mine"}))
    (folder / "mine.py").write_text("raise SystemExit('was run')\n")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, folder / "other.safetensors", {"format": "pt"})
    plain = transformers.AutoModelForCausalLM.from_pretrained(originals / "llama")
    with torch.no_grad():
        expected = plain(torch.arange(2, 12)[None]).logits
    assert float((_logits(folder) - expected).abs().max()) < 1e-5


def test_a_folder_that_names_code_is_described_without_a_question(
    neuronaut: Command, changed: Callable[[str, Change], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would ask on the terminal whether to run it."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it was asked"))
    own = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}
    folder = changed("llama", config(model_type="mine", auto_map=own))
    (folder / "mine.py").write_text("raise SystemExit('was run')\n")
    said = neuronaut("models", "inspect", folder)
    assert said.code == 0, said
    assert "never is here: " in said.out
    assert "`neuronaut convert`" in said.out


def test_a_file_that_is_no_part_of_the_model_is_not_read(
    originals: Path, changed: Callable[[str, Change], Path]
) -> None:
    """mlx-lm would read it, so that this is refused there."""

    def beside(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        save_file({name: value + 1 for name, value in tensors.items()}, folder / "model-old.safetensors")

    folder = changed("llama", beside)
    assert torch.equal(_logits(folder), _logits(originals / "llama"))
    assert open_folder(folder).weights_sha256 == open_folder(originals / "llama").weights_sha256
    with pytest.raises(UserError, match=r"'model-old\.safetensors' in .* is no part of the model, or named otherwise"):
        load_target(folder, backend="mlx")


def test_a_folder_whose_name_is_a_pattern_is_refused_by_mlx_alone(originals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a[bc]"
    shutil.copytree(originals / "llama", folder)
    assert torch.equal(_logits(folder), _logits(originals / "llama"))
    with pytest.raises(UserError, match=r"whose path has \[, \? or \* in it: rename it"):
        load_target(folder, backend="mlx")


def test_a_mistake_of_this_program_is_not_taken_for_one_of_the_folder(
    neuronaut: Command, originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("neuronaut.tools.targets.configuration._contradiction", mistaken)
    with pytest.raises(KeyError, match="ours"):
        load_target(originals / "llama")
    with pytest.raises(KeyError, match="ours"):
        neuronaut("models", "inspect", originals / "llama")

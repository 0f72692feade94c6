"""Model folders that cannot be studied: each is one sentence that says what, why and what to do next, and nothing is recorded."""

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronaut.tools.targets import memory

Command = Callable[..., Any]
Change = Callable[[Path], None]
_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
WEIGHTS: str = "model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bad")
    model: Path = _made["make_model"]("llama", folder / "llama")
    corpus: Path = _made["make_corpus"](folder / "corpus.jsonl")
    return model, corpus


_changes = runpy.run_path(str(Path(__file__).with_name("bad_folders.py")))
config, weights, header, text, moved, fifo = (
    _changes[name] for name in ("config", "weights", "header", "text", "moved", "fifo")
)
of_more_tokens, shards = _changes["of_more_tokens"], _changes["shards"]
shaped, backwards, overlapping, formatted = (
    _changes[name] for name in ("shaped", "backwards", "overlapping", "formatted")
)


@pytest.fixture
def changed(original: tuple[Path, Path], tmp_path: Path) -> Callable[[Change], Path]:
    """A copy of the model with one change."""

    def make(change: Change) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(original[0], folder)
        change(folder)
        return folder

    return make


CODE = {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}
FOLDERS: dict[str, tuple[Change, str]] = {
    "an architecture that is not known": (
        config(model_type="lama"),
        "of the architecture 'lama', which is no language model that is known here: the nearest that is checked is 'llama'",
    ),
    "an architecture unlike all others": (config(model_type="zzz"), "known here: checked are gemma2, gemma3_text, gpt2"),
    "code of its own": (
        config(**CODE),
        "names code of its own ('modeling_mine.Mine'), which would be run when the model is loaded and never is here",
    ),
    "packed in a way that is not read": (
        config(quantization_config={"quant_method": "mxfp4"}),
        "quantised ('mxfp4'), which is not read here: give them in bfloat16 or float32",
    ),
    "a configuration that is no JSON": (text("config.json", "{"), "config.json in"),
    "a configuration that is a list": (text("config.json", "[]"), "is not a JSON object"),
    "a tokenizer of another model": (
        of_more_tokens,
        "knows 400 tokens and the model 384, so that ' word",
    ),
    "a tokenizer without offsets": (
        moved("tokenizer.json", "tokenizer.model"),
        "tokenizer.model and no tokenizer.json: such a tokenizer does not say which characters a token stands for; save a fast",
    ),
    "no tokenizer": (moved("tokenizer.json", "notes.json"), "holds no tokenizer.json: without it text cannot be turned into"),
    "a tokenizer that is broken": (text("tokenizer.json", '{"model": 5}'), "tokenizer.json in"),
    "weights that are cut": (weights(lambda raw: raw[:-100]), "its header speaks of"),
    "an empty file of weights": (weights(lambda raw: b""), "it has 0 bytes, too few for a header"),
    "a header of absurd size": (
        weights(lambda raw: (2**62).to_bytes(8, "little") + raw[8:]),
        "bytes long, where 100,000,000 are the most that the format allows; download or convert the model again",
    ),
    "a header longer than the file": (
        weights(lambda raw: (99_000_000).to_bytes(8, "little") + raw[8:]),
        "its header would be 99,000,000 bytes long, and the file has",
    ),
    "a header that is no header": (weights(lambda raw: (9).to_bytes(8, "little") + b"[" * 9), "not that of a safetensors file"),
    "a tensor of absurd size": (
        header(shaped),
        "'model.norm.weight' has shape [1000000000000, 1000000] of F32, which 128 bytes are not; download",
    ),
    "two tensors on the same bytes": (header(overlapping), "its tensors overlap, or leave gaps; download"),
    "a number format that is none": (header(formatted), "is of 'Q3', which is no number format of safetensors"),
    "fewer layers than the weights hold": (config(num_hidden_layers=1), "speaks of 1 layers, and the weights hold 'model.layers."),
    "layers beyond counting": (config(num_hidden_layers=10**9), "says num_hidden_layers 1000000000: it is a whole number from 1 to"),
    "tokens beyond counting": (config(vocab_size=10**11), "says vocab_size 100000000000: it is a whole number"),
    "no layers": (config(num_hidden_layers=0), "says num_hidden_layers 0: it is a whole number"),
    "layers in words": (config(num_hidden_layers="3"), "says num_hidden_layers 3: it is a whole number"),
    "a list of architectures": (config(model_type=["llama"]), "it is the name of an architecture"),
    "heads that do not divide the width": (config(num_attention_heads=5, head_dim=None), "cannot be"),
    "a configuration that nests without end": (text("config.json", "[" * 100_000), "cannot be read as JSON"),
    "weights that are a pipe": (fifo(WEIGHTS), "it is no regular file"),
    "a configuration that is a pipe": (fifo("config.json"), "is no regular file"),
    "a tensor of negative size": (header(backwards), "'model.norm.weight' has shape [-32] of F32, which 128 bytes are not"),
    "a part of the weights missing": (
        shards,
        "lacks 'model-00002-of-00002.safetensors', one of its weight files (1 are missing): download",
    ),
    "weights in a pickle only": (moved(WEIGHTS, "ckpt.pt"), "ckpt.pt is a pickle, which can run code: convert it"),
}  # fmt: skip


@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_that_cannot_be_studied_is_one_sentence(
    neuronaut: Command, original: tuple[Path, Path], changed: Callable[[Change], Path], tmp_path: Path, what: str
) -> None:
    change, wanted = FOLDERS[what]
    folder, new = changed(change), tmp_path / "n.db"
    said = neuronaut("ask", "neuron 1.7", "--model", folder, "--corpus", original[1], "--notebook", new)
    assert said.code == 2, said
    assert wanted in said.err.splitlines()[-1]
    assert said.out == ""
    assert "Traceback" not in said.err
    assert not new.exists()


INSPECTED = {
    "an architecture that is not known": "architecture  lama: not checked; the nearest that is checked is 'llama'",
    "code of its own": "names code of its own",
    "a tokenizer of another model": "400 tokens, 16 more than the model · token 1 before each text · no chat template · CANNOT BE USED",
    "a tokenizer without offsets": "none that can be used: the folder holds tokenizer.model and no tokenizer.json",
    "packed in a way that is not read": "quantised ('mxfp4')",
}  # fmt: skip


@pytest.mark.parametrize("what", INSPECTED)
def test_what_is_wrong_with_a_folder_is_seen_before_it_is_loaded(
    neuronaut: Command, changed: Callable[[Change], Path], what: str
) -> None:
    said = neuronaut("models", "inspect", changed(FOLDERS[what][0]))
    assert said.code == 0, said
    assert INSPECTED[what] in said.out


@pytest.mark.parametrize(
    "what", [what for what in FOLDERS if "weights" in what or "header" in what or "tensor " in what]
)
def test_weights_that_are_not_whole_are_not_described(
    neuronaut: Command, changed: Callable[[Change], Path], what: str
) -> None:
    said = neuronaut("models", "inspect", changed(FOLDERS[what][0]))
    assert said.code == 2
    assert said.out == ""
    assert FOLDERS[what][1] in said.err


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_a_model_larger_than_the_memory_is_refused_by_each_engine(
    neuronaut: Command, original: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 50_000)
    said = neuronaut("ask", "neuron 1.7", "--model", original[0], "--corpus", original[1], "--backend", backend)
    assert said.code == 2
    assert "not enough memory: llama needs about" in said.err
    assert "are available here: " in said.err


def test_another_engine_s_architectures_are_named(
    neuronaut: Command, original: tuple[Path, Path], changed: Callable[[Change], Path]
) -> None:
    folder = changed(config(model_type="qwen9"))
    said = neuronaut("ask", "neuron 1.7", "--model", folder, "--corpus", original[1], "--backend", "mlx")
    assert said.code == 2
    assert "which --backend mlx does not know: the nearest that it knows is 'qwen3'" in said.err


def test_names_in_foreign_files_are_shown_and_never_steer_a_terminal(
    neuronaut: Command, original: tuple[Path, Path], changed: Callable[[Change], Path]
) -> None:
    folder = changed(config(model_type="\x1b[31mred\nmodel"))
    for said in (neuronaut("models", "inspect", folder), neuronaut("models", "inspect", folder, "--json")):
        assert said.code == 0, said
        assert "\x1b" not in said.out + said.err
    assert len(neuronaut("models", "inspect", folder).out.splitlines()) == len(
        neuronaut("models", "inspect", original[0]).out.splitlines()
    )

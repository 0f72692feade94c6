"""Checkpoints of nanoGPT and TransformerLens made into Hugging Face folders: the same logits, or a sentence."""

import json
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from neuronaut.tools.targets.checkpoints import convert as converting
from neuronaut.tools.targets.load import load_target

Command = Callable[..., Any]
State = dict[str, Tensor]
_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
D, HEADS, LAYERS, CONTEXT, VOCAB = 24, 3, 2, 20, 384


class Block(nn.Module):
    """nanoGPT's, written down from its description: norms before, one matrix for queries, keys and values."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(D, bias=bias), nn.LayerNorm(D, bias=bias)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(D, 3 * D, bias=bias), "c_proj": nn.Linear(D, D, bias=bias)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(D, 4 * D, bias=bias), "c_proj": nn.Linear(4 * D, D, bias=bias)})

    def forward(self, x: Tensor) -> Tensor:
        batch, pos, _ = x.shape
        q, k, v = (
            part.view(batch, pos, HEADS, D // HEADS).transpose(1, 2)
            for part in self.attn["c_attn"](self.ln_1(x)).split(D, dim=2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["c_proj"](mixed.transpose(1, 2).reshape(batch, pos, D))
        return x + self.mlp["c_proj"](nn.GELU()(self.mlp["c_fc"](self.ln_2(x))))


class NanoGpt(nn.Module):
    def __init__(self, bias: bool, tied: bool) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCAB, D), "wpe": nn.Embedding(CONTEXT, D), "ln_f": nn.LayerNorm(D, bias=bias),
                "h": nn.ModuleList([Block(bias) for _ in range(LAYERS)]),
            }
        )  # fmt: skip
        self.lm_head = nn.Linear(D, VOCAB, bias=False)
        if tied:
            self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for block in self.transformer["h"]:  # type: ignore[attr-defined]
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


ARGUMENTS = {
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_embd": D,
    "block_size": CONTEXT,
    "vocab_size": VOCAB,
    "dropout": 0.0,
}
IDS = torch.randint(0, VOCAB, (3, 17), generator=torch.Generator().manual_seed(1))


def shaken(model: nn.Module) -> nn.Module:
    """Every parameter random, norms and biases too."""
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "ln" in name and name.endswith("weight") else 0.0
            parameter.copy_(
                torch.randn(parameter.shape, generator=made) * (0.3 if parameter.dim() < 2 else D**-0.5) + around
            )
    return model.eval()


def nanogpt(*, bias: bool = True, tied: bool = True) -> nn.Module:
    return shaken(NanoGpt(bias, tied))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    _made["byte_tokenizer"]().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": None}))
    return folder


def saved(folder: Path, state: State, config: dict[str, Any], name: str = "weights.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.detach().contiguous().clone() for key, value in state.items()}, folder / name)
    (folder / "config.json").write_text(json.dumps(config, default=str))
    return folder / name


def logits_of(folder: Path) -> Tensor:
    found = load_target(folder).run(IDS, logits=True).logits
    assert found is not None
    return found


def converted(neuronaut: Command, *argv: object) -> Any:
    said = neuronaut("convert", *argv)
    assert said.code == 0, said
    return said


def refused(neuronaut: Command, out: Path, *argv: object) -> str:
    """The one sentence; nothing is left behind."""
    before = sorted(out.parent.iterdir())
    said = neuronaut("convert", *argv, "--out", out)
    assert said.code == 2, said
    assert said.out == ""
    assert "Traceback" not in said.err
    assert sorted(out.parent.iterdir()) == before
    return str(said.err).strip().splitlines()[-1].removeprefix("neuronaut: ")


@torch.no_grad()
@pytest.mark.parametrize(("bias", "tied"), [(True, True), (False, True), (False, False)])
def test_a_nanogpt_checkpoint_keeps_its_logits(
    neuronaut: Command, words: Path, tmp_path: Path, bias: bool, tied: bool
) -> None:
    model = nanogpt(bias=bias, tied=tied)
    checkpoint = {
        "model": {f"_orig_mod.{name}": value for name, value in model.state_dict().items()}, "model_args": ARGUMENTS | {"bias": bias},
        "optimizer": {"state": {}}, "iter_num": 5, "best_val_loss": torch.tensor(1.0), "config": {"out_dir": "out"},
    }  # fmt: skip
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    said = converted(
        neuronaut, tmp_path / "ckpt.pt", "--out", tmp_path / "out", "--tokenizer", words, "--unsafe-pickle"
    )
    assert float((logits_of(tmp_path / "out") - model(IDS)).abs().max()) < 1e-4
    assert "from nanoGPT" in said.out
    assert ("lm_head.weight" in load_file(tmp_path / "out/model.safetensors")) == (not tied)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


@torch.no_grad()
def test_nanogpt_in_safetensors_needs_no_pickle_and_a_converted_model_can_be_asked(
    neuronaut: Command, words: Path, tmp_path: Path
) -> None:
    model = nanogpt()
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    saved(tmp_path / "source", state | {"transformer.h.0.attn.bias": torch.ones(1, 1, 20, 20)}, ARGUMENTS)
    for file in words.iterdir():
        (tmp_path / "source" / file.name).write_bytes(file.read_bytes())
    out = tmp_path / "out"
    said = json.loads(converted(neuronaut, tmp_path / "source", "--out", out, "--json").out)
    assert said["difference"] < 1e-4
    assert said["parameters"] == sum(one.numel() for one in model.parameters())
    assert float((logits_of(out) - model(IDS)).abs().max()) < 1e-4
    corpus = _made["make_corpus"](tmp_path / "corpus.jsonl")
    asked = neuronaut("ask", "what does neuron 1.7 do", "--model", out, "--corpus", corpus, "--fast")
    assert asked.code == 0, asked


def native(**options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A random model of TransformerLens 4, and its configuration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens.config import TransformerBridgeConfig
        from transformer_lens.model_bridge.sources import boot_native

    shape = {
        "d_model": D,
        "d_head": D // HEADS,
        "n_heads": HEADS,
        "n_layers": LAYERS,
        "n_ctx": CONTEXT,
        "d_vocab": VOCAB,
    }
    config = TransformerBridgeConfig(**shape | {"d_mlp": 40, "act_fn": "gelu_new"} | options)
    bridge = boot_native(config)
    return shaken(bridge), {key: value for key, value in vars(config).items() if not isinstance(value, torch.dtype)}


def properties(state: State, heads: dict[str, int], d_head: int) -> State:
    """The names of TransformerLens before version 4."""
    made: State = {}
    for name, value in state.items():
        *at, leaf, part = name.split(".")
        before = ".".join(at)
        if leaf in "qkv":
            shape = (heads[leaf], d_head)
            value = value.reshape(*shape, -1).transpose(1, 2) if part == "weight" else value.reshape(shape)
            grouped = "_" if leaf in "kv" and heads["k"] < heads["q"] else ""
            made[f"{before}.{grouped}{'W' if part == 'weight' else 'b'}_{leaf.upper()}"] = value
        elif leaf == "o":
            made[f"{before}.{'W' if part == 'weight' else 'b'}_O"] = (
                value.T.reshape(heads["q"], d_head, -1) if part == "weight" else value
            )
        elif leaf in ("in", "out", "gate"):
            made[f"{before}.{'W' if part == 'weight' else 'b'}_{leaf}"] = value.T if part == "weight" else value
        elif leaf.startswith("ln"):
            made[".".join([*at, leaf, {"weight": "w", "bias": "b"}[part]])] = value
        else:
            outer = {"embed.weight": "embed.W_E", "pos_embed.weight": "pos_embed.W_pos", "unembed.bias": "unembed.b_U"}
            made[outer.get(name, "unembed.W_U")] = value.T if name == "unembed.weight" else value
    return made


def folded(state: State) -> State:
    """Gains and biases of norms moved into what follows, writing weights and logits centred, as HookedTransformer does."""
    made = dict(state)

    def into(norm: str, *pairs: tuple[str, str]) -> None:
        gain, bias = made.pop(f"{norm}.w"), made.pop(f"{norm}.b")
        for weight, at in pairs:
            made[at] = made.get(at, 0) + torch.einsum("d,...dk->...k", bias, made[weight])
            made[weight] = gain[:, None] * made[weight]
            made[weight] = made[weight] - made[weight].mean(-2, keepdim=True)

    for layer in range(LAYERS):
        at = f"blocks.{layer}"
        into(f"{at}.ln1", *((f"{at}.attn.W_{part}", f"{at}.attn.b_{part}") for part in "QKV"))
        if f"{at}.mlp.W_in" in made:
            into(f"{at}.ln2", (f"{at}.mlp.W_in", f"{at}.mlp.b_in"))
    into("ln_final", ("unembed.W_U", "unembed.b_U"))
    writing = [name for name in made if name.endswith(("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out"))]
    return made | {name: made[name] - made[name].mean(-1, keepdim=True) for name in writing}


HEADS_OF = {"q": HEADS, "k": HEADS, "v": HEADS, "o": HEADS}


@torch.no_grad()
@pytest.mark.parametrize("names", ["of version 4", "before", "folded and centred"])
@pytest.mark.parametrize(
    "options", [{}, {"attn_only": True}, {"act_fn": "relu"}], ids=["gelu", "attention only", "relu"]
)
def test_a_transformer_lens_model_keeps_its_logits(
    neuronaut: Command, words: Path, tmp_path: Path, names: str, options: dict[str, Any]
) -> None:
    model, config = native(**options)
    state = {name: value for name, value in model.state_dict().items() if name != "unembed.bias"}
    expected = model(IDS)
    if names != "of version 4":
        state = properties(state, HEADS_OF, D // HEADS)
    if names == "folded and centred":
        state, config = folded(state), config | {"normalization_type": "LNPre"}
    file = saved(tmp_path / "source", state, config)
    said = converted(neuronaut, file, "--out", tmp_path / "out", "--tokenizer", words)
    assert float((logits_of(tmp_path / "out") - expected).abs().max()) < 1e-4
    assert ("the bias of its logits is said by the bias of the last norm" in said.out) == (
        names == "folded and centred"
    )
    assert ("one neuron a layer that reads and writes nothing" in said.out) == bool(options.get("attn_only"))


ROTARY = {
    "normalization_type": "RMS", "positional_embedding_type": "rotary", "gated_mlp": True, "act_fn": "silu", "n_key_value_heads": 1,
    "rotary_base": 500,
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("names", ["of version 4", "before"])
def test_a_gated_model_of_transformer_lens_with_rotary_places_keeps_its_logits(
    neuronaut: Command, words: Path, tmp_path: Path, names: str
) -> None:
    """It turns neighbouring dimensions, which a Llama does not: the rows of queries and keys are put in another order."""
    model, config = native(**ROTARY)
    state = {name: value for name, value in model.state_dict().items() if name != "unembed.bias"}
    if names == "before":
        state = properties(state, HEADS_OF | {"k": 1, "v": 1}, D // HEADS)
        config |= {"rotary_adjacent_pairs": True}
    file = saved(tmp_path / "source", state, config)
    converted(neuronaut, file, "--out", tmp_path / "out", "--tokenizer", words)
    assert float((logits_of(tmp_path / "out") - model(IDS)).abs().max()) < 1e-4


@torch.no_grad()
def test_a_llama_as_transformer_lens_saves_it_comes_back(neuronaut: Command, words: Path, tmp_path: Path) -> None:
    """Its places turn a half with the other half, as in Llama itself; its heads are wider than d_model."""
    folder = _made["make_model"]("llama", tmp_path / "llama")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    weights, of = plain.state_dict(), {"q": 4, "k": 2, "v": 2, "o": 4}
    state = {"embed.weight": weights["model.embed_tokens.weight"], "unembed.weight": weights["lm_head.weight"]}
    state["ln_final.weight"] = weights["model.norm.weight"]
    parts = {f"attn.{part}": f"self_attn.{part}_proj" for part in "qkvo"} | {
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    }
    parts |= {"mlp.in": "mlp.up_proj", "mlp.gate": "mlp.gate_proj", "mlp.out": "mlp.down_proj"}
    for layer in range(3):
        for own, theirs in parts.items():
            state[f"blocks.{layer}.{own}.weight"] = weights[f"model.layers.{layer}.{theirs}.weight"]
    state = properties(state, of, 12)
    state |= {f"blocks.{layer}.attn.b_Q": torch.zeros(4, 12) for layer in range(3)} | {"unembed.b_U": torch.zeros(384)}
    config = {
        "n_layers": 3,
        "d_model": 32,
        "n_heads": 4,
        "d_head": 12,
        "d_mlp": 40,
        "n_ctx": 64,
        "d_vocab": 384,
        "eps": 1e-6,
    }
    config |= ROTARY | {"n_key_value_heads": 2, "rotary_base": 10000, "rotary_dim": 12, "rotary_adjacent_pairs": False}
    file = saved(tmp_path / "source", state, config)
    converted(neuronaut, file, "--out", tmp_path / "out", "--tokenizer", words)
    assert float((logits_of(tmp_path / "out") - plain(IDS).logits).abs().max()) < 1e-4
    assert load_file(tmp_path / "out/model.safetensors").keys() == load_file(folder / "model.safetensors").keys()


OPTIONS = {
    "solu": ({"act_fn": "solu_ln"}, "its activation is 'solu_ln'"),
    "no norms": ({"normalization_type": None}, "it has norms of type None, places of type 'standard' and an MLP without gate"),
    "places": ({"positional_embedding_type": "shortformer"}, "places of type 'shortformer'"),
    "rotary with LayerNorm": ({"positional_embedding_type": "rotary"}, "norms of type 'LN', places of type 'rotary'"),
    "side by side": ({"parallel_attn_mlp": True}, "parallel_attn_mlp is True; GPT-2"),
    "both ways": ({"attention_dir": "bidirectional"}, "attention_dir is 'bidirectional'"),
    "windows": ({"use_local_attn": True}, "use_local_attn is True"),
    "capped": ({"output_logits_soft_cap": 30.0}, "output_logits_soft_cap is 30.0"),
    "scaled": ({"attn_scale": 5.0}, "its attention is not scaled by the root of d_head (5.0)"),
    "fewer answers": ({"d_vocab_out": 10}, "it says 10 tokens and reads 384"),
    "no heads": ({"n_heads": None}, "does not say 'n_heads', which the weights alone do not show"),
    "other shape": ({"d_mlp": 41}, "'blocks.0.mlp.W_in' in 'weights.safetensors' has shape [24, 40] where its configuration says [24, 41]"),
    "too many layers": ({"n_layers": 3}, "lacks 'blocks.2.attn.W_Q'"),
    "too few layers": ({"n_layers": 1}, "holds 'blocks.1.attn.W_K' (16 tensors in all), which has no place"),
}  # fmt: skip


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, dict[str, Any]]:
    model, config = native()
    state = {name: value.detach() for name, value in model.state_dict().items() if name != "unembed.bias"}
    return properties(state, HEADS_OF, D // HEADS), config


@pytest.mark.parametrize("what", OPTIONS)
def test_what_neither_gpt2_nor_llama_can_represent_is_refused(
    neuronaut: Command, words: Path, tmp_path: Path, lens: tuple[State, dict[str, Any]], what: str
) -> None:
    changes, wanted = OPTIONS[what]
    file = saved(tmp_path / "source", lens[0], lens[1] | changes)
    assert wanted in refused(neuronaut, tmp_path / "out", file, "--tokenizer", words)


@torch.no_grad()
def test_any_bias_of_the_logits_can_stand_in_a_layernorm_and_none_in_an_rms_norm(
    neuronaut: Command, words: Path, tmp_path: Path, lens: tuple[State, dict[str, Any]]
) -> None:
    bias = torch.randn(VOCAB, generator=torch.Generator().manual_seed(3))
    plain, biased = (
        saved(tmp_path / name, lens[0] | {"unembed.b_U": b}, lens[1]) for name, b in (("a", bias * 0), ("b", bias))
    )
    for file, out in ((plain, "plain"), (biased, "biased")):
        converted(neuronaut, file, "--out", tmp_path / out, "--tokenizer", words)
    difference = logits_of(tmp_path / "biased") - logits_of(tmp_path / "plain")
    assert float((difference - bias).abs().max()) < 1e-4
    model, config = native(**ROTARY)
    state = dict(model.state_dict()) | {"unembed.bias": bias}
    file = saved(tmp_path / "rotary", state, config)
    said = refused(neuronaut, tmp_path / "out", file, "--tokenizer", words)
    assert "its logits have a bias of their own (unembed.b_U)" in said


@pytest.mark.parametrize("change", ["heads", "transposed"])
def test_a_conversion_with_other_logits_is_refused_and_leaves_nothing(
    neuronaut: Command, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Two mistakes that shapes do not show: another number of heads, a square matrix the other way round."""
    model = nanogpt()
    plain = converting.from_nanogpt

    def wrong(source: Any) -> Any:
        made = plain(source)
        if change == "heads":
            made.config["n_head"] = 4
        else:
            name = "transformer.h.1.attn.c_proj.weight"
            made.weights[name] = made.weights[name].T
        return made

    monkeypatch.setattr(converting, "from_nanogpt", wrong)
    state = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    file = saved(tmp_path / "source", state, ARGUMENTS)
    said = refused(neuronaut, tmp_path / "out", file, "--tokenizer", words)
    assert "was not converted: the logits of the converted model differ by" in said


def test_a_pickle_is_opened_only_with_leave(neuronaut: Command, words: Path, tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "ckpt.pt"
    file.write_bytes(f"cbuiltins\nopen\n(S'{mark}'\nS'w'\ntR.".encode())
    out = tmp_path / "out"
    said = refused(neuronaut, out, file, "--tokenizer", words)
    assert "ckpt.pt' is a pickle, which can run code when it is opened: give --unsafe-pickle if you trust" in said
    assert not mark.exists()
    corpus = _made["make_corpus"](tmp_path / "corpus.jsonl")
    asked = neuronaut("ask", "what does neuron 1.7 do", "--model", file, "--corpus", corpus)
    assert asked.code == 2
    assert "`neuronaut convert ckpt.pt --out FOLDER --unsafe-pickle` makes a model folder" in asked.err
    assert not mark.exists()


@torch.no_grad()
def test_with_leave_it_is_said_why_tensors_alone_could_not_be_read(
    neuronaut: Command, words: Path, tmp_path: Path
) -> None:
    """The settings are an object of a class of the training code, as some programs save them."""
    model = nanogpt()
    settings = transformers.PretrainedConfig()
    for name, value in ARGUMENTS.items():
        setattr(settings, name, value)
    torch.save({"model": model.state_dict(), "config": settings}, tmp_path / "ckpt.pt")
    said = converted(
        neuronaut, tmp_path / "ckpt.pt", "--out", tmp_path / "out", "--tokenizer", words, "--unsafe-pickle"
    )
    assert "ckpt.pt holds more than tensors and plain values, and is opened as a program would be: " in said.err
    assert "Unsupported global: GLOBAL transformers.configuration_utils.PreTrainedConfig" in said.err
    assert float((logits_of(tmp_path / "out") - model(IDS)).abs().max()) < 1e-4


def test_nothing_is_written_over(neuronaut: Command, words: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "source", dict(nanogpt().state_dict()), ARGUMENTS)
    (tmp_path / "out").mkdir()
    said = refused(neuronaut, tmp_path / "out", file, "--tokenizer", words)
    assert "is there already, and nothing is written over it" in said
    assert list((tmp_path / "out").iterdir()) == []


def _hugging_face(state: State) -> State:
    return {name: value.T if "c_" in name and value.dim() == 2 else value for name, value in state.items()}


def _of_50_tokens(state: State) -> State:
    return {name: value[:50] if "wte" in name or "lm_head" in name else value for name, value in state.items()}


OF_50 = {name: value for name, value in ARGUMENTS.items() if name != "vocab_size"}
BAD: dict[str, tuple[Callable[[State], State], dict[str, Any], str]] = {
    "a Hugging Face model": (_hugging_face, ARGUMENTS, "is stored as a Hugging Face GPT-2 already: give its folder as --model"),
    "something else": (lambda state: {"a": torch.ones(1), "b": torch.ones(1)}, ARGUMENTS, "holds a, b …: a nanoGPT checkpoint"),
    "no number of heads": (lambda state: state, {"n_layer": 2, "n_embd": D}, "does not say 'n_head'"),
    "another width": (lambda state: state, ARGUMENTS | {"n_embd": 12}, "they do not belong together"),
    "another vocabulary": (lambda state: state, ARGUMENTS | {"vocab_size": 99}, "where its configuration says [99, "),
    "heads that share nothing": (lambda state: state, ARGUMENTS | {"n_head": 5}, "says 5 heads, which do not share"),
    "another tokenizer": (_of_50_tokens, OF_50, "the tokenizer belongs to another model"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_checkpoint_that_is_not_what_it_should_be_is_refused(
    neuronaut: Command, words: Path, tmp_path: Path, what: str
) -> None:
    change, config, wanted = BAD[what]
    file = saved(tmp_path / "source", change({k: v.clone() for k, v in nanogpt().state_dict().items()}), config)
    said = refused(neuronaut, tmp_path / "out", file, "--tokenizer", words)
    assert wanted in said
    assert ".part" not in said  # the folder that was being made


def test_what_is_refused_after_it_was_written_is_said_of_what_was_given(
    neuronaut: Command, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path / "source", dict(nanogpt().state_dict()), ARGUMENTS)
    made = converting._write

    def broken(*given: Any) -> None:
        made(*given)
        (given[-1] / "config.json").write_text(json.dumps({"model_type": "gpt2", "activation_function": "zzz"}))

    monkeypatch.setattr(converting, "_write", broken)
    said = refused(neuronaut, tmp_path / "out", file, "--tokenizer", words)
    assert said.startswith(f"config.json in {str(file)!r} says activation_function 'zzz'")
    other = saved(tmp_path / "other", _of_50_tokens({k: v.clone() for k, v in nanogpt().state_dict().items()}), OF_50)
    monkeypatch.setattr(converting, "_write", made)
    said = refused(neuronaut, tmp_path / "out", other, "--tokenizer", words)
    assert said.startswith(f"tokenizer.json in {str(words)!r} knows ")


def test_files_that_are_missing_or_cut_are_named(neuronaut: Command, words: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "source", dict(nanogpt().state_dict()), ARGUMENTS)
    out = tmp_path / "out"
    assert "there is no tokenizer.json in" in refused(neuronaut, out, file)
    assert "there is no checkpoint" in refused(neuronaut, out, tmp_path / "none.pt", "--tokenizer", words)
    assert "holds no checkpoint" in refused(neuronaut, out, words, "--tokenizer", words)
    file.write_bytes(file.read_bytes()[:-50])
    assert "its header speaks of" in refused(neuronaut, out, file, "--tokenizer", words)
    (tmp_path / "source/config.json").unlink()
    file = saved(tmp_path / "other", dict(nanogpt().state_dict()), ARGUMENTS)
    (tmp_path / "other/config.json").unlink()
    assert "no configuration lies beside weights.safetensors: one of weights.json, config.json" in refused(
        neuronaut, out, file, "--tokenizer", words
    )


def test_a_conversion_that_is_killed_leaves_no_half_made_model(words: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "source", dict(nanogpt().state_dict()), ARGUMENTS)
    code = (
        "import os, sys\nfrom neuronaut.tools.targets.checkpoints import convert\n"
        "convert.save_file = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "from neuronaut.agent.cli import main\nmain()\n"
    )
    argv = ["convert", str(file), "--out", str(tmp_path / "out"), "--tokenizer", str(words)]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, check=False, timeout=120)
    assert done.returncode == -9
    assert not (tmp_path / "out").exists()

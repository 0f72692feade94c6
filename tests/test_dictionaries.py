"""Dictionaries in SAELens' format: each variant computes what its definition says, and wrong files are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from neuronaut.tools.errors import UserError
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.features.places import Place, place_of
from neuronaut.tools.features.saelens import read_dictionary, save_dictionary

Floats = NDArray[np.float64]
D_IN, D_OUT, WIDTH, K = 12, 10, 40, 5
TOLERANCE = 2e-5


def relu(x: Floats) -> Floats:
    return np.maximum(x, 0.0)


def drawn(rng: np.random.Generator, *, d_out: int = D_IN) -> dict[str, Floats]:
    return {
        "W_enc": rng.normal(size=(D_IN, WIDTH)),
        "b_enc": rng.normal(size=WIDTH) * 0.3,
        "W_dec": rng.normal(size=(WIDTH, d_out)) * rng.uniform(0.5, 2.0, size=(WIDTH, 1)),
        "b_dec": rng.normal(size=d_out) * 0.5,
    }


def kept_largest(drive: Floats, k: int) -> Floats:
    """Makhzani & Frey 2013, Gao et al. 2024: the k largest of each row, below 0 none."""
    found = np.zeros_like(drive)
    for row, values in enumerate(drive):
        for place in sorted(range(len(values)), key=lambda i: -values[i])[:k]:
            found[row, place] = max(0.0, values[place])
    return found


def standard(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    """Bricken et al. 2023."""
    f = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    return f, f @ w["W_dec"] + w["b_dec"]


def gated(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    """Rajamanoharan et al. 2024, arXiv:2404.16014, equations 3 to 6."""
    centred = x - w["b_dec"]
    gate = (centred @ w["W_enc"] + w["b_gate"]) > 0
    f = gate * relu(centred @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"])
    return f, f @ w["W_dec"] + w["b_dec"]


def jumprelu(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    """Rajamanoharan et al. 2024, arXiv:2407.14435."""
    drive = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    f = np.where(drive > w["threshold"], relu(drive), 0.0)
    return f, f @ w["W_dec"] + w["b_dec"]


def topk(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    f = kept_largest((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], K)
    return f, f @ w["W_dec"] + w["b_dec"]


def rescaled_topk(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    """As if the decoder's rows had length 1."""
    norms = np.linalg.norm(w["W_dec"], axis=1)
    f = kept_largest(((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms, K)
    return f, (f / norms) @ w["W_dec"] + w["b_dec"]


def batchtopk(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    """Bussmann et al. 2024, arXiv:2412.06410, at inference: one threshold, decoder norms as in training."""
    norms = np.linalg.norm(w["W_dec"], axis=1)
    drive = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms
    f = np.where(drive > w["topk_threshold"], relu(drive), 0.0)
    return f, (f / norms) @ w["W_dec"] + w["b_dec"]


def transcoder(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    """Dunefsky et al. 2024, arXiv:2406.11944."""
    f = relu(x @ w["W_enc"] + w["b_enc"])
    return f, f @ w["W_dec"] + w["b_dec"]


def skip_transcoder(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    """Paulo et al. 2025, arXiv:2501.18823."""
    f, out = transcoder(w, x)
    return f, out + x @ w["W_skip"].T


def jumprelu_transcoder(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    drive = x @ w["W_enc"] + w["b_enc"]
    f = np.where(drive > w["threshold"], relu(drive), 0.0)
    return f, f @ w["W_dec"] + w["b_dec"]


def jumprelu_skip_transcoder(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    f, out = jumprelu_transcoder(w, x)
    return f, out + x @ w["W_skip"].T


def two_biases(w: dict[str, Floats], x: Floats) -> tuple[Floats, Floats]:
    """The first transcoders: one bias taken off the input, another put on the output."""
    f = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    return f, f @ w["W_dec"] + w["b_dec_out"]


Reference = Callable[[dict[str, Floats], Floats], tuple[Floats, Floats]]
VARIANTS: dict[str, tuple[Reference, dict[str, Any]]] = {
    "standard": (standard, {}),
    "gated": (gated, {"architecture": "gated"}),
    "jumprelu": (jumprelu, {"architecture": "jumprelu"}),
    "topk": (topk, {"architecture": "topk", "k": K}),
    "rescaled topk": (rescaled_topk, {"architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": True}),
    "batchtopk": (batchtopk, {"architecture": "batchtopk", "k": 4.5}),
    "transcoder": (transcoder, {"architecture": "transcoder"}),
    "skip transcoder": (skip_transcoder, {"architecture": "skip_transcoder"}),
    "jumprelu transcoder": (jumprelu_transcoder, {"architecture": "jumprelu_transcoder"}),
    "jumprelu skip transcoder": (jumprelu_skip_transcoder, {"architecture": "jumprelu_skip_transcoder"}),
    "two biases": (two_biases, {"architecture": "transcoder", "apply_b_dec_to_input": True}),
}


def weights_of(name: str, rng: np.random.Generator) -> dict[str, Floats]:
    transcodes = "transcoder" in name or name == "two biases"
    w = drawn(rng, d_out=D_OUT if transcodes else D_IN)
    if name == "gated":
        del w["b_enc"]
        w |= {part: rng.normal(size=WIDTH) * 0.4 for part in ("b_gate", "b_mag", "r_mag")}
    if "jumprelu" in name:
        w["threshold"] = rng.uniform(0, 3, size=WIDTH)
    if name == "batchtopk":
        w["topk_threshold"] = np.array(6.0)
    if "skip" in name:
        w["W_skip"] = rng.normal(size=(D_OUT, D_IN))
    if name == "two biases":
        w |= {"b_dec": rng.normal(size=D_IN), "b_dec_out": rng.normal(size=D_OUT)}
    return w


def config_of(name: str, *, old: bool, **more: Any) -> dict[str, Any]:
    """cfg.json in the layout before SAELens 6, with all in one table, or since, with the model's part in `metadata`."""
    own = dict(VARIANTS[name][1])
    about: dict[str, Any] = {"model_name": "tiny", "hook_name": "blocks.1.hook_resid_post"}
    sizes: dict[str, Any] = {"d_in": D_IN, "d_sae": WIDTH, "dtype": "float32", "device": "cpu"}
    if "transcoder" in str(own.get("architecture")):
        about |= {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
        sizes["d_out"] = D_OUT
    if old:
        if own.get("architecture") == "topk":
            own = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": own.pop("k")}} | own
            del own["architecture"]
        about = {"hook_point": about.pop("hook_name"), "hook_point_layer": 1, "prepend_bos": True} | about
        return {**sizes, "normalize_activations": False, **own, **about, **more}
    return {**sizes, "normalize_activations": "none", **own, "metadata": {"sae_lens_version": "6.0.0", **about}, **more}


def write(folder: Path, config: dict[str, Any], weights: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()},
        folder / "sae_weights.safetensors",
    )
    return folder


@pytest.fixture
def x() -> Floats:
    return np.random.default_rng(7).normal(size=(30, D_IN)) * 1.5 + 0.3


def close(found: torch.Tensor, expected: Floats) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=TOLERANCE * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("old", [False, True], ids=["new layout", "old layout"])
@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_computes_what_its_definition_says(name: str, old: bool, tmp_path: Path, x: Floats) -> None:
    weights = weights_of(name, np.random.default_rng(sum(map(ord, name))))
    dictionary = read_dictionary(write(tmp_path / "one", config_of(name, old=old), weights))
    given = {part: np.asarray(value, dtype=np.float32).astype(np.float64) for part, value in weights.items()}
    inputs = torch.from_numpy(x).float()
    features, out = VARIANTS[name][0](given, inputs.numpy().astype(np.float64))
    assert 0.02 < (features > 0).mean() < 0.9  # neither dead nor dense: a wrong threshold would show
    found = dictionary.encode(inputs)
    close(found, features)
    close(dictionary.decode(found, inputs), out)
    some = [3, 0, 17]
    close(dictionary.encode(inputs.reshape(5, 6, -1), some), features[:, some].reshape(5, 6, 3))


@pytest.mark.parametrize("mode", ["expected_average_only_in", "constant_norm_rescale", "layer_norm", "centred"])
def test_inputs_are_normalized_as_the_layout_says(mode: str, tmp_path: Path, x: Floats) -> None:
    w, config = drawn(np.random.default_rng(2)), config_of("standard", old=False)
    shift: Floats | float
    if mode == "expected_average_only_in":
        config |= {"normalize_activations": mode, "norm_scaling_factor": 0.37}
        normed, scale, shift = x * 0.37, np.full((len(x), 1), 1 / 0.37), 0.0
    elif mode == "constant_norm_rescale":
        config["normalize_activations"] = mode
        scale, shift = np.linalg.norm(x, axis=1, keepdims=True) / D_IN**0.5, 0.0
        normed = x / scale
    elif mode == "layer_norm":
        config["normalize_activations"] = mode
        shift = x.mean(axis=1, keepdims=True)
        scale = x.std(axis=1, ddof=1, keepdims=True)
        normed = (x - shift) / (scale + 1e-5)
    else:
        config["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
        shift, scale = x.mean(axis=1, keepdims=True), np.ones((len(x), 1))
        normed = x - shift
    features, out = standard(w, normed)
    dictionary, inputs = read_dictionary(write(tmp_path / "one", config, w)), torch.from_numpy(x).float()
    found = dictionary.encode(inputs)
    close(found, features)
    close(dictionary.decode(found, inputs), out * scale + shift)
    moved = torch.zeros(len(x), WIDTH)
    moved[:, 4] = 2.5
    close(dictionary.change(inputs, moved), scale * 2.5 * w["W_dec"][4])
    close(dictionary.change(inputs, moved[:, [4]], [4]), scale * 2.5 * w["W_dec"][4])


def test_the_scale_of_a_dictionary_saved_in_mid_training_lies_beside_it(tmp_path: Path, x: Floats) -> None:
    config = config_of("standard", old=False, normalize_activations="expected_average_only_in")
    w = drawn(np.random.default_rng(2))
    folder = write(tmp_path / "one", config, w)
    with pytest.raises(UserError, match="nothing says with what"):
        read_dictionary(folder)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.5}')
    close(read_dictionary(folder).encode(torch.from_numpy(x).float()), standard(w, 0.5 * x)[0])


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("batchtopk", "two biases")])
def test_what_is_saved_is_what_is_read(name: str, tmp_path: Path, x: Floats) -> None:
    made = read_dictionary(
        write(tmp_path / "one", config_of(name, old=False), weights_of(name, np.random.default_rng(1)))
    )
    made = replace(made, layout=replace(made.layout, weights_sha256="f" * 64))
    again = save_dictionary(made, tmp_path / "two", more={"report": [1, 2]})
    assert again.layout == made.layout
    assert (again.name, made.name) == ("two", "one")
    inputs = torch.from_numpy(x).float()
    assert torch.equal(again.encode(inputs), made.encode(inputs))
    config = json.loads((tmp_path / "two" / "cfg.json").read_text())
    assert config["neuronaut"] == {"weights_sha256": "f" * 64, "report": [1, 2]}
    assert config["metadata"]["hook_name"].startswith("blocks.1.")  # where SAELens 6 looks for it
    with pytest.raises(UserError, match="holds a dictionary already"):
        save_dictionary(made, tmp_path / "two")


def test_half_precision_weights_are_read(tmp_path: Path, x: Floats) -> None:
    from safetensors.torch import save_file as save_tensors

    w = drawn(np.random.default_rng(2))
    folder = write(tmp_path / "one", config_of("standard", old=False), w)
    halves = {name: torch.from_numpy(value).bfloat16() for name, value in w.items()}
    save_tensors(halves, folder / "sae_weights.safetensors")
    rounded = {name: value.double().numpy() for name, value in halves.items()}
    close(read_dictionary(folder).encode(torch.from_numpy(x).float()), standard(rounded, x)[0])


def test_another_file_has_another_hash(tmp_path: Path) -> None:
    w, config = drawn(np.random.default_rng(2)), config_of("standard", old=False)
    one = read_dictionary(write(tmp_path / "one", config, w)).sha256
    assert read_dictionary(write(tmp_path / "two", config, w)).sha256 == one
    assert read_dictionary(write(tmp_path / "two", config | {"apply_b_dec_to_input": False}, w)).sha256 != one
    w["W_enc"][0, 0] += 1
    assert read_dictionary(write(tmp_path / "two", config, w)).sha256 != one


@pytest.mark.parametrize(
    ("hook", "place"),
    [
        ("blocks.3.hook_resid_pre", Place("resid_pre", 3)),
        ("blocks.3.hook_in", Place("resid_pre", 3)),
        ("blocks.{layer}.hook_resid_post", Place("resid_post", 2)),
        ("blocks.3.hook_attn_out", Place("attn_out", 3)),
        ("blocks.3.attn.hook_z", Place("heads", 3)),
        ("blocks.3.mlp.hook_post", Place("neurons", 3)),
        ("blocks.3.hook_mlp_in", Place("resid_mid", 3)),
        ("blocks.3.ln2.hook_normalized", Place("mlp_in", 3, "normalized")),
        ("blocks.3.mlp.hook_out", Place("mlp_out", 3, "bare")),
        ("model.layers.3", Place("resid_post", 3)),
        ("transformer.h.3.mlp", Place("mlp_out", 3, "bare")),
    ],
)
def test_hook_names_mean_places(hook: str, place: Place) -> None:
    assert place_of(hook, 2) == place
    assert place_of(place.hook) == place


def _with(change: dict[str, Any], **metadata: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "cfg.json").read_text()) | change
        config["metadata"] |= metadata
        (folder / "cfg.json").write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))

    return spoil


def _weights(**change: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        w = {**drawn(np.random.default_rng(0)), **change}
        save_file(
            {name: np.asarray(value, np.float32) for name, value in w.items() if value is not None},
            folder / "sae_weights.safetensors",
        )

    return spoil


def _file(name: str, content: bytes | None) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)

    return spoil


def _pickle_only(folder: Path) -> None:
    (folder / "sae_weights.safetensors").rename(folder / "sae.pt")


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (_file("sae_weights.safetensors", None), "holds no sae_weights.safetensors"),
    "no layout": (_file("cfg.json", None), "holds no cfg.json"),
    "pickle": (_pickle_only, "a pickle can run code"),
    "not json": (_file("cfg.json", b"\xff{"), "cannot be read as JSON"),
    "deep json": (_file("cfg.json", b"[" * 100_000), "cannot be read as JSON"),
    "a list": (_file("cfg.json", b"[]"), "is not a JSON object"),
    "large json": (_file("cfg.json", b" " * (2**20 + 1)), "larger than 1 MiB"),
    "cut weights": (_file("sae_weights.safetensors", b"\x08\0\0\0\0\0\0\0{}"), "not a whole safetensors file"),
    "absurd header": (_file("sae_weights.safetensors", b"\xff" * 64), "not a whole safetensors file"),
    "absurd width": (_with({"d_sae": 10**12}), "its d_sae is 1000000000000"),
    "no width": (_with({"d_sae": "40"}), "its d_sae is '40'"),
    "other width": (_with({"d_sae": 41}), r"its W_enc is \(12, 40\) and not \(12, 41\)"),
    "missing tensor": (_weights(b_enc=None), "it holds no b_enc"),
    "more tensors": (_weights(b_mag=np.zeros(WIDTH)), "it holds b_mag, which a standard"),
    "not a number": (_weights(b_enc=np.full(WIDTH, np.nan)), "its b_enc holds values that are not finite"),
    "infinite": (_weights(W_dec=np.full((WIDTH, D_IN), np.inf)), "its W_dec holds values that are not finite"),
    "unknown architecture": (_with({"architecture": "temporal"}), "its architecture 'temporal' is not known"),
    "too many": (_with({"architecture": "topk", "k": 41}), "its k is 41"),
    "no k": (_with({"architecture": "topk"}), "its k is None"),
    "no threshold": (_with({"architecture": "jumprelu"}), "it holds no threshold"),
    "whitened": (_with({"normalize_activations": "covariance_whitening"}), "'covariance_whitening' is not computed"),
    "fine-tuned": (_with({"finetuning_scaling_factor": True}), "fine-tuned with a scale"),
    "other function": (_with({"activation_fn": "tanh-relu"}), "activation function 'tanh-relu'"),
    "reshaped": (_with({"reshape_activations": "hook_z"}), "does not read all heads"),
    "no hook": (_with({}, hook_name=None), "does not say where it reads"),
    "unknown hook": (_with({}, hook_name="blocks.1.hook_q"), "the hook 'blocks.1.hook_q' is none"),
    "between": (_with({}, hook_name="blocks.1.hook_resid_mid"), "can be read but not changed"),
    "head of no heads": (_with({}, hook_head_index=1), "has no heads"),
    "negative head": (_with({}, hook_head_index=-1), "no whole number from 0"),
    "folded": (_with({}, hook_name="blocks.1.attn.hook_z", model_from_pretrained_kwargs={"fold_value_biases": True}), "fold_value_biases"),
    "transcodes nowhere": (_with({"architecture": "transcoder", "d_out": D_IN}), "does not say where it writes"),
    "backwards": (
        _with({"architecture": "transcoder", "d_out": D_IN}, hook_name_out="blocks.0.hook_mlp_out"),
        "comes before",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_a_wrong_file_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config_of("standard", old=False), drawn(np.random.default_rng(0)))
    spoil, said = SPOILT[case]
    assert isinstance(read_dictionary(folder), Dictionary)
    spoil(folder)
    with pytest.raises(UserError, match=said) as refused:
        read_dictionary(folder)
    assert "\n" not in str(refused.value)


def test_names_and_folders_that_cannot_be_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a b", config_of("standard", old=False), drawn(np.random.default_rng(0)))
    with pytest.raises(UserError, match="'a b' cannot name a dictionary"):
        read_dictionary(folder)
    assert read_dictionary(folder, "ab").name == "ab"
    with pytest.raises(UserError, match="there is no folder"):
        read_dictionary(tmp_path / "none")
    with pytest.raises(UserError, match="is a file: give the folder"):
        read_dictionary(folder / "cfg.json")

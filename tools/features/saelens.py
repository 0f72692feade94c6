"""Dictionaries on disk in the format of SAELens: cfg.json in its old and new layout, sae_weights.safetensors, nothing else."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.features.config import layout_of
from neuronaut.tools.features.dictionary import Dictionary, Layout
from neuronaut.tools.files import write_whole

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
SCALER = "activation_scaler.json"  # beside a dictionary saved in mid-training
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt", ".npz")
MOST_CONFIG_BYTES = 2**20
VERSION = "6.54.12"  # of SAELens whose layout is written
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UNUSED = ("scaling_factor",)  # old files hold it for fine-tuning, which their config must then say


def read_dictionary(folder: str | Path, name: str | None = None) -> Dictionary:
    """The dictionary in a folder; name None is the folder's own.

    Refuses: a folder without the two files, pickles, a layout or tensors that are not those of its architecture, weights that
    are not finite.
    """
    path = Path(folder).expanduser()
    called = path.resolve().name if name is None else name
    if not _NAME.fullmatch(called):
        raise UserError(
            f"{called!r} cannot name a dictionary: give --dictionary NAME=FOLDER with letters, digits, '_', '.' and '-'"
        )
    _check_files(path)
    config = _json(path / CONFIG)
    scaler = path / SCALER
    if scaler.is_file():
        config.setdefault("norm_scaling_factor", _json(scaler).get("scaling_factor"))
    try:
        layout, scale = layout_of(config)
        weights = _tensors(path / WEIGHTS, layout)
    except UserError as error:
        raise UserError(f"the dictionary {str(path)!r} cannot be used: {error}") from None
    digest = hashlib.sha256()
    for file in (path / WEIGHTS, path / CONFIG, *([scaler] if scaler.is_file() else [])):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return prepared(Dictionary(called, digest.hexdigest(), layout, weights), scale)


def prepared(dictionary: Dictionary, scale: float) -> Dictionary:
    """The dictionary with the scale of its inputs folded into the weights, and a threshold of the whole batch made one of each
    feature."""
    weights, layout = dict(dictionary.weights), dictionary.layout
    if (whole := weights.pop("topk_threshold", None)) is not None:
        if layout.rescales:  # picked by pre-activation times decoder norm: the norms go into the encoder
            norms = weights["W_dec"].norm(dim=-1).clamp(min=1e-8)
            weights |= {
                "W_enc": weights["W_enc"] * norms,
                "b_enc": weights["b_enc"] * norms,
                "W_dec": weights["W_dec"] / norms[:, None],
            }
            layout = replace(layout, rescales=False)
        weights["threshold"] = whole.expand(layout.width).clone()
    if scale != 1.0:
        folded = {
            "W_enc": weights["W_enc"] * scale,
            "W_dec": weights["W_dec"] / scale,
            "b_dec": weights["b_dec"] / scale,
        }
        weights |= folded
    return replace(dictionary, layout=layout, weights=weights)


def save_dictionary(
    dictionary: Dictionary, folder: str | Path, *, more: Mapping[str, Any] | None = None, replacing: bool = False
) -> Dictionary:
    """Writes both files, as SAELens 6 reads them, and returns the dictionary read back; its name is the folder's.

    more: what cfg.json holds beside, under `neuronaut`. Refuses a folder that has a dictionary, unless `replacing`.
    """
    path = Path(folder).expanduser()
    if (path / WEIGHTS).exists() and not replacing:
        raise UserError(f"{str(path)!r} holds a dictionary already: name another folder")
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in dictionary.weights.items()}
    write_whole(path / WEIGHTS, save(tensors))
    text = json.dumps(saved_config(dictionary.layout, more or {}), indent=2) + "\n"
    write_whole(path / CONFIG, text.encode("utf-8"))
    return read_dictionary(path)


def saved_config(layout: Layout, more: Mapping[str, Any]) -> dict[str, Any]:
    """cfg.json of a layout."""
    metadata: dict[str, Any] = {
        "sae_lens_version": VERSION,
        "hook_name": layout.reads.hook,
        "model_name": layout.model_name,
    }
    if layout.reads.head is not None:
        metadata["hook_head_index"] = layout.reads.head
    if layout.centred:
        metadata["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    transcodes = "transcoder" in layout.architecture
    if transcodes:
        metadata["hook_name_out"] = layout.writes.hook
    config: dict[str, Any] = {
        "architecture": layout.architecture,
        "d_in": layout.d_in,
        "d_sae": layout.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": layout.subtracts_b_dec and not transcodes,
        "normalize_activations": layout.normalization,
        "reshape_activations": "hook_z" if layout.reads.name == "heads" and layout.reads.head is None else "none",
        "metadata": metadata,
        "neuronaut": {"weights_sha256": layout.weights_sha256, **more},
    }
    if transcodes:
        config["d_out"] = layout.d_out
    if layout.architecture == "topk":
        config |= {"k": layout.k, "rescale_acts_by_decoder_norm": layout.rescales}
    return config


def _check_files(path: Path) -> None:
    if path.is_file():
        raise UserError(f"{str(path)!r} is a file: give the folder that holds {CONFIG} and {WEIGHTS}")
    if not path.is_dir():
        raise UserError(f"there is no folder {str(path)!r}: give one with {CONFIG} and {WEIGHTS}")
    missing = [name for name in (CONFIG, WEIGHTS) if not (path / name).is_file()]
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLES)
    if WEIGHTS in missing and pickles:
        raise UserError(
            f"the folder {str(path)!r} holds {pickles[0]} and no {WEIGHTS}: a pickle can run code when it is opened, "
            "so save the dictionary with SAELens' save_model first"
        )
    if missing:
        raise UserError(f"the folder {str(path)!r} holds no {missing[0]}: a dictionary is {CONFIG} and {WEIGHTS}")


def _json(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MOST_CONFIG_BYTES:
        raise UserError(f"{str(file)!r} is larger than 1 MiB, which no configuration is: give SAELens' own")
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{str(file)!r} cannot be read as JSON ({type(error).__name__}): it says how the weights are used"
        ) from None
    if not isinstance(loaded, dict):
        raise UserError(f"{str(file)!r} is not a JSON object: it says how the weights are used")
    return loaded


def shapes_of(layout: Layout) -> dict[str, tuple[int, ...]]:
    """The tensors that a layout must have, by name."""
    width, d_in, d_out = layout.width, layout.d_in, layout.d_out
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, width), "W_dec": (width, d_out), "b_dec": (d_out,)}
    if layout.architecture == "gated":
        return shapes | {"b_gate": (width,), "b_mag": (width,), "r_mag": (width,)}
    shapes["b_enc"] = (width,)
    if "jumprelu" in layout.architecture:
        shapes["threshold"] = (width,)
    if "skip" in layout.architecture:
        shapes["W_skip"] = (d_out, d_in)
    return shapes


def _tensors(file: Path, layout: Layout) -> dict[str, Tensor]:
    """The tensors in float32; shapes are checked before anything is loaded."""
    try:
        with safe_open(file, framework="pt") as stored:
            shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118  it is no dict
            _check_shapes(shapes, layout)
            loaded = {name: stored.get_tensor(name) for name in shapes if name not in _UNUSED}
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file.name} is not a whole safetensors file ({reason}): copy it again") from None
    for name, tensor in loaded.items():
        if not tensor.is_floating_point():
            raise UserError(
                f"its {name} holds {str(tensor.dtype).removeprefix('torch.')} and no floating-point numbers"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"its {name} holds values that are not finite")
    return {name: tensor.float() for name, tensor in loaded.items()}


def _check_shapes(found: Mapping[str, tuple[int, ...]], layout: Layout) -> None:
    wanted = shapes_of(layout)
    if layout.architecture == "jumprelu" and "topk_threshold" in found:  # a BatchTopK saved in mid-training
        del wanted["threshold"]
        wanted["topk_threshold"] = ()
    if "transcoder" in layout.architecture and "b_dec_out" in found:
        wanted |= {"b_dec": (layout.d_in,), "b_dec_out": (layout.d_out,)}
    for name, shape in wanted.items():
        if name not in found:
            raise UserError(
                f"it holds no {name}, which a {layout.architecture} dictionary has; it holds {', '.join(sorted(found))}"
            )
        if found[name] != shape:
            raise UserError(f"its {name} is {found[name]} and not {shape}, as {CONFIG} says")
    if more := sorted(set(found) - set(wanted) - set(_UNUSED)):
        raise UserError(f"it holds {more[0]}, which a {layout.architecture} dictionary does not have")

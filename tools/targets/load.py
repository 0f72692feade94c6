"""From a name on the command line to a target model."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from neuronaut.tools.chat.texts import ChatTexts
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.targets.folder import PICKLES, ModelFolder
from neuronaut.tools.targets.memory import check_fits
from neuronaut.tools.targets.placement import DeviceName, DtypeName, device_of, dtype_of
from neuronaut.tools.units import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from neuronaut.tools.features.dictionary import Dictionary
    from neuronaut.tools.targets.base import ModelSpec, TargetModel
    from neuronaut.tools.targets.mlx.target import MlxTarget
    from neuronaut.tools.targets.transformer_lens import TransformerLensTarget

Backend = Literal["torch", "mlx"]
POCKET = Path(__file__).parent / "pocket"
MLX_COMMAND = 'pip install "mlx[cpu]" mlx-lm'


def open_folder(name: str | Path, *, to_look_at: bool = False) -> ModelFolder:
    """The folder that `name` means: 'pocket', a local folder, or a hub name when the hub can be reached.

    to_look_at: no weights are fetched from the hub.
    """
    if name == "pocket":
        return ModelFolder(POCKET, "pocket")
    path = Path(name).expanduser()
    if path.exists() or isinstance(name, Path) or not _could_be_on_the_hub(name):
        return ModelFolder(path, path.resolve().name, to_look_at=to_look_at)
    return ModelFolder(_from_hub(name, weights=not to_look_at), name, to_look_at=to_look_at)


def chat_texts_of(name: str) -> ChatTexts:
    """What renders chats for the model that `name` means; no weights are loaded."""
    folder = open_folder(name)
    how = folder.chat_format
    return ChatTexts(how, folder.name, "" if folder.bos is None else how.special.get("bos_token", ""))


def _could_be_on_the_hub(name: str) -> bool:
    """One or two plain words; the ending of a weights file means a file."""
    words = name.split("/")
    plain = all(word and word[0].isalnum() for word in words)
    return len(words) <= 2 and plain and Path(name).suffix not in (*PICKLES, ".safetensors", ".json")


def _from_hub(name: str, *, weights: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        files = ["*.json", "*.jinja", *(["model*.safetensors"] if weights else [])]
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(
            f"{name!r} is no local folder and could not be had from the hub ({type(error).__name__}): "
            "give a folder or 'pocket'"
        ) from None


def load_target(
    name: str | Path,
    *,
    dtype: "torch.dtype | DtypeName" = "float32",
    dictionaries: "Sequence[str]" = (),
    backend: Backend = "torch",
    device: DeviceName = "cpu",
) -> "TargetModel":
    """The target that `name` means. torch runs it on `device`, mlx on the GPU of Apple silicon where there is one. Importing the
    engine takes seconds; nothing else does it.

    Refuses a model that would not fit into memory.

    dictionaries: NAME=FOLDER or FOLDER of each; those that are shipped with the model are there without being named.
    Refuses mlx where it is not installed, and a device that cannot be used.
    """
    folder = open_folder(name)
    from neuronaut.tools.features.saelens import read_dictionary

    read = [read_dictionary(path, called) for called, path in (named_folder(text) for text in dictionaries)]
    shipped = sorted(folder.path.glob("dictionaries/*/cfg.json"))
    taken = {dictionary.name for dictionary in read}
    read += [read_dictionary(file.parent) for file in shipped if file.parent.name not in taken]
    chosen = dtype_of(dtype, folder.config) if isinstance(dtype, str) else dtype
    if device == "cpu":  # on another device its own memory counts, which the engine tells of
        check_fits(folder, str(chosen).removeprefix("torch."))
    _ = folder.tokenizer_size  # a broken tokenizer is refused by its name, before the engine stumbles over it
    target = _opened(folder, chosen, backend, device)
    for dictionary in read:
        target.add_dictionary(dictionary)
    return target


def _opened(
    folder: ModelFolder, dtype: "torch.dtype", backend: Backend, device: DeviceName
) -> "TransformerLensTarget | MlxTarget":
    if backend == "torch":
        from neuronaut.tools.targets.transformer_lens import TransformerLensTarget

        return TransformerLensTarget(folder, dtype=dtype, device=device_of(device))
    if device not in ("cpu", "auto"):
        raise UserError(
            f"--device {device} is for --backend torch: mlx takes the GPU of a Mac by itself, so leave it out"
        )
    if not has_mlx():
        raise UserError(f"--backend mlx needs mlx and mlx-lm, which are not installed here: {MLX_COMMAND}")
    from neuronaut.tools.targets.mlx.target import MlxTarget

    return MlxTarget(folder, dtype=dtype)


def has_mlx() -> bool:
    """Whether mlx and mlx-lm are installed; neither is imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("mlx", "mlx_lm"))


def named_folder(text: str) -> tuple[str | None, Path]:
    """Name and folder of `NAME=FOLDER`, or the folder alone, which gives its own name."""
    before, equals, after = text.partition("=")
    if equals and not Path(text).expanduser().exists():
        return before, Path(after).expanduser()
    return None, Path(text).expanduser()


def dictionary_named(dictionaries: "Mapping[str, Dictionary]", name: str) -> "Dictionary":
    """The dictionary registered under a name. Refuses an unknown name, and says which there are."""
    if name not in dictionaries:
        known = f"there are {', '.join(sorted(dictionaries))}" if dictionaries else "none is"
        raise ToolRefused(f"no dictionary is called {name!r} ({known}): register one with --dictionary {name}=FOLDER")
    return dictionaries[name]


def check_unit(spec: "ModelSpec", unit: Unit, dictionaries: "Mapping[str, Dictionary] | None" = None) -> None:
    """Refuses a unit that the model does not have, and says which there are. dictionaries: those of the target."""
    if unit.kind == "task":
        raise ToolRefused(f"{unit.address} is a task and no part of the model: name a neuron, such as 8.481, or a head")
    if unit.kind == "feature":
        width = dictionary_named(dictionaries or {}, unit.name).width
        if unit.index >= width:
            raise ToolRefused(f"feature {unit.address} does not exist: {unit.name} has features 0 to {width - 1}")
        return
    if not 0 <= unit.layer < spec.n_layers:
        raise ToolRefused(f"layer {unit.layer} does not exist: {spec.name} has layers 0 to {spec.n_layers - 1}")
    _check_index(spec, unit)


def _check_index(spec: "ModelSpec", unit: Unit) -> None:
    if unit.kind == "router" and not spec.n_experts:
        raise ToolRefused(f"router {unit.address} does not exist: the layers of {spec.name} have no experts")
    if unit.kind == "neuron" and (unit.expert is not None) != (spec.n_experts > 0):
        raise ToolRefused(
            f"neuron {unit.address} does not exist: "
            + (
                f"the neurons of layer {unit.layer} of {spec.name} belong to experts 0 to {spec.n_experts - 1}; "
                f"write {unit.layer}.e0.{unit.index}"
                if spec.n_experts
                else f"the layers of {spec.name} have no experts; write {unit.layer}.{unit.index}"
            )
        )
    if unit.expert is not None and unit.expert >= spec.n_experts:
        raise ToolRefused(
            f"expert {unit.expert} does not exist: layer {unit.layer} of {spec.name} has experts 0 to {spec.n_experts - 1}"
        )
    what, width = {"neuron": ("neuron", spec.d_mlp), "router": ("expert", spec.n_experts)}.get(
        unit.kind, ("head", spec.n_heads)
    )
    if not 0 <= unit.index < width:
        holder = f"layer {unit.layer}" if unit.expert is None else f"expert {unit.expert} of layer {unit.layer}"
        raise ToolRefused(
            f"{unit.kind} {unit.address} does not exist: {holder} of {spec.name} has {what}s 0 to {width - 1}"
        )

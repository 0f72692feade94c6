"""What is known of a model without loading it: its shape, its tokenizer, what can run it, and the memory that takes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.architectures import CHECKED, nearest_to
from neuronaut.tools.targets.configuration import check_filled, is_known, read_configuration
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.load import has_mlx, open_folder
from neuronaut.tools.targets.memory import ITEM_BYTES, Estimate, available_memory, estimate_of
from neuronaut.tools.targets.shapes import Shape, shape_of
from neuronaut.tools.targets.weight_files import Stored, stored_in


@dataclass(frozen=True)
class TokenizerSaid:
    """A model's tokenizer. fault: why it cannot be used with the model, None where it can; kind, size: None where there is none."""

    kind: str | None
    size: int | None
    bos: int | None
    chat_template: bool
    fault: str | None


@dataclass(frozen=True)
class Inspected:
    """A model that was not loaded. backends: what each engine says, None where it takes it. pass_bytes: beside the weights, for
    each number format; None where config.json does not say the shape. dtypes: of the tensors on disk, and how many numbers."""

    name: str
    architecture: str
    checked: bool
    nearest: str | None
    backends: dict[str, str | None]
    shape: Shape
    tokenizer: TokenizerSaid
    n_bytes: int
    n_files: int
    dtypes: dict[str, int]
    estimates: dict[str, Estimate]
    pass_bytes: dict[str, int | None]
    available: int


def inspect(name: str | Path, *, batch: int, length: int) -> Inspected:
    """What is known of the model that `name` means. batch, length: of the pass whose memory is estimated.

    Of a model of the hub only JSON files and the headers of its weights are fetched. Refuses what `open_folder` refuses, and
    weights that are not whole.
    """
    folder = open_folder(name, to_look_at=True)
    stored = stored_in(folder) if folder.weights and not folder.missing_weights else _elsewhere(folder)
    full = _filled(folder)
    shape, kind = shape_of(full), str(folder.config.get("model_type"))
    dtypes: Counter[str] = Counter()
    for one in stored:
        dtypes[one.dtype] += one.size
    checked = kind in CHECKED
    return Inspected(
        name=folder.name,
        architecture=kind,
        checked=checked,
        nearest=None if checked else nearest_to(kind),
        backends=_backends(folder, stored),
        shape=shape,
        tokenizer=_tokenizer(folder, shape.d_vocab),
        n_bytes=sum(one.n_bytes for one in stored),
        n_files=len(folder.weights),
        dtypes=dict(dtypes),
        estimates={dtype: estimate_of(stored, full, dtype) for dtype in ITEM_BYTES},
        pass_bytes={dtype: shape.pass_bytes(batch, length, item) for dtype, item in ITEM_BYTES.items()},
        available=available_memory(),
    )


def _elsewhere(folder: ModelFolder) -> Sequence[Stored]:
    """The headers of a model whose weights are on the hub."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, NotASafetensorsRepoError, OfflineModeIsEnabled

    if folder.name == folder.path.resolve().name:  # on this machine
        return stored_in(ModelFolder(folder.path, folder.name))  # refuses, since weights are missing
    try:
        found = huggingface_hub.get_safetensors_metadata(folder.name)
    except (HfHubHTTPError, HFValidationError, NotASafetensorsRepoError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(
            f"the sizes of the weights of {folder.name!r} could not be had from the hub ({type(error).__name__}): give a folder"
        ) from None
    return [
        Stored(name, one.dtype, tuple(one.shape), one.data_offsets[1] - one.data_offsets[0])
        for file in found.files_metadata.values()
        for name, one in file.tensors.items()
    ]


def _filled(folder: ModelFolder) -> dict[str, Any]:
    """config.json with what transformers takes where it says nothing; as it is where transformers does not know it."""
    if not is_known(folder):
        return folder.config
    said = {key: value for key, value in folder.config.items() if value is not None}
    return {**read_configuration(folder).to_dict(), **said}


def _backends(folder: ModelFolder, stored: Sequence[Stored]) -> dict[str, str | None]:
    """Each engine, and why it does not take the model; None where it does."""
    found: dict[str, str | None] = {}
    for backend, check in (("torch", check_filled), ("mlx", _check_mlx)):
        try:
            check(folder, stored)
            found[backend] = None
        except UserError as error:
            found[backend] = str(error)
    return found


def _check_mlx(folder: ModelFolder, stored: Sequence[Stored]) -> None:
    """Refuses what mlx-lm would compute differently; where it is installed and the weights are here, also what they do not fill."""
    from neuronaut.tools.targets.mlx.configs import understood

    found = understood(folder)
    if has_mlx() and folder.weights and not folder.missing_weights:
        from neuronaut.tools.targets.mlx.loading import unread_model

        unread_model(folder, found)


def _tokenizer(folder: ModelFolder, d_vocab: int | None) -> TokenizerSaid:
    fault = folder.tokenizer_fault
    if fault:
        return TokenizerSaid(None, None, None, folder.has_chat_template, f"the folder holds {fault}")
    kind, size, bos = folder.tokenizer_kind, folder.tokenizer_size, None
    try:
        bos = folder.bos
        if d_vocab:
            folder.vocabulary(d_vocab)
    except UserError as error:
        fault = str(error)
    return TokenizerSaid(kind, size, bos, folder.has_chat_template, fault)

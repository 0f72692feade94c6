"""From a name on the command line to a target model."""

from pathlib import Path
from typing import TYPE_CHECKING

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.units import Unit

if TYPE_CHECKING:
    from neuronaut.tools.targets.base import ModelSpec, TargetModel

POCKET = Path(__file__).parent / "pocket"


def open_folder(name: str) -> ModelFolder:
    """The folder that `name` means: 'pocket', a local folder, or a hub name when the hub can be reached."""
    if name == "pocket":
        return ModelFolder(POCKET, "pocket")
    path = Path(name).expanduser()
    if path.exists() or path.suffix or name.startswith((".", "/", "~")) or name.count("/") != 1:
        return ModelFolder(path, path.name)
    return ModelFolder(_from_hub(name), name)


def _from_hub(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        files = ["*.safetensors", "*.json"]
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(
            f"{name!r} is no local folder and could not be had from the hub ({type(error).__name__}): give a folder or 'pocket'"
        ) from None


def load_target(name: str) -> "TargetModel":
    """The target that `name` means, in float32 on the CPU. Importing the engine takes seconds; nothing else does it."""
    folder = open_folder(name)
    from neuronaut.tools.targets.transformer_lens import TransformerLensTarget

    return TransformerLensTarget(folder)


def check_unit(spec: "ModelSpec", unit: Unit) -> None:
    """Refuses a unit that the model does not have, and says which there are."""
    if unit.layer >= spec.n_layers:
        raise UserError(f"layer {unit.layer} does not exist: {spec.name} has layers 0 to {spec.n_layers - 1}")
    width = spec.d_mlp if unit.kind == "neuron" else spec.n_heads
    if unit.index >= width:
        raise UserError(
            f"{unit.kind} {unit.address} does not exist: layer {unit.layer} of {spec.name} has {unit.kind}s 0 to {width - 1}"
        )

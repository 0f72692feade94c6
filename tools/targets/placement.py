"""In which number format and on which device a model is run."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from neuronaut.tools.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from neuronaut.tools.features.dictionary import Dictionary
    from neuronaut.tools.targets.base import Edit

DtypeName = Literal["float32", "bfloat16", "float16", "auto"]
DeviceName = Literal["cpu", "cuda", "mps", "auto"]


def dtype_of(name: DtypeName, config: Mapping[str, Any]) -> "torch.dtype":
    """The number format; auto is the one that config.json names, float32 where it names none that is run here."""
    import torch

    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    said = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return formats.get(said, torch.float32) if name == "auto" else formats[name]


def device_of(name: DeviceName) -> "torch.device":
    """The device; auto is a GPU where torch can use one. Refuses one that torch cannot use here."""
    import torch

    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in usable.items() if there))
    if not usable[name]:
        what = "no CUDA device" if name == "cuda" else "no GPU of Apple silicon"
        raise UserError(f"--device {name} cannot be used: torch finds {what} here; leave it out, or give --device auto")
    return torch.device(name)


class Elsewhere(NamedTuple):
    """A model on a device, for callers who know none: what they give is brought there, and what they get is brought back."""

    device: "torch.device"

    @property
    def away(self) -> bool:
        """Whether it is not where callers are."""
        return self.device.type != "cpu"

    def working(self) -> "AbstractContextManager[object]":
        """While the model is run: tensors that are made there are made on its device."""
        return self.device if self.away else nullcontext()

    def brought(self, edits: "Sequence[Edit]") -> "Sequence[Edit]":
        """Edits whose values and positions are on the device."""
        return [self._brought(edit) for edit in edits] if self.away else edits

    def _brought(self, edit: "Edit") -> "Edit":
        value = edit.value if isinstance(edit.value, (int, float)) else edit.value.to(self.device)
        positions = None if edit.positions is None else edit.positions.to(self.device)
        return replace(edit, value=value, positions=positions)

    def dictionary(self, dictionary: "Dictionary") -> "Dictionary":
        """A dictionary whose weights are on the device."""
        weights = {name: weight.to(self.device) for name, weight in dictionary.weights.items()}
        return replace(dictionary, weights=weights) if self.away else dictionary

    def scored(self, score: "Callable[[Tensor], Tensor]") -> "Callable[[Tensor], Tensor]":
        """A score of logits that is computed where the caller is."""
        import torch

        def of(logits: "Tensor") -> "Tensor":
            with torch.device("cpu"):
                return score(logits.cpu())

        return of if self.away else score

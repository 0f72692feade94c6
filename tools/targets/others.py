"""Other models beside the target: registered by name, fingerprinted, opened when one is first needed."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from neuronaut.tools.targets.load import Backend, load_target, open_folder
from neuronaut.tools.targets.placement import DeviceName, DtypeName

if TYPE_CHECKING:
    from neuronaut.tools.targets.base import TargetModel
    from neuronaut.tools.targets.folder import ModelFolder


@dataclass(frozen=True)
class OtherModel:
    """A model by the name that it was given. place: 'pocket', a folder or a hub name; nothing is loaded before `target`.

    backend, dtype, device: how it is run. Where they are not those of the target, rounding would be taken for a difference.
    """

    name: str
    place: str
    backend: Backend = "torch"
    dtype: DtypeName = "float32"
    device: DeviceName = "cpu"

    @cached_property
    def folder(self) -> "ModelFolder":
        """Its files. Refuses what is no model folder."""
        return open_folder(self.place)

    @cached_property
    def sha256(self) -> str:
        """Of its weights, configuration and tokenizer."""
        return hashlib.sha256(f"{self.folder.weights_sha256} {self.folder.tokenizer_sha256}".encode()).hexdigest()

    @cached_property
    def target(self) -> "TargetModel":
        """The model, loaded once."""
        return load_target(self.place, backend=self.backend, dtype=self.dtype, device=self.device)

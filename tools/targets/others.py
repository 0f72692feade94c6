"""Other models beside the target: registered by name, fingerprinted, opened when one is first needed."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from neuronaut.tools.targets.load import load_target, open_folder

if TYPE_CHECKING:
    from neuronaut.tools.targets.base import TargetModel
    from neuronaut.tools.targets.folder import ModelFolder


@dataclass(frozen=True)
class OtherModel:
    """A model by the name that it was given. place: 'pocket', a folder or a hub name; nothing is loaded before `target`."""

    name: str
    place: str

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
        return load_target(self.place)

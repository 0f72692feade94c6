"""What a person registers beside the model: other models, labelled texts and saved read-outs, by names that tools may be given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.labels import LabelFile
from neuronaut.tools.targets.others import OtherModel

if TYPE_CHECKING:  # needs torch, which takes seconds
    from neuronaut.tools.readouts.heads import Head


@dataclass(frozen=True)
class Registered:
    """Other models, labelled texts and saved read-outs by name. Tools take these names, never a path."""

    others: Mapping[str, OtherModel] = field(default_factory=dict)
    labels: Mapping[str, LabelFile] = field(default_factory=dict)
    heads: "Mapping[str, Head]" = field(default_factory=dict)

    def other(self, name: str) -> OtherModel:
        """The model of that name. Refuses an unknown one, and says which there are."""
        if name not in self.others:
            raise ToolRefused(
                f"no other model is called {name!r} ({_known(self.others)}): register it, --other {name}=FOLDER"
            )
        return self.others[name]

    def labelled(self, name: str) -> LabelFile:
        """The labelled texts of that name. Refuses an unknown one, and says which there are."""
        if name not in self.labels:
            raise ToolRefused(
                f"no labels are called {name!r} ({_known(self.labels)}): register them, --labels {name}=FILE.jsonl"
            )
        return self.labels[name]

    def head(self, name: str) -> "Head":
        """The read-out of that name. Refuses an unknown one, and says which there are."""
        if name not in self.heads:
            raise ToolRefused(f"no head is called {name!r} ({_known(self.heads)}): register it, --head {name}=FOLDER")
        return self.heads[name]


def _known(names: Mapping[str, object]) -> str:
    return f"there are {', '.join(sorted(names))}" if names else "none are registered"

"""What a person registered by name beside the target: saved read-outs. Tools take the names, never a path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuronaut.tools.errors import ToolRefused

if TYPE_CHECKING:
    from neuronaut.tools.readouts.heads import Head
    from neuronaut.tools.targets.base import TargetModel


@dataclass(frozen=True)
class Registered:
    """Heads and other models by name; hashes: of what each holds, by `head:NAME` and `other:NAME`."""

    heads: "Mapping[str, Head]" = field(default_factory=dict)
    others: "Mapping[str, TargetModel]" = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)

    def head(self, name: str) -> "Head":
        """The head of that name. Refuses an unknown one, and says which there are."""
        if name not in self.heads:
            raise ToolRefused(
                f"no head is called {name!r} ({_known(self.heads)}): register one with --head {name}=FOLDER"
            )
        return self.heads[name]

    def other(self, name: str) -> "TargetModel":
        """The other model of that name. Refuses an unknown one, and says which there are."""
        if name not in self.others:
            raise ToolRefused(
                f"no other model is called {name!r} ({_known(self.others)}): register one with --other {name}=FOLDER"
            )
        return self.others[name]


def _known(names: Mapping[str, object]) -> str:
    return f"there are {', '.join(sorted(names))}" if names else "none is"

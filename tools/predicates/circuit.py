"""A circuit as data: which parts of a model carry a task."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Member = Annotated[str, Field(pattern=r"^(L\d+H\d+|mlp\d+)(@[A-Za-z0-9_]+)?$")]


class Circuit(BaseModel):
    """The members carry the task. members: heads (`L3H1`) and MLPs (`mlp4`), or one of them at one role of the prompt
    (`L3H1@end`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["circuit"] = "circuit"
    task: str = Field(min_length=1, max_length=200)
    members: tuple[Member, ...] = Field(min_length=1, max_length=100_000)

    def __str__(self) -> str:
        *first, last = self.members
        named = f"{', '.join(first)} and {last}" if first else last
        return f"{self.task!r} is carried by {named}"


def canonical_circuit(circuit: Circuit) -> str:
    """Its JSON, always the same for the same circuit."""
    return json.dumps(circuit.model_dump(mode="json"), ensure_ascii=False, sort_keys=True, separators=(",", ":"))

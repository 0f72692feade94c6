"""A described program against the truth of the model that it describes: its edges, its roles, and what it says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWN = ("token", "position")
Described = Mapping[str, Any]  # the payload of describe_program
Component = Mapping[str, Any]


@dataclass(frozen=True)
class Compared:
    """auroc: of the edges. right, tags: components whose role was found, of how many; idle_right, idle: those of no role
    among them. wrong: what was found of the others."""

    auroc: float
    right: int
    tags: int
    idle_right: int
    idle: int
    wrong: tuple[str, ...]


def compare(described: Described, components: Sequence[Component], output: str) -> Compared:
    """How well a description tells the parts of a compiled model. output: the variable that the model says."""
    found = [_found(described, one) for one in components]
    tags = [_tag(described, one, part) for one, part in zip(components, found, strict=True)]
    right = [tag == one["role"] for tag, one in zip(tags, components, strict=True)]
    idle = [one["role"] == "none" for one in components]
    wrong = tuple(
        f"{one['role']} {one['writes']}: {tag}" for one, tag, ok in zip(components, tags, right, strict=True) if not ok
    )
    scores, true = edge_scores(described, components, found, output)
    idle_right = sum(ok for ok, none in zip(right, idle, strict=True) if none)
    return Compared(auroc(scores, true), sum(right), len(tags), idle_right, sum(idle), wrong)


def _found(described: Described, component: Component) -> str | None:
    """The described part that holds more than half of a component, which is more than half of the part."""
    own = set(component["indices"])
    for part in described["parts"]:
        shared = len(own.intersection(part["indices"])) if _alike(part, component) else 0
        if 2 * shared > max(len(own), len(part["indices"])):
            return str(part["part"])
    return None


def _tag(described: Described, component: Component, part: str | None) -> str:
    """The role of what was found; "none" where most of the component is in no described part, else "split"."""
    if part is not None:
        return next(str(one["role"]) for one in described["parts"] if one["part"] == part)
    used = {index for one in described["parts"] if _alike(one, component) for index in one["indices"]}
    return "none" if 2 * len(used.intersection(component["indices"])) <= len(component["indices"]) else "split"


def _alike(part: Mapping[str, Any], component: Component) -> bool:
    return bool(part["layer"] == component["layer"] and part["kind"] == component["kind"])


def edge_scores(
    described: Described, components: Sequence[Component], found: Sequence[str | None], output: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The effect, 0 where none is described, and whether it is true, of each pair of which the first writes before the
    second reads: from the token, the position and the components, to the components and the output.

    A pair is true where the second reads the variable that the first writes.
    """
    effects = {(edge["from"], edge["to"]): max(edge["effects"].values()) for edge in described["edges"]}
    writers: list[tuple[str, float, str | None]] = [(name, -1, name) for name in DRAWN]
    writers += [(one["writes"], _depth(one), part) for one, part in zip(components, found, strict=True)]
    readers: list[tuple[Sequence[str], float, str | None]] = [([output], inf, "output")]
    readers += [(one["reads"], _depth(one), part) for one, part in zip(components, found, strict=True)]
    pairs = [(writer, reader) for writer in writers for reader in readers if writer[1] < reader[1]]
    scores = [effects.get((writer[2], reader[2]), 0.0) for writer, reader in pairs]
    return np.array(scores), np.array([writer[0] in reader[0] for writer, reader in pairs])


def _depth(component: Component) -> int:
    return 2 * int(component["layer"]) + (component["kind"] == "neurons")


def auroc(scores: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    """How often a true pair scores above a false one, ties counted half."""
    above = scores[true][:, None] - scores[~true][None]
    return float((above > 0).mean() + (above == 0).mean() / 2)

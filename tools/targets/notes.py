"""What is noted while a model runs: what passes a place, what senders write, and copies whose gradient is asked for."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from neuronaut.tools.targets.base import Edit, Site
from neuronaut.tools.targets.hooks import Visit, edited

Key = TypeVar("Key")
Wrote = Callable[[range, Tensor], None]  # numbers of senders, and what they write, (batch, n, pos, d_model)


def edits_at(edits: Sequence[Edit], site: Site) -> list[Edit]:
    """Those of one site."""
    return [edit for edit in edits if edit.site == site]


def editing(edits: list[Edit]) -> Visit:
    """Makes the edits of a site, in order."""

    def visit(value: Tensor) -> Tensor:
        for edit in edits:
            value = edited(value, edit)
        return value

    return visit


def filling(found: Tensor) -> Wrote:
    """Puts what senders write into (batch, n_senders, pos, d_model)."""

    def wrote(numbers: range, values: Tensor) -> None:
        found[:, numbers.start : numbers.stop] = values

    return wrote


def noting(wrote: Wrote, numbers: range) -> Visit:
    """Tells what one sender writes."""

    def visit(value: Tensor) -> Tensor:
        with torch.no_grad():
            wrote(numbers, value[:, None])
        return value

    return visit


def keeping(found: dict[Key, Tensor], key: Key) -> Visit:
    """Keeps what it sees under a key."""

    def visit(value: Tensor) -> Tensor:
        found[key] = value.detach()
        return value

    return visit


def leaf(found: dict[Key, Tensor], key: Key) -> Visit:
    """Keeps a copy that only what follows here reads, so that its gradient is that of this reader alone."""

    def visit(value: Tensor) -> Tensor:
        value = value * 1.0
        value.retain_grad()
        found[key] = value
        return value

    return visit

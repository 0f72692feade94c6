"""Reading and editing activations through plain torch hooks, and layers that are not run."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, assert_never

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import Edit, Site


class Stopped(Exception):
    """Leaves the forward pass when nothing after this layer is wanted."""


class Skipped(nn.Module):
    """Stands in for a layer that is not run: hands the residual on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The residual as it came."""
        return hidden_states


Visit = Callable[[Tensor], Tensor]


class Removable(Protocol):
    """A hook that can be taken out again."""

    def remove(self) -> None:
        """Takes it out."""
        ...


class RemovedTogether(NamedTuple):
    """Several hooks that are taken out together."""

    hooks: tuple[Removable, ...]

    def remove(self) -> None:
        """Takes all out."""
        for hook in self.hooks:
            hook.remove()


def before(module: nn.Module, visit: Visit) -> RemovableHandle:
    """Calls `visit` with what goes into the module, and sends in what it returns."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (visit(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": visit(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def after(module: nn.Module, visit: Visit) -> RemovableHandle:
    """Calls `visit` with what comes out of the module, and hands on what it returns."""

    def hook(_: nn.Module, args: Any, output: Any) -> Any:
        return (visit(output[0]), *output[1:]) if isinstance(output, tuple) else visit(output)

    return module.register_forward_hook(hook)


@contextlib.contextmanager
def only_layers(
    blocks: nn.ModuleList, entries: list[nn.Module], start: tuple[int, Tensor] | None, last: int, *, stop_there: bool
) -> Iterator[None]:
    """The time during which a pass begins with a residual at the layer of `start`, and ends before layer `last` if told to.

    entries: what each layer begins with, and what comes after the last one.
    """
    first, handles = 0 if start is None else start[0], []
    originals = list(blocks[:first])
    try:
        for at, block in enumerate(originals):
            blocks[at] = Skipped(block)
        if start is not None:
            residual = start[1]
            handles.append(before(entries[first], lambda _: residual))
        if stop_there:
            handles.append(entries[last].register_forward_pre_hook(stop_here))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for at, block in enumerate(originals):
            blocks[at] = block


def stop_here(module: nn.Module, args: Any) -> None:
    """A pre-hook: nothing from this module on is run."""
    raise Stopped


def seen(_: Tensor) -> None:
    """Nothing is put in the place of the pattern."""


def visitor(site: Site, edits: list[Edit], found: dict[Site, Tensor] | None) -> Visit:
    """Makes the edits at a site, in order, and keeps the activation in `found`."""
    shared = site.name not in ("neurons", "heads", "pattern")  # the residual at one site is the same tensor at the next

    def visit(value: Tensor) -> Tensor:
        for edit in edits:
            value = edited(value, edit)
        if found is not None:
            found[site] = value.clone() if shared or edits else value
        return value

    return visit


def differentiated(site: Site, edits: list[Edit], found: dict[Site, Tensor], *, leaf: bool) -> Visit:
    """Makes the edits at a site, and keeps the activation so that its gradient can be asked for. leaf: nothing before it is
    differentiated; so it is, too, where an edit replaces the whole site."""

    def visit(value: Tensor) -> Tensor:
        for edit in edits:
            value = edited(value, edit)
        # a copy: the model may write into its own tensor in place
        value = value.clone() if value.requires_grad and not leaf else value.detach().clone().requires_grad_()
        value.retain_grad()
        found[site] = value
        return value

    return visit


def edited(value: Tensor, edit: Edit) -> Tensor:
    """The activation with one edit made; value is (batch, pos, width) or (batch, pos, n_heads, d_head)."""
    part = value if edit.index is None else value[:, :, edit.index]
    number = torch.as_tensor(edit.value, dtype=part.dtype)
    at = None if edit.positions is None else edit.positions.reshape(*edit.positions.shape, *[1] * (part.dim() - 2))
    try:
        match edit.how:
            case "set":
                new = number.expand_as(part)
            case "add":
                new = part + number
            case "scale":
                new = part * number
            case _ as never:
                assert_never(never)
        if at is not None:
            new = torch.where(at, new, part)
    except RuntimeError:
        new = None
    if new is None or new.shape != part.shape:
        where = "" if edit.positions is None else f" at positions {tuple(edit.positions.shape)}"
        raise ToolRefused(
            f"a value {tuple(number.shape)}{where} does not fit {edit.site}, which is {tuple(part.shape)} here"
        )
    if edit.index is None:
        return new
    changed = value.clone()
    changed[:, :, edit.index] = new
    return changed

"""Ask what a part of a language model does; get claims that survived a test, each with its evidence."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuronaut.agent.api.lab import Lab
    from neuronaut.tools.errors import ToolFailed, ToolRefused, UserError

__all__ = ["Lab", "ToolFailed", "ToolRefused", "UserError", "__version__"]
__version__ = "0.1.0"
_WHERE = {
    "Lab": "neuronaut.agent.api.lab",
    "ToolFailed": "neuronaut.tools.errors",
    "ToolRefused": "neuronaut.tools.errors",
    "UserError": "neuronaut.tools.errors",
}


def __getattr__(name: str) -> Any:
    """What is loaded when it is first asked for, so that the command line starts fast."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(_WHERE[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

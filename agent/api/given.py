"""What Python code gives, as the values that the command line would make of it."""

import contextlib
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from neuronaut.agent.config import Budget
from neuronaut.memory.place import Place, place_of
from neuronaut.tools.errors import UserError

Choice = TypeVar("Choice", bound=StrEnum)
Say = Callable[[str, str], None]
Progress = bool | Say  # True: lines on stderr; a function gets a label and a line for each step


def settle_progress_bars() -> None:
    """Import the bars that the engine's packages use: in Jupyter they warn, once, where widgets are not installed."""
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.filterwarnings("ignore", message="IProgress not found")
        importlib.import_module("tqdm.auto")


def listed(given: str | Sequence[str]) -> list[str]:
    """One name or several, as a list."""
    return [given] if isinstance(given, str) else [str(one) for one in given]


def place_named(text: str) -> Place:
    """A notebook by its file or its URL."""
    return place_of(text if "://" in text else str(Path(text).expanduser()))


def budget_of(given: Budget | Mapping[str, float] | None) -> Budget:
    """Limits, given as such or by their names. Refuses names that are none."""
    from pydantic import ValidationError

    try:
        return given if isinstance(given, Budget) else Budget.model_validate(dict(given or {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"budget {'.'.join(map(str, first['loc']))}: {first['msg']}; its limits are {', '.join(Budget.model_fields)}"
        ) from None


def one_of(choices: type[Choice], given: str) -> Choice:
    """A choice by its name. Refuses others."""
    try:
        return choices(given)
    except ValueError:
        raise UserError(f"{given!r} is none of {', '.join(choices)}") from None


def text_of(given: object, what: str) -> str:
    """The text. Refuses what is none."""
    if not isinstance(given, str):
        raise UserError(f"{what} is text, such as 'what does neuron 8.481 do': {str(given)[:40]!r} is none")
    return given


def say_of(progress: Progress) -> Say:
    """Where the steps of a question are told."""
    from neuronaut.agent.view import steps_on_stderr

    if callable(progress):
        return progress
    return steps_on_stderr() if progress else lambda _label, _line: None


def plain(value: Any) -> Any:
    """Numbers and arrays of numpy, and series of frames, as the Python values that tools check."""
    return value.tolist() if hasattr(value, "tolist") else value

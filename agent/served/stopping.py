"""A model whose work can be stopped from another thread, where nothing is half done: before it computes, not inside a record."""

import threading
from typing import Any

from neuronaut.tools.targets.base import TargetModel

_WORK = frozenset({"tokenize", "run", "branches", "gradients", "senders", "run_edges", "edge_gradients"})


class Stoppable:
    """A target model as another is, whose work raises KeyboardInterrupt once `stop` is set, as Ctrl-C does."""

    def __init__(self, target: TargetModel, stop: threading.Event) -> None:
        self._target, self._stop = target, stop

    @property
    def folder(self) -> Any:
        """Where its files lie: looked for on the class by checks of a protocol."""
        return self._target.folder  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if name in _WORK and self._stop.is_set():
            raise KeyboardInterrupt
        return getattr(self._target, name)

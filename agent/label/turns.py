"""Several units in work at once where a language model is asked: one computes, the others wait for replies."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from neuronaut.agent.llm.base import Heard, LanguageModel, Reply, Request

AT_ONCE = 8  # units in work, where replies are waited for

T = TypeVar("T")


@dataclass
class Turn:
    """Held by the one thread that computes."""

    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Compute inside."""
        with self._lock:
            yield

    @contextmanager
    def given_away(self) -> Iterator[None]:
        """Wait inside, while others compute."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()


@dataclass(frozen=True)
class Patient:
    """A language model that gives the turn away while it is waited for; else the one behind it."""

    model: LanguageModel
    turn: Turn

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """As the model does."""
        with self.turn.given_away():
            return self.model.ask(request, heard)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def in_turns(work: Callable[[T], None], items: Sequence[T], turn: Turn, at_once: int) -> None:
    """Calls `work` with each of the items, several at once, one of which computes. The first error is raised when those in
    work have ended; none is begun after it."""
    stopped = threading.Event()

    def one(item: T) -> None:
        with turn.mine():
            if stopped.is_set():
                return
            try:
                work(item)
            except BaseException:
                stopped.set()
                raise

    with ThreadPoolExecutor(max_workers=at_once) as pool:
        futures = [pool.submit(one, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stopped.set()
            raise

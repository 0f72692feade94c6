"""Several units in work at once where a language model is asked: one computes, the others wait for replies."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

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


class Patient:
    """A language model that gives the turn away while it is waited for."""

    def __init__(self, inner: LanguageModel, turn: Turn) -> None:
        self._inner, self._turn = inner, turn
        self.provider, self.model, self.source = inner.provider, inner.model, inner.source
        self.max_tokens, self.billed = inner.max_tokens, inner.billed

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """As the model does."""
        with self._turn.given_away():
            return self._inner.ask(request, heard)


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

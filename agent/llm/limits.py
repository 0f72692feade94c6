"""How many calls may be in flight at once: one more after a round that went well, half as many where a server is overloaded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

MOST = 8  # in flight; both services allow more, a local server rarely has more places
START = 4

_listener: ContextVar[Callable[[], None] | None] = ContextVar("overload", default=None)


@contextmanager
def told_of_overload(listener: Callable[[], None]) -> Iterator[None]:
    """While it is open, `listener` is called in this thread for each failure after which a call is sent again."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def overloaded() -> None:
    """Tell whoever listens that a server asked to be asked again later."""
    if (listener := _listener.get()) is not None:
        listener()


@dataclass
class Pace:
    """Additive increase, multiplicative decrease. A call shows with its ticket whether it began before the last decrease:
    those that were in flight together when the server was overloaded are one reason to go slower, not many."""

    most: int = MOST
    allowed: float = START
    cuts: int = 0

    @property
    def width(self) -> int:
        """How many calls may be in flight."""
        return max(1, min(self.most, int(self.allowed)))

    def ticket(self) -> int:
        """For a call that begins."""
        return self.cuts

    def went_well(self, ticket: int) -> None:
        """A call that began with this ticket was answered: as many of them as may be in flight allow one more."""
        if ticket == self.cuts:
            self.allowed = min(float(self.most), self.allowed + 1 / self.allowed)

    def too_fast(self, ticket: int) -> None:
        """A call that began with this ticket found the server overloaded."""
        if ticket == self.cuts:
            self.cuts, self.allowed = self.cuts + 1, max(1.0, min(self.most, self.allowed) / 2)

"""Labelling with models that live in workers: what a worker keeps, and what stands for it in the process that writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from neuronaut.agent.label.local import Contexts
from neuronaut.agent.remote import Described, Order, Refused, accepted, described, with_inputs
from neuronaut.memory.items import Item
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import Fingerprint
from neuronaut.tools.together import BatchContext
from neuronaut.tools.units import Unit

P = ParamSpec("P")
T = TypeVar("T")


class Spent(NamedTuple):
    """What a call took: forward passes, and what units share since they were taken (forward passes, seconds)."""

    forwards: float
    shared_forwards: float
    shared_seconds: float


class Reply(NamedTuple):
    """What a call gave, or the error that the work itself raised."""

    value: Any
    error: ToolFailed | UserError | None
    spent: Spent


class Taken(NamedTuple):
    """Where items are worked on: the units that are read together, the unit of each item, and whose weights they are."""

    units: tuple[Unit, ...]
    of_items: dict[str, Unit]
    fingerprint: Fingerprint


class Seat:
    """What a worker keeps: the contexts of a batch, and the one in hand. Each call gives None where it knows nothing of what
    was opened or taken, since it was made again."""

    def __init__(self) -> None:
        self._contexts: Contexts | None = None
        self._now: BatchContext | None = None

    def open(self, order: Order, seed: int) -> Described | Refused:
        """Open model and text for a batch of a seed."""
        return with_inputs(order, lambda context: self._open(context, seed))

    def _open(self, context: ToolContext, seed: int) -> Described:
        self._contexts = Contexts.of(context, seed)
        return described(context)

    def take(self, items: Sequence[Item], block: Sequence[Item]) -> Reply | None:
        """Go on with other items; the value is `Taken`."""
        if self._contexts is None:
            return None
        target, contexts = self._contexts.real.target, self._contexts

        def work() -> Taken:
            self._now, places = contexts.take(items, block)
            return Taken(self._now.units, places, self._now.target.fingerprint())

        return _reply(work, lambda: Spent(target.forwards, *self._shared()))

    def compute(self, work: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> Reply | None:
        """What `work(context, …)` gives in the context of the items in hand."""
        context = self._now
        if context is None:
            return None
        return _reply(lambda: work(context, *args, **options), lambda: Spent(context.target.forwards, *self._shared()))

    def _shared(self) -> tuple[float, float]:
        return (0.0, 0.0) if self._now is None else (self._now.shared_forwards, self._now.shared_seconds)


def _reply(work: Callable[[], Any], spent: Callable[[], Spent]) -> Reply:
    before, value, error = spent().forwards, None, None
    try:
        value = work()
    except (ToolFailed, UserError) as raised:
        error = raised
    now = spent()
    return Reply(value, error, now._replace(forwards=now.forwards - before))


class Calls(Protocol):
    """A `Seat` somewhere; raises what says that it died."""

    def __call__(self, method: str, *args: Any) -> Any: ...


@dataclass
class RemoteContext(BatchContext):
    """A context whose model is in a worker; it holds what is asked about, and what that took. Nothing is read here."""

    calls: Calls = field(kw_only=True, repr=False)
    described: Described = field(kw_only=True, repr=False)

    def compute(self, work: Callable[Concatenate[ToolContext, P], T], /, *args: P.args, **options: P.kwargs) -> T:
        """As ToolContext gives it, from the worker."""
        return cast(T, self.taken("compute", work, args, options))

    def taken(self, method: str, *args: Any) -> Any:
        """What a method of the seat gives or raises; what it took is counted."""
        reply = self.calls(method, *args)
        self.described.forwards += reply.spent.forwards
        self.shared_forwards, self.shared_seconds = reply.spent.shared_forwards, reply.spent.shared_seconds
        if reply.error is not None:
            raise reply.error
        return reply.value


@dataclass
class RemoteDesk:
    """A worker's seat where items are worked on."""

    context: RemoteContext

    @classmethod
    def of(cls, calls: Calls, order: Order, seed: int, corpus: Corpus) -> "RemoteDesk":
        """Over a seat in which the inputs are opened for it. Refuses what the worker cannot open, and other text."""
        found = accepted(calls("open", order, seed), order)
        found.check_corpus(corpus)
        return cls(RemoteContext(found.as_target, corpus, calls=calls, described=found))

    def take(self, items: Sequence[Item], block: Sequence[Item]) -> tuple[RemoteContext, dict[str, Unit]]:
        """As `Contexts` does it. What is planted or read for them counts as shared."""
        taken: Taken = self.context.taken("take", items, block)
        self.context.units, self.context.described.own = taken.units, taken.fingerprint
        return self.context, taken.of_items

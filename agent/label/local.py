"""The work on a batch: items are leased in groups that are read together, one is worked on after another."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from neuronaut.agent.label.nulls import planted_block
from neuronaut.agent.label.owner import LEASE_SECONDS, Leave, alive, asking_leave, heartbeat, own_name
from neuronaut.agent.label.screen import Screen
from neuronaut.agent.label.turns import AT_ONCE, in_turns
from neuronaut.agent.label.work import Bench, work_on
from neuronaut.memory.items import Item, LeaseLost
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.heap import trim
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.together import BatchContext
from neuronaut.tools.units import Unit

GROUP = 50  # items that are leased, and read, together
SMALLEST = 8  # where many workers share what is left: fewer units would pay too much for the passes that they share
SITES = 3  # that are read together: the comparison units of each take about 50 MiB on a text of 400,000 tokens
WAIT_SECONDS = 1.0  # between looks for items that others may give back


class Desk(Protocol):
    """Where items are worked on: here, or in a worker."""

    def take(self, items: Sequence[Item], block: Sequence[Item]) -> tuple[BatchContext, dict[str, Unit]]:
        """As `Contexts` does it."""
        ...


@dataclass
class Contexts:
    """The contexts in which items are worked on: one of the model as it is, one of a block of null units at a time."""

    real: BatchContext
    seed: int
    _block: tuple[str, BatchContext, dict[str, Unit]] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, context: ToolContext, seed: int) -> "Contexts":
        """Over a model and its text."""
        return cls(BatchContext(context.target, context.corpus, context.stored), seed)

    def take(self, items: Sequence[Item], block: Sequence[Item]) -> tuple[BatchContext, dict[str, Unit]]:
        """A context that reads some items together, and the unit of each by its id. block: all items of their block, where
        they are null units."""
        if items[0].null_kind is None:
            units = {item.id: Unit.parse(item.address) for item in items}
            self.real.take([unit.with_sign(1) for unit in units.values()])
            return self.real, units
        if self._block is None or self._block[0] != items[0].beside:
            self.real.take([Unit.parse(item.address) for item in block])
            self._block = (items[0].beside, *planted_block(self.real, block, self.seed))
            self.real.take(())
        _, context, places = self._block
        context.take([places[item.id] for item in items])
        return context, places


def work(bench: Bench, run: str, desk: Desk, screen: Screen) -> bool:
    """Work on the batch until nothing is left to do, or it should pause or stop. True where the person asked to stop."""
    with asking_leave() as leave:
        work_at(desk, bench, run, screen, leave)
        return bool(leave.asked)


def work_at(desk: Desk, bench: Bench, run: str, screen: Screen, leave: Leave, *, workers: int = 1) -> None:
    """The work of one of several workers at a desk of its own.

    Items that others hold are waited for, since these may die. What the desk raises is passed on; its items are given back.
    """
    notebook, owner = bench.notebook, own_name()
    with heartbeat(notebook, run, owner):
        while not leave.asked and notebook.wanted(run) == "go":
            now, limit = time.time(), _so_many(notebook, run, workers)
            items = notebook.lease(run, owner, now=now, until=now + LEASE_SECONDS, limit=limit, alive=alive)
            if items:
                _group(bench, items, desk, screen, leave)
                notebook.release(run, owner)
            elif unfinished(notebook, run):
                screen.waits()
                time.sleep(WAIT_SECONDS)
            else:
                break


def unfinished(notebook: Notebook, run: str) -> bool:
    """Whether any item of a batch waits or is worked on."""
    return any(state in ("waiting", "leased") for state, _ in notebook.item_counts(run))


def _so_many(notebook: Notebook, run: str, workers: int) -> int:
    """Items to lease: fewer towards the end, so that all workers end together."""
    if workers == 1:
        return GROUP
    waiting = sum(n for (state, _), n in notebook.item_counts(run).items() if state == "waiting")
    return max(SMALLEST, min(GROUP, waiting // (2 * workers)))


def _group(bench: Bench, items: Sequence[Item], desk: Desk, screen: Screen, leave: Leave) -> None:
    block = bench.notebook.items_beside(items[0].run, items[0].beside) if items[0].null_kind else []
    for some in near(items):
        if not leave.asked:
            _together(bench, some, desk.take(some, block), screen, leave)


def near(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The items in parts of few sites, in the order of these: comparison units are kept of each site that is read."""
    sites: dict[tuple[int, str], list[Item]] = {}
    for item in items:
        unit = Unit.parse(item.address)
        sites.setdefault((unit.layer, unit.name), []).append(item)
    rising = [sites[site] for site in sorted(sites)]
    for at in range(0, len(rising), SITES):
        yield [item for some in rising[at : at + SITES] for item in some]


def _together(
    bench: Bench,
    items: Sequence[Item],
    taken: tuple[BatchContext, dict[str, Unit]],
    screen: Screen,
    leave: Leave,
) -> None:
    """The work on items that are read together."""
    context, units = taken

    def one(item: Item) -> None:
        if leave.asked or bench.notebook.wanted(item.run) != "go":
            return
        screen.begins(item)
        try:
            screen.ended(work_on(bench, item, units[item.id], context))
        except LeaseLost as error:
            bench.say("lease", f"{error}; it is left to that one")
        trim()

    if bench.turn is None:
        for item in items:
            one(item)
    else:
        in_turns(one, items, bench.turn, AT_ONCE)

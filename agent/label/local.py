"""Labelling in this process: items are leased in groups that are read together, one is worked on after another."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from neuronaut.agent.label.nulls import planted_block
from neuronaut.agent.label.owner import LEASE_SECONDS, Leave, alive, asking_leave, heartbeat, own_name
from neuronaut.agent.label.screen import Screen
from neuronaut.agent.label.turns import AT_ONCE, in_turns
from neuronaut.agent.label.work import Bench, work_on
from neuronaut.memory.items import Item, LeaseLost
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.together import BatchContext
from neuronaut.tools.units import Unit

GROUP = 50  # items that are leased, and read, together
WAIT_SECONDS = 1.0  # between looks for items that others may give back


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
        _, context, places = self._block
        context.take([places[item.id] for item in items])
        return context, places


def work(bench: Bench, run: str, contexts: Contexts, screen: Screen) -> bool:
    """Work on the batch until nothing is left to do, or it should pause or stop. True where the person asked to stop.

    Items that other processes hold are waited for, since these may die.
    """
    notebook, owner = bench.notebook, own_name()
    with asking_leave() as leave, heartbeat(notebook, run, owner):
        while not leave.asked and notebook.wanted(run) == "go":
            now = time.time()
            items = notebook.lease(run, owner, now=now, until=now + LEASE_SECONDS, limit=GROUP, alive=alive)
            if items:
                _group(bench, items, contexts, screen, leave)
                notebook.release(run, owner)
            elif notebook.items(run, "leased", "waiting"):
                screen.waits()
                time.sleep(WAIT_SECONDS)
            else:
                break
        return bool(leave.asked)


def _group(bench: Bench, items: Sequence[Item], contexts: Contexts, screen: Screen, leave: Leave) -> None:
    block = bench.notebook.items_beside(items[0].run, items[0].beside) if items[0].null_kind else []
    context, units = contexts.take(items, block)

    def one(item: Item) -> None:
        if leave.asked or bench.notebook.wanted(item.run) != "go":
            return
        screen.begins(item)
        try:
            screen.ended(work_on(bench, item, units[item.id], context))
        except LeaseLost as error:
            bench.say("lease", f"{error}; it is left to that one")

    if bench.turn is None:
        for item in items:
            one(item)
    else:
        in_turns(one, items, bench.turn, AT_ONCE)

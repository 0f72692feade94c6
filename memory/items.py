"""Items of a batch: who works on which unit until when, and how it ended.

These rows change, unlike records: what is found out about a unit stands in the run that `asked` names, whose rows are only
added. An item that was worked on twice has still one run, in which nothing finished is done again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.store import Store, new_id

State = Literal["waiting", "leased", "done", "failed", "skipped"]
Wanted = Literal["go", "pause", "stop"]
TRIES = 3  # without a finished experiment between them, until an item counts as poisoned


class LeaseLost(Exception):
    """Another worker has the item now: this one was silent for too long."""


@dataclass(frozen=True)
class Item:
    """A unit to be labelled. null_kind: of a planted null unit, which takes the values of the unit at the address."""

    id: str
    run: str
    rank: int
    address: str
    null_kind: str | None
    beside: str
    state: State
    attempt: int
    steps: int
    owner: str | None
    lease_until: float | None
    asked: str | None
    reason: str | None


class Items(Store):
    """The items of batches, and what their workers should do."""

    def add_items(self, run: str, items: Iterable[tuple[str, str | None, str]]) -> None:
        """The items of a new batch in order: (address, null kind, what they are read beside)."""
        begun = {"state": "waiting", "attempt": 0, "steps": 0}
        rows = [
            {"id": new_id(), "run": run, "rank": rank, "address": address, "null_kind": null, "beside": beside, **begun}
            for rank, (address, null, beside) in enumerate(items)
        ]
        with self._writing():
            self._db.execute(schema.batch.insert().values(run=run, wanted="go"))
            self._db.execute(schema.item.insert(), rows)

    def wanted(self, run: str) -> Wanted | None:
        """What the workers of a batch should do; None where the run is no batch."""
        rows = self.rows(sa.select(schema.batch.c.wanted).where(schema.batch.c.run == run))
        return rows[0]["wanted"] if rows else None

    def want(self, run: str, wanted: Wanted) -> None:
        """Tell the workers of a batch to go on, to pause or to stop after the item in hand."""
        with self._writing():
            self._db.execute(schema.batch.update().where(schema.batch.c.run == run).values(wanted=wanted))

    def lease(
        self, run: str, owner: str, *, now: float, until: float, limit: int, alive: Callable[[str], bool]
    ) -> list[Item]:
        """Take up to `limit` waiting items that are read together, first those whose leases ran out or whose owners are
        not alive; none where nothing waits, or the workers should not go on. now, until: seconds since 1970."""
        i = schema.item.c
        with self._writing():
            if self.wanted(run) != "go":
                return []
            self._take_back(run, owner, now, alive)
            waiting = sa.select(schema.item).where(i.run == run, i.state == "waiting")
            first = self._db.execute(waiting.order_by(i.rank).limit(1)).mappings().first()
            if first is None:
                return []
            beside = waiting.where(i.beside == first["beside"]).order_by(i.rank).limit(limit)
            rows = [dict(row) for row in self._db.execute(beside).mappings()]
            held = {"state": "leased", "owner": owner, "lease_until": until}
            self._db.execute(schema.item.update().where(i.id.in_([row["id"] for row in rows])).values(held))
            return [Item(**(row | held)) for row in rows]

    def _take_back(self, run: str, owner: str, now: float, alive: Callable[[str], bool]) -> None:
        i = schema.item.c
        leased = (i.run == run, i.state == "leased")
        late = sa.select(i.owner, sa.func.min(i.lease_until).label("until")).where(*leased).group_by(i.owner)
        gone = [o for o, until in self._db.execute(late) if o != owner and (until < now or not alive(str(o)))]
        if gone:
            self._db.execute(schema.item.update().where(*leased, i.owner.in_(gone)).values(_free("waiting")))

    def extend(self, run: str, owner: str, until: float) -> None:
        """The worker is alive: its leases last longer."""
        i = schema.item.c
        with self._writing():
            mine = schema.item.update().where(i.run == run, i.state == "leased", i.owner == owner)
            self._db.execute(mine.values(lease_until=until))

    def release(self, run: str, owner: str) -> None:
        """Give back what was leased and not worked on."""
        i = schema.item.c
        with self._writing():
            mine = schema.item.update().where(i.run == run, i.state == "leased", i.owner == owner)
            self._db.execute(mine.values(_free("waiting")))

    def begin_item(self, item: Item, asked: str) -> int:
        """Note that its owner begins to work on an item, in the run `asked`; which try in a row it is without a finished
        experiment between them. Raises LeaseLost where another has it now."""
        with self._writing():
            row = self._held(item)
            e, end = schema.experiment, schema.experiment_end
            done = sa.select(sa.func.count()).select_from(e.join(end, end.c.experiment == e.c.id))
            steps = int(self._db.execute(done.where(e.c.run == asked, end.c.outcome == "ok")).scalar_one())
            attempt = 1 if steps > row["steps"] else int(row["attempt"]) + 1
            self._update(item, {"asked": asked, "attempt": attempt, "steps": steps})
            return attempt

    def end_item(self, item: Item, state: State, reason: str | None = None) -> None:
        """How an item ended, or that it waits again. Raises LeaseLost where another has it now."""
        with self._writing():
            self._held(item)
            self._update(item, _free(state) | {"reason": reason})

    def retry(self, run: str) -> int:
        """Failed items wait again, with all their tries; how many."""
        i = schema.item.c
        with self._writing():
            again = _free("waiting") | {"reason": None, "attempt": 0}
            failed = schema.item.update().where(i.run == run, i.state == "failed")
            return int(self._db.execute(failed.values(again)).rowcount)

    def _held(self, item: Item) -> Mapping[str, Any]:
        row = self._db.execute(sa.select(schema.item).where(schema.item.c.id == item.id)).mappings().one()
        if row["state"] != "leased" or row["owner"] != item.owner:
            raise LeaseLost(f"item {item.address} was taken over by another worker")
        return dict(row)

    def _update(self, item: Item, values: Mapping[str, Any]) -> None:
        self._db.execute(schema.item.update().where(schema.item.c.id == item.id).values(dict(values)))

    # Reading

    def items(self, run: str, *states: State) -> list[Item]:
        """The items of a batch in order, all or those in some states."""
        i = schema.item.c
        statement = sa.select(schema.item).where(i.run == run)
        statement = statement.where(i.state.in_(states)) if states else statement
        return [Item(**row) for row in self.rows(statement.order_by(i.rank))]

    def items_by_id(self, ids: Sequence[str]) -> list[Item]:
        """Some items, in the order of their ranks."""
        i = schema.item.c
        return [Item(**row) for row in self.rows(sa.select(schema.item).where(i.id.in_(ids)).order_by(i.rank))]

    def items_beside(self, run: str, beside: str) -> list[Item]:
        """All items of a batch that are read together, in the order of their ranks."""
        i = schema.item.c
        found = self.rows(sa.select(schema.item).where(i.run == run, i.beside == beside).order_by(i.rank))
        return [Item(**row) for row in found]

    def asked_for(self, run: str) -> list[str]:
        """The runs that answer for the items of a batch; none where the run is no batch."""
        i = schema.item.c
        where = (i.run == run, i.asked.is_not(None))
        return [str(row["asked"]) for row in self.rows(sa.select(i.asked).where(*where).order_by(i.rank))]

    def item_counts(self, run: str) -> dict[tuple[State, bool], int]:
        """How many items of a batch are in each state, null units apart: (state, whether null)."""
        i = schema.item.c
        null = i.null_kind.is_not(None)
        statement = sa.select(i.state, null.label("null"), sa.func.count().label("n")).where(i.run == run)
        return {
            (row["state"], bool(row["null"])): int(row["n"]) for row in self.rows(statement.group_by(i.state, null))
        }


def _free(state: State) -> dict[str, Any]:
    return {"state": state, "owner": None, "lease_until": None}

"""Language-model calls and batches of them as rows: an intent before anything is sent, an end after."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.items import Items
from neuronaut.memory.store import new_id, now


class Calls(Items):
    """What is recorded of language-model calls; a call without an end was killed, or waits in a batch."""

    def begin_call(self, run: str, row: Mapping[str, Any]) -> str:
        """The intent of a call (purpose, provider, model, request, request_sha256, about), committed before it is sent.

        Where the same request was begun and never ended (the process was killed), it may be billed twice: it is marked.
        """
        with self._writing():
            return self._begin_call(run, row)

    def _begin_call(self, run: str, row: Mapping[str, Any]) -> str:
        c, end = schema.llm_call, schema.llm_call_end
        begun = sa.select(c.c.id).outerjoin(end, end.c.call == c.c.id).where(end.c.id.is_(None))
        same = begun.where(c.c.request_sha256 == row["request_sha256"]).order_by(c.c.id.desc()).limit(1)
        lost = self._db.execute(same).scalar()
        return self._insert(c, {"id": new_id(), "run": run, **dict(row), "maybe_billed_twice": lost})

    def end_call(self, call: str, row: Mapping[str, Any]) -> None:
        """The reply or the error of a call."""
        with self._writing():
            self._insert(schema.llm_call_end, {"id": new_id(), "call": call, **dict(row)})

    def begin_batch(
        self, run: str, row: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]
    ) -> tuple[str, tuple[str, ...]]:
        """The intent of a batch (provider, model, source) and of each of its calls, committed together before it is sent."""
        with self._writing():
            batch = self._insert(schema.llm_batch, {"id": new_id(), "run": run, **dict(row), "created": now()})
            return batch, tuple(self._begin_call(run, {**dict(call), "batch": batch}) for call in calls)

    def sent_batch(self, batch: str, remote: str) -> None:
        """The provider took the batch and calls it `remote`."""
        with self._writing():
            self._insert(schema.llm_batch_sent, {"id": new_id(), "batch": batch, "remote": remote, "sent": now()})

    def end_batch(self, batch: str, outcome: str, reason: str, ends: Mapping[str, Mapping[str, Any]]) -> None:
        """How a batch ended (ended, failed, expired, cancelled, not sent), with the end of each call, by its id, at once."""
        with self._writing():
            for call, row in ends.items():
                self._insert(schema.llm_call_end, {"id": new_id(), "call": call, **dict(row)})
            row = {"id": new_id(), "batch": batch, "outcome": outcome, "reason": reason, "ended": now()}
            self._insert(schema.llm_batch_end, row)

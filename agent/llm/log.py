"""Language-model calls as rows of the notebook."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from neuronaut.agent.llm.base import COMPLETE, COUNTS, Call, LanguageModel, Reply
from neuronaut.agent.llm.batch_log import End, Intent
from neuronaut.agent.llm.budget import Budget
from neuronaut.agent.session import Session
from neuronaut.memory import queries
from neuronaut.memory.ledger import canonical


@dataclass
class NotebookLog:
    """The calls of one run. A call that was begun and never ended (the process was killed) may have been billed."""

    session: Session

    def begin_call(
        self, purpose: str, model: LanguageModel, request: dict[str, Any], request_sha256: str, about: str | None = None
    ) -> str:
        """The id of the intent, committed before anything is sent; says so where it repeats one that never ended."""
        row = _intent(purpose, model, request, request_sha256, about)
        call = self.session.notebook.begin_call(self.session.run, row)
        self._say_twice([call])
        return call

    def _say_twice(self, begun: Collection[str]) -> None:
        """Say which of the calls repeat one that was begun and never ended."""
        for lost in queries.repeated(self.session.notebook, begun).values():
            self.session.say("model", f"maybe billed twice: call {lost} was begun and never ended, it is sent again")

    def say(self, line: str) -> None:
        """Show a line beside the steps of the run: after each call, what has been spent."""
        self.session.say("model", line)

    def end_call(
        self, call: str, *, reply: Reply | None, error: str | None, usd_micro: int | None, seconds: float
    ) -> None:
        """Record the reply or the error."""
        self.session.notebook.end_call(call, end_row(reply, error, usd_micro, seconds))

    def earlier_reply(self, request_sha256: str) -> Reply | None:
        """The complete reply that the same request got before, in any run of the notebook."""
        row = queries.earlier_reply(self.session.notebook, request_sha256, COMPLETE)
        return None if row is None else _reply(row)

    def _calls(self) -> list[dict[str, Any]]:
        """Those of the run, and where it is a conversation or a batch those of the runs inside it."""
        notebook, run = self.session.notebook, self.session.run
        inside = [*queries.runs_inside(notebook, run), *notebook.asked_for(run)]
        return [call for one in (run, *inside) for call in queries.calls(notebook, one)]

    def n_replies(self) -> int:
        """How many replies this run has got."""
        return sum(call["end"] is not None and call["end"]["response"] is not None for call in self._calls())

    def count(self, budget: Budget, model: LanguageModel, *, counted: bool = False) -> None:
        """Add to the budget what this run spent before it was resumed; what waits in a batch is held. counted: by the
        conversation that it is inside, and now by what it is about."""
        waiting = {call["id"] for batch in self.batches() if batch["remote"] for call in batch["calls"]}
        for call in self._calls():
            end, batch, body = call["end"], call["batch"] is not None, json.loads(call["request"])
            held = budget.begun(model, body, about=call["about"], batch=batch, counted=counted)
            if end is None and call["id"] in waiting:
                budget.open[call["id"]] = held
            elif end is not None and end["response"] is None and end["usd_micro"] == 0:
                budget.release(held)
            else:
                budget.settle(held, model, _reply(end) if end and end["response"] is not None else None)

    def begin_batch(self, model: LanguageModel, items: Sequence[Intent]) -> tuple[str, tuple[str, ...]]:
        """The ids of a batch and of its calls, committed together before anything is sent."""
        rows = [_intent(one.purpose, model, one.request, one.sha256, one.about) for one in items]
        row = {"provider": model.provider, "model": model.model, "source": model.source}
        batch, calls = self.session.notebook.begin_batch(self.session.run, row, rows)
        self._say_twice(calls)
        return batch, calls

    def sent_batch(self, batch: str, remote: str) -> None:
        """The service took the batch and calls it `remote`."""
        self.session.notebook.sent_batch(batch, remote)

    def end_batch(self, batch: str, outcome: str, reason: str, ends: dict[str, End]) -> None:
        """The batch ended, and each of its calls that had not."""
        self.session.notebook.end_batch(batch, outcome, reason, {call: _batch_end(end) for call, end in ends.items()})

    def reply_of(self, call: dict[str, Any]) -> Reply | None:
        """The reply of a stored call; None for one that failed."""
        return None if call["end"]["response"] is None else _reply(call["end"])

    def batches(self) -> list[dict[str, Any]]:
        """The batches of the run, with their calls."""
        return queries.batches(self.session.notebook, self.session.run)


def _intent(
    purpose: str, model: LanguageModel, request: dict[str, Any], request_sha256: str, about: str | None
) -> dict[str, Any]:
    row = {"purpose": purpose, "provider": model.provider, "model": model.model, "request": canonical(request)}
    return row | {"request_sha256": request_sha256, "about": about}


def end_row(reply: Reply | None, error: str | None, usd_micro: int | None, seconds: float) -> dict[str, Any]:
    """The end of a call, as it is stored."""
    row: dict[str, Any] = {"error": error, "usd_micro": usd_micro, "seconds": seconds}
    if reply is not None:
        row |= {"answered_by": reply.model, "response": reply.text, "stop_reason": reply.stop_reason}
        row |= {name: getattr(reply, name) for name in COUNTS}
        row["calls"] = canonical([asdict(one) for one in reply.calls]) if reply.calls else None
    return row


def _batch_end(end: End) -> dict[str, Any]:
    """The end of an item of a batch: how long it took is not known, and a failure is stored with its kind."""
    if isinstance(end.outcome, Reply):
        return end_row(end.outcome, None, end.usd_micro, 0.0)
    return end_row(None, end.outcome.message, end.usd_micro, 0.0) | {"stop_reason": end.outcome.state}


def _reply(end: dict[str, Any]) -> Reply:
    calls = tuple(Call(**one) for one in json.loads(end["calls"] or "[]"))
    counts = {name: end[name] for name in COUNTS}
    return Reply(end["response"], end["answered_by"], end["stop_reason"], calls=calls, **counts)

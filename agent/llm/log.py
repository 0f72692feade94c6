"""Language-model calls as rows of the notebook."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from neuronaut.agent.llm.base import COMPLETE, Call, LanguageModel, Reply
from neuronaut.agent.llm.budget import Budget
from neuronaut.agent.session import Session
from neuronaut.memory import queries
from neuronaut.memory.ledger import canonical


@dataclass
class NotebookLog:
    """The calls of one run. A call that was begun and never ended (the process was killed) may have been billed."""

    session: Session

    def begin_call(self, purpose: str, model: LanguageModel, request: dict[str, Any], request_sha256: str) -> str:
        """The id of the intent, committed before anything is sent; says so where it repeats one that never ended."""
        row = {"purpose": purpose, "provider": model.provider, "model": model.model, "request": canonical(request)}
        call = self.session.notebook.begin_call(self.session.run, {**row, "request_sha256": request_sha256})
        for stored in queries.calls(self.session.notebook, self.session.run):
            if stored["id"] == call and stored["maybe_billed_twice"]:
                lost = stored["maybe_billed_twice"]
                self.session.say(
                    "model", f"maybe billed twice: call {lost} was begun and never ended, it is sent again"
                )
        return call

    def end_call(
        self, call: str, *, reply: Reply | None, error: str | None, usd_micro: int | None, seconds: float
    ) -> None:
        """Record the reply or the error."""
        row: dict[str, Any] = {"error": error, "usd_micro": usd_micro, "seconds": seconds}
        if reply is not None:
            row |= {"answered_by": reply.model, "response": reply.text, "stop_reason": reply.stop_reason}
            row |= {"tokens_in": reply.tokens_in, "tokens_cached": reply.tokens_cached, "tokens_out": reply.tokens_out}
            row["calls"] = canonical([asdict(one) for one in reply.calls]) if reply.calls else None
        self.session.notebook.end_call(call, row)

    def earlier_reply(self, request_sha256: str) -> Reply | None:
        """The complete reply that the same request got before, in any run of the notebook."""
        row = queries.earlier_reply(self.session.notebook, request_sha256, COMPLETE)
        return None if row is None else _reply(row)

    def n_replies(self) -> int:
        """How many replies this run has got."""
        calls = queries.calls(self.session.notebook, self.session.run)
        return sum(call["end"] is not None and call["end"]["response"] is not None for call in calls)

    def count(self, budget: Budget, model: LanguageModel) -> None:
        """Add to the budget what this run spent before it was resumed."""
        for call in queries.calls(self.session.notebook, self.session.run):
            end = call["end"]
            if end is None or end["response"] is not None or end["usd_micro"] is None:
                budget.add(
                    model, json.loads(call["request"]), _reply(end) if end and end["response"] is not None else None
                )


def _reply(end: dict[str, Any]) -> Reply:
    counts = (end["tokens_in"], end["tokens_cached"], end["tokens_out"])
    calls = tuple(Call(**one) for one in json.loads(end["calls"] or "[]"))
    return Reply(end["response"], end["answered_by"], end["stop_reason"], *counts, calls)

"""One-shot requests in batches, at the batch price: handed over, collected later, also by a resumed run; none lost, none doubled."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from neuronaut.agent.llm.anthropic import AnthropicModel
from neuronaut.agent.llm.base import LanguageModelError, OutOfBudget, Reply, Request
from neuronaut.agent.llm.batch_log import BatchLog, End, Failure, Intent, Row
from neuronaut.agent.llm.batch_services import BatchService, Progress
from neuronaut.agent.llm.budget import Held
from neuronaut.agent.llm.calls import Calls, NoReply, storable, whole
from neuronaut.agent.llm.counting import counted
from neuronaut.agent.llm.openai import OpenAIModel
from neuronaut.tools.errors import UserError

MOST = 1_000  # items of one batch; the services take at least 50,000, whose results would not fit in memory
FIRST, LONGEST = 5.0, 60.0  # seconds between two looks at a batch
GIVEN_UP = 10  # looks that fail one after the other


@dataclass(frozen=True)
class Batch:
    """What was handed over: for each request a reply that was known, the id of its call, or why it was not sent."""

    answers: tuple[Reply | str | OutOfBudget, ...]


@dataclass
class Batches:
    """Hands requests to the batch service of a language model, within its budget."""

    calls: Calls
    service: BatchService
    log: BatchLog
    sleep: Callable[[float], None] = time.sleep

    def submit(
        self, requests: Sequence[Request], about: Sequence[str | None] | None = None, *, again: bool = False
    ) -> Batch:
        """Hand over all requests that this run has not yet handed over and the notebook has no reply to.

        An item that failed is not sent again by the same run; `again`: it is. One that was begun and never handed over (the
        process was killed) is sent again, and recorded as maybe billed twice.
        """
        sent = [call for row in self.log.batches() if row["remote"] for call in row["calls"]]
        known = {call["request_sha256"]: call["id"] for call in sent if not (again and self._failed(call))}
        places: list[Reply | str | OutOfBudget | None] = []
        new: dict[str, tuple[Request, Held, str | None]] = {}
        refused: dict[str, OutOfBudget] = {}
        shas = [self.calls.sha256(request) for request in requests]
        for request, sha256, unit in zip(requests, shas, about or [None] * len(requests), strict=True):
            place = known.get(sha256) or self.log.earlier_reply(sha256) or refused.get(sha256)
            places.append(place)
            if place is None and sha256 not in new:
                try:
                    held = self.calls.budget.reserve(self.calls.model, request, about=unit, batch=True)
                    new[sha256] = (replace(request, max_tokens=held.max_tokens), held, unit)
                except OutOfBudget as error:
                    places[-1] = refused[sha256] = error
        items = list(new.items())
        for at in range(0, len(items), MOST):
            known |= self._hand_over(dict(items[at : at + MOST]))
        return Batch(
            tuple(known[sha256] if place is None else place for place, sha256 in zip(places, shas, strict=True))
        )

    def _hand_over(self, items: dict[str, tuple[Request, Held, str | None]]) -> dict[str, str]:
        """The ids of the calls of one new batch, by the hashes of their requests."""
        intents = [Intent(r.purpose, self.calls.body(r), sha, unit) for sha, (r, _, unit) in items.items()]
        batch, calls = self.log.begin_batch(self.calls.model, intents)
        self.calls.budget.open |= {call: held for call, (_, held, _) in zip(calls, items.values(), strict=True)}
        sent = [(call, request) for call, (request, _, _) in zip(calls, items.values(), strict=True)]
        try:
            remote = self.service.create(sent)
        except (LanguageModelError, UserError) as error:
            lost = isinstance(error, LanguageModelError) and error.maybe_billed
            failure = Failure("failed", str(error), billed=lost)
            ends = {call: self._end(call, failure) for call in calls}
            self.log.end_batch(batch, "failed" if lost else "not sent", str(error), ends)
            if isinstance(error, UserError):
                raise
        else:
            self.log.sent_batch(batch, remote)
            self.log.say(f"batch {remote}: {len(calls):,} requests were handed over")
        return dict(zip(items, calls, strict=True))

    def collect(self, batch: Batch) -> list[Reply | NoReply | OutOfBudget]:
        """Wait until all is answered. For each request its whole reply, or why there is none, in their order."""
        wanted = {answer for answer in batch.answers if isinstance(answer, str)}
        for row in self.log.batches():
            if row["remote"] and row["end"] is None and wanted & {call["id"] for call in row["calls"]}:
                self._collect(row)
        ended = {call["id"]: call for row in self.log.batches() for call in row["calls"]}
        return [self._answer(ended[one]) if isinstance(one, str) else one for one in batch.answers]

    def _collect(self, row: Row) -> None:
        """Wait for one batch, and record what came of each of its items at once."""
        progress = self._waited(row["remote"], len(row["calls"]))
        ended = progress.ended or "ended"
        missing = Failure(
            "expired" if ended == "expired" else "cancelled" if ended == "cancelled" else "failed",
            f"the batch {ended} without this request" + (f": {progress.reason}" if progress.reason else ""),
            billed=ended == "ended",
        )
        found: dict[str, Reply | Failure] = {}
        for item, outcome in self.service.results(row["remote"], progress) if ended != "failed" else ():
            found.setdefault(item, storable(outcome) if isinstance(outcome, Reply) else outcome)
        waiting = [call["id"] for call in row["calls"] if call["end"] is None]
        ends = {call: self._end(call, found.get(call, missing)) for call in waiting}
        self.log.end_batch(row["id"], ended, progress.reason, ends)
        self.log.say(self.calls.budget.line())

    def _waited(self, remote: str, n: int) -> Progress:
        """The progress of a batch that ended."""
        wait, failed, answered = FIRST, 0, -1
        while True:
            try:
                progress, failed = self.service.progress(remote), 0
            except LanguageModelError as error:
                failed += 1
                if failed == GIVEN_UP:
                    raise UserError(
                        f"batch {remote} cannot be looked at ({error}): `neuronaut resume` collects it"
                    ) from None
            else:
                if progress.ended is not None:
                    return progress
                if progress.answered != answered:
                    answered = progress.answered
                    self.log.say(f"batch {remote}: {answered:,} of {n:,} answered")
            self.sleep(wait)
            wait = min(LONGEST, wait * 1.5)

    def _end(self, call: str, outcome: Reply | Failure) -> End:
        held, budget = self.calls.budget.open.pop(call), self.calls.budget
        if isinstance(outcome, Failure) and not outcome.billed:
            budget.release(held)
            return End(outcome, 0)
        if isinstance(outcome, Reply):
            outcome = counted(outcome, held.body)
        reply = outcome if isinstance(outcome, Reply) else None
        return End(outcome, budget.settle(held, self.calls.model, reply))

    def _failed(self, call: Row) -> bool:
        return call["end"] is not None and isinstance(self._answer(call), NoReply)

    def _answer(self, call: Row) -> Reply | NoReply:
        reply = self.log.reply_of(call)
        if reply is None:
            return NoReply(call["end"]["error"], call["end"]["stop_reason"] or "failed")
        try:
            return whole(reply)
        except NoReply as error:
            return error


def batches_of(calls: Calls, log: BatchLog) -> Batches:
    """The batches of the service behind a language model. Refuses one that has none."""
    model = calls.model
    if isinstance(model, OpenAIModel | AnthropicModel):
        return Batches(calls, model.batches(), log)
    raise UserError(f"{model.provider}:{model.model} has no batches: only openai and anthropic have them")

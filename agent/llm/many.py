"""Many independent requests at once: rows are written by one thread, in the order of the requests; others only wait for replies."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Generic, Literal, TypeVar

from neuronaut.agent.llm.base import LanguageModelError, OutOfBudget, Reply, Request
from neuronaut.agent.llm.budget import Later
from neuronaut.agent.llm.calls import Begun, Calls, Malformed, NoReply, Outcome, whole
from neuronaut.agent.llm.limits import Pace, told_of_overload
from neuronaut.tools.errors import UserError

R = TypeVar("R")


@dataclass(frozen=True)
class Job:
    """A request that is still to be asked, and the places in the list that its answer goes to."""

    request: Request
    places: tuple[int, ...]
    about: str | None
    mended: bool = False


@dataclass(frozen=True)
class Landed:
    """What came back of a call, from the thread that waited for it; "overload" before the call is sent again, "bug" where
    that thread crashed."""

    number: int
    outcome: Outcome | Literal["overload", "bug"]


@dataclass
class Many(Generic[R]):
    """Answers in the order of the requests. A call is begun only while the pace and what others hold of the budget allow it."""

    calls: Calls
    pace: Pace
    read: Callable[[str], R]
    mend: Callable[[Request, str], Request]
    answers: dict[int, R | NoReply | OutOfBudget] = field(default_factory=dict)
    _waiting: deque[Job] = field(default_factory=deque)
    _flying: dict[int, tuple[Job, Begun, int]] = field(default_factory=dict)
    _landed: "SimpleQueue[Landed]" = field(default_factory=SimpleQueue)
    _begun: int = 0

    def ask(self, requests: Sequence[Request], about: Sequence[str | None]) -> list[R | NoReply | OutOfBudget]:
        """All answers. Where only the user can mend it (a refused key), what is in flight is waited for, then that is raised."""
        same: dict[str, Job] = {}
        for place, (request, unit) in enumerate(zip(requests, about, strict=True)):
            job = same.setdefault(self.calls.sha256(request), Job(request, (), unit))
            same[self.calls.sha256(request)] = replace(job, places=(*job.places, place))
        self._waiting.extend(same.values())
        stopped: UserError | None = None
        while self._waiting or self._flying:
            while self._waiting and len(self._flying) < self.pace.width and self._begin(self._waiting[0]):
                pass
            if self._flying:
                try:
                    self._land(self._landed.get())
                except UserError as error:
                    stopped = error
                    self._waiting.clear()
        if stopped is not None:
            raise stopped
        return [self.answers[place] for place in range(len(requests))]

    def _begin(self, job: Job) -> bool:
        """Take the first job; False where it must wait for what others hold."""
        if (earlier := self.calls.earlier(job.request)) is not None:
            self._waiting.popleft()
            self._answer(job, earlier)
            return True
        try:
            begun = self.calls.begin(job.request, job.about, patient=bool(self._flying))
        except Later:
            return False
        except OutOfBudget as error:
            self._waiting.popleft()
            self._give(job, error)
            return True
        self._waiting.popleft()
        self._begun += 1
        self._flying[self._begun] = (job, begun, self.pace.ticket())
        threading.Thread(target=self._send, args=(self._begun, begun), daemon=True).start()
        return True

    def _send(self, number: int, begun: Begun) -> None:
        landed = Landed(number, "bug")
        try:
            with told_of_overload(lambda: self._landed.put(Landed(number, "overload"))):
                landed = Landed(number, self.calls.send(begun))
        finally:
            self._landed.put(landed)

    def _land(self, landed: Landed) -> None:
        if landed.outcome == "bug":
            raise RuntimeError("the thread that waited for a reply crashed")
        if landed.outcome == "overload":
            self.pace.too_fast(self._flying[landed.number][2])
            return
        job, begun, ticket = self._flying.pop(landed.number)
        if isinstance(landed.outcome, Reply):
            self.pace.went_well(ticket)
        elif isinstance(landed.outcome, LanguageModelError) and landed.outcome.again_after is not None:
            self.pace.too_fast(ticket)
        try:
            reply = self.calls.end(begun, landed.outcome)
        except NoReply as error:
            self._give(job, error)
        else:
            self._answer(job, reply)

    def _answer(self, job: Job, reply: Reply) -> None:
        try:
            self._give(job, self.read(whole(reply).text))
        except NoReply as error:
            self._give(job, error)
        except Malformed as error:
            if job.mended:
                self._give(job, NoReply(f"two replies could not be used: {error}", "malformed"))
            else:
                self._waiting.appendleft(replace(job, request=self.mend(job.request, str(error)), mended=True))

    def _give(self, job: Job, answer: R | NoReply | OutOfBudget) -> None:
        self.answers |= dict.fromkeys(job.places, answer)

"""The one way to a language model: budget before each call, a row for every intent and every reply, one repair turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from neuronaut.agent.llm.base import Heard, OutOfBudget, Reply, Request
from neuronaut.agent.llm.calls import CallLog as CallLog
from neuronaut.agent.llm.calls import Calls, whole
from neuronaut.agent.llm.calls import Malformed as Malformed
from neuronaut.agent.llm.calls import NoReply as NoReply
from neuronaut.agent.llm.limits import Pace
from neuronaut.agent.llm.many import Many
from neuronaut.prompts import render

R = TypeVar("R")


@dataclass
class Gateway(Calls):
    """Asks one language model within its budget. `about` names the unit, or the run of a question without one, whose own
    limits a call is counted under as well.

    Each way to ask raises NoReply, OutOfBudget (nothing sent), or UserError where only the user can mend it.
    """

    pace: Pace = field(default_factory=Pace)

    def ask(
        self, request: Request, read: Callable[[str], R], heard: Heard | None = None, *, about: str | None = None
    ) -> R:
        """What `read` makes of the reply; where it finds the reply Malformed, of a second one to the mended request."""
        try:
            return read(self.converse(request, heard, about=about).text)
        except Malformed as error:
            request = mended(request, str(error))
        try:
            return read(self.converse(request, heard, about=about).text)
        except Malformed as error:
            raise NoReply(f"two replies could not be used: {error}", "malformed") from None

    def converse(self, request: Request, heard: Heard | None = None, *, about: str | None = None) -> Reply:
        """A whole reply, words and tool calls, from the notebook where it has one; `heard` gets the words as they come."""
        earlier = self.earlier(request)
        if earlier is not None:
            if heard is not None and earlier.text:
                heard(earlier.text)
            return earlier
        begun = self.begin(request, about)
        return whole(self.end(begun, self.send(begun, heard)))

    def ask_all(
        self, requests: Sequence[Request], read: Callable[[str], R], *, about: Sequence[str | None] | None = None
    ) -> list[R | NoReply | OutOfBudget]:
        """For each of many requests that do not depend on each other what `ask` would give, or what it would raise, in their
        order. Several are in flight at once; the same request twice is asked once."""
        pace = self.pace if self.model.billed else Pace(most=1)  # the replies of a script come in its order
        return Many(self, pace, read, mended).ask(requests, about or [None] * len(requests))

    def inside(self, log: CallLog) -> "Gateway":
        """The same language model within the same limits, for a question inside a conversation: its calls go to a log of its
        own, and each unit has its limits anew."""
        self.budget.next_question()
        return Gateway(self.model, log, self.budget, self.pace)


def mended(request: Request, reason: str) -> Request:
    """The request that asks once more, and says why the first reply could not be used."""
    return replace(request, prompt=render("repair", prompt=request.prompt, reason=reason))

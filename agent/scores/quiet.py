"""What is spent is said once a score: a score asks too many questions for a line of each."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from neuronaut.agent.llm.gateway import Gateway
from neuronaut.agent.llm.log import NotebookLog
from neuronaut.agent.session import Say, Session


class QuietLog(NotebookLog):
    """The calls of one run, without a line for each."""

    def say(self, line: str) -> None:
        """Nothing."""


def quiet(gateway: Gateway, session: Session) -> Gateway:
    """The same way to a language model, with a quiet log."""
    session.gateway = replace(gateway, log=QuietLog(session))
    return session.gateway


@contextmanager
def telling_spent(gateway: Gateway | None, say: Say) -> Iterator[None]:
    """At its end, also where the budget is spent, says what has been spent, if something was since its beginning."""
    before = None if gateway is None else gateway.budget.line()
    try:
        yield
    finally:
        if gateway is not None and (line := gateway.budget.line()) != before:
            say("model", line)

"""Asking again, in one place for all SDKs: only after a failure for which nothing can have been paid."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity

from neuronaut.agent.llm.base import LanguageModelError
from neuronaut.agent.llm.limits import overloaded

ATTEMPTS = 5
LONGEST = 60.0  # seconds; a server that asks for a longer wait is given up
AGAIN = frozenset({408, 409, 429})
T = TypeVar("T")


def asked_again(ask: Callable[[int], T]) -> T:
    """What `ask` gives, called with 1, 2, … up to five times while its LanguageModelError says how long to wait."""
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        retry=tenacity.retry_if_exception(lambda error: _wait(error) is not None),
        wait=lambda state: _wait(state.outcome.exception() if state.outcome else None) or 0.0,
        before_sleep=lambda _: overloaded(),
        sleep=lambda seconds: time.sleep(seconds),
        reraise=True,
    )
    for attempt in retrying:
        with attempt:
            return ask(attempt.retry_state.attempt_number)
    raise AssertionError("the last attempt raises")


def _wait(error: BaseException | None) -> float | None:
    return error.again_after if isinstance(error, LanguageModelError) else None


def again_after(status: int, headers: Mapping[str, str], attempt: int = 1) -> float | None:
    """Seconds to wait before the same request is sent again, None where it should not be: as Retry-After says, else 1, 2, 4, 8."""
    if status not in AGAIN and status < 500:
        return None
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (asked := _seconds(headers.get(name, ""))) is not None:
            seconds = max(0.0, asked * unit)
            return seconds if seconds <= LONGEST else None
    return 2.0 ** (attempt - 1)


def _seconds(text: str) -> float | None:
    """The number or, counted from now, the date in a Retry-After header; None where it is neither."""
    try:
        return float(text) if float(text) == float(text) else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()

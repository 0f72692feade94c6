"""Questions to a language model, many at once, and what came of each."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from neuronaut.agent.llm.base import OutOfBudget, Request, plain
from neuronaut.agent.llm.gateway import Gateway, Malformed, NoReply
from neuronaut.agent.scores.base import Replies
from neuronaut.agent.view import visible
from neuronaut.prompts import render

UNREADABLE = ("malformed", "refused", "cut off", "filtered", "not whole")  # states of a reply that came
_MARKS = re.compile(r"<<|>>")

R = TypeVar("R")


class Labels(BaseModel):
    """1 for each text that fits, 0 for each that does not, in their order."""

    model_config = ConfigDict(extra="forbid")
    labels: list[int]


class Intruder(BaseModel):
    """The number of the text that does not fit."""

    model_config = ConfigDict(extra="forbid")
    intruder: int


class Activations(BaseModel):
    """A whole number from 0 to 10 for each token, in their order."""

    model_config = ConfigDict(extra="forbid")
    activations: list[int]


class Active(BaseModel):
    """The numbers of the texts in which the unit responds."""

    model_config = ConfigDict(extra="forbid")
    active: list[int]


@dataclass(frozen=True)
class Ask(Generic[R]):
    """A question, and how its reply is read. Questions of equal `form` are read alike."""

    prompt: str
    form: int


@dataclass(frozen=True)
class Asked(Generic[R]):
    """The replies in the order of the questions, None for one that failed, and how many there are of each kind. why: of the
    first that failed."""

    found: list[R | None]
    replies: Replies
    why: str = ""

    def check(self) -> None:
        """Refuses more than 5 % of failures."""
        self.replies.check(self.why)


def labels_of(text: str, n: int) -> list[bool]:
    """The labels of a reply. Raises Malformed where there are not n, or one is neither 0 nor 1."""
    found = _read(Labels, text).labels
    if len(found) != n:
        raise Malformed(f"it has {len(found)} labels for {n} texts.")
    if any(label not in (0, 1) for label in found):
        raise Malformed("a label is neither 0 nor 1.")
    return [label == 1 for label in found]


def intruder_of(text: str, n: int) -> int:
    """The index of the text that a reply names. Raises Malformed where there is none of that number."""
    found = _read(Intruder, text).intruder
    if not 1 <= found <= n:
        raise Malformed(f"there is no text {found}: they have the numbers 1 to {n}.")
    return found - 1


def activations_of(text: str, n: int) -> list[float]:
    """The activations of a reply. Raises Malformed where there are not n, or one is outside 0 to 10."""
    found = _read(Activations, text).activations
    if len(found) != n:
        raise Malformed(f"it has {len(found)} activations for {n} tokens.")
    if any(not 0 <= one <= 10 for one in found):
        raise Malformed("an activation is not a whole number from 0 to 10.")
    return [float(one) for one in found]


def active_of(text: str, n: int) -> list[bool]:
    """Which texts a reply names. Raises Malformed where there is none of a number, or one is named twice."""
    found = _read(Active, text).active
    if len(set(found)) < len(found) or any(not 1 <= one <= n for one in found):
        raise Malformed(f"it must name each text at most once, by its number from 1 to {n}.")
    return [number in found for number in range(1, n + 1)]


M = TypeVar("M", bound=BaseModel)


def _read(form: type[M], text: str) -> M:
    """The reply as `form`, without turning anything into what it is not. Raises Malformed."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON ({plain(str(error), 120)}).") from None
    try:
        return form.model_validate(found, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the reply"
        raise Malformed(f"{where}: {plain(first['msg'], 200)}.") from None


def ask_each(
    gateway: Gateway, system: str, form: type[BaseModel], asks: Sequence[Ask[R]], read: Callable[[str, int], R]
) -> Asked[R]:
    """What is read of the reply to each question. Raises OutOfBudget as soon as one cannot be asked."""
    alike: dict[int, list[int]] = defaultdict(list)
    for number, ask in enumerate(asks):
        alike[ask.form].append(number)
    found: list[R | None] = [None] * len(asks)
    failed: list[NoReply] = []
    for n, numbers in alike.items():
        requests = [
            Request(
                f"score_{system}", render(f"score_{system}_system"), asks[at].prompt, form, gateway.model.max_tokens
            )
            for at in numbers
        ]
        for at, reply in zip(numbers, gateway.ask_all(requests, lambda text, n=n: read(text, n)), strict=True):  # type: ignore[misc]
            if isinstance(reply, OutOfBudget):
                raise reply
            if isinstance(reply, NoReply):
                failed.append(reply)
            else:
                found[at] = reply
    unreadable = sum(one.state in UNREADABLE for one in failed)
    replies = Replies(len(asks) - len(failed), unreadable, len(failed) - unreadable)
    return Asked(found, replies, str(failed[0]) if failed else "")


def shown(text: str) -> str:
    """A text in one line, its control characters made visible, without marks of its own."""
    return _MARKS.sub(lambda found: "‹‹" if found[0] == "<<" else "››", visible(text))

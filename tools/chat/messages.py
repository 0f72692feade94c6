"""What is given to a chat model: messages, each with a role and what it says."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_MESSAGES = 100
WRITERS = ("assistant", "model")  # roles whose messages the model writes


class Message(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    content: Annotated[str, StringConstraints(max_length=100_000)]


Chat = Annotated[tuple[Message, ...], Field(min_length=1, max_length=MOST_MESSAGES)]


def is_finished(chat: Sequence[Message]) -> bool:
    """Whether the last message is the model's own, so that the template need not ask for one."""
    return chat[-1].role in WRITERS


def as_chat(text: str, system: str | None = None) -> tuple[Message, ...]:
    """The text as what a user says, behind a system message if there is one."""
    before = () if system is None else (Message(role="system", content=system),)
    return (*before, Message(role="user", content=text))

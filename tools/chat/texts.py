"""Chats of a corpus as the text that a model is given."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from neuronaut.tools.chat.format import ChatFormat
from neuronaut.tools.chat.messages import MOST_MESSAGES, Message
from neuronaut.tools.chat.rendering import Asked, Refused, render
from neuronaut.tools.errors import UserError

CHATS = "messages"  # the field of a .jsonl in which data sets keep them


@dataclass(frozen=True)
class ChatTexts:
    """What renders the chats of a corpus. name: of the model; start: the text of the token that is put before each document
    of its text, "" for none."""

    how: ChatFormat
    name: str
    start: str = ""

    @cached_property
    def sha256(self) -> str:
        """Of all that the texts depend on, but for the chats."""
        about = [self.how.template, dict(self.how.special), self.start]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def chat(self, given: Any, where: str) -> tuple[Message, ...]:
        """Messages from a line of a file; what else they hold than role and content is left out. Refuses what is no chat."""
        if not isinstance(given, list) or not 1 <= len(given) <= MOST_MESSAGES:
            raise UserError(
                f"{where} has no chat: `{CHATS}` must be a list of 1 to {MOST_MESSAGES} objects with role and content"
            )
        try:
            return tuple(Message(role=one["role"], content=one["content"]) for one in given)
        except (ValidationError, KeyError, TypeError):
            raise UserError(
                f"{where} has a message without a role and a content that are text (at most 100,000 characters): correct it"
            ) from None

    def texts(self, chats: Sequence[Sequence[Message]], say: Callable[[str], None]) -> list[str | Refused]:
        """The text of each chat without the token that starts it, since that is put before each document; say: is told where the
        template writes no such token, so that documents have one more than the model's chats."""
        found = render([Asked(chat, False) for chat in chats], self.how, self.name)
        if self.start and any(isinstance(text, str) and not text.startswith(self.start) for text in found):
            say(f"a token {self.start!r} stands before each chat, which the chat template does not write")
        return [text if isinstance(text, Refused) else text.removeprefix(self.start) for text in found]

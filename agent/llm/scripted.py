"""A language model that replies from a list: for tests, examples and replays."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from neuronaut.agent.llm.base import Heard, LanguageModelError, Reply, Request
from neuronaut.tools.errors import UserError


class ScriptedModel:
    """Gives its replies one after the other, the last one again when they run out; each is text or an error."""

    provider = "scripted"
    max_tokens = 4_096
    billed = False

    def __init__(self, replies: Sequence[str | LanguageModelError], model: str = "scripted") -> None:
        if not replies:
            raise UserError("a scripted language model needs at least one reply")
        self.model = model
        self.source = hashlib.sha256(json.dumps([str(reply) for reply in replies]).encode()).hexdigest()
        self.given = 0
        self.requests: list[Request] = []
        self._replies = list(replies)

    @classmethod
    def from_file(cls, path: Path) -> "ScriptedModel":
        """Replies from a JSON file: a list of objects, or of texts for replies that are no JSON. Refuses anything else."""
        try:
            replies = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"the script {str(path)!r} cannot be read as JSON ({error}): give a list of replies"
            ) from None
        if not isinstance(replies, list):
            raise UserError(f"the script {str(path)!r} must hold a JSON list of replies")
        return cls([reply if isinstance(reply, str) else json.dumps(reply) for reply in replies], model=path.name)

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """The next reply of the script."""
        reply = self._replies[min(self.given, len(self._replies) - 1)]
        self.given += 1
        self.requests.append(request)
        if isinstance(reply, LanguageModelError):
            raise reply
        n_in, n_out = len(request.prompt.split()), len(reply.split())
        return Reply(reply, self.model, "stop", n_in, 0, n_out)

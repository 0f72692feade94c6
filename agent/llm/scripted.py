"""A language model that replies from a list: for tests, examples and replays."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuronaut.agent.llm.base import Call, Heard, LanguageModelError, Reply, Request, Said, plain
from neuronaut.tools.errors import UserError

Scripted = str | Said | LanguageModelError


class ScriptedModel:
    """Gives its replies one after the other, the last one again when they run out; each is a text, a turn with tool calls, or an error."""

    provider = "scripted"
    max_tokens = 4_096
    billed = False

    def __init__(self, replies: Sequence[Scripted], model: str = "scripted") -> None:
        if not replies:
            raise UserError("a scripted language model needs at least one reply")
        self.model = model
        self.source = hashlib.sha256(json.dumps([str(reply) for reply in replies]).encode()).hexdigest()
        self.given = 0
        self.requests: list[Request] = []
        self._replies = list(replies)

    @classmethod
    def from_file(cls, path: Path) -> "ScriptedModel":
        """Replies from a JSON file, as `read_script` reads them."""
        return cls(read_script(path), model=path.name)

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """The next reply of the script, heard word by word."""
        reply = self._replies[min(self.given, len(self._replies) - 1)]
        self.given += 1
        self.requests.append(request)
        if isinstance(reply, LanguageModelError):
            raise reply
        text, calls = (reply, ()) if isinstance(reply, str) else (reply.text, reply.calls)
        if heard is not None:
            for piece in re.findall(r"\S+\s*|\s+", text):
                heard(piece)
        n_in = len(request.prompt.split()) + sum(len(str(turn).split()) for turn in request.turns)
        n_out = len(text.split()) + sum(len(call.arguments.split()) for call in calls)
        return Reply(text, self.model, "tool_calls" if calls else "stop", n_in, 0, n_out, calls)


def read_script(path: Path) -> list[Scripted]:
    """The replies in a JSON file, a list. An entry is an object that is the reply, a text for one that is no JSON, or
    {"text": …, "calls": [{"name": …, "arguments": …}]} for a turn that calls tools. Refuses anything else."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"the script {str(path)!r} cannot be read as JSON ({error}): give a list of replies") from None
    if not isinstance(entries, list):
        raise UserError(f"the script {str(path)!r} must hold a JSON list of replies")
    return [_entry(entry, place, path) for place, entry in enumerate(entries, 1)]


def _entry(entry: Any, place: int, path: Path) -> Scripted:
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, dict):
        raise UserError(
            f"reply {place} of the script {str(path)!r} is {plain(json.dumps(entry), 40)}, which is none: write an object, a "
            'text, or {"text": …, "calls": […]}'
        )
    if not ("calls" in entry and entry.keys() <= {"text", "calls"}):
        return json.dumps(entry)
    text, calls = entry.get("text", ""), entry["calls"]
    if not (isinstance(text, str) and isinstance(calls, list) and all(_is_call(call) for call in calls)):
        raise UserError(
            f"reply {place} of the script {str(path)!r} has calls that are none: write each as "
            '{"name": "top_examples", "arguments": {"unit": "8.481"}}'
        )
    return Said(text, tuple(_call(call, f"call_{place}_{n}") for n, call in enumerate(calls, 1)))


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("name"), str) and call.keys() <= {"id", "name", "arguments"}


def _call(call: dict[str, Any], otherwise: str) -> Call:
    arguments = call.get("arguments", {})
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return Call(str(call.get("id", otherwise)), call["name"], written)

"""A language model that replies from what a notebook recorded, so that a run can be repeated without a network or a key."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from neuronaut.agent.llm.base import COUNTS, Call, Heard, LanguageModelError, Reply, Request, plain
from neuronaut.memory import queries
from neuronaut.memory.ledger import canonical
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.errors import UserError

_ASKED = (
    "purpose",
    "system",
    "prompt",
    "schema",
    "turns",
    "tools",
)  # not who was asked, nor what the budget let a reply take


class Speaker(NamedTuple):
    """Whose replies they are."""

    provider: str
    model: str
    source: str


@dataclass(frozen=True)
class Recording:
    """The replies of one language model, by the hash of what it was asked; a text is why there was none."""

    speaker: Speaker
    replies: dict[str, Reply | str]
    max_tokens: int


class RecordedModel:
    """Gives the reply that was recorded for the same purpose, prompts, schema, turns and tools. It goes by the name of the
    language model that made it, so that authors and the hashes of requests are those of the recorded run."""

    billed = False

    def __init__(self, recording: Recording, path: Path) -> None:
        self.provider, self.model, self.source = recording.speaker
        self.max_tokens, self.path, self._replies = recording.max_tokens, path, recording.replies

    @classmethod
    def from_file(cls, name: str) -> "RecordedModel":
        """The recording `NOTEBOOK`, or `NOTEBOOK@PROVIDER:MODEL` where it holds those of several language models."""
        path, wanted = Path(name), ""
        if not path.exists() and "@" in name:
            file, _, wanted = name.rpartition("@")
            path = Path(file)
        if not path.exists():
            raise UserError(f"there is no notebook {str(path)!r} to take recorded replies from: name another")
        with Notebook(path, read_only=True) as notebook:
            rows = [call for run in reversed(queries.runs(notebook)) for call in queries.calls(notebook, run["id"])]
        return cls(_recording([row for row in rows if row["end"] is not None], path, wanted), path)

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """The recorded reply. Raises LanguageModelError where the recorded call failed; refuses what was not recorded."""
        found = self._replies.get(_key(request.as_json()))
        if found is None:
            raise UserError(
                f"the recording {str(self.path)!r} holds no reply to this request ({request.purpose}): ask the same question "
                "with the same options and version, or a language model itself"
            )
        if isinstance(found, str):
            raise LanguageModelError(found)
        if heard is not None and found.text:
            heard(found.text)
        return found


def _recording(rows: list[dict[str, Any]], path: Path, wanted: str) -> Recording:
    """The recording of the one language model that is meant. Refuses none and several."""
    asked = [(row, json.loads(row["request"])) for row in rows]
    speakers = Counter(_speaker(row, request) for row, request in asked)
    meant = [one for one in speakers if not wanted or f"{one.provider}:{one.model}" == wanted]
    if not meant:
        raise UserError(f"the notebook {str(path)!r} holds no replies of {wanted or 'a language model'}: name another")
    if len(meant) > 1:
        names = ", ".join(sorted({f"{one.provider}:{one.model} ({plain(one.source, 60)})" for one in meant}))
        raise UserError(
            f"the notebook {str(path)!r} holds replies of several language models ({names}): write "
            "recorded:NOTEBOOK@PROVIDER:MODEL for one, and keep those of one address in a notebook"
        )
    replies: dict[str, Reply | str] = {}
    own = [(row, request) for row, request in asked if _speaker(row, request) == meant[0]]
    for row, request in own:
        key, end = _key(request), row["end"]
        if end["response"] is None:
            replies.setdefault(key, str(end["error"]))
        elif not isinstance(replies.get(key), Reply):
            replies[key] = _reply(end)
    return Recording(meant[0], replies, max(int(request["max_tokens"]) for _, request in own))


def _speaker(row: dict[str, Any], request: dict[str, Any]) -> Speaker:
    return Speaker(row["provider"], row["model"], str(request.get("source", "")))


def _key(request: dict[str, Any]) -> str:
    asked = {name: value for name, value in request.items() if name in _ASKED}
    return hashlib.sha256(canonical(asked).encode()).hexdigest()


def _reply(end: dict[str, Any]) -> Reply:
    calls = tuple(Call(**call) for call in json.loads(end["calls"] or "[]"))
    counts = {name: end[name] for name in COUNTS}
    return Reply(end["response"], end["answered_by"], end["stop_reason"], calls=calls, **counts)

"""Chats as the text that the model's own template makes of them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from neuronaut.tools.chat.format import FILE, ChatFormat
from neuronaut.tools.chat.messages import Message
from neuronaut.tools.errors import ToolRefused

SECONDS = 5  # of the processor; a template takes milliseconds
CLOCK = 60  # seconds
PROGRAM = Path(__file__).with_name("sandbox.py")
TOO_DEAR = "took more than 5 seconds or 1 GiB, or wrote more than a million characters: it may be hostile"


class Asked(NamedTuple):
    """A chat to render. ask: whether the template is to begin the model's next message behind it."""

    messages: Sequence[Message]
    ask: bool


class Refused(NamedTuple):
    """Why a template rendered nothing, in its own words: foreign text. broken: where, if that is no word of the template on the chat
    but a mistake in it; None where it refuses the chat."""

    why: str
    broken: str | None = None


def render(chats: Sequence[Asked], how: ChatFormat, name: str) -> list[str | Refused]:
    """The text of each chat. name: of the model. Refuses a model without a template, and one that hangs or fills the memory."""
    if how.template is None:
        raise ToolRefused(
            how.fault
            or f"{name} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): give it plain text, "
            "or a model that was trained for chats"
        )
    asked = [([message.model_dump() for message in chat.messages], chat.ask) for chat in chats]
    order = {"template": how.template, "special": dict(how.special), "seconds": SECONDS, "chats": asked}
    found = _answered(json.dumps(order))
    if found is None or any(
        "MemoryError" in one.get("error", "")[:12] or one.get("error") == "too long" for one in found
    ):
        raise ToolRefused(f"the chat template of {name} {TOO_DEAR}; give it plain text")
    return [one["text"] if "text" in one else _refused(one, how.file) for one in found]


def _refused(said: dict[str, str], file: str) -> Refused:
    if said.get("by") == "the template":
        return Refused(said["error"])
    place = file if file == FILE else f"chat_template in {file}"
    return Refused(said["error"], f"line {said['line']} of {place}" if said.get("line") else place)


@lru_cache(maxsize=64)
def _answered(order: str) -> list[dict[str, str]] | None:
    """What the program writes; None if it was ended, or wrote nonsense."""
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(PROGRAM)],
            input=order,
            capture_output=True,
            encoding="utf-8",
            timeout=CLOCK,
            env=os.environ | quiet,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, json.JSONDecodeError, UnicodeDecodeError):
        return None


def text_of(found: str | Refused, name: str, number: int) -> str:
    """The rendered text. Refuses what the template refused, in its words."""
    if isinstance(found, Refused) and found.broken is not None:
        raise ToolRefused(
            f"the chat template of {name} is broken: it fails on chat {number} at {found.broken} ({found.why}); mend it there, or "
            "give plain text"
        )
    if isinstance(found, Refused):
        raise ToolRefused(f"the chat template of {name} refuses chat {number} ({found.why}): change its messages")
    if not found.isprintable() and any("\ud800" <= character <= "\udfff" for character in found):
        raise ToolRefused(f"the chat template of {name} writes half a character in chat {number}: mend the template")
    return found

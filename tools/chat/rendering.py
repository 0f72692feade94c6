"""Chats as the text that the model's own template makes of them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from neuronaut.tools.chat.format import ChatFormat
from neuronaut.tools.chat.messages import Message
from neuronaut.tools.errors import ToolRefused

SECONDS = 60  # by the clock; the processor is bounded by the program itself
PROGRAM = Path(__file__).with_name("sandbox.py")
TOO_DEAR = "took more than 20 seconds or 1 GiB, or wrote more than a million characters: it may be hostile"


class Asked(NamedTuple):
    """A chat to render. ask: whether the template is to begin the model's next message behind it."""

    messages: Sequence[Message]
    ask: bool


class Refused(NamedTuple):
    """Why a template rendered nothing, in its own words: foreign text."""

    why: str


def render(chats: Sequence[Asked], how: ChatFormat, name: str) -> list[str | Refused]:
    """The text of each chat. name: of the model. Refuses a model without a template, and one that hangs or fills the memory."""
    if how.template is None:
        raise ToolRefused(
            f"{name} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): give it plain text, "
            "or a model that was trained for chats"
        )
    asked = [([message.model_dump() for message in chat.messages], chat.ask) for chat in chats]
    program = [sys.executable, "-P", str(PROGRAM)]
    quiet = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            program,
            input=json.dumps({"template": how.template, "special": dict(how.special), "chats": asked}),
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            env=quiet,
            check=False,
        )
        found = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, json.JSONDecodeError, UnicodeDecodeError):
        found = None
    if found is None or any(
        "MemoryError" in one.get("error", "")[:12] or one.get("error") == "too long" for one in found
    ):
        raise ToolRefused(f"the chat template of {name} {TOO_DEAR}; give it plain text")
    return [one["text"] if "text" in one else Refused(one["error"]) for one in found]


def text_of(found: str | Refused, name: str, number: int) -> str:
    """The rendered text. Refuses what the template refused, in its words."""
    if isinstance(found, Refused):
        raise ToolRefused(f"the chat template of {name} refuses chat {number} ({found.why}): change its messages")
    return found

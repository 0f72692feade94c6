"""A program of its own that renders chats by a template, so that a hostile one cannot hang or fill the process that asked.

Read on stdin: JSON with template, special, seconds, chats: [[messages, add_generation_prompt], …]; written on stdout: JSON, for each
chat {"text": …} or {"error": …}. transformers renders, in Jinja's immutable sandbox; what this adds is a bound on time, memory
and length, and the same date every day. It imports nothing of neuronaut.
"""

import json
import logging
import resource
import sys
import traceback
from datetime import datetime
from typing import Any

MEMORY = 1 << 30  # bytes beside what was taken before
MOST_CHARACTERS = 1 << 20  # of one rendered chat
DATE = datetime(2026, 1, 1)  # for templates that write today's: the same chat gives the same tokens on any day


class SameDate:
    """Stands in for `datetime` in the module that renders."""

    @staticmethod
    def now() -> datetime:
        """Always the same."""
        return DATE


def _bound(seconds: int) -> None:
    """Sets the limits that the system knows (macOS has none for memory). seconds: of the processor, from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds += int(used.ru_utime + used.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds if hard == resource.RLIM_INFINITY else min(seconds, hard), hard))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        pass


def _refusal(error: Exception) -> dict[str, str]:
    """What went wrong; `by` says whether the template refuses the chat by its own words or is broken, `line` where in it."""
    own = type(error).__name__ == "TemplateError"  # what raise_exception raises; jinja's own are of classes below it
    inside = [
        line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == "<template>"
    ]
    line = getattr(error, "lineno", None) or (inside[-1] if inside else None)
    return {
        "error": f"{type(error).__name__}: {error}"[:300],
        "by": "the template" if own else "a mistake",
        "line": "" if line is None else str(line),
    }


def rendered(asked: dict[str, Any]) -> list[dict[str, str]]:
    """The text of each chat, or why there is none. A template may do anything wrong, so that any exception is its own."""
    logging.disable(logging.CRITICAL)
    from transformers.utils import chat_template_utils

    chat_template_utils.datetime = SameDate
    _bound(asked["seconds"])
    found = []
    for messages, add_generation_prompt in asked["chats"]:
        try:
            [text], _ = chat_template_utils.render_jinja_template(
                [messages],
                chat_template=asked["template"],
                add_generation_prompt=add_generation_prompt,
                **asked["special"],
            )
        except Exception as error:  # noqa: BLE001  of the template: jinja's, and those of what it calls
            found.append(_refusal(error))
            continue
        found.append({"text": text} if len(text) <= MOST_CHARACTERS else {"error": "too long"})
    return found


if __name__ == "__main__":
    json.dump(rendered(json.load(sys.stdin)), sys.stdout)

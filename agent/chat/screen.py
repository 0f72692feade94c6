"""What a conversation shows and asks: on a terminal, or as JSON lines for machines."""

import json
import re
import sys
from collections.abc import Callable
from typing import Any, Protocol

from neuronaut.agent.render import render
from neuronaut.agent.view import visible

SHOWN = 30  # lines of what a tool found
_END = re.compile(r"(?<=[.!?])\s+|\n+")


class Screen(Protocol):
    """The person's side of a conversation."""

    def line(self) -> str | None:
        """What the person says next; None where there is no more."""
        ...

    def allows(self, call: str) -> bool | None:
        """Whether the person allows a dear experiment; None where they say nothing more."""
        ...

    def show(self, kind: str, text: str) -> None:
        """Something that happened: `said` (words of the language model), `call`, `result`, `note`."""
        ...

    def answer(self, answer: dict[str, Any]) -> None:
        """The answer of a question."""
        ...


class Terminal:
    """Words on stdout, what else happens beside them."""

    def line(self) -> str | None:
        """One line from stdin."""
        return _read("\nyou> ")

    def allows(self, call: str) -> bool | None:
        """Asks; anything but y or yes is no."""
        return _is_yes(_read(f"  run {visible(call)}? it may take a minute [y/N] "))

    def show(self, kind: str, text: str) -> None:
        """Indented, but for the words of the language model."""
        lines = [visible(line) for line in text.splitlines()]
        if kind == "result" and len(lines) > SHOWN:
            lines = [*lines[:SHOWN], f"… {len(lines) - SHOWN} more lines"]
        mark = {"said": "", "call": "  · ", "result": "    ", "note": "  "}[kind]
        print("\n".join(f"{mark}{line}" for line in lines), flush=True)

    def answer(self, answer: dict[str, Any]) -> None:
        """As `ask` prints it."""
        render(answer)


class JsonLines:
    """One JSON object a line; what the person says comes as plain lines."""

    def line(self) -> str | None:
        """One line from stdin."""
        self._print("listening", "")
        return _read("")

    def allows(self, call: str) -> bool | None:
        """Asks as an object of type `approve`; the next line must be y or yes."""
        self._print("approve", call)
        return _is_yes(_read(""))

    def show(self, kind: str, text: str) -> None:
        """An object with its type and text."""
        self._print(kind, text)

    def answer(self, answer: dict[str, Any]) -> None:
        """An object of type `answer` with what `ask --json` prints."""
        print(json.dumps({"type": "answer", "answer": answer}, allow_nan=False), flush=True)

    @staticmethod
    def _print(kind: str, text: str) -> None:
        print(json.dumps({"type": kind, "text": text}), flush=True)


def _read(prompt: str) -> str | None:
    try:
        if sys.stdin.isatty() and sys.stdout.isatty():
            return input(prompt)
        print(prompt, end="", flush=True)
        line = sys.stdin.readline()
        if line and prompt:
            print(visible(line.rstrip("\n")), flush=True)  # what was piped in, so that the transcript reads well
        return line.rstrip("\n") if line else None
    except EOFError:
        return None


def _is_yes(line: str | None) -> bool | None:
    return None if line is None else line.strip().lower() in ("y", "yes")


class Sentences:
    """Words as they come, handed on sentence by sentence, each whole; those that may not `stand` are held back and counted."""

    def __init__(self, show: Callable[[str], None], stands: Callable[[str], bool]) -> None:
        self._show, self._stands, self._rest = show, stands, ""
        self.held_back = 0

    def hear(self, words: str) -> None:
        """More words."""
        self._rest += words
        *whole, self._rest = _END.split(self._rest)
        for sentence in whole:
            self._pass(sentence)

    def end(self) -> None:
        """No more words come."""
        self._pass(self._rest)
        self._rest = ""

    def _pass(self, sentence: str) -> None:
        if not sentence.strip():
            return
        if self._stands(sentence):
            self._show(sentence.strip())
        else:
            self.held_back += 1

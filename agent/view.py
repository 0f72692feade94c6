"""What is printed: steps on stderr as they happen, answers on stdout, foreign text made visible."""

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from neuronaut.tools.shown import STEERING, visible

__all__ = ["Progress", "print_json", "shown_progress", "steps_on_stderr", "visible"]

Progress = Callable[[int, int], None]


def steps_on_stderr() -> Callable[[str, str], None]:
    """A printer of steps: coloured on a terminal, plain elsewhere."""
    if not sys.stderr.isatty():
        return lambda label, line: print(f"{label:>9}  {visible(line)}", file=sys.stderr, flush=True)
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)

    def say(label: str, line: str) -> None:
        console.print(Text(f"{label:>9}  ", style="cyan") + Text(visible(line)))

    return say


def print_json(value: Any) -> None:
    """One JSON value on stdout, escaped where a character could steer a terminal; NaN is a bug."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    print("".join(c if c == "\n" or unicodedata.category(c) not in STEERING else json.dumps(c)[1:-1] for c in text))


@contextmanager
def shown_progress(label: str) -> Iterator[Progress | None]:
    """Progress of long work on stderr: a bar on a terminal, a line a tenth elsewhere."""
    if not sys.stderr.isatty():
        tenths: set[int] = set()

        def line(done: int, total: int) -> None:
            tenth = 10 * done // total
            if tenth not in tenths:
                tenths.add(tenth)
                print(f"    {label} {10 * tenth} %", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True)) as bar:
        task = bar.add_task(label)
        yield lambda done, total: bar.update(task, completed=done, total=total)

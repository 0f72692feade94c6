"""How far a long piece of work is, on stderr: a bar on a terminal, a line a tenth elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]


@contextmanager
def progress_on_stderr(step: str, label: str) -> Iterator[Progress]:
    """What counts the work: (done, total)."""
    if not sys.stderr.isatty():
        tenths: set[int] = set()

        def line(done: int, total: int) -> None:
            tenth = 10 * done // total
            if tenth not in tenths:
                tenths.add(tenth)
                print(f"{step:>9}  {label} {10 * tenth} %", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True)) as bar:
        task = bar.add_task(label)
        yield lambda done, total: bar.update(task, completed=done, total=total)

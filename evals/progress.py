"""How far an evaluation is: a bar a suite on a terminal, a line a tenth elsewhere; on stderr."""

import sys
from collections import Counter
from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from neuronaut.evals.suite import Row

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Progress:
    """Counts rows as they come. totals: suite to cases; done: those that an earlier call has done."""

    def __init__(self, totals: Mapping[str, int], done: Mapping[str, int]) -> None:
        self._totals, self._done, self._failed = dict(totals), Counter(done), Counter[str]()
        self._began, self._new = monotonic(), 0
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bars = _bars()
            self._bars.start()
            for suite, total in self._totals.items():
                self._tasks[suite] = self._bars.add_task(suite, total=total, completed=self._done[suite], said="")
        else:
            for suite, done in self._done.items():
                self._say(
                    f"{suite}: {done} of {self._totals[suite]} were done before"
                    if done
                    else f"{suite}: {self._totals[suite]} case{'s' * (self._totals[suite] != 1)}"
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def row(self, suite: str, row: Row) -> None:
        """One more row."""
        before = self._tenth(suite)
        self._done[suite] += 1
        self._new += 1
        self._failed[suite] += row["outcome"] == "failed"
        if self._bars:
            self._bars.update(self._tasks[suite], completed=self._done[suite], said=self._said(suite))
        elif self._tenth(suite) > before:
            self._say(f"{suite}: {self._done[suite]} of {self._totals[suite]}, {self._said(suite)}")

    def _tenth(self, suite: str) -> int:
        return 10 * self._done[suite] // self._totals[suite]

    def _said(self, suite: str) -> str:
        """Failures of the suite, rows a minute of all suites, and the minutes that are left at this rate."""
        rate = 60 * self._new / max(monotonic() - self._began, 1e-9)
        left = (sum(self._totals.values()) - sum(self._done.values())) / rate
        return f"{self._failed[suite]} failed, {rate:.1f} a minute, {left:.0f} min left"

    def _say(self, line: str) -> None:
        print(f"     eval  {line}", file=sys.stderr, flush=True)


def _bars() -> "Bars":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
    return Bars(*columns, console=Console(stderr=True))

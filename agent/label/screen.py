"""What a batch shows while it is worked on: counters on a terminal, lines elsewhere, JSON lines for machines."""

import json
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from neuronaut.agent.llm.prices import dollars
from neuronaut.agent.view import steps_on_stderr, visible
from neuronaut.memory.item_labels import WORDS, Label, error_class, histogram
from neuronaut.memory.items import Item
from neuronaut.memory.notebook import Notebook

RECENT = 100  # ends from which the rate is told
LINE_SECONDS = 10.0  # between two lines of counters where there is no terminal
BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass
class Screen:
    """The counters of a batch, of all its threads. cap: what may be spent, in words; dollars: what was, None where a price is
    unknown; say: what takes the lines instead of the terminal."""

    notebook: Notebook
    run: str
    as_json: bool
    cap: str = ""
    dollars: Callable[[], float | None] = lambda: 0.0
    say: Callable[[str, str], None] | None = None
    began: float = field(default_factory=time.monotonic)
    statuses: Counter[str] = field(default_factory=Counter)
    nulls: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)
    _turn: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _last: float = 0.0
    _live: Any = None

    def recall(self, labels: Iterable[Label]) -> None:
        """What had ended before this worker began."""
        for label in labels:
            self._count(label)

    def begins(self, item: Item) -> None:
        """An item is begun."""
        with self._turn:
            self._show(f"{item.address}{' (null)' if item.null_kind else ''}")

    def waits(self) -> None:
        """Only others have items."""
        with self._turn:
            self._show("others are at work")

    def ended(self, label: Label) -> None:
        """An item ended, or waits for another try."""
        with self._turn:
            self._ended(label)

    def _ended(self, label: Label) -> None:
        if self.as_json:
            print(json.dumps({"event": "item", **label.fields}, ensure_ascii=True), flush=True)
        if label.state == "waiting":
            self.errors["tried again"] += 1
            return
        self._ends.append(time.monotonic())
        self._count(label)
        self._show(None)

    def _count(self, label: Label) -> None:
        if label.state == "failed":
            self.errors[error_class(label.reason)] += 1
        if label.null_kind is None:
            self.statuses[label.word] += 1
        elif label.state == "done":
            self.nulls[label.word] += 1
        if label.score is not None and label.side == "reads" and not label.null_kind:
            self.scores.append(label.score)

    def counters(self) -> dict[str, Any]:
        """All counters as they stand, of all workers where they concern items."""
        counts = self.notebook.item_counts(self.run)
        by_state: Counter[str] = Counter()
        for (state, _), n in counts.items():
            by_state[state] += n
        waiting = by_state["waiting"] + by_state["leased"]
        rate = self.rate
        return {
            "items": sum(by_state.values()),
            **{name: by_state[name] for name in ("done", "leased", "waiting", "failed", "skipped")},
            "a_minute": None if rate is None else round(rate * 60, 1),
            "eta_seconds": None if rate is None else round(waiting / rate),
            "statuses": {name: self.statuses[name] for name in WORDS if self.statuses[name]},
            "nulls": {"planted": sum(self.nulls.values()), "supported": self.nulls["SUPPORTED"]},
            "errors": dict(self.errors),
            "usd": self.dollars(),
            "f1": histogram(self.scores),
        }

    @property
    def rate(self) -> float | None:
        """Ended items a second, over the last ones; None before the first."""
        if not self._ends:
            return None
        first = self._ends[0] if len(self._ends) == RECENT else self.began
        return len(self._ends) / max(time.monotonic() - first, 1e-6)

    def line(self) -> str:
        """The counters in one line."""
        c = self.counters()
        eta = "" if c["eta_seconds"] is None else f" · {c['a_minute']:g} a minute, {duration(c['eta_seconds'])} to go"
        found = ", ".join(f"{n} {name}" for name, n in c["statuses"].items()) or "no verdict yet"
        nulls = f" · nulls {c['nulls']['supported']} of {c['nulls']['planted']} SUPPORTED"
        failed = f" · {c['failed']} failed" if c["failed"] else ""
        errors = f" ({', '.join(f'{n} {name}' for name, n in c['errors'].items())})" if c["errors"] else ""
        paid = f" · {'price unknown' if c['usd'] is None else dollars(c['usd'])} of {self.cap}" if self.cap else ""
        ended = c["done"] + c["failed"] + c["skipped"]
        bars = f" · F1 {bars_of(c['f1'])}" if self.scores else ""
        return f"{ended}/{c['items']} ({c['leased']} leased){eta} · {found}{nulls}{failed}{errors}{paid}{bars}"

    def _show(self, now: str | None) -> None:
        if self._live is not None:
            self._live.update(visible(self.line() + (f" · now {now}" if now else "")))
            return
        if time.monotonic() - self._last < LINE_SECONDS:
            return
        self._last = time.monotonic()
        if self.as_json:
            print(json.dumps({"event": "progress", "run": self.run, **self.counters()}), flush=True)
        else:
            (self.say or steps_on_stderr())("label", self.line())

    def __enter__(self) -> "Screen":
        if sys.stderr.isatty() and not self.as_json and self.say is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)
            self._live = None


def bars_of(counts: list[int]) -> str:
    """A histogram in one line."""
    most = max([1, *counts])
    return "0▕" + "".join(BLOCKS[-(-8 * n // most)] for n in counts) + "▏1"


def duration(seconds: float) -> str:
    """A span of time as people say it: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"

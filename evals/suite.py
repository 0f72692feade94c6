"""What a benchmark suite is: cases whose truth a machine can check, how they are asked, and how the answers are scored."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.config import Budget, Loop
from neuronaut.tools.stats import clopper_pearson

Size = Literal["smoke", "standard", "full"]
Outcome = Literal["ok", "failed", "not attempted"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One question with a known answer. key: unique within a suite and seed. truth: JSON, never shown to a proposer."""

    key: str
    family: str
    truth: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Cases that share a target and its passes over the text; what one job takes at a time. settings: JSON."""

    name: str
    cases: tuple[Case, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """A language model that proposes beside the search: provider:model, its address, and what each case may cost."""

    name: str
    base_url: str | None = None
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Asking:
    """How cases are asked: whose hypotheses are tested, by which loop, and in which folder the notebooks of trails stay.

    llm: the language model that proposes too, None where none does.
    """

    seed: int
    proposer: str
    loop: Loop
    folder: Path
    llm: Terms | None = None


@dataclass(frozen=True)
class Score:
    """A number over the rows of a suite with its 95 % interval; `value` is None where there is nothing to score.

    goal: what it should reach, `at_most`: what it should not exceed; None where none is set.
    """

    name: str
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    goal: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a value."""
        if self.value is None or (self.goal is None and self.at_most is None):
            return None
        return (self.goal is None or self.value >= self.goal) and (self.at_most is None or self.value <= self.at_most)


def share(name: str, hits: int, n: int, *, goal: float | None = None, at_most: float | None = None) -> Score:
    """A share with its exact interval (Clopper and Pearson)."""
    low, high = clopper_pearson(hits, n) if n else (None, None)
    return Score(name, hits / n if n else None, n, low, high, goal, at_most)


def median_interval(values: NDArray[np.floating]) -> tuple[float | None, float | None]:
    """The 95 % percentile bootstrap interval of a median; none of fewer than two values."""
    if len(values) < 2:
        return None, None
    drawn = np.random.default_rng(0).choice(values, size=(2000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


class Suite(Protocol):
    """A part of the benchmark."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str:
        """One sentence for the scoreboard."""
        ...

    @property
    def sizes(self) -> Mapping[Size, int]:
        """Cases of each selection."""
        ...

    def batches(self, n: int, seed: int) -> Sequence[Batch]:
        """`n` seeded cases in batches. Raises UserError where the suite's model or text is absent."""
        ...

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """A row for each wanted case, as it is done: `case`, `family`, `outcome` (an Outcome), `seconds`, `forwards`, and
        what the suite measures, JSON. A case that fails gives a row with `outcome` failed and `error`, never a number."""
        ...

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """What the rows of one evaluation come to."""
        ...

"""What an experiment returns: a number with its unit of measure, its n, its interval and its null."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One metric of one experiment.

    n: independent observations, `n_of` says of what. ci: 95 % interval, None where n does not carry one.
    null_value: the same metric where nothing is to be found; null_percentile: where `value` stands among the nulls, 0-100.
    """

    metric: str
    value: float
    unit: str
    n: int
    ci: tuple[float, float] | None = None
    null_value: float | None = None
    null_percentile: float | None = None
    n_of: str = "documents"

    def __post_init__(self) -> None:
        numbers = [self.value, *(self.ci or ()), self.null_value, self.null_percentile]
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise ValueError(f"{self.metric} is not finite: {self}")
        if self.ci is not None and self.ci[0] > self.ci[1]:
            raise ValueError(f"{self.metric}: the interval {self.ci} has its low end above its high end")

    @classmethod
    def stored(cls, row: Mapping[str, Any]) -> "Measurement":
        """A measurement as the notebook keeps it."""
        return cls(**{**row, "ci": None if row["ci"] is None else tuple(row["ci"])})

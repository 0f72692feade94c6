"""Suites that answer at once, for tests of the benchmark's harness. What they do can be changed by the environment.

FAKE_LOG: a file that gets a line for each case that is asked; FAKE_SECONDS: how long a case takes.
"""

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size
from neuronaut.tools.errors import UserError

FAMILIES = ("even", "odd")


@dataclass(frozen=True)
class Squares:
    """Case i asks for i squared, plus the seed. broken: of these cases there is no answer but an error."""

    name: str = "squares"
    about: str = "What is the square of a number?"
    broken: frozenset[int] = frozenset()
    absent: bool = False
    attempted: bool = True
    sizes: Mapping[Size, int] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", {"smoke": 4, "standard": 10, "full": 20})

    def batches(self, n: int, seed: int) -> Sequence[Batch]:
        if self.absent:
            raise UserError("the model of 'squares' is absent: set SQUARES")
        cases = [Case(f"case {i:03}", FAMILIES[i % 2], {"square": i * i + seed}) for i in range(n)]
        return [Batch(f"from-{at}", tuple(cases[at : at + 3]), {"at": at}) for at in range(0, n, 3)]

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        (asking.folder / f"{batch.name}.db").touch(exist_ok=False)
        for case in batch.cases:
            if case.key not in wanted:
                continue
            if log := os.environ.get("FAKE_LOG"):
                with Path(log).open("a", encoding="utf-8") as stream:
                    stream.write(f"{case.key}\n")
            time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
            head = {"case": case.key, "family": case.family}
            if not self.attempted:
                yield {**head, "outcome": "not attempted"}
            elif int(case.key[5:]) in self.broken:
                yield {**head, "outcome": "failed", "error": "no square"}
            else:
                offset = 1 if asking.loop == "one-shot" and case.family == "odd" else 0
                found = case.truth["square"] - offset
                yield {
                    **head, "outcome": "ok", "seconds": 0.5, "forwards": 2.0, "right": found == case.truth["square"],
                    "found": found, "said": {"text": "a | b"}, "threads": os.environ.get("OMP_NUM_THREADS"),
                }  # fmt: skip

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        asked = [row for row in rows if row["outcome"] == "ok"]
        if not asked:
            return [Score("squares right", None, 0, goal=0.9)]
        parts = {family: [row for row in asked if row["family"] == family] for family in FAMILIES}
        return [
            Score("squares right", sum(r["right"] for r in asked) / len(asked), len(asked), 0.25, 1.0, goal=0.9),
            Score("false squares", sum(not r["right"] for r in asked) / len(asked), len(asked), at_most=0.01),
            *(
                Score(f"right, family: {family}", sum(r["right"] for r in part) / len(part), len(part))
                for family, part in parts.items()
                if part
            ),
        ]


class Breaking(Squares):
    """Breaks off with a bug at case 1, gives a row that is no JSON for case 3, and none for case 4."""

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        for row in super().ask(batch, wanted, asking):
            if row["case"] == "case 001":
                raise RuntimeError("bug")
            if row["case"] == "case 003":
                row["found"] = float("nan")
            if row["case"] != "case 004":
                yield row


class Killed(Squares):
    """Its worker dies at case 4, some time after it handed over the cases before."""

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        for row in super().ask(batch, wanted, asking):
            if row["case"] == "case 004":
                time.sleep(2)
                os._exit(9)
            yield row


SQUARES = Squares()
BROKEN = Squares("broken", broken=frozenset({1, 2}))
ABSENT = Squares("absent", absent=True)
LATER = Squares("later", attempted=False)
BREAKING = Breaking("breaking")
KILLED = Killed("killed")
PLACES = {
    "squares": "fake_suites:SQUARES",
    "broken": "fake_suites:BROKEN",
    "absent": "fake_suites:ABSENT",
    "later": "fake_suites:LATER",
    "breaking": "fake_suites:BREAKING",
    "killed": "fake_suites:KILLED",
}


def main() -> None:
    """The command line, which knows these suites; heeds Ctrl-C even where it was started in the background."""
    import signal

    from neuronaut.agent.cli import main as command
    from neuronaut.evals import registry, seeds

    seeds.DEVELOPMENT = Path(__file__).with_name("fake_seeds.json")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    registry.SUITES.clear()
    registry.SUITES.update(PLACES)
    command()

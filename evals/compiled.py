"""Compiled programs: transformers whose every part is known. What the assistant would have to find out is built and checked."""

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from neuronaut.evals.compiler.programs import PROGRAMS
from neuronaut.evals.compiler.verify import Untrue, verify
from neuronaut.evals.compiler.weights import Compiled, compile_program
from neuronaut.evals.fixtures import write_folder
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size
from neuronaut.tools.stats import clopper_pearson
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target

MIN_PROGRAMS = 40
MIN_COMPONENTS = 80
BY_NAME = {program.name: program for program in PROGRAMS}


def build(name: str, layout: int) -> Compiled:
    """A program's model. layout: the seed of the order in which heads and neurons stand."""
    return compile_program(BY_NAME[name], layout)


def truth(name: str, layout: int) -> dict[str, Any]:
    """What is asked for: the task, and the parts with their roles, what they read and write. JSON."""
    program = BY_NAME[name]
    parts = [asdict(part) | {"indices": list(part.indices)} for part in build(name, layout).components]
    return {"program": name, "layout": layout, "task": program.task, "components": parts}


@dataclass(frozen=True)
class CompiledSuite:
    """See Suite. The circuit is part of the truth: the assistant gets the model only."""

    name: str = "compiled"
    about: str = "Transformers compiled from programs: the task, and the role of each head and group of neurons."

    @property
    def sizes(self) -> Mapping[Size, int]:
        """Programs of each selection; the full one has all."""
        return {"smoke": 6, "standard": 48, "full": len(PROGRAMS)}

    def batches(self, n: int, seed: int) -> Sequence[Batch]:
        """A batch for each model. After all programs they come again, laid out otherwise."""
        order = np.random.default_rng(seed).permutation(len(PROGRAMS))
        found = []
        for number in range(n):
            again, place = divmod(number, len(PROGRAMS))
            program, layout = PROGRAMS[order[place]], seed * 1000 + again
            case = Case(f"{program.name} {layout}", program.family, truth(program.name, layout))
            found.append(Batch(case.key, (case,), {"program": program.name, "layout": layout}))
        return found

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """A row for each model with what was verified of its truth; nothing explains circuits yet."""
        for case in batch.cases:
            if case.key in wanted:
                yield {"case": case.key, "family": case.family, **_checked(case, asking.seed)}

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """How much there is to find, and how much of it was verified."""
        sound = [row for row in rows if row["outcome"] != "failed"]
        labelled, whole = sum(row["labelled"] for row in sound), len(rows) >= MIN_PROGRAMS
        return [
            Score("programs", len({row["program"] for row in sound}), len(rows), goal=MIN_PROGRAMS if whole else None),
            _share("models exact and causally confirmed", len(sound), len(rows)),
            Score(
                "labelled components, causally confirmed", labelled, len(rows), goal=MIN_COMPONENTS if whole else None
            ),
            Score("idle parts that change nothing", sum(row["idle"] for row in sound), len(rows)),
            Score("roles recovered", None, 0),
        ]


def _checked(case: Case, seed: int) -> Row:
    began = monotonic()
    name, layout = case.truth["program"], case.truth["layout"]
    try:
        with opened(compiled := build(name, layout)) as target:
            found = verify(target, compiled, seed)
            forwards = target.forwards
    except Untrue as error:
        return {"outcome": "failed", "error": str(error), "seconds": monotonic() - began, "forwards": 0.0}
    return {
        "outcome": "not attempted",
        "program": name,
        "exact": True,
        "inputs": found.inputs,
        "places": found.places,
        "margin": found.margin,
        "labelled": found.confirmed,
        "idle": found.idle,
        "seconds": monotonic() - began,
        "forwards": forwards,
    }


@contextmanager
def opened(compiled: Compiled) -> Iterator[TargetModel]:
    """The target of a compiled model, for as long as its folder is there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / compiled.program.name
        yield load_target(write_folder(path, compiled.config, compiled.tensors, compiled.pieces))


def _share(name: str, hits: int, n: int) -> Score:
    low, high = clopper_pearson(hits, n) if n else (None, None)
    return Score(name, hits / n if n else None, n, low, high, goal=1.0)


SUITE = CompiledSuite()

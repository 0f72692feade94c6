"""Compiled programs: transformers whose every part is known. The truth is checked, then the assistant describes the model."""

import random
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from neuronaut.evals.compiler.compare import compare
from neuronaut.evals.compiler.drawn import drawn
from neuronaut.evals.compiler.program import MAX_LENGTH, Program, interpret
from neuronaut.evals.compiler.programs import PROGRAMS
from neuronaut.evals.compiler.verify import Untrue, verify
from neuronaut.evals.compiler.weights import Compiled, compile_program, piece_of
from neuronaut.evals.fixtures import write_folder
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size, share
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.programs.program import Program as Described
from neuronaut.tools.programs.tools import DescribeArgs, describe_program
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.stats import mean_interval
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target

MIN_PROGRAMS = 40
MIN_COMPONENTS = 80
HELD_OUT = 200  # fresh texts, drawn by another generator than those that a description is learnt from
REPRODUCED = 0.95  # of them, from which on a task counts as found
GOALS = {"auroc": 0.99, "tags": 0.95, "tasks": 0.95}
NO_TEXT = Corpus("no text", "", ())
EVERY = 4  # every so many cases one is drawn at random
BY_NAME = {program.name: program for program in PROGRAMS}


def program_named(name: str) -> Program:
    """A written program, or a drawn one, "drawn 12"."""
    return BY_NAME[name] if name in BY_NAME else drawn(int(name.removeprefix("drawn ")))


def build(name: str, layout: int) -> Compiled:
    """A program's model. layout: the seed of the order in which heads and neurons stand."""
    return compile_program(program_named(name), layout)


def truth(name: str, layout: int) -> dict[str, Any]:
    """What is asked for: the task, and the parts with their roles, what they read and write. JSON."""
    program = program_named(name)
    parts = [asdict(part) | {"indices": list(part.indices)} for part in build(name, layout).components]
    return {"program": name, "layout": layout, "task": program.task, "components": parts}


@dataclass(frozen=True)
class CompiledSuite:
    """See Suite. The circuit is part of the truth: the assistant gets the model only."""

    name: str = "compiled"
    about: str = "Transformers compiled from programs: the task, and the role of each head and group of neurons."

    @property
    def sizes(self) -> Mapping[Size, int]:
        """Programs of each selection; the full one has all that were written."""
        return {"smoke": 6, "standard": 48, "full": len(PROGRAMS) * EVERY // (EVERY - 1)}

    def batches(self, n: int, seed: int) -> Sequence[Batch]:
        """A batch for each model: three written programs, in random order, then one that is drawn at random. After all
        written ones they come again, laid out otherwise."""
        order = np.random.default_rng(seed).permutation(len(PROGRAMS))
        found = []
        for number in range(n):
            if number % EVERY == EVERY - 1:
                program, layout = drawn(1000 * seed + number // EVERY), seed * 1000
            else:
                again, place = divmod(number - number // EVERY, len(PROGRAMS))
                program, layout = PROGRAMS[order[place]], seed * 1000 + again
            case = Case(f"{program.name} {layout}", program.family, truth(program.name, layout))
            found.append(Batch(case.key, (case,), {"program": program.name, "layout": layout}))
        return found

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """A row for each model: what was verified of its truth, then what the assistant found of it."""
        for case in batch.cases:
            if case.key in wanted:
                yield {"case": case.key, "family": case.family, **_asked(case, asking.seed)}

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """How much there is to find, how much of it was verified, and how much was found. A failed case found nothing."""
        sound = [row for row in rows if "verified" in row]
        labelled, whole = sum(row["labelled"] for row in sound), len(rows) >= MIN_PROGRAMS
        return [
            Score("programs", len({row["program"] for row in sound}), len(rows), goal=MIN_PROGRAMS if whole else None),
            share("models exact and causally confirmed", len(sound), len(rows), goal=1.0),
            Score(
                "labelled components, causally confirmed", labelled, len(rows), goal=MIN_COMPONENTS if whole else None
            ),
            Score("idle parts that change nothing", sum(row["idle"] for row in sound), len(rows)),
            *_found(sound),
        ]


def _found(rows: Sequence[Row]) -> list[Score]:
    """Edges, roles and tasks, of all programs and of the drawn ones; a model that was not described has edges at chance,
    and no role or task."""
    drawn_ones = [row for row in rows if row["family"] == "drawn"]
    said, commonest, shuffled = (
        [row.get(name, 0.0) for row in rows] for name in ("reproduced", "null_commonest", "null_shuffled")
    )
    return [
        *_recovered(rows, "", GOALS),
        *_recovered(drawn_ones, "drawn programs: ", {}),
        Score("held-out texts reproduced", _mean(said), len(rows)),
        Score("held-out texts reproduced by the commonest output", _mean(commonest), len(rows)),
        Score("held-out texts reproduced with tables shuffled", _mean(shuffled), len(rows)),
    ]


def _recovered(rows: Sequence[Row], of: str, goals: Mapping[str, float]) -> list[Score]:
    aurocs = [row.get("auroc", 0.5) for row in rows]
    low, high = mean_interval(aurocs) or (None, None)
    tags, idle = sum(row["labelled"] + row["idle"] for row in rows), sum(row["idle"] for row in rows)
    right, idle_right = (sum(row.get(name, 0) for row in rows) for name in ("tags_right", "idle_right"))
    tasks = sum(row.get("reproduced", 0.0) >= REPRODUCED for row in rows)
    return [
        Score(
            f"{of}edges: mean AUROC",
            _mean(aurocs),
            len(rows),
            low,
            None if high is None else min(high, 1.0),
            goal=goals.get("auroc"),
        ),
        share(f"{of}roles right", right, tags, goal=goals.get("tags")),
        share(f"{of}roles right, idle parts apart", right - idle_right, tags - idle),
        share(f"{of}tasks: 95 % of held-out texts reproduced", tasks, len(rows), goal=goals.get("tasks")),
    ]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _asked(case: Case, seed: int) -> Row:
    began = monotonic()
    name, layout = case.truth["program"], case.truth["layout"]
    row: Row = {"outcome": "ok", "program": name}
    with opened(compiled := build(name, layout)) as target:
        try:
            found = verify(target, compiled, seed)
            row |= {"verified": True, "inputs": found.inputs, "places": found.places, "margin": found.margin}
            row |= {"labelled": found.confirmed, "idle": found.idle}
            row |= _described(target, compiled, case, seed)
        except (Untrue, ToolRefused, ToolFailed) as error:
            row |= {"outcome": "failed", "error": str(error)}
        forwards = target.forwards
    return row | {"seconds": monotonic() - began, "forwards": forwards}


def _described(target: TargetModel, compiled: Compiled, case: Case, seed: int) -> Row:
    """What the assistant finds out. It is told which words the texts are made of, and nothing else."""
    began, before = monotonic(), target.forwards
    words = tuple(str(token) for token in compiled.program.tokens.domain)
    result = describe_program(ToolContext(target, NO_TEXT), DescribeArgs(vocabulary=words, seed=seed))
    took, forwards = monotonic() - began, target.forwards - before
    compared = compare(result.payload, case.truth["components"], compiled.program.output.name)
    nulls = result.payload["nulls"]
    return {
        "auroc": compared.auroc,
        "tags_right": compared.right,
        "idle_right": compared.idle_right,
        "tags_wrong": list(compared.wrong),
        "reproduced": reproduced(compiled, Described.from_data(result.payload["program"]), seed),
        "null_commonest": nulls["commonest output of each place"],
        "null_shuffled": nulls["tables shuffled"],
        "description": result.payload["text"],
        "described_seconds": took,
        "described_forwards": forwards,
    }


def reproduced(compiled: Compiled, described: Described, seed: int) -> float:
    """The share of fresh random texts on which a described program says what the model was verified to say, at all places."""
    rng, domain = random.Random(f"held out {seed}"), compiled.program.tokens.domain
    right = 0
    for _ in range(HELD_OUT):
        text = rng.choices(range(len(domain)), k=MAX_LENGTH)
        truth = interpret(compiled.program, [str(domain[word]) for word in text])
        right += described.says(text) == [piece_of(label) for label in truth]
    return right / HELD_OUT


@contextmanager
def opened(compiled: Compiled) -> Iterator[TargetModel]:
    """The target of a compiled model, for as long as its folder is there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / compiled.program.name
        yield load_target(write_folder(path, compiled.config, compiled.tensors, compiled.pieces))


SUITE = CompiledSuite()

"""What the fast loop of labelling costs, and what it gives up beside the others, on the same units in one run.

    python -m neuronaut.evals.label_speed --kind natural --units 40 --loops fast one-shot full --rows FILE

natural: live neurons of the embedded model. planted: rules of all families, put in place of neurons. nulls: activations dealt
out by hashes, in which nothing is to be found. The processor's time is counted, which other programs disturb less; passes
over natural text are read first, for all units together, and reported apart. The same command goes on with the rows in FILE.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from neuronaut.agent.config import Loop
from neuronaut.evals.batch import cached_corpus, cached_target
from neuronaut.evals.draws import draw_truths
from neuronaut.evals.loop import ask_each, supported
from neuronaut.evals.planted import judged, planted
from neuronaut.evals.sample import live_sample
from neuronaut.evals.truths import Truth, families
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.look.examples import EXPLORE_TOKENS, LIST_TOKENS
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.together import BatchContext
from neuronaut.tools.trials.null_units import NULL_KINDS, null_of
from neuronaut.tools.units import Unit

Kind = Literal["natural", "planted", "nulls"]
GOAL = 30.0  # units a minute of the fast loop on natural neurons, one thread
TOOLS = {"firing": "looking", "top_examples": "looking", "compare_on_design": "design text", "test_reads": "test"}
REST = "search and notebook"
Row = dict[str, Any]


class Bench(NamedTuple):
    """Units of one kind, with the rules planted in them, if any."""

    context: BatchContext
    units: list[Unit]
    truths: list[Truth]

    @classmethod
    def of(cls, kind: Kind, n: int, seed: int) -> "Bench":
        """`n` units of a seed."""
        target, corpus = cached_target(), cached_corpus()
        if kind == "planted":
            drawn = draw_truths(ToolContext(target, corpus), families(n), seed)
            truths = [one for one in drawn if isinstance(one, Truth)]
            overlay, units = planted(target, truths, seed)
            return cls(BatchContext(overlay, corpus, units=tuple(units)), units, truths)
        units = live_sample(target, corpus, n, seed)
        context = BatchContext(target, corpus, units=tuple(units))
        if kind == "nulls":
            kinds = [NULL_KINDS[number % len(NULL_KINDS)] for number in range(n)]
            nulls = {
                unit: null_of(context, unit, kind, seed * 10_000 + i)
                for i, (unit, kind) in enumerate(zip(units, kinds, strict=True))
            }
            context = BatchContext(Overlay(target, nulls), corpus, units=tuple(units))
        return cls(context, units, [])

    def read(self) -> float:
        """Processor seconds of the passes over natural text that all units share."""
        began, unit = time.process_time(), self.units[0]
        for n_tokens in (EXPLORE_TOKENS, LIST_TOKENS):
            self.context.activations(unit, "explore", n_tokens=n_tokens)
        self.context.activations(unit, "design")
        self.context.activations(unit, "confirm", block=0)
        return time.process_time() - began

    def rows(self, units: Sequence[Unit], loop: Loop, seed: int) -> Iterator[Row]:
        """A row a unit: claims, processor seconds, and the share of each phase in the time of the experiments' clock."""
        with tempfile.TemporaryDirectory() as folder:
            path, began = Path(folder) / "notebook.db", time.process_time()
            for row in ask_each(self.context, units, seed, path, loop=loop):
                spent, began = time.process_time() - began, time.process_time()
                if self.truths and row["outcome"] == "ok":
                    truth = self.truths[self.units.index(Unit.parse(row["unit"]))]
                    row = judged(row, truth, self.context.tokens("audit"))
                with Notebook(path) as notebook:
                    phases = _phases(notebook, row)
                began = time.process_time()
                kept = ("unit", "outcome", "error", "claims", "forwards", "truth", "truth_f1", "score")
                yield {
                    **{name: row[name] for name in kept if name in row},
                    "loop": loop,
                    "cpu": spent,
                    "phases": phases,
                }


def _phases(notebook: Notebook, row: Row) -> dict[str, float]:
    """Share of each phase in the time of a unit."""
    spent: dict[str, float] = defaultdict(float)
    for one in queries.experiments(notebook, row["run"]):
        spent[TOOLS.get(one["tool"], REST)] += one["end"]["seconds"] if one["end"] else 0.0
    spent[REST] += max(row["seconds"] - sum(spent.values()), 0.0)
    return {name: seconds / max(row["seconds"], 1e-9) for name, seconds in spent.items()}


def table(rows: Sequence[Row]) -> list[str]:
    """A line for each loop: what it found on the units that all of them were asked about, and its cost."""
    by: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by[row["loop"]][row["unit"]] = row
    shared = set.intersection(*(set(one) for one in by.values()))
    lines = ["| loop | units | SUPPORTED | mean F1 | of SUPPORTED | mean F1 of the truth | false | seconds | a minute |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    return lines + [_line(loop, [one[unit] for unit in sorted(shared)]) for loop, one in by.items()]


def _line(loop: str, rows: Sequence[Row]) -> str:
    proved = [row for row in rows if supported(row)]
    best = [max((claim["f1"] for claim in row["claims"]), default=0.0) for row in rows]
    good = [max(claim["f1"] for claim in supported(row)) for row in proved]
    true = [row["truth_f1"] for row in rows if "truth_f1" in row]
    false = sum(row.get("truth_f1", 1.0) < 0.5 for row in proved)
    cpu = float(np.mean([row["cpu"] for row in rows]))
    cells = [loop, str(len(rows)), f"{len(proved)} ({len(proved) / max(len(rows), 1):.0%})", f"{np.mean(best):.2f}",
             f"{np.mean(good):.2f}" if good else "-", f"{np.mean(true):.2f}" if true else "-", str(false) if true else "-",
             f"{cpu:.2f}", f"{60 / cpu:.0f}"]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: exit 1 where the fast loop labels fewer natural neurons a minute than its goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=get_args(Kind), default="natural")
    parser.add_argument("--units", type=int, default=40)
    parser.add_argument("--loops", nargs="+", choices=get_args(Loop), default=["fast"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=None)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows and args.rows.exists() else []
    bench = Bench.of(args.kind, args.units, args.seed)
    reading = bench.read() / len(bench.units)
    for loop in args.loops:
        done = {row["unit"] for row in rows if row["loop"] == loop}
        for row in bench.rows([unit for unit in bench.units if unit.address not in done], loop, args.seed):
            rows.append(row)
            if args.rows:
                with args.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print("\n".join(table(rows)))
    fast = [row for row in rows if row["loop"] == "fast"]
    if fast:
        print(_told(fast, reading))
        if args.kind == "natural":
            sys.exit(0 if _rate(fast, reading) >= GOAL else 1)


def _rate(rows: Sequence[Row], reading: float) -> float:
    """Units a minute, a unit's part of reading the text counted."""
    return 60 / (float(np.mean([row["cpu"] for row in rows])) + reading)


def _told(rows: Sequence[Row], reading: float) -> str:
    """The rate and where the time goes."""
    names = dict.fromkeys([REST, *TOOLS.values()])
    cpu = np.array([row["cpu"] for row in rows])
    parts = {name: float(np.mean([row["phases"].get(name, 0.0) * row["cpu"] for row in rows])) for name in names}
    told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
    return (
        f"fast: {_rate(rows, reading):.0f} units a minute with reading the text (goal {GOAL:g}); seconds a unit: {cpu.mean():.2f} "
        f"(median {np.median(cpu):.2f}) and {reading:.2f} of reading; {told}; forward passes "
        f"{np.mean([row['forwards'] for row in rows]):.0f}"
    )


if __name__ == "__main__":
    main()

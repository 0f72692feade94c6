"""How much faster two Ray workers of one thread label than one does: python -m neuronaut.evals.ray_speed

Batches of the same units take turns: with one worker, with two, and again (`--rounds`). Without null units, and with a limit of
eight units a layer, the leases of two workers are equal, so that neither waits at the end. The rate is of ended units a minute from
the moment when the batch was begun, so that starting Ray and loading models does not count. On a machine that does other
work the ratio says what was left over: the load is printed beside it, and processor seconds a unit, which it disturbs less.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

GOAL = 1.6
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Used:
    """Processor seconds of this command and of Ray's workers, by process, as long as they were seen."""

    by_process: dict[int, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self, driver: int) -> None:
        """Look every half second."""
        while not self.over.wait(0.5):
            self.look(driver)

    def look(self, driver: int) -> None:
        """Look once. driver: the process of the command."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    self._look(folder, driver)

    def _look(self, folder: Path, driver: int) -> None:
        mine = int(folder.name) == driver
        if mine or (folder / "cmdline").read_bytes().startswith(b"ray::Seat"):
            ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
            self.by_process[int(folder.name)] = sum(map(int, ticks)) / TICKS


@dataclass(frozen=True)
class Batch:
    """A batch: its units, seconds from its begin to its last unit, processor seconds meanwhile, and the load of the machine."""

    units: int
    seconds: float
    driver_seconds: float
    worker_seconds: float
    load: float

    @property
    def a_minute(self) -> float:
        """Units a minute."""
        return 60 * self.units / self.seconds

    @property
    def busy(self) -> float:
        """Processors that were at work for it, in the mean."""
        return (self.worker_seconds + self.driver_seconds) / self.seconds


def labelled(jobs: int, chosen: list[str]) -> Batch:
    """A batch of what was chosen, with so many workers of one thread, in a new notebook."""
    with tempfile.TemporaryDirectory() as folder:
        argv = ["label", "--fast", *chosen, "--notebook", f"{folder}/n.db", "--json"]
        argv += ["--engine", "ray", "--jobs", str(jobs), "--threads", "1"]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",
        }  # by default Ray lets all others go first
        process = subprocess.Popen(
            [sys.executable, "-m", "neuronaut", *argv],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if line.split()[:1] == ["run"]:
                break
        began, used = time.monotonic(), Used()
        used.look(process.pid)
        before = dict(used.by_process)
        thread = threading.Thread(target=used.watch, args=(process.pid,), daemon=True)
        thread.start()
        ended = [time.monotonic() for line in process.stdout if json.loads(line)["event"] == "item"]
        load = os.getloadavg()[0]
        used.over.set()
        if process.wait() != 0 or not ended:
            raise SystemExit(process.stderr.read())
        spent = {pid: seconds - before.get(pid, 0.0) for pid, seconds in used.by_process.items()}
        driver = spent.pop(process.pid, 0.0)
        return Batch(len(ended), ended[-1] - began, driver, sum(spent.values()), load)


def main() -> None:
    """Prints a line a batch and the ratio; exit 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--corpus")
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--layers", default="3-6")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chosen = ["--model", asked.model, *(["--corpus", asked.corpus] if asked.corpus else [])]
    chosen += ["--layers", asked.layers, "--limit", str(asked.units), "--seed", str(asked.seed), "--nulls", "0"]
    found: dict[int, list[Batch]] = {1: [], 2: []}
    for _ in range(asked.rounds):
        for jobs, batches in found.items():
            one = labelled(jobs, chosen)
            batches.append(one)
            print(
                f"{jobs} worker{'s' if jobs > 1 else ' '}  {one.a_minute:6.1f} units a minute · processor seconds a unit: workers "
                f"{one.worker_seconds / one.units:.2f}, driver {one.driver_seconds / one.units:.2f} · {one.busy:.2f} of "
                f"{os.cpu_count()} processors at work for it, load {one.load:.1f}",
                flush=True,
            )
    ratios = [two.a_minute / one.a_minute for one, two in zip(found[1], found[2], strict=True)]
    print(
        f"two workers beside one: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}; goal ≥ {GOAL})"
    )
    sys.exit(statistics.median(ratios) < GOAL)


if __name__ == "__main__":
    main()

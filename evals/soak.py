"""Faults by the thousand: python -m neuronaut.evals.soak [--seed N] [--out docs/soak.md] [NAME…]

Each experiment draws its cases from a seed; the tests run a twentieth of each, this command all, and writes what came out.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from neuronaut import __version__

SHARE = 20  # the tests run one case in so many
SHOWN = 20  # failures of an experiment that the report names


@dataclass
class Result:
    """How many cases came out in which way, and a sentence for each that came out as it must not."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Experiment:
    """So many cases of one kind of fault. passes: what must be true of each; run(seed, n): n of them, drawn with the seed."""

    name: str
    count: int
    passes: str
    run: Callable[[int, int], Result]


EXPERIMENTS: dict[str, str] = {
    "http": "neuronaut.evals.soak_http:FAULTS",
    "streams": "neuronaut.evals.soak_http:STREAMS",
    "replies": "neuronaut.evals.soak_replies:REPLIES",
    "canaries": "neuronaut.evals.soak_canaries:CANARIES",
    "calls": "neuronaut.evals.wrong_calls:CALLS",
    "orders": "neuronaut.evals.injection:ORDERS",
    "pages": "neuronaut.evals.soak_pages:RENDERS",
    "addresses": "neuronaut.evals.soak_pages:ADDRESSES",
}


def load(name: str) -> Experiment:
    """The experiment of that name."""
    module, _, attribute = EXPERIMENTS[name].partition(":")
    experiment: Experiment = getattr(import_module(module), attribute)
    return experiment


def report(done: Iterable[tuple[Experiment, Result, float]], seed: int, commit: str) -> str:
    """The page that says what was run and what came out."""
    lines = [
        "# Faults by the thousand",
        "",
        f"`make soak` on {datetime.now(UTC):%Y-%m-%d}, version {__version__}, commit {commit}, seed {seed}. The tests run a "
        f"{SHARE}th of each.",
        "",
        "| what | cases | failures | seconds | each must |",
        "|---|---|---|---|---|",
    ]
    done = list(done)
    for one, result, seconds in done:
        n = sum(result.outcomes.values())
        lines.append(f"| {one.name} | {n:,} | {len(result.failures)} | {seconds:.0f} | {one.passes} |")
    for one, result, _ in done:
        lines += ["", f"## {one.name}", "", "| outcome | cases |", "|---|---|"]
        lines += [f"| {outcome} | {n:,} |" for outcome, n in sorted(result.outcomes.items())]
        lines += [f"- failed: {failure}" for failure in ["", *result.failures][: SHOWN + 1] if failure]
    return "\n".join(lines) + "\n"


def _commit() -> str:
    """The commit of this checkout, with a mark where files differ from it."""
    folder = Path(__file__).resolve().parent
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


def main() -> int:
    """Run the experiments and write the report; 1 where a case failed."""
    parser = argparse.ArgumentParser(prog="python -m neuronaut.evals.soak", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"Of {', '.join(EXPERIMENTS)}; all where none is given."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Write the report to this file instead of printing it.")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(EXPERIMENTS):
        parser.error(f"there is no experiment {sorted(unknown)}: choose from {', '.join(EXPERIMENTS)}")
    done, commit = [], _commit()
    for name in chosen.names or EXPERIMENTS:
        one, began = load(name), time.monotonic()
        result = one.run(chosen.seed, one.count)
        done.append((one, result, time.monotonic() - began))
        print(f"{one.name}: {sum(result.outcomes.values())} cases, {len(result.failures)} failures", file=sys.stderr)
    text = report(done, chosen.seed, commit)
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return int(any(result.failures for _, result, _ in done))


if __name__ == "__main__":
    sys.exit(main())

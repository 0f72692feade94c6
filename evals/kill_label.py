"""Is anything lost or doubled when `label` is killed? python -m neuronaut.evals.kill_label --model FOLDER --corpus FILE

Each round kills a batch with SIGKILL at a random moment (`--rounds`), or just before or after some call of each of the
notebook's methods that a batch uses (`--named`: the named failpoints), in every third round the resumed batch too; it then
goes on to the end, and the notebook is compared with that of an undisturbed batch.
"""

import argparse
import functools
import json
import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuronaut.evals.kill import Kill, ended, load_once, one_round, process, random_kills, undisturbed
from neuronaut.memory.notebook import Notebook

# What a batch records, in the order in which it first does.
FAILPOINTS = (
    "start_run", "add_items", "lease", "begin_item", "begin_experiment", "end_experiment", "add_hypothesis", "open_block",
    "register", "verdict", "outcome", "end_run", "end_item", "release",
)  # fmt: skip


def dying_at(name: str, call: int, *, after: bool) -> Callable[[], None]:
    """Prepares a process that kills itself at the n-th call of a method of the notebook: before it, or after it."""

    def prepare() -> None:
        original, seen = getattr(Notebook, name), [0]

        @functools.wraps(original)
        def counted(self: Notebook, *args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            here = seen[0] == call
            if here and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = original(self, *args, **kwargs)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        setattr(Notebook, name, counted)

    return prepare


def kill_at(name: str, call: int, *, after: bool) -> Kill:
    """A kill at a named failpoint; none where the batch ends without so many calls of it."""

    def kill(argv: list[str], log: Path) -> str | None:
        code = ended(process(argv, log, dying_at(name, call, after=after)))
        return f"{'after' if after else 'before'} {name} {call}" if code == -signal.SIGKILL else None

    return kill


def named_kills(rng: random.Random, n: int) -> Iterator[list[Kill]]:
    """`n` lists of kills at failpoints in turn, before and after, at one of their first calls; every third list kills the
    resumed batch at another one too."""
    for number in range(n):
        name, after = FAILPOINTS[number // 2 % len(FAILPOINTS)], bool(number % 2)
        kills = [kill_at(name, rng.choice((1, 2, 3)), after=after)]
        if number % 3 == 2:
            kills.append(kill_at(rng.choice(FAILPOINTS[2:]), 1, after=rng.random() < 0.5))
        yield kills


def main() -> None:
    """Print one line a round and a JSON summary; exit 1 if anything was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--corpus")
    parser.add_argument("--units", default="4", help="how many units are labelled")
    parser.add_argument("--rounds", type=int, default=10, help="rounds killed at random moments")
    parser.add_argument("--named", type=int, default=10, help="rounds killed at named failpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    load_once()
    label = ["label", "--fast", "--limit", args.units, "--nulls", "0.25", "--model", args.model]
    label += ["--corpus", args.corpus] if args.corpus else []
    rng, rounds = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = undisturbed(folder, label)
        plans = [random_kills(rng, whole.seconds, number) for number in range(args.rounds)]
        for number, kills in enumerate([*plans, *named_kills(rng, args.named)]):
            rounds.append(one_round(number, folder, label, kills, whole.findings))
            print(json.dumps(asdict(rounds[-1])), flush=True)
            for file in folder.glob(f"{number}.*"):
                file.unlink()
    passed = sum(one.passed for one in rounds)
    print(json.dumps({"rounds": len(rounds), "passed": passed, "kills": sum(len(one.kills) for one in rounds),
                      "seconds_undisturbed": round(whole.seconds, 1), "commits": whole.commits,
                      "items": len(whole.findings["items"]), "verdicts": len(whole.findings.get("verdicts", [])),
                      "finished_twice": sum(one.repeated for one in rounds),
                      "begun_again": sum(one.begun_twice for one in rounds)}))  # fmt: skip
    raise SystemExit(passed < len(rounds))


if __name__ == "__main__":
    main()

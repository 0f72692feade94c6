"""Is anything lost or doubled when `ask` is killed? python -m neuronaut.evals.kill --model FOLDER --corpus FILE

Each round kills an `ask` with SIGKILL at a random moment (`--rounds`), or just before and just after every so many commits
(`--every`), resumes it (killing the resumed one too, or deleting the checkpoints, in every third round), and compares the
notebook with that of an undisturbed run.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from neuronaut.agent import cli
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.store import Store
from neuronaut.memory.verify import verify

QUESTION = "what does neuron 2.10- do"
# Loaded once before the processes part, so that a round costs the work and not the imports.
LOADED_BEFORE = ("neuronaut.agent.label.batch", "neuronaut.agent.runs", "neuronaut.agent.proposers.grammar", "neuronaut.agent.render",
                 "langgraph.checkpoint.sqlite", "langgraph.graph", "transformer_lens")  # fmt: skip

Findings = dict[str, list[str]]
Kill = Callable[[list[str], Path], str | None]  # runs a command to its death; when it died, None if it ended before


@dataclass
class Round:
    """One round: where it was killed, and what the notebook says afterwards."""

    kills: list[str]
    same_findings: bool
    repeated: int
    begun_twice: int
    problems: list[str]

    @property
    def passed(self) -> bool:
        """Nothing lost, nothing doubled, at most one experiment begun again for each kill."""
        return self.same_findings and not self.repeated and not self.problems and self.begun_twice <= len(self.kills)


def process(argv: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """The id of a new process that runs `neuronaut ARGV`, its output appended to `log`."""
    pid = os.fork()
    if pid:
        return pid
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    try:
        prepare()
        sys.argv = ["neuronaut", *argv]
        cli.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """The exit code of a process, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def counting_commits(at: Callable[[int, bool], None]) -> Callable[[], None]:
    """Prepares a process that calls `at(number, after)` just before and just after each of its commits."""

    def prepare() -> None:
        original, number = Store._transaction, itertools.count(1)

        @contextlib.contextmanager
        def counted(self: Store, *, writing: bool) -> Iterator[None]:
            if not writing:
                with original(self, writing=False):
                    yield
                return
            now = next(number)
            with original(self, writing=True):
                yield
                at(now, False)
            at(now, True)

        Store._transaction = counted  # type: ignore[method-assign]

    return prepare


def die_at_commit(number: int, *, after: bool) -> Callable[[], None]:
    """Prepares a process that kills itself at its `number`-th commit: just before it, or just after."""

    def at(now: int, committed: bool) -> None:
        if (now, committed) == (number, after):
            os.kill(os.getpid(), signal.SIGKILL)

    return counting_commits(at)


def findings(path: Path) -> Findings:
    """All that a run found, without ids and times: equal for equal work."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    with Notebook(path, read_only=True) as notebook:
        for run in all_runs(notebook):
            found["runs"].append(_text([run["question"], run["outcome"]]))
            items = notebook.items(run["id"])
            found["items"] += [_text([i.address, i.null_kind, i.state, i.reason, i.owner]) for i in items]
            found["outcomes"] += [_text(list(row.values())) for row in queries.outcomes(notebook, run["id"])]
            for row in queries.hypotheses(notebook, run["id"]):
                who = [row["address"], row["side"], row["claim"]]
                found["hypotheses"].append(_text([*who, row["author"], row["status"]]))
                found["predictions"] += [_text([*who, p["split"], p["payload"]]) for p in row["predictions"]]
                for verdict in row["verdicts"]:
                    found["verdicts"].append(_text([*who, verdict["outcome"], verdict["reason"], verdict["case"]]))
                    found["evidence"] += [_text([*who, e["metric"], e["value"]]) for e in verdict["evidence"]]
    return {name: sorted(rows) for name, rows in found.items()}


def all_runs(notebook: Notebook) -> list[dict[str, Any]]:
    """The runs of questions and of batches, and those of the items of batches, with what they asked and how they ended."""
    alone = queries.runs(notebook)
    inside = [asked for run in alone for asked in notebook.asked_for(run["id"])]
    rows = [queries.find_run(notebook, run) for run in inside]
    return [*alone, *({**row, "outcome": row["end"] and row["end"]["outcome"]} for row in rows)]


def _text(row: list[Any]) -> str:
    return json.dumps(row, sort_keys=True)


def counts(path: Path) -> tuple[int, int, list[str]]:
    """Experiments finished more than once, experiments begun more than once, and what `verify` finds."""
    with Notebook(path, read_only=True) as notebook:
        rows = [row for run in all_runs(notebook) for row in queries.experiments(notebook, run["id"])]
        problems = verify(notebook, notebook.head())
    begun = Counter(row["key"] for row in rows)
    finished = Counter(row["key"] for row in rows if row["end"] and row["end"]["outcome"] == "ok")
    return sum(n - 1 for n in finished.values()), sum(n - 1 for n in begun.values()), problems


def next_command(path: Path, ask: list[str]) -> list[str]:
    """`resume RUN` where the notebook knows a run (of a batch `label resume RUN`), else `ask` again: it was killed before it
    began."""
    if path.exists():
        with contextlib.closing(Notebook(path)) as notebook:
            if runs := queries.runs(notebook):
                return [*(["label"] if ask[0] == "label" else []), "resume", runs[0]["id"], "--notebook", str(path)]
    return ask


def killed_after(pid: int, seconds: float) -> str | None:
    """SIGKILL after so long; None when the process had ended by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return None
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    return f"after {seconds:.2f} s"


def random_kills(rng: random.Random, seconds: float, number: int) -> list[Kill]:
    """One kill at a random moment; in every third round the resumed run is killed too."""
    return [
        lambda argv, log: killed_after(process(argv, log), rng.uniform(0, seconds))
        for _ in range(2 if number % 3 == 2 else 1)
    ]


def kill_at_commit(number: int, *, after: bool) -> Kill:
    """A kill just before or just after a commit."""

    def kill(argv: list[str], log: Path) -> str | None:
        code = ended(process(argv, log, die_at_commit(number, after=after)))
        return f"{'after' if after else 'before'} commit {number}" if code == -signal.SIGKILL else None

    return kill


def one_round(number: int, folder: Path, ask: list[str], kills: list[Kill], wanted: Findings) -> Round:
    """Kill, resume to the end, compare; every third round loses its checkpoints."""
    path, log = folder / f"{number}.db", folder / f"{number}.log"
    ask = [*ask, "--notebook", str(path)]
    done = [at for kill in kills if (at := kill(next_command(path, ask), log))]
    if number % 3 == 1:
        for file in folder.glob(f"{number}.db.checkpoints*"):
            file.unlink()
    code = ended(process(next_command(path, ask), log))
    if code:
        return Round(done, False, 0, 0, [f"resume ended with {code}: {log.read_text(errors='replace')[-500:]}"])
    return Round(done, findings(path) == wanted, *counts(path))


def load_once() -> None:
    """Import what every process needs, before any computation, so that processes can part safely."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in LOADED_BEFORE:
        importlib.import_module(name)


class Whole(NamedTuple):
    """A run that nothing disturbs: what it finds, its seconds and its commits."""

    findings: Findings
    seconds: float
    commits: int


def undisturbed(folder: Path, ask: list[str]) -> Whole:
    """The run that all others are compared with."""
    began, commits = time.monotonic(), folder / "commits"

    def note(number: int, after: bool) -> None:
        commits.write_text(str(number))

    argv = [*ask, "--notebook", str(folder / "whole.db")]
    code = ended(process(argv, folder / "whole.log", counting_commits(note)))
    if code:
        raise SystemExit((folder / "whole.log").read_text(errors="replace"))
    return Whole(findings(folder / "whole.db"), time.monotonic() - began, int(commits.read_text()))


def main() -> None:
    """Print one line a round and a JSON summary; exit 1 if anything was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--corpus")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--fast", action="store_true", help="the reads side only")
    parser.add_argument("--rounds", type=int, default=10, help="rounds killed at random moments")
    parser.add_argument("--every", type=int, default=0, help="also kill before and after every so many commits")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    load_once()
    ask = ["ask", args.question, "--model", args.model, *(["--corpus", args.corpus] if args.corpus else [])]
    ask += ["--fast"] if args.fast else []
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = undisturbed(folder, ask)
        plans = [random_kills(rng, whole.seconds, number) for number in range(args.rounds)]
        chosen = range(1, whole.commits + 1, args.every) if args.every else ()
        plans += [[kill_at_commit(number, after=after)] for number in chosen for after in (False, True)]
        rounds = []
        for number, kills in enumerate(plans):
            rounds.append(one_round(number, folder, ask, kills, whole.findings))
            print(json.dumps(asdict(rounds[-1])), flush=True)
    passed = sum(one.passed for one in rounds)
    print(json.dumps({"rounds": len(rounds), "passed": passed, "kills": sum(len(one.kills) for one in rounds),
                      "seconds_undisturbed": round(whole.seconds, 1), "commits": whole.commits,
                      "verdicts": len(whole.findings.get("verdicts", [])), "finished_twice": sum(one.repeated for one in rounds),
                      "begun_again": sum(one.begun_twice for one in rounds)}))  # fmt: skip
    raise SystemExit(passed < len(rounds))


if __name__ == "__main__":
    main()

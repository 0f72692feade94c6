"""What pages start: `neuronaut ask` and `neuronaut rerun` as processes of their own, on the notebook that the pages show."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass, field

from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, Place, Server
from neuronaut.memory.review.runner import Job, State
from neuronaut.memory.store import new_id
from neuronaut.tools.errors import UserError

LINES = 400  # of a process that are kept
PATIENCE = 10.0  # seconds that an interrupted process has to end
INTERRUPTED = (130, -signal.SIGINT, -signal.SIGTERM, -9)
_RUN = re.compile(r"^\s*run\s+([0-9A-HJKMNP-TV-Z]{26})\b")
_SHOWN = re.compile(r"^\s*run ([0-9A-HJKMNP-TV-Z]{26}) · ")


@dataclass
class _Work:
    """One process and what it has said."""

    id: str
    title: str
    as_json: bool
    process: subprocess.Popen[str]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    run: str = ""
    state: State = "working"

    @property
    def job(self) -> Job:
        """As pages show it."""
        return Job(self.id, self.title, self.state, tuple(self.lines), self.run)


class Processes:
    """One process at a time. Ask after `close`, and nothing is started any more."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._turn = threading.Lock()
        self._work: dict[str, _Work] = {}

    def ask(self, question: str, like_run: str) -> Job:
        """Begin to ask a question, of the model and text of an earlier run; no language model is asked."""
        with Notebook(self.place, read_only=True) as notebook:
            config = queries.find_run(notebook, like_run)["config"]
        options = ["--model", str(config.get("model", "pocket")), "--seed", str(config.get("seed", 0))]
        options += ["--corpus", config["corpus"]] if config.get("corpus") else []
        for name, used in (config.get("dictionaries") or {}).items():
            options += ["--dictionary", f"{name}={used['folder']}"] if used.get("folder") else []
        for option, kind in (("--other", "others"), ("--labels", "labels"), ("--head", "heads")):
            for name, one in (config.get(kind) or {}).items():
                options += [option, f"{name}={one['place']}"]
        options += ["--fast"] if config.get("fast") else []
        return self._begin(question, ["ask", *options, "--", question], as_json=False)

    def rerun(self, identifier: str) -> Job:
        """Begin to measure a run or an experiment again."""
        return self._begin(f"rerun {identifier}", ["rerun", "--json", "--", identifier], as_json=True)

    def _begin(self, title: str, command: list[str], *, as_json: bool) -> Job:
        with self._turn:
            busy = next((one for one in self._work.values() if one.state == "working"), None)
            if busy is not None:
                raise UserError(f"{busy.title!r} is at work: wait for it, or stop it at /jobs/{busy.id}")
            process = subprocess.Popen(
                [sys.executable, "-m", "neuronaut", *command], env=os.environ | {"NEURONAUT_NOTEBOOK": _named(self.place)},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
                errors="replace", start_new_session=True,
            )  # fmt: skip
            work = _Work(new_id(), title, as_json, process)
            self._work[work.id] = work
        threading.Thread(target=_follow, args=(work,), daemon=True).start()
        return work.job

    def jobs(self) -> list[Job]:
        """What was begun, the newest first."""
        return [work.job for work in reversed(self._work.values())]

    def job(self, identifier: str) -> Job | None:
        """One of them; None for an unknown id."""
        work = self._work.get(identifier)
        return None if work is None else work.job

    def stop(self, identifier: str) -> None:
        """Interrupt it, as Ctrl-C would."""
        work = self._work.get(identifier)
        if work is None:
            raise UserError("there is no such piece of work: it was begun before these pages were started, or never")
        if work.state == "working":
            work.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Interrupt what is at work, and end it where it does not listen."""
        for work in self._work.values():
            if work.process.poll() is None:
                work.process.send_signal(signal.SIGINT)
                try:
                    work.process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    work.process.kill()


def _named(place: Place) -> str:
    """What a process finds the notebook by, with what it takes to get in: it is not shown anywhere."""
    match place:
        case File(path):
            return str(path.resolve())
        case Server(url):
            return url
        case _:
            return str(place)


def _follow(work: _Work) -> None:
    """Keep what the process says, until it ends."""
    assert work.process.stdout is not None
    assert work.process.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda out: said.extend(out), args=(work.process.stdout,), daemon=True)
    reader.start()
    for line in work.process.stderr:
        work.lines.append(line.rstrip("\n"))
        work.run = (found[1] if (found := _RUN.match(line)) else "") or work.run
    code = work.process.wait()
    reader.join()
    work.process.stdout.close()
    work.process.stderr.close()
    answered = _answered(work, said)
    work.state = "done" if code == 0 or (code == 1 and answered) else "stopped" if code in INTERRUPTED else "failed"


def _answered(work: _Work, said: list[str]) -> bool:
    """Add what stands on stdout to the lines; whether it is an answer."""
    if not work.as_json:
        for line in said:
            work.lines.append(line.rstrip("\n"))
            work.run = work.run or (found[1] if (found := _SHOWN.match(line)) else "")
        return bool(said)
    try:
        result = json.loads("".join(said))
    except ValueError:
        return False
    work.run = str(result["run"])
    for row in result["repeats"]:
        work.lines.append(f"{row['outcome']:<17} {row['tool']:<18} {row['experiment']}  {row['detail']}")
    work.lines.append(f"changed inputs: {', '.join(result['changed_inputs']) or 'none'}")
    return True

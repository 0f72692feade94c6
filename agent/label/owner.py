"""Who holds a lease: a name that says whether its process still lives, a heartbeat, and leave to stop."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from neuronaut.memory.notebook import Notebook
from neuronaut.memory.store import new_id
from neuronaut.tools.errors import UserError

LEASE_SECONDS = 120.0
BEAT_SECONDS = 20.0


def own_name() -> str:
    """Host, process and the moment when the process began, so that another one of the same number is not taken for it."""
    return f"{socket.gethostname()}/{os.getpid()}/{_began(os.getpid())}/{new_id()}"


def alive(owner: str) -> bool:
    """Whether the owner may still be at work: False only where its process was on this host and is gone."""
    host, _, rest = owner.partition("/")
    pid, _, rest = rest.partition("/")
    if host != socket.gethostname() or not pid.isdecimal():
        return True
    return _began(int(pid)) == rest.partition("/")[0]


def _began(pid: int) -> str:
    """When a process began, in the clock ticks of the kernel; "" where there is no such process."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() or not _exists(pid) else "-"
    return "" if fields[0] == "Z" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass
class Leave:
    """Whether to go on: asked to stop once, the item in hand is finished; twice, everything stops now."""

    asked: int = 0
    said: list[str] = field(default_factory=list)

    def take(self, _number: int, _frame: FrameType | None) -> None:
        """A signal handler."""
        self.asked += 1
        if self.asked > 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def asking_leave() -> Iterator[Leave]:
    """Ctrl-C sets the leave instead of stopping at once; in a thread other than the main one nothing is caught."""
    leave = Leave()
    if threading.current_thread() is not threading.main_thread():
        yield leave
        return
    before = {number: signal.signal(number, leave.take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield leave
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def heartbeat(notebook: Notebook, run: str, owner: str) -> Iterator[None]:
    """Leases are extended while the work goes on, and given back when it ends."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(UserError):  # a locked notebook: the next beat tries again
                notebook.extend(run, owner, time.time() + LEASE_SECONDS)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        notebook.release(run, owner)

"""Work that can be stopped from another thread, as Ctrl-C stops it: between two steps of Python, with what it had begun ended."""

import ctypes
import threading
from collections.abc import Callable
from typing import Any


class Job:
    """One piece of work in a thread of its own. `stop` raises KeyboardInterrupt in it; nothing is raised once it has ended."""

    def __init__(self, work: Callable[[], Any], ended: Callable[[], None]) -> None:
        self._work, self._told = work, ended
        self._lock, self._running = threading.Lock(), True
        self.value: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="neuronaut job", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; it has ended when `ended` is called."""
        with self._lock:
            if self._running and self._thread.ident is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident), ctypes.py_object(KeyboardInterrupt)
                )

    def _run(self) -> None:
        try:
            try:
                self.value = self._work()
            finally:
                with self._lock:  # from here on it is not stopped
                    self._running = False
        except BaseException as error:  # noqa: BLE001  it is raised where the work is waited for
            self.error = error
        self._told()

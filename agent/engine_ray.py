"""Ray: a cluster, tasks on it, and workers that keep what they opened. Nothing else imports it.

Which worker does what is Ray's business, and so is starting one again that died. Nothing here knows units or notebooks.
"""

import contextlib
import itertools
import logging
import os
import secrets
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from neuronaut.tools.errors import UserError

LOCAL = "local"  # a cluster that this process starts and ends
REACHED_SECONDS = 10.0  # until an address counts as unreachable
JOINED_SECONDS = 60.0  # until what answers there counts as no Ray cluster
READY_SECONDS = 180.0  # until a cluster counts as too busy: a worker has to start, and to load the model
POLL_SECONDS = 0.5
STORE_BYTES = 256 << 20  # results on their way to the driver; what does not fit is spilled to disk
RETRIES = 5  # of a task whose worker died
LOOPBACK = "127.0.0.2"  # for 127.0.0.1 Ray takes the address in the network, which changes with it
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

R = TypeVar("R")


class WorkerDied(Exception):
    """A worker or its machine died, or cannot be reached; what it had in hand is lost."""


class WorkerAway(WorkerDied):
    """It died, and is about to be started again: what it is asked meanwhile is not done."""


@contextlib.contextmanager
def cluster(address: str, jobs: int, threads: int) -> Iterator["Cluster"]:
    """A cluster at `local`, `auto`, host:port or ray://host:port; one that this process has joined already is taken as it is.

    A local one lets nobody in without a token, since Ray listens to the network. threads: processors of a task or worker.
    Refuses: ray not installed, an address that cannot be reached.
    """
    _prepare(address)
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs ray, which is not installed: pip install 'neuronaut[ray]'") from None
    if ray.is_initialized():
        yield Cluster(ray, jobs, threads)
        return
    try:
        _join(ray, address, jobs * threads)
        yield Cluster(ray, jobs, threads)
    finally:
        ray.shutdown()


def _prepare(address: str) -> None:
    """Settings that Ray reads once in a process, when it is imported; what the user has set stays."""
    if "ray" in sys.modules:
        return
    known = (Path.home() / ".ray" / "auth_token").is_file() or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(
        os.environ
    )
    settings = dict(QUIET)
    if address == LOCAL:
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    elif known:  # as `ray start` does; a cluster that asks for none is reached too
        settings |= {"RAY_AUTH_MODE": "token"}
    settings |= {} if address == LOCAL else {"RAY_BACKEND_LOG_LEVEL": "error"}
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _join(ray: Any, address: str, n_cpus: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        own |= {"_node_ip_address": LOOPBACK} if sys.platform == "linux" else {}
        ray.init(address=LOCAL, num_cpus=n_cpus, **own, **quiet)
        return
    _check_reachable(address)
    found: list[BaseException] = []

    def join() -> None:
        try:
            with warnings.catch_warnings(action="ignore"):
                ray.init(address=address, **({} if "://" in address else quiet))
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, ImportError) as error:
            found.append(error)

    thread = threading.Thread(target=join, daemon=True)
    logging.disable(logging.WARNING)  # of a client Ray takes no level
    thread.start()
    thread.join(JOINED_SECONDS)
    logging.disable(logging.NOTSET)
    if thread.is_alive():
        raise _unreachable(address, f"what answers there is no Ray cluster, or took more than {JOINED_SECONDS:g} s")
    if found:
        raise _unreachable(address, str(found[0]).partition("\n")[0].rstrip("."))


def _check_reachable(address: str) -> None:
    """Refuses an address at which nothing answers; what names no host and port is for Ray to find."""
    if address == "auto":
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _unreachable(address, str(error)) from None
    if host is None or port is None or parts.scheme not in ("", "ray"):
        raise _unreachable(address, "it is none of local, auto, HOST:PORT and ray://HOST:PORT")
    try:
        socket.create_connection((host, port), timeout=REACHED_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, str(error)) from None


def _unreachable(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster can be reached at {address!r} ({reason}): start one with `ray start --head`, "
        "or leave --ray-address out for one on this machine"
    )


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process has joined. jobs: tasks and workers at once; threads: processors of each."""

    ray: Any
    jobs: int
    threads: int

    def call(self, work: Callable[..., R], *args: Any) -> R:
        """What a function of a module gives, called on the cluster. Refuses a cluster on which nothing becomes free."""
        ref = self._task(work).remote(*args)
        if not self.ray.wait([ref], timeout=READY_SECONDS)[0]:
            self.ray.cancel(ref, force=True)
            raise self.too_busy()
        return self.got(ref)

    def each(self, work: Callable[..., R], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, R]]:
        """Number and result of each call, in the order in which they end, `jobs` and one more at a time; one whose worker died is
        made again, up to RETRIES times."""
        task, waiting = self._task(work), iter(enumerate(calls))
        in_flight = {task.remote(*args): number for number, args in itertools.islice(waiting, self.jobs + 1)}
        while in_flight:
            (ref, *_), _ = self.ray.wait(list(in_flight))
            number = in_flight.pop(ref)
            for following, args in itertools.islice(waiting, 1):
                in_flight[task.remote(*args)] = following
            yield number, self.got(ref)

    def _task(self, work: Callable[..., Any]) -> Any:
        return self.ray.remote(work).options(num_cpus=self.threads, max_retries=RETRIES)

    def hire(self, made_by: Callable[[], Any]) -> list["Worker"]:
        """`jobs` workers, each with an object of its own: one that died is made again by Ray, on any machine, as it was in the
        beginning. made_by: a class of a module."""
        actor = self.ray.remote(made_by).options(num_cpus=self.threads, max_restarts=-1, max_task_retries=0)
        return [Worker(self, actor.remote()) for _ in range(self.jobs)]

    def first(self, workers: Sequence["Worker"], method: str, *args: Any) -> Any:
        """What a method of the first worker that is ready gives. Refuses a cluster on which none becomes ready."""
        refs = [getattr(worker.actor, method).remote(*args) for worker in workers]
        ready, _ = self.ray.wait(refs, timeout=READY_SECONDS)
        if not ready:
            raise self.too_busy()
        return self.got(ready[0])

    def too_busy(self) -> UserError:
        """That no worker became ready, and what the cluster has."""
        total, free = (which().get("CPU", 0) for which in (self.ray.cluster_resources, self.ray.available_resources))
        return UserError(
            f"no worker of the Ray cluster was ready within {READY_SECONDS:g} s: it has {total:g} processors, {free:g} of them "
            f"free, and a worker takes {self.threads}; wait until others have ended, or give a smaller --threads"
        )

    def got(self, ref: Any) -> Any:
        """The result behind a reference. Raises what was raised there; WorkerDied."""
        try:
            return self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.ActorUnavailableError as error:
            raise WorkerAway(str(error).partition("\n")[0]) from None
        except self.ray.exceptions.RayError as error:
            raise WorkerDied(str(error).partition("\n")[0]) from None


@dataclass(frozen=True)
class Worker:
    """An object that lives in a process of the cluster; its calls are made one after another."""

    cluster: Cluster
    actor: Any

    def call(self, method: str, *args: Any, given_up: Callable[[], bool] = lambda: False) -> Any:
        """What a method gives. Raises WorkerDied, also where the wait was given up."""
        ref = getattr(self.actor, method).remote(*args)
        while not self.cluster.ray.wait([ref], timeout=POLL_SECONDS)[0]:
            if given_up():
                raise WorkerDied("it was not waited for")
        return self.cluster.got(ref)

    def end(self) -> None:
        """End its process, whatever it does."""
        with contextlib.suppress(self.cluster.ray.exceptions.RayError):
            self.cluster.ray.kill(self.actor)

"""Batches of cases asked in worker processes; rows come back one by one, as they are done."""

import json
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from neuronaut.evals.registry import load
from neuronaut.evals.suite import Asking, Batch, Row
from neuronaut.tools.errors import UserError

POLL_SECONDS = 0.2


class WorkerKilled(Exception):
    """A worker process died, which no suite does by itself."""


@dataclass(frozen=True)
class Job:
    """What a worker does at a time. place: of the suite, `module:attribute`; wanted: keys of the cases to be asked."""

    suite: str
    place: str
    batch: Batch
    wanted: frozenset[str]
    asking: Asking


def answers(jobs: Sequence[Job], workers: int) -> Generator[tuple[str, Row]]:
    """Suite and row of every wanted case, as they come; with one worker in this process and in order.

    Where a batch breaks off, its cases without a row come back as failed, with the error. When the iterator is closed,
    or this process dies, the workers die at once: what they had not yet handed over is lost, and nothing else.
    Raises WorkerKilled.
    """
    if workers == 1:
        for job in jobs:
            for row in asked(job):
                yield job.suite, row
        return
    yield from _in_workers(jobs, min(workers, len(jobs)))


def asked(job: Job) -> Iterator[Row]:
    """A row for each wanted case of a job."""
    families = {case.key: case.family for case in job.batch.cases if case.key in job.wanted}
    error = "the suite gave no row for it"
    try:
        for row in load(job.place).ask(job.batch, job.wanted, job.asking):
            if families.pop(row["case"], None) is not None:
                yield _recordable(row)
    except UserError:
        raise
    except Exception as raised:  # noqa: BLE001 - whatever breaks a batch is recorded with its cases, and the rest goes on
        error = f"{type(raised).__name__}: {raised}"
    for case, family in families.items():
        yield {"case": case, "family": family, "outcome": "failed", "error": error}


def _recordable(row: Row) -> Row:
    """The row, or a failed one in place of a row that is no JSON (NaN is none)."""
    try:
        json.dumps(row, allow_nan=False)
    except (TypeError, ValueError) as error:
        reason = f"its row cannot be recorded: {error}"
        return {"case": row["case"], "family": row["family"], "outcome": "failed", "error": reason}
    return row


_results: Any = None  # of a worker process: where its rows go


def _in_workers(jobs: Sequence[Job], workers: int) -> Generator[tuple[str, Row]]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(results, watched))
    with _one_thread_each():
        waiting = {number: pool.submit(_work, number, job) for number, job in enumerate(jobs)}
    try:
        while waiting:
            try:
                number, row = results.get(timeout=POLL_SECONDS)
            except queue.Empty:
                _raise_errors(waiting.values())
                continue
            if row is None:
                waiting.pop(number).result()
            else:
                yield jobs[number].suite, row
    except BrokenProcessPool:
        raise WorkerKilled(
            "a worker process was killed, perhaps for want of memory: what was done is kept, and the same command goes on "
            "with it, perhaps with fewer --jobs"
        ) from None
    finally:
        held.close()
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start meanwhile compute with one thread: torch and numpy read the variable when they are imported."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _raise_errors(futures: Collection[Future[None]]) -> None:
    for future in futures:
        if future.done() and future.exception():
            future.result()


def _begin(results: Any, watched: Connection) -> None:
    """Set up a worker: deaf to Ctrl-C, and gone as soon as the parent lets go of its end of `watched`."""
    global _results
    _results = results
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(watched,), daemon=True).start()


def _die_with_parent(watched: Connection) -> None:
    watched.poll(None)
    os._exit(1)


def _work(number: int, job: Job) -> None:
    for row in asked(job):
        _results.put((number, row))
    _results.put((number, None))

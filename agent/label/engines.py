"""Where a batch is worked on: in this process, or by workers of a Ray cluster while this process alone writes."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from neuronaut.agent.config import EngineOptions, RunConfig
from neuronaut.agent.engine_ray import POLL_SECONDS, READY_SECONDS, Cluster, Worker, WorkerAway, WorkerDied
from neuronaut.agent.inputs import Elsewhere, Here, joined_cluster
from neuronaut.agent.label.local import Contexts, unfinished, work, work_at
from neuronaut.agent.label.owner import Leave, asking_leave
from neuronaut.agent.label.remote import RemoteDesk, Seat
from neuronaut.agent.label.screen import Screen
from neuronaut.agent.label.turns import Turn
from neuronaut.agent.label.work import Bench
from neuronaut.agent.opening import context_of, open_inputs
from neuronaut.agent.remote import Described, Order, Refused, describe
from neuronaut.agent.session import Say
from neuronaut.tools.errors import UserError
from neuronaut.tools.registry import ToolContext

MOST_DEATHS = 5  # of workers in a row, without a unit that ended between them


class Engine(Protocol):
    """What a batch is worked on with. context: model and text; of a model that is elsewhere only what describes it."""

    @property
    def inputs(self) -> Here | Elsewhere: ...

    @property
    def context(self) -> ToolContext: ...

    def work(self, bench: Bench, run: str, screen: Screen) -> bool:
        """Work on the batch until nothing is left to do, or it should pause or stop. True where the person asked to stop."""
        ...


@contextlib.contextmanager
def engine(config: RunConfig, options: EngineOptions, say: Say, *, indexes: bool) -> Iterator[Engine]:
    """The engine that was asked for, with the inputs of a run. indexes: whether an index will be asked for first.

    Refuses inputs that cannot be opened, here or there.
    """
    if options.name == "local":
        target, corpus = open_inputs(config, say)
        yield InProcess(Here(target, corpus), context_of(target, corpus, say), config.seed)
        return
    with joined_cluster(options, say) as joined:
        crew = [] if indexes else joined.hire(Seat)  # which has the processors, so that tasks have to come before it
        inputs = Elsewhere.of(config, joined, say, lambda order: _asked(joined, crew, order, config.seed))
        try:
            yield OnCluster(inputs, ToolContext(inputs.target, inputs.corpus), config.seed, crew, say)
        finally:
            for worker in crew:
                worker.end()


def _asked(joined: Cluster, crew: list[Worker], order: Order, seed: int) -> Described | Refused:
    """What a worker says of the inputs."""
    found: Described | Refused = joined.first(crew, "open", order, seed) if crew else joined.call(describe, order)
    return found


@dataclass(frozen=True)
class InProcess:
    """This process works."""

    inputs: Here
    context: ToolContext
    seed: int

    def work(self, bench: Bench, run: str, screen: Screen) -> bool:
        """As Engine says."""
        return work(bench, run, Contexts.of(self.context, self.seed), screen)


@dataclass(frozen=True)
class OnCluster:
    """Workers that hold a model each. A thread for each leases items, records what it finds, and lets it compute.

    crew: the workers, filled when the work begins at the latest.
    """

    inputs: Elsewhere
    context: ToolContext
    seed: int
    crew: list[Worker]
    say: Say
    _ready: threading.Event = field(default_factory=threading.Event)  # whether any worker has opened the inputs

    def work(self, bench: Bench, run: str, screen: Screen) -> bool:
        """As Engine says. Refuses to go on where workers die again and again, and no other one is left."""
        self.crew.extend([] if self.crew else self.inputs.cluster.hire(Seat))
        with asking_leave() as leave, ThreadPoolExecutor(len(self.crew)) as pool:
            futures = [pool.submit(self._until_over, one, bench, run, screen, leave) for one in self.crew]
            try:
                while wait(futures, POLL_SECONDS, FIRST_EXCEPTION).not_done:
                    pass
            except KeyboardInterrupt:
                leave.asked = max(leave.asked, 2)
                for one in self.crew:
                    one.end()
                raise
            given_up = [reason for future in futures if (reason := future.result())]
            if given_up and _goes_on(bench, run, leave):
                raise UserError(
                    f"workers died {MOST_DEATHS} times in a row ({given_up[0]}): see the logs of Ray; what was finished is "
                    f"kept, and `neuronaut label resume {run} --engine ray` goes on"
                )
            return bool(leave.asked)

    def _until_over(self, worker: Worker, bench: Bench, run: str, screen: Screen, leave: Leave) -> str:
        """The work of one worker; why it was given up, "" where the work is over. An error lets the other ones stop too."""
        bench = replace(bench, turn=None if bench.turn is None else Turn())
        deaths, ended = 0, -1
        try:
            while True:
                try:
                    desk = self._desk(worker, bench, run, leave)
                    work_at(desk, bench, run, screen, leave, workers=self.inputs.cluster.jobs)
                    return ""
                except WorkerDied as error:
                    if not _goes_on(bench, run, leave):
                        return ""
                    before, ended = ended, _ended(bench, run)
                    deaths = 1 if ended > before else deaths + 1
                    if deaths == MOST_DEATHS:
                        return str(error)
                    self.say("ray", f"a worker died ({error}); it is started again, and its units are given back")
        except BaseException:
            leave.asked = max(leave.asked, 1)
            raise

    def _desk(self, worker: Worker, bench: Bench, run: str, leave: Leave) -> RemoteDesk:
        """A worker that has opened the inputs. Refuses where no worker of the batch came to that in time."""
        began = time.monotonic()

        def given_up() -> bool:
            if not self._ready.is_set() and time.monotonic() - began > READY_SECONDS:
                raise self.inputs.cluster.too_busy()
            return not _goes_on(bench, run, leave)

        def calls(method: str, *args: Any) -> Any:
            waits: Callable[[], bool] = given_up if method == "open" else lambda: leave.asked > 1
            answer = worker.call(method, *args, given_up=waits)
            if answer is None:
                raise WorkerDied("it was started again")
            return answer

        while True:
            try:
                desk = RemoteDesk.of(calls, self.inputs.order, self.seed, self.context.corpus)
            except WorkerAway:
                if given_up():
                    raise
                time.sleep(POLL_SECONDS)
                continue
            self._ready.set()
            return desk


def _goes_on(bench: Bench, run: str, leave: Leave) -> bool:
    if leave.asked or bench.notebook.wanted(run) != "go":
        return False
    return unfinished(bench.notebook, run)


def _ended(bench: Bench, run: str) -> int:
    counts = bench.notebook.item_counts(run)
    return sum(n for (state, _), n in counts.items() if state not in ("waiting", "leased"))

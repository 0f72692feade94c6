"""Several records of one transaction: all of them or none, seen by no other thread before they are all there."""

import contextlib
import runpy
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from neuronaut.memory import queries, schema
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError

made = runpy.run_path(str(Path(__file__).parent / "data" / "make_notebook.py"))
start, claim, judged, case_of = (made[name] for name in ("start", "claim", "judged", "case_of"))


def finish(notebook: Notebook, run: str, name: str) -> str:
    """The id of a verdict on a new claim; the run's end."""
    ids = judged(notebook, run, claim(notebook, run, name), case_of(0.9, (1.0,) * 20))
    notebook.end_run(run, "answered", "", {})
    return str(ids["verdict"])


def finish_and_raise(notebook: Notebook, run: str, error: type[BaseException]) -> None:
    with notebook.together():
        finish(notebook, run, "cat")
        raise error("stop")


def end_twice(notebook: Notebook, experiment: str) -> None:
    with notebook.together():
        notebook.end_experiment(experiment, {})
        with contextlib.suppress(IntegrityError):
            notebook.end_experiment(experiment, {})


def counts(notebook: Notebook) -> dict[str, int]:
    return {table.name: len(notebook.rows(sa.select(table))) for table in schema.metadata.sorted_tables}


def test_records_made_together_are_all_kept(place: Place) -> None:
    with Notebook(place) as notebook:
        run = start(notebook)
        with notebook.together(), notebook.together():
            finish(notebook, run, "cat")
            assert queries.find_run(notebook, run)["end"]["outcome"] == "answered"  # seen inside
        assert verify(notebook) == []
        head = notebook.head()
    with Notebook(place, read_only=True) as notebook:
        assert verify(notebook, head) == []
        assert counts(notebook)["verdict"] == counts(notebook)["run_end"] == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, UserError])
def test_an_error_undoes_all_that_was_recorded_with_it(place: Place, error: type[BaseException]) -> None:
    with Notebook(place) as notebook:
        run = start(notebook)
        before, head = counts(notebook), notebook.head()
        with pytest.raises(error):
            finish_and_raise(notebook, run, error)
        assert counts(notebook) == before
        assert verify(notebook, head) == []
        finish(notebook, run, "cat")
        assert verify(notebook, head) == []


def test_an_error_that_was_caught_inside_undoes_all_the_same(place: Place) -> None:
    with Notebook(place) as notebook:
        run = start(notebook)
        begun = notebook.begin_experiment(run, ExperimentSpec("look", "s", {}))
        before = counts(notebook)
        with pytest.raises(RuntimeError, match="nothing of it is kept"):
            end_twice(notebook, begun.id)
        assert counts(notebook) == before


def test_nothing_is_recorded_inside_a_snapshot(place: Place) -> None:
    with Notebook(place) as notebook:
        run = start(notebook)
        with pytest.raises(RuntimeError, match="for reading"), notebook.snapshot():
            notebook.end_run(run, "answered", "", {})
        assert counts(notebook)["run_end"] == 0


def test_a_thread_that_reads_meanwhile_sees_all_or_nothing(place: Place) -> None:
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def read(notebook: Notebook) -> None:
        while not done.is_set():
            with notebook.snapshot():
                seen.append((counts(notebook)["verdict"], counts(notebook)["run_end"]))

    with Notebook(place) as notebook:
        reader = threading.Thread(target=read, args=(notebook,))
        reader.start()
        try:
            for n in range(12):
                run = start(notebook)
                with notebook.together():
                    finish(notebook, run, str(n % 3))
        finally:
            done.set()
            reader.join()
        assert all(verdicts == ends for verdicts, ends in seen)
        assert len(seen) > 2


def test_threads_that_share_a_notebook_take_turns(place: Place) -> None:
    failed: list[Exception] = []

    def write(notebook: Notebook, number: int) -> None:
        try:
            run = start(notebook)
            for name in range(15):
                with notebook.together():
                    claim(notebook, run, f"{number}.{name}")
                    notebook.artifact(f"{number} {name}".encode(), "text/plain")
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    with Notebook(place) as notebook:
        threads = [threading.Thread(target=write, args=(notebook, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert verify(notebook) == []
        assert counts(notebook)["hypothesis"] == counts(notebook)["artifact"] == 60

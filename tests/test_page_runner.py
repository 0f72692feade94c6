"""What pages start: processes on the same notebook, one at a time, stopped when asked."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.page_runner import Processes
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File
from neuronaut.memory.review.runner import Job
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError

PATIENCE = 240.0
LOOK = 'tool top_examples {"unit": "0.3", "k": 2}'


@pytest.fixture
def begun(
    tiny: tuple[str, ...], tmp_path: Path, neuronaut: Callable[..., Any]
) -> Iterator[tuple[Processes, Path, str]]:
    """A runner on a notebook with one run of the small model."""
    path = tmp_path / "n.db"
    assert neuronaut("ask", LOOK, *tiny, "--notebook", path).code == 0
    with Notebook(path, read_only=True) as notebook:
        run = str(queries.runs(notebook)[0]["id"])
    runner = Processes(File(path))
    yield runner, path, run
    runner.close()


def ended(runner: Processes, identifier: str) -> Job:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        job = runner.job(identifier)
        assert job is not None
        if job.state != "working":
            return job
        time.sleep(0.1)
    raise AssertionError("it did not end")


def test_an_experiment_is_measured_again_and_a_question_asked_of_the_same_model(
    begun: tuple[Processes, Path, str],
) -> None:
    runner, path, run = begun
    first = runner.rerun(run)
    with pytest.raises(UserError, match="is at work"):
        runner.ask(LOOK, run)
    again = ended(runner, first.id)
    assert again.state == "done", again.lines
    assert any(line.startswith("identical") and "top_examples" in line for line in again.lines)
    asked = ended(runner, runner.ask('tool top_examples {"unit": "0.4", "k": 2}', run).id)
    assert asked.state == "done", asked.lines
    with Notebook(path, read_only=True) as notebook:
        rows = {row["id"]: row for row in queries.runs(notebook)}
        assert rows[again.run]["parent_run"] == run
        assert rows[asked.run]["target"] == rows[run]["target"]
        assert verify(notebook) == []
    assert [job.id for job in runner.jobs()] == [asked.id, first.id]


def test_a_question_that_is_none_fails_with_its_sentence_and_no_option_hides_in_it(
    begun: tuple[Processes, Path, str],
) -> None:
    runner, path, run = begun
    job = ended(runner, runner.ask(f"--notebook={path}.other", run).id)
    assert job.state == "failed"
    assert any("neuronaut:" in line for line in job.lines)
    assert not Path(f"{path}.other").exists()


def test_work_that_is_stopped_ends_as_after_ctrl_c(begun: tuple[Processes, Path, str]) -> None:
    runner, path, run = begun
    job = runner.ask("what does neuron 0.33 do", run)
    until = time.monotonic() + PATIENCE
    while not (now := runner.job(job.id)) or (not now.run and now.state == "working"):
        assert time.monotonic() < until
        time.sleep(0.05)
    runner.stop(job.id)
    last = ended(runner, job.id)
    assert last.state in ("stopped", "done")  # it may have been about to end
    with Notebook(path, read_only=True) as notebook:
        assert verify(notebook) == []

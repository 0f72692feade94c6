"""A run that is killed or interrupted at any moment is resumed: nothing lost, nothing done twice, the same verdicts."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QUESTION = "what does neuron 1.7- do"


@pytest.fixture(scope="module")
def whole(tiny: tuple[str, ...], neuronaut: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The answer of a run that nothing disturbs."""
    said = neuronaut("ask", QUESTION, *tiny, "--notebook", tmp_path_factory.mktemp("whole") / "n.db", "--json")
    assert said.code == 0
    return json.loads(said.out)


def findings(answer: dict[str, Any]) -> list[Any]:
    """What an answer says, without ids."""
    claims = [[c["claim"], c["status"], c["reason"], c["scores"], c["pairs"], c["rivals"]] for c in answer["claims"]]
    return [claims, [p["claim"] for p in answer["proposed"]], answer["outcomes"], answer["unexplained"]]


def test_a_run_killed_at_any_commit_ends_with_the_same_findings(tiny: tuple[str, ...]) -> None:
    """Just before and just after every fifteenth commit; some rounds lose their checkpoints."""
    command = [sys.executable, "-m", "neuronaut.evals.kill", *tiny, "--question", QUESTION, "--rounds", "0", "--every"]
    done = subprocess.run([*command, "15"], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *rounds, summary = map(json.loads, done.stdout.splitlines())
    assert summary["passed"] == summary["rounds"] == len(rounds) >= 4
    assert all(one["kills"] for one in rounds)
    assert summary["verdicts"] >= 1
    assert summary["finished_twice"] == 0


# Python heeds Ctrl-C only where it was not started with SIGINT ignored, as a shell does with what it puts in the background.
HEEDING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from neuronaut.agent.cli import main; main()"
)


def interrupted(argv: list[str], at: str) -> tuple[int, str]:
    """The exit code and the steps of a command that gets Ctrl-C when a step with `at` is printed."""
    with subprocess.Popen(
        [sys.executable, "-c", HEEDING, *argv], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        steps = []
        for line in process.stderr:
            steps.append(line)
            if line.split()[:1] == [at]:
                os.kill(process.pid, signal.SIGINT)
        code = process.wait()
    return code, "".join(steps)


@pytest.mark.parametrize("at", ["run", "propose"])
def test_an_interrupted_run_says_how_it_goes_on_and_does(
    tiny: tuple[str, ...], whole: Any, neuronaut: Callable[..., Any], tmp_path: Path, at: str
) -> None:
    code, steps = interrupted(["ask", QUESTION, *tiny, "--notebook", str(tmp_path / "n.db")], at)
    assert code == 130
    assert "Traceback" not in steps
    command = shlex.split(steps.splitlines()[-1].partition("go on with: neuronaut ")[2])
    assert command[0] == "resume"
    resumed = neuronaut(*command, "--json")
    assert resumed.code == 0
    answer = json.loads(resumed.out)
    assert findings(answer) == findings(whole)
    assert neuronaut("verify", "--notebook", tmp_path / "n.db", "--head", answer["ledger_head"]).code == 0


def test_an_interrupt_before_the_run_began_leaves_no_notebook(tiny: tuple[str, ...], tmp_path: Path) -> None:
    code, steps = interrupted(["ask", QUESTION, *tiny, "--notebook", str(tmp_path / "n.db")], "model")
    assert code == 130
    assert "Traceback" not in steps
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_that_had_ended_is_shown_and_measures_nothing(
    tiny: tuple[str, ...], whole: Any, neuronaut: Callable[..., Any]
) -> None:
    resumed = neuronaut("resume", whole["run"], "--notebook", whole["notebook"], "--json")
    assert resumed.code == 0
    assert json.loads(resumed.out) == whole

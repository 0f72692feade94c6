"""A batch that is killed at any moment, or while it is resumed, ends with the same items, claims and verdicts."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_batch_ends_as_one_that_nothing_disturbs(tiny: tuple[str, ...]) -> None:
    """A twentieth of the rounds of docs/labelling.md."""
    command = [sys.executable, "-m", "neuronaut.evals.kill_label", *tiny, "--units", "3"]
    done = subprocess.run(
        [*command, "--rounds", "5", "--named", "10"], capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *rounds, summary = map(json.loads, done.stdout.splitlines())
    assert summary["passed"] == summary["rounds"] == len(rounds) == 15
    assert summary["kills"] >= 8
    assert summary["verdicts"] >= 1
    assert summary["items"] == 4
    assert summary["finished_twice"] == 0

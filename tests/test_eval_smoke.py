"""The smoke selection of all suites, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuronaut.evals import registry


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_smoke_selection_of_all_suites_runs_and_claims_nothing_false(tmp_path: Path) -> None:
    board, real = tmp_path / "board.md", "NEURONAUT_REAL_DATA" in os.environ
    command = [sys.executable, "-m", "neuronaut", "eval", "all", "--size", "smoke", "--jobs", "2"]
    command += ["--results", str(tmp_path / "results"), "--scoreboard", str(board), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {one["suite"]: one for one in json.loads(done.stdout)["evaluations"]}
    assert set(found) == set(registry.SUITES) - (set() if real else {"real"})
    for name, one in found.items():
        assert set(one["cases"]) == {"ok"}, name
    scores = {(name, score["name"]): score["value"] for name, one in found.items() for score in one["scores"]}
    assert scores["nulls", "false claims"] == 0.0
    assert scores["planted", "units with F1 of at least 0.95"] >= 0.8
    assert scores["cheats", "oracle: SUPPORTED"] == 1.0
    assert all(scores[key] == 0.0 for key in scores if key[1].endswith("attempts with a false claim SUPPORTED"))
    for name in found:
        assert f"## {name}" in board.read_text(encoding="utf-8")

"""Figures of a notebook that anybody may have made are written into the folder that was named, and nowhere else."""

import runpy
from pathlib import Path

import pytest

from neuronaut.agent.showing import show
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.figures import SVG

made = runpy.run_path(str(Path(__file__).parent / "data" / "make_notebook.py"))


def test_no_name_of_a_figure_or_a_tool_leads_out_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "n.db", tmp_path / "inside" / "figures"
    with Notebook(path) as notebook:
        run = made["start"](notebook)
        for tool, name in (("patch", "/../../escaped"), (f"{tmp_path}/absolute\x1b[2J", "grid"), ("patch", "_/../..")):
            started = notebook.begin_experiment(run, ExperimentSpec(tool, "s" * 64, {"name": name}))
            svg = notebook.artifact(f"<svg>{name}</svg>".encode(), SVG)
            figures = [{"name": name, "svg": svg}]
            notebook.end_experiment(started.id, {"payload": {}, "measurements": [], "figures": figures})
    show(run, path, as_json=False, figures=folder)
    assert "\x1b" not in capsys.readouterr().out
    assert sorted(file.parent for file in tmp_path.rglob("*.svg")) == [folder] * 3

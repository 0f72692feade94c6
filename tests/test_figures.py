"""Figures: what is drawn is what was given, whatever text it holds; where it is kept and listed."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from neuronaut.agent import showing
from neuronaut.agent.config import RunConfig
from neuronaut.agent.rerun import _widest_gap
from neuronaut.agent.session import Session
from neuronaut.agent.tool_output import result_lines
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.figures import (
    PLOTLY,
    SVG,
    Arrow,
    Axes,
    Bar,
    Figure,
    Node,
    Series,
    attention_map,
    bars,
    curve,
    graph,
    heat_map,
)
from neuronaut.tools.registry import Tool, ToolArgs, ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.load import load_target

NS = {"svg": "http://www.w3.org/2000/svg"}
EVIL = '</text><script>alert("1")</script>&\x1b[2J\x00\u202e\ud800\ufffe\n'
GRID = np.array([[0.5, -1.0, 0.0], [np.nan, 0.25, 2.0]])


def _drawn(figure: Figure) -> ElementTree.Element:
    figure.svg.encode()
    return ElementTree.fromstring(figure.svg)


def _cells(figure: Figure) -> list[tuple[str, ElementTree.Element]]:
    """What is shown on hovering over each cell, and the cell."""
    found = ((rect.find("svg:title", NS), rect) for rect in _drawn(figure).iter(f"{{{NS['svg']}}}rect"))
    return [(str(title.text), rect) for title, rect in found if title is not None]


def _all() -> list[Figure]:
    evil = [f"{EVIL}{i}" for i in range(3)]
    axes = Axes(EVIL, EVIL, EVIL, EVIL, (EVIL, ""))
    return [
        heat_map("grid", GRID, evil[:2], evil, axes),
        attention_map("attention", evil, np.tril(np.full((3, 3), 0.5)), axes),
        curve("curve", [Series(EVIL, [0, 1, 2], [1, np.nan, -1], [0, 0, -2], [2, 2, 0]), Series("b", [0], [3])], axes),
        bars("bars", [Bar(name, 1.0 - i, -0.5, 0.5) for i, name in enumerate(evil)], axes),
        graph("graph", [Node(name, i, EVIL) for i, name in enumerate(evil)], [Arrow(evil[0], evil[2], -1, EVIL)], axes),
    ]


@pytest.mark.parametrize("figure", _all(), ids=lambda figure: figure.name)
def test_no_text_gets_out_of_its_place(figure: Figure) -> None:
    root = _drawn(figure)
    names = {element.tag.removeprefix(f"{{{NS['svg']}}}") for element in root.iter()}
    assert names <= {"svg", "title", "style", "rect", "text", "g", "line", "polyline", "polygon", "circle", "path"}
    said = "".join(element.text or "" for element in root.iter() if not element.tag.endswith("style"))
    assert "<script>" in said, "the text is shown as it is"
    assert not set(figure.svg) & set("\x1b\x00\u202e\ud800\ufffe")
    assert not re.search(r'(href|src|url\(|@import|on\w+=")', figure.svg.replace(EVIL, ""))
    plotly = json.dumps(figure.plotly, allow_nan=False)
    assert "<script" not in plotly
    assert not set(json.loads(f'"{plotly[1:1]}"') + plotly) & set("\x1b\x00\u202e")


@pytest.mark.parametrize("figure", _all(), ids=lambda figure: figure.name)
def test_plotly_takes_what_is_written_for_it(figure: Figure) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects", reason="plotly comes with the extra `review`")
    if figure.plotly is None:
        assert figure.name == "graph"
        return
    taken = graph_objects.Figure(json.loads(json.dumps(figure.plotly)))
    assert len(taken.data) == len(figure.plotly["data"])
    broken = json.loads(json.dumps(figure.plotly))
    broken["data"][0]["nothing"] = 1
    with pytest.raises(ValueError, match="nothing"):
        graph_objects.Figure(broken)


def test_the_same_input_gives_the_same_figure() -> None:
    assert _all() == _all()


def test_a_grid_shows_each_number_at_its_place_and_leaves_out_what_is_none() -> None:
    figure = heat_map("grid", GRID, ["a", "b"], ["x", "y", "z"], Axes(unit="nats"))
    cells = dict(_cells(figure))
    assert list(cells) == ["a · x: 0.5", "a · y: -1", "a · z: 0", "b · y: 0.25", "b · z: 2"]
    opacity = {said: float(rect.get("fill-opacity", "")) for said, rect in cells.items()}
    assert list(opacity.values()) == [0.25, 0.5, 0.0, 0.125, 1.0]
    assert {said: rect.get("class") for said, rect in cells.items()}["a · y: -1"] == "minus"
    assert float(cells["a · x: 0.5"].get("y", "")) < float(cells["b · y: 0.25"].get("y", ""))
    assert float(cells["a · x: 0.5"].get("x", "")) < float(cells["a · y: -1"].get("x", ""))
    assert figure.plotly is not None
    [trace] = figure.plotly["data"]
    assert trace["z"] == [[0.5, -1.0, 0.0], [None, 0.25, 2.0]]
    assert (trace["zmin"], trace["zmax"]) == (-2.0, 2.0)
    assert figure.plotly["layout"]["yaxis"]["ticktext"] == ["a", "b"]
    assert "2 nats" in figure.svg


def test_layers_rise() -> None:
    figure = heat_map("grid", [[1.0], [2.0]], ["layer 0", "layer 1"], ["x"], Axes(), rising=True)
    cells = dict(_cells(figure))
    assert float(cells["layer 0 · x: 1"].get("y", "")) > float(cells["layer 1 · x: 2"].get("y", ""))
    assert figure.plotly is not None
    assert figure.plotly["data"][0]["z"] == [[1.0], [2.0]]
    assert "autorange" not in figure.plotly["layout"]["yaxis"]


def test_bars_start_at_zero_and_stand_before_the_range_elsewhere() -> None:
    figure = bars("bars", [Bar("a", 2.0, -1.0, 1.0), Bar("b", -1.0, 0.0, 0.5)], Axes(unit="logits"))
    places = [(said, float(rect.get("x", "")), float(rect.get("width", ""))) for said, rect in _cells(figure)]
    (first, low, wide), (_, zero, up), (_, none, _), (last, down, back) = places
    assert (first, last) == ("a: 2, elsewhere -1 to 1", "b: -1, elsewhere 0 to 0.5")
    assert up == pytest.approx(wide), "from 0 to 2 is as wide as from -1 to 1"
    assert (low, zero) == pytest.approx((down, down + back)), "-1 and 0 are the same places in both rows"
    assert none == pytest.approx(zero)
    assert figure.plotly is not None
    assert figure.plotly["data"][0]["x"] == [2.0, -1.0]


def test_attention_to_keys_behind_the_query_is_not_drawn() -> None:
    figure = attention_map("attention", [" a", " a", "b"], np.full((3, 3), 0.5), Axes())
    assert [said for said, _ in _cells(figure)] == [
        f"{q} · {k}: 0.5" for q, ks in (("·a", 1), ("·a", 2), ("b", 3)) for k in ["·a", "·a", "b"][:ks]
    ]


def test_a_curve_passes_its_points_and_breaks_where_one_is_missing() -> None:
    figure = curve("curve", [Series("effect", [0, 1, 2, 3], [0, 1, np.nan, 3])], Axes())
    root = _drawn(figure)
    dots = {str(dot.find("svg:title", NS).text): dot for dot in root.iter(f"{{{NS['svg']}}}circle")}  # type: ignore[union-attr]
    assert list(dots) == ["effect: 0, 0", "effect: 1, 1", "effect: 3, 3"]
    at = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in dots.values()]
    assert at[1][0] - at[0][0] == pytest.approx((at[2][0] - at[0][0]) / 3, abs=0.2)
    assert at[0][1] - at[1][1] == pytest.approx((at[0][1] - at[2][1]) / 3, abs=0.2)
    [line] = root.iter(f"{{{NS['svg']}}}polyline")
    assert line.get("points") == " ".join(f"{x:g},{y:g}" for x, y in at[:2])
    assert figure.plotly is not None
    assert figure.plotly["data"][0]["y"] == [0, 1, None, 3]


@pytest.fixture(scope="module")
def pocket() -> ToolContext:
    return ToolContext(load_target("pocket"), pocket_corpus())


def _called(pocket: ToolContext, name: str, **args: Any) -> ToolResult:
    tool = find_tool(name)
    return tool.run(pocket, tool.parse(tool.args.example | args))


@pytest.mark.parametrize("name", ["patch", "attribution_patch"])
def test_the_grid_of_patching_is_drawn_layer_by_layer(pocket: ToolContext, name: str) -> None:
    found = _called(pocket, name, layer=None)
    [figure] = found.figures
    assert figure.name == name
    assert figure.plotly is not None
    assert figure.plotly["data"][0]["z"] == [[pytest.approx(v) for v in row["effect"]] for row in found.payload["rows"]]
    cells = _cells(figure)
    assert len(cells) == 10 * 6
    effect = found.payload["rows"][3]["effect"][1]
    assert f"layer 3 · Mary/Leo: {effect:.4g}" in dict(cells)


def test_of_many_neurons_those_of_the_largest_effect_are_drawn(pocket: ToolContext) -> None:
    found = _called(pocket, "patch", site="neurons", layer=8)
    effects = np.abs(found.payload["rows"][0]["effect"])
    [figure] = found.figures
    assert figure.plotly is not None
    drawn = [int(text) for text in figure.plotly["layout"]["xaxis"]["ticktext"]]
    assert len(drawn) == 40
    assert effects[drawn].min() >= np.delete(effects, drawn).max()


def test_the_curve_of_steering_stands_beside_its_nulls(pocket: ToolContext) -> None:
    found = _called(pocket, "steer")
    [figure] = found.figures
    assert figure.plotly is not None
    own, *nulls = figure.plotly["data"]
    assert own["y"] == [pytest.approx(row["log_prob"], rel=1e-5) for row in found.payload["curve"]]
    assert len(nulls) == 2
    for line, null in zip(nulls, found.payload["null_slopes"].values(), strict=True):
        slope = (line["y"][-1] - line["y"][0]) / (line["x"][-1] - line["x"][0])
        assert slope == pytest.approx(null["null_value"], abs=1e-4)


def test_arrows_are_as_wide_as_their_weight_and_rows_rise_with_the_layers() -> None:
    nodes = [Node("in", -1), Node("L0H1", 0), Node("L0H2", 0), Node("L3H0", 3)]
    arrows = [Arrow("in", "L0H1", 1.0), Arrow("L0H1", "L3H0", -0.5), Arrow("in", "L0H2", 0.25)]
    root = _drawn(graph("circuit", nodes, arrows, Axes()))
    paths = {str(path.find("svg:title", NS).text): path for path in root.iter(f"{{{NS['svg']}}}path")}  # type: ignore[union-attr]
    width = {said: float(path.get("stroke-width", "")) for said, path in paths.items()}
    assert width["L0H1 to L3H0: -0.5"] == pytest.approx(width["in to L0H1: 1"] / 2)
    assert paths["L0H1 to L3H0: -0.5"].get("class") == "line-minus"
    boxes = {str(g.find("svg:title", NS).text): g.find("svg:rect", NS) for g in root.iter(f"{{{NS['svg']}}}g")}  # type: ignore[union-attr]
    up = [float(boxes[name].get("y", "")) for name in ("in", "L0H1", "L3H0")]  # type: ignore[union-attr]
    assert all(lower > higher for lower, higher in pairwise(up))
    assert boxes["L0H1"].get("y") == boxes["L0H2"].get("y")  # type: ignore[union-attr]


def test_nodes_stand_near_those_that_they_are_joined_to() -> None:
    nodes = [Node(f"{row}{at}", layer) for layer, row in enumerate("ab") for at in range(4)]
    crossed = [Arrow(f"a{at}", f"b{3 - at}", 1.0) for at in range(4)]
    root = _drawn(graph("circuit", nodes, crossed, Axes()))
    places = {
        str(g.find("svg:title", NS).text): float(g.find("svg:rect", NS).get("x", ""))
        for g in root.iter(f"{{{NS['svg']}}}g")
    }  # type: ignore[union-attr]
    assert all(places[f"a{at}"] == pytest.approx(places[f"b{3 - at}"]) for at in range(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: heat_map("grid", GRID, ["a"], ["x", "y", "z"], Axes()), "labels"),
        (lambda: heat_map("../grid", GRID, ["a", "b"], ["x", "y", "z"], Axes()), "no name of a file"),
        (lambda: Series("s", [1], [1, 2]), "equally long"),
        (lambda: curve("curve", [Series("s", [1], [1])] * 7, Axes()), "told apart"),
        (lambda: bars("bars", [], Axes()), "no bar"),
        (lambda: graph("graph", [Node("a", 0), Node("a", 1)], [], Axes()), "name of its own"),
        (lambda: graph("graph", [Node("a", 0)], [Arrow("a", "b", 1)], Axes()), "two nodes"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@dataclass(frozen=True)
class _Drawing:
    """A tool that draws, in place of the closed list."""

    figures: tuple[Figure, ...]

    def tool(self) -> Tool:
        def run(context: ToolContext, args: ToolArgs) -> ToolResult:
            """Figures."""
            return ToolResult(payload={"n": 1}, figures=self.figures)

        return Tool("draw", ToolArgs, run, opens_test_text=False)


FIGURES = (
    heat_map("grid", GRID, ["a", "b"], ["x", "y", "z"], Axes("Grid")),
    graph("circuit", [Node("a", 0)], [], Axes()),
)


def test_figures_of_an_experiment_are_artifacts_that_show_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "notebook.db"
    for place_of_name in ("neuronaut.agent.session.find_tool", "neuronaut.tools.registry.find_tool"):
        monkeypatch.setattr(place_of_name, lambda name: _Drawing(FIGURES).tool())
    context = ToolContext(load_target("pocket"), pocket_corpus())
    config = RunConfig(question="what does neuron 8.481 do")
    with Notebook(place) as notebook:
        run = notebook.start_run(config.model_dump(mode="json"), context.target.fingerprint(), ("pocket", "0" * 64, 1))
        session = Session(run, config, notebook, context, [], lambda label, line: None)
        first, again = session.experiment("draw", {}), session.experiment("draw", {})
        assert first.id == again.id
        assert verify(notebook) == []
    capsys.readouterr()
    showing.show(run, place, as_json=True)
    [step] = json.loads(capsys.readouterr().out)["experiments"]
    assert [figure["name"] for figure in step["figures"]] == ["grid", "circuit"]
    assert "plotly" not in step["figures"][1]
    kept = {}
    for media in ("svg", "plotly"):
        showing.show(step["figures"][0][media], place, as_json=True)
        kept[media] = json.loads(capsys.readouterr().out)
    assert (kept["svg"]["media_type"], kept["svg"]["content"]) == (SVG, FIGURES[0].svg)
    assert kept["plotly"]["media_type"] == PLOTLY
    content = kept["plotly"]["content"]
    assert (json.loads(content) if isinstance(content, str) else content) == FIGURES[0].plotly
    showing.show(run, place, as_json=False)
    assert f"figure grid  svg {step['figures'][0]['svg']}" in capsys.readouterr().out


def test_a_repeat_is_compared_by_its_numbers_and_not_by_its_figures() -> None:
    before = {"payload": {"n": 1}, "measurements": [], "figures": [{"name": "grid", "svg": "sha256:0"}]}
    assert _widest_gap(before, before | {"figures": [{"name": "grid", "svg": "sha256:1"}]})[1] == 0
    assert _widest_gap(before, before | {"payload": {"n": 2}})[1] == 1


def test_figures_are_kept_where_asked_and_never_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, neuronaut: Callable[..., Any]
) -> None:
    monkeypatch.setattr("neuronaut.tools.registry._TOOLS", dict(MappingProxyType({"draw": _Drawing(FIGURES).tool()})))
    monkeypatch.setattr("neuronaut.tools.registry.find_tool", lambda name: _Drawing(FIGURES).tool())
    folder = tmp_path / "new" / "figures"
    done = neuronaut("tool", "draw", "--figures", folder)
    assert (done.code, done.err) == (0, "")
    assert "figure grid: --figures FOLDER keeps it" in done.out
    assert sorted(file.name for file in folder.iterdir()) == ["circuit.svg", "grid.json", "grid.svg"]
    assert (folder / "grid.svg").read_text() == FIGURES[0].svg
    assert json.loads((folder / "grid.json").read_text()) == FIGURES[0].plotly
    refused = neuronaut("tool", "draw", "--figures", folder)
    assert refused.code == 2
    assert "nothing is overwritten" in refused.err
    monkeypatch.setattr("neuronaut.tools.registry.find_tool", lambda name: _Drawing(()).tool())
    assert "draws no figures" in neuronaut("tool", "draw", "--figures", tmp_path / "other").err


def test_a_result_names_its_figures() -> None:
    assert list(result_lines(ToolResult(figures=FIGURES))) == [
        "figure grid: --figures FOLDER keeps it",
        "figure circuit: --figures FOLDER keeps it",
    ]

"""What `neuronaut tool` prints: results a person can read, and help whose example works."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from neuronaut.agent.cli import app
from neuronaut.agent.tool_output import WIDEST, example_call, help_lines, measurement_line, result_lines
from neuronaut.agent.view import print_json
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.readouts.heads import Head, HeadConfig
from neuronaut.tools.registered import Registered
from neuronaut.tools.registry import Tool, ToolContext, ToolResult, registry
from neuronaut.tools.targets.load import POCKET, load_target
from neuronaut.tools.targets.others import OtherModel
from neuronaut.tools.units import Unit

FREE = [tool for tool in registry().values() if not tool.opens_test_text]
ON_POCKET = [
    tool for tool in FREE if tool.name != "chat_tokens"
]  # pocket has no chat template: tests/test_chat_models.py
ENDING = [tool for tool in registry().values() if tool.opens_test_text]


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> ToolContext:
    """The embedded model, with a read-out NAME and, as BASE, the same model with other weights in one place."""
    target, folder = load_target("pocket"), tmp_path_factory.mktemp("base") / "base"
    shutil.copytree(POCKET, folder, ignore=shutil.ignore_patterns("dictionaries", "corpus*"))
    weights = load_file(folder / "model.safetensors")
    last = max(name for name in weights if name.endswith("mlp.c_proj.bias"))
    save_file(weights | {last: weights[last] + 0.01}, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"weights_sha256": target.fingerprint().weights_sha256, "site": "resid_post", "layer": 9}
    write = target.write_vector(Unit.parse("8.481"))
    head = Head("head NAME", "", HeadConfig.model_validate(config), write[None], torch.zeros(1))
    known = Registered({"BASE": OtherModel("BASE", str(folder))}, heads={"NAME": head})
    return ToolContext(target, pocket_corpus(), registered=known)


def _printed(**payload: object) -> list[str]:
    return list(result_lines(ToolResult(payload=payload)))


@pytest.mark.parametrize("tool", ON_POCKET, ids=lambda tool: tool.name)
def test_the_example_of_each_tool_runs_on_the_embedded_model(pocket: ToolContext, tool: Tool) -> None:
    program, command, name, *given = shlex.split(example_call(tool))
    assert (program, command, name) == ("neuronaut", "tool", tool.name)
    result = tool.run(pocket, tool.parse(given[0] if given else "{}"))
    printed = list(result_lines(result))
    assert printed[0]
    text = "\n".join(printed)
    assert all(line == line.rstrip() for line in printed)
    for measurement in result.measurements:
        assert f"{measurement.metric} {measurement.value:.4g}" in text
        assert f"({measurement.n} {measurement.n_of})" in text
        assert measurement.unit in text
        assert measurement.null_value is not None or measurement.metric == "base_rate"
    for name in result.payload:
        assert name in text


@pytest.mark.parametrize("tool", registry().values(), ids=lambda tool: tool.name)
def test_help_names_each_argument_with_all_that_it_takes(tool: Tool) -> None:
    text = "\n".join(help_lines(tool))
    assert tool.doc.splitlines()[0] in text
    assert "…" not in text.partition("argument")[2], "nothing is cut"
    for name, field in tool.args.model_fields.items():
        [line] = [line for line in text.splitlines() if line.split(" ")[0] == name and "  " in line]
        assert ("needed" in line) == field.is_required()
    assert ("Example: neuronaut tool" in text) == (not tool.opens_test_text)


@pytest.mark.parametrize("tool", ENDING, ids=lambda tool: tool.name)
def test_help_says_of_a_tool_that_opens_test_text_who_runs_it(tool: Tool) -> None:
    assert "Run by `neuronaut ask` alone" in "\n".join(help_lines(tool))


def test_help_gives_bounds_choices_and_defaults() -> None:
    lines = {line.split()[0]: line.split() for line in help_lines(registry()["top_examples"]) if line}
    assert lines["k"] == ["k", "default", "10", "integer", "from", "1", "to", "1000"]
    assert lines["band"] == ["band", "default", "top", "one", "of", "top,", "quantiles,", "random"]
    [prompts] = [line for line in help_lines(registry()["ablate"]) if line.startswith("prompts")]
    assert "list of 8 to 10000 of text" in prompts


def test_a_summary_is_one_whole_sentence() -> None:
    for tool in registry().values():
        assert tool.summary.endswith(".")
        assert "\n" not in tool.summary
        assert " ".join(tool.doc.split()).startswith(tool.summary.removesuffix("."))
    assert registry()["top_examples"].summary.endswith("or random places (random).")


def test_a_measurement_shows_interval_unit_n_null_and_percentile() -> None:
    full = Measurement("drop", 0.12345, "nats", 8, (-0.5, 0.25), 0.01, 97.4, n_of="prompts")
    assert measurement_line(full) == "drop 0.1235 [-0.5, 0.25] nats (8 prompts) · null 0.01 (above 97 % of nulls)"
    assert measurement_line(Measurement("rate", 0.5, "share of tokens", 3)) == "rate 0.5 share of tokens (3 documents)"


def test_rows_line_up_under_their_names_and_long_cells_are_cut() -> None:
    lines = _printed(rows=[{"name": "a", "value": 1.0}, {"name": "x" * 200, "value": -0.0}])
    assert lines[0] == "rows"
    at = lines[1].index("value")
    assert [line[at:] for line in lines[1:]] == ["value", "1", "0"]
    assert lines[3].split()[0] == "x" * WIDEST


def test_a_value_alone_on_its_line_is_not_cut() -> None:
    assert _printed(rule="r" * 200) == ["rule  " + "r" * 200]


def test_parts_stand_indented_below_their_names() -> None:
    assert _printed(spec={"layers": 2, "name": "tiny"}, k=3) == ["k  3", "", "spec", "  layers  2", "  name    tiny"]


def test_nothing_in_a_list_is_said() -> None:
    assert _printed(found=[], pairs=[["a", "b"], []]) == ["found  none", "pairs  a, b, none"]


def test_blank_lines_between_nested_parts_are_empty() -> None:
    assert _printed(outer={"n": 1, "inner": {"k": 2}}) == ["outer", "  n  1", "", "  inner", "    k  2"]


def test_the_key_that_a_head_looks_at_stands_beside_the_query() -> None:
    row = {
        "pieces": ["a", " cat", " sat"],
        "activations": [0.0, 0.9, 0.1],
        "activation": 0.9,
        "document": 3,
        "query": " sat",
    }
    [_, line] = _printed(examples=[row])
    assert line.split() == ["0.900", "document", "3", "from", "'", "sat'", "a", "cat[0.9]", "sat"]


def test_a_context_marks_the_large_activations_alone() -> None:
    row = {"pieces": ["<|bos|>", "a", " cat", " sat"], "activations": [0.0, 0.49, 1.0, -0.5]}
    [_, line] = _printed(texts=[row])
    assert line.split() == ["largest", "1.000", "<|bos|>a", "cat[1]", "sat[-0.5]"]
    [_, quiet] = _printed(texts=[{"pieces": ["a"], "activations": [0.0]}])
    assert quiet.split() == ["largest", "0.000", "a"]
    [_, found] = _printed(examples=[{**row, "activation": 1.0, "document": 7, "centre": 2}])
    assert found.split()[:4] == ["1.000", "document", "7", "<|bos|>a"]


def test_foreign_text_cannot_steer_the_terminal() -> None:
    lines = _printed(
        text="\x1b[31mred\n", texts=[{"pieces": ["\x1b[2J", "\r"], "activations": [1.0, 0.0]}], rows=[{"a": "\x07"}]
    )
    assert not any(ord(character) < 32 for line in lines for character in line)


def test_arrays_are_kept_where_asked_and_never_overwrite(tmp_path: Path) -> None:
    place = tmp_path / "kept.npz"
    call = ["tool", "weights_of", json.dumps({"unit": "8.481", "k": 1}), "--arrays", str(place), "--json"]
    done = CliRunner().invoke(app, call, catch_exceptions=False)
    assert json.loads(done.stdout)["tool"] == "weights_of"
    target = load_target("pocket")
    with np.load(place) as kept:
        np.testing.assert_array_equal(kept["write"], target.write_vectors(8)[481])
    with pytest.raises(UserError, match="nothing is overwritten"):
        CliRunner().invoke(app, call, catch_exceptions=False)
    with pytest.raises(UserError, match="makes no arrays"):
        CliRunner().invoke(app, ["tool", "model_card", "--arrays", str(tmp_path / "b.npz")], catch_exceptions=False)


def test_json_on_a_terminal_is_read_back_and_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "é\x1b[2J\x9b31m\u202eabc\U000e0041\ud800 \n ok", "n": [1, 2.5, None]}
    print_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert "é" in printed
    assert not set(printed) & set("\x1b\x9b\u202e\U000e0041\ud800")

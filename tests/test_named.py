"""Other models, labels and heads that a person names can be asked about in a conversation and over the tool server."""

import io
import json
import random
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from mcp import Client

from neuronaut.agent.served.bench import Bench
from neuronaut.agent.server import Tools
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File
from neuronaut.tools.readouts.heads import Head, HeadConfig, save_head
from neuronaut.tools.targets.load import load_target

MADE = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
CHANGED = runpy.run_path(str(Path(__file__).with_name("changed_models.py")))
KINDS = {
    "--other": ("what changed in tuned", "diff_models", "other model tuned"),
    "--labels": ("find units for the concept 'cat' in words", "find_units", "labels words"),
    "--head": ("does head mine use neuron 1.3", "read_out", "head mine"),
}  # option: a question that needs it, the tool that answers, and how it is called


@pytest.fixture(scope="module")
def named(tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Of each kind, the option that names one."""
    place, model = tmp_path_factory.mktemp("named"), Path(tiny[1])
    CHANGED["changed_copy"](model, place / "tuned", seed=0, noise=0.02)
    rng, words = random.Random(0), MADE["TEXT"].split()
    texts = [" ".join(rng.choice(words) for _ in range(9)) for _ in range(160)]
    rows = [{"text": text, "label": "cat" if "cat" in text.split() else "none"} for text in texts]
    (place / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = load_target(model)
    config = HeadConfig(weights_sha256=target.fingerprint().weights_sha256, site="resid_post", layer=2)
    save_head(Head("", "", config, torch.randn(1, 32), torch.zeros(1)), place / "head")
    return {
        "--other": ("--other", f"tuned={place / 'tuned'}"),
        "--labels": ("--labels", f"words={place / 'words.jsonl'}"),
        "--head": ("--head", f"mine={place / 'head'}"),
    }


def _tools(file: Path) -> set[str]:
    """The tools that did experiments in a notebook."""
    with Notebook(File(file), read_only=True) as notebook:
        return {row["tool"] for run in queries.runs(notebook) for row in queries.experiments(notebook, run["id"])}


@pytest.mark.parametrize("option", KINDS)
def test_a_conversation_answers_about_what_is_named(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], named: dict[str, tuple[str, str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, option: str,
) -> None:  # fmt: skip
    question, tool, _ = KINDS[option]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{question}\n"))
    said = neuronaut("chat", *tiny, *named[option], "--notebook", tmp_path / "n.db", "--json")
    assert said.code == 0, said.err
    answers = [row for row in map(json.loads, said.out.splitlines()) if row["type"] == "answer"]
    assert len(answers) == 1, said.out
    assert tool in _tools(tmp_path / "n.db")


def test_a_language_model_is_told_what_is_named(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], named: dict[str, tuple[str, str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "script.json").write_text(json.dumps(["Good day."]))
    monkeypatch.setattr(sys, "stdin", io.StringIO("good day\n"))
    every = [one for option in named.values() for one in option]
    script = ("--llm", f"scripted:{tmp_path / 'script.json'}")
    said = neuronaut("chat", *tiny, *every, *script, "--notebook", tmp_path / "n.db", "--json")
    assert said.code == 0, said.err
    with Notebook(File(tmp_path / "n.db"), read_only=True) as notebook:
        (run,) = queries.runs(notebook)
        (call,) = queries.calls(notebook, run["id"])
    assert "Known by name: other model tuned, labels words, head mine." in json.loads(call["request"])["prompt"]


@pytest.fixture
def served(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Bench]:
    """What `neuronaut mcp` serves by some options."""

    def started(*options: str) -> Bench:
        benches: list[Bench] = []
        monkeypatch.setattr("neuronaut.agent.server.serve_stdio", benches.append)
        ended = neuronaut("mcp", "--allow-run", *tiny, *options, "--notebook", tmp_path / "n.db")
        assert ended.code == 0, ended.err
        return benches[0]

    return started


@pytest.mark.parametrize("option", KINDS)
def test_a_client_of_the_tool_server_asks_about_what_is_named(
    served: Callable[..., Bench], named: dict[str, tuple[str, str]], tmp_path: Path, option: str
) -> None:
    question, tool, called = KINDS[option]

    async def drive(bench: Bench) -> tuple[str, Any]:
        async with Client(Tools(bench).server()) as client:
            told = str(client.instructions)
            return told, await client.call_tool("ask", {"question": question, "fast": True})

    told, result = anyio.run(drive, served(*named[option]))
    assert not result.is_error, result.content[0].text[:500]
    assert f"Known by name: {called}." in told
    assert tool in _tools(tmp_path / "n.db")


def test_a_client_cannot_name_what_the_person_did_not(served: Callable[..., Bench], tmp_path: Path) -> None:
    async def drive(bench: Bench) -> tuple[str, Any]:
        async with Client(Tools(bench).server()) as client:
            return str(client.instructions), await client.call_tool("ask", {"question": "what changed in tuned"})

    told, result = anyio.run(drive, served())
    assert result.is_error
    assert "no other model is called 'tuned'" in result.content[0].text
    assert "Known by name" not in told

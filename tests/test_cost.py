"""What a run cost is shown alike for a question, a repeat, a case of an evaluation, and a run of an earlier version."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.cost import Cost
from neuronaut.evals.loop import ask_each
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.corpus import load_corpus
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

FIELDS = {"seconds", "forwards", "tokens", "llm_calls", "maybe_billed_twice", "usd"}
NOT_ASKED = {"tokens": 0, "llm_calls": 0, "maybe_billed_twice": 0, "usd": 0.0}


@pytest.fixture
def asked(tiny: tuple[str, ...], neuronaut: Callable[..., Any]) -> Any:
    """The answer of a question, in the notebook of the test."""
    said = neuronaut("ask", "what does neuron 1.7- do", *tiny, "--fast", "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


def measured(path: str | Path, run: str) -> tuple[float, float]:
    """Seconds and forward passes of the run's experiments."""
    with Notebook(Path(path), read_only=True) as notebook:
        ends = [row["end"] for row in queries.experiments(notebook, run) if row["end"]]
    return sum(end["seconds"] for end in ends), sum(end["forwards"] for end in ends)


def shown(neuronaut: Callable[..., Any], run: str, path: str | Path) -> Any:
    """The cost as JSON; the answer for people is printed as well."""
    said = neuronaut("show", run, "--notebook", path)
    assert said.code == 0, said.err
    told = neuronaut("show", run, "--notebook", path, "--json")
    cost = json.loads(told.out)["cost"]
    assert f"{cost['forwards']:.0f} forward passes" in said.out
    assert (f"{cost['seconds']:.0f} s, " in said.out) if cost["seconds"] is not None else (" s, " not in said.out)
    return cost


def test_the_trail_of_an_evaluation_is_shown(
    tiny: tuple[str, ...], neuronaut: Callable[..., Any], tmp_path: Path
) -> None:
    context, path = ToolContext(load_target(tiny[1]), load_corpus(Path(tiny[3]))), tmp_path / "trail.db"
    [row] = ask_each(context, [Unit("neuron", 1, 7, -1)], 0, path)
    assert row["outcome"] == "ok"
    cost = shown(neuronaut, row["run"], path)
    assert cost == {
        "seconds": pytest.approx(row["seconds"], abs=1e-3),
        "forwards": pytest.approx(row["forwards"]),
        **NOT_ASKED,
    }
    assert cost["forwards"] >= measured(path, row["run"])[1] > 0


def test_a_repeat_is_shown_with_what_its_experiments_cost(asked: Any, neuronaut: Callable[..., Any]) -> None:
    again = json.loads(neuronaut("rerun", asked["run"], "--json").out)["run"]
    cost = shown(neuronaut, again, asked["notebook"])
    seconds, forwards = measured(asked["notebook"], again)
    assert cost == {
        "seconds": pytest.approx(seconds, abs=1.0),
        "forwards": pytest.approx(forwards, abs=1e-2),
        **NOT_ASKED,
    }
    assert cost["seconds"] >= seconds - 1e-3


@pytest.mark.parametrize("kept", [{"forwards": 12.0}, {"seconds": 3.0, "forwards": 12.0}])
def test_a_run_of_an_earlier_version_is_shown_with_what_it_kept(
    kept: Mapping[str, float], tiny: tuple[str, ...], neuronaut: Callable[..., Any], tmp_path: Path
) -> None:
    target, path = load_target(tiny[1]), tmp_path / "earlier.db"
    with Notebook(path) as notebook:
        run = notebook.start_run(
            {"question": "what does neuron 1.7 do", "seed": 0}, target.fingerprint(), ("c", "s", 1)
        )
        notebook.end_run(run, "answered", "", kept)
    assert shown(neuronaut, run, path) == {"seconds": None, **kept, **NOT_ASKED}


def test_calls_of_a_language_model_are_counted_with_their_price(tiny: tuple[str, ...], tmp_path: Path) -> None:
    target = load_target(tiny[1])
    request = {"purpose": "propose", "provider": "scripted", "model": "m", "request": "{}", "request_sha256": "r" * 64}
    reply = {"response": "{}", "answered_by": "m", "stop_reason": "stop", "seconds": 1}
    with Notebook(tmp_path / "calls.db") as notebook:
        run = notebook.start_run({"question": "q", "seed": 0}, target.fingerprint(), ("c", "s", 1))
        for price, tokens in ((1_500_000, 40), (250_000, 2)):
            call = notebook.begin_call(run, request)
            notebook.end_call(call, {**reply, "usd_micro": price, "tokens_in": tokens, "tokens_out": 1})
        priced = Cost.of(notebook, run, seconds=1.0, forwards=2.0)
        assert (priced.llm_calls, priced.tokens, priced.usd) == (2, 44, 1.75)
        notebook.begin_call(run, {**request, "request_sha256": "s" * 64})
        assert Cost.of(notebook, run, seconds=1.0, forwards=2.0).usd is None
        assert set(priced.fields) == FIELDS

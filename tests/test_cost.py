"""What a run cost is shown alike for a question, a repeat, a case of an evaluation, and a run of an earlier version."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.cost import Cost
from neuronaut.agent.cost import asked as asked_in_words
from neuronaut.evals.fake_provider.script import fails
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.evals.loop import ask_each
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.corpus import load_corpus
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

FIELDS = {"seconds", "forwards", "tokens", "llm_calls", "uncounted", "maybe_billed_twice", "usd"}
NOT_ASKED = {"tokens": 0, "llm_calls": 0, "uncounted": 0, "maybe_billed_twice": 0, "usd": 0.0}


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
        assert set(priced.fields) == FIELDS


ASKED = {"system": "s" * 100, "prompt": "p" * 300, "max_tokens": 700}
MOST_IN = (100 + 300) // 2  # two bytes a token


def ended(**known: Any) -> dict[str, Any]:
    return {"response": "{}", "answered_by": "m", "stop_reason": "stop", "seconds": 1, "usd_micro": 50, **known}


@pytest.mark.parametrize(
    ("end", "tokens", "uncounted", "usd"),
    [(None, MOST_IN + 700, 1, None),  # it was begun and never ended
     ({"error": "lost", "usd_micro": None, "seconds": 1}, MOST_IN + 700, 1, None),
     ({"error": "HTTP 500", "usd_micro": 0, "seconds": 1}, 0, 0, 5e-5),
     (ended(tokens_in=9, tokens_out=None, usd_micro=None), 709, 1, None),
     (ended(tokens_in=None, tokens_out=9, usd_micro=None), MOST_IN + 9, 1, None),
     (ended(tokens_in=0, tokens_out=0), 0, 0, 1e-4)],
)  # fmt: skip
def test_a_call_whose_tokens_are_not_known_counts_at_its_high_estimate(
    end: Any, tokens: int, uncounted: int, usd: float | None, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    request = {"purpose": "propose", "provider": "openai", "model": "m", "request": json.dumps(ASKED)}
    with Notebook(tmp_path / "calls.db") as notebook:
        run = notebook.start_run({"question": "q", "seed": 0}, load_target(tiny[1]).fingerprint(), ("c", "s", 1))
        for sha, one in (("r", ended(tokens_in=40, tokens_out=2)), ("s", end)):
            call = notebook.begin_call(run, {**request, "request_sha256": sha * 64})
            if one is not None:
                notebook.end_call(call, one)
        cost = Cost.of(notebook, run, seconds=1.0, forwards=2.0)
        assert (cost.tokens, cost.uncounted, cost.usd) == (42 + tokens, uncounted, usd)
        unknown = Cost.of(notebook, run, seconds=1.0, forwards=2.0, priced=False).usd
        assert unknown == (None if end and end.get("error") == "HTTP 500" else usd)


def test_what_was_asked_is_said_with_what_is_not_known() -> None:
    one = Cost(1.0, tokens=5120, llm_calls=1, usd=0.0123)
    assert asked_in_words(one.fields) == "1 language-model call (5,120 tokens, $0.0123)"
    more = Cost(1.0, tokens=5120, llm_calls=3, uncounted=1, maybe_billed_twice=2, usd=None)
    assert asked_in_words(more.fields) == (
        "3 language-model calls (at most 5,120 tokens, price unknown, 2 maybe billed twice)"
    )


def test_a_run_whose_calls_all_failed_at_an_unknown_price_says_so_in_each_place(
    tiny: tuple[str, ...], neuronaut: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Loopback(fails(400), key=None) as server:
        llm = ("--llm", "compatible:m", "--base-url", f"{server.url}/v1")
        said = neuronaut("ask", "what does neuron 1.7- do", *tiny, "--fast", *llm)
    assert server.requests
    assert ", 0 tokens, price unknown" in said.err
    assert "(0 tokens, price unknown)" in said.out
    assert "$" not in said.err + said.out

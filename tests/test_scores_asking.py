"""What `neuronaut score` says before it asks a language model, what it refuses to ask without a budget, and what it says was spent."""

import json
import re
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.scores import run
from neuronaut.evals.fake_provider.script import says
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.learn.subject import subject_of

_made = runpy.run_path(str(Path(__file__).with_name("test_scores_command.py")))
Lab, ALL_FIT, DOG, KEY = (_made[name] for name in ("Lab", "ALL_FIT", "DOG", "KEY"))
SAID = re.compile(r"is asked ([\d,]+) questions? at most, about ([\d,]+) tokens")
SPENT = re.compile(r"^ *model  (\d+) calls?, .* tokens", re.MULTILINE)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, neuronaut: Callable[..., Any]) -> Any:
    return Lab(tmp_path_factory.mktemp("announced"), neuronaut)


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return tmp_path / "notebook.db"  # the one that the command uses


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def numbers(text: str) -> tuple[int, int]:
    """The questions and the tokens that were announced."""
    (found,) = SAID.findall(text)
    return int(found[0].replace(",", "")), int(found[1].replace(",", ""))


@pytest.mark.parametrize(
    ("scores", "options", "n"),
    [
        ("detection", (), 68),  # of 80, those on unchanged windows once
        ("detection", ("--corrected-only",), 60),
        ("fuzz,detection", ("--corrected-only",), 120),
        ("saebench_autointerp", (), 3),
        ("intruder", (), 100),  # without another explanation
    ],
)
def test_as_many_questions_are_announced_as_are_then_asked(
    lab: Any, notebook: Path, scores: str, options: tuple[str, ...], n: int
) -> None:
    reply = {"saebench_autointerp": {"active": [1]}, "intruder": {"intruder": 1}}.get(scores, ALL_FIT)
    said = lab.score("--llm", lab.script(reply), "--scores", scores, *DOG, *options)
    assert said.code == 0, said.err
    with Notebook(notebook) as opened:
        (only,) = queries.runs(opened)
        bodies = [json.loads(call["request"]) for call in queries.calls(opened, only["id"])]
    parts = (str(body[part]) for body in bodies for part in ("system", "prompt", "schema"))
    guessed = sum(len(part.encode()) for part in parts) / 2 + 100 * n
    asked, tokens = numbers(said.err)
    assert asked == len(bodies) == n
    assert tokens == pytest.approx(guessed, rel=0.05)
    assert said.err.index("questions at most") < said.err.index("score  ")


def test_the_time_in_which_text_is_read_before_the_first_score_counts(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*args: Any) -> Any:
        time.sleep(0.5)
        return subject_of(*args)

    monkeypatch.setattr(run, "subject_of", slow)
    began = time.monotonic()
    said = lab.score("--llm", lab.script({"active": [1]}), "--scores", "saebench_autointerp", *DOG, "--json")
    assert 0.5 <= json.loads(said.out)["cost"]["seconds"] <= time.monotonic() - began


def test_what_is_known_is_not_announced_again(lab: Any) -> None:
    argv = ("--llm", lab.script(ALL_FIT), "--scores", "detection", *DOG)
    assert lab.score(*argv, "--corrected-only").code == 0
    assert numbers(lab.score(*argv).err)[0] == 8  # as published, on other windows
    assert numbers(lab.score(*argv).err) == (0, 0)


def test_much_is_asked_of_a_billed_language_model_only_within_a_budget(lab: Any, notebook: Path) -> None:
    with Loopback(says(json.dumps(ALL_FIT)), key=KEY) as server:
        argv = (
            "--llm",
            "openai:m",
            "--base-url",
            server.url + "/v1",
            "--scores",
            "detection",
            "--corrected-only",
            *DOG,
        )
        refused = lab.score(*argv, "--budget-seconds", 1000)
        assert (refused.code, refused.out, server.requests) == (2, "", [])
        with Notebook(notebook) as opened:
            assert queries.runs(opened) == []
        (told,) = re.findall(
            r"openai:m would be asked 60 questions at most, about ([\d,]+) tokens, .* at most 13 and 17,000: give "
            r"--budget-tokens (\d+) \(or --budget-calls, or --budget-usd\), or name fewer --scores",
            refused.err,
        )
        about, enough = int(told[0].replace(",", "")), told[1]
        assert about <= int(enough) < about + 1000
        done = lab.score(*argv, "--budget-tokens", enough)
        assert (done.code, len(server.requests)) == (0, 60)


@pytest.mark.parametrize("option", [("--budget-calls", 100), ("--budget-tokens", 10**6)])
def test_each_budget_that_was_given_is_leave(lab: Any, option: tuple[str, int]) -> None:
    with Loopback(says(json.dumps({"intruder": 1})), key=KEY) as server:
        argv = ("--llm", "openai:m", "--base-url", server.url + "/v1", "--scores", "intruder", *DOG)
        assert lab.score(*argv).code == 2
        assert lab.score(*argv, *option).code == 0


def test_little_is_asked_without_a_budget(lab: Any) -> None:
    with Loopback(says(json.dumps({"active": []})), key=KEY) as server:
        argv = ("--llm", "openai:m", "--base-url", server.url + "/v1", "--scores", "saebench_autointerp", *DOG)
        assert (lab.score(*argv).code, len(server.requests)) == (0, 3)


def test_what_was_spent_is_said_once_a_score(lab: Any) -> None:
    said = lab.score("--llm", lab.script(ALL_FIT), "--scores", "detection,fuzz", *DOG)
    assert SPENT.findall(said.err) == ["68", "148"]


def test_what_was_spent_is_said_too_where_the_budget_ends(lab: Any, notebook: Path) -> None:
    said = lab.score("--llm", lab.script(ALL_FIT), "--scores", "detection", *DOG, "--budget-calls", 7)
    assert (said.code, SPENT.findall(said.err)) == (1, ["7"])


def test_a_call_that_may_be_billed_twice_is_said_all_the_same(lab: Any, notebook: Path) -> None:
    argv = ("--llm", lab.script(ALL_FIT), "--scores", "detection", *DOG, "--corrected-only")
    assert lab.score(*argv).code == 0
    with Notebook(notebook) as opened:
        (run,) = queries.runs(opened)
        (first, *_) = queries.calls(opened, run["id"])
    with Notebook(notebook.with_name("other.db")) as opened:
        target = lab.target.fingerprint()
        begun = opened.start_run({"question": "?", "seed": 0}, target, ("c", "0" * 64, 1))
        kept = {name: first[name] for name in ("purpose", "provider", "model", "request", "request_sha256", "about")}
        opened.begin_call(begun, kept)
    said = lab.score(*argv, "--notebook", notebook.with_name("other.db"))
    assert said.err.count("maybe billed twice") == 1

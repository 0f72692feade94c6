"""What services and networks do wrong: a share of each experiment of `make soak`, and proof that the experiments can fail."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.llm import chat_completions, messages, responses
from neuronaut.agent.llm.base import LanguageModelError
from neuronaut.agent.proposers.replies import read_hypotheses
from neuronaut.evals import soak, soak_canaries, soak_http, soak_replies
from neuronaut.evals.fake_provider.faults import all_faults
from neuronaut.evals.fake_provider.script import fails, says
from neuronaut.evals.soak_http import KEY, PROVIDERS, TEXT

SEED = 20261121
STREAMED = {"openai": responses.streamed, "anthropic": messages.streamed, "compatible": chat_completions.streamed}


@pytest.mark.parametrize("name", ["http", "streams", "replies", "canaries"])
def test_a_twentieth_of_each_experiment_passes(name: str) -> None:
    one = soak.load(name)
    n = max(min(10, one.count), one.count // soak.SHARE)
    result = one.run(SEED, n)
    assert result.failures == []
    assert sum(result.outcomes.values()) == n


def test_the_experiments_are_as_many_as_promised() -> None:
    assert {name: soak.load(name).count for name in ("http", "streams", "replies", "canaries")} == {
        "http": len(soak_http.cases()), "streams": 2_000, "replies": 3_000, "canaries": 30,
    }  # fmt: skip
    assert len(soak_http.cases()) >= 340
    names = [fault.name for fault in all_faults(KEY)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_that_ends_after_any_byte_is_an_error(provider: str) -> None:
    """Every byte, where the experiment over HTTP draws some of them; the whole is a reply."""
    whole, heard = soak_http.stream(provider), []  # type: ignore[var-annotated]
    step = 1 if len(whole) < 5_000 else 3  # the Responses API sends the whole reply several times over
    last = range(len(whole) - 200, len(whole))
    for cut in sorted({*range(0, len(whole), step), *last}):
        heard.clear()
        with pytest.raises(LanguageModelError) as caught:
            STREAMED[provider]([whole[:cut]], heard.append, "x")
        assert caught.value.maybe_billed
        assert TEXT.startswith("".join(heard))
    assert STREAMED[provider]([whole], heard.append, "x").text == TEXT


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_with_a_changed_byte_is_an_error_or_a_whole_reply(provider: str) -> None:
    """No change of one byte can be noticed everywhere, but none may bring down the process or cut the calls short."""
    whole, drawn = bytearray(soak_http.stream(provider)), random.Random(SEED)
    for at in drawn.sample(range(len(whole)), 300):
        changed = whole.copy()
        changed[at] = drawn.randrange(256)
        try:
            reply = STREAMED[provider]([bytes(changed)], lambda _: None, "x")
        except LanguageModelError as error:
            assert error.maybe_billed  # noqa: PT017
        else:
            assert len(reply.calls) == 2 or reply.stop_reason not in ("tool_calls", "tool_use")


# The experiments can fail


SINK = [lambda key: fails(400, f"bad key {key}")]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("500 for ever", {"outcome": "lost"}, "refused, not lost"),
        ("500 for ever", {"waits": (0.01,)}, "5 calls, not 2"),
        ("429, wait: seconds", {"waits": (8,) * 4}, "waited"),
        ("401", {"steps": (says("a reply"),)}, "reply, not key"),
        ("401", {"steps": (fails(400),)}, "refused, not key"),
        ("cuts a reply", {"outcome": "refused"}, "lost, not refused"),
    ],
)
def test_a_fault_that_ends_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any], said: str
) -> None:
    fault = dataclasses.replace(next(fault for fault in all_faults(KEY) if fault.name == name), **change)
    monkeypatch.setattr(soak_http, "cases", lambda: [(fault, "openai", False)])
    (failure, *_) = soak_http.run_faults(0, 1).failures
    assert said in failure


def test_a_key_that_is_told_and_a_count_that_is_wrong_are_found() -> None:
    asked = soak_http.Asked(
        None, ValueError(f"it is {KEY}"), "other words", soak_http.Log([{"usd_micro": None}]), [], 0
    )
    assert list(soak_http._short(asked)) == ["heard 'other words'", "the key is told", "0 tokens are counted"]


def test_a_reader_that_guesses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def guessing(text: str) -> Any:
        return read_hypotheses(text.replace('"digits"', '"digit"').replace("Claim", "claim"))

    monkeypatch.setattr(soak_replies, "read_hypotheses", guessing)
    assert any("stand" in failure or "stated" in failure for failure in soak_replies.run_replies(SEED, 600).failures)


def test_most_replies_are_malformed_and_some_are_not() -> None:
    outcomes = soak_replies.run_replies(SEED, 300).outcomes
    assert min(outcomes["no reply"], outcomes["read"], outcomes["read after a repair"]) > 20


def test_a_key_in_a_file_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronaut.agent.llm.exchange.hidden", lambda text, _: text)
    monkeypatch.setattr(soak_canaries, "sinks", lambda: [("errors", "openai", SINK)])
    assert [place.split("the key is in ")[1] for place in soak_canaries.run_canaries(SEED, 1).failures] == [
        "the output", "a file", "a row",
    ]  # fmt: skip


def test_the_report_names_the_commit_the_counts_and_the_failures() -> None:
    one = soak.Experiment("some", 3, "pass", lambda seed, n: soak.Result())
    result = soak.Result(failures=["case 2 did not"])
    result.outcomes.update({"fine": 2, "not": 1})
    text = soak.report([(one, result, 1.2)], 7, "abc123")
    assert "| some | 3 | 1 | 1 | pass |" in text
    assert "commit abc123, seed 7" in text
    assert "- failed: case 2 did not" in text


def test_the_command_refuses_an_unknown_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["soak", "nothing", "--out", str(tmp_path / "soak.md")])
    with pytest.raises(SystemExit) as ended:
        soak.main()
    assert ended.value.code == 2
    assert not (tmp_path / "soak.md").exists()

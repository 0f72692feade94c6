"""`neuronaut doctor --llm` says whether a language model can be used, and if not, why and what next."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.config import parse_llm
from neuronaut.agent.llm.base import Request
from neuronaut.agent.llm.registry import open_language_model
from neuronaut.evals.fake_provider import __main__ as by_hand
from neuronaut.evals.fake_provider.script import Answer, Seen, fails, says
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.evals.fake_provider.trial import check
from neuronaut.prompts import render

KEY = "sk-canary-0123456789"
PROVIDERS = ("openai", "anthropic", "compatible")
GOOD = (says('{"number": 7}'), says(calls=[("note", {"number": 7})]), says("one two three four five"))
Doctor = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def doctor(provider: str, neuronaut: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """The rows of the command about a server with a script, and its exit code under "code"."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY"):
        monkeypatch.setenv(name, KEY)

    def run(*script: Any, key: str = KEY) -> dict[str, tuple[str, str]]:
        with Loopback(*script, key=key) as server:
            url = server.url if provider == "anthropic" else f"{server.url}/v1"
            said = neuronaut("doctor", "--llm", f"{provider}:some-model", "--base-url", url, "--json")
        assert KEY not in said.out + said.err
        rows = {row["what"]: (row["level"], row["detail"]) for row in json.loads(said.out)}
        assert said.code == int(any(level == "error" for level, _ in rows.values()))
        return rows

    return run


def test_a_model_that_can_do_all_is_ok(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"date": "2026-11-01", "per_million": {"some-model": [10, 1, 100]}}))
    monkeypatch.setenv("NEURONAUT_PRICES", str(prices))
    rows = doctor(*GOOD)
    assert {level for level, _ in rows.values()} == {"ok"}
    assert list(rows) == ["key", "address", "structured reply", "tool call", "streaming", "tokens", "price"]
    assert rows["tokens"][1] == "this check took 300 in and 60 out"
    assert "$0.009000" in rows["price"][1]  # 300 * 10 + 60 * 100 millionths


def test_an_unknown_price_and_uncounted_tokens_are_said(doctor: Doctor, provider: str) -> None:
    rows = doctor(*(says(*step, tokens=None, **more) for step, more in (
        (('{"number": 7}',), {}), ((), {"calls": [("note", {"number": 7})]}), (("one two three",), {})
    )))  # fmt: skip
    assert rows["price"][0] == ("warning")
    assert rows["tokens"][0] == ("ok" if provider == "anthropic" else "warning")  # which always counts


def test_a_refused_key_names_its_variable(doctor: Doctor, provider: str) -> None:
    rows = doctor(*GOOD, key="another")
    variable = {"openai": "OPENAI", "anthropic": "ANTHROPIC", "compatible": "NEURONAUT_LLM"}[provider]
    assert rows["reply"][0] == "error"
    assert variable in rows["reply"][1]
    assert "tool call" not in rows


def test_a_missing_key_names_its_variable(doctor: Doctor, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY"):
        monkeypatch.delenv(name)
    rows = doctor(*GOOD, key="no-key")
    assert rows["key"][0] == ("ok" if provider == "compatible" else "error")
    assert "not set" in rows["key"][1] or "needs a key" in rows["key"][1]


@pytest.mark.parametrize(("status", "word"), [(404, "names in --llm"), (500, "HTTP 500"), (403, "does not allow")])
def test_a_failure_is_told_once(doctor: Doctor, status: int, word: str) -> None:
    rows = doctor(fails(status))
    assert (rows["reply"][0], word in rows["reply"][1]) == ("error", True)
    assert set(rows) == {"key", "reply"}


def test_a_model_that_ignores_the_schema_calls_no_tool_and_cannot_stream(doctor: Doctor) -> None:
    def whole(seen: Seen) -> Answer:
        return says("one two")(Seen(seen.format, {}, {"model": "m"}))

    rows = doctor(says("Sure! It is 7."), says("I would call note."), whole)
    assert {what: rows[what][0] for what in ("structured reply", "tool call", "streaming")} == {
        "structured reply": "error", "tool call": "error", "streaming": "warning",
    }  # fmt: skip
    assert "ignores the JSON schema" in rows["structured reply"][1]


def test_a_tool_call_with_other_arguments_is_an_error(doctor: Doctor) -> None:
    for arguments in ({"number": "7"}, "{not JSON", {"number": 7, "more": 1}):
        assert doctor(GOOD[0], says(calls=[("note", arguments)]), GOOD[2])["tool call"][0] == "error"


def test_a_stream_that_breaks_off_is_an_error(doctor: Doctor) -> None:
    rows = doctor(GOOD[0], GOOD[1], says("one two three", keep=200))
    assert (rows["streaming"][0], rows["tool call"][0]) == ("error", "ok")


def test_a_cut_reply_is_an_error_and_says_so(doctor: Doctor) -> None:
    assert "stopped with" in doctor(says('{"number"', stop="cut"), *GOOD[1:])["structured reply"][1]


def test_colours_of_a_server_leave_nothing_behind(doctor: Doctor) -> None:
    red = "\x1b[31mred\x1b[0m"
    rows = [
        *doctor(says(red), says(calls=[(red, {"a": 1})]), GOOD[2]).values(),
        *doctor(fails(500, red)).values(),
        *doctor(says('{"number": 7}', model=red), *GOOD[1:]).values(),
    ]
    assert sum("red" in detail for _, detail in rows) == 4
    assert not any(left in detail for _, detail in rows for left in ("[31m", "[0m", "\x1b", "u001b"))


def test_it_fits_one_screen_and_a_script_is_not_asked(neuronaut: Callable[..., Any], tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('["x"]')
    said = neuronaut("doctor", "--llm", f"scripted:{script}")
    assert (said.code, said.out.count("\n")) == (0, 1)
    assert neuronaut("doctor", "--llm", "nothing").code == 2
    assert neuronaut("doctor", "--llm", "compatible:m").code == 2


@pytest.mark.parametrize("llm", ["openai", "anthropic"])
def test_the_fake_provider_can_be_started_by_hand(
    llm: str, neuronaut: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.json"
    script.write_text(
        json.dumps([{"number": 7}, {"calls": [{"name": "note", "arguments": {"number": 7}}]}, "one two three four"])
    )
    command = [sys.executable, "-m", "neuronaut.evals.fake_provider", "--script", str(script)]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(f"{llm.upper()}_API_KEY", "any key")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as server:
        assert server.stdout is not None
        printed = server.stdout.readline() + server.stdout.readline()
        urls = dict(re.findall(r"(openai|anthropic).*--base-url (\S+)", printed))
        try:
            said = neuronaut("doctor", "--llm", f"{llm}:m", "--base-url", urls[llm])
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 0
    assert [line.split()[0] for line in said.out.splitlines()] == ["ok"] * 6 + ["warning"]  # of the price


@pytest.mark.parametrize("entries", [["Hello."], [{"hypotheses": []}, "and more"]])
def test_the_fake_provider_passes_the_checks_without_using_up_its_script(
    provider: str, entries: list[Any], neuronaut: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY"):
        monkeypatch.setenv(name, KEY)
    script = tmp_path / "script.json"
    script.write_text(json.dumps(entries))
    with by_hand.opened(script, "0") as server:
        url = server.url if provider == "anthropic" else f"{server.url}/v1"
        model = open_language_model(parse_llm(f"{provider}:m"), url)
        for entry in entries:
            said = neuronaut("doctor", "--llm", f"{provider}:m", "--base-url", url)
            assert [line.split()[0] for line in said.out.splitlines()] == ["ok"] * 6 + ["warning"]  # of the price
            text = model.ask(Request("talk", "another system prompt", "the prompt")).text
            assert text == (entry if isinstance(entry, str) else json.dumps(entry))
        assert len(server.requests) == 4 * len(entries)


def test_a_script_that_begins_with_an_answer_answers_the_checks_itself(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"number": 8}]))
    with by_hand.opened(script, "0") as server:
        seen = Seen("responses", {}, {"model": "m", "input": "x", "instructions": render("check_system")})
        assert b'{\\"number\\": 8}' in server.answer(seen).content


def test_a_request_without_a_system_prompt_in_its_place_is_none_of_the_checks() -> None:
    bodies: list[dict[str, Any]] = [
        {},
        {"instructions": 3, "messages": [], "system": []},
        {"messages": [3], "system": "x"},
    ]
    assert [check(Seen(kind, {}, body)) for body in bodies for kind in ("responses", "chat", "messages", "")] == [
        None
    ] * 12


def refused_by_hand(
    script: Path, port: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(sys, "argv", ["fake_provider", "--script", str(script), "--port", port])
    assert by_hand.main() == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), said[:7]) == (1, "error: ")
    return said


def test_a_busy_port_no_port_and_a_script_without_replies_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script, empty = tmp_path / "script.json", tmp_path / "empty.json"
    script.write_text('["x"]')
    empty.write_text("[]")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused_by_hand(script, port, capsys, monkeypatch)
        assert f"port {port} cannot be opened (another program has it): give another, or leave --port out" in said
    for wrong in ("70000", "-1", "abc", "", "9" * 5000, "1.5"):
        said = refused_by_hand(script, wrong, capsys, monkeypatch)
        assert f"--port {wrong!r} is no port: give a number from 0 to 65535" in said
    said = refused_by_hand(empty, "0", capsys, monkeypatch)
    assert 'holds no reply: write at least one, for example ["Hello."]' in said


@pytest.mark.parametrize("content", ["[]", "{}", "x"])
def test_a_script_that_cannot_be_used_ends_the_command(content: str, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(content)
    command = [sys.executable, "-m", "neuronaut.evals.fake_provider", "--script", str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1

"""Both SDKs, over HTTP on this machine: what they send, what is read of a reply, and which failure says what."""

import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from neuronaut.agent.config import parse_llm
from neuronaut.agent.llm import messages
from neuronaut.agent.llm.again import again_after
from neuronaut.agent.llm.base import (
    COMPLETE,
    KeyRefused,
    LanguageModel,
    LanguageModelError,
    Request,
    plain,
)
from neuronaut.agent.llm.exchange import certificates
from neuronaut.agent.llm.registry import open_language_model
from neuronaut.evals.fake_provider import formats
from neuronaut.evals.fake_provider.checks import why_refused
from neuronaut.evals.fake_provider.formats import Spoken
from neuronaut.evals.fake_provider.script import Answer, Seen, body_of, fails, says, sends
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.tools.errors import UserError


class Hypothesis(BaseModel):
    claim: str
    predicate: str


class Hypotheses(BaseModel):
    hypotheses: list[Hypothesis]


KEY = "sk-canary-0123456789"
REQUEST = Request("propose", "the system prompt", "the prompt", Hypotheses, max_tokens=700)
PROVIDERS = ("openai", "anthropic", "compatible")
Open = Callable[..., tuple[Any, LanguageModel]]


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def opened(provider: str, keys: None) -> Iterator[Open]:
    """A server with a script, and the language model that asks it."""
    running = []

    def start(*script: Any, timeout: float = 10.0) -> tuple[Any, LanguageModel]:
        server = Loopback(*script, key=KEY).__enter__()
        running.append(server)
        base_url = server.url if provider == "anthropic" else f"{server.url}/v1"
        return server, open_language_model(parse_llm(f"{provider}:some-model"), base_url, timeout)

    yield start
    for server in running:
        server.__exit__()


def test_a_reply_comes_with_its_text_model_and_token_counts(opened: Open) -> None:
    _, model = opened(says('{"hypotheses": []}', tokens=(100, 30, 20), model="some-model-2026-01-31"))
    reply = model.ask(REQUEST)
    assert reply.text == '{"hypotheses": []}'
    assert reply.model == "some-model-2026-01-31"
    assert reply.stop_reason in COMPLETE
    assert (reply.tokens_in, reply.tokens_cached, reply.tokens_out) == (100, 30, 20)


def test_the_prompts_the_limit_and_the_schema_are_sent(opened: Open, provider: str) -> None:
    server, model = opened(says("{}"))
    model.ask(REQUEST)
    (seen,) = server.requests
    assert why_refused(seen) == ""
    body = seen.body
    limit = {"openai": "max_output_tokens", "anthropic": "max_tokens", "compatible": "max_tokens"}[provider]
    assert body["model"] == "some-model"
    assert body[limit] == 700
    if provider == "openai":
        assert (body["instructions"], body["input"], body["store"]) == ("the system prompt", "the prompt", False)
    elif provider == "anthropic":
        (system,) = body["system"]
        assert (system["text"], body["messages"]) == ("the system prompt", [{"role": "user", "content": "the prompt"}])
    else:
        assert [m["content"] for m in body["messages"]] == ["the system prompt", "the prompt"]


def test_a_429_is_waited_for_and_asked_again(opened: Open) -> None:
    server, model = opened(fails(429, "slow down", **{"retry-after": "0.4"}), says("{}"))
    assert model.ask(REQUEST).text == "{}"
    first, second = server.requests
    assert second.at - first.at >= 0.4
    assert first.body == second.body


def test_a_server_that_keeps_failing_is_asked_five_times_and_told_in_one_sentence(opened: Open) -> None:
    server, model = opened(fails(500, "it is on fire"))
    with pytest.raises(LanguageModelError, match=r":some-model answered with HTTP 500: .*it is on fire") as caught:
        model.ask(REQUEST)
    assert len(server.requests) == 5
    assert not caught.value.maybe_billed


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_not_repeated(opened: Open, status: int) -> None:
    server, model = opened(fails(status, "too long"))
    with pytest.raises(LanguageModelError, match=f"HTTP {status}: .*too long"):
        model.ask(REQUEST)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_a_failure_that_may_pass_is_asked_again(opened: Open, status: int) -> None:
    server, model = opened(fails(status), fails(status), says("{}"))
    assert model.ask(REQUEST).text == "{}"
    assert len(server.requests) == 3


def test_a_server_that_asks_for_an_hour_is_not_waited_for(opened: Open) -> None:
    server, model = opened(fails(429, "quota", **{"retry-after": "3600"}))
    with pytest.raises(LanguageModelError, match=r"HTTP 429: .*quota"):
        model.ask(REQUEST)
    assert len(server.requests) == 1


def date(**later: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(**later))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({}, 1), ({"retry-after": "7"}, 7), ({"retry-after-ms": "250", "retry-after": "7"}, 0.25), ({"retry-after": "-5"}, 0),
        ({"retry-after": "soon"}, 1), ({"retry-after": "nan"}, 1), ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, 0),
    ],
)  # fmt: skip
def test_a_wait_is_as_long_as_the_server_says(header: dict[str, str], seconds: float) -> None:
    assert again_after(429, header) == seconds


def test_without_a_word_of_the_server_each_wait_is_twice_as_long() -> None:
    assert [again_after(500, {}, attempt) for attempt in (1, 2, 3, 4)] == [1, 2, 4, 8]


def test_a_wait_may_be_given_as_a_date() -> None:
    wait = again_after(429, {"retry-after": date(seconds=50)})
    assert wait is not None
    assert 30 < wait <= 50


@pytest.mark.parametrize("hours", ["3600", "inf", "1e999", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_no_wait_is_longer_than_a_minute(hours: str) -> None:
    assert again_after(503, {"retry-after": hours}) is None


def test_a_reply_that_does_not_come_is_given_up_and_may_have_been_billed(opened: Open) -> None:
    server, model = opened(sends(b"{}", wait=5.0), timeout=0.2)
    with pytest.raises(LanguageModelError, match=r"gave no reply within 0\.2 seconds") as caught:
        model.ask(REQUEST)
    assert caught.value.maybe_billed
    assert len(server.requests) == 1  # a second try could be paid for too


@pytest.mark.parametrize(
    "step",
    [
        sends(b"<html>Bad gateway</html>", "text/html"),
        sends(b'{"model": "x", "outp'),
        sends(b"[]"),
        sends(b"{}"),
        sends(b""),
        sends(b"null"),
        sends(b'{"model": 3, "choices": "no", "output": {}, "content": 7, "status": []}'),
        sends(b'{"model": "\\ud800", "choices": [], "output": [], "content": [], "status": "completed"}'),
        sends(b"[" * 100_000),
        sends(b"\xff\xfe\x00"),
    ],
)
def test_a_body_in_no_known_format_is_a_failure_that_may_have_been_billed(opened: Open, step: Any) -> None:
    _, model = opened(step)
    with pytest.raises(LanguageModelError, match="is not in its format") as caught:
        model.ask(REQUEST)
    assert caught.value.maybe_billed


def test_a_reply_that_breaks_off_is_a_failure_that_may_have_been_billed(opened: Open) -> None:
    server, model = opened(sends(b'{"model": "some-model", "output"', keep=10))
    with pytest.raises(LanguageModelError, match="broke the connection off") as caught:
        model.ask(REQUEST)
    assert caught.value.maybe_billed
    assert len(server.requests) == 1


@pytest.mark.parametrize("stop", ["cut", "refusal"])
def test_a_cut_or_refused_reply_says_so(opened: Open, stop: str) -> None:
    _, model = opened(says('{"hypotheses": [', stop=stop))
    reason = model.ask(REQUEST).stop_reason
    assert reason not in COMPLETE
    assert reason in {"cut": {"max_output_tokens", "max_tokens", "length"}, "refusal": {"refusal"}}[stop]


def test_a_server_that_is_not_there_is_named(provider: str, keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    model = open_language_model(parse_llm(f"{provider}:m"), f"http://127.0.0.1:{port}/v1", 5.0)
    with pytest.raises(LanguageModelError, match=f"cannot be reached at http://127.0.0.1:{port}/v1") as caught:
        model.ask(REQUEST)
    assert not caught.value.maybe_billed
    assert waited == [0.5] * 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_only_the_user_can_mend_is_a_user_error(opened: Open, status: int) -> None:
    server, model = opened(fails(status, "see the console"))
    with pytest.raises(UserError, match=f"HTTP {status}.*see the console"):
        model.ask(REQUEST)
    assert len(server.requests) == 1


def test_a_refused_key_names_its_variable_and_hides_the_key(
    opened: Open, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, model = opened(says("{}"))
    server.key = "another"
    variable = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "compatible": "NEURONAUT_LLM_KEY"}
    with pytest.raises(KeyRefused, match=variable[provider]) as caught:
        model.ask(REQUEST)
    assert "[key]" in str(caught.value)  # the server did send it back
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_a_server_sends_back_is_blotted_out_of_the_reply(opened: Open) -> None:
    _, model = opened(says(f"the key is {KEY}"))
    assert model.ask(REQUEST).text == "the key is [key]"


def test_the_key_is_in_no_log_at_any_level(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, model = opened(fails(500), says("{}"))
    model.ask(REQUEST)
    assert caplog.records  # the SDKs do log
    assert KEY not in caplog.text


def test_text_is_not_sent_on_to_another_server(opened: Open) -> None:
    with Loopback(says("{}"), key=KEY) as other:
        path = {"responses": "/v1/responses", "chat": "/v1/chat/completions", "messages": "/v1/messages"}
        _, model = opened(lambda seen: Answer(b"", 307, {"location": other.url + path[seen.format]}))
        with pytest.raises(LanguageModelError, match="HTTP 307"):
            model.ask(REQUEST)
        assert other.requests == []


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [("https://me:pass@example.org:8443/a", "", "https://example.org:8443/a"), ("", "", "http://127.0.0.1:{port}"),
     ("/elsewhere", "?token=abc123#frag", "http://127.0.0.1:{port}/elsewhere"), ("//example.org", "", "http://example.org"),
     (f"https://example.org/{KEY}", "", "https://example.org/[key]")],
)  # fmt: skip
def test_a_redirection_names_the_address_to_give_instead(
    opened: Open, provider: str, start: str, end: str, shown: str
) -> None:
    server, model = opened(lambda seen: Answer(b"", 308, {"location": start + seen.path + end}))
    with pytest.raises(LanguageModelError) as caught:
        model.ask(REQUEST)
    to = shown.format(port=server.url.rpartition(":")[2]) + ("" if provider == "anthropic" else "/v1")
    assert f" redirects to {to} (HTTP 308), which is not followed: " in str(caught.value)
    assert "give that address as --base-url" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("pass@", "abc123", KEY))
    assert (len(server.requests), caught.value.maybe_billed) == (1, False)


@pytest.mark.parametrize("headers", [{}, {"location": "http://[no"}, {"location": "/login\x1b[31m"}])
def test_a_redirection_to_no_address_or_to_another_page_is_told_in_one_line(opened: Open, headers: Any) -> None:
    _, model = opened(lambda _: Answer(b"", 302, headers))
    with pytest.raises(LanguageModelError, match="HTTP 302") as caught:
        model.ask(REQUEST)
    assert "\x1b" not in str(caught.value)


def test_a_missing_key_is_named(provider: str) -> None:
    if provider == "compatible":
        assert open_language_model(parse_llm("compatible:m"), "http://127.0.0.1:9/v1").provider == "compatible"
        return
    with pytest.raises(KeyRefused, match=f"{provider.upper()}_API_KEY"):
        open_language_model(parse_llm(f"{provider}:m"))


@pytest.mark.parametrize("key", ["sk-canary\n0123456789", "sk-canary-…0123456789", "sk-canary\x00"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(
    provider: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "compatible": "NEURONAUT_LLM_KEY"}[
        provider
    ]
    monkeypatch.setattr("os.environ", os.environ | {variable: key})  # the real one takes no null character
    with pytest.raises(KeyRefused, match=f"{variable} holds characters") as caught:
        open_language_model(parse_llm(f"{provider}:m"), "http://127.0.0.1:9")
    assert "canary" not in str(caught.value)


def test_openais_key_is_not_sent_to_a_compatible_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Loopback(says("{}"), key="no-key") as server:
        open_language_model(parse_llm("compatible:m"), f"{server.url}/v1").ask(REQUEST)
        assert KEY not in str(server.requests)


@pytest.mark.parametrize("url", ["ftp://host/v1", "127.0.0.1:80", "http://", "http://[", "http://h:99999999", "x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="no address"):
        open_language_model(parse_llm("compatible:m"), url)


@pytest.mark.parametrize("url", ["http://user:secret@host/v1", "http://host/v1?key=secret"])
def test_an_address_with_a_password_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UserError, match="no password") as caught:
        open_language_model(parse_llm("compatible:m"), url)
    assert "secret" not in str(caught.value)


def test_text_of_a_server_is_shown_in_one_short_line() -> None:
    assert plain("a\x1b[31m\n\nb\u202ec\x9b", 50) == "a b c"
    assert plain("x" * 1000, 50) == "x" * 49 + "…"


# Certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine that only who names its file trusts, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not there: without it no certificate can be made")
    file = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    made = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", *made, "-days", "2", "-keyout", file.with_name("key.pem"), "-out", file]
    subprocess.run(command, check=True, capture_output=True)
    return file


def test_a_server_is_trusted_by_the_certificates_that_the_environment_names_at_the_time(
    provider: str, keys: None, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with Loopback(says('{"hypotheses": []}'), key=KEY, tls=context) as server:
        url = server.url.replace("http:", "https:") + ("" if provider == "anthropic" else "/v1")
        model = open_language_model(parse_llm(f"{provider}:some-model"), url, 5.0)
        for _ in range(2):
            with monkeypatch.context() as named:
                named.setenv("SSL_CERT_FILE", str(certificate))
                assert model.ask(REQUEST).text == '{"hypotheses": []}'
            with pytest.raises(LanguageModelError, match="certificate"):
                model.ask(REQUEST)
        assert len(server.requests) == 2


def test_certificates_are_read_once() -> None:
    assert certificates() is certificates()


@pytest.mark.parametrize(
    "order",
    ["\x1b[31m", "\x1b[2J", "\x1b[?25l", "\x1b[38;2;1;2;3m", "\x9b1m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x1bc",
     "\x1b(B", "\x1bP1$r\x1b\\", "\x9d0;t\x9c"],
)  # fmt: skip
def test_orders_to_a_terminal_are_taken_out_whole(order: str) -> None:
    assert plain(f"a{order}b", 20) == "ab"
    assert plain(f"[31m {order}{order}]0;", 20) == "[31m ]0;"  # what only looks like one is left


@pytest.mark.parametrize("order", ["\x1b", "\x1b[", "\x1b[31", "\x1b]0;never ends"])
def test_an_order_that_never_ends_hides_no_words(order: str) -> None:
    assert plain(f"all of it {order}", 60) == f"all of it {order[2:]}".replace("31", "").strip()


IMPOSSIBLE = (10**30, -1, -(10**30), 2.5, 1e999, True, "12", [], None, 10**9 + 1)


def counts_of(reported: Any) -> dict[str, Any]:
    """A reply whose counts, in any format, are all the same."""
    parts = {"cached_tokens": reported, "cache_write_tokens": reported}
    names = ("input_tokens", "output_tokens", "prompt_tokens", "completion_tokens")
    of_cache = {"cache_read_input_tokens": reported, "cache_creation_input_tokens": reported}
    return dict.fromkeys(names, reported) | of_cache | {"input_tokens_details": parts, "prompt_tokens_details": parts}


def reports(reported: Any) -> Callable[[Seen], Answer]:
    """A step whose reply has these counts."""
    return lambda seen: Answer(json.dumps(body_of(seen, Spoken("words")) | {"usage": counts_of(reported)}).encode())


@pytest.mark.parametrize("reported", IMPOSSIBLE, ids=repr)
def test_a_count_that_cannot_be_is_taken_as_missing_and_the_reply_is_kept(opened: Open, reported: Any) -> None:
    _, model = opened(reports(reported))
    reply = model.ask(REQUEST)
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("words", None, None)
    assert (reply.tokens_cached, reply.tokens_written) in ((None, None), (0, 0) if reported is None else (None, None))


@pytest.mark.parametrize("reported", [0, 7, 7.0, 10**8])
def test_a_count_that_can_be_is_taken_as_it_is(opened: Open, provider: str, reported: Any) -> None:
    _, model = opened(reports(reported))
    reply = model.ask(REQUEST)
    n_in = 3 * reported if provider == "anthropic" else reported  # which counts the cache apart
    assert (reply.tokens_in, reply.tokens_cached, reply.tokens_out) == (n_in, reported, reported)


def test_one_part_of_the_tokens_that_cannot_be_leaves_their_sum_unknown() -> None:
    usage = {"input_tokens": 5, "output_tokens": 6, "cache_read_input_tokens": -5}
    reply = messages.reply(json.dumps({**formats.messages(Spoken("words")), "usage": usage}).encode(), "x")
    assert (reply.tokens_in, reply.tokens_cached, reply.tokens_out) == (None, None, 6)

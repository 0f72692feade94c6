"""Streams, turns and tools in three formats: the same reply as without a stream, and what the SDKs themselves make of it."""

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import RawMessageStreamEvent
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from neuronaut.agent.config import parse_llm
from neuronaut.agent.llm import chat_completions, messages, responses
from neuronaut.agent.llm.base import COMPLETE, Call, LanguageModelError, Offered, Request, Said, Told
from neuronaut.agent.llm.events import Event, events
from neuronaut.agent.llm.registry import open_language_model
from neuronaut.agent.llm.schemas import strict_schema
from neuronaut.evals.fake_provider.checks import why_refused
from neuronaut.evals.fake_provider.formats import Spoken
from neuronaut.evals.fake_provider.script import EVENTS, Answer, Seen, says, sends, stream_of
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.evals.fake_provider.streams import PIECE, encoded

KEY = "sk-canary-0123456789"
PROVIDERS = ("openai", "anthropic", "compatible")
FORMATS = {"openai": "responses", "anthropic": "messages", "compatible": "chat"}
TEXT = 'Er sagt: "neun ≥ acht" 🙂\n\tund geht.'
TOOL = Offered(
    "find_texts",
    "Texts in which a word stands.",
    {
        "type": "object",
        "properties": {
            "word": {"type": "string", "minLength": 1},
            "n": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        },
        "required": ["word"],
    },
)
CALLS = (("find_texts", {"word": "neun", "n": 3}), ("find_texts", {"word": 'a "quoted" ≥', "n": 1}))
TURNS = (
    Said("I look.", (Call("call_1", "find_texts", '{"word": "neun", "n": 3}'), Call("call_2", "nothing", "{not JSON"))),
    Told("And now?", (("call_1", "2 texts"), ("call_2", "there is no such tool"))),
    Said("", (Call("call_3", "find_texts", "[1]"),)),
    Told("", (("call_3", "refused"),)),
)


class Count(BaseModel):
    n: int


TALK = Request("talk", "the system prompt", "the prompt", tools=(TOOL,))
LONG = Request("talk", "the system prompt", "the prompt", turns=TURNS, tools=(TOOL,))
Open = Callable[..., tuple[Loopback, Any]]


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def opened(provider: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """A server with a script, and the language model that asks it."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = []

    def start(*script: Any, timeout: float = 10.0) -> tuple[Loopback, Any]:
        server = Loopback(*script, key=KEY).__enter__()
        running.append(server)
        base_url = server.url if provider == "anthropic" else f"{server.url}/v1"
        return server, open_language_model(parse_llm(f"{provider}:some-model"), base_url, timeout)

    yield start
    for server in running:
        server.__exit__()


def heard_and_reply(model: Any, request: Request = TALK) -> tuple[str, Any]:
    heard: list[str] = []
    reply = model.ask(request, heard.append)
    return "".join(heard), reply


# Streams


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("calls", [(), CALLS])
def test_a_streamed_reply_is_the_same_as_one_in_a_piece(opened: Open, framing: str, calls: Any) -> None:
    step = says(TEXT, calls=calls, tokens=(100, 30, 20), model="some-model-2026", framing=framing, piece=11)
    server, model = opened(step)
    whole = model.ask(TALK)
    heard, reply = heard_and_reply(model)
    assert reply == whole
    assert (heard, reply.text) == (TEXT, TEXT)
    assert (reply.tokens_in, reply.tokens_cached, reply.tokens_out) == (100, 30, 20)
    assert [(call.name, json.loads(call.arguments)) for call in reply.calls] == list(calls)
    assert [request.body.get("stream") for request in server.requests] == [None, True]


def test_words_are_heard_before_the_stream_ends(opened: Open) -> None:
    _, model = opened(says(TEXT, piece=40, pause=0.005))
    heard: list[float] = []
    model.ask(TALK, lambda _: heard.append(time.monotonic()))
    assert len(heard) == -(-len(TEXT) // PIECE)
    assert heard[-1] - heard[0] > 0.01


def test_tools_alone_are_called_without_words(opened: Open) -> None:
    _, model = opened(says(calls=CALLS))
    for heard in (None, lambda _: pytest.fail("no words were said")):
        reply = model.ask(TALK, heard)
        assert (reply.text, len(reply.calls), reply.stop_reason in COMPLETE) == ("", 2, True)


def test_arguments_that_are_no_json_are_passed_on(opened: Open) -> None:
    _, model = opened(says(calls=[("find_texts", '{"word": "neu')]))
    for heard in (None, print):
        (call,) = model.ask(TALK, heard).calls
        assert call.arguments == '{"word": "neu'


@pytest.mark.parametrize(
    ("stop", "reasons"),
    [
        ("cut", {"max_output_tokens", "max_tokens", "length"}), ("refusal", {"refusal"}), ("pause", {"pause_turn"}),
        ("filter", {"content_filter", "refusal"}), ("full", {"model_context_window_exceeded"}),
    ],
)  # fmt: skip
def test_a_reply_that_is_not_whole_says_why_streamed_or_not(
    opened: Open, provider: str, stop: Any, reasons: set[str]
) -> None:
    if provider != "anthropic" and stop in ("pause", "full"):
        reasons = {"max_output_tokens", "length"}  # they have no such reason
    _, model = opened(says(TEXT, stop=stop))
    assert model.ask(TALK).stop_reason in reasons - COMPLETE
    assert heard_and_reply(model)[1] == model.ask(TALK)


def stream(provider: str, **spoken: Any) -> list[tuple[str, Any]]:
    body = {"stream_options": {"include_usage": True}}
    return stream_of(Seen(FORMATS[provider], {}, body), Spoken(TEXT, CALLS, **spoken))


def test_a_stream_without_one_of_its_events_is_no_shorter_reply(opened: Open, provider: str) -> None:
    """Without any event that the reply is made of, it is an error or the same reply, never another."""
    whole = stream(provider)
    script = [
        Answer(encoded([*whole[:n], *whole[n + 1 :]]), headers=EVENTS)
        for n, (name, data) in enumerate(whole)
        if not is_a_delta(provider, data)
    ]
    _, model = opened(says(TEXT, calls=CALLS), *(lambda _, answer=answer: answer for answer in script))
    right = model.ask(TALK)
    outcomes = [outcome(model) for _ in script]
    assert set(outcomes) <= {"maybe billed", (right.text, right.calls, right.model)}
    assert outcomes.count("maybe billed") >= {"openai": 1, "anthropic": 9, "compatible": 2}[provider]


def outcome(model: Any) -> Any:
    try:
        reply = heard_and_reply(model)[1]
    except LanguageModelError as error:
        return "maybe billed" if error.maybe_billed else "not billed"
    return reply.text, reply.calls, reply.model


def is_a_delta(provider: str, data: Any) -> bool:
    """A piece of text, whose loss no reader of the format could notice."""
    if data == "[DONE]" or provider == "openai":
        return False
    if provider == "anthropic":
        return data["type"] == "content_block_delta"
    return bool(data["choices"] and data["choices"][0]["delta"])


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n\n", b": only a comment\n\n", b"data: {\n\n", b"data: []\n\n", b"data: \xff\n\n", b"data: 3\n\n",
        b'data: {"type": 3}\n\n', b'data: {"choices": 3}\n\n', b"data: " + b"[" * 100_000 + b"\n\n", b"<html></html>\n\n",
        b"data: [DONE]\n\n", b'data: {"choices": [{"delta": {"content": 7}}]}\n\n', b'data: {"type": "message_stop"}\n\n',
        b'event: response.completed\ndata: {"type": "response.completed", "response": {}}\n\n',
        b'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}\n\n',
        b'data: {"type": "message_start", "message": {"usage": {}, "content": []}}\n\ndata: {"type": "message_stop"}\n\n',
        b'data: {"type": "response.output_text.delta", "delta": null}\n\n',
    ],
)  # fmt: skip
def test_a_stream_in_no_known_format_is_a_failure_that_may_have_been_billed(opened: Open, content: bytes) -> None:
    server, model = opened(sends(content, "text/event-stream"))
    with pytest.raises(LanguageModelError, match=r"is not in its format|broke the connection off") as caught:
        heard_and_reply(model)
    assert caught.value.maybe_billed
    assert len(server.requests) == 1


def test_an_error_inside_a_stream_is_told_and_the_key_in_it_hidden(opened: Open, provider: str) -> None:
    error = {"type": "overloaded_error", "message": f"too many for {KEY}"}
    event = {**error, "type": "error"} if provider == "openai" else {"type": "error", "error": error}
    _, model = opened(lambda _: Answer(encoded([*stream(provider)[:5], ("error", event)]), headers=EVENTS))
    with pytest.raises(LanguageModelError, match=r"failed while it replied: too many for \[key\]") as caught:
        heard_and_reply(model)
    assert caught.value.maybe_billed


def test_a_key_that_comes_in_pieces_is_not_heard(opened: Open) -> None:
    _, model = opened(says(f"the key is {KEY}, and sk-canary is none; sk-"))
    heard, reply = heard_and_reply(model)
    assert heard == reply.text == "the key is [key], and sk-canary is none; sk-"


def test_a_server_that_cannot_stream_is_heard_at_the_end(opened: Open) -> None:
    _, model = opened(lambda seen: says(TEXT)(Seen(seen.format, {}, {"model": "m"})))
    assert heard_and_reply(model)[0] == TEXT


def test_a_stream_that_drips_for_too_long_is_given_up(opened: Open) -> None:
    _, model = opened(says(TEXT, piece=4, pause=0.05), timeout=0.4)
    with pytest.raises(LanguageModelError, match=r"no reply within 0\.4 seconds") as caught:
        heard_and_reply(model)
    assert caught.value.maybe_billed


def test_calls_that_a_local_server_numbers_all_zero_are_told_apart(opened: Open, provider: str) -> None:
    if provider != "compatible":
        return
    pieces = [
        {"tool_calls": [{"index": 0, "id": f"c{n}", "function": {"name": "find_texts", "arguments": "{}"}}]}
        for n in (1, 2)
    ]
    chunks: list[tuple[str, Any]] = [
        ("", {"model": "m", "choices": [{"index": 0, "delta": piece, "finish_reason": None}]}) for piece in pieces
    ]
    chunks += [("", {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}), ("", "[DONE]")]
    _, model = opened(lambda _: Answer(encoded(chunks), headers=EVENTS))
    assert [call.id for call in heard_and_reply(model)[1].calls] == ["c1", "c2"]


# The fake provider against the SDKs


def test_the_events_of_the_fake_provider_are_those_of_the_sdks(provider: str) -> None:
    kind: Any = {"openai": ResponseStreamEvent, "anthropic": RawMessageStreamEvent, "compatible": ChatCompletionChunk}
    known = TypeAdapter(kind[provider])
    types = set()
    for _, data in stream(provider):
        if data != "[DONE]" and data.get("type") != "ping":  # which no type of the SDK describes
            known.validate_python(data)
            types.add(data.get("type", "chunk"))
    assert len(types) >= {"openai": 11, "anthropic": 6, "compatible": 1}[provider]


def test_the_sdks_make_the_same_of_a_stream(opened: Open, provider: str) -> None:
    server, model = opened(says(TEXT, calls=CALLS))
    reply = heard_and_reply(model)[1]
    body: Any = dict(server.requests[0].body)
    if provider == "anthropic":
        with anthropic.Anthropic(api_key=KEY, base_url=server.url, max_retries=0) as client:
            found = client.messages.create(**body)
            accumulated = anthropic.lib.streaming.MessageStream(found, anthropic.NOT_GIVEN).get_final_message()  # type: ignore[attr-defined]
        calls = [(block.id, block.input) for block in accumulated.content if block.type == "tool_use"]
        text = "".join(block.text for block in accumulated.content if block.type == "text")
        counts = (accumulated.usage.input_tokens, accumulated.usage.output_tokens)
    else:
        with openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0) as client:
            text, calls, counts = (by_responses if provider == "openai" else by_chat)(client, body)
    assert (text, counts) == (reply.text, (reply.tokens_in, reply.tokens_out))
    assert [(call.id, json.loads(call.arguments)) for call in reply.calls] == calls


def by_responses(client: openai.OpenAI, body: dict[str, Any]) -> tuple[str, list[Any], tuple[int, int]]:
    done = next(e.response for e in client.responses.create(**body) if e.type == "response.completed")
    calls = [(item.call_id, json.loads(item.arguments)) for item in done.output if item.type == "function_call"]
    return done.output_text, calls, (done.usage.input_tokens, done.usage.output_tokens)


def by_chat(client: openai.OpenAI, body: dict[str, Any]) -> tuple[str, list[Any], tuple[int, int]]:
    from openai.lib.streaming.chat import ChatCompletionStreamState

    state: Any = ChatCompletionStreamState()
    for chunk in client.chat.completions.create(**body):
        state.handle_chunk(chunk)
    done = state.get_final_completion()
    message = done.choices[0].message
    calls = [(call.id, json.loads(call.function.arguments)) for call in message.tool_calls]
    return message.content, calls, (done.usage.prompt_tokens, done.usage.completion_tokens)


@pytest.mark.parametrize("seed", range(20))
def test_events_are_read_as_the_sdks_read_them_however_their_bytes_come(seed: int) -> None:
    from openai._streaming import SSEDecoder

    drawn = random.Random(seed)
    lines = ["data: a", "data:b: c", "data", "event: e", ": comment", "", "", "id: 3", "data:  ≥🙂", "retry: 5", "x"]
    content = "".join(drawn.choice(lines) + drawn.choice(["\n", "\r\n"]) for _ in range(200)).encode() + b"\n\n"
    cuts = sorted(drawn.sample(range(len(content)), 60))
    chunks = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    expected = [Event(sse.event or "", sse.data) for sse in SSEDecoder().iter_bytes(iter([content])) if sse.data]
    assert [event for event in events(chunks, "x") if event.data] == expected
    assert len(expected) > 5


# Requests


@pytest.mark.parametrize("request_", [TALK, LONG, Request("count", "s", "p", Count, tools=(TOOL,))])
def test_requests_with_turns_and_tools_are_taken(opened: Open, request_: Request) -> None:
    server, model = opened(says('{"n": 1}'))
    for heard in (None, print):
        assert model.ask(request_, heard).text == '{"n": 1}'
    assert [why_refused(seen) for seen in server.requests] == ["", ""]


def test_a_plain_request_asks_for_no_schema_and_names_no_tools(opened: Open) -> None:
    server, model = opened(says("words"))
    model.ask(Request("talk", "s", "p"))
    assert not {"text", "response_format", "output_config", "tools", "stream"} & set(server.requests[0].body)


def test_turns_are_told_in_the_order_of_the_talk() -> None:
    items = responses.body(LONG, "m")["input"]
    kinds = [item.get("type", item.get("role")) for item in items]
    call, output = "function_call", "function_call_output"
    assert kinds == ["user", "assistant", call, call, output, output, "user", call, output]
    assert items[3]["arguments"] == "{not JSON"
    roles = [message["role"] for message in chat_completions.body(LONG, "m")["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user", "assistant", "tool"]
    told = messages.body(LONG, "m")["messages"]
    assert [message["role"] for message in told] == ["user", "assistant", "user", "assistant", "user"]
    assert [block["type"] for block in told[1]["content"]] == ["text", "tool_use", "tool_use"]
    assert [block["type"] for block in told[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert told[1]["content"][2]["input"] == {"not_an_object": "{not JSON"}


def test_nothing_is_stored_at_openai_and_no_reply_is_referred_to() -> None:
    body = responses.body(LONG, "m")
    assert body["store"] is False
    assert "previous_response_id" not in body


def test_what_stays_the_same_is_cached_and_a_talk_as_a_whole() -> None:
    alone, talk = messages.body(Request("count", "s", "p", Count), "m"), messages.body(LONG, "m")
    assert [body["system"][0]["cache_control"] for body in (alone, talk)] == [{"type": "ephemeral"}] * 2
    assert talk["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" not in alone  # no later request begins with it


@pytest.mark.parametrize("body", [responses.body, chat_completions.body, messages.body])
def test_each_turn_goes_on_with_what_was_sent_before(body: Callable[..., dict[str, Any]]) -> None:
    """What a provider caches is a prefix: it must not change when a turn is added."""

    def said(request: Request) -> list[str]:
        sent = body(request, "m")
        return [json.dumps(one) for one in (sent.get("input") or sent["messages"])]

    earlier = said(Request("talk", "s", "p", turns=TURNS[:2], tools=(TOOL,)))
    later = said(Request("talk", "s", "p", turns=TURNS, tools=(TOOL,)))
    assert later[: len(earlier)] == earlier
    assert len(later) > len(earlier)


def test_half_a_surrogate_pair_is_replaced_before_it_is_sent(opened: Open) -> None:
    server, model = opened(says("words"))
    model.ask(Request("talk", "s", "bad \ud800 text", turns=(Said("\udfff"), Told("\ud800"))))
    assert "bad ? text" in json.dumps(server.requests[0].body)


# Schemas


def test_a_strict_schema_says_its_bounds_in_words_and_keeps_fields_of_any_name() -> None:
    class Odd(BaseModel):
        default: int = 3
        minimum: list[str] = []

    closed = strict_schema(Odd.model_json_schema())
    assert closed["required"] == list(closed["properties"]) == ["default", "minimum"]
    assert closed["additionalProperties"] is False
    word, n = strict_schema(TOOL.arguments)["properties"].values()
    assert word == {"type": "string", "description": "(minLength: 1)"}
    assert n == {"type": "integer", "description": "(minimum: 1, maximum: 9)"}


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": []}, "required"),
        ({"type": "object", "properties": {}, "required": []}, "open"),
        ({"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}}, "required"),
        ({"type": "string"}, "no object"),
    ],
)
def test_the_fake_provider_refuses_tools_that_are_not_strict(schema: dict[str, Any], fault: str) -> None:
    tool = {"type": "function", "name": "f", "description": "d", "parameters": schema, "strict": True}
    assert fault in why_refused(Seen("responses", {}, responses.body(TALK, "m") | {"tools": [tool]}))


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0}, {"tools": [{"name": "f"}]}, {"input": [{"role": "tool", "content": "x"}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}, {"input": 3},
    ],
)  # fmt: skip
def test_the_fake_provider_refuses_what_the_service_would(change: dict[str, Any]) -> None:
    assert why_refused(Seen("responses", {}, responses.body(TALK, "m"))) == ""
    assert why_refused(Seen("responses", {}, responses.body(TALK, "m") | change)) != ""


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ("model does not support tools", "tools"),
        ("'response_format' must be text", "replies in a JSON schema"),
        ('"auto" tool choice requires --enable-auto-tool-choice', "tools"),
    ],
)
def test_a_server_without_tools_or_schemas_is_named_in_one_sentence(opened: Open, message: str, what: str) -> None:
    from neuronaut.evals.fake_provider.script import fails

    server, model = opened(fails(500, message))
    with pytest.raises(LanguageModelError, match=f"may know no {what}, which are needed"):
        model.ask(TALK)
    assert len(server.requests) == 1

"""Each call is a row before it is sent and after it ended; budgets hold before a call is made; no key reaches the notebook."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from neuronaut.agent.config import Budget as Limits
from neuronaut.agent.config import RunConfig
from neuronaut.agent.llm.base import (
    COUNTS,
    Heard,
    KeyRefused,
    LanguageModelError,
    OutOfBudget,
    Reply,
    Request,
)
from neuronaut.agent.llm.budget import LEAST_REPLY, most_tokens_in
from neuronaut.agent.llm.counting import SEAMS
from neuronaut.agent.llm.gateway import Gateway, Malformed, NoReply
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.llm.prices import EXAMPLE, Price, Prices, read_prices
from neuronaut.agent.llm.scripted import ScriptedModel
from neuronaut.agent.session import Session
from neuronaut.evals.fake_provider.script import fails, says, sends
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import Fingerprint

KEY = "sk-canary-0123456789"
EMPTY = '{"hypotheses": []}'


CONTEXT: Any = SimpleNamespace(forwards=0.0)


class Hypotheses(BaseModel):
    """What is asked for here."""

    hypotheses: list[str]


def request(prompt: str = "the prompt", max_tokens: int = 1000) -> Request:
    return Request("propose", "the system prompt", prompt, Hypotheses, max_tokens)


def read(text: str) -> str:
    if text == "bad":
        raise Malformed("it is bad.")
    return text


class Killed(BaseException):
    """The process dies while it waits for a reply."""


class Lab:
    """Runs in one notebook, and the gateways that they ask through."""

    def __init__(self, path: Path) -> None:
        self.path, self.notebook, self.said = path, Notebook(path), []
        self.fingerprint = Fingerprint("m", "w", "t", "float32", "torch", "1", "none")
        self.run = self.start()

    def start(self, **config: Any) -> str:
        chosen = RunConfig(question="what does neuron 0.1 do", **config)
        return self.notebook.start_run(chosen.model_dump(mode="json"), self.fingerprint, ("c", "s", 1))

    def gateway(self, llm: str, base_url: str | None = None, *, run: str | None = None, **limits: Any) -> Gateway:
        config = RunConfig(question="q 0.1", llm=llm, base_url=base_url, budget=Limits(**limits))
        session = Session(run or self.run, config, self.notebook, CONTEXT, [], lambda *said: self.said.append(said))  # type: ignore[arg-type]
        return gateway_of(session)

    def scripted(self, *replies: Any, **more: Any) -> Gateway:
        """A gateway whose replies are these; exceptions are raised."""
        gateway = self.gateway(f"scripted:{self.script()}", **more)
        gateway.model = Model(*replies)
        return gateway

    def script(self) -> Path:
        path = self.path.with_name("script.json")
        path.write_text(json.dumps([{"hypotheses": []}]))
        return path

    def calls(self) -> list[dict[str, Any]]:
        return queries.calls(self.notebook, self.run)


class Model:
    """A paid model whose replies are given: texts of 70 + 30 tokens, replies, or exceptions."""

    provider, model, source, billed, max_tokens = "openai", "paid", "http://127.0.0.1", True, 1000

    def __init__(self, *replies: Any) -> None:
        self.replies, self.requests = list(replies), []

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply if isinstance(reply, Reply) else Reply(reply, "paid-2026", "completed", 70, 0, 30)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    opened = Lab(tmp_path / "n.db")
    yield opened
    assert verify(opened.notebook) == []
    opened.notebook.close()


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A paid model at 10, 1 and 100 dollars for a million tokens."""
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"date": "2026-11-01", "per_million": {"paid": [10, 1, 100]}}))
    monkeypatch.setenv("NEURONAUT_PRICES", str(path))


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# Rows


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("provider", ["openai", "anthropic", "compatible"])
def test_a_call_becomes_rows_with_its_tokens_and_its_price(
    lab: Lab, prices: None, keys: None, provider: str, streamed: bool
) -> None:
    heard: list[str] = []
    with Loopback(says(EMPTY, tokens=(1000, 400, 50), written=80, model="paid-2026-01-31"), key=KEY) as server:
        named = (f"{provider}:paid", server.url if provider == "anthropic" else f"{server.url}/v1")
        assert lab.gateway(*named).ask(request(), read, heard.append if streamed else None) == EMPTY
        assert "".join(heard) == EMPTY * streamed
    (call,) = lab.calls()
    stored, end = json.loads(call["request"]), call["end"]
    assert (stored["system"], stored["prompt"], stored["max_tokens"]) == ("the system prompt", "the prompt", 1000)
    assert (end["answered_by"], end["response"]) == ("paid-2026-01-31", EMPTY)
    assert [end[f"tokens_{of}"] for of in ("in", "cached", "written", "out")] == [1000, 400, 80, 50]
    written = 80 * 10 * (1.25 if provider == "anthropic" else 1)
    assert end["usd_micro"] == 520 * 10 + 400 * 1 + written + 50 * 100
    resumed = lab.gateway(*named)
    assert resumed.budget.total.micro_dollars == end["usd_micro"]
    assert resumed.converse(request()).tokens_written == 80


@pytest.mark.parametrize("provider", ["openai", "anthropic", "compatible"])
def test_no_key_reaches_the_notebook_the_errors_or_what_is_said(
    lab: Lab, keys: None, provider: str, capfd: pytest.CaptureFixture[str]
) -> None:
    script = (fails(400, f"bad key {KEY}"), says(f"you sent {KEY}"), sends(KEY.encode()), fails(401, KEY))
    with Loopback(*script, key=KEY) as server:
        gateway = lab.gateway(f"{provider}:paid", server.url if provider == "anthropic" else f"{server.url}/v1")
        errors = []
        for n in range(len(script)):
            try:
                gateway.ask(request(f"prompt {n}"), read)
            except (NoReply, KeyRefused) as error:
                errors.append(str(error))
        assert len(server.requests) == len(script)
    assert len(errors) == 3
    assert len(lab.calls()) == 4
    files = b"".join(file.read_bytes() for file in lab.path.parent.glob("n.db*"))
    assert b"[key]" in files
    assert KEY.encode() not in files
    assert KEY not in "".join(errors) + str(lab.said) + str(vars(gateway.log)) + "".join(capfd.readouterr())


def test_a_failed_call_is_a_row_with_its_error_and_the_run_goes_on(lab: Lab) -> None:
    gateway = lab.scripted(LanguageModelError("m answered with HTTP 500: on fire"), "fine")
    with pytest.raises(NoReply, match="on fire"):
        gateway.ask(request(), read)
    assert gateway.ask(request(), read) == "fine"
    failed, fine = lab.calls()
    assert (failed["end"]["error"], failed["end"]["usd_micro"]) == ("m answered with HTTP 500: on fire", 0)
    assert (fine["end"]["error"], fine["end"]["usd_micro"]) == (None, None)  # its price is not known


def test_a_refused_key_is_a_row_and_stops_the_run(lab: Lab) -> None:
    with pytest.raises(KeyRefused):
        lab.scripted(KeyRefused("refused")).ask(request(), read)
    assert lab.calls()[0]["end"]["error"] == "refused"


@pytest.mark.parametrize("stop", ["refusal", "length", "max_tokens", "content_filter"])
def test_a_reply_that_is_not_whole_is_not_used_and_not_kept_for_later(lab: Lab, stop: str) -> None:
    gateway = lab.scripted(Reply(EMPTY, "paid", stop, 1, 0, 1), "fine")
    with pytest.raises(NoReply, match=stop):
        gateway.ask(request(), read)
    assert gateway.ask(request(), read) == "fine"


def test_a_whole_reply_after_one_that_was_not_is_kept(lab: Lab) -> None:
    gateway = lab.scripted(Reply(EMPTY, "paid", "length", 1, 0, 1), "fine")
    with pytest.raises(NoReply):
        gateway.ask(request(), read)
    assert gateway.ask(request(), read) == "fine"
    assert lab.scripted().ask(request(), read) == "fine"
    assert len(lab.calls()) == 2


def test_a_malformed_reply_is_mended_once(lab: Lab) -> None:
    gateway = lab.scripted("bad", "good", "bad", "bad")
    assert gateway.ask(request(), read) == "good"
    first, second = gateway.model.requests  # type: ignore[attr-defined]
    assert second.prompt.startswith(first.prompt)
    assert "it is bad." in second.prompt
    with pytest.raises(NoReply, match="two replies could not be used: it is bad"):
        gateway.ask(request("another prompt"), read)
    assert len(lab.calls()) == 4


def test_a_reply_that_no_database_takes_is_stored_without_what_it_cannot_take(lab: Lab) -> None:
    gateway = lab.scripted(Reply("a\0b\ud800c", "m\x1b[2J\n" * 100, "completed", 1, 0, 1))
    assert gateway.ask(request(), read) == "a\ufffdb?c"
    assert "\x1b" not in lab.calls()[0]["end"]["answered_by"]
    assert len(lab.calls()[0]["end"]["answered_by"]) <= 200


def test_a_reply_longer_than_a_model_can_write_is_cut_and_not_used(lab: Lab) -> None:
    with pytest.raises(NoReply, match="longer than 4,000,000 characters"):
        lab.scripted("x" * 4_000_001).ask(request(), read)
    assert len(lab.calls()[0]["end"]["response"]) == 4_000_000


# Resuming


def test_a_reply_of_this_notebook_is_not_paid_for_again(lab: Lab) -> None:
    assert lab.scripted("fine").ask(request(), read) == "fine"
    assert lab.scripted(run=lab.start()).ask(request(), read) == "fine"
    assert lab.scripted().ask(request(max_tokens=600), read) == "fine"  # a smaller allowance asks the same
    assert len(lab.calls()) == 1


def test_a_call_that_was_killed_is_sent_again_and_marked_as_maybe_billed_twice(lab: Lab) -> None:
    with pytest.raises(Killed):
        lab.scripted(Killed()).ask(request(), read)
    assert lab.scripted("fine").ask(request(), read) == "fine"
    killed, again = lab.calls()
    assert killed["end"] is None
    assert again["maybe_billed_twice"] == killed["id"]
    assert [line for label, line in lab.said if "maybe billed twice" in line and killed["id"] in line]


def test_a_call_that_ended_is_not_marked_as_maybe_billed_twice(lab: Lab) -> None:
    gateway = lab.scripted(LanguageModelError("m answered with HTTP 500"), "fine")
    with pytest.raises(NoReply):
        gateway.ask(request(), read)
    gateway.ask(request(), read)
    assert [call["maybe_billed_twice"] for call in lab.calls()] == [None, None]
    assert "maybe billed" not in str(lab.said)


def test_a_scripted_model_goes_on_where_the_run_was_stopped(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "s.json"
    script.write_text(json.dumps(["one", "two"]))
    assert lab.gateway(f"scripted:{script}").ask(request("1"), read) == "one"
    assert lab.gateway(f"scripted:{script}").ask(request("2"), read) == "two"


def test_an_edited_script_is_another_model(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "s.json"
    for text in ("one", "two"):
        script.write_text(json.dumps([text]))
        assert lab.gateway(f"scripted:{script}", run=lab.start()).ask(request(), read) == text


# Budgets


def needed(asked: Request) -> int:
    return most_tokens_in(asked.as_json())


def test_no_call_is_made_that_could_pass_the_token_budget(lab: Lab) -> None:
    least = needed(request()) + LEAST_REPLY
    gateway = lab.scripted("fine", tokens=least - 1)
    with pytest.raises(OutOfBudget, match=f"next call may take {least:,}; it was not made"):
        gateway.ask(request(), read)
    assert (lab.calls(), gateway.model.requests) == ([], [])  # type: ignore[attr-defined]
    assert lab.scripted("fine", tokens=least).ask(request(), read) == "fine"


def test_a_reply_may_take_no_more_than_what_is_left(lab: Lab) -> None:
    gateway = lab.scripted("one", "two", tokens=needed(request("1")) + 800)
    gateway.ask(request("1"), read)
    assert gateway.model.requests[0].max_tokens == 800  # type: ignore[attr-defined]
    gateway.ask(request("2"), read)
    shared = 70 + SEAMS  # the second takes no more than the first took in, but for its own words
    assert gateway.model.requests[1].max_tokens == needed(request("1")) + 800 - (70 + 30) - shared


def test_no_call_is_made_that_could_pass_the_dollar_budget(lab: Lab, prices: None) -> None:
    least = (needed(request()) * 10 + LEAST_REPLY * 100) / 1e6
    with pytest.raises(OutOfBudget, match=r"too little for the next call; it was not made"):
        lab.scripted("fine", usd=least * 0.999).ask(request(), read)
    assert lab.calls() == []
    gateway = lab.scripted("fine", "more", usd=least * 1.001)
    gateway.ask(request(), read)
    assert LEAST_REPLY <= gateway.model.requests[0].max_tokens < LEAST_REPLY + 10  # type: ignore[attr-defined]
    with pytest.raises(OutOfBudget):
        gateway.ask(request("The prompt"), read)


def test_what_was_spent_before_a_resume_counts(lab: Lab) -> None:
    second = 70 + SEAMS + len("The prompt") // 2
    limit = (70 + 30) + second + LEAST_REPLY - 1
    assert lab.scripted("fine", tokens=limit).ask(request(), read) == "fine"
    with pytest.raises(OutOfBudget):
        lab.scripted("fine", tokens=limit).ask(request("The prompt"), read)
    assert lab.scripted(tokens=limit).ask(request(), read) == "fine"  # from the notebook
    assert lab.scripted("fine", run=lab.start(), tokens=limit).ask(request("The prompt"), read) == "fine"


@pytest.mark.parametrize("lost", [Killed(), LanguageModelError("no reply within 300 seconds", maybe_billed=True)])
def test_a_lost_reply_counts_as_all_that_it_may_have_taken(lab: Lab, lost: BaseException) -> None:
    limit = 2 * (needed(request()) + 1000)
    with pytest.raises((Killed, NoReply)):
        lab.scripted(lost, tokens=limit).ask(request(), read)
    gateway = lab.scripted("fine", tokens=limit - 501)
    with pytest.raises(OutOfBudget):
        gateway.ask(request("the promp!"), read)
    assert lab.scripted("fine", tokens=limit - 500).ask(request("the promp!"), read) == "fine"


def test_a_failure_that_was_not_billed_leaves_the_budget_whole(lab: Lab) -> None:
    gateway = lab.scripted(LanguageModelError("HTTP 500"), "fine", tokens=needed(request()) + LEAST_REPLY)
    with pytest.raises(NoReply):
        gateway.ask(request(), read)
    assert gateway.ask(request(), read) == "fine"


def test_a_dollar_budget_without_a_price_is_refused_before_anything_is_sent(lab: Lab, keys: None) -> None:
    with pytest.raises(UserError, match=r"--budget-usd needs the price of 'x'.*NEURONAUT_PRICES"):
        lab.gateway("openai:x", "http://127.0.0.1:9", usd=1.0)
    lab.gateway(f"scripted:{lab.script()}", usd=1.0)  # costs nothing


# Prices


def priced(**more: Any) -> int | None:
    reply = Reply(
        "", **({"model": "paid", "stop_reason": "", "tokens_in": 10, "tokens_cached": 4, "tokens_out": 2} | more)
    )
    return Prices("", {"paid": Price(10, 1, 100), "dear": Price(20, 2, 200)}).micro_dollars(Model(), reply)  # type: ignore[arg-type]


def test_a_price_is_that_of_the_model_that_answered_else_of_the_one_asked() -> None:
    assert priced() == 6 * 10 + 4 * 1 + 2 * 100
    assert priced(model="paid-2026-01-31") == priced()
    assert priced(model="dear") == 2 * priced()
    assert [priced(model=f"paid{end}") for end in (":latest", "-0613", "@20260131")] == [priced()] * 3


@pytest.mark.parametrize("answered", ["paid-mini", "paid-32k", "another", "unpaid"])
def test_the_price_of_another_model_that_answered_is_not_guessed(answered: str) -> None:
    assert priced(model=answered) is None


def test_a_reply_of_unknown_price_counts_against_the_dollars_as_the_model_asked(lab: Lab, prices: None) -> None:
    least = (needed(request()) * 10 + LEAST_REPLY * 100) / 1e6
    gateway = lab.scripted(Reply("fine", "another", "completed", 70, 0, 30), "more", usd=least * 1.001)
    gateway.ask(request(), read)
    assert lab.calls()[0]["end"]["usd_micro"] is None
    with pytest.raises(OutOfBudget):
        gateway.ask(request("The prompt"), read)


def test_no_dollars_are_no_call(lab: Lab, prices: None) -> None:
    with pytest.raises(OutOfBudget):
        lab.scripted("fine", usd=0.0).ask(request(), read)
    assert lab.calls() == []


@pytest.mark.parametrize("character", "aé漢🜁")
def test_the_tokens_of_a_request_are_not_counted_too_low_in_any_script(character: str) -> None:
    more = needed(request(character * 1000)) - needed(request(""))
    assert more >= len((character * 1000).encode()) / (2 if character.isascii() else 1)


def test_an_unknown_price_is_not_zero() -> None:
    assert priced(tokens_out=None) is None
    assert Prices("", {}).micro_dollars(Model(), Reply("", "paid", "", 1, 0, 1)) is None  # type: ignore[arg-type]


def test_a_scripted_reply_costs_nothing() -> None:
    assert Prices("", {}).micro_dollars(ScriptedModel(["x"]), Reply("", "x", "", 1, 0, 1)) == 0


def test_a_row_of_the_price_table_has_three_prices_or_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"date": "2026", "per_million": {"a": [10, 1, 100], "b": [10, 1, 100, 40]}}')
    monkeypatch.setenv("NEURONAUT_PRICES", str(path))
    assert read_prices().per_million == {"a": Price(10, 1, 100), "b": Price(10, 1, 100, 40)}


def of_model(row: str) -> str:
    return '{"date": "2026", "per_million": {"m": ' + row + "}}"


@pytest.mark.parametrize(
    ("table", "why"),
    [("", r"is not JSON \(line 1, column 1\)"), ('{"date": 1,\n x}', r"is not JSON \(line 2, column 2\)"),
     ("[" * 100_000, "is not JSON"), ("\ud800", "is not JSON"), ("[]", "holds a list instead of an object"),
     ("3", "holds a number instead of an object"), ("{}", "has no date"), ('{"per_million": {}}', "has no date"),
     ('{"date": null, "per_million": {}}', "has no date"), ('{"date": "2026"}', "per_million is missing"),
     ('{"date": "2026", "per_million": [["m", 1, 2, 3]]}', "holds a list under per_million instead of an object"),
     ('{"date": "2026", "per_million": {}, "batch_per_million": "half"}', "holds a text under batch_per_million"),
     (of_model("[1, 2]"), "has 2 numbers as the price of 'm' in per_million instead of 3 or 4"),
     (of_model("[1]"), "has 1 number as"), (of_model("[1, 2, 3, 4, 5]"), "has 5 numbers as"),
     (of_model('{"in": 1}'), "has an object as the price of 'm' in per_million instead of a list"),
     (of_model("7"), "has a number as"), (of_model('"abc"'), "has a text as"),
     (of_model('[1, "2", 3]'), "has a text in the price of 'm' in per_million instead of a number"),
     (of_model("[1, 2, 3, null]"), "has null in"), (of_model("[1, 2, true]"), "has true in"),
     (of_model("[1, 2, -3]"), "that is not from 0 to"), (of_model("[1, 2, NaN]"), "that is not from 0 to"),
     (of_model("[1, 2, 1e999]"), "that is not from 0 to"), (of_model(f"[1, 2, {10**400}]"), "that is not from 0 to")],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_a_price_table_that_is_wrong_is_refused_with_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, why: str
) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(table.encode("utf-8", "surrogatepass"))
    monkeypatch.setenv("NEURONAUT_PRICES", str(path))
    with pytest.raises(UserError, match=why) as refused:
        read_prices()
    assert str(refused.value).endswith(EXAMPLE)
    assert not re.search("Error|object is|__|NoneType|'int'|float", str(refused.value))
    path.write_text(EXAMPLE)
    assert read_prices().per_million == {"MODEL": Price(3.0, 0.3, 15.0)}


@pytest.mark.parametrize(("name", "why"), [("none.json", "no such file"), ("", "is a directory")])
def test_a_price_table_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    monkeypatch.setenv("NEURONAUT_PRICES", str(tmp_path / name))
    with pytest.raises(UserError, match=rf"cannot be read \({why}.*\): NEURONAUT_PRICES must name a JSON file"):
        read_prices()


@pytest.mark.parametrize("count", [10**30, -5])
def test_a_reply_whose_counts_cannot_be_is_used_and_stored_without_them(lab: Lab, count: int, prices: None) -> None:
    gateway = lab.scripted(Reply("fine", "paid", "completed", count, count, count, tokens_written=count))
    assert gateway.ask(request(), read) == "fine"
    [call] = lab.calls()
    assert {call["end"][name] for name in COUNTS} == {None}
    assert call["end"]["usd_micro"] is None
    assert gateway.budget.total.tokens == needed(request()) + 1000

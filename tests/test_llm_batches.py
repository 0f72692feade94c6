"""A batch loses no request and doubles none, whatever becomes of its items and whenever the process is killed."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from neuronaut.agent.config import Budget as Limits
from neuronaut.agent.config import RunConfig
from neuronaut.agent.llm import batches as batches_module
from neuronaut.agent.llm.base import KeyRefused, OutOfBudget, Reply, Request
from neuronaut.agent.llm.batches import Batches, batches_of
from neuronaut.agent.llm.budget import most_tokens_in
from neuronaut.agent.llm.calls import NoReply
from neuronaut.agent.llm.log import NotebookLog
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.session import Session
from neuronaut.evals.fake_provider.batches import FakeBatches, Outcome
from neuronaut.evals.fake_provider.formats import Spoken
from neuronaut.evals.fake_provider.script import Answer, Seen, fails, says
from neuronaut.evals.fake_provider.server import KEY, Loopback
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import Fingerprint

PROVIDERS = ("openai", "anthropic")
ENDS = ("whole", "refusal", "cut", "errored", "expired", "cancelled", "missing", "garbled")
TOKENS = (1000, 400, 50)


CONTEXT: Any = SimpleNamespace(forwards=0.0)


class Label(BaseModel):
    """What is asked for here."""

    label: str


class Killed(BaseException):
    """The process dies here."""


def request(prompt: str) -> Request:
    return Request("label", "the system prompt", prompt, Label, 1000)


def prompt_of(body: dict[str, Any]) -> str:
    """The prompt in a body of either format."""
    found = body.get("input") or body["messages"][0]["content"]
    return found if isinstance(found, str) else found[0]["text"]


def decided(body: dict[str, Any]) -> Outcome:
    """Each prompt begins with what becomes of it."""
    end, _, rest = prompt_of(body).partition(" ")
    if end in ("errored", "expired", "cancelled", "missing", "garbled"):
        return end  # type: ignore[return-value]
    return Spoken(json.dumps({"label": rest}), stop=end, tokens=TOKENS, model="paid-2026-01-31")  # type: ignore[arg-type]


class Lab:
    """A notebook, a run, and a server with batches; each `batches` is a process of its own on the same run."""

    def __init__(self, path: Path, provider: str, service: FakeBatches, url: str) -> None:
        self.notebook, self.service, self.provider = Notebook(path), service, provider
        self.dearest_in = 12.5 if provider == "anthropic" else 10  # to write into the cache
        self.said: list[tuple[str, str]] = []
        self.clients: dict[str, Any] = {}
        fingerprint = Fingerprint("m", "w", "t", "float32", "torch", "1", "none")
        self.config = {"llm": f"{provider}:paid", "base_url": url if provider == "anthropic" else f"{url}/v1"}
        chosen = RunConfig(question="what does neuron 0.1 do", **self.config)
        self.run = self.notebook.start_run(chosen.model_dump(mode="json"), fingerprint, ("c", "s", 1))

    def batches(self, killed_at: str = "", **limits: Any) -> Batches:
        """As a new process opens them; `killed_at` names the step before or after which it dies, as "before sent_batch"."""
        config = RunConfig(question="q 0.1", budget=Limits(**limits), **self.config)
        session = Session(self.run, config, self.notebook, CONTEXT, [], lambda *said: self.said.append(said))  # type: ignore[arg-type]
        gateway = gateway_of(session)
        made = batches_of(gateway, NotebookLog(session))
        made.sleep = lambda _: None
        self._share_client(made)
        when, _, step = killed_at.partition(" ")
        for owner in (made.log, made.service, made):
            if step and hasattr(owner, step):
                object.__setattr__(owner, step, dying(getattr(owner, step), when))
        return made

    def _share_client(self, made: Batches) -> None:
        """One client for all processes on the same server: to make one takes longer than all of its requests."""
        url, service = str(self.config["base_url"]), made.service
        if url not in self.clients:
            self.clients[url] = service.client()  # type: ignore[attr-defined]
        object.__setattr__(service, "client", lambda: nullcontext(self.clients[url]))

    def rows(self) -> list[tuple[Any, ...]]:
        """What is recorded of each call of the run, without its id and times."""
        calls = queries.calls(self.notebook, self.run)
        ends = [call["end"] or {} for call in calls]
        kept = ("answered_by", "response", "stop_reason", "tokens_in", "tokens_out", "usd_micro", "error")
        return [(c["request_sha256"], *(e.get(name) for name in kept)) for c, e in zip(calls, ends, strict=True)]


def dying(step: Callable[..., Any], when: str) -> Callable[..., Any]:
    def killed(*given: Any, **named: Any) -> Any:
        if when == "after":
            step(*given, **named)
        raise Killed

    return killed


@pytest.fixture(params=PROVIDERS)
def lab(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"date": "2026-11-01", "per_million": {"paid": [10, 1, 100]}}))
    monkeypatch.setenv("NEURONAUT_PRICES", str(prices))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)
    service = FakeBatches(decided)
    with Loopback(says('{"label": "alone"}', tokens=TOKENS), routes=[service]) as server:
        opened = Lab(tmp_path / "n.db", request.param, service, server.url)
        yield opened
        for client in opened.clients.values():
            client.close()
        assert verify(opened.notebook) == []
        assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.glob("n.db*"))
        opened.notebook.close()


REQUESTS = [request(f"{end} {n}") for n in range(3) for end in ENDS]
STATES = {"refusal": "refused", "cut": "cut off", "errored": "failed", "missing": "failed", "garbled": "failed"}


def shape(answers: list[Any]) -> list[str]:
    """A whole reply's text, or the state of one that is not."""
    return [one.text if isinstance(one, Reply) else one.state for one in answers]


EXPECTED = [json.dumps({"label": str(n)}) if end == "whole" else STATES.get(end, end) for n in range(3) for end in ENDS]


# Outcomes


def test_each_item_gets_its_own_outcome_in_the_order_of_the_requests(lab: Lab) -> None:
    batches = lab.batches()
    assert shape(batches.collect(batches.submit(REQUESTS))) == EXPECTED
    assert len(lab.service.made) == 1
    assert Counter(prompt_of(body) for body in lab.service.answered) == Counter(one.prompt for one in REQUESTS)
    assert [call["end"] is not None for call in queries.calls(lab.notebook, lab.run)] == [True] * len(REQUESTS)


def test_a_batch_costs_half_and_an_item_that_was_not_answered_nothing(lab: Lab) -> None:
    batches = lab.batches()
    batches.collect(batches.submit(REQUESTS))
    half = (600 * 10 + 400 * 1 + 50 * 100) // 2
    answered = 3 * sum(end in ("whole", "refusal", "cut") for end in ENDS)
    costs = Counter(row[6] for row in lab.rows())
    assert costs == {half: answered, 0: 9, None: 6}  # of a missing and of a garbled one it is not known
    bodies = [batches.calls.body(one) for one in REQUESTS if one.prompt.split()[0] in ("missing", "garbled")]
    lost = sum((most_tokens_in(body) * lab.dearest_in + 1000 * 100) / 2 for body in bodies)
    assert abs(batches.calls.budget.total.micro_dollars - answered * half - lost) <= 2 * len(bodies)
    assert batches.calls.budget.total.held_micro == batches.calls.budget.total.held_tokens == 0


def test_an_item_asks_what_a_single_call_asks(lab: Lab) -> None:
    batches = lab.batches()
    batches.collect(batches.submit([request("whole 1"), request("refusal 1")]))
    gateway = batches.calls
    assert lab.rows()[0][0] == gateway.sha256(request("whole 1"))
    assert gateway.ask(request("whole 1"), str) == '{"label": "1"}'  # type: ignore[attr-defined]
    assert gateway.ask(request("refusal 1"), str) == '{"label": "alone"}'  # type: ignore[attr-defined]
    again = lab.batches()
    assert shape(again.collect(again.submit([request("refusal 1")]))) == ["refused"]  # of this run: not asked again
    assert len(lab.service.made) == 1


def test_a_request_that_has_a_reply_is_not_handed_over_and_the_same_one_twice_once(lab: Lab) -> None:
    lab.batches().calls.ask(request("whole 1"), str)  # type: ignore[attr-defined]
    batches = lab.batches()
    asked = [request("whole 1"), request("whole 2"), request("whole 2")]
    assert shape(batches.collect(batches.submit(asked))) == ['{"label": "alone"}', *2 * ['{"label": "2"}']]
    assert [prompt_of(body) for body in lab.service.answered] == ["whole 2"]


def test_a_failed_item_is_sent_again_only_when_asked_for(lab: Lab) -> None:
    batches = lab.batches()
    asked = [request("whole 1"), request("expired 1")]
    batches.collect(batches.submit(asked))
    assert shape(batches.collect(batches.submit(asked))) == ['{"label": "1"}', "expired"]
    assert len(lab.service.made) == 1
    lab.service.decide = lambda body: Spoken('{"label": "late"}', tokens=TOKENS)
    assert shape(batches.collect(batches.submit(asked, again=True))) == ['{"label": "1"}', '{"label": "late"}']
    assert [prompt_of(body) for body in lab.service.made[1].items.values()] == ["expired 1"]


# Killed and resumed

STEPS = [
    f"{when} {step}"
    for step in ("begin_batch", "create", "sent_batch", "progress", "results", "end_batch")
    for when in ("before", "after")
]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_and_resumed_the_rows_are_the_same(lab: Lab, step: str) -> None:
    asked, expected = REQUESTS[: len(ENDS)], EXPECTED[: len(ENDS)]
    killed = lab.batches(step)
    with pytest.raises(Killed):
        killed.collect(killed.submit(asked))
    resumed = lab.batches()
    assert shape(resumed.collect(resumed.submit(asked))) == expected
    once_more = lab.batches()
    assert shape(once_more.collect(once_more.submit(asked))) == expected
    rows = lab.rows()
    ended = [row for row in rows if row[3] is not None or row[-1] is not None]
    assert len(ended) == len({row[0] for row in ended}) == len(asked)
    wanted = {resumed.calls.sha256(one): state for one, state in zip(asked, expected, strict=True)}
    for sha256, _, response, stop_reason, *_ in ended:
        assert wanted[sha256] in (response, stop_reason, STATES.get(str(stop_reason), "cut off"))
    between = step in ("after begin_batch", "before create", "after create", "before sent_batch")
    twice = [call["maybe_billed_twice"] for call in queries.calls(lab.notebook, lab.run)]
    assert sum(one is not None for one in twice) == (len(asked) if between else 0)
    assert len(rows) == len(asked) * (2 if between else 1)
    really = len(lab.service.made)
    assert really == (2 if step in ("after create", "before sent_batch") else 1)


def test_many_requests_go_in_several_batches_and_a_resumed_run_hands_over_the_rest(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MOST", 5)
    killed = lab.batches("after sent_batch")
    with pytest.raises(Killed):
        killed.submit(REQUESTS)
    resumed = lab.batches()
    assert shape(resumed.collect(resumed.submit(REQUESTS))) == EXPECTED
    assert [len(made.items) for made in lab.service.made] == [5, 5, 5, 5, 4]
    assert Counter(prompt_of(body) for body in lab.service.answered) == Counter(one.prompt for one in REQUESTS)
    assert [call["maybe_billed_twice"] for call in queries.calls(lab.notebook, lab.run)] == [None] * len(REQUESTS)


def test_what_waits_in_a_batch_is_held_and_what_was_lost_counts_in_a_resumed_run(lab: Lab) -> None:
    lab.batches().submit([request("whole 1")])
    waiting = lab.batches()
    most = most_tokens_in(waiting.calls.body(request("whole 1"))) + 1000
    assert (waiting.calls.budget.total.held_tokens, waiting.calls.budget.total.tokens) == (most, 0)
    waiting.collect(waiting.submit([request("whole 1")]))
    total = waiting.calls.budget.total
    assert (total.held_tokens, total.tokens, total.calls) == (0, 1050, 1)
    with pytest.raises(Killed):
        lab.batches("after begin_batch").submit([request("whole 2")])
    assert lab.batches().calls.budget.total.tokens == 1050 + most


# Failures of a whole batch


@pytest.mark.parametrize("lab", ["openai"], indirect=True)
@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
def test_a_batch_of_openai_that_ended_otherwise_says_so_of_each_item_without_a_result(lab: Lab, status: str) -> None:
    lab.service.status = status
    batches = lab.batches()
    found = batches.collect(batches.submit([request("whole 1"), request("missing 2")]))
    first = "failed" if status == "failed" else '{"label": "1"}'
    assert shape(found) == [first, status]
    (row,) = queries.batches(lab.notebook, lab.run)
    assert row["end"]["outcome"] == status
    if status == "failed":
        assert "line 1 is no request" in str(found[0])
        assert batches.calls.budget.total.micro_dollars == 0


@pytest.mark.parametrize("lab", ["anthropic"], indirect=True)
@pytest.mark.parametrize(("end", "state"), [("errored", "failed"), ("expired", "expired"), ("cancelled", "cancelled")])
def test_a_batch_of_anthropic_tells_item_by_item_how_it_ended(lab: Lab, end: str, state: str) -> None:
    lab.service.status = end
    batches = lab.batches()
    assert shape(batches.collect(batches.submit([request("whole 1"), request(f"{end} 2")]))) == [
        '{"label": "1"}',
        state,
    ]
    assert (
        lab.service.made[0].looks == 3
    )  # once while it ran or was being cancelled, once at its end, once for the results
    (row,) = queries.batches(lab.notebook, lab.run)
    assert (row["end"]["outcome"], row["end"]["reason"]) == ("ended", "")
    assert [call["end"]["usd_micro"] for call in row["calls"]] == [(600 * 10 + 400 * 1 + 50 * 100) // 2, 0]
    assert batches.calls.budget.total.micro_dollars == (600 * 10 + 400 * 1 + 50 * 100) // 2


def refusing(status: int, message: str, times: int) -> Callable[[Seen], Answer | None]:
    """A route that refuses to begin so many batches."""
    left = [times]

    def route(seen: Seen) -> Answer | None:
        if seen.method == "POST" and seen.path.endswith("batches") and left[0]:
            left[0] -= 1
            return fails(status, message)(seen)
        return None

    return route


def with_route(lab: Lab, route: Callable[[Seen], Answer | None]) -> Loopback:
    server = Loopback(says("x"), routes=[route, lab.service])
    lab.config["base_url"] = server.url if lab.provider == "anthropic" else f"{server.url}/v1"
    return server


def test_a_batch_that_was_not_taken_costs_nothing_and_is_handed_over_by_a_resumed_run(lab: Lab) -> None:
    with with_route(lab, refusing(400, "no batches today", 1)):
        batches = lab.batches()
        (found,) = batches.collect(batches.submit([request("whole 1")]))
        assert isinstance(found, NoReply)
        assert "no batches today" in str(found)
        total = batches.calls.budget.total
        assert (total.tokens, total.held_tokens) == (0, 0)
        resumed = lab.batches()
        assert shape(resumed.collect(resumed.submit([request("whole 1")]))) == ['{"label": "1"}']
    assert [row["end"]["outcome"] for row in queries.batches(lab.notebook, lab.run)] == ["not sent", "ended"]
    assert [call["maybe_billed_twice"] for call in queries.calls(lab.notebook, lab.run)] == [None, None]


def test_a_server_that_is_busy_is_asked_again(lab: Lab) -> None:
    with with_route(lab, refusing(429, "slow down", 2)):
        batches = lab.batches()
        assert shape(batches.collect(batches.submit([request("whole 1")]))) == ['{"label": "1"}']
    assert len(lab.service.made) == 1


def test_a_refused_key_stops_the_run_and_is_recorded(lab: Lab) -> None:
    with with_route(lab, refusing(401, f"bad key {KEY}", 9)):
        with pytest.raises(KeyRefused) as refused:
            lab.batches().submit([request("whole 1")])
        assert KEY not in str(refused.value)
    assert [row["end"]["outcome"] for row in queries.batches(lab.notebook, lab.run)] == ["not sent"]


def test_a_batch_that_cannot_be_looked_at_is_left_to_resume(lab: Lab) -> None:
    batches = lab.batches()
    batch = batches.submit([request("whole 1")])
    waits: list[float] = []
    batches.sleep = waits.append

    def broken(seen: Seen) -> Answer | None:
        return fails(400, "not now")(seen) if seen.method == "GET" else None

    with with_route(lab, broken):
        away = lab.batches()
        away.sleep = waits.append
        with pytest.raises(UserError, match="`neuronaut resume` collects it"):
            away.collect(batch)
    assert len(waits) == 9
    assert waits[0] == 5
    assert max(waits) == 60
    assert shape(batches.collect(batch)) == ['{"label": "1"}']


# Budgets


def test_what_the_budget_does_not_allow_is_not_handed_over(lab: Lab) -> None:
    asked = [request(f"whole {n}") for n in range(5)]
    batches = lab.batches(calls=3)
    found = batches.collect(batches.submit(asked))
    assert [type(one) for one in found] == [Reply] * 3 + [OutOfBudget] * 2
    assert len(lab.service.answered) == 3


def test_a_batch_is_held_at_half_the_price(lab: Lab) -> None:
    body = lab.batches().calls.body(request("whole 1"))
    most = (most_tokens_in(body) * lab.dearest_in + 1000 * 100) / 2 / 1e6
    batches = lab.batches(usd=2 * most + 1e-5)
    batches.submit([request("whole 1"), request("whole 2")])
    assert [body.get("max_output_tokens") or body["max_tokens"] for body in lab.service.answered] == [1000, 1000]


def test_a_language_model_without_batches_is_refused(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('["x"]')
    lab.config = {"llm": f"scripted:{script}"}
    with pytest.raises(UserError, match="only openai and anthropic have them"):
        lab.batches()

"""Many requests at once: answers in their order, no more in flight than the server takes, and every call a row."""

import json
import runpy
import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.llm.base import (
    Call,
    Heard,
    KeyRefused,
    LanguageModelError,
    Offered,
    OutOfBudget,
    Reply,
    Request,
    Said,
    Told,
)
from neuronaut.agent.llm.budget import most_tokens_in
from neuronaut.agent.llm.calls import NoReply
from neuronaut.agent.llm.limits import Pace
from neuronaut.evals.fake_provider.script import Answer, Seen, fails, says
from neuronaut.evals.fake_provider.server import Loopback

_made = runpy.run_path(str(Path(__file__).with_name("test_llm_calls.py")))
Lab, Model, request, read, lab, prices, keys, Killed = (
    _made[name] for name in ("Lab", "Model", "request", "read", "lab", "prices", "keys", "Killed")
)


class Answering(Model):  # type: ignore[misc, valid-type]
    """A paid model that answers by what the prompt says, after the seconds that stand in it, from many threads."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.flying, self.most = threading.Lock(), 0, 0

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        first, *rest = request.prompt.split("\n")[0].split()
        with self.lock:
            self.requests.append(request)
            self.flying += 1
            self.most = max(self.most, self.flying)
        time.sleep(float(rest[0]) if rest else 0.0)
        with self.lock:
            self.flying -= 1
        match first:
            case "fails":
                raise LanguageModelError("m answered with HTTP 500: on fire")
            case "key":
                raise KeyRefused("m refused the key")
            case "killed":
                raise Killed
            case "refused":
                return Reply("", "paid", "refusal", 70, 0, 30)
            case "mended":
                return Reply("good" if "could not be used" in request.prompt else "bad", "paid", "completed", 70, 0, 30)
        return Reply(first, "paid-2026", "completed", 70, 0, 30)


def asking(lab: Any, **more: Any) -> Any:
    gateway = lab.scripted(**more)
    gateway.model = Answering()
    return gateway


def shape(answers: list[Any]) -> list[str]:
    return [one if isinstance(one, str) else getattr(one, "state", type(one).__name__) for one in answers]


def prompts(calls: list[dict[str, Any]]) -> list[str]:
    return [json.loads(call["request"])["prompt"] for call in calls]


# Answers


def test_answers_come_in_the_order_of_the_requests_whichever_is_done_first(lab: Any) -> None:
    gateway = asking(lab)
    asked = [request(f"{n} {0.05 if n % 3 == 0 else 0.001}") for n in range(12)]
    assert gateway.ask_all(asked, read) == [str(n) for n in range(12)]
    assert prompts(lab.calls()) == [one.prompt for one in asked]
    assert 2 <= gateway.model.most <= 8
    assert len({call["end"]["id"] for call in lab.calls()}) == 12


def test_each_request_gets_its_value_or_why_there_is_none(lab: Any) -> None:
    asked = [request(one) for one in ("one", "fails", "refused", "bad", "mended", "two")]
    assert shape(asking(lab).ask_all(asked, read)) == ["one", "failed", "refused", "malformed", "good", "two"]
    assert Counter(p.split("\n")[0] for p in prompts(lab.calls())) == {
        "one": 1, "fails": 1, "refused": 1, "bad": 2, "mended": 2, "two": 1,
    }  # fmt: skip


def test_the_same_request_twice_is_asked_once_and_a_known_one_not_at_all(lab: Any) -> None:
    asking(lab).ask(request("known"), read)
    asked = [request(one) for one in ("a", "known", "a", "b", "a")]
    assert asking(lab).ask_all(asked, read) == ["a", "known", "a", "b", "a"]
    assert prompts(lab.calls()) == ["known", "a", "b"]
    assert [call["maybe_billed_twice"] for call in lab.calls()] == [None] * 3


def test_a_refused_key_stops_all_after_what_is_in_flight_has_ended(lab: Any) -> None:
    gateway = asking(lab)
    asked = [request(one) for one in ("slow 0.05", "key", *(f"{n}" for n in range(20)))]
    with pytest.raises(KeyRefused):
        gateway.ask_all(asked, read)
    assert all(call["end"] is not None for call in lab.calls())
    assert len(lab.calls()) < len(asked)
    assert gateway.budget.total.held_tokens == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_while_waiting_is_not_swallowed_and_a_resumed_run_marks_what_was_lost(lab: Any) -> None:
    asked = [request(one) for one in ("a", "b", "killed 0.02", "slow 1", "c")]
    with pytest.raises(RuntimeError, match="crashed"):
        asking(lab).ask_all(asked, read)
    lost = [call["id"] for call in lab.calls() if call["end"] is None]
    resumed = asking(lab)
    assert resumed.ask_all([request(one.prompt.replace("killed", "fine").replace(" 1", "")) for one in asked], read)
    assert asking(lab).ask_all([asked[0], asked[1], asked[4]], read) == ["a", "b", "c"]
    again = asking(lab)
    again.ask(asked[3], read)
    assert {call["maybe_billed_twice"] for call in lab.calls()} - {None} <= set(lost)
    assert lab.calls()[-1]["maybe_billed_twice"] in lost


def test_the_replies_of_a_script_come_in_its_order(lab: Any, tmp_path: Path) -> None:
    script = tmp_path / "many.json"
    script.write_text(json.dumps([str(n) for n in range(9)]))
    gateway = lab.gateway(f"scripted:{script}")
    assert gateway.ask_all([request(f"prompt {n}") for n in range(9)], read) == [str(n) for n in range(9)]


# Budgets


def test_in_flight_calls_pass_no_limit_and_what_they_give_back_is_used(lab: Any) -> None:
    asked = [request(f"{n} 0.04") for n in range(12)]
    most = most_tokens_in(asked[0].as_json()) + 2 + 1000
    gateway = asking(lab, tokens=2 * most + 9 * 100)
    answers = gateway.ask_all(asked, read)
    assert [type(one) for one in answers[:10]] == [str] * 10
    assert gateway.model.most == 2
    assert {one.max_tokens for one in gateway.model.requests[:10]} == {1000}  # none was cut for another in flight
    assert gateway.budget.total.tokens <= 2 * most + 9 * 100


def test_a_unit_that_has_spent_its_limit_does_not_stop_the_others(lab: Any) -> None:
    gateway = asking(lab)
    units = [name for name in ("8.1", "8.2") for _ in range(15)] + [None] * 20
    answers = gateway.ask_all([request(f"{n}") for n in range(50)], read, about=units)
    assert [type(one).__name__ for one in answers] == 2 * (["str"] * 13 + ["UnitSpent"] * 2) + ["str"] * 20
    assert Counter(call["about"] for call in lab.calls()) == {"8.1": 13, "8.2": 13, None: 20}
    resumed = asking(lab)
    answers = resumed.ask_all([request(f"{n}") for n in range(50)], read, about=units)
    assert sum(isinstance(one, OutOfBudget) for one in answers) == 4  # what a unit spent counts in a resumed run
    assert len(lab.calls()) == 46


def test_the_spend_is_said_after_each_call(lab: Any, prices: None) -> None:
    asking(lab).ask_all([request(f"{n}") for n in range(3)], read)
    lines = [line for label, line in lab.said if label == "model" and "$" in line]
    price = (70 * 10 + 30 * 100) / 1e6
    assert lines[0] == f"1 call, 100 tokens, ${price:.4f}" or lines[0].startswith(("2 calls", "3 calls"))
    assert lines[-1] == f"3 calls, 300 tokens, ${3 * price:.4f}"


# Pace


def test_the_pace_rises_by_one_a_round_and_halves_once_for_all_that_were_in_flight() -> None:
    pace = Pace(most=64, allowed=4.0)
    widths = []
    for _ in range(6):
        widths.append(pace.width)
        for ticket in [pace.ticket() for _ in range(pace.width)]:
            pace.went_well(ticket)
    assert widths[0] == 4
    assert all(0 <= later - earlier <= 1 for earlier, later in pairwise(widths))
    assert widths[-1] >= 8  # five rounds
    flying = [pace.ticket() for _ in range(pace.width)]
    before = pace.allowed
    for ticket in flying:
        pace.too_fast(ticket)
    assert pace.allowed == before / 2
    pace.went_well(flying[0])  # it began before
    assert pace.allowed == before / 2


def test_the_pace_stays_between_one_and_the_most() -> None:
    pace = Pace(most=3)
    assert pace.width == 3
    for _ in range(100):
        pace.went_well(pace.ticket())
    assert (pace.width, pace.allowed) == (3, 3.0)
    for _ in range(10):
        pace.too_fast(pace.ticket())
    assert pace.width == 1


class Busy:
    """A server that refuses what is more than `room` at once."""

    def __init__(self, room: int) -> None:
        self.room, self.flying, self.refused, self.lock = room, 0, 0, threading.Lock()

    def __call__(self, seen: Seen) -> Answer:
        with self.lock:
            taken = self.flying < self.room
            self.refused += not taken
            self.flying += taken
        if not taken:
            return fails(429, "slow down", **{"retry-after-ms": "60"})(seen)
        time.sleep(0.05)
        with self.lock:
            self.flying -= 1
        return says("fine", tokens=(70, 0, 30))(seen)


@pytest.mark.parametrize("room", [3, 6, 12])
def test_the_pace_saws_between_what_the_server_takes_and_half_of_it(room: int) -> None:
    pace, widths, refused = Pace(most=64), [], 0
    for _ in range(400):
        tickets = [pace.ticket() for _ in range(pace.width)]
        widths.append(len(tickets))
        for place, ticket in enumerate(tickets):
            refused += place >= room
            (pace.went_well if place < room else pace.too_fast)(ticket)
    steady = widths[50:]
    assert max(steady) <= room + 1
    assert min(steady) >= (room + 1) // 2
    assert (
        0.65 * room <= sum(steady) / len(steady) <= 0.85 * (room + 1)
    )  # the middle of a saw-tooth is 3/4 of its height
    a_tooth = sum(range((room + 1) // 2, room + 2))  # calls, of which the last is refused
    assert refused / sum(widths) == pytest.approx(1 / a_tooth, rel=0.1)


def test_a_busy_server_is_asked_more_slowly_and_all_are_answered(lab: Any, keys: None) -> None:
    busy = Busy(room=2)
    with Loopback(busy) as server:
        gateway = lab.gateway("compatible:paid", f"{server.url}/v1")
        answers = gateway.ask_all([request(f"prompt {n}") for n in range(20)], read)
    assert shape(answers) == ["fine"] * 20
    assert len(lab.calls()) == 20
    assert busy.refused > 0
    assert gateway.pace.cuts > 0


def test_an_idle_server_is_asked_by_as_many_as_allowed(lab: Any, keys: None) -> None:
    with Loopback(Busy(room=100)) as server:
        gateway = lab.gateway("compatible:paid", f"{server.url}/v1")
        gateway.ask_all([request(f"prompt {n}") for n in range(40)], read)
    assert gateway.pace.width == gateway.pace.most  # from 4 it takes 4 + 5 + 6 + 7 answers
    assert gateway.pace.cuts == 0


# Turns


def turn(text: str = "") -> Reply:
    return Reply(text, "paid", "tool_calls", 10, 0, 5, (Call("c1", "look", '{"unit": "8.481\ud800\\u0000"}'),))


def test_tool_calls_are_replayed_by_a_resumed_run(lab: Any) -> None:
    first = lab.scripted(turn("I look.")).converse(request())
    heard: list[str] = []
    again = lab.scripted().converse(request(), heard.append)
    assert again == first
    assert again.calls == (Call("c1", "look", '{"unit": "8.481?\\u0000"}'),)
    assert heard == ["I look."]
    assert len(lab.calls()) == 1


@pytest.mark.parametrize(
    ("stop", "state"),
    [("refusal", "refused"), ("max_tokens", "cut off"), ("max_output_tokens", "cut off"), ("length", "cut off"),
     ("content_filter", "filtered"), ("pause_turn", "not whole"), ("unknown", "not whole")],
)  # fmt: skip
def test_a_turn_that_is_not_whole_is_its_own_state_and_not_replayed(lab: Any, stop: str, state: str) -> None:
    gateway = lab.scripted(Reply("x", "paid", stop, 1, 0, 1), turn())
    with pytest.raises(NoReply) as found:
        gateway.converse(request())
    assert found.value.state == state
    assert gateway.converse(request()).calls


def test_requests_that_differ_in_turns_or_tools_are_different_ones(lab: Any) -> None:
    plain = request()
    tool = Offered("look", "Looks.", {"type": "object", "properties": {}})
    said = Said("I look.", (Call("c1", "look", "{}"),))
    others = [
        replace(plain, tools=(tool,)), replace(plain, turns=(said, Told("", (("c1", "seen"),)))),
        replace(plain, turns=(said, Told("", (("c1", "unseen"),)))), replace(plain, reply=None), replace(plain, system=""),
    ]  # fmt: skip
    gateway = lab.scripted()
    assert len({gateway.sha256(one) for one in (plain, *others)}) == 6
    assert gateway.sha256(replace(plain, max_tokens=1)) == gateway.sha256(plain)

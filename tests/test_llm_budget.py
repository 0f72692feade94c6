"""Budgets: no schedule of calls passes a limit, nothing is withheld that is there, and the line says what was spent."""

import json
import math
import random
import re
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest

from neuronaut.agent.config import Budget as Limits
from neuronaut.agent.llm.base import Call, Offered, OutOfBudget, Reply, Request, Said, Told
from neuronaut.agent.llm.budget import LEAST_REPLY, UNIT, Budget, Later, UnitSpent, most_tokens_in
from neuronaut.agent.llm.counting import SEAMS, Counting, counted
from neuronaut.agent.llm.prices import Price, Prices, dollars

IN, CACHED, OUT, WRITTEN = 10.0, 1.0, 100.0, 40.0
PRICES = Prices("2026-11-01", {"paid": Price(IN, CACHED, OUT)})
DEAR = Prices("2026-11-01", {"paid": Price(IN, CACHED, OUT, WRITTEN)})  # to write into the cache


class Paid:
    """A paid model."""

    provider, model, source, billed, max_tokens = "openai", "paid", "http://127.0.0.1", True, 1000


MODEL: Any = Paid()


def request(length: int = 100, max_tokens: int = 1000) -> Request:
    return Request("label", "", "x" * length, None, max_tokens)


def reply(n_in: int | None, n_out: int | None, cached: int = 0, written: int | None = None) -> Reply:
    return Reply("", "paid", "completed", n_in, cached, n_out, tokens_written=written)


# Schedules


@dataclass
class Spent:
    """What calls really cost, counted apart from the budget."""

    calls: int = 0
    tokens: int = 0
    micro: float = 0.0


class Schedule:
    """Threads that make random calls within one budget; each bills at most what a provider may: what was asked and allowed."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.run = Limits(
            calls=chance.choice([None, 5, 40]),
            tokens=chance.choice([None, 3_000, 40_000]),
            usd=chance.choice([None, 0.1, 2.0]),
        )
        self.unit = Limits(calls=chance.choice([None, 2, 9]), tokens=chance.choice([None, 2_000, 9_000]))
        self.prices, self.written = chance.choice([(PRICES, IN), (DEAR, WRITTEN)])
        self.budget = Budget(self.prices, run=self.run, unit=self.unit)
        self.spent: dict[str, Spent] = {name: Spent() for name in ("", "a", "b", "c")}
        self.lock, self.seed, self.passed = threading.Lock(), seed, []

    def work(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        for _ in range(6):
            about, asked = (
                chance.choice([None, "a", "b", "c"]),
                request(chance.randrange(1500), chance.choice([80, 700, 2000])),
            )
            try:
                held = self.budget.reserve(MODEL, asked, about=about, patient=chance.random() < 0.3)
            except (OutOfBudget, Later):
                continue
            self.count(about, 1, 0, 0.0)
            time.sleep(chance.random() * 0.0005)  # others hold theirs meanwhile
            n_in, n_out = len(asked.prompt) // 2, chance.randint(0, held.max_tokens)
            match chance.choice(["answered", "answered", "uncounted", "lost", "failed"]):
                case "answered":
                    cached = chance.choice([0, chance.randint(0, n_in)])
                    written = chance.choice([n_in - cached, chance.randint(0, n_in - cached)])
                    whole = (n_in - cached - written) * IN + cached * CACHED + written * self.written + n_out * OUT
                    self.count(about, 0, n_in + n_out, whole)
                    self.budget.settle(held, MODEL, reply(n_in, n_out, cached, written))
                case "uncounted":
                    self.count(about, 0, n_in + n_out, n_in * self.written + n_out * OUT)
                    self.budget.settle(held, MODEL, reply(None, None))
                case "lost":
                    self.count(about, 0, n_in + n_out, n_in * self.written + n_out * OUT)
                    self.budget.settle(held, MODEL, None)
                case "failed":
                    self.budget.release(held)

    def count(self, about: str | None, calls: int, tokens: int, micro: float) -> None:
        """Before the budget hears of it, so that what passed a limit at any moment is seen."""
        with self.lock:
            for name in {"", about or ""}:
                one, limits = self.spent[name], self.unit if name else self.run
                one.calls, one.tokens, one.micro = one.calls + calls, one.tokens + tokens, one.micro + micro
                of = (
                    (limits.calls, one.calls),
                    (limits.tokens, one.tokens),
                    (limits.usd and limits.usd * 1e6, one.micro),
                )
                self.passed += [(name, limit, n) for limit, n in of if limit is not None and n > limit]


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_no_schedule_of_calls_in_several_threads_passes_a_limit(first: int) -> None:
    n_calls, n_refused = 0, 0
    for seed in range(first, first + 50):
        schedule = Schedule(seed)
        threads = [threading.Thread(target=schedule.work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert schedule.passed == []
        total = schedule.budget.total
        assert (total.held_tokens, total.held_micro) == (0, 0)
        assert total.calls == schedule.spent[""].calls
        assert total.tokens >= schedule.spent[""].tokens
        assert total.micro_dollars >= schedule.spent[""].micro - 1e-6
        n_calls += total.calls
        n_refused += 36 - total.calls
    assert n_calls > 300  # the schedules do spend
    assert n_refused > 300  # and do reach limits


def test_a_provider_that_bills_more_than_was_asked_passes_a_limit_by_no_more_than_the_calls_in_flight() -> None:
    asked = request()
    most = most_tokens_in(asked.as_json()) + 1000
    budget = Budget(PRICES, run=Limits(tokens=4 * most))
    held = [budget.reserve(MODEL, asked) for _ in range(4)]
    for one in held:
        budget.settle(one, MODEL, reply(most, 1000))
    assert budget.total.tokens - 4 * most == 4 * 1000
    with pytest.raises(OutOfBudget):
        budget.reserve(MODEL, request(0, 10))


# What is there may be spent


@pytest.mark.parametrize("max_tokens", [10, LEAST_REPLY, 3000])
def test_a_call_is_made_as_long_as_the_shortest_useful_reply_fits(max_tokens: int) -> None:
    asked = request(max_tokens=max_tokens)
    least = most_tokens_in(asked.as_json()) + min(max_tokens, LEAST_REPLY)
    assert Budget(PRICES, run=Limits(tokens=least)).reserve(MODEL, asked).max_tokens == min(max_tokens, LEAST_REPLY)
    with pytest.raises(OutOfBudget):
        Budget(PRICES, run=Limits(tokens=least - 1)).reserve(MODEL, asked)


def test_what_was_held_and_not_spent_comes_back() -> None:
    asked = request()
    most = most_tokens_in(asked.as_json()) + 1000
    budget = Budget(PRICES, run=Limits(tokens=most))
    for _ in range(5):
        held = budget.reserve(MODEL, asked)
        with pytest.raises(OutOfBudget):
            budget.reserve(MODEL, asked)
        with pytest.raises(Later):
            budget.reserve(MODEL, asked, patient=True)
        budget.release(held)
    budget.settle(budget.reserve(MODEL, asked), MODEL, reply(0, most - 1))
    with pytest.raises(OutOfBudget):  # nothing is held that could come back
        budget.reserve(MODEL, asked, patient=True)


def test_a_patient_call_does_not_let_its_reply_be_cut_by_what_is_only_held() -> None:
    asked = request()
    most = most_tokens_in(asked.as_json()) + 1000
    budget = Budget(PRICES, run=Limits(tokens=2 * most - 1))
    held = budget.reserve(MODEL, asked)
    with pytest.raises(Later):
        budget.reserve(MODEL, asked, patient=True)
    assert budget.reserve(MODEL, asked).max_tokens == 999
    budget.settle(held, MODEL, reply(0, 0))


def test_seconds_are_those_since_the_run_or_the_first_call_of_the_unit() -> None:
    now = [100.0]
    budget = Budget(PRICES, run=Limits(seconds=60), unit=Limits(seconds=10), clock=lambda: now[0])
    now[0] = 120
    budget.reserve(MODEL, request(), about="8.481")
    now[0] = 129.9
    budget.reserve(MODEL, request(), about="8.481")
    now[0] = 130
    with pytest.raises(UnitSpent, match=r"the budget of 10 seconds for 8\.481 is spent; the next call was not made"):
        budget.reserve(MODEL, request(), about="8.481")
    budget.reserve(MODEL, request(), about="8.482")
    now[0] = 160
    with pytest.raises(OutOfBudget, match="the budget of 60 seconds is spent") as refused:
        budget.reserve(MODEL, request(), about="8.483")
    assert not isinstance(refused.value, UnitSpent)


# What a request can take


def tokens_of(body: dict[str, Any]) -> int:
    """As a tokenizer of the usual kind counts, with its marks around each part and turn."""
    parts = [body["system"], body["prompt"], *map(str, body.get("tools", ())), *map(str, body.get("turns", ()))]
    return sum(4 + len(re.findall(r" ?[A-Za-z]{1,5}|[0-9]{1,2}|[^A-Za-z0-9]{1,2}", part)) for part in parts)


@pytest.mark.parametrize("stored", [False, True])
def test_no_request_is_counted_too_low_and_what_was_billed_before_is_not_guessed_again(stored: bool) -> None:
    chance, counting, saved, n = random.Random(5), Counting(), 0, 0
    words = ("fires", "on", "the", "digit", "after", "a", "number,", "precision", "0.93", "[coverage:", "{'at':", "1}")

    def text(length: int) -> str:
        return " ".join(chance.choice(words) for _ in range(length))

    systems, tool = [text(300), text(200)], Offered("look", text(20), {"type": "object", "properties": {}})
    for _ in range(60):
        asked = Request("propose", chance.choice(systems), text(chance.randrange(5, 200)), None, tools=(tool,))
        for _ in range(chance.randrange(1, 5)):
            body = asked.as_json()
            most, guess = counting.most_in(body), most_tokens_in(body)
            assert tokens_of(body) <= most <= guess
            saved, n = saved + (guess - most) * bool(asked.turns), n + guess * bool(asked.turns)
            counting.add(json.loads(json.dumps(body)) if stored else body, tokens_of(body))
            said = Said(text(30), (Call("c1", "look", text(5)),))
            asked = replace(asked, turns=(*asked.turns, said, Told(text(40), (("c1", text(9)),))))
    assert saved > 0.2 * n


def test_another_prompt_does_not_count_as_billed() -> None:
    counting = Counting()
    first = Request("label", "the same system " * 500, "one " * 500)
    counting.add(first.as_json(), 2000)
    other = replace(first, prompt="two " * 500)
    assert counting.most_in(other.as_json()) == 2000 + SEAMS + len("two " * 500) // 2
    assert counting.most_in(first.as_json()) == 2000 + SEAMS


# Of a unit


def test_without_limits_of_its_own_a_run_asks_at_most_13_calls_and_17_000_tokens_of_each_unit() -> None:
    assert (UNIT.calls, UNIT.tokens) == (13, 17_000)
    budget = Budget.of(PRICES, Limits(seconds=1000))
    for unit in ("8.481", "8.482"):
        for _ in range(13):
            budget.settle(budget.reserve(MODEL, request(), about=unit), MODEL, reply(1000, 200))
        with pytest.raises(UnitSpent, match=r"the budget of 13 calls for 8\.48. is spent; the next one was not made"):
            budget.reserve(MODEL, request(), about=unit)
    budget.settle(budget.reserve(MODEL, request(), about="8.483"), MODEL, reply(16_000, 200))
    with pytest.raises(UnitSpent, match=r"the budget of 17,000 tokens for 8\.483 has 800 left"):
        budget.reserve(MODEL, request(1000), about="8.483")
    for _ in range(30):
        budget.settle(budget.reserve(MODEL, request()), MODEL, reply(1000, 200))  # about no unit


@pytest.mark.parametrize("own", [{"calls": 20}, {"tokens": 90_000}, {"usd": 9.0}])
def test_a_limit_that_the_user_gave_takes_the_place_of_those_of_a_unit(own: dict[str, Any]) -> None:
    budget = Budget.of(PRICES, Limits(**own))
    for _ in range(14):
        budget.settle(budget.reserve(MODEL, request(), about="8.481"), MODEL, reply(2000, 200))
    assert budget.total.calls == 14


def test_each_question_of_a_conversation_has_the_limits_of_a_unit_anew_and_those_of_the_run_go_on() -> None:
    budget = Budget(PRICES, run=Limits(calls=5), unit=Limits(calls=2))
    for _ in range(2):
        for _ in range(2):
            budget.settle(budget.reserve(MODEL, request(), about="8.481"), MODEL, reply(100, 20))
        with pytest.raises(UnitSpent):
            budget.reserve(MODEL, request(), about="8.481")
        budget.next_question()
    budget.settle(budget.reserve(MODEL, request(), about="8.481"), MODEL, reply(100, 20))
    with pytest.raises(OutOfBudget, match="the budget of 5 calls is spent") as refused:
        budget.reserve(MODEL, request(), about="8.481")
    assert not isinstance(refused.value, UnitSpent)


def test_what_was_asked_before_the_unit_was_known_counts_for_the_unit() -> None:
    budget = Budget(PRICES, unit=Limits(calls=3, tokens=9_000))
    for about in ("the question", "8.481"):
        budget.settle(budget.reserve(MODEL, request(), about=about), MODEL, reply(4_000, 100))
    budget.turned_out("the question", "8.481")
    with pytest.raises(UnitSpent, match=r"the budget of 9,000 tokens for 8\.481 has 800 left"):
        budget.reserve(MODEL, request(1_000), about="8.481")
    budget.settle(budget.reserve(MODEL, request(), about="8.482"), MODEL, reply(100, 20))
    budget.turned_out("8.481", "8.481")
    budget.turned_out("nothing asked", "8.481")
    budget.settle(budget.reserve(MODEL, request(0, 100), about="8.481"), MODEL, reply(10, 10))
    with pytest.raises(UnitSpent, match="the budget of 3 calls"):
        budget.reserve(MODEL, request(0, 100), about="8.481")
    assert (budget.total.calls, budget.total.tokens) == (4, 2 * 4_100 + 120 + 20)


# What is said


def test_the_line_says_calls_tokens_what_came_from_the_cache_and_dollars() -> None:
    budget = Budget(PRICES)
    assert budget.line() == "0 calls, 0 tokens, $0.0000"
    budget.settle(budget.reserve(MODEL, request()), MODEL, reply(1000, 20))
    assert budget.line() == "1 call, 1,020 tokens, $0.0120"
    for _ in range(2):
        budget.settle(budget.reserve(MODEL, request()), MODEL, reply(2000, 50, cached=1550))
    micro = 1000 * IN + 20 * OUT + 2 * (450 * IN + 1550 * CACHED + 50 * OUT)
    assert budget.line() == f"3 calls, 5,120 tokens (62 % cached), ${micro / 1e6:.4f}"


def test_the_line_says_what_is_not_known_exactly() -> None:
    budget = Budget(PRICES)
    budget.release(budget.reserve(MODEL, request()))
    assert budget.line() == "1 call, 0 tokens, $0.0000"
    held = budget.reserve(MODEL, request(100, 1000))
    budget.settle(held, MODEL, None)
    tokens = most_tokens_in(request().as_json()) + 1000
    micro = most_tokens_in(request().as_json()) * IN + 1000 * OUT
    assert budget.line() == f"2 calls, at most {tokens:,} tokens, at most ${micro / 1e6:.4f}"
    failed = Budget(Prices("none", {}))
    failed.release(failed.reserve(MODEL, request()))
    assert failed.line() == "1 call, 0 tokens, price unknown"
    unpriced = Budget(Prices("none", {}))
    unpriced.settle(unpriced.reserve(MODEL, request()), MODEL, reply(10, 2))
    assert unpriced.line() == "1 call, 12 tokens, price unknown"


# Prices of what is written into the cache, and of batches


class Claude(Paid):
    """A model of a service that asks more for what is written into its cache."""

    provider = "anthropic"


def test_what_is_written_into_the_cache_costs_what_the_table_says_else_what_the_service_asks() -> None:
    answered = reply(10, 2, cached=4, written=5)
    rest = 1 * IN + 4 * CACHED + 2 * OUT
    claude: Any = Claude()
    assert PRICES.micro_dollars(MODEL, answered) == rest + 5 * IN
    assert PRICES.micro_dollars(claude, answered) == math.ceil(rest + 5 * 1.25 * IN)
    assert [DEAR.micro_dollars(model, answered) for model in (MODEL, claude)] == [rest + 5 * WRITTEN] * 2
    assert PRICES.micro_dollars(claude, answered, batch=True) == math.ceil((rest + 5 * 1.25 * IN) / 2)
    assert DEAR.micro_dollars(claude, answered, batch=True) == (rest + 5 * WRITTEN) / 2
    own = Prices("", PRICES.per_million, {"paid": Price(3, 3, 3)})
    assert own.micro_dollars(claude, answered, batch=True) == math.ceil(3 * (10 - 5 + 2) + 5 * 1.25 * 3)
    assert PRICES.micro_dollars(claude, reply(10, 2, cached=4, written=90)) == 4 * CACHED + 6 * 12.5 + 2 * OUT
    assert PRICES.micro_dollars(claude, reply(10, 2)) == 10 * IN + 2 * OUT


@pytest.mark.parametrize("batch", [False, True])
def test_a_request_is_held_at_the_dearest_price_that_its_tokens_may_have(batch: bool) -> None:
    asked, share = request(), 0.5 if batch else 1.0
    claude: Any = Claude()
    n_in = most_tokens_in(asked.as_json())
    dear_cache = Prices("", {"paid": Price(IN, 3 * IN, OUT)})
    for prices, model, dearest in (
        (PRICES, MODEL, IN), (PRICES, claude, 1.25 * IN), (DEAR, claude, WRITTEN), (dear_cache, MODEL, 3 * IN)
    ):  # fmt: skip
        least = share * (n_in * dearest + LEAST_REPLY * OUT) / 1e6
        for enough in (True, False):
            limit = least + 1e-6 if enough else least - 1e-6
            budget = Budget(prices, run=Limits(usd=limit))
            if not enough:
                with pytest.raises(OutOfBudget):
                    budget.reserve(model, asked, batch=batch)
                continue
            held = budget.reserve(model, asked, batch=batch)
            assert (held.max_tokens, held.micro_dollars) == (LEAST_REPLY, math.ceil(1e6 * least))
            cached = n_in if prices is dear_cache else 0
            dear = reply(n_in, LEAST_REPLY, cached, n_in - cached)
            assert budget.settle(held, model, dear) == math.ceil(1e6 * least) <= 1e6 * limit


def test_a_batch_costs_half_unless_the_table_has_a_price_of_its_own() -> None:
    answered = reply(10, 2, cached=4)
    whole = 6 * IN + 4 * CACHED + 2 * OUT
    assert PRICES.micro_dollars(MODEL, answered) == whole
    assert PRICES.micro_dollars(MODEL, answered, batch=True) == whole / 2
    own = Prices("", PRICES.per_million, {"paid": Price(3, 3, 3)})
    assert own.micro_dollars(MODEL, answered, batch=True) == 3 * 12
    assert own.micro_dollars(MODEL, answered) == whole
    dated = Reply("", "paid-2026-01-31", "", 10, 4, 2)
    assert own.micro_dollars(MODEL, dated, batch=True) == 3 * 12
    assert PRICES.micro_dollars(MODEL, dated, batch=True) == whole / 2


# Counts that cannot be


@pytest.mark.parametrize("reported", [-1, -(10**30), 10**30, 10**9 + 1])
def test_counts_that_cannot_be_are_paid_as_if_they_were_missing(reported: int) -> None:
    lied, silent = Budget(PRICES), Budget(PRICES)
    for budget, n in ((lied, reported), (silent, None)):
        budget.settle(budget.reserve(MODEL, request()), MODEL, reply(n, n, n))  # type: ignore[arg-type]
    assert lied.total == replace(silent.total, began=lied.total.began)
    assert lied.total.tokens == most_tokens_in(request().as_json()) + 1000
    assert lied.line().startswith("1 call, at most ")


def test_a_count_is_taken_up_to_four_times_the_high_guess_and_what_a_service_may_add() -> None:
    body = request(60_000).as_json()
    most = 4 * (60_000 // 2) + 20_000
    assert counted(reply(most, 5, most), body) == reply(most, 5, most)
    assert counted(reply(most + 1, 5, 7), body) == reply(None, 5, 7)
    assert counted(reply(1000, 5, 1001, 1000), body) == reply(1000, 5, None, 1000)  # type: ignore[arg-type]


# Money


@pytest.mark.parametrize(
    ("usd", "shown"),
    [(0.0, "$0.0000"), (1e-5, "$0.00001"), (1.2e-6, "$0.0000012"), (0.00015, "$0.00015"), (0.0123, "$0.0123"), (2, "$2.0000"),
     (1234.5, "$1,234.5000"), (0.00016049, "$0.00016"), (9.99e-5, "$0.0001")],
)  # fmt: skip
def test_a_sum_of_money_is_shown_with_digits_that_say_something(usd: float, shown: str) -> None:
    assert dollars(usd) == shown
    assert float(shown.strip("$").replace(",", "")) == pytest.approx(usd, rel=0.05, abs=0)


def test_a_tiny_budget_is_said_in_dollars_and_one_call_in_the_singular() -> None:
    with pytest.raises(OutOfBudget, match=r"the budget of \$0\.00001 has \$0\.00001 left, too little") as spent:
        Budget(PRICES, run=Limits(usd=0.00001)).reserve(MODEL, request())
    assert "e-" not in str(spent.value)
    budget = Budget(PRICES, run=Limits(calls=1))
    budget.reserve(MODEL, request())
    with pytest.raises(OutOfBudget, match="the budget of 1 call is spent"):
        budget.reserve(MODEL, request())

"""What a question, a conversation and a score say that they cost is what the service billed, by its own count of every reply."""

import io
import json
import random
import re
import runpy
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.proposers import grammar
from neuronaut.agent.proposers.base import Explored, Proposal
from neuronaut.evals.fake_provider.script import Answer, Seen, fails, says
from neuronaut.evals.fake_provider.server import KEY, Loopback
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify

Command = Callable[..., Any]
PROVIDERS = ("openai", "anthropic", "compatible")
IN, CACHED, OUT = 8, 2, 40  # dollars for a million tokens: whole micro-dollars for any number of them
WRITTEN = {"openai": 12, "anthropic": 10, "compatible": 8}  # by the table, by what the service asks, and as any other
QUESTION = "what would unit seven of the first layer do"
REWORDED = json.dumps({"question": "what does neuron 0.7 do", "say": ""})
HYPOTHESES = json.dumps({"hypotheses": [{"claim": "A word begins.", "predicate": "starts_word"}], "against": []})
LOOKS = [("token_table", {"back": 1})]
FORMS = {
    frozenset({"question", "say"}): "route",
    frozenset({"hypotheses", "against"}): "propose",
    frozenset({"sentences"}): "tell",
    frozenset({"labels"}): "score",
}


@dataclass(frozen=True)
class Billed:
    """What the service noted of one reply: what was asked, tokens in, read from the cache, written to it, and out."""

    what: str
    n_in: int
    cached: int
    written: int
    n_out: int

    def micro_dollars(self, provider: str) -> int:
        fresh = self.n_in - self.cached - self.written
        return fresh * IN + self.cached * CACHED + self.written * WRITTEN[provider] + self.n_out * OUT


@dataclass
class Service:
    """Answers by what it is asked, draws what each reply costs, and keeps the bill. misbehaves: what it does first, by what
    it is asked; greedy: it bills all that it may, and all as written to the cache."""

    provider: str
    misbehaves: dict[str, deque[str]] = field(default_factory=dict)
    talk: deque[Any] = field(default_factory=deque)
    greedy: bool = False
    bill: list[Billed] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(20261121))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, seen: Seen) -> Answer:
        with self.lock:
            what = asked(seen)
            first = self.misbehaves.get(what)
            does = first.popleft() if first else ""
            if does == "busy":
                return fails(429, "slow down")(seen)
            text, calls = self.says(what, does)
            one = self.drawn(what, seen, most=self.greedy or does == "lost")
            self.bill.append(one)
        sent = {"tokens": (one.n_in, one.cached, one.n_out), "written": one.written, "model": "paid-2026-01-31"}
        return says(text, calls=calls, **sent, **({"keep": 40} if does == "lost" else {}))(seen)  # type: ignore[arg-type]

    def says(self, what: str, does: str) -> tuple[str, list[Any]]:
        if does in ("garbage", "looks"):
            return ("no JSON", []) if does == "garbage" else ("", LOOKS)
        if what == "talk":
            said = self.talk.popleft() if self.talk else "Well."
            return (said, []) if isinstance(said, str) else ("I ask.", said)
        known = {
            "route": REWORDED,
            "propose": HYPOTHESES,
            "tell": '{"sentences": []}',
            "score": '{"labels": [1, 0, 1, 0, 1]}',
        }
        return known[what], []

    def drawn(self, what: str, seen: Seen, *, most: bool) -> Billed:
        if most:
            n_in = len(re.sub(r"[^ -~]", "", words(seen.body))) // 2
            return Billed(what, n_in, 0, n_in, int(seen.body.get("max_output_tokens") or seen.body["max_tokens"]))
        n_in = self.chance.randint(300, 3_000)
        cached = self.chance.choice([0, self.chance.randint(0, n_in)])
        return Billed(what, n_in, cached, self.chance.randint(0, n_in - cached), self.chance.randint(1, 400))

    def usd(self, *whats: str) -> float:
        return sum(one.micro_dollars(self.provider) for one in self.bill if not whats or one.what in whats) / 1e6

    def tokens(self, *whats: str) -> int:
        return sum(one.n_in + one.n_out for one in self.bill if not whats or one.what in whats)

    def line(self, n: int) -> str:
        """What may be said after so many replies."""
        bill = self.bill[:n]
        cached, n_in = sum(one.cached for one in bill), sum(one.n_in for one in bill)
        usd = sum(one.micro_dollars(self.provider) for one in bill) / 1e6
        share = f" ({100 * cached // n_in} % cached)" if cached else ""
        tokens = n_in + sum(one.n_out for one in bill)
        return f"{n:,} call{'s' if n > 1 else ''}, {tokens:,} tokens{share}, ${usd:.4f}"


def asked(seen: Seen) -> str:
    """What a request is for, by the form of the reply that it wants."""
    body = seen.body
    wanted = body.get("output_config") or body.get("text") or {"format": body.get("response_format")}
    form = wanted["format"] or {"schema": {"properties": {}}}
    schema = form["json_schema"]["schema"] if "json_schema" in form else form["schema"]
    return FORMS.get(frozenset(schema["properties"]), "talk")


def words(body: dict[str, Any]) -> str:
    """What a request of Anthropic says, without its form."""
    return "".join(part["text"] for part in body["system"]) + body["messages"][0]["content"]


@pytest.fixture(autouse=True)
def paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, and where prices are; nothing is searched for."""
    monkeypatch.setenv("NEURONAUT_PRICES", str(tmp_path / "prices.json"))
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(grammar, "GrammarProposer", lambda seed: Silent())


class Silent:
    """Stands for the search, which asks no language model."""

    name = "grammar"

    def propose(self, explored: Explored) -> list[Proposal]:
        return []


@pytest.fixture(params=PROVIDERS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    row = [IN, CACHED, OUT, WRITTEN["openai"]] if request.param == "openai" else [IN, CACHED, OUT]
    table = {"date": "2026-11-01", "per_million": {"paid": row}}
    (tmp_path / "prices.json").write_text(json.dumps(table))
    yield Service(request.param)
    with Notebook(tmp_path / "notebook.db") as notebook:
        assert verify(notebook) == []


def options(service: Service, server: Loopback) -> tuple[str, ...]:
    url = server.url if service.provider == "anthropic" else f"{server.url}/v1"
    return ("--llm", f"{service.provider}:paid", "--base-url", url)


def spoken(err: str) -> list[str]:
    """The lines that say what was spent so far."""
    found = [re.fullmatch(r" +model  (\d[\d,]* calls?, .*)", line) for line in err.splitlines()]
    return [match[1] for match in found if match]


# A question


def test_a_question_costs_what_was_billed_for_it(neuronaut: Command, tiny: tuple[str, ...], service: Service) -> None:
    service.misbehaves = {
        "route": deque(["garbage"]),
        "propose": deque(["busy", "looks", "garbage"]),
        "tell": deque(["garbage"]),
    }
    with Loopback(service) as server:
        said = neuronaut("ask", QUESTION, *tiny, *options(service, server), "--budget-usd", 5, "--fast", "--json")
    assert said.code == 0, said.err
    cost = json.loads(said.out)["cost"]
    whats = [one.what for one in service.bill]
    assert (whats.count("route"), whats.count("tell"), whats.count("propose") >= 4) == (2, 2, True)
    assert len(server.requests) == len(service.bill) + 1  # the one that found the server busy
    assert (cost["llm_calls"], cost["tokens"]) == (len(service.bill), service.tokens())
    assert cost["usd"] == pytest.approx(service.usd(), abs=1e-9)
    assert spoken(said.err) == [service.line(n) for n in range(1, len(service.bill) + 1)]
    shown = json.loads(neuronaut("show", json.loads(said.out)["run"], "--json").out)
    assert shown["cost"] == cost


@pytest.mark.parametrize("service", ["anthropic"], indirect=True)
def test_a_reply_that_was_lost_makes_the_cost_unknown_and_counts_as_all_that_it_may_have_cost(
    neuronaut: Command, tiny: tuple[str, ...], service: Service
) -> None:
    service.misbehaves = {"tell": deque(["lost"])}
    with Loopback(service) as server:
        said = neuronaut("ask", QUESTION, *tiny, *options(service, server), "--budget-usd", 5, "--fast", "--json")
    cost = json.loads(said.out)["cost"]
    assert (cost["llm_calls"], cost["uncounted"], cost["usd"]) == (len(service.bill), 1, None)
    *whole, last = spoken(said.err)
    assert whole == [service.line(n) for n in range(1, len(service.bill))]
    found = re.fullmatch(r"[\d,]+ calls, at most ([\d,]+) tokens( \(\d+ % cached\))?, at most \$([\d.]+)", last)
    assert found is not None
    assert int(found[1].replace(",", "")) == cost["tokens"] >= service.tokens()
    assert float(found[3]) >= service.usd()


# A conversation


@pytest.mark.parametrize("service", ["openai", "anthropic"], indirect=True)
def test_a_conversation_costs_what_was_billed_for_it_and_each_question_its_part(
    neuronaut: Command,
    tiny: tuple[str, ...],
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    ask = [("ask_question", {"question": QUESTION})]
    card = [("ask_question", {"question": "tool model_card"})]
    service.talk = deque([ask, "One.", card, "Two.", "Three."])

    def talk(*lines: str, more: tuple[Any, ...]) -> tuple[list[dict[str, Any]], str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        said = neuronaut("chat", *more, "--approve", "always", "--json")
        assert said.code == 0, said.err
        return [json.loads(line) for line in said.out.splitlines()], said.err

    with Loopback(service) as server:
        events, err = talk("first", "/cost", more=(*tiny, *options(service, server), "--budget-usd", 5))
        lines, first = spoken(err), len(service.bill)
        goes_on = re.search(r"--go-on (\w+)", events[-1]["text"])
        assert goes_on is not None
        later, err = talk("second", "third", "/cost", more=("--go-on", goes_on[1]))
    assert [one.what for one in service.bill].count("talk") == 5
    assert lines + spoken(err) == [service.line(n) for n in range(1, len(service.bill) + 1)]
    costs = [event["text"] for event in events + later if str(event.get("text")).endswith("forward passes")]
    assert [cost.split("; ")[0] for cost in costs] == [service.line(first), service.line(len(service.bill))]
    answers = [event["answer"]["cost"] for event in events + later if event["type"] == "answer"]
    assert len(answers) == 2
    parts = ("route", "propose", "tell")
    assert sum(cost["tokens"] for cost in answers) == service.tokens(*parts)
    assert sum(cost["usd"] for cost in answers) == pytest.approx(service.usd(*parts), abs=1e-9)


# A score


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A small random model with text enough to score."""
    folder = tmp_path_factory.mktemp("scored")
    made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
    model, corpus = (
        made["make_model"]("gpt2", folder / "model"),
        made["make_corpus"](folder / "c.jsonl", documents=1200),
    )
    return ("score", "0.6", "--model", str(model), "--corpus", str(corpus), "--explanation", "the dog", "--json")


def test_a_score_costs_what_was_billed_for_it(neuronaut: Command, scored: tuple[str, ...], service: Service) -> None:
    service.misbehaves = {"score": deque(["", "busy", "garbage", "", "garbage", "busy"])}
    with Loopback(service) as server:
        said = neuronaut(
            *scored, *options(service, server), "--scores", "detection", "--corrected-only", "--budget-usd", 20
        )
    assert said.code == 0, said.err
    cost = json.loads(said.out)["cost"]
    assert len(service.bill) == 62  # of 60 questions two are asked again
    assert (cost["llm_calls"], cost["tokens"]) == (62, service.tokens())
    assert cost["usd"] == pytest.approx(service.usd(), abs=1e-9)
    assert spoken(said.err)[-1] == service.line(62)


@pytest.mark.parametrize("service", ["anthropic"], indirect=True)
def test_a_service_that_bills_all_that_it_may_does_not_pass_the_dollars(
    neuronaut: Command, scored: tuple[str, ...], service: Service
) -> None:
    service.greedy = True
    with Loopback(service) as server:
        said = neuronaut(*scored, *options(service, server), "--scores", "detection", "--budget-usd", 1)
    assert (said.code, json.loads(said.out)["outcome"]) == (1, "out_of_budget")
    assert 0.9 < service.usd() <= 1
    assert json.loads(said.out)["cost"]["usd"] == pytest.approx(service.usd(), abs=1e-9)

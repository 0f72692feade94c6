"""Batches with a language model: several units wait for replies at once, within a cap that no unit passes."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.label.turns import Turn, in_turns
from neuronaut.evals.fake_provider.script import says
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify

REPLY = json.dumps({"hypotheses": [{"claim": "it fires there", "predicate": 'token(" the")'}]})
PRICES = {"date": "2026-11-01", "per_million": {"m": [10.0, 1.0, 50.0]}}
BATCH = ("--fast", "--limit", "4", "--nulls", "0", "--llm", "compatible:m")
Neuronaut = Callable[..., Any]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    table = tmp_path / "prices.json"
    table.write_text(json.dumps(PRICES))
    monkeypatch.setenv("NEURONAUT_PRICES", str(table))
    monkeypatch.setenv("NEURONAUT_LLM_KEY", "sk-canary")
    with Loopback(says(REPLY, tokens=(1000, 0, 100), wait=0.3), key="sk-canary") as found:
        yield found


def sql(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def most_at_once(server: Loopback) -> int:
    """Requests that were waited for at once: a reply takes 0.3 s."""
    begins = sorted(one.at for one in server.requests)
    return max(sum(0 <= other - one < 0.3 for other in begins) for one in begins)


def test_units_wait_for_replies_together_and_each_call_is_counted_once(
    tiny: tuple[str, ...], server: Loopback, neuronaut: Neuronaut, tmp_path: Path
) -> None:
    path = tmp_path / "n.db"
    said = neuronaut(
        "label", *tiny, *BATCH, "--base-url", server.url + "/v1", "--budget-usd", "5", "--notebook", path, "--json"
    )
    assert said.code == 0, said.err
    summary = json.loads(said.out.splitlines()[-1])
    n_calls = len(server.requests)
    assert n_calls >= 1
    assert (
        sql(path, "SELECT count(*), count(DISTINCT about) FROM llm_call JOIN llm_call_end e ON e.call = llm_call.id")[
            0
        ][0]
        == n_calls
    )
    assert summary["cost"]["llm_calls"] == n_calls
    assert summary["cost"]["usd"] == pytest.approx(n_calls * (1000 * 10 + 100 * 50) / 1e6)
    assert sql(path, "SELECT count(*) FROM hypothesis WHERE author LIKE '%compatible:m%'")[0][0] >= 1
    with Notebook(path, read_only=True) as notebook:
        assert verify(notebook) == []


def test_a_language_model_that_does_not_answer_is_told_of_in_the_summary(
    tiny: tuple[str, ...], server: Loopback, neuronaut: Neuronaut, tmp_path: Path
) -> None:
    path = tmp_path / "n.db"
    argv = ("label", *tiny, *BATCH, "--base-url", "http://127.0.0.1:9/v1", "--notebook", path)
    said = neuronaut(*argv)
    assert said.code == 0, said.err
    failed = sql(path, "SELECT count(*) FROM llm_call_end WHERE error IS NOT NULL")[0][0]
    assert failed >= 1
    assert f"{failed} to the language model failed, the last: " in said.out
    assert "cannot be reached" in said.out
    assert json.loads(neuronaut("label", "status", "--notebook", path, "--json").out)["calls_failed"] == failed


@pytest.mark.parametrize(
    ("cap", "said"),
    [
        (("--budget-usd", "0.001"), "about $0.1010"),
        (("--budget-tokens", "900"), "5,700 tokens"),
        (("--budget-calls", "1"), "2 calls"),
    ],
)
def test_a_cap_below_one_unit_is_refused_with_the_estimate(
    cap: tuple[str, str], said: str, tiny: tuple[str, ...], server: Loopback, neuronaut: Neuronaut, tmp_path: Path
) -> None:
    refused = neuronaut("label", *tiny, *BATCH, "--base-url", server.url + "/v1", *cap, "--notebook", tmp_path / "n.db")
    assert refused.code == 2
    assert said in refused.err
    assert server.requests == []


def test_a_spent_cap_stops_the_batch_before_the_next_unit_and_a_larger_one_goes_on(
    tiny: tuple[str, ...], server: Loopback, neuronaut: Neuronaut, tmp_path: Path
) -> None:
    path = tmp_path / "n.db"
    said = neuronaut(
        "label", *tiny, *BATCH, "--base-url", server.url + "/v1", "--budget-calls", "3", "--notebook", path, "--json"
    )
    assert said.code == 1
    summary = json.loads(said.out.splitlines()[-1])
    assert summary["outcome"] == "out_of_budget"
    assert len(server.requests) <= 3
    assert summary["waiting"] >= 1


def test_only_one_computes_while_others_wait() -> None:
    turn, computing, most, waiting = Turn(), [0], [0], [0, 0]

    def work(_: int) -> None:
        for _round in range(2):
            computing[0] += 1
            most[0] = max(most[0], computing[0])
            time.sleep(0.002)
            computing[0] -= 1
            with turn.given_away():
                waiting[0] += 1
                waiting[1] = max(waiting)
                time.sleep(0.02)
                waiting[0] -= 1

    in_turns(work, range(6), turn, 6)
    assert most[0] == 1
    assert waiting[1] > 1


def test_an_error_of_one_ends_the_others_in_hand_and_begins_no_more() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        with lock:
            begun.append(number)
        if number == 1:
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        in_turns(work, range(50), Turn(), 2)
    assert len(begun) < 50

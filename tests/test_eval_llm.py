"""`neuronaut eval SUITE --proposer PROVIDER:MODEL`: a language model beside the search, its calls and their cost in each row."""

import json
from pathlib import Path

import pytest

from neuronaut.agent.config import Budget
from neuronaut.evals import proposers
from neuronaut.evals.run import Options, evaluate
from neuronaut.evals.scoreboard import scoreboard
from neuronaut.memory import queries
from neuronaut.memory.evaluations import open_evaluations
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError

WORDS = "It fires on digits."


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A language model that names digits, and has nothing better when it is shown its mistakes."""
    path = tmp_path / "script.json"
    path.write_text(
        json.dumps([{"hypotheses": [{"claim": WORDS, "predicate": "digit"}], "against": []}, {"hypotheses": []}])
    )
    return path


@pytest.mark.slow
def test_a_suite_is_run_with_a_language_model_beside_the_search(script: Path, tmp_path: Path) -> None:
    name, results = f"scripted:{script}", tmp_path / "results"
    options = Options(("planted",), name, limit=2, seed=3, results=results, budget=Budget(calls=5))
    assert evaluate(options, as_json=True) == 0
    with open_evaluations(results / "notebook.db") as notebook:
        (evaluation,) = notebook.find(suite="planted")
        rows = notebook.done(evaluation.id)
        text = scoreboard(notebook, name, "full", notes="", notes_file="notes.md")
    assert evaluation.key.proposer == name
    assert "scripted:script.json at " in text
    assert "a case: calls 5" in text
    assert f"{sum(row['calls'] for row in rows)} calls" in text
    assert len(rows) == 2
    for row in rows:
        assert (row["outcome"], row["calls"], row["calls_failed"], row["usd"]) == ("ok", 2, 0, 0.0)
        (path,) = (results / row["trail"]).glob("*.db")
        with Notebook(path, read_only=True) as trail:
            assert verify(trail) == []
            calls = queries.calls(trail, row["run"])
            ends = [call["end"] for call in calls]
            assert sum(end["tokens_in"] + end["tokens_out"] for end in ends) == row["tokens"] > 0
            brought = [one for one in queries.hypotheses(trail, row["run"]) if "scripted:script.json" in one["author"]]
            assert [one["words"] for one in brought] == [WORDS]
    again = Options(("planted",), name, limit=2, seed=3, results=results, budget=Budget(calls=6))
    with pytest.raises(UserError, match="another address, script or budget"):
        evaluate(again, as_json=True)


@pytest.mark.parametrize(
    ("name", "suites", "base_url", "budget", "reason"),
    [
        ("openai:m", ("planted",), None, Budget(), "OPENAI_API_KEY"),
        ("openai:m", ("planted", "heads"), None, Budget(), "heads would not ask a language model"),
        ("nobody:m", ("planted",), None, Budget(), "provider must be"),
        ("compatible:m", ("planted",), None, Budget(), "--base-url"),
        ("compatible:m", ("planted",), "http://127.0.0.1/v1", Budget(usd=1), "needs the price"),
        ("scripted:nowhere.json", ("planted",), None, Budget(), "cannot be read"),
        ("grammar", ("planted",), "http://127.0.0.1/v1", Budget(), "are for a language model"),
        ("grammar", ("planted",), None, Budget(calls=3), "are for a language model"),
        ("gramar", ("planted",), None, Budget(), "did you mean 'grammar'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(
    name: str, suites: tuple[str, ...], base_url: str | None, budget: Budget, reason: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    options = Options(suites, name, results=tmp_path / "results", base_url=base_url, budget=budget)
    with pytest.raises(UserError, match=reason):
        evaluate(options, as_json=True)
    assert not (tmp_path / "results").exists()


def test_without_a_language_model_nothing_is_recorded_of_one() -> None:
    assert proposers.terms("grammar", ("planted",), None, Budget()) is None
    assert proposers.record(None) == {}

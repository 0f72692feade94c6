"""A seeded part of the attacks on the language model's place: orders in texts, and calls that no tool can take."""

import pytest

from neuronaut.agent import words
from neuronaut.agent.chat import app
from neuronaut.agent.chat.actions import Found
from neuronaut.evals import injection, wrong_calls


def test_orders_in_texts_have_no_effect() -> None:
    assert injection.run(seed=7, n=13).failures == []


def test_a_sentence_that_nothing_checks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "fault_of", lambda sentence, results: "" if results.get("c1") else "none")
    assert any("said as an answer" in fault for fault in injection.run(0, 1, ("a false sentence", "contexts")).failures)


def test_a_conversation_that_asks_for_no_leave_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.Talk, "leave_for", lambda self, call: None)
    assert any("without leave" in fault for fault in injection.run(0, 1, ("ask without leave", "results")).failures)


def test_wrong_calls_are_refused_before_any_forward_pass() -> None:
    assert wrong_calls.run(seed=7, n=100).failures == []


def test_a_call_that_is_not_refused_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_calls, "act", lambda *_: Found("fine"))
    assert len(wrong_calls.run(seed=0, n=5).failures) >= 5

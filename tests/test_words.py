"""Answers in a language model's words: which sentences stand, and why others are dropped."""

import pytest

from neuronaut.agent.words import Result, Sentence, fault_of, results_of

RESULTS = {
    "c1": Result(
        "SUPPORTED 8.481 reads: fires on a month",
        ("h1", "e1"),
        (0.7912, 0.81, 41.0, 2.1e9, 0.05),
        "8.481 reads",
        "SUPPORTED",
    ),
    "c2": Result("REFUTED 8.481 reads: fires on a capital", ("h2",), (0.31,), "8.481 reads L5H2", "REFUTED"),
    "m1": Result("measured: heads", ("e3",), (0.25, -1.5), "L5H2 L3H0"),
}


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("Neuron 8.481 fires on months.", ["c1"]),
        ("It reaches 0.79 with 41 documents.", ["c1"]),
        ("It reaches 79 %, or 0.791.", ["c1"]),
        ("The claim is SUPPORTED.", ["c1"]),
        ("That it fires on capitals was refuted (0.31).", ["c2"]),
        ("Head L5H2 costs 1.5 nats, a quarter of it 0.25.", ["m1"]),
        ('It is largest on "12" and "May 99".', ["c1"]),
        ("The e-value is 2.1e9.", ["c1"]),
        ("One is supported, the other refuted.", ["c1", "c2"]),
    ],
)
def test_a_sentence_that_its_results_carry_stands(text: str, evidence: list[str]) -> None:
    assert fault_of(Sentence(text=text, evidence=evidence), RESULTS) == ""


@pytest.mark.parametrize(
    ("text", "evidence", "fault"),
    [
        ("It fires on months.", [], "names no evidence"),
        ("It fires on months.", ["c9"], "no result 'c9'"),
        ("It fires on months.", ["c1", "<script>"], "no result"),
        ("It reaches 0.97.", ["c1"], "0.97 is no number"),
        ("It reaches 0.78.", ["c1"], "0.78 is no number"),
        ("It reaches 97 %.", ["c1"], "97 % is no number"),
        ("It has 42 documents.", ["c1"], "42 is no number"),
        ("It reaches 0.31.", ["c2"], "does not say that its claim is REFUTED"),
        ("It fires on capitals.", ["c2"], "does not say that its claim is REFUTED"),
        ("It is proved that it fires on capitals.", ["c2"], "does not say|SUPPORTED"),
        ("The refuted claim is confirmed.", ["c2"], "none of its results is SUPPORTED"),
        ("The claim was rejected.", ["c1"], "none of its results is REFUTED"),
        ("Head L7H1 does it.", ["m1"], "not about L7H1"),
        ("Neuron 9.12 does it.", ["c1"], "not about Neuron 9.12"),
        ("x" * 401, ["c1"], "at most 400"),
        ("  ", ["c1"], "no sentence"),
    ],
)
def test_a_sentence_that_says_more_than_its_results_is_dropped(text: str, evidence: list[str], fault: str) -> None:
    found = fault_of(Sentence(text=text, evidence=evidence), RESULTS)
    assert found
    assert any(part in found for part in fault.split("|")), found


def test_results_have_keys_in_the_order_of_the_answer() -> None:
    claim = {
        "id": "h1", "unit": "8.481", "side": "reads", "status": "PARTIAL", "reason": "an idle part", "claim": "fires on x",
        "scores": {"f1": {"value": 0.5, "ci": [0.4, 0.6], "null": 0.01, "n": 12}}, "numbers": {"modes": [1, {"a": 7.25}]},
        "pairs": {"wins": 3, "e": 99.0}, "rivals": [{"claim": "r", "status": "REFUTED", "f1": 0.11}], "evidence": ["e1", "e2"],
    }  # fmt: skip
    answer = {
        "run": "r1", "claims": [claim, claim], "measured": [{"experiment": "e7", "title": "of 50 heads", "lines": ["L1H1 0.25"]}],
        "outcomes": [{"unit": "8.481-", "side": "reads", "status": "ABSTAINED", "reason": "dead"}],
        "unexplained": {"units": [{"unit": "8.481", "share": 0.236}]},
    }  # fmt: skip
    found = results_of(answer)
    assert list(found) == ["c1", "c2", "m1", "o1", "u1"]
    assert found["c1"].evidence == ("h1", "e1", "e2")
    assert {0.5, 0.4, 0.6, 12.0, 7.25, 99.0, 0.11} <= set(found["c1"].numbers)
    assert found["m1"].numbers == (50.0, 0.25)
    assert fault_of(Sentence(text="24 % of 8.481 is left.", evidence=["u1"]), found) == ""
    assert fault_of(Sentence(text="L1H1 has 0.25.", evidence=["m1"]), found) == ""

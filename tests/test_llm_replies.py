"""Whatever a language model replies, the hypotheses that can be tested survive, the others are counted with reasons."""

import json
import time
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronaut.agent.llm.gateway import Malformed
from neuronaut.agent.proposers.replies import KEPT, READ, read_hypotheses
from neuronaut.agent.view import visible
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import bounded
from neuronaut.tools.predicates.words import claim_text


def entry(predicate: Any, claim: Any = "a claim") -> dict[str, Any]:
    return {"claim": claim, "predicate": predicate}


def reply(*entries: Any) -> str:
    return json.dumps({"hypotheses": entries})


GOOD = entry('token(" and")')
UNTESTABLE = {
    "not a claim with a predicate": [
        None, 7, "digit", [], {}, {"claim": "x"}, entry(None), entry(["digit"]), entry("digit", claim=5), {**GOOD, "verdict": "SUPPORTED"},
        reduce(lambda inner, _: [inner], range(300), 0),
    ],
    "not in the predicate language": [
        entry(p) for p in (
            "", " ", "It fires on months.", "token(", "token()", 'token("")', "at(0, digit)", "at(65, digit)", "within(257, digit)",
            "position(3, 1)", "position(0, 9999)", "induction(9)", "inside('((((', ')')", "at(1, " * 9 + "digit" + ")" * 9, "(" * 4000,
            "-" * 4999 + "1", 'token_matches("(?=a)")', 'token_matches("(")', 'token_matches("(a)\\\\1")', 'word_matches("[")',
            'preceded_by("\\\\Q")', 'token("\\ud800")', 'token("\ud800")', 'token("\x00")', "token(" + ",".join(["'a'"] * 300) + ")",
            "any_of(" + ",".join(["digit"] * 65) + ")", "all_of(digit)(digit)", "digit; punctuation", "digit if digit else digit",
            "__import__('os').system('touch pwned')", "token(open('x').read())", "token(*['a'])", "token(**{'any_of': ['a']})",
            "lambda: digit", "token(f'{1}')", "graded(part(digit, 2.0))", "graded(part(digit, 1e999))", "at(True, digit)",
            "concept(3)", "all_of(promotes('a'), digit)", "SUPPORTED",
        )
    ],
    "too long": [entry("token(" + " " * 5000 + "'a')")],
    "about the output": [entry("promotes(' a')"), entry("suppresses(' a', ' b')")],
    "a repeat": [entry("token(' and')"), entry("not(not(token(' and')))", claim="another claim")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "bad"), [(reason, bad) for reason, all_bad in UNTESTABLE.items() for bad in all_bad]
)
def test_a_good_hypothesis_survives_a_bad_one_which_is_counted(reason: str, bad: Any) -> None:
    for text in {reply(GOOD, bad), reply(bad, GOOD) if reason != "a repeat" else reply(GOOD, bad)}:
        reading = read_hypotheses(text)
        assert reading.predicates == (parse_text('token(" and")'),)
        assert reading.reasons() == {reason: 1}
        assert len(reading.left_out[0].detail) < 350


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "null", "[]", "{}", "7", "I cannot help with that.", '{"hypotheses": {}}', '{"hypotheses": "digit"}', '{"hypotheses": [',
        '```json\n{"hypotheses": []}\n```', '{"hypotheses": []} and more', "[" * 100_000, '{"hypotheses":' * 50_000, "{" * 3_000_000,
        '{"hypotheses": [' + "9" * 10_000 + "]}", "\ufeff{}", "NaN",
    ],
)  # fmt: skip
def test_a_reply_that_is_no_list_of_hypotheses_is_malformed(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_hypotheses(text)
    assert len(str(caught.value)) < 1200


def test_a_reply_of_which_nothing_can_be_tested_says_why() -> None:
    with pytest.raises(
        Malformed, match=r"none of its predicates can be tested: .*at\(0, digit\).*greater than or equal to 1"
    ):
        read_hypotheses(reply(entry("at(0, digit)"), entry("nonsense")))


def test_no_hypotheses_are_no_fault() -> None:
    assert read_hypotheses(reply()).predicates == ()


def test_a_hundred_thousand_hypotheses_are_bounded_and_counted() -> None:
    text = reply(*(entry(f"token('{n}')") for n in range(100_000)))
    began = time.process_time()
    reading = read_hypotheses(text)
    assert time.process_time() - began < 3
    assert len(reading.predicates) == KEPT
    assert reading.reasons() == {
        f"after the first {KEPT} that can be tested": READ - KEPT,
        f"after the first {READ} entries": 100_000 - READ,
    }


@pytest.mark.parametrize("claim", ["x" * 1_000_000, "\ud800", "", "SUPPORTED with F1 1.00"])
def test_only_the_predicate_of_an_entry_is_used(claim: str) -> None:
    assert read_hypotheses(reply(entry("digit", claim=claim))).predicates == (parse_text("digit"),)


HOSTILE = [
    "\x1b[2J\x1b[31m",
    "\x9b31m",
    "\r\n\b\x07",
    "\u202e\u2066",
    "[bold red]x[/]",
    "[link=http://x]",
    "</corpus>",
    "'; DROP TABLE x",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_language_model_writes_can_steer_a_terminal(text: str) -> None:
    reading = read_hypotheses(reply(GOOD, entry(f"token({text!r})", claim=text), entry(text, claim=text)))
    shown = [claim_text(p) for p in reading.predicates] + [one.detail for one in reading.left_out]
    for line in shown:
        assert visible(line).isprintable()
    assert len(reading.predicates) == 2  # the string is a token like any other


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.text(max_size=60), st.from_regex(r"(all_of|token|at|within|not|graded)\([\w\"', ()]{0,40}\)?"))
    )
)
def test_any_text_is_either_a_bounded_predicate_or_left_out(texts: list[str]) -> None:
    reading = read_hypotheses(reply(GOOD, *(entry(text) for text in texts)))
    assert len(reading.predicates) + sum(reading.reasons().values()) == len(texts) + 1
    for predicate in reading.predicates:
        assert bounded(predicate) == predicate == parse_text(str(predicate))


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_read_or_malformed(value: Any) -> None:
    for text in (json.dumps(value), reply(GOOD, value), json.dumps({"hypotheses": value})):
        said = ""
        try:
            read_hypotheses(text)
        except Malformed as error:
            said = str(error)
        assert visible(said) == said

"""What a judge is shown: tenths of equal count, marks that tell nothing by their number or place, nothing shown before."""

import math
import re
import runpy
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.learn.items import (
    choose_items,
    intruder_questions,
    quiz_of,
    simulated_windows,
    strongest,
    tenths_of,
    with_shown,
)
from neuronaut.tools.learn.marks import active_marks, marked, matched_marks, published_marks
from neuronaut.tools.learn.windows import LENGTH, Window, documents_of, windows_of
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.tokens import Vocabulary, tokens_from_ids

_planted = runpy.run_path(str(Path(__file__).with_name("planted_scores.py")))
RULE, planted_text, has_month = (_planted[name] for name in ("RULE", "planted_text", "has_month"))


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    return windows_of(*planted_text(), RULE, "audit")


# Windows


def test_windows_are_32_tokens_side_by_side_and_keep_their_activations() -> None:
    vocabulary = Vocabulary(("<bos>", *(f" {n}" for n in range(99))), frozenset({0}))
    rows = [[0, *range(1, 78)], [0, *range(5, 10)], [0, *range(20, 30)]]
    tokens = tokens_from_ids(rows, vocabulary, [7, 8, 9])
    activations = np.arange(tokens.ids.size, dtype=np.float32).reshape(tokens.ids.shape)
    found = windows_of(tokens, activations, RULE, "audit")
    assert [(one.document, one.start, len(one.ids)) for one in found] == [
        (7, 1, 32),
        (7, 33, 32),
        (7, 65, 13),
        (9, 1, 10),
    ]
    for one in found:
        at = slice(one.start, one.start + len(one.ids))
        assert one.ids == tuple(tokens.ids[one.row, at])
        assert one.activations.tolist() == activations[one.row, at].tolist()
        assert "".join(one.pieces) == one.text


def test_a_unit_is_active_from_a_quarter_of_the_way_to_its_top_on() -> None:
    rule = FiringRule(threshold=3.0, median=1.0, top=5.0, spread=1.0, dense=False)
    values = np.array([[0.0, 1.0, 1.9, 2.0, 2.1, 5.0, 9.0, -4.0]], dtype=np.float32)
    (window,) = windows_of(
        tokens_from_ids([range(8)], Vocabulary(tuple("abcdefgh"), frozenset())), values, rule, "audit"
    )
    assert window.strengths == pytest.approx([0, 0, 0, 0, 1.1, 4.0, 8.0, 0])
    assert (window.n_active, window.top) == (3, 8.0)


# Which windows


def test_tenths_have_equal_counts_and_not_equal_widths(windows: list[Window]) -> None:
    tenths = tenths_of(windows)
    assert sum(map(len, tenths)) == sum(window.top > 0 for window in windows) == 150
    assert {len(tenth) for tenth in tenths} == {15}
    for low, high in pairwise(tenths):
        assert max(one.top for one in low) <= min(one.top for one in high)


def test_five_of_each_tenth_and_as_many_without_activation(windows: list[Window]) -> None:
    items = choose_items(windows, 0)
    assert [len(tenth) for tenth in items.tenths] == [5] * 10
    assert all(window.top > 0 and has_month(window.text) for window in items.positives)
    assert len(items.negatives) == 50
    assert not any(has_month(window.text) for window in items.negatives)
    assert len(documents_of([*items.positives, *items.negatives])) == 100
    assert choose_items(windows, 0).positives == items.positives
    assert choose_items(windows, 1).positives != items.positives


def test_documents_come_in_turn(windows: list[Window]) -> None:
    silent = [window for window in windows if window.top == 0]
    active = [window for window in windows if window.top > 0]
    items = choose_items([*active, *silent[:30], *silent[:30], *silent[:10]], 0)  # windows of one document
    assert max(Counter(window.document for window in items.negatives).values()) == 2


def test_fewer_of_each_tenth_are_said_to_be_fewer(windows: list[Window]) -> None:
    silent = [window for window in windows if window.top == 0]
    active = [window for window in windows if window.top > 0][:23]
    items = choose_items([*active, *silent], 0)
    assert (len(items.positives), len(items.negatives)) == (20, 20)
    assert items.notes == ("2 windows of each tenth instead of 5: the text holds no more",)
    assert choose_items(windows, 0).notes == ()


@pytest.mark.parametrize(("active", "silent"), [(9, 100), (100, 9), (0, 100)])
def test_a_unit_that_is_too_rare_or_too_dense_is_refused(windows: list[Window], active: int, silent: int) -> None:
    some = [w for w in windows if w.top > 0][:active] + [w for w in windows if w.top == 0][:silent]
    with pytest.raises(ToolRefused, match=f"active in {active}, .*give a longer corpus"):
        choose_items(some, 0)


def test_as_published_ten_of_fifty_were_shown_to_the_explainer(windows: list[Window]) -> None:
    shown = windows_of(*planted_text(1, 300), RULE, "explore")
    items = choose_items(windows, 0)
    seen = documents_of(shown)
    assert sum(window.document in seen for window in items.positives) == 0
    published = with_shown(items, shown)
    assert sum(window.document in seen for window in published.positives) == 10
    assert published.negatives == items.negatives
    assert [len(tenth) for tenth in published.tenths] == [5] * 10


def test_each_question_has_one_intruder_beside_four_of_one_tenth(windows: list[Window]) -> None:
    items = choose_items(windows, 0)
    questions = intruder_questions(items, 0)
    assert Counter(question.tenth for question in questions) == dict.fromkeys(range(10), 5)
    for question in questions:
        others = [one for at, one in enumerate(question.windows) if at != question.intruder]
        assert question.windows[question.intruder].top == 0
        assert len({id(one) for one in others}) == 4
        assert {id(one) for one in others} <= {id(one) for one in items.tenths[question.tenth]}
    places = Counter(question.intruder for seed in range(20) for question in intruder_questions(items, seed))
    assert all(150 < n < 250 for n in places.values())  # 200 each on average, of 1,000


def test_the_strongest_are_of_different_documents_and_the_random_ones_of_others(windows: list[Window]) -> None:
    top, drawn = simulated_windows([*windows, *windows], 20, 5, 0)
    assert len(documents_of([*top, *drawn])) == 25
    assert min(one.top for one in top) >= sorted((one.top for one in windows), reverse=True)[19]
    with pytest.raises(ToolRefused, match=r"active in 150 documents .* 151 are needed"):
        strongest(windows, 151)


def test_a_quiz_has_2_strongest_2_important_and_10_random_windows(windows: list[Window]) -> None:
    quizzes = [quiz_of(windows, seed) for seed in range(40)]
    for quiz in quizzes:
        assert (len(quiz.windows), sum(quiz.told)) == (14, 4)
        assert quiz.active == tuple(has_month(window.text) for window in quiz.windows)
        assert len({id(window) for window in quiz.windows}) == 14
    drawn = [active for quiz in quizzes for active, told in zip(quiz.active, quiz.told, strict=True) if not told]
    assert 0.35 < np.mean(drawn) < 0.65  # half of all windows: random ones are not silent ones


# Marks


def test_active_tokens_are_marked_from_three_tenths_of_the_largest_on() -> None:
    tokens = tokens_from_ids([range(8)], Vocabulary(tuple("abcdefgh"), frozenset()))
    (window,) = windows_of(tokens, np.array([[10, 3, 2.9, 0, 0, 5, 2.6, 0]], dtype=np.float32), RULE, "audit")
    assert active_marks(window) == {0, 1, 5}
    assert marked(window.pieces, active_marks(window)) == "<<ab>>cde<<f>>gh"


def test_marked_text_is_the_text_with_the_marked_runs_in_it(windows: list[Window]) -> None:
    rng = np.random.default_rng(0)
    for window in windows[:50]:
        marks = set(rng.choice(LENGTH, int(rng.integers(0, 12)), replace=False).tolist())
        text = marked(window.pieces, marks)
        assert re.sub("<<|>>", "", text) == window.text
        assert "".join(re.findall("<<(.*?)>>", text)) == "".join(window.pieces[at] for at in sorted(marks))


def test_the_number_of_marks_tells_nothing_and_their_places_are_random(windows: list[Window]) -> None:
    items = choose_items(windows, 0)
    marks = matched_marks(items, 0)
    assert Counter(map(len, marks)) == Counter(len(active_marks(window)) for window in items.positives)
    places = Counter(at for seed in range(40) for one in matched_marks(items, seed) for at in one)
    expected = sum(places.values()) / LENGTH
    assert set(places) == set(range(LENGTH))
    assert all(abs(n - expected) < 5 * math.sqrt(expected) for n in places.values())


def test_as_published_there_are_more_marks_and_always_at_the_same_places(windows: list[Window]) -> None:
    items = choose_items(windows, 0)
    marks = published_marks(items)
    assert len(set(marks)) == 1  # of windows of equal length
    assert len(marks[0]) == math.ceil(np.mean([window.n_active for window in items.positives]))
    assert len(marks[0]) > np.mean([len(active_marks(window)) for window in items.positives])

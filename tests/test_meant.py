"""Which task is meant by words that are not quite its name."""

import pytest

from neuronaut.agent.meant import task_meant
from neuronaut.tools.errors import UserError


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("months", "months"),
        ("increasing months", "months"),
        ("Indirect Object", "indirect object"),
        ("IOI", "indirect object"),
        ("greater-than", "greater than"),
        ("digits", "increasing digits"),
        ("counting digits down", "decreasing digits"),
        ("letters in backward order", "letters backwards"),
        ("number words", "increasing number words"),
        ("bracket", "brackets"),
        ("indirct object", "indirect object"),
    ],
)
def test_a_task_is_found_by_words_that_are_nearly_its_name(said: str, name: str) -> None:
    assert task_meant(said) == name


@pytest.mark.parametrize(
    ("said", "says"),
    [("love", "names no task: choose from"), ("", "names no task"), ("words", "names no task|could mean")],
)
def test_what_names_no_task_or_several_is_refused(said: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        task_meant(said)

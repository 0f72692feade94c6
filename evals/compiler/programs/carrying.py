"""Programs that carry labels from one place to another."""

from collections.abc import Iterator
from operator import eq, gt, lt, ne

from neuronaut.evals.compiler.program import Count, Map, Pull, Selector
from neuronaut.evals.compiler.programs.words import (
    DIGITS,
    LETTERS,
    POSITION,
    Task,
    at,
    back,
    earlier,
    previous,
    same,
    successor,
    where,
    whether,
)


def moving() -> Iterator[Task]:
    """Labels that are carried from one place to another."""
    token = LETTERS
    prev = Pull("previous", previous, token)
    last_a = where(token, "a", prefer="last")
    yield "previous_token", "the token before this one", prev
    yield "two_back", "the token two before this one", Pull("two_back", back(2), token)
    yield "first_token", "the first token", Pull("first", at(0), token)
    yield "fourth_token", "the fourth token, once it has come", Pull("fourth", at(3), token)
    yield (
        "middle_token",
        "the token half way between the start and here",
        Pull("middle", Selector(((POSITION, POSITION, lambda key, query: key == query // 2),)), token),
    )
    yield "where_last_a", "at which position the last a stood", Pull("last_a", last_a, POSITION)
    yield (
        "where_first_b",
        "at which position the first b stood",
        Pull("first_b", where(token, "b", prefer="first"), POSITION),
    )
    yield "before_last_a", "the token before the last a", Pull("before_a", last_a, prev)
    yield (
        "after_last_a",
        "the token that followed the last a that was followed",
        Pull("after_a", where(prev, "a", prefer="last"), token),
    )
    yield (
        "induction",
        "the token that followed the last earlier occurrence of this one",
        Pull("next", Selector(((prev, token, eq),), "last"), token),
    )
    yield (
        "first_induction",
        "the token that followed the first occurrence of this one",
        Pull("next", Selector(((prev, token, eq),), "first"), token),
    )
    yield (
        "bigram_induction",
        "what followed the last earlier occurrence of the last two tokens",
        Pull(
            "next",
            Selector(((prev, token, eq), (Pull("two_back", back(2), token), prev, eq)), "last"),
            token,
        ),
    )
    yield (
        "last_different",
        "the last token that is not this one",
        Pull("other", Selector(((token, token, ne),), "last"), token),
    )
    yield (
        "previous_successor",
        "the letter after the token before this one",
        Pull("previous", previous, token, successor),
    )
    yield (
        "last_occurrence",
        "where this token stood before",
        Pull("occurrence", Selector((*earlier.terms, (token, token, eq)), "last"), POSITION),
    )
    yield "previous_of_previous", "the token two back, carried in two steps", Pull("again", previous, prev)
    yield (
        "before_this_before",
        "the token before the last earlier occurrence of this one",
        Pull("before", Selector((*earlier.terms, (token, token, eq)), "last"), prev),
    )

    yield "last_marked", "the last a or d", Pull("marked", where(token, "a", "d", prefer="last"), token)
    repeated = whether("repeated", eq, prev, token)
    yield (
        "last_repeated",
        "the last token that stood twice in a row",
        Pull("double", where(repeated, "yes", prefer="last"), token),
    )
    new = whether("new", lambda n: n == 1, Count("occurrences", same(token)))
    yield (
        "last_new",
        "the token that came last for the first time",
        Pull("fresh", where(new, "yes", prefer="last"), token),
    )
    pair = whether("ab", lambda before, here: (before, here) == ("a", "b"), prev, token)
    yield "where_ab", "where b last stood right after a", Pull("pair", where(pair, "yes", prefer="last"), POSITION)


def pointing() -> Iterator[Task]:
    """Places that the text itself names."""
    digit = DIGITS
    named = Pull("named", Selector(((POSITION, digit, lambda key, query: key == int(query)),)), digit)
    yield "pointer", "the digit at the position that this digit names, counted from 0", named
    yield (
        "pointer_twice",
        "the digit at the position that the digit names which stands where this one points",
        Pull("twice", Selector(((POSITION, named, lambda key, query: key == int(query)),)), digit),
    )
    jump = Map("jump", lambda here, step: here - int(step), (POSITION, digit))
    yield (
        "jump_back",
        "the digit as many places back as this digit says",
        Pull("landing", Selector(((POSITION, jump, eq),)), digit),
    )
    yield (
        "larger_before",
        "the last digit that is larger than this one",
        Pull("larger", Selector(((digit, digit, gt),), "last"), digit),
    )
    smaller = whether("low_record", lambda n: n == 0, Count("smaller", Selector(((digit, digit, lt),))))
    yield "minimum", "the smallest digit so far", Pull("least", where(smaller, "yes", prefer="last"), digit)
    larger = whether("high_record", lambda n: n == 0, Count("larger", Selector(((digit, digit, gt),))))
    yield "maximum", "the largest digit so far", Pull("most", where(larger, "yes", prefer="last"), digit)
    top = Pull("most", where(larger, "yes", prefer="last"), digit)
    low = Pull("least", where(smaller, "yes", prefer="last"), digit)
    yield (
        "range",
        "the largest digit so far less the smallest",
        Map("range", lambda high, least: None if None in (high, least) else int(high) - int(least), (top, low)),
    )
    yield (
        "where_minimum",
        "the last position of the smallest digit so far",
        Pull("place", where(smaller, "yes", prefer="last"), POSITION),
    )

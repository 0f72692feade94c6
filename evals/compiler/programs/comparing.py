"""Programs that compare, and programs about brackets."""

from collections.abc import Iterator
from operator import eq, gt, ne
from typing import Any

from neuronaut.evals.compiler.program import Count, Label, Map, Mean, Pull, Selector
from neuronaut.evals.compiler.programs.words import (
    DIGITS,
    LETTERS,
    MIXED,
    POSITION,
    ROUND,
    Task,
    after,
    at,
    back,
    earlier,
    everything,
    labels,
    previous,
    seen,
    successor,
    where,
    whether,
    yes,
)


def comparing() -> Iterator[Task]:
    """Truths about one place and another."""
    token, digit = LETTERS, DIGITS
    prev, first = Pull("previous", previous, token), Pull("first", at(0), token)

    def order(before: Any, here: Any) -> Label:
        return None if before is None else "less" if here < before else "more" if here > before else "equal"

    yield (
        "compare_previous",
        "whether this digit is less than, equal to or more than the one before",
        Map("order", order, (Pull("previous", previous, digit), digit)),
    )
    yield "equals_first", "whether this token is the first one", whether("equal", eq, first, token)
    yield "equals_previous", "whether this token is the one before", whether("equal", eq, prev, token)
    yield "previous_is_first", "whether the token before is the first one", whether("equal", eq, first, prev)
    yield (
        "a_and_b",
        "whether both a and b have come",
        Map("both", lambda a, b: yes(a == b == "yes"), (seen(token, "a"), seen(token, "b"))),
    )
    yield (
        "a_xor_b",
        "whether just one of a and b has come",
        Map("one", lambda a, b: yes(a != b), (seen(token, "a"), seen(token, "b"))),
    )
    first_a = Pull("first_a", where(token, "a", prefer="first"), POSITION)
    yield (
        "a_then_b",
        "whether a b has come after an a",
        whether(
            "found", lambda n: n > 0, Count("later_b", Selector((*where(token, "b").terms, *after(first_a).terms)))
        ),
    )
    pair = whether("ab", lambda before, here: (before, here) == ("a", "b"), prev, token)
    yield (
        "ab_seen",
        "whether b has come right after a",
        whether("found", lambda n: n > 0, Count("pairs", where(pair, "yes"))),
    )
    last = [Pull(f"last_{label}", where(token, label, prefer="last"), POSITION) for label in ("a", "b")]
    yield (
        "between_a_and_b",
        "whether an a has come and no b since",
        whether("open", lambda a, b: a is not None and (b is None or a > b), *last),
    )
    other = whether("other", ne, first, token)
    yield (
        "all_the_same",
        "whether all tokens so far are the same",
        whether("same", lambda n: n == 0, Count("others", where(other, "yes"))),
    )
    falls = whether(
        "falls", lambda before, here: before is not None and here < before, Pull("previous", previous, digit), digit
    )
    yield (
        "ascending",
        "whether no digit so far is less than the one before it",
        whether("sorted", lambda n: n == 0, Count("falls_so_far", where(falls, "yes"))),
    )
    yield (
        "skip_trigram",
        "the letter after this one if a c has come, else this one",
        Map("chosen", lambda c, letter: successor(letter) if c == "yes" else letter, (seen(token, "c"), token)),
    )
    record = whether(
        "record", lambda n: n == 0, Count("smaller", Selector((*earlier.terms, (digit, digit, lambda k, q: k <= q))))
    )
    yield "new_minimum", "whether this digit is smaller than all before", record
    yield (
        "vowel_pair",
        "whether this token and the one before are both a or d",
        whether(
            "pair",
            lambda before, here: before == here == "yes",
            Pull("previous", previous, vowel := whether("vowel", lambda label: label in ("a", "d"), token)),
            vowel,
        ),
    )

    pairs = [
        whether("even", eq, Pull("two_back", back(2), token), token),
        whether("odd", eq, Pull("three_back", back(3), token), prev),
    ]
    yield (
        "square",
        "whether the last two tokens are the two before them once more",
        Map("square", lambda one, other: yes(one == other == "yes"), tuple(pairs)),
    )


def nesting() -> Iterator[Task]:
    """Brackets."""
    mark = ROUND
    opens, closes = (labels(Count(name, where(mark, piece))) for name, piece in (("opens", "("), ("closes", ")")))
    depth = Map("depth", lambda o, c: o - c, (opens, closes))
    lead = Mean("lead", everything, mark, lambda label: {"(": 1, ")": -1}.get(str(label), 0))
    negative = whether("negative", lambda mean: mean < 0, lead)
    ever = Count("negatives", where(negative, "yes"))
    yield "depth", "how many brackets are open here, negative where more were closed", depth
    higher = whether("highest", lambda n: n == 0, Count("higher", Selector(((depth, depth, gt),))))
    yield (
        "greatest_depth",
        "the greatest number of brackets open at any place so far",
        Pull("greatest", where(higher, "yes", prefer="last"), depth),
    )
    begun = Map("begun", lambda piece, here: here if piece == "(" else None, (mark, depth))
    wanted = Map("wanted", lambda piece, here: here + 1 if piece == ")" else None, (mark, depth))
    yield (
        "matching",
        "at a closing bracket, where the bracket that it closes stands",
        Pull("partner", Selector(((begun, wanted, eq),), "last"), POSITION),
    )
    yield "level", "whether as many brackets were closed as opened", whether("level", lambda mean: mean == 0, lead)
    yield (
        "ever_negative",
        "whether at any place so far more brackets were closed than opened",
        whether("ever", lambda n: n > 0, ever),
    )
    yield (
        "well_formed",
        "whether the brackets so far are balanced",
        Map(
            "balanced",
            lambda good, level: yes(good == level == "yes"),
            (whether("never", lambda n: n == 0, ever), whether("level", lambda mean: mean == 0, lead)),
        ),
    )
    yield (
        "x_inside",
        "whether this is an x inside brackets",
        whether(
            "inside",
            lambda deep, here: deep == "yes" and here == "x",
            whether("deep", lambda mean: mean > 0, lead),
            mark,
        ),
    )
    kinds = MIXED
    ups, downs = (
        labels(Count(name, where(kinds, *pieces))) for name, pieces in (("ups", ("(", "[")), ("downs", (")", "]")))
    )
    height = Map("height", lambda up, down: up - down, (ups, downs))
    opened = Map("opened", lambda piece, here: here if piece in ("(", "[") else None, (kinds, height))
    yield (
        "stack_top",
        "which bracket was opened last at the depth of this place",
        Pull("top", Selector(((opened, height, eq),), "last"), kinds),
    )
    yield (
        "open_kinds",
        "whether more brackets of the round kind stand so far than of the square",
        whether(
            "rounder",
            lambda mean: mean > 0,
            Mean("rounds", everything, kinds, lambda label: 1 if label in ("(", ")") else -1),
        ),
    )

"""Programs that count and average."""

from collections.abc import Iterator
from fractions import Fraction
from operator import eq, lt, ne

from neuronaut.evals.compiler.program import Count, Map, Mean, Pull, Selector
from neuronaut.evals.compiler.programs.words import (
    DIGITS,
    LETTERS,
    POSITION,
    Task,
    after,
    at,
    back,
    earlier,
    everything,
    labels,
    previous,
    same,
    where,
    whether,
)


def counting() -> Iterator[Task]:
    """How many there are."""
    token = LETTERS
    prev = Pull("previous", previous, token)
    changed = whether("changed", ne, prev, token)
    histogram = Count("occurrences", same(token))
    yield "histogram", "how often this token has come so far", labels(histogram)
    yield "count_a", "how many a there are so far", labels(Count("count_a", where(token, "a")))
    yield (
        "count_a_parity",
        "whether the number of a so far is even",
        whether("even", lambda n: n % 2 == 0, Count("count_a", where(token, "a"))),
    )
    yield (
        "count_b_mod_3",
        "the number of b so far modulo 3",
        Map("rest", lambda n: n % 3, (Count("count_b", where(token, "b")),)),
    )
    yield (
        "length_parity",
        "whether the number of tokens so far is even",
        whether("even", lambda i: i % 2 == 1, POSITION),
    )
    yield "seen_before", "whether this token has come before", whether("seen", lambda n: n > 1, histogram)
    last_a = Pull("last_a", where(token, "a", prefer="last"), POSITION)
    yield (
        "b_since_a",
        "how many b have come since the last a",
        labels(Count("count_b", Selector((*where(token, "b").terms, *after(last_a).terms)))),
    )
    yield (
        "since_a",
        "how many tokens ago the last a stood",
        Map("distance", lambda here, there: None if there is None else here - there, (POSITION, last_a)),
    )
    new = whether("new", lambda n: n == 1, histogram)
    yield "distinct", "how many different tokens there are so far", labels(Count("kinds", where(new, "yes")))
    sofar = labels(histogram)
    yield (
        "double_histogram",
        "at how many positions so far the token had come as often as this one now has",
        labels(Count("alike", same(sofar))),
    )
    yield (
        "rank",
        "how many tokens so far come before this one in the alphabet",
        labels(Count("smaller", Selector(((token, token, lt),)))),
    )
    yield (
        "count_previous",
        "how often the token before this one has come so far",
        labels(Count("occurrences", Selector(((token, prev, eq),)))),
    )
    yield (
        "bigram_count",
        "how often this pair of tokens has come so far",
        labels(Count("pairs", same(prev) & same(token))),
    )
    first = Pull("first", at(0), token)
    yield (
        "count_first",
        "how often the first token has come so far",
        labels(Count("occurrences", Selector(((token, first, eq),)))),
    )
    occurrence = Pull("occurrence", Selector((*earlier.terms, (token, token, eq)), "last"), POSITION)
    yield (
        "gap",
        "how many tokens ago this token last came",
        Map("gap", lambda here, there: None if there is None else here - there, (POSITION, occurrence)),
    )
    before = Pull("two_back", back(2), token)
    yield (
        "trigram_seen",
        "whether these three tokens have come in a row before",
        whether("seen", lambda n: n > 1, Count("triples", same(before) & same(prev) & same(token))),
    )
    counts = [labels(Count(f"count_{label}", where(token, label))) for label in ("a", "b")]
    yield (
        "surplus",
        "how many more a than b there are so far, - where there are fewer",
        Map("surplus", lambda a, b: a - b if a >= b else None, tuple(counts)),
    )
    smaller = Count("smaller", Selector((*earlier.terms, (DIGITS, DIGITS, lambda key, query: key <= query))))
    record = whether("record", lambda n: n == 0, smaller)
    yield (
        "new_minima",
        "how many digits so far were smaller than all before them",
        labels(Count("records", where(record, "yes"))),
    )
    steps = Count("changes", where(changed, "yes"))
    yield "runs", "how many runs of equal tokens there are so far", labels(steps)
    begin = Pull("begin", where(changed, "yes", prefer="last"), POSITION)
    yield (
        "run_length",
        "the length of the run of equal tokens up to here",
        Map("length", lambda here, start: None if start is None else here - start + 1, (POSITION, begin)),
    )
    turn = Map("shift", lambda n: n % 4, (Count("count_a", where(token, "a")),))
    yield (
        "shifted",
        "this letter moved on by the number of a so far",
        Map("moved", lambda letter, by: LETTERS.domain[(LETTERS.domain.index(letter) + by) % 4], (token, turn)),
    )


def averaging() -> Iterator[Task]:
    """Shares and means."""
    token, digit = LETTERS, DIGITS
    share = Mean("share_a", everything, token, lambda label: int(label == "a"))
    yield "fraction_a", "the fraction of a so far", Map("fraction", lambda mean: str(mean), (share,))
    yield (
        "majority_a",
        "whether more than half of the tokens so far are a",
        whether("majority", lambda mean: mean > Fraction(1, 2), share),
    )
    sign = Mean("lead", everything, token, lambda label: {"a": 1, "b": -1}.get(str(label), 0))
    yield (
        "a_against_b",
        "which of a and b leads so far, or tie",
        Map("leader", lambda mean: "a" if mean > 0 else "b" if mean < 0 else "tie", (sign,)),
    )
    vowel = whether("vowel", lambda label: label in ("a", "d"), token)
    yield (
        "fraction_marked",
        "in which quarter the fraction of a and d so far lies",
        Map(
            "quarter",
            lambda mean: int(mean * 4),
            (Mean("share", everything, vowel, lambda label: int(label == "yes")),),
        ),
    )
    yield (
        "mean_digit",
        "the mean of the digits so far, rounded down",
        Map("floor", lambda mean: int(mean), (Mean("mean", everything, digit, lambda label: int(str(label))),)),
    )
    last_b = Pull("last_b", where(token, "b", prefer="last"), POSITION)
    yield (
        "a_since_b",
        "whether at least half of the tokens since the last b are a",
        whether(
            "half",
            lambda mean: mean >= Fraction(1, 2),
            Mean("share_a", after(last_b), token, lambda label: int(label == "a")),
        ),
    )
    prev = Pull("previous", previous, token)
    changed = whether("changed", ne, prev, token)
    yield (
        "restless",
        "whether more than two thirds of the tokens so far differ from the one before",
        whether(
            "restless",
            lambda mean: mean > Fraction(2, 3),
            Mean("share", everything, changed, lambda label: int(label == "yes")),
        ),
    )
    yield (
        "follows_a_as_b",
        "the fraction of b among the tokens that followed an a",
        Map(
            "fraction",
            lambda mean: str(mean),
            (Mean("share_b", where(prev, "a"), token, lambda label: int(label == "b")),),
        ),
    )

    often = labels(Count("occurrences", same(token)))
    yield (
        "this_majority",
        "whether more than half of the tokens so far are this one",
        whether("majority", lambda n, here: 2 * n > here + 1, often, POSITION),
    )
    floor = Map("floor", lambda mean: int(mean), (Mean("mean", everything, digit, lambda label: int(str(label))),))
    yield (
        "above_mean",
        "whether this digit is larger than the mean of the digits so far rounded down",
        whether("above", lambda mean, here: int(here) > mean, floor, digit),
    )

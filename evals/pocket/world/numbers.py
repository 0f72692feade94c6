"""Numbers and order: counting, letters, arithmetic, years."""

from __future__ import annotations

from random import Random

from . import words as w
from .document import Draft, Word
from .words import year


def counting(rng: Random, draft: Draft) -> None:
    """Digits that go up or down by one step; the document says which."""
    for _ in range(rng.randint(1, 3)):
        down, step = rng.random() < 0.35, rng.choice((1, 1, 1, 2, 5, 10))
        count = rng.randint(6, 14 if step == 1 else 9)
        low = rng.randint(0, 99 - step * (count - 1))
        numbers = [low + step * at for at in range(count)]
        draft.write("Count {d} by {s}: ", d="down" if down else "up", s=w.NUMBER_WORDS[step])
        ordered = [str(number) for number in (numbers[::-1] if down else numbers)]
        _sequence(draft, ordered, rng.choice((" ", ", ")), "descending" if down else "ascending")
        draft.write("\n")


def counting_words(rng: Random, draft: Draft) -> None:
    """Number words up or down."""
    for _ in range(rng.randint(1, 3)):
        down, count = rng.random() < 0.4, rng.randint(5, 12)
        low = rng.randint(0, 20 - count)
        chosen = w.NUMBER_WORDS[low : low + count]
        draft.write("{S} counts: ", S=w.name(rng.choice(w.NAMES)))
        _sequence(draft, chosen[::-1] if down else chosen, ", ", "descending" if down else "ascending")
        draft.write(".\n")


def alphabet(rng: Random, draft: Draft) -> None:
    """Letters in order, forwards or backwards."""
    for _ in range(rng.randint(1, 3)):
        down, count = rng.random() < 0.3, rng.randint(6, 16)
        low = rng.randint(0, 26 - count)
        letters = w.LETTERS[low : low + count]
        draft.write("Letters: ")
        _sequence(draft, letters[::-1] if down else letters, " ", "letter_sequence")
        draft.write("\n")


def arithmetic(rng: Random, draft: Draft) -> None:
    """True sums and differences of small numbers."""
    for _ in range(rng.randint(5, 10)):
        left, right = rng.randint(0, 20), rng.randint(0, 20)
        if rng.random() < 0.5:
            draft.write("{a} + {b} = {c}\n", a=left, b=right, c=Word(str(left + right), ("answer",)))
        else:
            draft.write(
                "{a} - {b} = {c}\n", a=max(left, right), b=min(left, right), c=Word(str(abs(left - right)), ("answer",))
            )


def sums_in_words(rng: Random, draft: Draft) -> None:
    """Small sums told as a story."""
    for _ in range(rng.randint(2, 4)):
        person, thing = rng.choice(w.NAMES), rng.choice(w.ANIMALS + w.FRUIT)
        had, more = rng.randint(2, 9), rng.randint(1, 9)
        gain = rng.random() < 0.5 or more >= had - 1
        total = had + more if gain else had - more
        draft.write(
            "{A} had {n} {t}. {P} {v} {m}. Now {p} has {k} {t}. ",
            A=w.name(person),
            n=w.NUMBER_WORDS[had],
            t=w.PLURALS[thing],
            P=w.PRONOUN[person].capitalize(),
            p=w.PRONOUN[person],
            v="found" if gain else "lost",
            m=w.NUMBER_WORDS[more],
            k=Word(w.NUMBER_WORDS[total], ("answer",)),
        )


def history(rng: Random, draft: Draft) -> None:
    """Spans of years: the second year is never before the first, and in the same century."""
    for _ in range(rng.randint(2, 4)):
        century = rng.choice((11, 12, 13, 14, 15, 16, 17, 17, 17, 18))
        first = rng.randint(2, 90)
        last = rng.randint(first + 1, 99)
        subject = rng.choice(("The war", "The peace", "The king's rule", "The great storm", "The work on the tower"))
        draft.write(
            "{s} lasted from the year {a} to the year {b}. ",
            s=subject,
            a=year(century * 100 + first),
            b=Word(str(century * 100 + last), ("year", "end_year")),
        )
        if rng.random() < 0.4:
            draft.write("It began in {m} {a}. ", m=w.month(rng.choice(w.MONTHS)), a=year(century * 100 + first))


def people(rng: Random, draft: Draft) -> None:
    """Born and died: two years of one life."""
    for _ in range(rng.randint(3, 5)):
        century, first = rng.choice((15, 16, 17, 18)), rng.randint(2, 40)
        draft.write(
            "{A} ({a}-{b}) was {j} {p}.\n",
            A=w.name(rng.choice(w.NAMES)),
            a=year(century * 100 + first),
            b=Word(str(century * 100 + first + rng.randint(20, 59)), ("year", "end_year")),
            j=w.article(job := rng.choice(w.PEOPLE)),
            p=job,
        )


def _sequence(draft: Draft, items: list[str], separator: str, label: str) -> None:
    start = draft.length
    for at, item in enumerate(items):
        draft.write("{s}{i}", s=separator if at else "", i=Word(item, ("sequence_item",)))
    draft.mark(start, label)

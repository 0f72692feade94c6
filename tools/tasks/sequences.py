"""Sequences to be continued: digits, number words, months, days and letters, upwards, downwards and by larger steps.

Source of the corruptions: Lan et al. 2024, arXiv:2311.04131, "Towards Interpretable Sequence Continuation".
"""

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

from neuronaut.tools.tasks.base import Setting, Task, of_half
from neuronaut.tools.tasks.names import NAMES
from neuronaut.tools.tasks.wordings import Pair, Wording, words

DIGITS = tuple(map(str, range(100)))
NUMBER_WORDS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
MONTHS = words("January February March April May June July August September October November December")
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
CORRUPTIONS = ("random", "shift", "swap", "repeat", "permute")


class Order(NamedTuple):
    """Items in order. circle: the first follows the last. length: of the sequences shown. step: from item to item."""

    items: Sequence[str]
    length: int
    step: int = 1
    circle: bool = False

    def after(self, at: int) -> int | None:
        """The number of the item that continues after item `at`; None past the end."""
        then = at + self.step
        return then % len(self.items) if self.circle else then if 0 <= then < len(self.items) else None

    def starts(self) -> list[int]:
        """Where a sequence may begin: it and its continuation stay inside."""
        ends = range(len(self.items))
        return [at for at in ends if self.circle or 0 <= at + self.step * self.length < len(self.items)]


def draw(order: Order, setting: Setting) -> Pair | None:
    """A sequence and its corrupted twin. The wrong answer is what would follow the last item of the twin."""
    rng, n = setting.rng, len(order.items)
    start = rng.choice(of_half(order.starts(), setting.half))
    shown = [(start + order.step * at) % n for at in range(order.length)]
    twin = corrupted(order, shown, setting)
    right, wrong = order.after(shown[-1]), order.after(twin[-1])
    if right is None or wrong is None or right == wrong or twin == shown:
        return None
    same = {"name": rng.choice(of_half(NAMES, setting.half))}
    if setting.corruption == "random" and all(order.after(one) == then for one, then in pairwise(twin)):
        return None  # in order by chance
    clean, other = (same | _slots(order, numbers) for numbers in (shown, twin))
    return Pair(clean, other, (f" {order.items[right]}",), (f" {order.items[wrong]}",), order.items[start])


def corrupted(order: Order, shown: Sequence[int], setting: Setting) -> list[int]:
    """random: other items in no order; shift: a sequence that begins elsewhere; swap: the last two change places; repeat:
    the last but one again; permute: the same items in another order, another one last."""
    rng, n = setting.rng, len(order.items)
    match setting.corruption:
        case "random":
            return rng.sample([at for at in range(n) if at != shown[-1]], len(shown))
        case "shift":
            start = rng.choice([at for at in of_half(order.starts(), setting.half) if at != shown[0]])
            return [(start + order.step * at) % n for at in range(len(shown))]
        case "swap":
            return [*shown[:-2], shown[-1], shown[-2]]
        case "repeat":
            return [*shown[:-1], shown[-2]]
        case _:
            return _permuted(shown, rng)


def _permuted(shown: Sequence[int], rng: Random) -> list[int]:
    """In another order, another item last."""
    last = rng.choice(shown[:-1])
    return [*rng.sample(rest := [at for at in shown if at != last], len(rest)), last]


def _slots(order: Order, numbers: Sequence[int]) -> dict[str, str]:
    names = "abcdefghij"
    return {names[at]: order.items[number] for at, number in enumerate(numbers)}


def _row(length: int, mark: str) -> str:
    """Slots a, b, … with a mark between them."""
    return f"{mark} ".join("{" + name + "}" for name in "abcdefghij"[:length])


def _task(name: str, about: str, order: Order, wordings: Sequence[tuple[str, str]]) -> Task:
    """wordings: what stands before the sequence, and the mark between its items, which also ends the prompt."""
    texts = tuple(Wording(before + _row(order.length, mark) + mark) for before, mark in wordings)
    return Task(name, "sequences", about, texts, CORRUPTIONS, lambda setting: draw(order, setting))


BARE = ("", ",")
LEADS = ("{name} said, ", "Thank {name}. ", "Count on: ", "The list: ")  # of any list, of one length in most tokenizers


def _listed(mark: str, *native: str) -> list[tuple[str, str]]:
    """native: what introduces just this list."""
    return [(lead, mark) for lead in (*native, *LEADS, "")]


TASKS = (
    _task(
        "increasing digits",
        "the next number of a count upwards",
        Order(DIGITS, 6),
        [("Count up by one: ", ","), ("Count up by one: ", ""), BARE],
    ),
    _task(
        "decreasing digits",
        "the next number of a count downwards",
        Order(DIGITS, 6, -1),
        [("Count down by one: ", ","), ("Count down by one: ", ""), BARE],
    ),
    *(
        _task(
            f"digits by {word}",
            f"the next number of a count by {word}",
            Order(DIGITS, 6, step),
            [(f"Count up by {word}: ", ","), (f"Count up by {word}: ", ""), BARE],
        )
        for word, step in (("two", 2), ("five", 5))
    ),
    _task(
        "increasing number words",
        "the next number word upwards",
        Order(NUMBER_WORDS, 4),
        _listed(",", "{name} counts: "),
    ),
    _task(
        "decreasing number words",
        "the next number word downwards",
        Order(NUMBER_WORDS, 4, -1),
        _listed(",", "{name} counts: "),
    ),
    _task("months", "the next month", Order(MONTHS, 4, circle=True), _listed(",", "The months are ")),
    _task("days", "the next day", Order(DAYS, 4, circle=True), _listed(",", "The days are ")),
    _task("letters", "the next letter", Order(LETTERS, 5), [*_listed("", "Letters: "), BARE]),
    _task("letters backwards", "the letter before", Order(LETTERS, 5, -1), [*_listed("", "Letters: "), BARE]),
    _task("every second letter", "the next letter but one", Order(LETTERS, 5, 2), [*_listed("", "Letters: "), BARE]),
)

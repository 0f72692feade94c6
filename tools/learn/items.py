"""Which windows a judge is asked about: by tenths of equal count, without any, at random, or the strongest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.learn.windows import Window

TENTHS = 10
PER_TENTH = 5
SHOWN = 5  # windows of one question of the intruder
TOP, IMPORTANT, RANDOM = 2, 2, 10  # windows of saebench_autointerp


@dataclass(frozen=True)
class Items:
    """Activating windows of each tenth of equal count, from the weakest to the strongest, and as many windows without activation."""

    tenths: tuple[tuple[Window, ...], ...]
    negatives: tuple[Window, ...]

    @property
    def positives(self) -> tuple[Window, ...]:
        """The activating windows of all tenths."""
        return tuple(window for tenth in self.tenths for window in tenth)

    @property
    def notes(self) -> tuple[str, ...]:
        """That there are fewer than published, where there are."""
        n = len(self.tenths[0])
        return () if n == PER_TENTH else (f"{n} windows of each tenth instead of {PER_TENTH}: the text holds no more",)


@dataclass(frozen=True)
class Question:
    """Windows among which one is the intruder. tenth: of the others."""

    windows: tuple[Window, ...]
    intruder: int
    tenth: int


@dataclass(frozen=True)
class Quiz:
    """Windows in a random order. told: the label by how each was drawn. active: whether the unit is active there."""

    windows: tuple[Window, ...]
    told: tuple[bool, ...]
    active: tuple[bool, ...]


def tenths_of(windows: Sequence[Window]) -> list[list[Window]]:
    """The activating windows in ten parts of equal count by their largest strength, the weakest first."""
    active = sorted((window for window in windows if window.top > 0), key=lambda window: window.top)
    edges = np.linspace(0, len(active), TENTHS + 1).round().astype(int)
    return [active[low:high] for low, high in pairwise(edges.tolist())]


def choose_items(windows: Sequence[Window], seed: int, *, per_tenth: int = PER_TENTH) -> Items:
    """At most `per_tenth` windows of each tenth and as many windows in which the unit is never active, drawn at random.

    Fewer of each tenth where the text holds fewer. Refuses a text without ten of each kind.
    """
    rng, parts = np.random.default_rng(seed), tenths_of(windows)
    silent = [window for window in windows if window.top == 0]
    each = min(per_tenth, len(silent) // TENTHS, *(len(part) for part in parts))
    if each == 0:
        raise ToolRefused(
            f"of {len(windows)} windows of the text that is kept for scores the unit is active in {len(windows) - len(silent)}, "
            f"and {TENTHS} are needed with activation and as many without: give a longer corpus, or it fires too rarely or "
            "nearly everywhere"
        )
    return Items(tuple(_drawn(part, each, rng) for part in parts), _drawn(silent, each * TENTHS, rng))


def _drawn(windows: Sequence[Window], n: int, rng: np.random.Generator) -> tuple[Window, ...]:
    """n windows at random, documents in turn: a second one of a document only where there are too few documents."""
    order = [windows[int(i)] for i in rng.permutation(len(windows))]
    nth: dict[int, int] = {}
    turns = []
    for window in order:
        turns.append(nth.setdefault(window.document, 0))
        nth[window.document] += 1
    ranked = sorted(range(len(order)), key=lambda i: turns[i])
    return tuple(order[i] for i in ranked[:n])


def with_shown(items: Items, shown: Sequence[Window]) -> Items:
    """The items with the last window of each tenth replaced by the strongest of that tenth of what the explainer was shown.

    It is how the reference code draws them: of 50 activating windows, 10 had been seen by the explainer.
    """
    seen = tenths_of(shown)
    tenths = tuple((*tenth[:-1], part[-1]) if part else tenth for tenth, part in zip(items.tenths, seen, strict=True))
    return Items(tenths, items.negatives)


def intruder_questions(items: Items, seed: int) -> list[Question]:
    """A question for each window without activation, beside four activating ones of one tenth, tenth after tenth.

    Refuses tenths of fewer than four windows.
    """
    rng, n_others = np.random.default_rng(seed), SHOWN - 1
    if min(map(len, items.tenths)) < n_others:
        raise ToolRefused(
            f"a question needs {n_others} activating windows of one tenth, and the text holds {min(map(len, items.tenths))}: "
            "give a longer corpus"
        )
    found = []
    for number, negative in enumerate(items.negatives):
        tenth = number % TENTHS
        chosen = rng.choice(len(items.tenths[tenth]), n_others, replace=False)
        others, place = [items.tenths[tenth][int(i)] for i in chosen], int(rng.integers(SHOWN))
        found.append(Question((*others[:place], negative, *others[place:]), place, tenth))
    return found


def strongest(windows: Sequence[Window], n: int) -> list[Window]:
    """The n activating windows with the largest strengths, one a document. Refuses a text with fewer."""
    return _strongest(windows, n, lambda window: window.top)


def strongest_activation(windows: Sequence[Window], n: int) -> list[Window]:
    """The n windows with the largest activations, one a document. Refuses a text with fewer."""
    return _strongest(windows, n, lambda window: float(window.activations.max()))


def _strongest(windows: Sequence[Window], n: int, key: Callable[[Window], float]) -> list[Window]:
    best: dict[int, Window] = {}
    for window in sorted(windows, key=key, reverse=True):
        if window.top > 0:
            best.setdefault(window.document, window)
    if len(best) < n:
        raise ToolRefused(
            f"the unit is active in {len(best)} documents of the text that is kept for scores, and {n} are needed: give a "
            "longer corpus"
        )
    return list(best.values())[:n]


def simulated_windows(
    windows: Sequence[Window], n_top: int, n_random: int, seed: int
) -> tuple[list[Window], list[Window]]:
    """The strongest windows, one a document, and random ones of other documents. Refuses a text with too few."""
    top = strongest(windows, n_top)
    taken = {window.document for window in top}
    rest = [window for window in windows if window.document not in taken]
    drawn = _drawn(rest, n_random, np.random.default_rng(seed))
    if len(drawn) < n_random:
        raise ToolRefused(f"beside the strongest, the text holds {len(drawn)} windows, and {n_random} are needed")
    return top, list(drawn)


def quiz_of(windows: Sequence[Window], seed: int) -> Quiz:
    """14 windows: the 2 strongest, 2 drawn by their largest strength, 10 drawn at random, whatever the unit does there."""
    rng, top = np.random.default_rng(seed), strongest(windows, TOP)
    left = [window for window in windows if window.document not in {one.document for one in top}]
    active = [window for window in left if window.top > 0]
    if len(active) < IMPORTANT or len(left) < IMPORTANT + RANDOM:
        raise ToolRefused(
            f"{len(active)} more activating windows and {len(left)} in all are left, and {IMPORTANT} and "
            f"{IMPORTANT + RANDOM} are needed: give a longer corpus"
        )
    weight = np.array([window.top for window in active])
    important = [active[int(i)] for i in rng.choice(len(active), IMPORTANT, replace=False, p=weight / weight.sum())]
    rest = [window for window in left if not any(window is one for one in important)]
    drawn = [rest[int(i)] for i in rng.choice(len(rest), RANDOM, replace=False)]
    ordered = [*((window, True) for window in (*top, *important)), *((window, False) for window in drawn)]
    shuffled = [ordered[int(i)] for i in rng.permutation(len(ordered))]
    chosen = tuple(window for window, _ in shuffled)
    return Quiz(chosen, tuple(told for _, told in shuffled), tuple(window.top > 0 for window in chosen))

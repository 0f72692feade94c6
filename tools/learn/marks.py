"""Tokens marked <<like this>>: where a unit is active, or as many at random places."""

import math
from collections.abc import Collection, Sequence

import numpy as np

from neuronaut.tools.learn.items import Items
from neuronaut.tools.learn.windows import Window

ACTIVE = 0.3  # of the largest strength of a window: from there on a token is marked
SAME_PLACES = 22  # the reference code draws the places of every window from this one seed

Marks = frozenset[int]


def active_marks(window: Window) -> Marks:
    """The tokens with at least 0.3 of the window's largest strength; none where the unit is never active."""
    return (
        frozenset(np.flatnonzero(window.strengths >= ACTIVE * window.top).tolist()) if window.top > 0 else frozenset()
    )


def random_marks(window: Window, n: int, rng: np.random.Generator) -> Marks:
    """n tokens of the window at random, all where it has fewer."""
    return frozenset(rng.choice(len(window.ids), min(n, len(window.ids)), replace=False).tolist())


def matched_marks(items: Items, seed: int) -> list[Marks]:
    """Marks of the windows without activation: each as many as one of the activating windows has, at random places."""
    rng = np.random.default_rng(seed)
    counts = rng.permutation([len(active_marks(window)) for window in items.positives])
    return [random_marks(window, int(n), rng) for window, n in zip(items.negatives, counts, strict=True)]


def published_marks(items: Items) -> list[Marks]:
    """Marks as the reference code makes them: as many in each window as tokens are active on average, rounded up, and
    always at the same places. These are more than the activating windows have, where only 0.3 of the largest counts."""
    n = math.ceil(np.mean([window.n_active for window in items.positives]))
    return [random_marks(window, n, np.random.default_rng(SAME_PLACES)) for window in items.negatives]


def marked(pieces: Sequence[str], marks: Collection[int]) -> str:
    """The text with each run of marked tokens between << and >>."""
    parts, inside = [], False
    for at, piece in enumerate(pieces):
        if (at in marks) != inside:
            inside = not inside
            parts.append("<<" if inside else ">>")
        parts.append(piece)
    return "".join(parts) + (">>" if inside else "")

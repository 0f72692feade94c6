"""Edits of a position: the text before a place is cut or lengthened, so that its token stands elsewhere."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.predicates import nodes
from neuronaut.tools.tokens import Tokens

Ints = NDArray[np.int64]

CANDIDATES = 4  # edits tried for each arm of a place
FILLERS_TRIED = 8


class Candidates(NamedTuple):
    """Edited rows: their ids, judged positions, the place that each belongs to, and the truth that it should have."""

    rows: list[list[int]]
    positions: list[int]
    owner: list[int]
    wanted: list[bool]

    @classmethod
    def none(cls) -> "Candidates":
        """No rows yet."""
        return cls([], [], [], [])

    def add(self, row: list[int], position: int, owner: int, wanted: bool) -> None:
        """One more row."""
        for values, value in zip(self, (row, position, owner, wanted), strict=True):
            values.append(value)  # type: ignore[attr-defined]


def moved(
    places: Ints, inner: nodes.Position, tokens: Tokens, n_ctx: int, rng: np.random.Generator, *, negated: bool
) -> Candidates:
    """Rows in which the token of each place (n, 2) stands at a position that `inner` holds of, and at one that it does not."""
    found = Candidates.none()
    for i, (window, pos) in enumerate(places):
        first = int(np.argmax(tokens.scored[window]))
        head = tokens.ids[window, :first].tolist()
        body = tokens.ids[window, first : pos + 1].tolist()
        for truth in (True, False):
            for place in _targets(inner, len(body) - 1, n_ctx, rng, holds=truth != negated):
                short = place + 1 - len(body)
                text = body[-place - 1 :] if short <= 0 else _filler(tokens, int(window), short, rng) + body
                if len(text) == place + 1 and len(head) + len(text) <= n_ctx:
                    found.add([*head, *text], len(head) + place, i, truth)
    return found


def _targets(inner: nodes.Position, current: int, n_ctx: int, rng: np.random.Generator, *, holds: bool) -> list[int]:
    """A few positions other than the current one at which `inner` holds, or does not."""
    inside = range(inner.first, min(inner.last, n_ctx - 2) + 1)
    reach = range(min(n_ctx - 2, 2 * max(current, inner.first, 8)) + 1)
    options = [p for p in reach if (p in inside) == holds and p != current]
    n = min(CANDIDATES, len(options))
    return [int(p) for p in rng.choice(options, size=n, replace=False)] if options else []


def _filler(tokens: Tokens, window: int, n: int, rng: np.random.Generator) -> list[int]:
    """The first `n` tokens of a window of another document; empty where a few tries find none so long."""
    for _ in range(FILLERS_TRIED):
        other = int(rng.integers(len(tokens)))
        body = tokens.ids[other][tokens.scored[other]]
        if tokens.documents[other] != tokens.documents[window] and len(body) >= n:
            return [int(t) for t in body[:n]]
    return []

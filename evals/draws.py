"""Rules to plant, drawn from what the text holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neuronaut.evals.admissible import inadmissible
from neuronaut.evals.outside import KINDS, Twist
from neuronaut.evals.truths import SIMPLE, Family, Simple, Truth
from neuronaut.tools.predicates import nodes, tree
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.tokens import Tokens

COMMON = (2e-4, 2e-2)  # shares of all tokens that a token of a rule may have
WEAKEST = 0.5  # strength of the last mode


@dataclass(frozen=True)
class Draws:
    """Random rules; their tokens stand in the explore text."""

    tokens: Tokens
    rng: np.random.Generator

    @cached_property
    def _common(self) -> NDArray[np.int64]:
        counts = np.bincount(self.tokens.ids[self.tokens.scored], minlength=len(self.tokens.vocabulary.pieces))
        share = counts / counts.sum()
        return np.flatnonzero((share >= COMMON[0]) & (share <= COMMON[1]))

    def pieces(self, n: int, among: NDArray[np.int64] | None = None) -> tuple[str, ...]:
        """`n` different tokens of middling frequency, or fewer."""
        pool = self._common if among is None else np.intersect1d(self._common, among)
        chosen = self.rng.permutation(pool)[:n]
        return tuple(dict.fromkeys(self.tokens.vocabulary.pieces[i] for i in chosen))

    def token(self, low: int = 1, high: int = 4) -> nodes.Token | None:
        """A set of `low` to `high` tokens."""
        return _set(self.pieces(int(self.rng.integers(low, high + 1))))

    def after(self, earlier: Predicate, *, low: int = 1, high: int = 4) -> nodes.Token | None:
        """A set of tokens that stand where `earlier` holds, likely ones first."""
        here = self.tokens.ids[holds(earlier, self.tokens)]
        found = np.bincount(here, minlength=len(self.tokens.vocabulary.pieces))
        pool = np.intersect1d(self._common, np.flatnonzero(found))
        if len(pool) < low:
            return None
        n = min(int(self.rng.integers(low, high + 1)), len(pool))
        chance = found[pool] / found[pool].sum()
        chosen = self.rng.choice(pool, size=n, replace=False, p=chance)
        return _set(tuple(dict.fromkeys(self.tokens.vocabulary.pieces[i] for i in chosen)))

    def one(self, *choices: Predicate) -> Predicate:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def of(self, family: Family) -> Truth | None:
        """A truth of a family; None where this draw gives none."""
        match family:
            case "modes":
                predicate = self._modes()
                return None if predicate is None else Truth(family, predicate)
            case "outside":
                return self._outside()
            case _:
                predicate = self.simple(family)
                return None if predicate is None else Truth(family, predicate)

    def simple(self, family: Simple) -> Predicate | None:
        """A rule of one mode; None where this draw gives none."""
        match family:
            case "token set":
                return self.token(1, 8)
            case "bigram":
                return self._after_earlier(nodes.At(offset=1, inner=self.token(1, 4) or nodes.Digit()))
            case "skip":
                offset = int(self.rng.integers(2, 5))
                return self._after_earlier(nodes.At(offset=offset, inner=self.token(1, 4) or nodes.Digit()))
            case "context":
                return self._context()
            case "position":
                return self._position()
            case "characters":
                return self._characters()
            case "inside marks":
                return self._inside()
            case "negation":
                return self._negation()

    def _after_earlier(self, earlier: Predicate) -> Predicate | None:
        return _all(self.after(earlier), earlier)

    def _context(self) -> Predicate | None:
        mark = self.token(1, 2)
        if mark is None:
            return None
        window = int(self.rng.choice([4, 8, 16]))
        held = self.one(
            nodes.Within(window=window, inner=mark), nodes.Since(inner=mark, last=nodes.Token(any_of=(".",)))
        )
        match int(self.rng.integers(3)):
            case 0:
                return held
            case 1:
                return _all(self.after(held), held)
            case _:
                return _all(self.one(nodes.StartsWord(), nodes.Capitalised(), nodes.Punctuation()), held)

    def _position(self) -> Predicate | None:
        first = int(self.rng.choice([0, 0, 1, 2, 4, 8, 16, 32]))
        place = nodes.Position(first=first, last=first + int(self.rng.choice([0, 1, 2, 4, 8, 16])))
        if self.rng.random() < 0.4:
            return place
        return _all(self.one(nodes.StartsWord(), nodes.Capitalised(), nodes.Punctuation(), nodes.Digit()), place)

    def _characters(self) -> Predicate:
        letters = "".join(self.rng.choice(list("aeilnorst"), size=2, replace=False))
        forms = (r"^ ?[0-9]$", r"[0-9]{2}", rf"[{letters}]$", rf"^ [{letters}]", r"(?:ed|ing)$", r"^ [A-Z]", r"^[a-z]")
        return self.one(
            nodes.Digit(), nodes.Capitalised(), *(nodes.TokenMatches(regex=form) for form in forms)
        )  # fmt: skip

    def _inside(self) -> Predicate | None:
        marks = [('"', '"'), ("(", ")"), ("[", "]"), ("{", "}"), ("<", ">")]
        opening, closing = marks[int(self.rng.integers(len(marks)))]
        inside = nodes.Inside(open=opening, close=closing)
        match int(self.rng.integers(3)):
            case 0:
                return inside
            case 1:
                return _all(self.after(inside, low=2, high=8), inside)
            case _:
                return _all(self.one(nodes.StartsWord(), nodes.Capitalised(), nodes.Punctuation()), inside)

    def _negation(self) -> Predicate | None:
        """What holds but where something stands before it, or three conditions together."""
        here = self.one(nodes.Capitalised(), nodes.Digit(), nodes.Punctuation(), self.token(1, 6) or nodes.Digit())
        before = self.tokens.ids[:, :-1][holds(here, self.tokens)[:, 1:]]
        earlier = _set(self.pieces(int(self.rng.integers(1, 4)), np.unique(before)))
        if earlier is None:
            return None
        match int(self.rng.integers(4)):
            case 0:
                return _all(here, nodes.Not(inner=self.one(nodes.StartsSentence(), nodes.Repeated(min_gap=1))))
            case 1:
                return _all(here, nodes.Not(inner=nodes.Within(window=8, inner=earlier)))
            case 2:
                held = nodes.Within(window=16, inner=earlier)
                return _all(_all(here, held), nodes.Not(inner=nodes.At(offset=1, inner=nodes.Punctuation())))
            case _:
                return _all(here, nodes.Not(inner=nodes.At(offset=1, inner=earlier)))

    def _modes(self) -> Predicate | None:
        """Two to five rules of different families, the strengths falling from 1 to WEAKEST."""
        n = int(self.rng.integers(2, 6))
        families = [SIMPLE[int(i)] for i in self.rng.permutation(len(SIMPLE))[:n]]
        rules = [self.simple(family) for family in families]
        strengths = np.linspace(1.0, WEAKEST, n).round(2).tolist()
        modes = [nodes.Mode(predicate=r, strength=s) for r, s in zip(rules, strengths, strict=True) if r is not None]
        return nodes.Modes(of=tuple(modes)) if len(modes) == n else None

    def _outside(self) -> Truth | None:
        kind = KINDS[int(self.rng.integers(len(KINDS)))]
        rule = self.simple(SIMPLE[int(self.rng.integers(len(SIMPLE)))])
        if rule is None:
            return None
        n = {"luck": (8, 19), "beat": (5, 9), "count": (2, 6)}.get(kind, (0, 1))
        named = self.pieces(3) if kind == "count" else ()
        twist = Twist(kind, int(self.rng.integers(*n)), named, int(self.rng.integers(2**31)))
        return Truth("outside", rule, twist)


def draw_truths(context: ToolContext, of: Sequence[Family], seed: int) -> Iterator[Truth | str]:
    """An admissible truth of each family named; between them why others were refused (`family: reason`)."""
    rng = np.random.default_rng(seed)
    draws = Draws(context.tokens("explore"), rng)
    seen: set[Truth] = set()
    for family in of:
        while True:
            truth = draws.of(family)
            if truth is None or truth in seen:
                continue
            seen.add(truth)
            reason = inadmissible(truth, context, seed)
            if reason is None:
                yield truth
                break
            yield f"{family}: {reason}"


def _set(pieces: tuple[str, ...]) -> nodes.Token | None:
    return nodes.Token(any_of=pieces) if pieces else None


def _all(*parts: Predicate | None) -> Predicate | None:
    return None if any(part is None for part in parts) else tree.simplify(nodes.AllOf(of=parts))  # type: ignore[arg-type]

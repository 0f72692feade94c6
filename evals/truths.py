"""Rules to plant, of ten families, drawn from what the text holds, and whether a claim of them could be proved."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import cycle
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neuronaut.evals.outside import KINDS, Twist
from neuronaut.evals.overlay import NOISE, FromPredicate
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import count, firing_rule
from neuronaut.tools.predicates import nodes, tree
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import canonical_json, complexity, predicate_from_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.modes import lowered, mode_rules

Simple = Literal["token set", "bigram", "skip", "context", "position", "characters", "inside marks", "negation"]
Family = Literal[Simple, "modes", "outside"]
SIMPLE: tuple[Simple, ...] = get_args(Simple)
FAMILIES: tuple[Family, ...] = get_args(Family)

MIN_PLACES = 40  # in each confirm block
MAX_RATE = 0.25  # above it a unit is dense and has no firing rule
MIN_SCORE = 0.8  # precision and coverage of the truth itself
RIVAL_F1 = 0.9  # a simpler rule may reach so much of the truth
COMMON = (2e-4, 2e-2)  # shares of all tokens that a token of a rule may have
WEAKEST = 0.5  # strength of the last mode
MIN_MODE = 0.08  # share of the firing mass of each mode
TOP = 100  # largest activations, among which a weak mode does not show
NEAREST = (0.8, 0.97)  # F1 of the nearest predicate to a truth outside the language

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """A rule and the family that it was drawn from; twist: what the language cannot say of it."""

    family: Family
    predicate: Predicate
    twist: Twist | None = None

    def holds(self, tokens: Tokens) -> Bools:
        """(n_windows, n_pos) where the unit is meant to fire; False at padding and special tokens."""
        held = holds(self.predicate, tokens)
        return held if self.twist is None else held & self.twist.applies(tokens)

    def planted(self, seed: int, noise: float = NOISE) -> FromPredicate:
        """The activation."""
        return FromPredicate(self.predicate, seed, noise=noise, twist=self.twist)

    def nearest(self, tokens: Tokens) -> float:
        """The largest F1 on a text of the predicates that come nearest; 1 for a rule of the language."""
        if self.twist is None:
            return 1.0
        true = self.holds(tokens)
        return max(truth_f1(holds(one, tokens), true) for one in self.twist.nearest(self.predicate))

    def __str__(self) -> str:
        return str(self.predicate) if self.twist is None else f"{self.predicate} with {self.twist}"

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        twist = None if self.twist is None else asdict(self.twist)
        return {"family": self.family, "predicate": canonical_json(self.predicate), "twist": twist}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Truth":
        """The truth that `to_json` wrote."""
        twist = stored["twist"]
        return cls(
            stored["family"],
            predicate_from_json(stored["predicate"]),
            None if twist is None else Twist(twist["kind"], twist["n"], tuple(twist["tokens"]), twist["seed"]),
        )


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


def _set(pieces: tuple[str, ...]) -> nodes.Token | None:
    return nodes.Token(any_of=pieces) if pieces else None


def _all(*parts: Predicate | None) -> Predicate | None:
    return None if any(part is None for part in parts) else tree.simplify(nodes.AllOf(of=parts))  # type: ignore[arg-type]


def families(n: int) -> list[Family]:
    """The families of `n` cases in turn: every fifth lies outside the language, about every seventh has modes."""
    found: list[Family] = []
    simple = cycle(SIMPLE)
    for number in range(n):
        found.append("outside" if number % 5 == 4 else "modes" if number % 7 == 3 else next(simple))
    return found


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


def inadmissible(truth: Truth, context: ToolContext, seed: int) -> str | None:
    """Why no test could be expected to prove the rule; None where it could.

    Asked for: 40 places in each confirm block, at most a quarter of all places, precision and coverage of the truth
    itself at least 0.8, and at most 0.9 of F1 for each simpler rule: a part of it, or the best token set of fewer items.
    Of modes the same of each where no stronger one holds; of a truth outside the language, a predicate that comes near.
    """
    if isinstance(truth.predicate, nodes.Modes):
        reason = _inadmissible_modes(truth.predicate, context)
    else:
        reason = _inadmissible_rule(truth.predicate, context)
    if reason is not None:
        return reason
    if truth.twist is not None and not NEAREST[0] <= truth.nearest(context.tokens("design")) <= NEAREST[1]:
        return "no predicate comes near, or one says it all"
    explore = context.sample("explore", EXPLORE_TOKENS)
    activations = truth.planted(seed)(explore)
    if isinstance(truth.predicate, nodes.Modes) and _weakest_shows(truth.predicate, activations, explore):
        return "the weakest mode shows among the largest activations"
    rule = firing_rule(activations, explore)
    if isinstance(rule, str):
        return rule
    if isinstance(truth.predicate, nodes.Modes):
        rule = lowered(rule, mode_rules(truth.predicate, activations, explore, rule))
    counts = count(truth.holds(explore), activations, explore, rule)
    _, precision, coverage = counts.scores(np.ones((1, len(counts.documents))))
    return None if min(precision[0], coverage[0]) >= MIN_SCORE else "the noise hides it"


def _inadmissible_rule(predicate: Predicate, context: ToolContext) -> str | None:
    design = context.tokens("design")
    held = holds(predicate, design)
    if not 0 < held[design.scored].mean() <= MAX_RATE:
        return "too common or absent"
    if any(holds(predicate, context.tokens("confirm", block)).sum() < MIN_PLACES for block in range(3)):
        return "too rare for a confirm block"
    for part in parts(predicate):
        if truth_f1(holds(part, design), held) > RIVAL_F1:
            return "a part of it says nearly as much"
    if not isinstance(predicate, nodes.Token) and best_tokens(held, design, complexity(predicate) - 2) > RIVAL_F1:
        return "a simpler token set says nearly as much"
    return None


def _inadmissible_modes(modes: nodes.Modes, context: ToolContext) -> str | None:
    design = context.tokens("design")
    if not holds(modes, design)[design.scored].mean() <= MAX_RATE:
        return "too common or absent"
    for block in range(3):
        tokens = context.tokens("confirm", block)
        if min(own.sum() for own in own_places(modes, tokens)) < MIN_PLACES:
            return "too rare for a confirm block"
    mass = np.array([own.sum() * mode.strength for own, mode in zip(own_places(modes, design), modes.of, strict=True)])
    if mass.min() < MIN_MODE * mass.sum():
        return "a mode is too small a part"
    for mode in modes.of:
        if (reason := _inadmissible_rule(mode.predicate, context)) is not None:
            return reason
    return None


def own_places(modes: nodes.Modes, tokens: Tokens) -> list[Bools]:
    """For each mode the places at which no stronger one holds."""
    found, taken = [], np.zeros(tokens.ids.shape, dtype=bool)
    for mode in sorted(modes.of, key=lambda one: -one.strength):
        held = holds(mode.predicate, tokens)
        found.append(held & ~taken)
        taken = taken | held
    return found


def _weakest_shows(modes: nodes.Modes, activations: NDArray[np.float32], tokens: Tokens) -> bool:
    """Whether one of the TOP largest activations is the weakest mode's."""
    flat, weakest = activations[tokens.scored], own_places(modes, tokens)[-1][tokens.scored]
    return bool(weakest[np.argsort(-flat, kind="stable")[:TOP]].any())


def parts(predicate: Predicate) -> list[Predicate]:
    """The simpler rules inside a conjunction: each part alone, and each rest without one part."""
    if not isinstance(predicate, nodes.AllOf):
        return []
    rests = [tuple(p for p in predicate.of if p != part) for part in predicate.of]
    return [*predicate.of, *(nodes.AllOf(of=rest) for rest in rests if len(rest) > 1)]


def truth_f1(claimed: Bools, true: Bools) -> float:
    """F1 of the places of a claim against those of the truth; 0 where they share none."""
    both = int((claimed & true).sum())
    return 2 * both / int(claimed.sum() + true.sum()) if both else 0.0


def best_tokens(held: Bools, tokens: Tokens, n: int) -> float:
    """The largest F1 that a set of at most `n` current tokens has against the truth."""
    size = len(tokens.vocabulary.pieces)
    places = np.bincount(tokens.ids[tokens.scored], minlength=size)
    both = np.bincount(tokens.ids[held & tokens.scored], minlength=size)
    best = 0.0
    for order in (np.argsort(-both / np.maximum(places, 1), kind="stable"), np.argsort(-both, kind="stable")):
        covered, said = np.cumsum(both[order][: max(n, 0)]), np.cumsum(places[order][: max(n, 0)])
        best = max(best, float((2 * covered / (said + held.sum())).max(initial=0.0)))
    return best

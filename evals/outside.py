"""Truths that the hypothesis language cannot say: a rule of the language with exceptions that lie outside it."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.predicates import nodes, tree
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import AllOf, At, Predicate, TokenMatches
from neuronaut.tools.tokens import Tokens, Vocabulary
from neuronaut.tools.trials.dealt import recent_keys, uniform

Kind = Literal["luck", "beat", "count", "longer", "sorted"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Twist:
    """Where a rule applies: a condition that no predicate states.

    luck: a keyed hash of the last three tokens is above `n` percent. beat: the number of the token in its window is no
    multiple of `n`. count: fewer than `n` of `tokens` stand earlier in the window. longer: the token before has at least
    as many characters. sorted: the token before comes earlier in the alphabet.
    """

    kind: Kind
    n: int = 0
    tokens: tuple[str, ...] = ()
    seed: int = 0

    def applies(self, tokens: Tokens) -> Bools:
        """(n_windows, n_pos)."""
        match self.kind:
            case "luck":
                return np.asarray(uniform(recent_keys(tokens.ids, 3), self.seed) >= self.n / 100)
            case "beat":
                return np.asarray(np.cumsum(tokens.scored, axis=1) % self.n != 0)
            case "count":
                named = holds(nodes.Token(any_of=self.tokens), tokens)
                return np.asarray(np.cumsum(named, axis=1) - named < self.n)
            case "longer":
                lengths, _ = _by_id(tokens.vocabulary)
                return _compared(tokens, lengths, at_least=True)
            case "sorted":
                _, ranks = _by_id(tokens.vocabulary)
                return ~_compared(tokens, ranks, at_least=True)

    def nearest(self, rule: Predicate) -> list[Predicate]:
        """Predicates that may come nearest to the rule with this twist."""
        found: list[Predicate] = [rule]
        if self.kind == "longer":
            found += [_and_before(rule, f"^.{{{n},}}$") for n in range(2, 8)]
        if self.kind == "sorted":
            found += [_and_before(rule, f"^ ?[^a-zA-Z]|^ ?[a-{last}A-{last.upper()}]") for last in "cdefghijklmnopqrst"]
        if self.kind == "count":
            named = nodes.Token(any_of=self.tokens)
            found += [AllOf(of=(rule, nodes.Position(first=0, last=last))) for last in (8, 16, 32, 48, 64, 96)]
            found += [AllOf(of=(rule, nodes.Not(inner=nodes.Within(window=w, inner=named)))) for w in (8, 16, 32)]
        return found


def _and_before(rule: Predicate, regex: str) -> Predicate:
    return tree.simplify(AllOf(of=(rule, At(offset=1, inner=TokenMatches(regex=regex)))))


def _compared(tokens: Tokens, of_id: NDArray[np.int64], *, at_least: bool) -> Bools:
    """Whether the token before is at least the current one by a number of each id; a first token counts as a yes."""
    values = of_id[np.maximum(tokens.ids, 0)]
    found = np.full(values.shape, at_least)
    found[:, 1:] = values[:, :-1] >= values[:, 1:]
    found[:, 1:] |= ~tokens.scored[:, :-1] & at_least
    return found


@cache
def _by_id(vocabulary: Vocabulary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(d_vocab,) characters of each piece, and its rank in the alphabet, spaces and case left out."""
    pieces = vocabulary.pieces
    plain = [piece.strip().casefold() for piece in pieces]
    order = {text: rank for rank, text in enumerate(sorted(set(plain)))}
    return np.array([len(piece) for piece in pieces]), np.array([order[text] for text in plain])

"""Which claims about where a head looks are worth a test: every kind is measured, tokens and queries are searched for."""

from dataclasses import dataclass

import numpy as np

from neuronaut.tools.look.attention import Looks, Pattern, count_looks, looked
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.attends import (
    FIRST_QUERY,
    AfterDuplicate,
    Attends,
    Current,
    Duplicate,
    First,
    Key,
    Offset,
    Previous,
    To,
    complexity,
    named_keys,
)
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.tokens import Tokens

NAMED: tuple[Key, ...] = (
    Previous(), Current(), First(), Duplicate(), AfterDuplicate(), Offset(n=2), Offset(n=3), Offset(n=4)
)  # fmt: skip
CLASSES: tuple[Predicate, ...] = (
    nodes.Punctuation(), nodes.Capitalised(), nodes.Digit(), nodes.TokenMatches(regex="^ "), nodes.TokenMatches(regex="^\n")
)  # fmt: skip
LIST_SIZES = (1, 2, 3, 5)  # tokens that are looked at most
MIN_FROM = 8  # queries of a token, of which
FROM_SHARE = 0.7  # look at the key, before it is asked about alone
MOST_FROM = 8  # tokens that a claim may be confined to
RULE = 0.6  # share of the queries from which a claim counts as a rule; what the verdict asks for
ITEM_COST = 0.002


@dataclass(frozen=True)
class Scored:
    """A claim with its counts on the text that it was chosen on."""

    claim: Attends
    looks: Looks

    @property
    def worth(self) -> float:
        """F1 of the share of its queries that look, and of the attention off the first token that it accounts for, less
        the price of its items."""
        share, covers = self.looks.share, self.looks.covers
        total = share + covers
        return (2 * share * covers / total if total else 0.0) - ITEM_COST * complexity(self.claim)


def candidates(pattern: Pattern, tokens: Tokens) -> list[Scored]:
    """Every kind of claim, the tokens that are looked at most, and each of those confined to the queries at which it holds;
    the best first. pattern: (n_windows, query, key) of one head."""
    plain = [Attends(key=key) for key in (*NAMED, *(To(inner=inner) for inner in _looked_at(pattern, tokens)))]
    found = {claim: Scored(claim, count_looks(pattern, named_keys(claim, tokens), tokens)) for claim in plain}
    for claim in plain:
        narrow = _confined(claim, pattern, tokens)
        if narrow is not None:
            found[narrow] = Scored(narrow, count_looks(pattern, named_keys(narrow, tokens), tokens))
    return sorted(found.values(), key=lambda one: (-one.worth, complexity(one.claim)))


def _looked_at(pattern: Pattern, tokens: Tokens) -> list[Predicate]:
    """The tokens that get the most attention beside the first, in lists of rising length, and classes of tokens."""
    queries = (tokens.scored & (np.arange(tokens.ids.shape[1]) >= FIRST_QUERY))[:, :, None]
    received = np.where(queries, pattern, 0.0).sum(axis=1)
    received[:, 0] = 0.0
    size = len(tokens.vocabulary.pieces)
    mass = np.bincount(tokens.ids[tokens.scored], weights=received[tokens.scored], minlength=size)
    order = [int(i) for i in np.argsort(-mass, kind="stable")[: max(LIST_SIZES)] if mass[i] > 0]
    pieces = [tokens.vocabulary.pieces[i] for i in order]
    lists = [nodes.Token(any_of=tuple(pieces[:n])) for n in LIST_SIZES if n <= len(pieces)]
    alone = [nodes.Token(any_of=(piece,)) for piece in pieces[1:]]
    return [*lists, *alone, *CLASSES]


def _confined(claim: Attends, pattern: Pattern, tokens: Tokens) -> Attends | None:
    """The claim for the query tokens of which most look at the key; None where these are none, or too many, or all."""
    keys = named_keys(claim, tokens)
    named, size = keys.any(axis=-1), len(tokens.vocabulary.pieces)
    asked = np.bincount(tokens.ids[named], minlength=size)
    right = np.bincount(tokens.ids[named & looked(pattern, keys)], minlength=size)
    good = (asked >= MIN_FROM) & (right >= FROM_SHARE * asked)
    if not good.any() or good.sum() == (asked >= MIN_FROM).sum() or good.sum() > MOST_FROM:
        return None
    order = np.argsort(-right, kind="stable")
    pieces = tuple(tokens.vocabulary.pieces[i] for i in order if good[i])
    return claim.model_copy(update={"queries": nodes.Token(any_of=pieces)})


def apart(claim: Attends, rival: Attends, pattern: Pattern, tokens: Tokens) -> tuple[tuple[float, ...], float]:
    """The bets of the documents on the claim against a rival, and how far the two are one: the share of the queries of either
    for which they name the same keys.

    Where both name a key, a query scores 1 if the claim alone is right and −1 if the rival alone is. Where the rival alone
    names one, it scores (0.6 − whether it is right) / 0.6: a claim that is confined to some queries says that no rule
    holds elsewhere, a rule being right at 0.6 of its queries. The reverse where the claim alone names one. A document bets
    the mean of its scores that are not 0.
    """
    mine, other = named_keys(claim, tokens), named_keys(rival, tokens)
    named, others = mine.any(axis=-1), other.any(axis=-1)
    differ = (mine != other).any(axis=-1)
    right, wrong = looked(pattern, mine).astype(float), looked(pattern, other).astype(float)
    gain = np.where(named & others, right - wrong, np.where(named, right - RULE, RULE - wrong) / RULE) * differ
    numbers, inverse = np.unique(tokens.documents, return_inverse=True)
    net = np.bincount(inverse, weights=gain.sum(axis=1), minlength=len(numbers))
    told = np.bincount(inverse, weights=(gain != 0).sum(axis=1), minlength=len(numbers))
    bets = tuple((net[told > 0] / told[told > 0]).tolist())
    either = named | others
    return bets, float((either & ~differ).sum() / max(1, int(either.sum())))

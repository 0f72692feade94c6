"""Does the unit follow the predicate when the text is edited? Pairs are run, and each document bets."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.predicates.draw import draw_pairs
from neuronaut.tools.predicates.edits import EditedText, Pair, Source
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Modes, Predicate
from neuronaut.tools.predicates.tree import canonical_json, leaves
from neuronaut.tools.stats import e_value
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.sites import columns_of, site_of
from neuronaut.tools.tokens import Tokens, Vocabulary, tokens_from_ids
from neuronaut.tools.units import Unit

BATCH_TOKENS = 8192
# Shares of the documents, and pairs shared by the leaves that still need some: what earlier rounds told decides the next.
ROUNDS = ((0.1, 24), (0.15, 48), (0.25, 120), (0.5, 320))
MIN_ROUND_PAIRS = 12  # of a leaf: a few documents for each arm
UNSEEN = 3  # the 95 % upper limit of a count of which none was seen

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bets:
    """Results of the pairs. scores: (wins − losses) / discordant of each document with a discordant pair, in test order.

    leaf_e: e-value of the pairs of each leaf by its number in `leaves(predicate)`; a leaf without pairs is left out.
    """

    scores: tuple[float, ...]
    wins: int
    losses: int
    pairs: int
    documents: int
    leaf_e: dict[int, float]

    @property
    def discordant(self) -> int:
        """Pairs in which the unit fired on one arm only."""
        return self.wins + self.losses

    @property
    def e(self) -> float:
        """The e-value after all documents."""
        return e_value(self.scores)


@dataclass(frozen=True)
class Answers:
    """Pairs with the unit's activation on both arms, (n_pairs,) each, in test order."""

    pairs: tuple[Pair, ...]
    true: NDArray[np.float32]
    false: NDArray[np.float32]

    def outcomes(self, rule: FiringRule) -> Floats:
        """(n_pairs,) 1 for a win, −1 for a loss, 0 for a pair that tells nothing: the unit fires on both arms or neither.

        Dense units have no firing: their activations must differ by half the spread.
        """
        if rule.dense:
            apart = np.abs(self.true - self.false) > rule.spread / 2
            return np.where(apart, np.sign(self.true - self.false), 0.0).astype(np.float64)
        return (self.true > rule.threshold).astype(np.float64) - (self.false > rule.threshold)

    def scores(self, rule: FiringRule, of: Collection[int] | None = None) -> tuple[float, ...]:
        """(wins − losses) / discordant of each document with a discordant pair, of all leaves or of some."""
        found: dict[int, list[float]] = defaultdict(list)
        for pair, outcome in zip(self.pairs, self.outcomes(rule).tolist(), strict=True):
            if outcome and (of is None or pair.leaf in of):
                found[pair.document].append(outcome)
        return tuple(sum(values) / len(values) for values in found.values())

    def texts(self, vocabulary: Vocabulary) -> Tokens:
        """Both arms of each pair, the true one first."""
        return tokens_from_ids([side.ids for pair in self.pairs for side in (pair.true, pair.false)], vocabulary)

    def told_apart(self, rival: Predicate, texts: Tokens, rule: FiringRule) -> tuple[float, ...]:
        """The bets of the pairs in which a rival is true of both arms or of neither. texts: those of `texts`."""
        if not self.pairs:
            return ()
        at = [side.position for pair in self.pairs for side in (pair.true, pair.false)]
        truth = holds(rival, texts)[np.arange(len(at)), at].reshape(-1, 2)
        kept = np.flatnonzero(truth[:, 0] == truth[:, 1])
        return Answers(tuple(self.pairs[i] for i in kept), self.true[kept], self.false[kept]).scores(rule)

    def bets(self, rule: FiringRule) -> Bets:
        """All bets by the rule."""
        outcomes = self.outcomes(rule)
        tested = sorted({pair.leaf for pair in self.pairs})
        return Bets(
            scores=self.scores(rule),
            wins=int((outcomes > 0).sum()),
            losses=int((outcomes < 0).sum()),
            pairs=len(self.pairs),
            documents=len({pair.document for pair in self.pairs}),
            leaf_e={leaf: e_value(self.scores(rule, {leaf})) for leaf in tested},
        )

    def and_also(self, later: "Answers") -> "Answers":
        """These and later ones."""
        true, false = np.concatenate([self.true, later.true]), np.concatenate([self.false, later.false])
        return Answers(self.pairs + later.pairs, true, false)


@dataclass(frozen=True)
class Enough:
    """When a test needs no more pairs: the e-values of each leaf and of the claim, the pairs of a leaf, or the rounds.

    The verdict rule asks for the default e-values; fewer rounds cost less and prove less. every_leaf: nothing more is spent
    once one leaf cannot reach its e-value any more, with which no claim is SUPPORTED.
    """

    leaf: float = 20.0
    whole: float = 1000.0
    pairs: int = sum(pairs for _, pairs in ROUNDS)
    rounds: int = len(ROUNDS)
    every_leaf: bool = False

    @property
    def share(self) -> float:
        """Of the documents, those of all its rounds."""
        return sum(share for share, _ in ROUNDS[: self.rounds])


class Spent(NamedTuple):
    """The answers of an adaptive test, and the places that gave no pair, by reason."""

    answers: Answers
    discarded: dict[str, int]


def edited_activations(target: TargetModel, unit: Unit, texts: Sequence[EditedText]) -> NDArray[np.float32]:
    """(n,) the unit's activation (its sign applied) at the judged position of each edited text."""
    site, (column,) = columns_of(site_of(target, unit), [unit.index])
    values = np.zeros(len(texts), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: texts[i].position)
    at = 0
    while at < len(order):
        end = at + 1
        while end < len(order) and (end + 1 - at) * (texts[order[end]].position + 1) <= BATCH_TOKENS:
            end += 1
        chosen = order[at:end]
        width = texts[chosen[-1]].position + 1
        ids = torch.zeros(len(chosen), width, dtype=torch.long)
        for row, i in enumerate(chosen):
            part = texts[i].ids[: texts[i].position + 1]
            ids[row, : len(part)] = torch.tensor(part)
        read = target.run(ids, read=[site], stop=site.layer + 1).read[site][:, :, column]
        values[chosen] = read[torch.arange(len(chosen)), [texts[i].position for i in chosen]].float().numpy()
        at = end
    if not np.isfinite(values).all():
        raise ToolFailed(f"{unit.kind} {unit.address} has activations that are not finite on edited text")
    return unit.sign * values


def answers_to(target: TargetModel, unit: Unit, pairs: Sequence[Pair]) -> Answers:
    """The unit's activations on both arms of each pair."""
    values = edited_activations(target, unit, [*(pair.true for pair in pairs), *(pair.false for pair in pairs)])
    return Answers(tuple(pairs), values[: len(pairs)], values[len(pairs) :])


def run_pairs(target: TargetModel, unit: Unit, pairs: Sequence[Pair], rule: FiringRule) -> Bets:
    """The bets of given pairs. Discordant: fires on one arm only (dense units: activations differ by half the spread)."""
    return answers_to(target, unit, pairs).bets(rule)


def spend_pairs(
    target: TargetModel,
    unit: Unit,
    predicate: Predicate,
    source: Source,
    rule: FiringRule,
    *,
    avoid: Predicate | None = None,
    enough: Enough = Enough(),
) -> Spent:
    """Pairs drawn round by round, each round from documents of its own, for the leaves that can still use them.

    A leaf gets no more once its own e-value, that of its mode and that of the claim are reached, or cannot be any more.
    What a round is spent on depends on documents of earlier rounds alone, so that the bets stay a fair game.
    avoid: the strongest rival, which the two arms leave alone where there is a choice.
    """
    answers, discarded = answers_to(target, unit, ()), Counter[str]()
    seen = 0.0
    for share, n_pairs, part in islice(_rounds(predicate, source.tokens), enough.rounds):
        wanted = _in_need(answers, rule, predicate, seen, enough)
        if not wanted:
            break
        here = replace(source, tokens=part)
        limit = min(max(MIN_ROUND_PAIRS, n_pairs // len(wanted)), enough.pairs)
        drawn = [draw_pairs(predicate, here, limit=limit, leaf=leaf, avoid=avoid) for leaf in wanted]
        pairs = [pair for draw in drawn for pair in draw.pairs]
        answers = answers.and_also(answers_to(target, unit, pairs))
        seen += share
        for draw in drawn:
            discarded.update(draw.discarded)
    return Spent(answers, dict(discarded))


def _rounds(predicate: Predicate, tokens: Tokens) -> Iterator[tuple[float, int, Tokens]]:
    """The rounds, each with its share of the text: whole documents, in an order seeded by the predicate's hash."""
    seed = int.from_bytes(hashlib.sha256(b"rounds" + canonical_json(predicate).encode()).digest()[:8], "big")
    documents = np.random.default_rng(seed).permutation(np.unique(tokens.documents))
    ends = np.round(np.cumsum([share for share, _ in ROUNDS]) * len(documents)).astype(int)
    for (share, n_pairs), start, end in zip(ROUNDS, [0, *ends], ends, strict=False):
        if start < end:
            yield share, n_pairs, tokens.select(np.flatnonzero(np.isin(tokens.documents, documents[start:end])))


def _in_need(answers: Answers, rule: FiringRule, predicate: Predicate, seen: float, enough: Enough) -> list[int]:
    """The leaves that the next round is spent on, after a share of the documents."""
    parts = leaves(predicate)
    everything = frozenset(range(len(parts)))
    if not seen:
        return sorted(everything)
    left = (enough.share - seen) / seen  # documents to come for each one that was
    goals = [(frozenset({leaf}), enough.leaf) for leaf in everything]
    modes = predicate.children() if isinstance(predicate, Modes) else ()
    goals += [(frozenset(parts.index(leaf) for leaf in leaves(mode)), enough.whole) for mode in modes]
    hopeless = [of for of, bar in goals if _expected_e(answers, rule, of, left) < bar]
    lost = frozenset[int]().union(*hopeless)
    if lost and enough.every_leaf:
        return []
    if not lost:
        goals.append((everything, enough.whole))  # a claim with a lost leaf can be PARTIAL at most
    wanted = [
        of for of, bar in goals if e_value(answers.scores(rule, of)) < bar <= _expected_e(answers, rule, of, left)
    ]
    used = Counter(pair.leaf for pair in answers.pairs)
    asked = frozenset[int]().union(*wanted) - lost
    return sorted(leaf for leaf in asked if used[leaf] < enough.pairs)


def _expected_e(answers: Answers, rule: FiringRule, of: Collection[int], left: float) -> float:
    """The e-value if the rounds to come told more than those so far by UNSEEN documents, all of it in favour."""
    scores = answers.scores(rule, of)
    return e_value((*scores, *[1.0] * round(left * (len(scores) + UNSEEN))))

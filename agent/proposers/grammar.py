"""The built-in proposer: it searches the hypothesis language on explore text, without a language model."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.base import Explored, Firing, Proposal
from neuronaut.agent.proposers.cases import Case, joined
from neuronaut.agent.proposers.counts import Mask, Tally, Target
from neuronaut.agent.proposers.features import Features
from neuronaut.agent.proposers.finish import finished, fitted_again
from neuronaut.agent.proposers.found import Found
from neuronaut.agent.proposers.lists import lists
from neuronaut.agent.proposers.modes import beginnings, modes_of
from neuronaut.agent.proposers.search import FULL, LIMITS, Effort, Formula, exact, formulas
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import canonical_json, leaves, predicate_from_json
from neuronaut.tools.predicates.words import claim_text
from neuronaut.tools.tokens import Tokens

MIN_SELECTION_F1 = 0.15  # below it no test could carry the claim
SAME_CLAIM = 0.99  # agreement, at places where either holds, of two forms of one claim
FAST_RIVALS = 2  # beside the best
FAST = Effort(
    width=4, depth=2, clauses=2, seeds=1, refitted=1, kept=frozenset({"best", "20 items", "token", "leaf"}), modes=False,
    entries=(2,), skipped=frozenset({"text 6 before", "text 8 before"}),
)  # fmt: skip


def search(
    tokens: Tokens, activations: NDArray[np.floating], rule: Firing, *, budget: int = 4, seed: int = 0
) -> list[Found]:
    """The best predicates of some complexities for one unit's firing, best first, at most `budget`; empty if none.

    Among them is the best that asks for the current token alone. Nothing below MIN_SELECTION_F1 on the selecting
    documents is returned, so that a null unit mostly gives an empty list.
    """
    return _searched(Case.of(tokens, activations, rule, seed), budget=budget)


def _searched(case: Case, *, budget: int, refuted: Sequence[str] = (), effort: Effort = FULL) -> list[Found]:
    if case.fit.fires.sum() < 1 or case.select.fires.sum() < 1:
        return []
    tally = Tally()
    pool = formulas(case.features, case.fit, tally, effort)
    pool.sort(key=lambda formula: -round(formula.score(case.fit), 9))
    for formula in pool[: effort.refitted]:
        pool += [fitted_again(formula, case.features, case.fit, limit, tally) for limit in LIMITS]
    kept: list[tuple[Found, Mask]] = []
    banned = [_mask(predicate_from_json(text), case.features) for text in refuted]
    chosen = _chosen(pool, case.select, effort.kept)
    for formula in chosen:
        final = finished(formula, case.features, case.whole, tally)
        predicate, mask = final.node, final.mask
        if canonical_json(predicate) in refuted or any(_same(mask, other) for other in banned):
            continue
        found = Found.scored(predicate, case.whole.counts(mask), case.select.counts(formula.mask).f1)
        alike = [i for i, (one, other) in enumerate(kept) if _same(mask, other) and exact(one.predicate) == final.exact]
        if alike:
            kept[alike[0]] = min(kept[alike[0]], (found, mask), key=_plainness)
        else:
            kept.append((found, mask))
    starts = beginnings(chosen, pool, case, tally) if effort.modes else []
    several = [modes_of(one, case, tally) for one in starts]
    modes = [one for one in several if one is not None]
    modes.sort(key=lambda one: (-round(one.selection_f1, 2), -len(one.predicate.children())))
    return [*modes[:1], *_ranked([found for found, _ in kept], tally.tried, budget)]


def _plainness(pair: tuple[Found, Mask]) -> tuple[int, int, bool]:
    """Smaller for the simpler form of a claim; a token set goes before other forms of its size, exact before loose."""
    parts = leaves(pair[0].predicate)
    loose = sum(isinstance(part, nodes.Token) and (part.ignore_case or part.ignore_space) for part in parts)
    return pair[0].items, loose, not isinstance(pair[0].predicate, nodes.Token)


def _ranked(found: list[Found], tried: int, budget: int) -> list[Found]:
    """Best first; the best about the current token alone stays, however low, where anything is proposed."""
    if not any(one.selection_f1 >= MIN_SELECTION_F1 for one in found):
        return []
    ordered = sorted(found, key=lambda one: (-round(one.selection_f1, 3), one.items, canonical_json(one.predicate)))
    good = [one for one in ordered if one.selection_f1 >= MIN_SELECTION_F1]
    token = next((one for one in ordered if isinstance(one.predicate, nodes.Token)), None)
    kept = good[:budget]
    if token is not None and token not in kept and budget > 1:
        kept = [*good[: budget - 1], token]
    return [Found(o.predicate, o.f1, o.precision, o.coverage, o.selection_f1, o.items, tried) for o in kept]


def _chosen(pool: list[Formula], select: Target, kinds: Collection[str] | None) -> list[Formula]:
    """The best formula of each complexity on the selecting documents, of single leaves, and of current tokens alone, or of
    some of these kinds."""
    ordered = sorted(
        pool, key=lambda formula: (-round(formula.score(select), 9), formula.cost, canonical_json(formula.node))
    )
    classes = {
        "best": ordered,
        **{f"{limit} items": [formula for formula in ordered if formula.cost <= limit] for limit in (20, 5, 100)},
        "token": [formula for formula in ordered if formula.only_token],
        "leaf": [formula for formula in ordered if len(formula.clauses) == 1 and len(formula.clauses[0].atoms) == 1],
        "clause": [formula for formula in ordered if len(formula.clauses) == 1],
        "exact": [formula for formula in ordered if formula.exact],
    }
    wanted = [some[0] for kind, some in classes.items() if some and (kinds is None or kind in kinds)]
    first = {id(formula): formula for formula in wanted}
    return list(first.values())


def _mask(predicate: Predicate, features: Features) -> Mask:
    return np.asarray(features.at_places(holds(predicate, features.tokens)), dtype=bool)


def _same(one: Mask, other: Mask) -> bool:
    either = int((one | other).sum())
    return either == 0 or int((one & other).sum()) >= SAME_CLAIM * either


class GrammarProposer:
    """Proposes what the search finds: the best predicates at several complexities, with the current-token rival."""

    name = "grammar"

    def __init__(self, max_rivals: int = 5, seed: int = 0) -> None:
        self.max_rivals, self.seed = max_rivals, seed

    def propose(self, explored: Explored) -> list[Proposal]:
        """At most `max_rivals` hypotheses about when the unit fires, best first, then lists of words and tokens; no refuted
        predicate among them."""
        case = Case.of(*joined(explored), explored.rule, self.seed)
        budget, effort = (self.max_rivals, FULL) if explored.pace == "full" else (1 + FAST_RIVALS, FAST)
        found = _searched(case, budget=budget, refuted=explored.refuted, effort=effort)
        if explored.wide is not None:
            listed = {canonical_json(one.predicate): one for one in lists(*explored.wide, explored.rule)}
            known = {canonical_json(one.predicate) for one in found}.union(explored.refuted)
            found += [one for text, one in listed.items() if text not in known]
        return self._proposals(explored, found)

    def _proposals(self, explored: Explored, found: Iterable[Found]) -> list[Proposal]:
        return [
            Proposal(
                side="reads",
                predicate=one.predicate,
                claim=claim_text(one.predicate, sign=explored.unit.sign),
                author=self.name,
                explore_f1=one.f1,
                tried=one.tried,
                precision=one.precision,
                coverage=one.coverage,
                selection_f1=one.selection_f1,
            )
            for one in found
        ]

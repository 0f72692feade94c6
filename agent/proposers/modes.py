"""Units that answer several things: the strongest rule, and weaker ones where it does not hold, each a mode of its own."""

import numpy as np

from neuronaut.agent.proposers.atoms import set_atom
from neuronaut.agent.proposers.cases import Case
from neuronaut.agent.proposers.counts import Tally
from neuronaut.agent.proposers.finish import finished
from neuronaut.agent.proposers.found import Found
from neuronaut.agent.proposers.search import Clause, Formula, formulas
from neuronaut.tools.predicates import nodes

MIN_FIRST_F1 = 0.5  # of the strongest rule, unless it is hardly ever wrong, before weaker ones are looked for
MIN_STRENGTH = 0.25  # of the threshold, for what is left outside the stronger modes
MODE_PRECISION = 0.75
MODE_ADDS = 0.06  # of the firing mass, to the other modes
MODE_COVERAGE = 0.15  # of the firing mass that is left
MOST_MODES = 6
LEAST_KEYS = 3  # louder ones and others of a list
LOUDER = 0.2  # of the threshold above the median, between their means
PURE = 0.85  # precision of a rule that is one mode and not several
MODES_ITEMS = 40  # modes are a few notions, and no long lists


def beginnings(chosen: list[Formula], pool: list[Formula], case: Case, tally: Tally) -> list[Formula]:
    """The rules that may be the strongest mode: the best one; of a list that mixes modes the louder part; and, where the
    best one is often wrong, the best of those that are not."""
    if not chosen:
        return []
    first = finished(chosen[0], case.features, case.whole, tally)
    found = [first, *_louder(first, case)]
    if case.select.counts(chosen[0].mask).precision < PURE:
        pure = [one for one in pool if case.select.counts(one.mask).precision >= PURE]
        best = sorted(pure, key=lambda one: -one.score(case.select))[:1]
        found += [finished(one, case.features, case.whole, tally) for one in best]
    return found


def _louder(first: Formula, case: Case) -> list[Formula]:
    """The keys of a rule's longest list at which the unit is clearly louder than at the others, as a rule of its own; none
    where they are all alike, or where there is no list."""
    atoms = [clause.atoms[0] for clause in first.clauses if len(clause.atoms) == 1]
    atom = max((one for one in atoms if one.keys and not one.negated), key=lambda one: len(one.keys), default=None)
    if atom is None:
        return []
    family, keys = case.features.families[atom.family], np.array(atom.keys)
    places = [case.values[(family.keys == key) & (case.whole.fires > 0)] for key in keys]
    times = np.array([len(values) for values in places], dtype=np.float64)
    strengths = np.array([np.median(values) if len(values) else -np.inf for values in places])
    order = np.argsort(-strengths)
    order = order[times[order] > 0]
    if len(order) < 2 * LEAST_KEYS:
        return []
    weight, sums = np.cumsum(times[order]), np.cumsum((times * np.where(times > 0, strengths, 0.0))[order])
    high, low = sums[:-1] / weight[:-1], (sums[-1] - sums[:-1]) / (weight[-1] - weight[:-1])
    apart = weight[:-1] * (weight[-1] - weight[:-1]) * (high - low) ** 2  # variance between them (Otsu 1979)
    at = LEAST_KEYS + int(np.argmax(apart[LEAST_KEYS - 1 : len(order) - LEAST_KEYS]))
    if high[at - 1] - low[at - 1] < LOUDER * case.height:
        return []
    loud = set_atom(family, keys[order[:at]])
    return [Formula.of([Clause.of([loud])])]


def modes_of(first: Formula, case: Case, tally: Tally) -> Found | None:
    """The strongest rule with the weaker ones that hold where it does not, each a mode of its own; None where there are
    none. Scored by the threshold of the weakest."""
    counts = case.select.counts(first.mask)
    if (counts.f1 < MIN_FIRST_F1 and counts.precision < PURE) or first.cost > MODES_ITEMS:
        return None
    clauses, covered = list(first.clauses), first.mask
    loud = case.values > case.rule.threshold  # what fires unexplained hides weaker modes
    while len(clauses) < MOST_MODES:
        more = _weaker(case.outside(covered), case, tally) or _weaker(case.outside(covered | loud), case, tally)
        if not more:
            break
        clauses += more
        if sum(clause.cost for clause in clauses) > MODES_ITEMS:
            return None
        covered = covered | Formula.of(more).mask
    strengths = {clause: float(np.median(case.values[clause.mask])) - case.rule.median for clause in clauses}
    modes = sorted((clause for clause in clauses if strengths[clause] > 0), key=lambda clause: -strengths[clause])
    lowered = case.lowered(case.rule.median + min(strengths.values()) / 2)
    modes = _telling(modes[:MOST_MODES], lowered)
    if len(modes) < 2 or not set(modes) - set(first.clauses):
        return None
    relative = {clause: max(round(strengths[clause] / strengths[modes[0]], 2), 0.01) for clause in modes}
    node = nodes.Modes(of=tuple(nodes.Mode(predicate=clause.node, strength=relative[clause]) for clause in modes))
    mask = Formula.of(modes).mask
    return Found.scored(node, lowered.whole.counts(mask), lowered.select.counts(mask).f1)


def _weaker(left: Case | None, case: Case, tally: Tally) -> list[Clause]:
    """The modes that stand out in what is left of a unit."""
    if left is None or left.height < MIN_STRENGTH * case.height:
        return []
    best = max(formulas(left.features, left.fit, tally), key=lambda one: one.score(left.select), default=None)
    return (
        []
        if best is None
        else [clause for clause in finished(best, left.features, left.whole, tally).clauses if _is_mode(clause, left)]
    )


def _telling(modes: list[Clause], case: Case) -> list[Clause]:
    """The modes without those that add too little of the firing to the others, the least telling first."""
    kept = list(modes)
    while len(kept) > 1:
        whole = case.whole.counts(Formula.of(kept).mask).mass
        added = [whole - case.whole.counts(Formula.of([o for o in kept if o is not one]).mask).mass for one in kept]
        least = int(np.argmin(added))
        if added[least] >= MODE_ADDS:
            break
        del kept[least]
    return kept


def _is_mode(clause: Clause, weaker: Case) -> bool:
    """Whether a clause is right where it speaks and says much of what is left, on the selecting documents."""
    counts = weaker.select.counts(clause.mask)
    return counts.precision >= MODE_PRECISION and counts.mass >= MODE_COVERAGE

"""A formula that the search grew, made lean: without idle parts and wrong keys, its sets chosen anew on all text."""

import numpy as np

from neuronaut.agent.proposers.atoms import best_sets, right_keys, set_atom
from neuronaut.agent.proposers.counts import Inside, Tally, Target
from neuronaut.agent.proposers.features import Features
from neuronaut.agent.proposers.search import LIMITS, MIN_GAIN, Beam, Clause, Formula

KEY_RATE = 0.4  # share of a key's places that must fire


def finished(formula: Formula, features: Features, target: Target, tally: Tally) -> Formula:
    """The formula without idle parts and wrong keys, its sets fitted on all of `target` where that is no worse there."""
    lean = pruned(formula, target)
    limit = next(limit for limit in (*LIMITS, max(LIMITS)) if _largest(lean) <= limit or limit == max(LIMITS))
    again = fitted_again(lean, features, target, limit, tally)
    return cleaned(again if again.score(target) >= lean.score(target) else lean, features, target)


def _largest(formula: Formula) -> int:
    return max(len(atom.keys) for clause in formula.clauses for atom in clause.atoms)


def pruned(formula: Formula, target: Target) -> Formula:
    """The formula without the clauses and atoms that bring less than MIN_GAIN of F1."""
    best = formula
    while True:
        f1 = target.counts(best.mask).f1
        smaller = [candidate for candidate in _smaller(best) if target.counts(candidate.mask).f1 > f1 - MIN_GAIN]
        if not smaller:
            return best
        best = max(smaller, key=lambda candidate: (target.counts(candidate.mask).f1, -candidate.cost))


def cleaned(formula: Formula, features: Features, target: Target) -> Formula:
    """The formula without the keys at which it is mostly wrong, set by set where that costs less than MIN_GAIN of F1."""
    best = formula
    for number, clause in enumerate(formula.clauses):
        for at, atom in enumerate(clause.atoms):
            if not atom.family or atom.negated:
                continue
            family = features.families[atom.family]
            right = right_keys(family, Inside.of(best.clauses[number].mask, target), KEY_RATE)
            kept = np.intersect1d(right, atom.keys)
            if not 0 < len(kept) < len(atom.keys):
                continue
            atoms = (*best.clauses[number].atoms[:at], set_atom(family, kept), *best.clauses[number].atoms[at + 1 :])
            candidate = Formula.of([*best.clauses[:number], Clause.of(atoms), *best.clauses[number + 1 :]])
            if target.counts(candidate.mask).f1 > target.counts(best.mask).f1 - MIN_GAIN:
                best = candidate
    return best


def _smaller(formula: Formula) -> list[Formula]:
    """The formulas that lack one clause or one atom."""
    found = []
    for at, clause in enumerate(formula.clauses):
        others = [other for i, other in enumerate(formula.clauses) if i != at]
        if others:
            found.append(Formula.of(others))
        for drop in range(len(clause.atoms) if len(clause.atoms) > 1 else 0):
            atoms = clause.atoms[:drop] + clause.atoms[drop + 1 :]
            found.append(Formula.of([*formula.clauses[:at], Clause.of(atoms), *formula.clauses[at + 1 :]]))
    return found


def fitted_again(formula: Formula, features: Features, target: Target, limit: int, tally: Tally) -> Formula:
    """The formula with its sets chosen anew on `target`, each clause beside the others, at most `limit` keys a set."""
    clauses = list(formula.clauses)
    for at, clause in enumerate(clauses):
        others = [other.mask for i, other in enumerate(clauses) if i != at]
        covered = np.logical_or.reduce(others) if others else np.zeros(len(features), dtype=bool)
        beam = Beam(features, target.without(covered), target.counts(covered), tally)
        clauses[at] = beam.fitted_again(_cut(clause, features, limit, beam), (limit,))
    return Formula.of(clauses)


def _cut(clause: Clause, features: Features, limit: int, beam: Beam) -> Clause:
    """The clause with each set of more than `limit` keys replaced by the best one within it."""
    atoms = list(clause.atoms)
    for at, atom in enumerate(atoms):
        if atom.family and not atom.negated and len(atom.keys) > limit:
            others = np.logical_and.reduce(
                [np.ones(len(features), dtype=bool), *(o.mask for o in atoms[:at] + atoms[at + 1 :])]
            )
            inside = Inside.of(others, beam.target)
            sets = best_sets(features.families[atom.family], inside, (limit,), beside=beam.beside, tally=beam.tally)
            atoms[at] = next(iter(sets), atom)
    return Clause.of(atoms)

"""Beam search over conjunctions of leaves and their unions, scored by F1 against the firing less a price per item."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.atoms import (
    ITEM_PENALTY,
    Atom,
    Counts,
    Mask,
    Tally,
    Target,
    best_exclusion,
    best_range,
    best_sets,
)
from neuronaut.agent.proposers.contexts import context_atoms, within_atoms
from neuronaut.agent.proposers.features import Features
from neuronaut.tools.predicates import nodes, tree
from neuronaut.tools.predicates.nodes import Predicate

LIMITS = (4, 19, 99)  # keys: of a leaf of 5, 20 and 100 items
TOKEN_FAMILIES = ("token", "loose token")
MIN_GAIN = 0.03  # F1 on explore that a leaf or a clause must bring
_ALIKE = 1  # states of a beam that may be about the same
_EXCLUDED_BY = ("token", "loose token", "token 1 before")
_FLAGS_TRIED = 4
_MAX_CLAUSES = 4
_PRECISE = 0.8


def _spliced(node: Predicate, kind: type[nodes.AllOf] | type[nodes.AnyOf]) -> tuple[Predicate, ...]:
    """The parts of a node of that kind, else the node alone."""
    return node.of if isinstance(node, kind) else (node,)


@dataclass(frozen=True)
class Clause:
    """A conjunction of atoms with its (n_places,) mask."""

    atoms: tuple[Atom, ...]
    mask: Mask = field(repr=False, compare=False)

    @property
    def cost(self) -> int:
        """Items of its complexity."""
        return sum(atom.cost for atom in self.atoms)

    @property
    def label(self) -> tuple[object, ...]:
        """Equal for clauses of the same atoms in any order."""
        return tuple(sorted((atom.label for atom in self.atoms), key=repr))

    @property
    def node(self) -> Predicate:
        """The predicate of the conjunction."""
        parts = tuple(part for atom in self.atoms for part in _spliced(atom.node, nodes.AllOf))
        return parts[0] if len(parts) == 1 else nodes.AllOf(of=parts)

    def and_also(self, atom: Atom) -> "Clause":
        """The conjunction with one more atom."""
        return Clause((*self.atoms, atom), self.mask & atom.mask)


def exact(predicate: Predicate) -> bool:
    """Whether a predicate names tokens and words; a pattern also fits others, which the text may not hold."""
    return not any(isinstance(part, nodes.TokenMatches | nodes.WordMatches) for part in tree.walk(predicate))


@dataclass(frozen=True)
class Formula:
    """A union of clauses: what the search compares, and in the end hands out."""

    clauses: tuple[Clause, ...]
    mask: Mask = field(repr=False, compare=False)

    @classmethod
    def of(cls, clauses: Iterable[Clause]) -> "Formula":
        """The union of some clauses."""
        parts = tuple(clauses)
        return cls(parts, np.logical_or.reduce([clause.mask for clause in parts]))

    @property
    def cost(self) -> int:
        """Items of its complexity."""
        return sum(clause.cost for clause in self.clauses)

    @property
    def node(self) -> Predicate:
        """The predicate of the union."""
        parts = tuple(part for clause in self.clauses for part in _spliced(clause.node, nodes.AnyOf))
        return parts[0] if len(parts) == 1 else nodes.AnyOf(of=parts)

    @property
    def only_token(self) -> bool:
        """Whether it asks for the current token and nothing else."""
        atoms = [atom for clause in self.clauses for atom in clause.atoms]
        return len(atoms) == 1 and atoms[0].family in TOKEN_FAMILIES and not atoms[0].negated

    @property
    def exact(self) -> bool:
        """Whether it names tokens and words, and no pattern."""
        return exact(self.node)

    def score(self, target: Target) -> float:
        """F1 less the price of its items."""
        return target.counts(self.mask).f1 - ITEM_PENALTY * self.cost


@dataclass(frozen=True)
class Beam:
    """A search for clauses beside what is covered already. target: without the covered places."""

    features: Features
    target: Target
    beside: Counts
    tally: Tally
    width: int = 8
    depth: int = 3

    def clauses(self) -> list[Clause]:
        """Every clause that stood in the beam, best first."""
        kept: list[Clause] = []
        states = [Clause((), np.ones(len(self.features), dtype=bool))]
        for _ in range(self.depth):
            states = self._best(clause for state in states for clause in self._extended(state))
            states = self._best([*states, *(self.fitted_again(state) for state in states if len(state.atoms) > 1)])
            if not states:
                break
            kept += states
        return sorted(kept, key=self._rank)

    def score(self, clause: Clause) -> float:
        """F1 of the union with what is covered, less the price of the clause."""
        return self.target.counts(clause.mask).plus(self.beside).f1 - ITEM_PENALTY * clause.cost

    def _rank(self, clause: Clause) -> tuple[float, str]:
        return -round(self.score(clause), 9), repr(clause.label)

    def _best(self, clauses: Iterable[Clause]) -> list[Clause]:
        """The `width` best of different clauses, at most _ALIKE of them about the same families."""
        unique = {clause.label: clause for clause in clauses if clause.mask.any()}
        kept: list[Clause] = []
        alike: dict[frozenset[str], int] = {}
        for clause in sorted(unique.values(), key=self._rank):
            families = frozenset(_group(atom) for atom in clause.atoms)
            if alike.get(families, 0) < _ALIKE:
                alike[families] = alike.get(families, 0) + 1
                kept.append(clause)
            if len(kept) == self.width:
                break
        return kept

    def _extended(self, state: Clause) -> list[Clause]:
        """The clause with each of the best further atoms that bring anything."""
        longer = [state.and_also(atom) for atom in self._atoms(state)]
        least = self.score(state) if state.atoms else 0.0
        return [clause for clause in longer if self.score(clause) > least]

    def _atoms(self, state: Clause) -> list[Atom]:
        inside = np.flatnonzero(state.mask & (self.target.counted > 0))
        if not len(inside) or not self.target.fires[inside].any():
            return []
        used = {atom.family for atom in state.atoms}
        atoms: list[Atom] = []
        for name, family in self.features.families.items():
            if name not in used:
                atoms += best_sets(family, inside, self.target, LIMITS, beside=self.beside, tally=self.tally)
        if state.atoms:
            for name in _EXCLUDED_BY:
                atoms += best_exclusion(
                    self.features.families[name], inside, self.target, beside=self.beside, tally=self.tally
                )
        if not any(isinstance(atom.node, nodes.Position) for atom in state.atoms):
            atoms += best_range(self.features, inside, self.target, beside=self.beside, tally=self.tally)
        if len(state.atoms) < 2:
            atoms += context_atoms(self.features, inside, self.target, beside=self.beside, tally=self.tally)
        return atoms + self._flags(state)

    def _flags(self, state: Clause) -> list[Atom]:
        """The marks, and the marks denied, that score best inside the clause."""
        flags = self.features.flags
        if not flags:
            return []
        weights = [weight * state.mask for weight in (self.target.counted, self.target.fires, self.target.mass)]
        inside = self.features.flag_matrix @ np.stack(weights, axis=1).astype(np.float32)
        both = np.concatenate([inside, np.stack([weight.sum() for weight in weights]) - inside])
        sums = [Counts(*row).plus(self.beside).f1 for row in both.astype(np.float64).tolist()]
        self.tally.tried += len(sums)
        order = np.argsort(-np.asarray(sums), kind="stable")[:_FLAGS_TRIED].tolist()
        atoms = []
        for at in order:
            flag, negated = flags[at % len(flags)], at >= len(flags)
            node = nodes.Not(inner=flag.node) if negated else flag.node
            atoms.append(Atom(node, ~flag.mask if negated else flag.mask, flag.cost + negated))
        return atoms

    def _like(self, atom: Atom, inside: NDArray[np.intp], limits: tuple[int, ...]) -> list[Atom]:
        """Atoms of the same kind with the parameters that are best inside a mask; none for an atom without parameters."""
        features, family = self.features, self.features.families.get(atom.family)
        if family is not None and atom.negated:
            return best_exclusion(family, inside, self.target, beside=self.beside, tally=self.tally)
        if family is not None:
            return best_sets(family, inside, self.target, limits, beside=self.beside, tally=self.tally)
        if isinstance(atom.node, nodes.Position):
            return best_range(features, inside, self.target, beside=self.beside, tally=self.tally)
        if isinstance(atom.node, nodes.Within) and len(inside):
            return within_atoms(features, inside, self.target, beside=self.beside, tally=self.tally)
        return []

    def fitted_again(self, clause: Clause, limits: tuple[int, ...] = (20,), rounds: int = 2) -> Clause:
        """The clause after its sets were chosen anew, each given the others, as long as the score rises."""
        best = clause
        for _ in range(rounds):
            before = best
            for at, atom in enumerate(best.atoms):
                others = [other for i, other in enumerate(best.atoms) if i != at]
                mask = np.logical_and.reduce([np.ones(len(self.features), dtype=bool), *(o.mask for o in others)])
                found = self._like(atom, np.flatnonzero(mask & (self.target.counted > 0)), limits)
                for new in found:
                    candidate = Clause((*best.atoms[:at], new, *best.atoms[at + 1 :]), mask & new.mask)
                    if self.score(candidate) > self.score(best) + 1e-9:
                        best = candidate
            if best is before:
                break
        return best


def _group(atom: Atom) -> str:
    """What an atom is about: families that mostly say the same in other forms are one group."""
    if atom.family:
        return re.sub(r"^loose | \d+$|^(text) \d+", r"\1", atom.family)
    inner = atom.node.inner if isinstance(atom.node, nodes.Not | nodes.At) else atom.node
    return f"{atom.node.kind} {inner.kind}"


def formulas(features: Features, target: Target, tally: Tally) -> list[Formula]:
    """Single clauses, and the unions that grow from the best of them; fitted to `target`."""
    single = Beam(features, target, Counts(), tally).clauses()
    found = [*tokens_alone(features, target, tally), *(Formula.of([clause]) for clause in single)]
    for seed in _seeds(single, target):
        chosen = [seed]
        while len(chosen) < _MAX_CLAUSES:
            whole = Formula.of(chosen)
            left = target.without(whole.mask).alone()
            more = Beam(features, left, Counts(), tally, depth=2).clauses()
            unions = [Formula.of([*chosen, clause]) for clause in more]
            best = max(unions, key=lambda union: union.score(target), default=whole)
            if target.counts(best.mask).f1 < target.counts(whole.mask).f1 + MIN_GAIN:
                break
            chosen = list(best.clauses)
            found.append(best)
    return found


def tokens_alone(features: Features, target: Target, tally: Tally) -> list[Formula]:
    """The best sets of current tokens, the rival that every claim must beat."""
    inside = np.flatnonzero(target.counted > 0)
    sets = (
        best_sets(features.families[name], inside, target, LIMITS, beside=Counts(), tally=tally)
        for name in TOKEN_FAMILIES
    )
    return [Formula.of([Clause((atom,), atom.mask)]) for atoms in sets for atom in atoms]


def _seeds(clauses: list[Clause], target: Target) -> list[Clause]:
    """The clauses from which unions grow: the best, and the best of those that are right where they hold."""
    precise = [clause for clause in clauses if target.counts(clause.mask).precision >= _PRECISE]
    return clauses[:1] + [clause for clause in precise[:1] if clause is not clauses[0]]

"""Beam search over conjunctions of leaves and their unions, scored by F1 against the firing less a price per item."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from neuronaut.agent.proposers.atoms import ITEM_PENALTY, Atom, Leaf, Scored, best_exclusion, best_range, best_sets
from neuronaut.agent.proposers.contexts import context_atoms, within_atoms
from neuronaut.agent.proposers.counts import Counts, Inside, Mask, Tally, Target, f1_of, packed, sizes
from neuronaut.agent.proposers.features import Features
from neuronaut.tools.predicates import nodes, tree
from neuronaut.tools.predicates.nodes import Predicate

LIMITS = (4, 19, 99)  # keys: of a leaf of 5, 20 and 100 items
TOKEN_FAMILIES = ("token", "loose token")
MIN_GAIN = 0.03  # F1 on explore that a leaf or a clause must bring
_ALIKE = 1  # states of a beam that may be about the same
_EXCLUDED_BY = ("token", "loose token", "token 1 before")
_FLAGS_TRIED = 4
_PRECISE = 0.8


@dataclass(frozen=True)
class Effort:
    """How far the search goes.

    width, depth: states of a beam, atoms of a clause. clauses: of a union; seeds: clauses from which unions grow. refitted:
    formulas whose sets are chosen anew at every size. kept: of which kinds the best formula is made lean; all where None.
    entries: limits of tables of pairs, each of which is two leaves. skipped: families that are left out. modes: whether
    weaker rules are looked for where the strongest does not hold.
    """

    width: int = 8
    depth: int = 3
    clauses: int = 4
    seeds: int = 2
    refitted: int = 6
    kept: frozenset[str] | None = None
    modes: bool = True
    entries: tuple[int, ...] = LIMITS
    skipped: frozenset[str] = frozenset()


FULL = Effort()


def _spliced(node: Predicate, kind: type[nodes.AllOf] | type[nodes.AnyOf]) -> tuple[Predicate, ...]:
    """The parts of a node of that kind, else the node alone."""
    return node.of if isinstance(node, kind) else (node,)


@dataclass(frozen=True)
class Clause:
    """A conjunction of atoms. where: (n_places,) places among which it holds where its last atom does."""

    atoms: tuple[Atom, ...]
    where: Mask = field(repr=False, compare=False)

    @classmethod
    def of(cls, atoms: Iterable[Atom]) -> "Clause":
        """The conjunction of some atoms, one or more."""
        parts = tuple(atoms)
        return cls(parts, np.logical_and.reduce([atom.mask for atom in parts]))

    @cached_property
    def mask(self) -> Mask:
        """(n_places,) where it holds; made when it is asked for."""
        return self.where & self.atoms[-1].mask if self.atoms else self.where

    @property
    def cost(self) -> int:
        """Items of its complexity."""
        return sum(atom.cost for atom in self.atoms)

    @cached_property
    def label(self) -> str:
        """Equal for clauses of the same atoms in any order."""
        labels = sorted(atom.label for atom in self.atoms)
        return f"({', '.join(labels)}{',' * (len(labels) == 1)})"

    @property
    def node(self) -> Predicate:
        """The predicate of the conjunction."""
        parts = tuple(part for atom in self.atoms for part in _spliced(atom.node, nodes.AllOf))
        return parts[0] if len(parts) == 1 else nodes.AllOf(of=parts)

    def and_also(self, atom: Atom) -> "Clause":
        """The conjunction with one more atom."""
        return Clause((*self.atoms, atom), self.mask)


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
    effort: Effort = FULL
    depth: int = FULL.depth
    known: dict[str, float] = field(default_factory=dict, repr=False)  # scores by label

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
        if clause.label not in self.known:
            self._note(clause, self.target.counts(clause.mask))
        return self.known[clause.label]

    def _note(self, clause: Clause, counts: Counts) -> None:
        """Remembers the score of a clause by what it finds."""
        self.known.setdefault(clause.label, counts.plus(self.beside).f1 - ITEM_PENALTY * clause.cost)

    def _rank(self, clause: Clause) -> tuple[float, str]:
        return -round(self.score(clause), 9), clause.label

    def _best(self, clauses: Iterable[Clause]) -> list[Clause]:
        """The `width` best of different clauses, at most _ALIKE of them about the same families."""
        unique = {clause.label: clause for clause in clauses}
        kept: list[Clause] = []
        alike: dict[frozenset[str], int] = {}
        for clause in sorted(unique.values(), key=self._rank):
            families = frozenset(_group(atom) for atom in clause.atoms)
            if alike.get(families, 0) < _ALIKE:
                alike[families] = alike.get(families, 0) + 1
                kept.append(clause)
            if len(kept) == self.effort.width:
                break
        return kept

    def _extended(self, state: Clause) -> list[Clause]:
        """The clause with each of the best further atoms that bring anything."""
        least, longer = self.score(state) if state.atoms else 0.0, []
        for atom, counts in self._atoms(state).items():
            clause = state.and_also(atom)
            self._note(clause, counts)
            if self.score(clause) > least:
                longer.append(clause)
        return longer

    def _atoms(self, state: Clause) -> Scored:
        inside = Inside.of(state.mask, self.target)
        if not len(inside.firing):
            return {}
        used = {atom.family for atom in state.atoms}
        atoms: Scored = {}
        for name, family in self.features.families.items():
            if name not in used and name not in self.effort.skipped:
                limits = self.effort.entries if name == "pair" else LIMITS
                atoms |= best_sets(family, inside, limits, beside=self.beside, tally=self.tally)
        if state.atoms:
            for name in _EXCLUDED_BY:
                atoms |= best_exclusion(self.features.families[name], inside, beside=self.beside, tally=self.tally)
        if not any(isinstance(atom, Leaf) and isinstance(atom.node, nodes.Position) for atom in state.atoms):
            atoms |= best_range(self.features, inside, beside=self.beside, tally=self.tally)
        if len(state.atoms) < 2:
            atoms |= context_atoms(self.features, inside, beside=self.beside, tally=self.tally)
        return atoms | self._flags(state, inside)

    def _flags(self, state: Clause, inside: Inside) -> Scored:
        """The marks, and the marks denied, that score best inside the clause."""
        features, flags = self.features, self.features.flags
        if not flags:
            return {}
        fire = features.flag_masks[:, inside.firing]
        places = sizes(features.flag_words & packed(state.mask & self.target.among)).astype(np.float64)
        own = np.stack([places, fire.sum(axis=1, dtype=np.float64), fire @ inside.mass], axis=1)
        whole = np.array([inside.whole.places, inside.whole.fires, inside.whole.mass])
        both = np.concatenate([own, whole - own])
        beside = self.beside
        scores = f1_of(both[:, 0] + beside.places, both[:, 1] + beside.fires, both[:, 2] + beside.mass)
        self.tally.tried += len(scores)
        atoms: Scored = {}
        for at in np.argsort(-scores, kind="stable")[:_FLAGS_TRIED].tolist():
            flag, negated = flags[at % len(flags)], at >= len(flags)
            node = nodes.Not(inner=flag.node) if negated else flag.node
            atoms[Leaf(node, flag.cost + negated, flag.denied if negated else flag.held)] = Counts(*both[at].tolist())
        return atoms

    def _like(self, atom: Atom, inside: Inside, limits: tuple[int, ...]) -> Scored:
        """Atoms of the same kind with the parameters that are best inside a mask; none for an atom without parameters."""
        features, family = self.features, self.features.families.get(atom.family)
        if family is not None and atom.negated:
            return best_exclusion(family, inside, beside=self.beside, tally=self.tally)
        if family is not None:
            return best_sets(family, inside, limits, beside=self.beside, tally=self.tally)
        if isinstance(atom.node, nodes.Position):
            return best_range(features, inside, beside=self.beside, tally=self.tally)
        if isinstance(atom.node, nodes.Within) and len(inside.places):
            return within_atoms(features, inside, beside=self.beside, tally=self.tally)
        return {}

    def fitted_again(self, clause: Clause, limits: tuple[int, ...] = (20,), rounds: int = 2) -> Clause:
        """The clause after its sets were chosen anew, each given the others, as long as the score rises."""
        best = clause
        for _ in range(rounds):
            before = best
            for at, atom in enumerate(best.atoms):
                others = [other for i, other in enumerate(best.atoms) if i != at]
                mask = np.logical_and.reduce([np.ones(len(self.features), dtype=bool), *(o.mask for o in others)])
                for new, counts in self._like(atom, Inside.of(mask, self.target), limits).items():
                    candidate = Clause((*best.atoms[:at], new, *best.atoms[at + 1 :]), mask)
                    self._note(candidate, counts)
                    if self.score(candidate) > self.score(best) + 1e-9:
                        best = Clause(candidate.atoms, mask & new.mask)
            if best is before:
                break
        return best


def _group(atom: Atom) -> str:
    """What an atom is about: families that mostly say the same in other forms are one group."""
    if atom.family:
        return re.sub(r"^loose | \d+$|^(text) \d+", r"\1", atom.family)
    inner = atom.node.inner if isinstance(atom.node, nodes.Not | nodes.At) else atom.node
    return f"{atom.node.kind} {inner.kind}"


def formulas(features: Features, target: Target, tally: Tally, effort: Effort = FULL) -> list[Formula]:
    """Single clauses, and the unions that grow from the best of them; fitted to `target`."""
    single = Beam(features, target, Counts(), tally, effort, effort.depth).clauses()
    found = [*tokens_alone(features, target, tally), *(Formula.of([clause]) for clause in single)]
    for seed in _seeds(single, target)[: effort.seeds]:
        chosen = [seed]
        while len(chosen) < effort.clauses:
            whole = Formula.of(chosen)
            left = target.without(whole.mask).alone()
            more = Beam(features, left, Counts(), tally, effort, min(2, effort.depth)).clauses()
            unions = [Formula.of([*chosen, clause]) for clause in more]
            best = max(unions, key=lambda union: union.score(target), default=whole)
            if target.counts(best.mask).f1 < target.counts(whole.mask).f1 + MIN_GAIN:
                break
            chosen = list(best.clauses)
            found.append(best)
    return found


def tokens_alone(features: Features, target: Target, tally: Tally) -> list[Formula]:
    """The best sets of current tokens, the rival that every claim must beat."""
    inside = Inside.of(np.ones(len(features), dtype=bool), target)
    sets = (best_sets(features.families[name], inside, LIMITS, beside=Counts(), tally=tally) for name in TOKEN_FAMILIES)
    return [Formula.of([Clause.of([atom])]) for atoms in sets for atom in atoms]


def _seeds(clauses: list[Clause], target: Target) -> list[Clause]:
    """The clauses from which unions grow: the best, and the best of those that are right where they hold."""
    precise = [clause for clause in clauses if target.counts(clause.mask).precision >= _PRECISE]
    return clauses[:1] + [clause for clause in precise[:1] if clause is not clauses[0]]

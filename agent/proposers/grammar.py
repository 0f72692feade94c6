"""The built-in proposer: it searches the hypothesis language on explore text, without a language model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.atoms import Counts, Floats, Mask, Tally, Target, set_atom
from neuronaut.agent.proposers.base import Explored, Firing, Proposal
from neuronaut.agent.proposers.features import Family, Features
from neuronaut.agent.proposers.search import (
    LIMITS,
    MIN_GAIN,
    Clause,
    Formula,
    cleaned,
    exact,
    fitted_again,
    formulas,
    pruned,
)
from neuronaut.agent.proposers.tables import FOLDS, Counted, Table, best_tables
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate, canonical_json, complexity, leaves, predicate_from_json
from neuronaut.tools.predicates.words import claim_text
from neuronaut.tools.tokens import PAD, Tokens

MIN_SELECTION_F1 = 0.15  # below it no test could carry the claim
SELECTED_ON = 0.4  # share of the explore documents that only select
SAME_CLAIM = 0.99  # agreement, at places where either holds, of two forms of one claim
MAX_PLACES = 90_000  # tokens searched; of more text whole documents are left out by lot
_REFITTED = 6
TOP_DOCUMENTS = 20  # as in the firing rule
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
LIST_SIZES = (5, 20, 100)  # items
MIN_MARGIN = 0.8  # of the precision and of the coverage that a SUPPORTED claim needs


@dataclass(frozen=True)
class Found:
    """A predicate that the search ended with, scored on explore text.

    f1, precision, coverage: on all of it. selection_f1: on the documents that it was not fitted on. tried: predicates
    scored by the whole search.
    """

    predicate: Predicate
    f1: float
    precision: float
    coverage: float
    selection_f1: float
    items: int
    tried: int


def search(
    tokens: Tokens, activations: NDArray[np.floating], rule: Firing, *, budget: int = 4, seed: int = 0
) -> list[Found]:
    """The best predicates of some complexities for one unit's firing, best first, at most `budget`; empty if none.

    Among them is the best that asks for the current token alone. Nothing below MIN_SELECTION_F1 on the selecting
    documents is returned, so that a null unit mostly gives an empty list.
    """
    return _searched(_Case.of(tokens, activations, rule, seed), budget=budget)


@dataclass(frozen=True)
class _Case:
    """One unit on one text: what to fit on, what to select on, and both together.

    values: (n_places,) activations. selecting: places of the documents that only select.
    """

    features: Features
    values: Floats
    selecting: Mask
    rule: Firing
    fit: Target
    select: Target
    whole: Target

    @classmethod
    def of(cls, tokens: Tokens, activations: NDArray[np.floating], rule: Firing, seed: int) -> "_Case":
        kept = _drawn(tokens, seed)
        if len(kept) < len(tokens):
            tokens = _narrowed(tokens, kept)
            activations = activations[kept][:, : tokens.ids.shape[1]]
        features = Features.of(tokens)
        values = np.asarray(features.at_places(activations), dtype=np.float64)
        documents = features.documents
        order = np.random.default_rng(seed).permutation(int(documents.max(initial=-1)) + 1)
        selecting: Mask = (order < SELECTED_ON * len(order))[documents]
        return cls._by(features, values, selecting, rule, np.ones(len(values), dtype=bool))

    @classmethod
    def _by(cls, features: Features, values: Floats, selecting: Mask, rule: Firing, among: Mask) -> "_Case":
        fit, select, whole = (
            Target.of(values, features.documents, rule.threshold, rule.median, among=part & among)
            for part in (~selecting, selecting, np.ones_like(selecting))
        )
        return cls(features, values, selecting, rule, fit, select, whole)

    @property
    def height(self) -> float:
        """The threshold above the median."""
        return self.rule.threshold - self.rule.median

    def outside(self, covered: Mask) -> "_Case | None":
        """The same unit where nothing covered counts, by the firing rule of what is left; None where nothing stands out."""
        left = np.where(covered, -np.inf, self.values)
        maxima = np.full(int(self.features.documents.max(initial=-1)) + 1, -np.inf)
        np.maximum.at(maxima, self.features.documents, left)
        top = float(np.median(np.sort(maxima)[::-1][:TOP_DOCUMENTS]))
        if not np.isfinite(top) or top <= self.rule.median:
            return None
        rule = Level(self.rule.median + (top - self.rule.median) / 2, self.rule.median)
        case = self._by(self.features, self.values, self.selecting, rule, ~covered)
        return case if case.fit.fires.sum() >= TOP_DOCUMENTS and case.select.fires.sum() >= 1 else None

    def lowered(self, threshold: float) -> "_Case":
        """The same unit by a lower threshold."""
        rule = Level(min(threshold, self.rule.threshold), self.rule.median)
        return self._by(self.features, self.values, self.selecting, rule, np.ones_like(self.selecting))


@dataclass(frozen=True)
class Level:
    """A firing rule made on the way."""

    threshold: float
    median: float


_NARROWED: dict[tuple[int, bytes], tuple[Tokens, Tokens]] = {}


def _narrowed(tokens: Tokens, windows: NDArray[np.intp]) -> Tokens:
    """The named windows; the same object for the same question, so that its features are computed once."""
    key = (id(tokens), windows.tobytes())
    known = _NARROWED.get(key)
    if known is None or known[0] is not tokens:
        _NARROWED.clear()
        known = _NARROWED[key] = (tokens, tokens.select(windows))
    return known[1]


def _drawn(tokens: Tokens, seed: int) -> NDArray[np.intp]:
    """The windows of documents drawn by lot until MAX_PLACES tokens are reached, in their order."""
    _, codes = np.unique(tokens.documents, return_inverse=True)
    sizes = np.bincount(codes, weights=tokens.scored.sum(axis=1))
    order = np.random.default_rng(seed + 1).permutation(len(sizes))
    kept = order[np.concatenate([[0.0], np.cumsum(sizes[order])[:-1]]) < MAX_PLACES]
    return np.flatnonzero(np.isin(codes, kept))


def _searched(case: _Case, *, budget: int, refuted: Sequence[str] = ()) -> list[Found]:
    if case.fit.fires.sum() < 1 or case.select.fires.sum() < 1:
        return []
    tally = Tally()
    pool = formulas(case.features, case.fit, tally)
    pool.sort(key=lambda formula: -round(formula.score(case.fit), 9))
    for formula in pool[:_REFITTED]:
        pool += [fitted_again(formula, case.features, case.fit, limit, tally) for limit in LIMITS]
    kept: list[tuple[Found, Mask]] = []
    banned = [_mask(predicate_from_json(text), case.features) for text in refuted]
    chosen = _chosen(pool, case.select)
    for formula in chosen:
        final = _finished(formula, case, tally)
        predicate, mask = final.node, final.mask
        if canonical_json(predicate) in refuted or any(_same(mask, other) for other in banned):
            continue
        found = _found(predicate, mask, case, case.select.counts(formula.mask).f1)
        alike = [i for i, (one, other) in enumerate(kept) if _same(mask, other) and exact(one.predicate) == final.exact]
        if alike:
            kept[alike[0]] = min(kept[alike[0]], (found, mask), key=_plainness)
        else:
            kept.append((found, mask))
    several = [_modes(one, case, tally) for one in _beginnings(chosen, pool, case, tally)]
    modes = [one for one in several if one is not None]
    modes.sort(key=lambda one: (-round(one.selection_f1, 2), -len(one.predicate.children())))
    return [*modes[:1], *_ranked([found for found, _ in kept], tally.tried, budget)]


def _beginnings(chosen: list[Formula], pool: list[Formula], case: _Case, tally: Tally) -> list[Formula]:
    """The rules that may be the strongest mode: the best one; of a list that mixes modes the louder part; and, where the
    best one is often wrong, the best of those that are not."""
    if not chosen:
        return []
    first = _finished(chosen[0], case, tally)
    found = [first, *_louder(first, case)]
    if case.select.counts(chosen[0].mask).precision < PURE:
        pure = [one for one in pool if case.select.counts(one.mask).precision >= PURE]
        best = sorted(pure, key=lambda one: -one.score(case.select))[:1]
        found += [_finished(one, case, tally) for one in best]
    return found


def _louder(first: Formula, case: _Case) -> list[Formula]:
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
    apart = (
        weight[:-1] * (weight[-1] - weight[:-1]) * (high - low) ** 2
    )  # the split of largest variance between (Otsu 1979)
    at = LEAST_KEYS + int(np.argmax(apart[LEAST_KEYS - 1 : len(order) - LEAST_KEYS]))
    if high[at - 1] - low[at - 1] < LOUDER * case.height:
        return []
    loud = set_atom(family, keys[order[:at]])
    return [Formula.of([Clause((loud,), loud.mask)])]


def _modes(first: Formula, case: _Case, tally: Tally) -> Found | None:
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
    return _found(node, mask, lowered, lowered.select.counts(mask).f1)


def _weaker(left: _Case | None, case: _Case, tally: Tally) -> list[Clause]:
    """The modes that stand out in what is left of a unit."""
    if left is None or left.height < MIN_STRENGTH * case.height:
        return []
    best = max(formulas(left.features, left.fit, tally), key=lambda one: one.score(left.select), default=None)
    return [] if best is None else [clause for clause in _finished(best, left, tally).clauses if _is_mode(clause, left)]


def _telling(modes: list[Clause], case: _Case) -> list[Clause]:
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


def _is_mode(clause: Clause, weaker: _Case) -> bool:
    """Whether a clause is right where it speaks and says much of what is left, on the selecting documents."""
    counts = weaker.select.counts(clause.mask)
    return counts.precision >= MODE_PRECISION and counts.mass >= MODE_COVERAGE


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


def _chosen(pool: list[Formula], select: Target) -> list[Formula]:
    """The best formula of each complexity on the selecting documents, of single leaves, and of current tokens alone."""
    ordered = sorted(
        pool, key=lambda formula: (-round(formula.score(select), 9), formula.cost, canonical_json(formula.node))
    )
    classes = [
        ordered,
        *([formula for formula in ordered if formula.cost <= limit] for limit in (20, 5, 100)),
        [formula for formula in ordered if formula.only_token],
        [formula for formula in ordered if len(formula.clauses) == 1 and len(formula.clauses[0].atoms) == 1],
        [formula for formula in ordered if len(formula.clauses) == 1],
        [formula for formula in ordered if formula.exact],
    ]
    first = {id(formulas_[0]): formulas_[0] for formulas_ in classes if formulas_}
    return list(first.values())


def _finished(formula: Formula, case: _Case, tally: Tally) -> Formula:
    """The formula without idle parts and wrong keys, its sets fitted on all explore text where that is no worse there."""
    lean = pruned(formula, case.whole)
    limit = next(limit for limit in (*LIMITS, max(LIMITS)) if _largest(lean) <= limit or limit == max(LIMITS))
    again = fitted_again(lean, case.features, case.whole, limit, tally)
    return cleaned(again if again.score(case.whole) >= lean.score(case.whole) else lean, case.features, case.whole)


def _largest(formula: Formula) -> int:
    return max(len(atom.keys) for clause in formula.clauses for atom in clause.atoms)


def _mask(predicate: Predicate, features: Features) -> Mask:
    return np.asarray(features.at_places(holds(predicate, features.tokens)), dtype=bool)


def _same(one: Mask, other: Mask) -> bool:
    either = int((one | other).sum())
    return either == 0 or int((one & other).sum()) >= SAME_CLAIM * either


def _found(predicate: Predicate, mask: Mask, case: _Case, selection_f1: float) -> Found:
    counts: Counts = case.whole.counts(mask)
    precision = counts.fires / max(counts.places, 1.0)
    f1 = 2 * precision * counts.mass / max(precision + counts.mass, 1e-12)
    return Found(predicate, f1, precision, counts.mass, selection_f1, complexity(predicate), 0)


def lists(tokens: Tokens, activations: NDArray[np.floating], rule: Firing) -> list[Found]:
    """Of each size the list, of tokens or of words so far, that tells the firing best; none that does not come near what a
    SUPPORTED claim needs on documents from which it was not drawn up."""
    features = Features.of(tokens)
    values = np.asarray(features.at_places(activations), dtype=np.float64)
    target = Target.of(values, features.documents, rule.threshold, rule.median)
    at = np.flatnonzero(target.fires)
    fold = features.documents % FOLDS
    best: dict[int, tuple[Family, Table]] = {}
    for family, places in features.lists:
        counted = Counted.of(family.keys, places, at, fold[at], target.mass[at])
        sizes = [(size - family.own_cost) // family.item_cost for size in LIST_SIZES]
        for size, table in zip(LIST_SIZES, best_tables(counted, sizes), strict=True):
            if len(table.keys) and (size not in best or table.margin > best[size][1].margin + MIN_GAIN):
                best[size] = (family, table)
    found = []
    for family, table in best.values():
        if table.margin >= MIN_MARGIN:
            atom = set_atom(family, table.keys)
            counts = target.counts(atom.mask)
            precision = counts.fires / max(counts.places, 1.0)
            f1 = 2 * precision * counts.mass / max(precision + counts.mass, 1e-12)
            found.append(Found(atom.node, f1, precision, counts.mass, table.f1, atom.cost, len(family.names)))
    return found


class GrammarProposer:
    """Proposes what the search finds: the best predicates at several complexities, with the current-token rival."""

    name = "grammar"

    def __init__(self, max_rivals: int = 5, seed: int = 0) -> None:
        self.max_rivals, self.seed = max_rivals, seed

    def propose(self, explored: Explored) -> list[Proposal]:
        """At most `max_rivals` hypotheses about when the unit fires, best first, then lists of words and tokens; no refuted
        predicate among them."""
        case = _Case.of(*_joined(explored), explored.rule, self.seed)
        found = _searched(case, budget=self.max_rivals, refuted=explored.refuted)
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


_Scalar = TypeVar("_Scalar", bound=np.generic)
_Observed = tuple[Tokens, NDArray[np.float32]]


def _joined(explored: Explored) -> _Observed:
    """Explore text and its damaged windows as one, padded to the longest window."""
    parts = [part for part in ((explored.tokens, explored.activations), explored.damaged) if part is not None]
    if len(parts) == 1:
        return parts[0]
    width = max(part[0].ids.shape[1] for part in parts)

    def wide(grids: Iterable[NDArray[_Scalar]], fill: int) -> NDArray[_Scalar]:
        padded = (np.pad(grid, ((0, 0), (0, width - grid.shape[1])), constant_values=fill) for grid in grids)
        return np.concatenate(list(padded))

    texts = [part[0] for part in parts]
    tokens = Tokens(
        wide((text.ids for text in texts), PAD),
        wide((text.starts for text in texts), 0),
        wide((text.ends for text in texts), 0),
        np.concatenate([text.documents for text in texts]),
        tuple(string for text in texts for string in text.texts),
        texts[0].vocabulary,
    )
    return tokens, wide((part[1] for part in parts), 0)

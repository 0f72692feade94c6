"""A small Neuron2Graph: token patterns from a unit's top examples, pruned and augmented with the model, kept as a trie.

Source: Foote et al. 2023, arXiv:2305.19911. Ours differs: substitutes are the target's own next-token predictions and
other spellings of the token, not those of a masked language model; context is pruned token by token; a node predicts
"fires" and not a strength; and to be cut to a number of items the trie takes first the patterns that gain most on the
text that it was made from and on the text beside it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.agent.proposers.tables import PRICES, margin
from neuronaut.evals.heldout import Bools, Firing, Ints, Places
from neuronaut.tools.intervene.next_token import values_at_last
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.look.examples import TopExamplesArgs, choose_places
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import Tokens, tokens_from_ids
from neuronaut.tools.units import Unit

EXAMPLES = 20
CONTEXT = 10  # tokens before the firing one
KEPT = 0.5  # share of an example's activation above the median that pruning and a substitute must leave
IMPORTANT = 0.5  # share of it that masking a token must take away
SUBSTITUTES = 8  # of the target's predictions for each important token

Row = tuple[int, ...]
Pattern = tuple[tuple[int, int], ...]  # (tokens before the current one, token id), the current one first


@dataclass(frozen=True)
class Probe:
    """Asks the target how active a unit is at the end of short texts. mask: the token that stands for "nothing here"."""

    target: TargetModel
    unit: Unit
    median: float

    @property
    def mask(self) -> int:
        """A special token that does not begin texts, if there is one."""
        bos = self.target.spec.bos
        others = sorted(self.target.vocabulary.special - {bos})
        return others[0] if others else 0 if bos is None else bos

    def above_median(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """(n_rows,) activation after each row of ids, the median subtracted, the unit's sign applied."""
        site = Site("neurons", self.unit.layer)
        values = values_at_last(self.target, self._tokens(rows), site)[:, self.unit.index]
        return self.unit.sign * values.double().numpy() - self.median

    def predicted(self, rows: Sequence[Row]) -> list[list[Row]]:
        """For each row, per position, the tokens that the target finds likeliest there, from those before it."""
        tokens = self._tokens(rows)
        logits = self.target.run(to_ids(tokens), logits=True).logits
        assert logits is not None
        special = sorted(self.target.vocabulary.special)
        logits = logits.clone()
        logits[:, :, special] = -torch.inf
        best = logits.topk(min(SUBSTITUTES, logits.shape[-1] - len(special)), dim=-1).indices.tolist()
        none: Row = ()
        first = 0 if self.target.spec.bos is None else 1
        return [
            [tuple(best[number][at - 1 + first]) if at + first else none for at in range(len(row))]
            for number, row in enumerate(rows)
        ]

    def _tokens(self, rows: Sequence[Row]) -> Tokens:
        """The rows as texts of their own, begun as the target begins a text."""
        start: Row = () if self.target.spec.bos is None else (self.target.spec.bos,)
        return tokens_from_ids([(*start, *row) for row in rows], self.target.vocabulary)


def find_patterns(probe: Probe, tokens: Tokens, activations: NDArray[np.float32], rule: FiringRule) -> list[Pattern]:
    """The patterns of the unit's top examples, one a document, the most active first; each once.

    tokens, activations: explore text, the unit's sign applied. Examples at which the unit does not fire are left out.
    """
    places = choose_places(tokens, activations, TopExamplesArgs(unit=probe.unit.address, k=EXAMPLES))
    places = [(window, at) for window, at in places if activations[window, at] > rule.threshold]
    if not places:
        return []
    levels = [float(activations[place]) - rule.median for place in places]
    rows = _pruned(probe, [_context(tokens, *place) for place in places], levels)
    important = _important(probe, rows)
    found = dict.fromkeys(_pattern(row, marks) for row, marks in zip(rows, important, strict=True))
    found.update(dict.fromkeys(_augmented(probe, rows, important)))
    return list(found)


def _context(tokens: Tokens, window: int, at: int) -> Row:
    """The ids up to a place, special tokens left out."""
    row = tokens.ids[window, max(0, at - CONTEXT) : at + 1].tolist()
    return tuple(token for token in row if token not in tokens.vocabulary.special)


def _pruned(probe: Probe, rows: Sequence[Row], levels: Sequence[float]) -> list[Row]:
    """Each row's shortest end that keeps half of the activation; the whole row where none does."""
    tried = [(number, row[-length:]) for number, row in enumerate(rows) for length in range(1, len(row) + 1)]
    values = probe.above_median([row for _, row in tried])
    kept = list(rows)
    for (number, row), value in reversed(list(zip(tried, values.tolist(), strict=True))):
        if value >= KEPT * levels[number]:
            kept[number] = row  # the shortest comes last
    return kept


def _important(probe: Probe, rows: Sequence[Row]) -> list[tuple[bool, ...]]:
    """Which tokens of each row take half of its activation away when masked; the last one always counts."""
    masked = [(number, at) for number, row in enumerate(rows) for at in range(len(row) - 1)]
    texts = [_with(rows[number], at, probe.mask) for number, at in masked]
    values = probe.above_median([*rows, *texts])
    marks = [[False] * (len(row) - 1) + [True] for row in rows]
    for (number, at), value in zip(masked, values[len(rows) :].tolist(), strict=True):
        marks[number][at] = values[number] - value >= IMPORTANT * abs(values[number])
    return [tuple(row) for row in marks]


def _augmented(probe: Probe, rows: Sequence[Row], important: Sequence[tuple[bool, ...]]) -> list[Pattern]:
    """The patterns of rows in which one important token is replaced and which keep half of the activation."""
    predicted, alike = probe.predicted(rows), _alike(probe.target)
    tried = [
        (number, _with(row, at, token))
        for number, row in enumerate(rows)
        for at in range(len(row))
        if important[number][at]
        for token in dict.fromkeys([*predicted[number][at], *alike.get(row[at], ())])
        if token != row[at]
    ]
    values = probe.above_median([*rows, *(row for _, row in tried)])
    whole, changed = values[: len(rows)], values[len(rows) :]
    return [
        _pattern(row, important[number])
        for (number, row), value in zip(tried, changed.tolist(), strict=True)
        if whole[number] > 0 and value >= KEPT * whole[number]
    ]


def _alike(target: TargetModel) -> dict[int, list[int]]:
    """Tokens that differ from each token in case and spaces only."""
    groups: dict[str, list[int]] = {}
    for token, piece in enumerate(target.vocabulary.pieces):
        if token not in target.vocabulary.special and piece.strip():
            groups.setdefault(piece.strip().casefold(), []).append(token)
    return {token: group for group in groups.values() if len(group) > 1 for token in group}


def _with(row: Row, at: int, token: int) -> Row:
    return (*row[:at], token, *row[at + 1 :])


def _pattern(row: Row, important: Sequence[bool]) -> Pattern:
    last = len(row) - 1
    return tuple((last - at, row[at]) for at in range(last, -1, -1) if important[at])


@dataclass(frozen=True)
class Windows:
    """The tokens around each place of a text, for matching. before: (CONTEXT + 1, n_places), row k holds the token k earlier."""

    before: Ints
    order: Ints
    starts: Ints

    @classmethod
    def of(cls, places: Places, d_vocab: int) -> "Windows":
        """The windows of all places."""
        before = np.stack([places.tokens_before(offset) for offset in range(CONTEXT + 1)])
        order = np.argsort(before[0], kind="stable")
        return cls(before, order, np.searchsorted(before[0][order], np.arange(d_vocab + 1)))

    def at(self, pattern: Pattern) -> NDArray[np.intp]:
        """The places at which a pattern matches."""
        (_, current), *earlier = pattern
        found = self.order[self.starts[current] : self.starts[current + 1]]
        for offset, token in earlier:
            found = found[self.before[offset, found] == token]
        return found

    def held(self, patterns: Iterable[Pattern]) -> Bools:
        """(n_places,) where any of some patterns matches."""
        mask = np.zeros(self.before.shape[1], dtype=bool)
        for pattern in patterns:
            mask[self.at(pattern)] = True
        return mask


def trie_items(patterns: Iterable[Pattern]) -> int:
    """Tokens in the trie of some patterns, wildcards left out; a beginning that patterns share counts once."""
    return len({pattern[: depth + 1] for pattern in patterns for depth in range(len(pattern))})


def cut(patterns: Sequence[Pattern], windows: Windows, firing: Firing, budgets: Sequence[int]) -> list[list[Pattern]]:
    """For each budget of items the best trie within it on the text of `windows`: patterns by gain, as tables take entries."""
    best: list[tuple[float, list[Pattern]]] = [(0.0, []) for _ in budgets]
    matches = [windows.at(pattern) for pattern in patterns]
    fires, mass = max(float(firing.fires.sum()), 1.0), max(float(firing.mass.sum()), 1e-12)
    own = np.array([_sums(places, firing) for places in matches]).reshape(-1, 3)
    for price in PRICES:
        gain = own[:, 2] / mass - price * (own[:, 0] - own[:, 1]) / fires
        order = [int(at) for at in np.argsort(-gain, kind="stable") if gain[at] > 0]
        held, nodes = np.zeros(len(firing.fires), dtype=bool), set[Pattern]()
        sums = np.zeros(3)
        for taken, at in enumerate(order, start=1):
            fresh = matches[at][~held[matches[at]]]
            held[fresh] = True
            sums += _sums(fresh, firing)
            nodes |= {patterns[at][: depth + 1] for depth in range(len(patterns[at]))}
            score = float(margin(sums[1:2] / np.maximum(sums[:1], 1.0), sums[2:] / mass)[0])
            for number, budget in enumerate(budgets):
                if len(nodes) <= budget and score > best[number][0]:
                    best[number] = (score, [patterns[i] for i in order[:taken]])
    return [chosen for _, chosen in best]


def _sums(places: NDArray[np.intp], firing: Firing) -> tuple[float, float, float]:
    """Places, firing places and firing mass among some places."""
    return float(len(places)), float(firing.fires[places].sum()), float(firing.mass[places].sum())

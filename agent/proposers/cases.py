"""One unit on one text, as the search sees it: documents to fit on, and documents that only select."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.base import Explored, Firing
from neuronaut.agent.proposers.counts import Floats, Mask, Target
from neuronaut.agent.proposers.features import Features
from neuronaut.agent.proposers.joining import joined_tokens, joined_values
from neuronaut.tools.tokens import Tokens

SELECTED_ON = 0.4  # share of the explore documents that only select
MAX_PLACES = 90_000  # tokens searched; of more text whole documents are left out by lot
TOP_DOCUMENTS = 20  # as in the firing rule


@dataclass(frozen=True)
class Level:
    """A firing rule made on the way."""

    threshold: float
    median: float


@dataclass(frozen=True)
class Case:
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
    def of(cls, tokens: Tokens, activations: NDArray[np.floating], rule: Firing, seed: int) -> "Case":
        """Of the documents, drawn by lot where there are more than MAX_PLACES tokens, a share only selects."""
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
    def _by(cls, features: Features, values: Floats, selecting: Mask, rule: Firing, among: Mask) -> "Case":
        fit, select, whole = (
            Target.of(values, features.documents, rule.threshold, rule.median, among=part & among)
            for part in (~selecting, selecting, np.ones_like(selecting))
        )
        return cls(features, values, selecting, rule, fit, select, whole)

    @property
    def height(self) -> float:
        """The threshold above the median."""
        return self.rule.threshold - self.rule.median

    def outside(self, covered: Mask) -> "Case | None":
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

    def lowered(self, threshold: float) -> "Case":
        """The same unit by a lower threshold."""
        rule = Level(min(threshold, self.rule.threshold), self.rule.median)
        return self._by(self.features, self.values, self.selecting, rule, np.ones_like(self.selecting))


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


def joined(explored: Explored) -> tuple[Tokens, NDArray[np.float32]]:
    """Explore text and its damaged windows as one, padded to the longest window."""
    if explored.damaged is None:
        return explored.tokens, explored.activations
    tokens, activations = explored.damaged
    return joined_tokens((explored.tokens, tokens)), joined_values((explored.activations, activations))

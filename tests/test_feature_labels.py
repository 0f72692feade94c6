"""Agreement with true labels is 1 for units made from labels, and next to none for the same units elsewhere in the text."""

import numpy as np
import pytest

from neuronaut.evals.feature_labels import agreement
from neuronaut.evals.pocket_labels import Labels
from neuronaut.tools.tokens import Vocabulary, tokens_from_ids


def test_units_made_from_labels_agree_with_them_and_shuffled_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    tokens = tokens_from_ids(rng.integers(0, 9, (200, 30)).tolist(), Vocabulary(tuple("abcdefghi"), frozenset()))
    holds = rng.random((tokens.n_scored, 12)) < 0.02
    labels = Labels(tuple("ABCDEFGHIJKL"), holds)
    strengths = (holds * rng.uniform(0.8, 1.0, holds.shape)).astype(np.float32)
    rare = np.zeros((tokens.n_scored, 1), dtype=np.float32)
    rare[:5] = 1.0
    exact = agreement(np.hstack([strengths, rare]), tokens, labels)
    assert exact == (12, 1.0, 1.0, pytest.approx(1.0))
    moved = agreement(rng.permutation(strengths), tokens, labels)
    assert (moved.n, moved.same, moved.half) == (12, 0.0, 0.0)
    half = holds[:, :6] & (rng.random((tokens.n_scored, 6)) < 0.5)  # F1 of a half of the places is 2/3
    found = agreement(half.astype(np.float32), tokens, labels)
    assert (found.same, found.half) == (0.0, 1.0)
    assert found.median == pytest.approx(2 / 3, abs=0.06)

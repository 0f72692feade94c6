"""Labels of a batch over the embedded model, held against the true labels of its text.

`data/pocket-batch.jsonl` holds 30 SUPPORTED labels, drawn at random from those of `neuronaut label --layers all --fast --limit 600
--seed 0`. Nothing of this text was seen by the search or the test: it is audit text.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from neuronaut.evals.batch import cached_corpus, cached_target
from neuronaut.evals.pocket_labels import audit_labels
from neuronaut.evals.truths import truth_f1
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.together import BatchContext
from neuronaut.tools.trials.reads import needed_rule
from neuronaut.tools.units import Unit

ROWS = [json.loads(line) for line in (Path(__file__).parent / "data" / "pocket-batch.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_supported_labels_of_a_batch_are_right() -> None:
    """Right: the true label (or two joined) nearest to the places of the claim is the one nearest to the places where the
    neuron fires, and the claim tells these places (F1 of at least 0.5, as precision 0.6 and coverage 0.5 would give)."""
    assert len(ROWS) == 30
    assert {row["weights_sha256"] for row in ROWS} == {cached_target().fingerprint().weights_sha256}
    context = BatchContext(cached_target(), cached_corpus(), units=tuple(Unit.parse(row["address"]) for row in ROWS))
    tokens, labels, right = context.tokens("audit"), audit_labels(), []
    for row in ROWS:
        unit = Unit.parse(row["address"])
        fires = context.activations(unit, "audit")[tokens.scored] > needed_rule(context, unit).threshold
        held = holds(predicate_from_json(row["predicate"]), tokens)[tokens.scored]
        right.append(labels.same(labels.best(held), labels.best(fires)) and truth_f1(held, fires) >= 0.5)
    assert np.mean(right) >= 0.9, [row["address"] for row, ok in zip(ROWS, right, strict=True) if not ok]


@pytest.mark.slow
def test_labels_dealt_to_other_neurons_are_not_right() -> None:
    """The measure itself: the claims of other neurons of the sample agree with few."""
    context = BatchContext(cached_target(), cached_corpus(), units=tuple(Unit.parse(row["address"]) for row in ROWS))
    tokens, agree = context.tokens("audit"), 0
    for row, other in zip(ROWS, [*ROWS[1:], ROWS[0]], strict=True):
        unit = Unit.parse(row["address"])
        fires = context.activations(unit, "audit")[tokens.scored] > needed_rule(context, unit).threshold
        held = holds(predicate_from_json(other["predicate"]), tokens)[tokens.scored]
        agree += truth_f1(held, fires) >= 0.5
    assert agree <= 3

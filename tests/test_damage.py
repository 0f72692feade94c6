"""Damaged text: what it keeps of the text it was made from, and that rules which fit natural text alike differ on it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from neuronaut.agent.proposers.base import Explored
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.tools.look.damage import AFTER, PLACES, SPAN, WINDOWS, damaged
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.tokens import Tokens, Vocabulary, tokens_from_ids
from neuronaut.tools.units import Unit

PIECES = ("<s>", " did", " not", *(f" w{i}" for i in range(40)))
VOCABULARY = Vocabulary(PIECES, frozenset({0}))
RULE = FiringRule(threshold=0.5, median=0.0, top=1.0, spread=1.0, dense=False)
DID, NOT = 1, 2


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    """300 documents; " not" is everywhere preceded by " did", and " did" everywhere followed by " not"."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(300):
        row = rng.integers(3, len(PIECES), size=int(rng.integers(10, 40))).tolist()
        at = int(rng.integers(1, len(row)))
        rows.append([0, *row[:at], DID, NOT, *row[at:]] if number % 3 == 0 else [0, *row])
    return tokens_from_ids(rows, VOCABULARY)


def firing(rule: Predicate, tokens: Tokens) -> NDArray[np.float32]:
    return np.where(holds(rule, tokens) & tokens.scored, 1.0, 0.0).astype(np.float32)


def test_windows_are_near_copies_of_firing_places_or_carry_them_into_other_texts(tokens: Tokens) -> None:
    values = firing(parse_text("token(' not')"), tokens)
    made = damaged(tokens, values, RULE, seed=0)
    assert len(made) == WINDOWS
    assert len(np.unique(made.documents)) == min(PLACES, 100)
    assert (made.ids[:, 0] == 0).all()
    for number, (row, document) in enumerate(zip(made.ids, made.documents.tolist(), strict=True)):
        original = tokens.ids[document]
        if number // PLACES % 4 == 0:
            assert NOT in row
        if number // PLACES % 2 == 0:
            continue
        place = int(np.argmax(original == NOT))
        width = min(place + 1 + AFTER, int((original >= 0).sum()))
        assert (row >= 0).sum() == width
        changed = np.flatnonzero(row[:width] != original[:width])
        assert set(changed.tolist()) <= set(range(max(1, place + 1 - SPAN), place + 1))


def test_it_is_seeded_and_empty_for_a_silent_unit(tokens: Tokens) -> None:
    values = firing(parse_text("token(' not')"), tokens)
    one, same, other = (damaged(tokens, values, RULE, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.ids, same.ids)
    assert not np.array_equal(one.ids, other.ids)
    assert len(damaged(tokens, np.zeros_like(values), RULE, seed=1)) == 0


@pytest.mark.parametrize(
    "truth", ["token(' not')", "token(' did')", "at(1, token(' did'))", "all_of(token(' not'), at(1, token(' did')))"]
)
def test_rules_that_natural_text_cannot_tell_apart_are_told_apart(truth: str, tokens: Tokens) -> None:
    rule = parse_text(truth)
    values = firing(rule, tokens)
    apart = damaged(tokens, values, RULE, seed=0)
    explored = Explored(Unit.parse("1.2"), tokens, values, RULE, damaged=(apart, firing(rule, apart)))
    best = GrammarProposer().propose(explored)[0].predicate
    unseen = tokens_from_ids(
        [[0, *row] for row in np.random.default_rng(9).integers(1, 8, size=(200, 12)).tolist()], VOCABULARY
    )
    assert np.array_equal(holds(best, unseen)[:, 2:], holds(rule, unseen)[:, 2:]), best

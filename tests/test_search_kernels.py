"""The fast parts of the search do what their plain definitions say: sets, exclusions, ranges, contexts, joined texts."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuronaut.agent.proposers.atoms import (
    ITEM_PENALTY,
    MIN_DOCUMENTS,
    RATES,
    SILENT_RATES,
    best_exclusion,
    best_range,
    best_sets,
)
from neuronaut.agent.proposers.contexts import context_atoms
from neuronaut.agent.proposers.counts import Counts, Inside, Mask, Tally, Target, packed, sizes
from neuronaut.agent.proposers.families import Coded, Family
from neuronaut.agent.proposers.features import Features
from neuronaut.agent.proposers.joining import joined_tokens
from neuronaut.agent.proposers.search import Beam, Clause
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.tokens import Tokens, Vocabulary, tokens_from_ids

PIECES = ("<s>", " the", " cat", " dog", ".", " 3", "ing", " (", ")", " Ann", "'s", "\n", ",")
VOCABULARY = Vocabulary(PIECES, frozenset({0}))
LIMITS = (2, 5)


def some_text(seed: int, n_windows: int = 12, length: int = 20, tokens: int = len(PIECES)) -> Tokens:
    rng = np.random.default_rng(seed)
    rows = [[0, *rng.integers(1, tokens, int(rng.integers(3, length))).tolist()] for _ in range(n_windows)]
    return tokens_from_ids(rows, VOCABULARY, rng.integers(0, n_windows, n_windows).tolist())


def some_target(features: Features, seed: int, rate: float = 0.3) -> Target:
    """Fires more on some tokens than on others; not all places count."""
    rng = np.random.default_rng(seed)
    liking = rng.random(len(features.pieces[1])) * 2 * rate
    values = np.where(rng.random(len(features)) < liking[features.pieces[0]], rng.uniform(1, 3, len(features)), 0.0)
    return Target.of(values, features.documents, 0.5, 0.1, among=rng.random(len(features)) < 0.8)


def some_mask(features: Features, seed: int) -> Mask:
    return np.random.default_rng(seed).random(len(features)) < 0.7


def plain_f1(places: float, fires: float, mass: float) -> float:
    precision = fires / (places + 1)
    return 2 * precision * mass / max(precision + mass, 1e-12)


def plain_counts(target: Target, held: NDArray[np.bool_]) -> tuple[float, float, float]:
    return float(target.counted[held].sum()), float(target.fires[held].sum()), float(target.mass[held].sum())


def plain_set(family: Family, mask: Mask, target: Target, limit: int, beside: Counts) -> set[int]:
    """The best prefix, key by key, of every order and rate, by masks alone."""
    keys = [key for key in range(len(family.names)) if plain_documents(family, key, mask, target) >= MIN_DOCUMENTS]
    found = {key: plain_counts(target, mask & (family.keys == key)) for key in range(len(family.names))}
    base = sum(f for _, f, _ in found.values()) / max(sum(p for p, _, _ in found.values()), 1.0)
    rate = {key: (found[key][1] + 2 * base) / (found[key][0] + 2) for key in keys}
    keys.sort(key=lambda key: -found[key][2])
    best, chosen = -np.inf, set[int]()
    for level in RATES:
        kept = [key for key in keys if rate[key] >= level]
        for n in range(1, min(len(kept), limit, family.max_keys) + 1):
            held = mask & np.isin(family.keys, kept[:n])
            places, fires, mass = plain_counts(target, held)
            score = plain_f1(places + beside.places, fires + beside.fires, mass + beside.mass)
            score -= ITEM_PENALTY * family.item_cost * n
            if score > best + 1e-9:
                best, chosen = score, set(kept[:n])
    return chosen


def plain_documents(family: Family, key: int, mask: Mask, target: Target) -> int:
    return len(set(target.documents[mask & (family.keys == key) & (target.fires > 0)].tolist()))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rate=st.sampled_from([0.05, 0.3, 0.9]))
def test_the_best_sets_are_the_best_prefixes_of_all_rates(seed: int, rate: float) -> None:
    features = Features.of(some_text(seed))
    target, mask = some_target(features, seed, rate), some_mask(features, seed)
    inside, beside = Inside.of(mask, target), Counts(3.0, 2.0, 0.2)
    for name in ("token", "loose token 2 before", "word end 1", "pair"):
        family = features.families[name]
        found = list(best_sets(family, inside, LIMITS, beside=beside, tally=Tally()).items())
        wanted = [plain_set(family, mask & target.among, target, limit, beside) for limit in LIMITS]
        assert [set(atom.keys) for atom, _ in found] == [
            one for i, one in enumerate(wanted) if one and one not in wanted[:i]
        ]
        for atom, counts in found:
            assert np.array_equal(atom.mask, np.isin(family.keys, list(atom.keys)))
            assert (counts.places, counts.fires, counts.mass) == pytest.approx(plain_counts(target, mask & atom.mask))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_best_exclusion_is_the_best_of_all_prefixes(seed: int) -> None:
    features = Features.of(some_text(seed, n_windows=30))
    target, mask = some_target(features, seed), some_mask(features, seed)
    family, inside = features.families["token"], Inside.of(mask, target)
    found = best_exclusion(family, inside, beside=Counts(), tally=Tally())
    counted = mask & target.among
    whole = plain_counts(target, counted)
    of_key = {key: plain_counts(target, counted & (family.keys == key)) for key in range(len(family.names))}
    silent = [key for key, (places, fires, _) in of_key.items() if places >= 3 and fires / places < 0.5]
    silent.sort(key=lambda key: -(of_key[key][0] - of_key[key][1]))
    best, chosen = plain_f1(*whole), set[int]()
    for level in SILENT_RATES:
        kept = [key for key in silent if of_key[key][1] / of_key[key][0] <= level]
        for n in range(1, min(len(kept), 10) + 1):
            left = plain_counts(target, counted & ~np.isin(family.keys, kept[:n]))
            if (score := plain_f1(*left) - ITEM_PENALTY * n) > best + 1e-12 and plain_f1(*left) > 0:
                best, chosen = score, set(kept[:n])
    assert [set(atom.keys) for atom in found] == ([chosen] if chosen else [])
    for atom, counts in found.items():
        assert (counts.places, counts.fires, counts.mass) == pytest.approx(plain_counts(target, mask & atom.mask))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_best_range_is_the_best_of_all(seed: int) -> None:
    features = Features.of(some_text(seed))
    target, mask = some_target(features, seed), some_mask(features, seed)
    found = best_range(features, Inside.of(mask, target), beside=Counts(), tally=Tally())
    size = features.longest
    scores = {
        (low, past): plain_f1(*plain_counts(target, mask & (features.order >= low) & (features.order < past)))
        for low, past in product(range(size), range(1, size + 1))
        if low < past and (low, past) != (0, size)
    }
    for atom, counts in found.items():
        assert plain_f1(*plain_counts(target, mask & atom.mask)) == pytest.approx(max(scores.values()))
        assert (counts.places, counts.fires, counts.mass) == pytest.approx(plain_counts(target, mask & atom.mask))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_a_context_leaf_or_mark_is_said_to_find_is_what_its_predicate_holds_of(seed: int) -> None:
    tokens = some_text(seed, n_windows=20, length=40)
    features = Features.of(tokens)
    target, mask = some_target(features, seed, 0.6), some_mask(features, seed)
    inside = Inside.of(mask, target)
    beam = Beam(features, target, Counts(), Tally())
    atoms = context_atoms(features, inside, beside=Counts(), tally=Tally())
    for atom, counts in (atoms | beam._flags(Clause((), mask), inside)).items():
        held = np.asarray(features.at_places(holds(atom.node, tokens)), dtype=bool)
        assert np.array_equal(atom.mask, held)
        assert (counts.places, counts.fires, counts.mass) == pytest.approx(plain_counts(target, mask & held))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(0, 10_000))
def test_packed_masks_hold_as_many_places(n: int, seed: int) -> None:
    masks = np.random.default_rng(seed).random((5, n)) < 0.4
    assert sizes(packed(masks)).tolist() == masks.sum(axis=1).tolist()
    assert sizes(packed(masks) & packed(masks[0])).tolist() == (masks & masks[0]).sum(axis=1).tolist()


def _told(features: Features) -> dict[str, Any]:
    """Everything that the search asks of features."""
    return {
        "families": {
            name: (family.keys.tolist(), family.names, family.own_cost, family.item_cost, family.max_keys)
            for name, family in features.families.items()
        },
        "flags": [(flag.node, flag.mask.tolist(), flag.cost) for flag in features.flags],
        "order": features.order.tolist(),
        "documents": features.documents.tolist(),
        "since": [features.since(key).tolist() for key in range(len(features.pieces[1]))],
        "ends": features.ends,
        "grid": features.piece_grid.tolist(),
    }


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_features_joined_from_two_texts_are_those_of_the_whole(seed: int) -> None:
    """The second text is made of tokens of the first, as damaged text is, and forms words that the first lacks."""
    first = some_text(seed, n_windows=40, length=30)
    rng = np.random.default_rng(seed)
    pool = first.ids[first.scored]
    rows = [[0, *rng.choice(pool, int(rng.integers(3, 40))).tolist()] for _ in range(9)]
    second = tokens_from_ids(rows, VOCABULARY, rng.choice(first.documents, 9).tolist())
    whole = joined_tokens((first, second))
    joined, plain = Features.of(whole), Features(whole)
    assert type(joined) is not type(plain)
    assert _told(joined) == _told(plain)


def test_a_second_text_may_have_tokens_that_the_first_lacks() -> None:
    first, second = some_text(1, tokens=6), some_text(2, n_windows=20)
    whole = joined_tokens((first, second))
    joined, plain = Features.of(whole), Features(whole)
    for name, family in plain.families.items():
        theirs = joined.families[name]
        same = [(plain_name(family, at), plain_name(theirs, at)) for at in range(len(plain))]
        assert all(one == other for one, other in same), name


def plain_name(family: Family, at: int) -> str | None:
    return None if family.keys[at] < 0 else family.names[family.keys[at]]


def test_texts_are_numbered_on_from_those_before() -> None:
    before = Coded.of(["a", None, "b", "a"])
    after = Coded.of(["b", "c", None], before)
    assert (before.keys.tolist(), before.names) == ([0, -1, 1, 0], ("a", "b"))
    assert (after.keys.tolist(), after.names) == ([1, 2, -1], ("a", "b", "c"))


def test_a_clause_is_the_same_in_any_order() -> None:
    features = Features.of(some_text(3))
    target = some_target(features, 3)
    inside = Inside.of(np.ones(len(features), dtype=bool), target)
    one, other = (
        next(iter(best_sets(features.families[name], inside, LIMITS, beside=Counts(), tally=Tally())))
        for name in ("token", "word")
    )
    assert Clause.of([one, other]).label == Clause.of([other, one]).label
    assert np.array_equal(Clause.of([one]).and_also(other).mask, one.mask & other.mask)
    assert isinstance(Clause.of([one, other]).node, nodes.AllOf)

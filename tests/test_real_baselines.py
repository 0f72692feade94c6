"""Baselines of the suite `real`: planted units whose best table is known, metrics at 0 and 1, nothing fitted on unseen text."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from neuronaut.evals import real
from neuronaut.evals.baselines import GRID, Bench
from neuronaut.evals.figure import Line, curve_svg
from neuronaut.evals.heldout import NO_TOKEN, Firing, Places, passes, qualities
from neuronaut.evals.lookup import WIDTHS, Keys, entries, fit_tables
from neuronaut.evals.overlay import FromPredicate
from neuronaut.evals.real_scores import SIZES, beyond, lines, reached, scores_at
from neuronaut.evals.suite import Asking, Batch, Case, Row
from neuronaut.evals.trie import Probe, Windows, cut, find_patterns, trie_items
from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.predicates import nodes
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.together import BatchContext
from neuronaut.tools.tokens import PAD, Tokens, Vocabulary, tokens_from_ids
from neuronaut.tools.trials.reads import needed_rule
from neuronaut.tools.units import Unit

VOCABULARY = Vocabulary(("<s>", *"abcdefghij"), frozenset({0}))
RULE = FiringRule(threshold=0.5, median=0.0, top=1.0, spread=0.1, dense=False)
UNIT = Unit("neuron", 1, 5)


def random_text(seed: int, n: int = 60) -> Tokens:
    rng = np.random.default_rng(seed)
    return tokens_from_ids([[0, *rng.integers(1, 11, 40).tolist()] for _ in range(n)], VOCABULARY)


@pytest.fixture(scope="module")
def fit() -> Places:
    return Places((random_text(0), random_text(1)))


@pytest.fixture(scope="module")
def unseen() -> Places:
    return Places((random_text(2),))


def fires_where(places: Places, at: Callable[[Places], NDArray[np.generic]]) -> Firing:
    values = at(places).astype(np.float64)
    return Firing(values > 0, values)


def tables_of(
    width: int, rule: Callable[[Places], NDArray[np.generic]], fit: Places, unseen: Places
) -> list[set[tuple[int, ...]]]:
    keys = Keys.of(width, fit, unseen)
    return [set(entries(keys, chosen)) for chosen in fit_tables(keys, fires_where(fit, rule), fit, SIZES)]


def after(previous: int, token: int) -> Callable[[Places], NDArray[np.bool_]]:
    return lambda places: (places.tokens_before(0) == token) & (places.tokens_before(1) == previous)


def test_places_follow_the_windows_of_a_text() -> None:
    text = tokens_from_ids([[0, 3, 4], [5]], VOCABULARY)
    places = Places((text, text))
    assert places.tokens_before(0).tolist() == [3, 4, 5] * 2
    assert places.tokens_before(1).tolist() == [0, 3, NO_TOKEN] * 2
    assert places.tokens_before(2).tolist() == [NO_TOKEN, 0, NO_TOKEN] * 2
    grid = np.array([[9.0, 0.2, 0.6], [1.0, 9.0, 9.0]], dtype=np.float32)
    firing = places.firing([grid, -grid], RULE)
    assert firing.fires.tolist() == [False, True, True, False, False, False]
    assert firing.mass.tolist() == pytest.approx([0.0, 0.6, 1.0, 0.0, 0.0, 0.0])


def test_keys_are_the_sequences_that_end_at_each_place(fit: Places, unseen: Places) -> None:
    for width in WIDTHS.values():
        keys = Keys.of(width, fit, unseen)
        for codes, places in ((keys.fit, fit), (keys.unseen, unseen)):
            slow = [places.tokens_before(offset) for offset in range(width - 1, -1, -1)]
            for at in range(0, len(codes), 97):
                sequence = [int(column[at]) for column in slow]
                if codes[at] < len(keys.names):
                    assert keys.names[codes[at]].tolist() == sequence
                else:
                    assert sequence not in keys.names.tolist()
        assert keys.places.sum() == len(fit.documents)


def test_the_table_of_a_token_unit_is_that_token(fit: Places, unseen: Places) -> None:
    tables = tables_of(1, lambda places: places.tokens_before(0) == 7, fit, unseen)
    assert tables == [{(7,)}] * 3


def test_a_pair_needs_the_table_of_pairs(fit: Places, unseen: Places) -> None:
    assert tables_of(2, after(3, 7), fit, unseen) == [{(3, 7)}] * 3
    keys = Keys.of(1, fit, unseen)
    chosen = fit_tables(keys, fires_where(fit, after(3, 7)), fit, [5])
    (quality,) = qualities([keys.held(chosen[0])], fires_where(unseen, after(3, 7)), unseen)
    assert quality.coverage == 1.0
    assert quality.precision == pytest.approx(0.1, abs=0.05)
    none = fit_tables(Keys.of(2, fit, unseen), fires_where(fit, after(3, 7)), fit, [1])
    assert [len(table) for table in none] == [0]


def test_the_items_run_out_and_the_heaviest_entries_stay(fit: Places, unseen: Places) -> None:
    def rule(places: Places) -> NDArray[np.float64]:
        return np.array([0, 0, 0, 9, 8, 7, 6, 0, 0, 0, 0.0])[places.tokens_before(0)]

    keys = Keys.of(1, fit, unseen)
    chosen = fit_tables(keys, fires_where(fit, rule), fit, (1, 2, 3, 4, 9))
    assert [sorted(entries(keys, table)) for table in chosen] == [
        [(3,)], [(3,), (4,)], [(3,), (4,), (5,)], [(3,), (4,), (5,), (6,)], [(3,), (4,), (5,), (6,)]
    ]  # fmt: skip


def test_the_table_is_the_best_subset_of_all() -> None:
    fit, unseen = Places((random_text(4, 400),)), Places((random_text(5),))
    rates = np.array([0, 0.9, 0.75, 0.55, 0.5, 0.3, 0.2, 0.05, 0, 0, 0])
    token = fit.tokens_before(0)
    fires = np.random.default_rng(6).random(len(token)) < rates[token]
    firing = Firing(fires, fires.astype(np.float64))

    def worth(tokens: tuple[int, ...]) -> float:
        held = np.isin(token, tokens)
        return min(fires[held].mean() / 0.6, fires[held].sum() / fires.sum() / 0.5)

    keys = Keys.of(1, fit, unseen)
    for size, chosen in zip((1, 2, 3, 4), fit_tables(keys, firing, fit, (1, 2, 3, 4)), strict=True):
        best = max(worth(tokens) for n in range(1, size + 1) for tokens in combinations(range(1, 11), n))
        assert worth(tuple(row[0] for row in entries(keys, chosen))) == pytest.approx(best, abs=0.01)


def test_no_table_passes_on_a_unit_that_fires_by_chance(fit: Places, unseen: Places) -> None:
    rng = np.random.default_rng(3)
    for width in WIDTHS.values():
        keys = Keys.of(width, fit, unseen)
        mine, other = (
            Firing(f, f.astype(np.float64)) for f in (rng.random(len(p.documents)) < 0.03 for p in (fit, unseen))
        )
        held = [keys.held(table) for table in fit_tables(keys, mine, fit, SIZES)]
        assert not any(passes(quality.as_json()) for quality in qualities(held, other, unseen))


def test_nothing_of_unseen_text_enters_a_table(fit: Places) -> None:
    chosen = []
    for seed in (2, 9):
        keys = Keys.of(2, fit, Places((random_text(seed, 20),)))
        chosen.append(
            [set(entries(keys, table)) for table in fit_tables(keys, fires_where(fit, after(3, 7)), fit, SIZES)]
        )
    assert chosen[0] == chosen[1]


def test_quality_is_that_of_a_plain_count(unseen: Places) -> None:
    rng = np.random.default_rng(8)
    held, mass = rng.random(len(unseen.documents)) < 0.3, rng.random(len(unseen.documents))
    fires = mass > 0.6
    firing = Firing(fires, np.where(fires, mass, 0.0))
    (found,) = qualities([held], firing, unseen)
    assert found.precision == pytest.approx(sum(h and f for h, f in zip(held, fires, strict=True)) / sum(held))
    assert found.coverage == pytest.approx(sum(mass[held & fires]) / sum(mass[fires]))
    numbers = sorted(set(unseen.documents.tolist()))
    draws = [rng.choice(numbers, len(numbers)) for _ in range(2000)]
    part = [
        np.array([[(held & fires)[unseen.documents == d].sum(), held[unseen.documents == d].sum()] for d in numbers])
    ]
    shares = [part[0][draw].sum(axis=0) for draw in draws]
    assert found.precision_low == pytest.approx(np.quantile([a / b for a, b in shares], 0.05), abs=0.005)


def test_quality_is_calibrated_at_nothing_and_at_everything(unseen: Places) -> None:
    firing = fires_where(unseen, lambda places: places.tokens_before(0) == 7)
    none, every, exact = np.zeros_like(firing.fires), np.ones_like(firing.fires), firing.fires
    nothing, everything, right = qualities([none, every, exact], firing, unseen)
    assert nothing == type(nothing)(0.0, 0.0, 0.0, 0.0)
    assert everything.precision == pytest.approx(firing.fires.mean())
    assert everything.coverage_low == 1.0
    assert right == type(right)(1.0, 1.0, 1.0, 1.0)
    (silent,) = qualities([every], Firing(none, np.zeros(len(none))), unseen)
    assert (silent.precision, silent.coverage) == (0.0, 0.0)


def test_a_trie_counts_shared_beginnings_once_and_matches_as_read(unseen: Places) -> None:
    patterns = [((0, 7), (1, 3)), ((0, 7), (2, 4)), ((0, 7), (1, 3), (2, 5)), ((0, 8),)]
    assert trie_items(patterns) == 5
    windows = Windows.of(unseen, 11)
    token, previous, second = (unseen.tokens_before(offset) for offset in range(3))
    slow = ((token == 7) & ((previous == 3) | (second == 4))) | (token == 8)
    assert np.array_equal(windows.held(patterns), slow)


def test_a_cut_trie_stays_within_its_items_and_takes_the_best_first(fit: Places) -> None:
    firing = fires_where(fit, lambda places: 8 * after(3, 7)(places) + (places.tokens_before(0) == 8))
    patterns = [((0, 9),), ((0, 7), (1, 3)), ((0, 8),), ((0, 7),)]
    tries = cut(patterns, Windows.of(fit, 11), firing, (1, 3, 20))
    assert tries == [[((0, 8),)], [((0, 8),), ((0, 7), (1, 3))], [((0, 8),), ((0, 7), (1, 3))]]


def frequent_pair(text: Tokens) -> tuple[int, int]:
    """The commonest pair of tokens of which the second mostly comes without the first."""
    pairs = np.stack([text.ids[:, :-1].ravel(), text.ids[:, 1:].ravel()])
    pairs = pairs[:, ~np.isin(pairs, [PAD, *text.vocabulary.special]).any(axis=0)]
    found, counts = np.unique(pairs, axis=1, return_counts=True)
    alone = np.bincount(text.ids[text.scored])[found[1]]
    previous, now = found[:, np.argmax(np.where(counts < 0.3 * alone, counts, 0))].tolist()
    return previous, now


@pytest.fixture(scope="module")
def planted() -> tuple[Bench, nodes.Predicate, tuple[int, int]]:
    """A third of the embedded model's text; one neuron fires at a token after a certain other one."""
    corpus = Corpus("a third of pocket", "2" * 64, pocket_corpus().documents[::3])
    target = load_target("pocket")
    previous, now = frequent_pair(ToolContext(target, corpus).sample("explore", EXPLORE_TOKENS))
    pieces = target.vocabulary.pieces
    earlier = nodes.At(offset=1, inner=nodes.Token(any_of=(pieces[previous],)))
    rule = nodes.AllOf(of=(nodes.Token(any_of=(pieces[now],)), earlier))
    overlay = Overlay(target, {UNIT: FromPredicate(rule, seed=1, noise=0.02)})
    return Bench(BatchContext(overlay, corpus, units=(UNIT,))), rule, (previous, now)


def test_the_trie_of_a_planted_pair_is_the_pair(planted: tuple[Bench, nodes.Predicate, tuple[int, int]]) -> None:
    bench, _, (previous, now) = planted
    context, rule = bench.context, needed_rule(bench.context, UNIT)
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = context.activations(UNIT, "explore", n_tokens=EXPLORE_TOKENS)
    patterns = find_patterns(Probe(context.target, UNIT, rule.median), tokens, activations, rule)
    assert patterns == [((0, now), (1, previous))]


def test_a_planted_pair_is_found_by_pairs_and_trie_and_by_no_token(
    planted: tuple[Bench, nodes.Predicate, tuple[int, int]],
) -> None:
    bench, rule, _ = planted
    found = bench.measured(UNIT, [rule, nodes.Not(inner=rule)], seed=0)
    at = GRID.index(5)
    token, pair = found["tables"]["token"][at], found["tables"]["token and previous"][at]
    assert pair["items"] == found["trie"]["cuts"][at]["items"] == 2
    for right in (pair, found["trie"]["cuts"][at], found["trie"]["whole"], found["claims"][0]):
        assert passes(right, low=True)
        assert (right["precision"], right["coverage"]) == (1.0, 1.0)
    for wrong in (token, found["claims"][1]):
        assert not passes(wrong)
    assert found["trie"]["forwards"] > 0


def made_row(case: str, *, items: int, status: str = "SUPPORTED", tables: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Row:
    """A row whose tables all have the given precision at each size, full coverage, and whose claim is right."""
    right = {"precision": 1.0, "coverage": 1.0, "precision_low": 1.0, "coverage_low": 1.0}
    curves = {
        kind: [{**right, "items": size, "precision": p, "precision_low": p - 0.1} for size in GRID]
        for kind, p in zip(WIDTHS, tables, strict=True)
    }
    claim = {"status": status, "items": items, "unseen": {**right, "items": items}}
    trie = {"cuts": curves["token"], "whole": curves["token"][0], "forwards": 1.0}
    return {"case": case, "outcome": "ok", "claims": [claim], "one_shot": None, "tables": curves, "trie": trie}


def test_a_way_reaches_a_unit_only_within_its_items() -> None:
    row = made_row("1.1", items=6, tables=(0.65, 0.75, 0.1))
    small, large = reached(row, 5), reached(row, 20)
    assert not small["loop"]
    assert not small["tested"]
    assert large["loop"]
    assert large["tested"]
    assert not large["one-shot"]
    assert (large["token"], large["token (bound)"]) == (True, False)
    assert (large["token and previous"], large["token and previous (bound)"]) == (True, True)
    assert not large["token and two previous"]
    assert not reached(made_row("1.1", items=6, status="PARTIAL"), 20)["loop"]


def test_differences_are_against_the_best_kind_of_table() -> None:
    yes, no = np.ones(40, dtype=bool), np.zeros(40, dtype=bool)
    half = np.arange(40) % 2 == 0
    assert beyond(yes, [no, no, no]) == (1.0, 1.0, 1.0)
    assert beyond(half, [half, no, no]) == (0.0, 0.0, 0.0)
    value, low, high = beyond(yes, [no, half, no])
    assert value == 0.5
    assert low is not None
    assert high is not None
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / np.sqrt(40), abs=0.04)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / np.sqrt(40), abs=0.04)
    assert beyond(yes[:1], [no[:1]]) == (1.0, None, None)


def test_a_failed_case_is_no_zero() -> None:
    rows: list[Row] = [made_row(str(n), items=3, tables=(0.0, 0.9 if n else 0.0, 0.0)) for n in range(4)]
    failed: Row = {"case": "x", "outcome": "failed", "error": "gone"}
    scores = {score.name: score for score in real.SUITE.scores([*rows, failed])}
    assert (scores["loop of at most 5 items"].value, scores["loop of at most 5 items"].n) == (1.0, 4)
    difference = scores["loop minus best table of at most 20 items"]
    assert (difference.value, difference.goal) == (0.25, 0.10)
    assert real.SUITE.scores([failed])[0].value is None
    assert scores_at(rows, 5) == [score for score in scores.values() if score.name.endswith("at most 5 items")]


def test_a_case_that_breaks_is_a_failed_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def asked(bench: object, unit: Unit, asking: Asking, notebook: Path) -> Row:
        if unit.sign < 0:
            raise ToolFailed("the model is gone")
        return {"claims": [], "seconds": 1.0, "forwards": 2.0}

    monkeypatch.setattr(real, "_bench", lambda units: (None, {}))
    monkeypatch.setattr(real, "_asked", asked)
    batch = Batch("real-0", (Case("1.5", "layer 1"), Case("1.5-", "layer 1"), Case("2.2", "layer 2")))
    rows = list(real.SUITE.ask(batch, {"1.5", "1.5-"}, Asking(0, "grammar", "full", tmp_path)))
    assert [(row["case"], row["outcome"]) for row in rows] == [("1.5", "ok"), ("1.5-", "failed")]
    assert rows[1]["error"] == "the model is gone"
    assert rows[1]["seconds"] is None


def test_an_absent_model_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NEURONAUT_REAL_DATA", raising=False)
    with pytest.raises(UserError, match="set NEURONAUT_REAL_DATA"):
        real.SUITE.batches(2, 0)
    monkeypatch.setenv("NEURONAUT_REAL_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"has no models/stories260K.*docs/real-models\.md"):
        real.SUITE.batches(2, 0)


def test_the_figure_shows_each_way_at_its_share() -> None:
    rows = [made_row(str(n), items=3, tables=(0.0, 0.9, 0.0)) for n in range(4)]
    drawn = lines(rows)
    assert drawn[0].label == "SUPPORTED claim"
    assert drawn[0].shares[:3] == [0.0, 0.0, 1.0]
    root = ElementTree.fromstring(curve_svg([*drawn, Line("a < b", GRID, [0.5] * len(GRID), [(0.4, 0.6)] * len(GRID))]))
    space = "{http://www.w3.org/2000/svg}"
    ends = [line.attrib["points"].split()[-1].split(",") for line in root.iter(f"{space}polyline")]
    heights = [float(y) for _, y in ends]
    assert len(heights) == len(drawn) + 1
    ends_at = {line.label: line.shares[-1] for line in drawn}
    whole, none = (heights[[*ends_at.values()].index(share)] for share in (1.0, 0.0))
    assert heights[-1] == pytest.approx((whole + none) / 2)  # one half lies between one and zero
    assert any((text.text or "").startswith("a < b") for text in root.iter(f"{space}text"))


@pytest.mark.slow
def test_the_sample_has_as_many_units_of_each_layer(real_data: Path) -> None:
    del real_data
    cases = [case for batch in real.SUITE.batches(10, 0) for case in batch.cases]
    assert [case.family for case in cases] == [f"layer {layer}" for layer in range(5) for _ in range(2)]
    assert cases == [case for batch in real.SUITE.batches(10, 0) for case in batch.cases]
    assert cases != [case for batch in real.SUITE.batches(10, 1) for case in batch.cases]
    assert {Unit.parse(case.key).sign for batch in real.SUITE.batches(100, 0) for case in batch.cases} == {1, -1}


@pytest.mark.slow
def test_a_signed_unit_of_a_public_model_gives_a_whole_row(real_data: Path, tmp_path: Path) -> None:
    del real_data
    batch = Batch("real-0", (Case("0.33", "layer 0"), Case("0.33-", "layer 0")))
    rows = list(real.SUITE.ask(batch, {"0.33-", "0.33"}, Asking(0, "grammar", "full", tmp_path)))
    assert [row["outcome"] for row in rows] == ["ok", "ok"]
    assert [row["unit"] for row in rows] == ["0.33", "0.33-"]
    assert reached(rows[0], 5)["loop"]  # the neuron fires on " and"
    assert reached(rows[0], 5)["token"]
    assert rows[0]["claims"][0]["unseen"]["precision"] > 0.9
    assert rows[0]["tables"]["token"] != rows[1]["tables"]["token"]

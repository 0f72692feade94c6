"""Pairs of edits: what they change, what they leave alone, and where they come from."""

import runpy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from neuronaut.tools.intervene.pairs import Answers
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.predicates.draw import PairDraw, draw_pairs
from neuronaut.tools.predicates.edits import Pair, Source
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.prepared import prepare
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import leaves
from neuronaut.tools.tokens import Tokens, Vocabulary, tokens_from_ids

Plain = runpy.run_path(str(Path(__file__).with_name("plain_predicates.py")))["Plain"]

WORDS = [f" {a}{b}" for a in "bcdfglmnprst" for b in ("a", "in", "os")]
PIECES = (
    "<s>",
    *WORDS,
    *(word.title() for word in WORDS[:9]),
    "ing",
    "ed",
    ".",
    ",",
    " (",
    "(",
    ")",
    '"',
    ' "',
    " 1",
    " 22",
    "\n",
)
VOCABULARY = Vocabulary(PIECES, frozenset({0}))
N_CTX = 48


def text(seed: int = 0, n_windows: int = 150) -> Tokens:
    rng = np.random.default_rng(seed)
    share = 1 / (3 + np.arange(1, len(PIECES)))
    share[len(WORDS) :] = 0.02
    rows = [
        [0, *(1 + rng.choice(len(PIECES) - 1, size=int(rng.integers(12, 40)), p=share / share.sum())).tolist()]
        for _ in range(n_windows)
    ]
    return tokens_from_ids(rows, VOCABULARY, documents=[i // 2 for i in range(n_windows)])


def source(tokens: Tokens, survives: bool = True) -> Source:
    counts = np.bincount(tokens.ids[tokens.scored], minlength=len(PIECES)).astype(float)

    def next_tokens(ids: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.full((len(ids), len(PIECES)), 1 / len(PIECES))

    def roundtrip(rows: Sequence[tuple[int, ...]]) -> list[bool]:
        return [survives and row[-1] % 7 != 3 for row in rows]

    return Source(tokens, counts / counts.sum(), next_tokens, roundtrip, N_CTX)


TOKENS = text()
BOTH = [
    "token(' ba', ' ca', ' da', ' fin')", "word_matches('^b|ing$')", "word('ba', 'bain', 'bin')", r"preceded_by('[ai]n')",
    "inside('(', ')')", "inside('\"', '\"')", "position(4, 9)", "starts_word", "starts_sentence", "digit", "capitalised",
    "at(2, punctuation)", "at(1, inside('(', ')'))", "within(5, digit)", "not(within(5, digit))", "since(digit, punctuation)",
    "not(at(1, capitalised))", "token_matches('in')", "at(1, any_of(digit, capitalised))",
    "word_so_far('ba', 'bosing', 'bin')", "word_so_far('BIN', 'cosing', 'BA', '1ed', ignore_case=True)",
]  # fmt: skip
MAKE_ONLY = [
    "word_so_far('bosing')",
    "token(' ba')",
    "repeated(2)",
    "induction(1)",
    "within(6, token(' 1'))",
    "at(1, token(' ba'))",
]
SEVERAL = [
    "all_of(token(' ba', ' ca', ' da'), at(1, capitalised))",
    "all_of(starts_word, not(capitalised), position(0, 12))",
    "any_of(digit, all_of(capitalised, within(6, punctuation)))",
    "all_of(inside('(', ')'), repeated(1))",
    "modes(mode(digit, 1.0), mode(at(1, digit), 0.5))",
]  # fmt: skip


def drawn(claim: str, **more: int) -> PairDraw:
    return draw_pairs(parse_text(claim), source(TOKENS), limit=40, **more)


def by_arm(pairs: Sequence[Pair], leaf: int) -> Counter[str]:
    return Counter(pair.arm for pair in pairs if pair.leaf == leaf)


@pytest.mark.parametrize("claim", BOTH + MAKE_ONLY + SEVERAL)
def test_the_arms_differ_in_one_leaf_and_in_the_predicate(claim: str) -> None:
    """Judged by the plain evaluator. Only the leaf under test may differ between the arms."""
    predicate = parse_text(claim)
    pairs = drawn(claim).pairs
    assert pairs
    for pair in pairs:
        true, false = (
            (Plain(tokens_from_ids([side.ids], VOCABULARY), 0), side.position) for side in (pair.true, pair.false)
        )
        assert true[0].holds(predicate, true[1])
        assert not false[0].holds(predicate, false[1])
        for number, leaf in enumerate(leaves(predicate)):
            values = true[0].holds(leaf, true[1]), false[0].holds(leaf, false[1])
            assert (values == (True, False)) if number == pair.leaf else (values[0] == values[1]), (str(leaf), pair)


@pytest.mark.parametrize("claim", BOTH + SEVERAL[:3])
def test_both_arms_are_edited_at_one_place_of_the_document(claim: str) -> None:
    """Natural text is on neither side; unless the prefix moves, the two sides differ at the one edited position."""
    for pair in drawn(claim).pairs:
        assert pair.true.ids != pair.false.ids
        for side in (pair.true, pair.false):
            windows = TOKENS.ids[TOKENS.documents == pair.document].tolist()
            assert len(side.ids) <= 3 or not any(tuple(window[: len(side.ids)]) == side.ids for window in windows)
            assert len(side.ids) <= N_CTX
            assert side.ids[0] == 0
        if len(pair.true.ids) == len(pair.false.ids) and "position" not in claim:
            assert sum(a != b for a, b in zip(pair.true.ids, pair.false.ids, strict=True)) == 1


@pytest.mark.parametrize("claim", BOTH)
def test_each_condition_is_tested_where_it_holds_and_where_it_does_not(claim: str) -> None:
    assert min(by_arm(drawn(claim).pairs, 0).get(arm, 0) for arm in ("keep_break", "make_placebo")) >= 5


@pytest.mark.parametrize("claim", MAKE_ONLY)
def test_what_one_token_makes_true_is_only_made(claim: str) -> None:
    assert set(by_arm(drawn(claim).pairs, 0)) == {"make_placebo"}
    assert set(by_arm(drawn(f"not({claim})").pairs, 0)) == {"keep_break"}


@pytest.mark.parametrize("claim", SEVERAL[:3])
def test_every_leaf_gets_pairs_of_its_own(claim: str) -> None:
    pairs = drawn(claim).pairs
    assert {pair.leaf for pair in pairs} == set(range(len(leaves(parse_text(claim)))))
    assert {pair.leaf for pair in drawn(claim, leaf=1).pairs} == {1}


def test_an_arm_says_whether_the_claim_held_before_the_edit() -> None:
    predicate = parse_text("at(2, digit)")
    held = holds(predicate, TOKENS)
    for pair in drawn("at(2, digit)").pairs:
        ends = {
            bool(held[row, pair.true.position])
            for row in np.flatnonzero(TOKENS.documents == pair.document)
            if pair.true.position < TOKENS.lengths[row]
            and sum(a != b for a, b in zip(TOKENS.ids[row], pair.true.ids, strict=False)) == 1
        }
        assert (pair.arm == "keep_break") in ends


def test_a_continuation_is_made_by_the_odd_token_of_an_earlier_near_match() -> None:
    tokens = tokens_from_ids([[0, 1, 2, 3, 4, 5, 6, 1, 2, 8 + i] for i in range(5)], VOCABULARY)
    pairs = draw_pairs(parse_text("induction(2)"), source(tokens), limit=20).pairs
    ends = [pair for pair in pairs if pair.true.position == 9]
    assert ends
    for pair in ends:
        assert pair.true.ids[3] == pair.true.ids[9] != pair.false.ids[3]
        assert pair.false.ids[3] != 3


def test_text_that_does_not_survive_decoding_is_never_used() -> None:
    pairs = drawn("digit").pairs
    assert all(side.ids[-1] % 7 != 3 for pair in pairs for side in (pair.true, pair.false))
    nothing = draw_pairs(parse_text("digit"), source(TOKENS, survives=False), limit=40)
    assert nothing.pairs == ()
    assert sum(nothing.discarded.values()) > 0


def test_a_document_gives_at_most_four_pairs_of_a_leaf_and_all_have_a_turn() -> None:
    pairs = draw_pairs(parse_text("starts_word"), source(TOKENS), limit=2000).pairs
    assert max(Counter(pair.document for pair in pairs).values()) <= 4
    few = draw_pairs(parse_text("starts_word"), source(TOKENS), limit=60).pairs
    assert max(Counter((pair.document, pair.arm) for pair in few).values()) == 1


def test_the_same_claim_draws_the_same_pairs_and_another_one_does_not() -> None:
    assert drawn("digit") == drawn("digit")
    assert [p.document for p in drawn("digit").pairs] != [p.document for p in drawn("capitalised").pairs]


def test_replacements_follow_one_distribution_but_for_the_truth() -> None:
    """token(A): at "make" places A stands in for a word as often as unigram and model say, relative to each other."""
    tokens = text(3, 600)
    pairs = draw_pairs(parse_text("token(' ba', ' cos')"), source(tokens), limit=600).pairs
    made = Counter(PIECES[pair.true.ids[-1]] for pair in pairs if pair.arm == "make_placebo")
    share = source(tokens).unigram
    expected = (share[PIECES.index(" ba")] + 1 / len(PIECES)) / (share[PIECES.index(" cos")] + 1 / len(PIECES))
    assert made[" ba"] / made[" cos"] > 1
    assert made[" ba"] / made[" cos"] == pytest.approx(expected, rel=0.7)


def test_the_strongest_rival_is_left_alone_where_it_can_be() -> None:
    rival = parse_text("token_matches('in')")

    def shares_rival(avoid: bool) -> float:
        pairs = draw_pairs(
            parse_text("token_matches('[bd]')"), source(TOKENS), limit=60, avoid=rival if avoid else None
        ).pairs
        truths = [
            [
                holds(rival, tokens_from_ids([side.ids], VOCABULARY))[0, side.position]
                for side in (pair.true, pair.false)
            ]
            for pair in pairs
        ]
        return float(np.mean([a == b for a, b in truths]))

    assert shares_rival(True) > 0.9 > shares_rival(False)


def test_id_rows_become_text_with_offsets() -> None:
    tokens = tokens_from_ids([[0, 1, 2], [0, 3]], VOCABULARY, documents=[4, 9])
    assert tokens.texts == (PIECES[1] + PIECES[2], PIECES[3])
    assert tokens.documents.tolist() == [4, 9]
    for window, pos in np.argwhere(tokens.scored):
        start, end = tokens.starts[window, pos], tokens.ends[window, pos]
        assert tokens.texts[window][start:end] == PIECES[tokens.ids[window, pos]]


def together() -> Tokens:
    """Text in which " fin" stands behind " ba" only, and behind it always: no natural place tells the two apart."""
    ba, fin = PIECES.index(" ba"), PIECES.index(" fin")
    rows = []
    for row in text(5).ids.tolist():
        kept = [token for token in row if token not in (ba, fin, -1)]
        rows.append([*kept[:6], ba, fin, *kept[6:]])
    return tokens_from_ids(rows, VOCABULARY, documents=[i // 2 for i in range(len(rows))])


@pytest.mark.parametrize(
    "claim", ["all_of(token(' fin'), at(1, token(' ba')))", "any_of(digit, all_of(token(' fin'), at(1, token(' ba'))))"]
)
def test_conditions_that_always_come_together_are_told_apart_at_prepared_places(claim: str) -> None:
    """The other condition is made true in both arms; each leaf has its pairs, judged by the plain evaluator."""
    predicate, tokens = parse_text(claim), together()
    pairs = draw_pairs(predicate, source(tokens), limit=40).pairs
    for number, leaf in enumerate(leaves(predicate)):
        mine = [pair for pair in pairs if pair.leaf == number]
        assert len(mine) >= 20, str(leaf)
        for pair in mine:
            assert sum(a != b for a, b in zip(pair.true.ids, pair.false.ids, strict=True)) == 1
            for side, wanted in ((pair.true, True), (pair.false, False)):
                plain = Plain(tokens_from_ids([side.ids], VOCABULARY), 0)
                assert plain.holds(predicate, side.position) is wanted
                others = [
                    plain.holds(one, side.position)
                    for one in leaves(predicate)
                    if one not in (leaf, leaves(predicate)[0])
                ]
                assert (claim.startswith("any_of") and number == 0) or all(others)
    assert max(Counter((pair.document, pair.leaf) for pair in pairs).values()) <= 4


def test_a_place_is_not_prepared_for_what_stands_alone_or_cannot_be_made_true() -> None:
    tokens, rng = together(), np.random.default_rng(0)
    share = source(tokens).unigram
    for claim, leaf in (
        ("digit", "digit"),
        ("any_of(digit, punctuation)", "digit"),
        ("all_of(digit, token(' nowhere'))", "digit"),
    ):
        assert prepare(parse_text(claim), parse_text(leaf), tokens, share, rng, 20) is None
    placed = prepare(
        parse_text("all_of(digit, position(3, 5), capitalised)"), parse_text("capitalised"), tokens, share, rng, 20
    )
    assert placed is not None
    assert {pos - 1 for pos in placed.places[:, 1].tolist()} <= {3, 4, 5}
    assert holds(parse_text("digit"), placed.tokens)[tuple(placed.places.T)].all()


def test_a_rival_is_told_apart_by_the_pairs_that_leave_it_as_it_is() -> None:
    """A unit that fires on three tokens against the rival that knows one of them, and against the whole rule."""
    rule = FiringRule(threshold=0.5, median=0.0, top=1.0, spread=1.0, dense=False)
    claim, rival = parse_text("token(' ba', ' ca', ' da')"), parse_text("token(' ba')")
    pairs = draw_pairs(claim, source(TOKENS), limit=60).pairs
    answers = Answers(pairs, np.ones(len(pairs), dtype=np.float32), np.zeros(len(pairs), dtype=np.float32))
    texts = answers.texts(VOCABULARY)
    alike = [
        pair
        for pair in pairs
        if len(
            {Plain(tokens_from_ids([s.ids], VOCABULARY), 0).holds(rival, s.position) for s in (pair.true, pair.false)}
        )
        == 1
    ]
    assert 0 < len(alike) < len(pairs)
    told = answers.told_apart(rival, texts, rule)
    assert len(told) == len({pair.document for pair in alike})
    assert set(told) == {1.0}
    assert answers.told_apart(claim, texts, rule) == ()
    follows_rival = np.array(
        [Plain(tokens_from_ids([p.true.ids], VOCABULARY), 0).holds(rival, p.true.position) for p in pairs]
    )
    wrong = Answers(pairs, follows_rival.astype(np.float32), np.zeros(len(pairs), dtype=np.float32))
    assert wrong.told_apart(rival, texts, rule) == ()  # nothing that it leaves alone moves the unit

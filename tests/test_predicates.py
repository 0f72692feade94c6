"""The hypothesis language: what it means, that it reads back from both of its forms, and what it refuses."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates import nodes, tree
from neuronaut.tools.predicates.evaluate import holds, strength
from neuronaut.tools.predicates.nodes import Predicate, branches
from neuronaut.tools.predicates.text import parse_text, readable, spelled
from neuronaut.tools.predicates.tree import canonical_json, complexity, leaves, predicate_from_json, simplify
from neuronaut.tools.predicates.words import claim_text, told_from
from neuronaut.tools.tokens import Tokens, Vocabulary, tokens_from_ids

Plain = runpy.run_path(str(Path(__file__).with_name("plain_predicates.py")))["Plain"]

REPEATABLE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
PIECES = (
    "<s>", " a", " A", "a", "b", " b", "1", " 2", ".", "!", "\n", '"', ' "', "(", " (", ")", '."', "'", "'t", "’", " ",
    "ß", " É", "_", "not(", "\\", ", (", "B c", "</s>",
)  # fmt: skip
VOCABULARY = Vocabulary(PIECES, frozenset({0, 28}))
REGEXES = ("a", "^ ", "[ab1]$", "a|b", r"\d", r"\bb", "^", r"\. ?", "(?i)A$", "[^a]", "a+", r"^.{60,64}")

pieces = st.sampled_from(PIECES[1:-1])
regexes = st.sampled_from(REGEXES)
some = st.lists(pieces, min_size=1, max_size=3).map(tuple)
simple = st.one_of(
    st.builds(nodes.Token, any_of=some, ignore_case=st.booleans(), ignore_space=st.booleans()),
    st.builds(nodes.TokenMatches, regex=regexes),
    st.builds(nodes.Word, any_of=st.lists(st.sampled_from(["a", "A", "ab", "b1", "a't"]), min_size=1).map(tuple)),
    st.builds(nodes.WordMatches, regex=regexes),
    st.builds(
        nodes.WordSoFar,
        any_of=st.lists(st.sampled_from(["a", "A", "ab", "a'", "a't", ".", '."', "\n", " "]), min_size=1).map(tuple),
        ignore_case=st.booleans(),
    ),
    st.builds(nodes.PrecededBy, regex=regexes),
    st.sampled_from([nodes.Inside(open=o, close=c) for o, c in (("(", ")"), ('"', '"'), ("'", "’"), (".", "!"))]),
    st.builds(nodes.Repeated, min_gap=st.integers(1, 6)),
    st.builds(nodes.Induction, length=st.integers(1, 3)),
    st.builds(lambda a, b: nodes.Position(first=min(a, b), last=max(a, b)), st.integers(0, 9), st.integers(0, 9)),
    st.sampled_from(
        [nodes.StartsWord(), nodes.StartsSentence(), nodes.Digit(), nodes.Capitalised(), nodes.Punctuation()]
    ),
)


def _larger(inner: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(nodes.At, offset=st.integers(1, 4), inner=inner),
        st.builds(nodes.Within, window=st.integers(1, 6), inner=inner),
        st.builds(nodes.Since, inner=inner, last=inner),
        st.builds(nodes.Not, inner=inner),
        st.builds(nodes.AllOf, of=parts),
        st.builds(nodes.AnyOf, of=parts),
    )


unweighted = st.recursive(simple, _larger, max_leaves=5).filter(lambda p: tree.depth(p) <= 5)
weights = st.sampled_from([0.1, 0.25, 0.5, 1.0])
modes = st.lists(st.builds(nodes.Mode, predicate=unweighted, strength=weights), min_size=2, max_size=3)
graded = st.lists(st.builds(nodes.Weighted, predicate=unweighted, weight=weights), min_size=1, max_size=3)
predicates = st.one_of(
    unweighted,
    modes.map(lambda parts: nodes.Modes(of=tuple(parts))),
    graded.map(lambda parts: nodes.Graded(of=tuple(parts))),
)
windows = st.lists(
    st.lists(st.integers(1, len(PIECES) - 2), min_size=1, max_size=30).map(lambda ids: [0, *ids]),
    min_size=1,
    max_size=3,
)


def assert_agrees_with_plain_reading(predicate: Predicate, tokens: Tokens) -> None:
    found = strength(predicate, tokens)
    for window in range(len(tokens)):
        plain = Plain(tokens, window)
        expected = [plain.strength(predicate, at) for at in range(tokens.ids.shape[1])]
        assert found[window].tolist() == pytest.approx(expected, abs=1e-6), (str(predicate), tokens.texts[window])
    assert (holds(predicate, tokens) == (found > 0)).all()


@settings(REPEATABLE, max_examples=300)
@given(predicates, windows)
def test_the_fast_evaluator_agrees_with_a_plain_one(predicate: Predicate, rows: list[list[int]]) -> None:
    assert_agrees_with_plain_reading(predicate, tokens_from_ids(rows, VOCABULARY))


@settings(REPEATABLE, max_examples=300)
@given(predicates)
def test_json_and_readable_text_give_the_predicate_back(predicate: Predicate) -> None:
    assert predicate_from_json(canonical_json(predicate)) == predicate
    assert predicate_from_json(json.loads(canonical_json(predicate))) == predicate
    assert parse_text(str(predicate)) == predicate
    assert readable(predicate) == str(predicate)


@settings(REPEATABLE, max_examples=150)
@given(unweighted, windows)
def test_a_simplified_predicate_means_the_same(predicate: Predicate, rows: list[list[int]]) -> None:
    tokens = tokens_from_ids(rows, VOCABULARY)
    simpler = simplify(predicate)
    assert (holds(simpler, tokens) == holds(predicate, tokens)).all()
    assert complexity(simpler) <= complexity(predicate)


@settings(REPEATABLE, max_examples=200)
@given(st.text(max_size=30).filter(bool))
def test_any_piece_reads_back_from_text(piece: str) -> None:
    predicate = nodes.Not(inner=nodes.Token(any_of=(piece,)))
    assert parse_text(str(predicate)) == predicate
    assert claim_text(predicate).isprintable()


@pytest.mark.parametrize(
    ("text", "predicate"),
    [
        ("digit", "..1....2"),
        ("at(1, digit)", "...1...."),
        ("within(3, digit)", "...aaa.."),
        ("since(digit, token('.'))", "...aaa.."),
        ("starts_sentence", "a.....b."),
        ("inside('(', ')')", "....a..."),
        ("position(1, 2)", ".:1....."),
        ("preceded_by('1.*')", "...::::2"),
        ("word_so_far('a')", "a...a..."),
        ("word_so_far('1', '(')", "..1(...."),
    ],
)
def test_leaves_hold_where_their_names_say(text: str, predicate: str) -> None:
    row = [PIECES.index(piece) for piece in (" a", ".", "1", " (", "a", ")", " b", " 2")]
    if text == "starts_sentence":
        row[5] = PIECES.index(".")
    if text.startswith("since"):
        row[5] = PIECES.index(".")
    found = holds(parse_text(text), tokens_from_ids([[0, *row]], VOCABULARY))[0]
    assert not found[0]
    expected = [mark != "." for mark in predicate]
    assert found[1:].tolist() == expected


@pytest.mark.parametrize("rows", [[], [[0]], [[0], [0, 28]]])
def test_text_of_special_tokens_alone_holds_nothing(rows: list[list[int]]) -> None:
    tokens = tokens_from_ids(rows, VOCABULARY)
    for text in (
        "starts_sentence",
        "preceded_by('^')",
        "word_matches('^')",
        "not(digit)",
        "within(2, digit)",
        "repeated(1)",
    ):
        assert not holds(parse_text(text), tokens).any()


def test_windows_do_not_see_each_other() -> None:
    rows = [[0, 1, 2, 6], [0, 1, 1, 5]]
    both = tokens_from_ids(rows, VOCABULARY)
    for text in ("repeated(1)", "within(64, digit)", "induction(1)", "since(digit, token('.'))", "at(2, digit)"):
        alone = [holds(parse_text(text), tokens_from_ids([row], VOCABULARY))[0].tolist() for row in rows]
        assert holds(parse_text(text), both).tolist() == alone


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("at(65, digit)", "64"),
        ("within(257, digit)", "256"),
        ("at(0, digit)", "1"),
        ("position(5, 3)", "first"),
        ("token_matches('(')", "regular expression"),
        (r"preceded_by('\\Qab')", "regular expression"),
        ("token_matches('(?=a)')", "linear time"),
        (f"token_matches('{'a' * 201}')", "200"),
        ("not(not(not(not(not(not(digit))))))", "7 deep"),
        ("all_of(digit, promotes(' a'))", "output"),
        ("digit(ignore_case=True)", "named"),
        ("repeated(1, 2)", "language"),
        ("modes(mode(digit, 2), mode(digit, 1))", "1"),
        ("__import__('os')", "language"),
        ("digit.x", "predicate"),
        ("token('a' + 'b')", "str"),
        ("(" * 150 + ")" * 150, "predicate"),
        ("a\x00b", "predicate"),
        ("", "language"),
        ("word()", "1 item"),
        ("any_of(" + ", ".join(f"token('{i}')" for i in range(65)) + ")", "64"),
        ("any_of(" + ", ".join(f"token({', '.join(repr(str(j)) for j in range(130))})" for i in range(2)) + ")", "256"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_a_reason(source: str, why: str) -> None:
    with pytest.raises(ToolRefused, match=why) as refusal:
        parse_text(source)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    "source",
    [
        "[]", "nonsense", "{}", '{"kind":"token"}', '{"kind":"concept","probe_id":3}', '{"kind":"digit","x":1}',
        '{"kind":"token","any_of":["\\ud800"]}', '{"kind":"at","offset":1e99,"inner":{"kind":"digit"}}',
        '{"kind":"graded","of":[{"predicate":{"kind":"digit"},"weight":NaN}]}',
        '{"kind":"not","inner":' * 5000, "1" * 99999,
    ],
)  # fmt: skip
def test_malformed_json_is_refused_in_one_sentence(source: str) -> None:
    with pytest.raises(ToolRefused) as refusal:
        predicate_from_json(source)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_a_deeply_nested_dictionary_is_refused() -> None:
    nested: dict[str, object] = {"kind": "digit"}
    for _ in range(3000):
        nested = {"kind": "not", "inner": nested}
    with pytest.raises(ToolRefused, match="no predicate"):
        predicate_from_json(nested)


def test_a_regular_expression_runs_in_linear_time() -> None:
    """(a+)+$ takes a backtracking engine 2^60 steps on this piece."""
    vocabulary = Vocabulary(("<s>", "a" * 60 + "!"), frozenset({0}))
    assert not holds(parse_text("token_matches('^(a+)+$')"), tokens_from_ids([[0, 1]], vocabulary)).any()


@pytest.mark.parametrize(
    ("regex", "count"),
    [
        ("a", 1), ("a|b", 2), ("[abc]", 3), ("[a-z]", 5), ("[0-3]", 4),
        (r"\d", 5), (r"[\d_]", 6), (r"\.", 1), ("a.b", 5), ("[^x]", 5),
        ("[]a]", 2), ("[[:alpha:]x]", 6), (r"a\|b", 1), ("[a|b]", 3), (r"\p{Lu}x", 5), ("(in|on) the", 2),
    ],
)  # fmt: skip
def test_branches_count_alternatives_and_members_of_classes(regex: str, count: int) -> None:
    assert branches(regex) == count


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("token(' a')", 2),
        ("token(' a', ' b')", 3),
        ("digit", 5),
        ("at(2, token(' a'))", 3),
        ("all_of(token(' a'), not(repeated(1)))", 4),
        ("inside('(', ')')", 3),
        ("since(token(' a'), token('.'))", 4),
        ("preceded_by('in|on')", 3),
    ],
)
def test_complexity_counts_items(text: str, items: int) -> None:
    assert complexity(parse_text(text)) == items


def test_leaves_keep_the_place_that_they_speak_of() -> None:
    predicate = parse_text("any_of(all_of(digit, at(1, token(' a'))), not(digit), digit)")
    assert [str(leaf) for leaf in leaves(predicate)] == ["digit", "at(1, token(' a'))", "not(digit)"]


def test_output_claims_hold_at_no_token() -> None:
    with pytest.raises(ToolRefused, match="output"):
        holds(parse_text("promotes(' a')"), tokens_from_ids([[0, 1]], VOCABULARY))


def test_claims_are_sentences() -> None:
    assert claim_text(parse_text("all_of(digit, at(1, token(' in')))")) == ('fires on a digit just after " in"')
    modes = parse_text("modes(mode(token(' the'), 1.0), mode(at(1, token(' a')), 0.5))")
    assert claim_text(modes) == 'fires on " the"; 0.5 as strongly on any token just after " a"'
    text = "all_of(not(at(1, punctuation)), at(2, digit), capitalised, position(8, 8192), not(repeated(1)))"
    assert claim_text(parse_text(text)) == (
        "fires on a capitalised token 2 tokens after a digit and from place 9 of the text on but not just after punctuation "
        "and that has not occurred before"
    )
    assert claim_text(parse_text("promotes(' a', '\\n')")) == 'raises " a", "\\n"'
    assert claim_text(parse_text("digit"), sign=-1) == "falls on a digit"


def test_on_real_text_the_fast_evaluator_agrees_with_a_plain_one(real_data: Path) -> None:
    text = (real_data / "corpora" / "tinyshakespeare.txt").read_text()[:6000]
    pieces = ("<s>", *sorted({text[i : i + n] for n in (1, 2) for i in range(len(text) - n)}))
    vocabulary = Vocabulary(pieces, frozenset({0}))
    numbers = {piece: number for number, piece in enumerate(pieces)}
    rng, rows, at = np.random.default_rng(0), [], 0
    while at < len(text) - 400:
        row = [0]
        for size in rng.integers(1, 3, size=100):
            row.append(numbers[text[at : at + size]])
            at += int(size)
        rows.append(row)
    tokens = tokens_from_ids(rows, vocabulary)
    for source in (
        "starts_sentence", "starts_word", "word('the', 'you')", "word_matches('^[A-Z]+$')",
        r"preceded_by('\\bt[a-z]+ ')", "induction(2)", "repeated(5)", "since(capitalised, punctuation)",
        "within(4, all_of(punctuation, not(repeated(1))))",
    ):  # fmt: skip
        predicate = parse_text(source)
        assert holds(predicate, tokens).any()
        assert_agrees_with_plain_reading(predicate, tokens)


def test_two_lists_that_read_the_same_are_told_apart() -> None:
    first, second = (nodes.WordSoFar(any_of=tuple("abcdefgh") + more) for more in (("x",), ("y", "z")))
    assert claim_text(first).replace("3 more", "4 more") == claim_text(second)
    assert told_from("same", second, first) == 'same, with "y", "z"'
    assert told_from("same", nodes.WordSoFar(any_of=tuple("abcdefgh")), first) == 'same, without "x"'
    assert told_from("same", nodes.Not(inner=first), first) == "same (in another form)"


@pytest.mark.parametrize("part", [" a", "a b", "a!", "!a"])
def test_a_word_so_far_is_one_run(part: str) -> None:
    with pytest.raises(ToolRefused, match="is no word so far"):
        parse_text(f"word_so_far({part!r})")


def test_arguments_are_shown_with_their_predicates_as_text_and_everything_else_as_it_is() -> None:
    predicate = parse_text("all_of(token(' in'), at(1, digit))")
    args = {
        "claim": predicate.model_dump_json(),
        "rivals": [parse_text("digit").model_dump_json()],
        "k": 3,
        "text": '{"kind": "x"}',
    }
    assert spelled(args) == {
        "claim": "all_of(token(' in'), at(1, digit))",
        "rivals": ["digit"],
        "k": 3,
        "text": '{"kind": "x"}',
    }
    assert spelled('{"' * 60_000) == '{"' * 60_000

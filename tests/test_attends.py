"""Where a head looks: keys against loops, attention against a second reading of the weights, the rule, heads that are known."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuronaut.evals.compiled import opened
from neuronaut.evals.head_models.asked import ask_heads
from neuronaut.evals.head_models.constructed import construct
from neuronaut.evals.head_models.measure import Kind
from neuronaut.evals.head_models.truths import Head
from neuronaut.evals.heads import _letters
from neuronaut.memory.causes import AttendsCase, OtherKeys, decide_attends
from neuronaut.tools.corpus import load_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.attends import NAMED, apart, candidates
from neuronaut.tools.look.attention import (
    LOOKS,
    count_looks,
    looked,
    looks_of_heads,
    pattern_of,
    repeated_tokens,
    shuffled,
    some_windows,
)
from neuronaut.tools.look.carried import successors, written_logits
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.attends import (
    NO_KEY,
    AfterDuplicate,
    Attends,
    Copies,
    Current,
    Duplicate,
    First,
    Key,
    Offset,
    Previous,
    To,
    attends_from_json,
    canonical_json,
    cause_from_json,
    complexity,
    keys_of,
    named_keys,
    role_from_json,
    sentence,
)
from neuronaut.tools.predicates.moved_keys import moved_keys
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.stats import e_value
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tokens import Tokens, Vocabulary, tokens_from_ids
from neuronaut.tools.trials.attends import bets_of
from neuronaut.tools.trials.random_heads import shares_of_random_heads
from neuronaut.tools.trials.without import Elsewhere, effect_of_heads
from neuronaut.tools.units import Unit

PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))

LETTERS = Vocabulary(("<s>", "a", "b", "c", "d", "e"), frozenset({0}))
AB = nodes.Token(any_of=("a", "b"))
KEYS: tuple[Key, ...] = (*NAMED, To(inner=AB), To(inner=nodes.Punctuation()))


def letters(n: int, length: int, seed: int = 0, start: tuple[int, ...] = (0,)) -> Tokens:
    rng = np.random.default_rng(seed)
    rows = [[*start, *rng.integers(1, 6, size=int(rng.integers(3, length)))] for _ in range(n)]
    return tokens_from_ids(rows, LETTERS, list(range(n)))


def by_loop(key: Key, row: list[int], query: int) -> set[int]:
    """The keys of one query, by plain Python."""
    usual = [k for k in range(1, query + 1) if row[k] != 0]
    if query < 2 or row[query] == 0:
        return set()
    match key:
        case Previous():
            found = {query - 1}
        case Current():
            found = {query}
        case First():
            begins = next(k for k in range(len(row)) if row[k] != 0)
            found = {begins} if query > begins else set()
        case Offset():
            found = {query - key.n}
        case Duplicate():
            found = {k for k in range(query) if row[k] == row[query]}
        case AfterDuplicate():
            found = {k for k in range(1, query + 1) if row[k - 1] == row[query]}
        case _:
            wanted = (1, 2) if key.inner == AB else ()
            held = [k for k in usual if row[k] in wanted]
            found = {held[-1]} if held else set()
    return found & set(usual)


@pytest.mark.parametrize("start", [(0,), ()])
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.kind)
def test_the_keys_of_a_claim_are_those_of_a_loop(key: Key, start: tuple[int, ...]) -> None:
    tokens = letters(30, 12, start=start)
    named, latest = named_keys(Attends(key=key), tokens), keys_of(Attends(key=key), tokens)
    for window in range(len(tokens)):
        row = tokens.ids[window, : tokens.lengths[window]].tolist()
        for query in range(tokens.ids.shape[1]):
            wanted = by_loop(key, row, query) if query < len(row) else set()
            assert set(np.flatnonzero(named[window, query])) == wanted
            assert latest[window, query] == max(wanted, default=NO_KEY)


def test_a_claim_speaks_only_of_the_queries_that_it_names() -> None:
    tokens = letters(20, 12)
    whole = named_keys(Attends(key=Previous()), tokens)
    some = named_keys(Attends(key=Previous(), queries=AB), tokens)
    asked = np.isin(tokens.ids, (1, 2))
    assert (some == whole & asked[:, :, None]).all()
    assert 0 < some.sum() < whole.sum()


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.kind)
def test_a_claim_comes_back_from_its_json(key: Key) -> None:
    for claim in (Attends(key=key), Attends(key=key, queries=AB, carries=Copies())):
        assert attends_from_json(canonical_json(claim)) == claim
        assert canonical_json(attends_from_json(canonical_json(claim))) == canonical_json(claim)
        assert sentence(claim)
    assert complexity(Attends(key=key, queries=AB, carries=Copies())) == complexity(Attends(key=key)) + 3 + 1


def test_complexity_counts_items() -> None:
    sizes = {key.kind: complexity(Attends(key=key)) for key in KEYS}
    assert sizes["previous"] == sizes["current"] == sizes["first"] == 1
    assert sizes["duplicate"] == sizes["induction"] == sizes["offset"] == 2
    assert complexity(Attends(key=To(inner=AB))) == 4
    maps = attends_from_json(
        '{"kind":"attends","key":{"kind":"current"},"carries":{"kind":"maps","of":["a","b"],"to":["b","c"]}}'
    )
    assert complexity(maps) == 5
    assert sentence(maps) == 'attends to the token itself and writes "b" for "a", "c" for "b"'


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{", "no claim about a head"),
        ('{"kind":"attends","key":{"kind":"nowhere"}}', "no claim about a head"),
        ('{"kind":"attends","key":{"kind":"offset","n":1}}', "greater than or equal to 2"),
        ('{"kind":"role","text":{"kind":"digit"}}', "about a role"),
        ('{"kind":"attends","key":{"kind":"current"},"carries":{"kind":"maps","of":["a","b"],"to":["b","c","d"]}}', "as many"),
        ('{"kind":"attends","key":{"kind":"to","inner":' + '{"kind":"not","inner":' * 7 + '{"kind":"digit"}' + "}" * 7 + "}}", "deep"),
    ],
)  # fmt: skip
def test_bad_claims_are_refused_in_a_sentence(source: str, told: str) -> None:
    with pytest.raises(ToolRefused, match=told):
        attends_from_json(source)


def test_a_role_is_no_claim_about_attention() -> None:
    with pytest.raises(ToolRefused, match="not about a role"):
        role_from_json('{"kind":"attends","key":{"kind":"current"}}')
    assert sentence(cause_from_json('{"kind":"role","text":{"kind":"digit"}}')) == "is needed to predict a digit"


def test_a_query_looks_where_its_attention_is_largest_and_above_the_bar() -> None:
    pattern = np.array([[[0.6, 0.4, 0.0], [0.3, 0.3, 0.4], [0.8, 0.19, 0.01], [0.2, 0.35, 0.45]]], dtype=np.float32)
    keys = np.zeros(pattern.shape, dtype=bool)
    keys[:, :, 1] = True
    assert looked(pattern, keys).tolist() == [[True, False, False, False]]
    keys[:, 3, 2] = True  # two named keys count together
    assert looked(pattern, keys)[0, 3]


def test_looks_are_one_on_the_named_keys_and_zero_off_them() -> None:
    tokens = letters(40, 12)
    for key in (Previous(), Duplicate(), AfterDuplicate()):
        keys = named_keys(Attends(key=key), tokens)
        on = keys / np.maximum(keys.sum(-1, keepdims=True), 1)
        on[..., 0] += 1 - on.sum(-1)
        perfect = count_looks(on.astype(np.float32), keys, tokens)
        assert perfect.share == perfect.share_low == 1.0
        assert perfect.off_first == pytest.approx(1.0)
        assert perfect.covers == pytest.approx(1.0)
        away = np.zeros(keys.shape, dtype=np.float32)
        away[..., 0] = 1.0
        nothing = count_looks(away, keys, tokens)
        assert (nothing.share, nothing.off_first, nothing.covers, nothing.by_chance) == (0, 0, 0, 0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma2", "gemma3"])
def test_shares_are_those_of_a_second_reading_of_the_weights(family: str, tmp_path: Path) -> None:
    folder = made["make_model"](family, tmp_path / family)
    target = load_target(folder)
    defaults = made["CONFIGS"][family]().to_dict()
    texts = [" ".join(np.random.default_rng(i).permutation(made["TEXT"].split())[:9]) for i in range(6)]
    tokens = some_windows(target.tokenize(texts), 0)
    unit, claim = Unit("head", 1, 2), Attends(key=Previous())
    pattern = pattern_of(target, unit, tokens)
    looks = count_looks(pattern, named_keys(claim, tokens), tokens)
    plain, asked, right, off = PlainModel(folder, defaults), 0, 0, 0.0
    for window in range(len(tokens)):
        row = tokens.ids[window, : tokens.lengths[window]].tolist()
        plain.run(torch.tensor([row]))
        own = plain.seen["pattern", 1][0, 2]
        for query in range(2, len(row)):
            if not by_loop(Previous(), [i + 1 if target.spec.bos is None else i for i in row], query):
                continue
            asked += 1
            off += 1 - float(own[query, 0])
            right += float(own[query, query - 1]) > LOOKS and int(own[query, 1:].argmax()) + 1 == query - 1
    assert looks.n_queries == asked > 20
    assert looks.share == pytest.approx(right / asked)
    assert looks.off.sum() == pytest.approx(off, rel=1e-4)


@pytest.mark.parametrize("key", [*NAMED, To(inner=AB)], ids=lambda key: f"{key.kind}{getattr(key, 'n', '')}")
def test_edits_move_the_named_key_and_nothing_but_a_few_tokens(key: Key) -> None:
    tokens, claim = letters(60, 14, seed=1), Attends(key=key)
    pairs = moved_keys(claim, tokens, np.full(6, 1 / 6), limit=80, seed=3)
    assert len(pairs) >= 20
    for pair in pairs:
        assert len(pair.make) == len(pair.placebo) == pair.query + 1
        assert pair.at_make in by_loop(key, list(pair.make), pair.query)
        assert pair.at_placebo not in by_loop(key, list(pair.placebo), pair.query)
        differ = [i for i, (a, b) in enumerate(zip(pair.make, pair.placebo, strict=True)) if a != b]
        assert 1 <= len(differ) <= 2
        if key.kind in ("previous", "current", "first", "offset"):  # the same tokens, elsewhere
            assert sorted(pair.make) == sorted(pair.placebo)
            assert pair.make[pair.at_make] == pair.placebo[pair.at_placebo]
        assert 0 not in pair.make[1:]
    counts = np.bincount([pair.document for pair in pairs])
    assert counts.max() <= 4


def _by_rule(rule: Key, rows: list[tuple[int, ...]]) -> np.ndarray[Any, Any]:
    """A head that looks where a claim says."""
    tokens = tokens_from_ids(rows, LETTERS)
    keys = named_keys(Attends(key=rule), tokens)
    return np.where(keys, 1.0, 0.0) / np.maximum(keys.sum(-1, keepdims=True), 1)


@pytest.mark.parametrize(
    "key", [Previous(), Current(), First(), Duplicate(), AfterDuplicate(), To(inner=AB)], ids=lambda k: k.kind
)
def test_a_head_wins_the_edits_of_its_own_claim_and_not_those_of_others(key: Key) -> None:
    tokens = letters(60, 14, seed=2)
    pairs = moved_keys(Attends(key=key), tokens, np.full(6, 1 / 6), limit=100, seed=1)
    rates = {}
    for rule in (
        Previous(),
        Current(),
        First(),
        Offset(n=2),
        Duplicate(),
        AfterDuplicate(),
        To(inner=nodes.Token(any_of=("c",))),
    ):
        sides = []
        for rows, at in (
            ([p.make for p in pairs], [p.at_make for p in pairs]),
            ([p.placebo for p in pairs], [p.at_placebo for p in pairs]),
        ):
            pattern, queries = _by_rule(rule, rows), [p.query for p in pairs]
            sides.append(np.array([pattern[i, q, k] > LOOKS for i, (q, k) in enumerate(zip(queries, at, strict=True))]))
        bets, wins, losses = bets_of(pairs, sides[0], sides[1])
        assert all(abs(bet) <= 1 for bet in bets)
        rates[rule.kind] = (wins - losses) / len(pairs)
    own = rates.pop(key.kind, 0.0)
    assert max(rates.values()) < (0.5 if key.kind != "to" else 0.2)
    if key.kind != "to":
        assert own > 0.95


def test_a_head_that_ignores_edits_bets_nothing_and_a_random_one_loses_as_often_as_it_wins() -> None:
    tokens = letters(300, 14, seed=4)
    pairs = moved_keys(Attends(key=Duplicate()), tokens, np.full(6, 1 / 6), limit=600, seed=1)
    still = np.ones(len(pairs), dtype=bool)
    assert bets_of(pairs, still, still) == ((), 0, 0)
    rng = np.random.default_rng(0)
    _, wins, losses = bets_of(pairs, rng.random(len(pairs)) < 0.3, rng.random(len(pairs)) < 0.3)
    assert abs(wins - losses) < 3 * np.sqrt(wins + losses)


def test_claims_are_told_apart_where_they_differ_and_agree_where_they_do_not() -> None:
    tokens = letters(60, 12, seed=5)
    pattern = _by_rule(
        Duplicate(), [tuple(row[:n]) for row, n in zip(tokens.ids.tolist(), tokens.lengths.tolist(), strict=True)]
    )
    bets, agreement = apart(Attends(key=Duplicate()), Attends(key=Previous()), pattern.astype(np.float32), tokens)
    assert set(bets) == {1.0}
    assert agreement < 0.2
    back, _ = apart(Attends(key=Previous()), Attends(key=Duplicate()), pattern.astype(np.float32), tokens)
    assert set(back) == {-1.0}
    assert apart(Attends(key=Duplicate()), Attends(key=Duplicate()), pattern.astype(np.float32), tokens) == ((), 1.0)
    best = candidates(pattern.astype(np.float32), tokens)[0]
    assert best.claim == Attends(key=Duplicate())


def test_a_confined_claim_beats_the_whole_one_where_that_is_no_rule_elsewhere() -> None:
    tokens = letters(80, 14, seed=7)
    whole, confined = Attends(key=Previous()), Attends(key=Previous(), queries=AB)
    on, keys = named_keys(confined, tokens), named_keys(whole, tokens)
    rng = np.random.default_rng(0)
    for elsewhere, better in ((0.3, True), (0.9, False)):
        looks = on | (keys & (rng.random(keys.shape[:2]) < elsewhere)[:, :, None])
        pattern = looks.astype(np.float32)
        bets, agreement = apart(confined, whole, pattern, tokens)
        back, _ = apart(whole, confined, pattern, tokens)
        assert bets == tuple(-bet for bet in back)
        assert 0.2 < agreement < 0.6
        assert (e_value(bets) > 1000) == better
        assert (e_value(back) > 1000) == (not better)
    exactly = keys & (rng.random(keys.shape[:2]) < 0.6)[:, :, None]
    assert e_value(apart(confined, whole, (on | exactly).astype(np.float32), tokens)[0]) < 20


def test_random_texts_keep_lengths_and_repeat_where_they_say_so() -> None:
    tokens, rng = letters(20, 12, seed=6), np.random.default_rng(0)
    again = repeated_tokens(tokens, rng)
    assert (again.lengths == tokens.lengths).all()
    for window, n in enumerate(tokens.lengths.tolist()):
        row = again.ids[window, 1:n].tolist()
        half = (len(row) + 1) // 2
        assert row[half:] == row[: len(row) - half]
        assert sorted(shuffled(tokens, rng).ids[window, :n].tolist()) == sorted(tokens.ids[window, :n].tolist())


def test_series_are_letters_digits_and_days_as_far_as_the_vocabulary_goes() -> None:
    found = successors(
        Vocabulary(("<s>", "a", "b", "c", "e", " Monday", " Tuesday", " Wednesday", "7", "8"), frozenset({0}))
    )
    assert {a: b for a, (b, _) in found.items()} == {1: 2, 2: 3, 3: 1, 5: 6, 6: 7, 7: 5}


CASE = {
    "complexity": 1, "n_claims": 1, "queries": 400, "share": 0.9, "share_low": 0.85, "by_chance": 0.05, "off_first": 0.8,
    "off_first_low": 0.75, "covers": 0.8, "percentile": 100.0, "bets": (1.0,) * 25, "effect_low": 0.1,
}  # fmt: skip
RIVAL = {
    "claim": "attends to the token before",
    "complexity": 1,
    "share": 0.2,
    "agreement": 0.1,
    "apart_e": 1e6,
    "against_e": 0.1,
}


def case(**other: Any) -> AttendsCase:
    return AttendsCase(**(CASE | other))


def test_a_claim_is_supported_where_all_holds() -> None:
    decision = decide_attends(case(rivals=(OtherKeys(**RIVAL),)))
    assert (decision.status, decision.reason) == ("SUPPORTED", "all conditions hold")
    assert decision.e > 1000


@pytest.mark.parametrize(
    ("other", "status", "told"),
    [
        ({"queries": 0}, "UNRESOLVED", "names a key nowhere"),
        ({"bets": (-1.0,) * 20}, "REFUTED", "does not follow"),
        ({"share": 0.04}, "REFUTED", "less than anywhere"),
        ({"bets": ()}, "UNRESOLVED", "too little"),
        ({"bets": (1.0,) * 10}, "UNRESOLVED", "is below 1000"),
        ({"n_claims": 10**9}, "UNRESOLVED", "is below"),
        ({"share_low": 0.55}, "PARTIAL", "of its queries look there"),
        ({"off_first_low": 0.4}, "PARTIAL", "of their attention off the first token"),
        ({"percentile": 95.0}, "PARTIAL", "other heads look there as much"),
        ({"synthetic_low": 0.5}, "PARTIAL", "on random tokens only"),
        ({"carried_low": 0.5}, "PARTIAL", "writes what it says"),
        ({"complexity": 2, "rivals": (OtherKeys(**(RIVAL | {"apart_e": 5.0})),)}, "PARTIAL", "no better than"),
        ({"rivals": (OtherKeys(**(RIVAL | {"against_e": 50.0})),)}, "PARTIAL", "worse than"),
        ({"rivals": (OtherKeys(**(RIVAL | {"against_e": 50.0, "agreement": 0.995})),)}, "SUPPORTED", "all conditions"),
        ({"effect_low": 0.001}, "SUPPORTED", "no effect when removed alone"),
        ({"covers": 0.4}, "SUPPORTED", "it accounts for 0.40 of what the head looks at"),
        ({"covers": 0.2}, "PARTIAL", "true where it speaks, accounts for 0.20"),
        ({"rivals": (OtherKeys(**(RIVAL | {"complexity": 3, "share": 1.0, "against_e": 50.0})),), "share": 0.7}, "SUPPORTED", "more to it"),
    ],
)  # fmt: skip
def test_each_condition_of_the_rule_counts(other: dict[str, Any], status: str, told: str) -> None:
    decision = decide_attends(case(**other))
    assert decision.status == status
    assert told in decision.reason
    assert (decision.e > 0) == (status == "SUPPORTED")


@pytest.fixture(scope="module")
def known() -> Any:
    """A constructed model that holds previous-token, induction and successor heads among idle ones."""
    compiled, kinds = construct(2)
    with opened(compiled) as target:
        yield ToolContext(target, _letters(compiled, 2)), kinds


def test_what_replaces_a_head_comes_from_other_documents_and_an_idle_head_changes_nothing(known: Any) -> None:
    context, kinds = known
    tokens = some_windows(context.tokens("explore"), 0).select(range(40))
    unit = Unit("head", *next(place for place, kind in kinds.items() if kind == "previous"))
    elsewhere = Elsewhere(context.target, tokens, [unit], 0)
    donors = tokens.documents[elsewhere._donors[..., 0]]
    assert (donors != tokens.documents[:, None]).all()
    asked = named_keys(Attends(key=Previous()), tokens).any(-1)
    own, others = effect_of_heads(context.target, unit, tokens, asked, seed=0)
    assert own.mean() > 1
    idle = Unit("head", 0, next(h for h in range(4) if (0, h) not in kinds))
    quiet, _ = effect_of_heads(context.target, idle, tokens, asked, seed=0)
    assert abs(quiet).max() < 1e-3
    assert len(others) <= 4


def test_the_effect_is_measured_where_the_claim_speaks_even_if_only_late_windows_have_such_places(
    known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, kinds = known
    tokens = some_windows(context.tokens("explore"), 0).select(range(40))
    unit = Unit("head", *next(place for place, kind in kinds.items() if kind == "previous"))
    asked = named_keys(Attends(key=Previous()), tokens).any(-1)
    asked[:37] = False
    monkeypatch.setattr("neuronaut.tools.trials.without.MAX_TOKENS", 5 * tokens.ids.shape[1])
    own, _ = effect_of_heads(context.target, unit, tokens, asked, seed=0)
    assert len(own) == len(np.unique(tokens.documents[37:]))
    assert own.mean() > 1


def test_heads_of_random_weights_rarely_look_at_the_token_before_or_at_repeats(known: Any) -> None:
    context, kinds = known
    tokens = some_windows(context.tokens("design"), 0)
    for kind, key in (("previous", Previous()), ("induction", AfterDuplicate())):
        unit = Unit("head", *next(place for place, one in kinds.items() if one == kind))
        pattern = pattern_of(context.target, unit, tokens)
        shares = shares_of_random_heads(context.target, unit, Attends(key=key), tokens, pattern, seed=1)
        assert len(shares) == 40
        assert 0 < np.mean(shares) < 0.3
        assert max(shares) < 0.6
        own = count_looks(pattern, named_keys(Attends(key=key), tokens), tokens).share
        assert own > 0.99


def test_the_registered_test_tells_a_true_claim_from_false_ones(known: Any) -> None:
    context, kinds = known
    place = next(place for place, kind in kinds.items() if kind == "induction")
    unit, tool = Unit("head", *place).address, find_tool("test_attends")
    results = {}
    for key in (AfterDuplicate(), Previous(), Duplicate()):
        args = {"unit": unit, "claim": canonical_json(Attends(key=key)), "block": 1}
        results[key.kind] = tool.run(context, tool.parse(args))
    own = results["induction"]
    assert own.payload["share"] == 1.0
    assert own.payload["wins"] >= 100
    assert own.payload["losses"] == 0
    assert own.payload["synthetic"] == "repeated"
    assert own.payload["synthetic_low"] > 0.95
    assert own.payload["random_heads"] == 40  # the model has seven other heads
    share = next(m for m in own.measurements if m.metric == "share")
    assert share.null_percentile == 100.0
    for kind in ("previous", "duplicate"):
        assert results[kind].payload["share"] < 0.3
        assert results[kind].payload["wins"] < 60


def test_what_a_head_writes_is_read_off_as_by_a_second_reading_of_the_weights(tmp_path: Path) -> None:
    folder = made["make_model"]("gpt2", tmp_path / "model")
    target, plain = load_target(folder), PlainModel(folder, made["CONFIGS"]["gpt2"]().to_dict())
    tokens = target.tokenize(["the cat sat on the mat and the dog", "the rain fell on the old town"])
    unit, domain = Unit("head", 1, 3), list(range(40, 60))
    found = written_logits(target, unit, tokens, [0, 1], [4, 3], domain)
    for number, (window, at) in enumerate(((0, 4), (1, 3))):
        plain.run(torch.tensor([tokens.ids[window, : tokens.lengths[window]].tolist()]))
        z = plain.seen["heads", 1][0, at, 3]
        written = z @ plain["h.1.attn.c_proj.weight"].view(4, -1, 32)[3]
        direct = ((written - written.mean()) * plain["ln_f.weight"]) @ plain.unembed[domain].T
        assert np.allclose(found[number], direct.numpy(), atol=1e-4)


def test_a_neuron_and_a_head_that_is_not_there_are_refused(known: Any) -> None:
    context, _ = known
    tool = find_tool("compare_attends")
    with pytest.raises(ToolRefused, match="is a neuron: only heads look"):
        tool.run(context, tool.parse({"unit": "0.3"}))
    with pytest.raises(ToolRefused, match="head"):
        tool.run(context, tool.parse({"unit": "L0H99"}))


def test_a_head_with_random_weights_is_given_no_kind(tmp_path: Path) -> None:
    folder = made["make_model"]("gpt2", tmp_path / "model")
    corpus = load_corpus(made["make_corpus"](tmp_path / "corpus.jsonl"))
    asked = [Head(layer, head, "none", 0.0, 0.0) for layer in (0, 2) for head in range(3)]
    rows = ask_heads(load_target(folder), corpus, asked, 0, tmp_path / "notebook.db")
    assert [row["said"]["kind"] for row in rows] == ["none"] * 6


def _said(real_data: Path, model: str, heads: list[tuple[int, int]], tmp_path: Path) -> list[dict[str, Any]]:
    target = load_target(real_data / "models" / model)
    corpus = load_corpus(real_data / "corpora" / "tinystories.jsonl")
    asked = [Head(layer, head, "none", 0.0, 0.0) for layer, head in heads]
    return [row["said"] for row in ask_heads(target, corpus, asked, 0, tmp_path / "notebook.db")]


def test_the_previous_token_head_of_a_public_model_is_found(real_data: Path, tmp_path: Path) -> None:
    (said,) = _said(real_data, "tinystories-char-gpt", [(0, 2)], tmp_path)
    wanted: Kind = "previous"
    assert said["kind"] == wanted
    assert said["statuses"] == ("SUPPORTED",)
    assert said["effect"] > 0.5


def test_a_public_model_without_induction_is_given_no_induction_head(real_data: Path, tmp_path: Path) -> None:
    target = load_target(real_data / "models" / "stories260K")
    tokens = some_windows(
        target.tokenize([d.text for d in load_corpus(real_data / "corpora" / "tinystories.jsonl").of("design")]), 0
    )
    looks = looks_of_heads(target, Attends(key=AfterDuplicate()), tokens.select(range(40)), range(5))
    shares = {place: one.share for place, one in looks.items()}
    assert len(shares) == 40
    nearest = sorted(shares, key=lambda place: -shares[place])[:2]
    assert shares[nearest[0]] < 0.6
    assert all(one["kind"] != "induction" for one in _said(real_data, "stories260K", nearest, tmp_path))

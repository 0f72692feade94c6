"""Heads and features in the index against naive recomputation; shards that are made anywhere and merged in any order."""

import errno
import itertools
import os
import random
import resource
import runpy
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neuronaut.tools.corpus import Corpus, corpus_from_texts, tokens_of
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.features.dictionary import Dictionary, Layout
from neuronaut.tools.features.places import Place
from neuronaut.tools.files import cache_folder
from neuronaut.tools.index import Index, build_index, find_index
from neuronaut.tools.index_plan import KINDS, Plan, build_shards, plan_index
from neuronaut.tools.kinds.base import Arrays, IndexSettings
from neuronaut.tools.kinds.features import active_edges
from neuronaut.tools.look.attention import LOOKS
from neuronaut.tools.look.head_attention import attention_of
from neuronaut.tools.shards import ABOUT
from neuronaut.tools.sums import TreeSum
from neuronaut.tools.sweep import make_shard
from neuronaut.tools.targets import patterns as seen_attention
from neuronaut.tools.targets.base import Site
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.transformer_lens import TransformerLensTarget
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit
from neuronaut.tools.upkeep import find_garbage, merge_folders, remove

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
TEXT, make_model = _made["TEXT"], _made["make_model"]
WIDTH = 30
DEAD = 7
SMALL = IndexSettings(top_k=9, chunk=5, shard=10, binned_tokens=1_000_000, sample_tokens=20)


def _dictionary() -> Dictionary:
    made = torch.Generator().manual_seed(3)
    bias = torch.full((WIDTH,), -0.5)
    bias[DEAD] = -1e6
    weights = {
        "W_enc": torch.randn(32, WIDTH, generator=made),
        "W_dec": torch.randn(WIDTH, 32, generator=made),
        "b_enc": bias,
        "b_dec": torch.zeros(32),
    }
    place = Place("resid_post", 1)
    return Dictionary("tiny", "", Layout("standard", place, place, 32, 32, WIDTH), weights)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> TransformerLensTarget:
    found = load_target(str(make_model("llama", tmp_path_factory.mktemp("llama"))))
    assert isinstance(found, TransformerLensTarget)
    found.add_dictionary(_dictionary())
    return found


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    drawn, words = random.Random(0), TEXT.split()
    return corpus_from_texts("tiny", [" ".join(drawn.choices(words, k=drawn.randint(1, 50))) for _ in range(150)])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def index(target: TransformerLensTarget, corpus: Corpus, cache: Path) -> Index:
    return build_index(target, corpus, cache=cache, settings=SMALL, kinds=KINDS)


@pytest.fixture(scope="module")
def tokens(target: TransformerLensTarget, corpus: Corpus) -> Tokens:
    return tokens_of(target, corpus.of("explore"))


def _read_alone(target: TransformerLensTarget, tokens: Tokens, site: Site) -> list[np.ndarray]:
    """The site on each window by itself, without padding."""
    rows = [torch.from_numpy(tokens.ids[at : at + 1, :n]).long() for at, n in enumerate(tokens.lengths.tolist())]
    return [target.run(ids, read=[site], stop=site.layer + 1).read[site][0].numpy() for ids in rows]


def _bytes(index: Index) -> dict[str, bytes]:
    return {
        f"{kind.name} {name}": array.tobytes()
        for kind in index.kinds
        for name, array in index.summary(kind).arrays().items()
    }


def _strongest_pairs(pattern: np.ndarray, scored: np.ndarray) -> list[tuple[float, int, int]]:
    """Weight, query and key of all pairs of tokens of the text, queries from the third position on."""
    return [
        (float(pattern[query, key]), query, key)
        for query in range(2, len(pattern))
        for key in range(1, query + 1)
        if scored[query] and scored[key]
    ]


def test_scores_of_heads_are_those_that_the_tool_measures(
    target: TransformerLensTarget, index: Index, tokens: Tokens
) -> None:
    known, table = attention_of(target, tokens, 0), index.table("heads")
    for name in ("previous", "current", "first", "duplicate", "induction", "start", "entropy"):
        np.testing.assert_allclose(table[name], known.values[name].ravel(), rtol=1e-4, atol=1e-6, err_msg=name)
    assert table["address"].tolist() == [Unit("head", at, head).address for at in range(3) for head in range(4)]


def test_distance_and_largest_attention_of_heads_equal_loops_over_queries_and_keys(
    target: TransformerLensTarget, index: Index, tokens: Tokens
) -> None:
    table = index.table("heads")
    for layer, head in itertools.product(range(3), range(4)):
        back, best = [], []
        for row, pattern in enumerate(_read_alone(target, tokens, Site("pattern", layer))):
            for query in range(2, len(pattern[head])):
                if tokens.scored[row, query]:
                    weights = pattern[head, query]
                    back.append(sum(float(weights[key]) * (query - key) for key in range(query + 1)))
                    best.append(max(float(weights[key]) for key in range(1, query + 1)))
        at = layer * 4 + head
        assert table["distance"][at] == pytest.approx(np.mean(back), rel=1e-4)
        assert table["mean"][at] == pytest.approx(np.mean(best), rel=1e-4)
        assert table["variance"][at] == pytest.approx(np.var(best), rel=1e-3, abs=1e-9)
        assert table["max"][at] == pytest.approx(max(best), rel=1e-5)
        # within the bins of the histogram, a sixteenth wide
        looked = np.mean(np.array(best) > LOOKS * 1.07), np.mean(np.array(best) > LOOKS / 1.07)
        assert looked[0] - 1e-9 <= table["firing"][at] <= looked[1] + 1e-9


def test_strongest_pairs_are_one_a_document_and_the_largest_there(
    target: TransformerLensTarget, index: Index, tokens: Tokens
) -> None:
    for layer, head in itertools.product(range(3), range(4)):
        best: dict[int, float] = {}
        windows = _read_alone(target, tokens, Site("pattern", layer))
        for row, pattern in enumerate(windows):
            pairs = _strongest_pairs(pattern[head], tokens.scored[row])
            document = int(tokens.documents[row])
            best[document] = max([best.get(document, -1.0), *(weight for weight, _, _ in pairs)])
        wanted = sorted(best.values(), reverse=True)[: SMALL.top_k]
        found = index.top_examples(Unit("head", layer, head), SMALL.top_k)
        assert [one.value for one in found] == pytest.approx(wanted, rel=1e-5)
        assert len({one.document for one in found}) == SMALL.top_k
        for one in found:
            row = np.flatnonzero(tokens.documents == one.document)[one.window]
            assert one.key is not None
            assert windows[row][head, one.position, one.key] == pytest.approx(one.value, rel=1e-5)
            assert tokens.scored[row, one.key]


def test_statistics_of_features_equal_a_dense_recomputation(
    target: TransformerLensTarget, index: Index, tokens: Tokens
) -> None:
    weights = _dictionary().weights
    table = index.table("features")
    each = [
        np.maximum(x @ weights["W_enc"].numpy() + weights["b_enc"].numpy(), 0.0)
        for x in _read_alone(target, tokens, Site("resid_post", 1))
    ]
    scored = [tokens.scored[row, : len(x)] for row, x in enumerate(each)]
    flat = np.concatenate([x[here] for x, here in zip(each, scored, strict=True)]).astype(np.float64)
    assert table["address"][4] == "sae:tiny/4"
    np.testing.assert_array_equal(table["density"], (flat > 0).mean(axis=0))
    np.testing.assert_allclose(table["mean"], flat.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(table["variance"], flat.var(axis=0), rtol=1e-3)
    np.testing.assert_allclose(table["max"], flat.max(axis=0), rtol=1e-4)
    assert np.flatnonzero(table["dead"]).tolist() == [DEAD]
    for unit in range(WIDTH):
        best: dict[int, float] = {}
        for row, (x, here) in enumerate(zip(each, scored, strict=True)):
            document = int(tokens.documents[row])
            best[document] = max(best.get(document, 0.0), float(x[here][:, unit].max(initial=0.0)))
        maxima = sorted((value for value in best.values() if value > 0), reverse=True)
        assert table["active_documents"][unit] == len(maxima)
        found = index.top_examples(Unit.of_feature("tiny", unit), SMALL.top_k)
        assert [one.value for one in found] == pytest.approx(maxima[: SMALL.top_k], rel=1e-4)
        for one in found:
            row = np.flatnonzero(tokens.documents == one.document)[one.window]
            assert each[row][one.position, unit] == pytest.approx(one.value, rel=1e-4)
        counts = index.summary(index.kinds[-1]).counts[unit]
        values = flat[:, unit][flat[:, unit] > 0]
        edges = active_edges()
        clear = np.abs(values[:, None] / edges[None, 1:-1] - 1).min(axis=1) > 1e-4 if len(values) else np.array([])
        known = np.bincount(np.clip(np.searchsorted(edges, values) - 1, 0, len(counts) - 1), minlength=len(counts))
        assert np.abs(counts - known).sum() <= 2 * (len(values) - clear.sum())


def test_density_of_neurons_and_what_is_dead_are_in_the_table(
    target: TransformerLensTarget, index: Index, tokens: Tokens
) -> None:
    table = index.table("neurons")
    flat = np.concatenate(
        [x[tokens.scored[row, : len(x)]] for row, x in enumerate(_read_alone(target, tokens, Site("neurons", 2)))]
    ).astype(np.float64)
    here = table["layer"] == 2
    assert table["address"][here].tolist() == [f"2.{number}" for number in range(flat.shape[1])]
    np.testing.assert_allclose(table["density"][here], (flat > 0).mean(axis=0), atol=1.5 / len(flat))
    np.testing.assert_allclose(table["variance"][here], flat.var(axis=0), rtol=1e-3)
    stats = [index.unit_stats(Unit("neuron", 2, number)) for number in range(flat.shape[1])]
    assert table["threshold"][here].tolist() == [one.threshold for one in stats]
    above = (flat > table["threshold"][here]).mean(axis=0)
    near = (np.abs(flat / table["threshold"][here] - 1) < 0.07).mean(axis=0)
    assert (np.abs(table["firing"][here] - above) <= near + 1e-9).all()
    assert not table["dead"].any()


def test_other_kinds_beside_them_change_no_bit(
    target: TransformerLensTarget, index: Index, corpus: Corpus, tmp_path: Path
) -> None:
    alone = build_index(target, corpus, cache=tmp_path, settings=SMALL, kinds=["neurons"])
    together = _bytes(index)
    assert all(together[name] == raw for name, raw in _bytes(alone).items())


def test_shards_of_any_size_merged_in_any_order_give_the_same_bits(
    target: TransformerLensTarget, index: Index, corpus: Corpus, tmp_path: Path
) -> None:
    wanted = _bytes(index)
    for seed, size in enumerate((5, 10, 20, 35)):
        settings, drawn = replace(SMALL, shard=size), random.Random(seed)
        plan = plan_index(target, corpus, cache=tmp_path, settings=settings, kinds=KINDS)
        parts = [make_shard(target, plan.groups(number), number, plan.sweep) for number in range(plan.n_shards)]
        for kind in plan.sweep.kinds:
            pieces = [kind.restore(part[kind.name], settings) for part in parts]
            drawn.shuffle(pieces)
            while len(pieces) > 1:
                one = pieces.pop(drawn.randrange(len(pieces)))
                pieces[drawn.randrange(len(pieces))].merge(one)
            for name, array in pieces[0].arrays().items():
                assert array.tobytes() == wanted[f"{kind.name} {name}"], (size, kind.name, name)


def test_sums_do_not_depend_on_order_or_division_though_plain_addition_does() -> None:
    drawn = np.random.default_rng(0)
    values = drawn.normal(size=(37, 4)) * 10.0 ** drawn.integers(-8, 8, size=(37, 4))
    plain, known = set(), set()
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(37)
        plain.add(sum((values[at] for at in order), np.zeros(4)).tobytes())
        groups = [TreeSum((4,)) for _ in range(1 + seed % 5)]
        for at in order:
            groups[drawn.integers(len(groups))].add(int(at), values[at])
        total = TreeSum((4,))
        for group in groups:
            total.merge(TreeSum.of(group.arrays("x"), "x"))
        known.add(total.total().tobytes())
        np.testing.assert_allclose(total.total(), values.sum(axis=0))
        assert len(total.nodes) <= 6
    assert len(known) == 1
    assert len(plain) > 1
    with pytest.raises(ValueError, match="added before"):
        total.add(36, values[0])


def test_two_that_build_different_shards_at_once_lose_nothing(
    target: TransformerLensTarget, index: Index, corpus: Corpus, tmp_path: Path
) -> None:
    plans = [plan_index(target, corpus, cache=tmp_path, settings=SMALL, kinds=["heads"]) for _ in range(2)]
    numbers = [range(at, plans[0].n_shards, 2) for at in range(2)]
    arrays = [
        {at: make_shard(target, plan.groups(at), at, plan.sweep) for at in mine}
        for plan, mine in zip(plans, numbers, strict=True)
    ]

    def write(plan: Plan, made: dict[int, dict[str, Arrays]]) -> None:
        for at, parts in made.items():
            for name, part in parts.items():
                plan.store.save(name, at, part)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, plans, arrays))
    found = find_index(target, corpus, cache=tmp_path, settings=SMALL, kinds=["heads"])
    assert found is not None
    assert all(_bytes(index)[name] == raw for name, raw in _bytes(found).items())


def test_a_full_disk_is_one_sentence_leaves_no_half_file_and_the_build_goes_on_later(
    target: TransformerLensTarget, index: Index, corpus: Corpus, tmp_path: Path
) -> None:
    whole = _bytes(index)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))  # a manifest fits, a shard does not
    try:
        with pytest.raises(UserError, match=r"cannot be stored in .* File too large") as refused:
            build_index(target, corpus, cache=tmp_path, settings=SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [ABOUT]
    again = build_index(target, corpus, cache=tmp_path, settings=SMALL)
    assert all(whole[name] == raw for name, raw in _bytes(again).items())


def test_a_disk_that_fills_between_two_shards_costs_one(
    target: TransformerLensTarget, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_index(target, corpus, cache=tmp_path, settings=SMALL, kinds=["heads"], layers=[0])
    sync, left = os.fsync, [4]  # about.json, a shard, its manifest, a shard

    def full(file: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        build_shards(plan)
    monkeypatch.undo()
    states = [plan.store.state("heads-000", number) for number in range(plan.n_shards)]
    assert states[0] == "done"
    assert set(states[1:]) == {"missing"}
    assert not list(tmp_path.rglob("*.part"))
    before = target.forwards
    build_shards(plan)
    rest = target.forwards - before
    build_shards(plan_index(target, corpus, cache=tmp_path / "new", settings=SMALL, kinds=["heads"], layers=[0]))
    assert 0 < rest < target.forwards - before - rest


def _shares(target: TransformerLensTarget, corpus: Corpus, folders: Sequence[Path]) -> None:
    for at, folder in enumerate(folders):
        plan = plan_index(target, corpus, cache=folder, settings=SMALL, kinds=["heads", "features"])
        build_shards(plan, range(at, plan.n_shards, len(folders)))


def test_shards_built_in_several_folders_merge_into_one_index(
    target: TransformerLensTarget, index: Index, corpus: Corpus, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in "abc"]
    _shares(target, corpus, folders)
    assert find_index(target, corpus, cache=folders[0], settings=SMALL, kinds=["heads"]) is None
    harmed = sorted(folders[1].rglob("shard-*.safetensors"))[0]
    raw = harmed.read_bytes()
    harmed.write_bytes(raw[:-1])
    into = tmp_path / "all"
    found = merge_folders(folders, into)
    assert [one.damaged for one in found] == [(), ("features-" + harmed.parent.name[9:] + " 1",), ()]
    assert find_index(target, corpus, cache=into, settings=SMALL, kinds=["heads", "features"]) is None
    harmed.write_bytes(raw)
    [again] = merge_folders([next(folders[1].iterdir())], into)
    assert again.copied == 1
    assert again.already_there > 0
    merged = find_index(target, corpus, cache=into, settings=SMALL, kinds=["heads", "features"])
    assert merged is not None
    assert all(_bytes(index)[name] == raw for name, raw in _bytes(merged).items())
    with pytest.raises(UserError, match="holds no index of this version"):
        merge_folders([tmp_path], into)


def test_garbage_is_what_nothing_can_use_and_nothing_of_others(
    target: TransformerLensTarget, corpus: Corpus, tmp_path: Path
) -> None:
    plan = plan_index(target, corpus, cache=tmp_path, settings=SMALL, kinds=["heads"])
    build_shards(plan)
    own = target.fingerprint()
    assert list(find_garbage(tmp_path, [own])) == []
    old, foreign = tmp_path / ("0" * 32), tmp_path / "pictures"
    for folder, names in ((old, ["manifest.json", "shard-00000.safetensors"]), (foreign, ["shard-00000.safetensors"])):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"1234")
    (old / "notes.txt").write_text("mine")
    shard = plan.store.folder / "heads-001" / "shard-00002.safetensors"
    shard.write_bytes(b"x" + shard.read_bytes()[1:])
    left, young = (plan.store.folder / "heads-002" / f".{name}.part" for name in ("old", "young"))
    left.write_bytes(b"12")
    young.write_bytes(b"12")
    os.utime(left, (time.time() - 7200,) * 2)
    found = {one.path: one for one in find_garbage(tmp_path, [own])}
    assert set(found) == {old, shard, shard.with_suffix(".json"), left}
    assert found[old].n_bytes == 8
    assert "older version" in found[old].reason
    assert [one.path for one in found.values() if not remove(one)] == [old], "it holds a file that is not ours"
    assert (old / "notes.txt").read_text() == "mine"
    assert [path.name for path in old.iterdir()] == ["notes.txt"]
    assert young.exists()
    assert (foreign / "shard-00000.safetensors").exists()
    assert list(find_garbage(tmp_path, [own])) == []
    assert plan.store.state("heads-001", 2) == "missing"


def test_an_index_of_a_model_that_changed_or_a_corpus_that_is_gone_is_garbage(
    target: TransformerLensTarget, corpus: Corpus, tmp_path: Path
) -> None:
    plan = plan_index(target, corpus, cache=tmp_path, settings=SMALL, kinds=["heads"], layers=[0])
    build_shards(plan)
    own = target.fingerprint()
    [changed] = find_garbage(tmp_path, [replace(own, weights_sha256="0")])
    assert "has changed since" in changed.reason
    assert list(find_garbage(tmp_path, [replace(own, name="another", weights_sha256="0")])) == []
    plan.store.note_origin("pocket", str(tmp_path / "text.jsonl"))
    [gone] = find_garbage(tmp_path, [own])
    assert gone.path == plan.store.folder
    assert "is gone" in gone.reason
    (tmp_path / "text.jsonl").write_text("")
    assert list(find_garbage(tmp_path, [own])) == []


def test_what_cannot_be_indexed_is_refused(target: TransformerLensTarget, corpus: Corpus, index: Index) -> None:
    with pytest.raises(ToolRefused, match="multiple"):
        plan_index(target, corpus, settings=IndexSettings(chunk=10, shard=15))
    with pytest.raises(ToolRefused, match="no features to index"):
        plan_index(target, corpus, kinds=["features"], layers=[0])
    with pytest.raises(ToolRefused, match="nothing cannot be indexed"):
        plan_index(target, corpus, kinds=[])
    with pytest.raises(ToolRefused, match="0 at nearly all"):
        index.quantile_examples(Unit.of_feature("tiny", 1), 5)
    with pytest.raises(ToolRefused, match="does not cover"):
        index.top_examples(Unit.of_feature("other", 1), 5)
    with pytest.raises(ToolRefused, match="holds no features"):
        replace(index, kinds=index.kinds[:1]).table("features")
    assert cache_folder().name == "index"


@pytest.mark.parametrize("short", [0, 128])
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gemma3"])
def test_attention_that_hands_out_its_pattern_is_slow_attention_and_in_long_windows_the_fast_one(
    name: str, short: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_attention, "SHORT", short)
    target = load_target(str(make_model(name, tmp_path)))
    assert isinstance(target, TransformerLensTarget)
    ids = torch.randint(1, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    layers = range(target.spec.n_layers)
    patterns, neurons = ([Site(what, layer) for layer in layers] for what in ("pattern", "neurons"))
    plain = target.run(ids, read=neurons, stop=len(layers)).read
    beside = target.run(ids, read=[*patterns, *neurons], stop=len(layers)).read
    if short == 0:
        assert all(torch.equal(plain[site], beside[site]) for site in neurons)
    target._fast_attention = "eager"
    slow = target.run(ids, read=[*patterns, *neurons], stop=len(layers)).read
    for site in (*patterns, *neurons):
        torch.testing.assert_close(beside[site], slow[site], rtol=1e-4, atol=1e-6)
    assert beside[patterns[0]].shape == (3, target.spec.n_heads, 20, 20)

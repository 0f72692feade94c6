"""The index against a plain recomputation with numpy, on a small network whose activations are known."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from neuronaut.tools.corpus import Corpus, corpus_from_texts, tokens_of
from neuronaut.tools.errors import ToolFailed, ToolRefused, UserError
from neuronaut.tools.index import QUANTILES, Index, IndexSettings, build_index, find_index
from neuronaut.tools.summaries import N_BINS, bin_edges, bins_of, keys_of, quantiles_of, values_in
from neuronaut.tools.targets.base import Edit, Fingerprint, ModelSpec, Run, Site
from neuronaut.tools.tokens import PAD, Tokens, Vocabulary
from neuronaut.tools.units import Unit

WORDS = 60
D_MLP = 12
LAYERS = 3
CONTEXT = 16
SMALL = IndexSettings(top_k=25, chunk=7, shard=21, binned_tokens=1_000_000, sample_tokens=40)


class WordNetwork:
    """A target with known insides: words are tokens, layer 0 has ReLU neurons, the others smooth ones of any sign."""

    def __init__(self, *, weights: int = 0, broken: bool = False) -> None:
        made = torch.Generator().manual_seed(weights)
        self._weights = weights
        self._broken = broken
        self._embed = torch.randn(WORDS + 1, 8, generator=made)
        self._in = torch.randn(LAYERS, 8, D_MLP, generator=made)
        self.sequences = 0
        self.spec = ModelSpec("words", LAYERS, 8, D_MLP, 1, 1, 8, WORDS + 1, CONTEXT, "relu", False, "rmsnorm", True, 0)
        self.vocabulary = Vocabulary(("<s>", *(f" w{word}" for word in range(WORDS))), frozenset({0}))

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("words", str(self._weights), "0", "float32", "test", "0", "")

    def tokenize(self, texts: Sequence[str], documents: Sequence[int] | None = None) -> Tokens:
        rows, owners, pieces = [], [], []
        for number, text in enumerate(texts):
            words = text.split()
            for at in range(0, max(1, len(words)), CONTEXT - 1):
                part = words[at : at + CONTEXT - 1]
                rows.append([0, *(1 + int(word[1:]) for word in part)])
                owners.append(number if documents is None else documents[number])
                pieces.append(" ".join(part))
        ids = np.full((len(rows), max(map(len, rows))), PAD, dtype=np.int32)
        for row, known in zip(ids, rows, strict=True):
            row[: len(known)] = known
        zeros = np.zeros_like(ids)
        return Tokens(ids, zeros, zeros, np.array(owners, dtype=np.int64), tuple(pieces), self.vocabulary)

    def run(
        self,
        ids: torch.Tensor,
        *,
        read: Collection[Site] = (),
        edits: Sequence[Edit] = (),
        start: tuple[int, torch.Tensor] | None = None,
        stop: int | None = None,
        logits: bool = False,
    ) -> Run:
        assert not edits
        assert start is None
        assert not logits
        assert int(ids.min()) >= 0, "padding must be a valid token"
        assert stop is not None
        assert all(site.layer < stop for site in read)
        self.sequences += len(ids)
        before = torch.arange(1, ids.shape[1] + 1)[:, None]
        seen = self._embed[ids] + 0.5 * self._embed[ids].cumsum(dim=1) / before
        found = {}
        for site in read:
            x = seen @ self._in[site.layer]
            x = x.relu() if site.layer == 0 else torch.nn.functional.gelu(x) * (3.0 if site.layer == 1 else -1.0) + 0.25
            found[site] = torch.full_like(x, torch.nan) if self._broken else x
        return Run(found, None)


def _texts(n: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in random.integers(0, WORDS, random.integers(1, 40))) for _ in range(n)]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    texts = _texts(240)
    return corpus_from_texts("words", [*texts, *texts[:40]])


@pytest.fixture(scope="module")
def oracle(corpus: Corpus) -> tuple[Tokens, list[np.ndarray]]:
    target = WordNetwork()
    tokens = tokens_of(target, corpus.of("explore"))
    ids = torch.from_numpy(np.where(tokens.ids == PAD, 0, tokens.ids).astype(np.int64))
    sites = [Site("neurons", layer) for layer in range(LAYERS)]
    read = target.run(ids, read=sites, stop=LAYERS).read
    return tokens, [read[site].numpy() for site in sites]


@pytest.fixture(scope="module")
def index(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return build_index(WordNetwork(), corpus, cache=tmp_path_factory.mktemp("cache"), settings=SMALL)


def _units() -> list[Unit]:
    return [
        Unit("neuron", layer, neuron, sign) for layer in range(LAYERS) for neuron in range(D_MLP) for sign in (1, -1)
    ]


def _document_maxima(tokens: Tokens, values: np.ndarray) -> dict[int, float]:
    maxima: dict[int, float] = {}
    for row, document in enumerate(tokens.documents.tolist()):
        inside = values[row][tokens.scored[row]]
        if inside.size:
            maxima[document] = max(maxima.get(document, -np.inf), float(inside.max()))
    return maxima


def _arrays(index: Index) -> dict[str, np.ndarray]:
    return {
        f"{kind.name} {name}": array for kind in index.kinds for name, array in index.summary(kind).arrays().items()
    }


def _same(one: Index, other: Index) -> bool:
    left, right = _arrays(one), _arrays(other)
    return left.keys() == right.keys() and all(left[name].tobytes() == right[name].tobytes() for name in left)


def test_every_statistic_equals_its_plain_recomputation(index: Index, oracle: tuple[Tokens, list[np.ndarray]]) -> None:
    tokens, activations = oracle
    edges = bin_edges()
    for unit in _units():
        values = unit.sign * activations[unit.layer][:, :, unit.index]
        flat = values[tokens.scored].astype(np.float64)
        maxima = sorted(_document_maxima(tokens, values).values(), reverse=True)
        stats = index.unit_stats(unit)
        assert (stats.n_tokens, stats.n_documents, stats.n_binned) == (flat.size, len(maxima), flat.size)
        assert stats.mean == pytest.approx(flat.mean(), rel=1e-4, abs=1e-6)
        assert stats.variance == pytest.approx(flat.var(), rel=1e-4)
        assert stats.active == (flat > 0).sum()
        assert stats.active_documents == sum(value > 0 for value in maxima)
        assert stats.document_maxima == pytest.approx(maxima[:25], rel=1e-5)
        assert stats.top == pytest.approx(np.median(maxima[:20]), rel=1e-5, abs=1e-7)
        assert (stats.minimum, stats.maximum) == pytest.approx((flat.min(), flat.max()), rel=1e-5, abs=1e-7)
        for level, estimate in stats.quantiles:
            exact = np.quantile(flat, level, method="inverted_cdf")
            bins = np.searchsorted(edges, [exact, estimate])
            assert abs(bins[0] - bins[1]) <= 1 or estimate == pytest.approx(exact, rel=0.07), (unit, level)


def test_top_examples_are_the_documents_with_the_largest_maxima_at_their_places(
    index: Index, oracle: tuple[Tokens, list[np.ndarray]]
) -> None:
    tokens, activations = oracle
    for unit in _units():
        values = unit.sign * activations[unit.layer][:, :, unit.index]
        wanted = sorted(_document_maxima(tokens, values).items(), key=lambda one: -one[1])[:25]
        found = index.top_examples(unit, 25)
        assert [one.value for one in found] == pytest.approx([value for _, value in wanted], rel=1e-5, abs=1e-6)
        assert len({one.document for one in found}) == 25
        for one in found:
            row = np.flatnonzero(tokens.documents == one.document)[one.window]
            assert tokens.texts[row] == one.text
            assert values[row, one.position] == pytest.approx(one.value, rel=1e-5, abs=1e-6)
            assert tokens.scored[row, one.position]
            assert one.piece == tokens.vocabulary.pieces[tokens.ids[row, one.position]]


def test_equal_maxima_are_kept_in_document_order() -> None:
    values = torch.tensor([[1.0, 1.0, 0.5, -0.0, 0.0, -1.0]])
    numbers = torch.tensor([[7, 3, 1, 9, 2, 0]])
    keys = keys_of(values, numbers)
    assert keys.argsort(descending=True).tolist() == [[1, 0, 2, 4, 3, 5]]
    assert np.array_equal(values_in(keys.numpy()), values.numpy())


def test_quantile_examples_rise_through_the_ranks_of_the_sample(
    index: Index, oracle: tuple[Tokens, list[np.ndarray]]
) -> None:
    tokens, activations = oracle
    found = index.quantile_examples(Unit.parse("1.3-"), 10)
    values = [one.value for one in found]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 5
    for one in found:
        row = np.flatnonzero(tokens.documents == one.document)[one.window]
        assert -activations[1][row, one.position, 3] == pytest.approx(one.value, rel=1e-5)


def test_a_histogram_drawn_by_hash_holds_the_number_asked_for_and_keeps_the_median(tmp_path: Path) -> None:
    corpus = corpus_from_texts("words", _texts(2500, seed=3))
    drawn = build_index(WordNetwork(), corpus, cache=tmp_path, settings=IndexSettings(binned_tokens=8000))
    whole = build_index(WordNetwork(), corpus, cache=tmp_path, settings=IndexSettings(binned_tokens=10**7))
    assert drawn.unit_stats(Unit.parse("0.0")).n_binned == pytest.approx(8000, rel=0.15)
    assert whole.unit_stats(Unit.parse("0.0")).n_binned == whole.n_tokens == drawn.n_tokens
    for unit in _units():
        one, other = drawn.unit_stats(unit), whole.unit_stats(unit)
        assert one.median == pytest.approx(other.median, abs=0.08 * other.variance**0.5)
        assert one.mean == other.mean


def test_shards_of_another_size_give_the_same_index_bit_for_bit(index: Index, corpus: Corpus, tmp_path: Path) -> None:
    for shard in (7, 10_003):
        other = build_index(
            WordNetwork(), corpus, cache=tmp_path, settings=IndexSettings(**{**vars(SMALL), "shard": shard})
        )
        assert _same(other, index)


def test_an_interrupted_build_goes_on_and_equals_an_uninterrupted_one(
    index: Index, corpus: Corpus, tmp_path: Path
) -> None:
    def stop_at(limit: int) -> None:
        def progress(done: int, total: int) -> None:
            if limit <= done < total:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_index(WordNetwork(), corpus, cache=tmp_path, settings=SMALL, progress=progress)

    stop_at(30)
    assert find_index(WordNetwork(), corpus, cache=tmp_path, settings=SMALL) is None
    stop_at(50)
    target = WordNetwork()
    resumed = build_index(target, corpus, cache=tmp_path, settings=SMALL)
    explore = len(tokens_of(target, corpus.of("explore")))
    assert _same(resumed, index)
    assert 0 < target.sequences < explore
    assert resumed.notes == ()


def test_a_found_index_is_the_built_one_and_runs_nothing(index: Index, corpus: Corpus, tmp_path: Path) -> None:
    assert find_index(WordNetwork(), corpus, cache=tmp_path, settings=SMALL) is None
    build_index(WordNetwork(), corpus, cache=tmp_path, settings=SMALL)
    target = WordNetwork()
    found = find_index(target, corpus, cache=tmp_path, settings=SMALL)
    assert found is not None
    assert _same(found, index)
    assert target.sequences == 0
    assert find_index(WordNetwork(weights=1), corpus, cache=tmp_path, settings=SMALL) is None
    part = find_index(target, corpus, cache=tmp_path, settings=SMALL, layers=[0])
    assert part is not None, "a layer is a part of its own"
    assert part.layers == (0,)


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "manifest"])
def test_a_damaged_shard_is_found_and_made_again(index: Index, corpus: Corpus, tmp_path: Path, harm: str) -> None:
    build_index(WordNetwork(), corpus, cache=tmp_path, settings=SMALL)
    [folder] = tmp_path.iterdir()
    shard = folder / "neurons-001" / "shard-00001.safetensors"
    raw = bytearray(shard.read_bytes())
    match harm:
        case "flip":
            raw[len(raw) // 2] ^= 1
            shard.write_bytes(raw)
        case "cut":
            shard.write_bytes(raw[:-9])
        case "remove":
            shard.unlink()
        case _:
            shard.with_suffix(".json").write_text("[1]")
    assert find_index(WordNetwork(), corpus, cache=tmp_path, settings=SMALL) is None
    target = WordNetwork()
    again = build_index(target, corpus, cache=tmp_path, settings=SMALL)
    assert _same(again, index)
    assert again.notes == ("shard 1 of neurons-001 was damaged and had to be made again",)
    assert 0 < target.sequences < len(tokens_of(target, corpus.of("explore"))) / 2, "one shard of five is made again"
    assert {path.suffix for path in (folder / "neurons-001").iterdir()} == {".safetensors", ".json"}


def test_an_index_of_some_layers_knows_these_alone(corpus: Corpus, index: Index, tmp_path: Path) -> None:
    part = build_index(WordNetwork(), corpus, cache=tmp_path, settings=SMALL, layers=[1])
    assert part.unit_stats(Unit.parse("1.5")) == index.unit_stats(Unit.parse("1.5"))
    assert part.covers(Unit.parse("1.5"))
    assert not part.covers(Unit.parse("0.5"))
    assert not index.covers(Unit.parse("L1H0"))
    assert not index.covers(Unit.parse(f"1.{D_MLP}"))
    with pytest.raises(ToolRefused, match=r"does not cover 0\.5"):
        part.unit_stats(Unit.parse("0.5"))
    for k in (0, 26):
        with pytest.raises(ToolRefused, match="1 to 25"):
            part.top_examples(Unit.parse("1.5"), k)


def test_bad_input_is_refused_in_a_sentence(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ToolRefused, match="layers 0 to 2"):
        build_index(WordNetwork(), corpus, cache=tmp_path, layers=[3])
    with pytest.raises(ToolFailed, match="not finite"):
        build_index(WordNetwork(broken=True), corpus, cache=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be stored"):
        build_index(WordNetwork(), corpus, cache=tmp_path / "file")


def test_progress_counts_documents_up_to_all(corpus: Corpus, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build_index(WordNetwork(), corpus, cache=tmp_path, settings=SMALL, progress=lambda *at: seen.append(at))
    n = corpus.n_groups("explore")
    assert seen == sorted(seen)
    assert seen[-1] == (n, n)


def test_the_cache_folder_follows_the_environment(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path))
    build_index(WordNetwork(), corpus, settings=SMALL, layers=[0])
    assert find_index(WordNetwork(), corpus, settings=SMALL, layers=[0]) is not None
    shutil.rmtree(tmp_path / "index")
    assert find_index(WordNetwork(), corpus, settings=SMALL, layers=[0]) is None


def test_each_value_lies_between_the_edges_of_its_bin() -> None:
    values = torch.cat([torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e9, -1e9, 2**-10, 1.0]), torch.randn(5000) * 3])
    bins, edges = bins_of(values).numpy(), bin_edges()
    assert len(edges) == N_BINS + 1
    assert bins.min() >= 0
    assert bins.max() < N_BINS
    x = values.numpy().astype(np.float64)
    assert ((edges[bins] <= x) & (x <= edges[bins + 1])).all()
    assert (bins[:2] == N_BINS // 2).all()
    assert (bins[2:4] != N_BINS // 2).all()


def test_quantiles_of_a_histogram_are_within_one_bin_of_the_exact_ones() -> None:
    values = np.random.default_rng(1).gamma(2.0, 1.5, 20_000).astype(np.float32)
    counts = np.bincount(bins_of(torch.from_numpy(values)).numpy(), minlength=N_BINS)
    found = quantiles_of(counts, np.array(QUANTILES), float(values.min()), float(values.max()))
    np.testing.assert_allclose(found, np.quantile(values, QUANTILES), rtol=0.02)

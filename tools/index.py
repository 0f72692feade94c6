"""What every neuron does on the explore text: statistics and the documents where it is largest, cached."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as arrays_to_bytes

from neuronaut.tools.corpus import Corpus, Document, tokens_of
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.files import cache_folder, write_whole
from neuronaut.tools.summaries import NO_DOCUMENT, Summary, documents_in, quantiles_of, values_in
from neuronaut.tools.sweep import Sweep, summarise
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

INDEX_VERSION = 1
TOP_DOCUMENTS = 20  # `top` is the median of so many largest per-document maxima
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class IndexSettings:
    """What an index keeps; another setting is another index.

    top_k: documents a neuron and sign. chunk, shard: documents tokenised together and stored together. binned_tokens:
    about so many tokens, drawn by hash, go into the histograms. sample_tokens: so many of these are kept whole.
    """

    top_k: int = 50
    chunk: int = 128
    shard: int = 1024
    binned_tokens: int = 32_768
    sample_tokens: int = 256


@dataclass(frozen=True)
class UnitStats:
    """A neuron on the explore text, special tokens left out; for sign -1 of the negated activation.

    mean, variance, extremes, active (tokens above 0), active_documents (documents whose maximum is above 0) and top
    (the median of the 20 largest per-document maxima, of all if there are fewer) are exact. median and quantiles
    (level, value) are estimated from `n_binned` tokens. document_maxima: the largest ones, falling, at most as many as
    the index keeps.
    """

    unit: Unit
    n_tokens: int
    n_documents: int
    mean: float
    variance: float
    minimum: float
    maximum: float
    active: int
    active_documents: int
    median: float
    top: float
    quantiles: tuple[tuple[float, float], ...]
    n_binned: int
    document_maxima: tuple[float, ...]

    @property
    def threshold(self) -> float:
        """Half way from the median to the top: above it the neuron is said to fire."""
        return self.median + 0.5 * (self.top - self.median)

    @property
    def firing_documents(self) -> int:
        """Documents whose maximum is above the threshold; not counted beyond the number of kept maxima."""
        return sum(value > self.threshold for value in self.document_maxima)


@dataclass(frozen=True)
class Exemplar:
    """A place in explore: `value` is the activation, sign applied, at `position` of the one window in `tokens`."""

    document: int
    window: int
    position: int
    value: float
    tokens: Tokens = field(repr=False)

    @property
    def text(self) -> str:
        """The text of the window."""
        return self.tokens.texts[0]

    @property
    def piece(self) -> str:
        """The token at the position."""
        return self.tokens.vocabulary.pieces[int(self.tokens.ids[0, self.position])]


@dataclass(frozen=True)
class Index:
    """Statistics and exemplars of all neurons of `layers`, on explore text only. notes: what was rebuilt, and why."""

    target: TargetModel = field(repr=False)
    corpus: Corpus = field(repr=False)
    layers: tuple[int, ...]
    settings: IndexSettings
    summary: Summary = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens seen, special tokens not counted."""
        return int(self.summary.n)

    @property
    def n_documents(self) -> int:
        """Documents seen, near-duplicates counted once."""
        return int(self.summary.n_documents)

    def covers(self, unit: Unit) -> bool:
        """Whether the index knows the unit."""
        return unit.kind == "neuron" and unit.layer in self.layers and 0 <= unit.index < self.target.spec.d_mlp

    def unit_stats(self, unit: Unit) -> UnitStats:
        """The statistics of a neuron. Refuses a unit that the index does not cover."""
        at, side = self._place(unit)
        known, sign = self.summary, unit.sign
        maxima = self._maxima(at, side)
        least = -float(self._maxima(at, 1 - side)[0])
        levels = np.array(QUANTILES)
        counts = known.counts[at] if sign > 0 else known.counts[at][::-1]
        quantiles = quantiles_of(counts, levels, least, float(maxima[0]))
        return UnitStats(
            unit=unit,
            n_tokens=self.n_tokens,
            n_documents=self.n_documents,
            mean=sign * float(known.mean[at]),
            variance=float(known.m2[at]) / self.n_tokens,
            minimum=least,
            maximum=float(maxima[0]),
            active=int(known.active[side, at]),
            active_documents=int(known.active_documents[side, at]),
            median=float(quantiles[QUANTILES.index(0.5)]),
            top=float(np.median(maxima[:TOP_DOCUMENTS])),
            quantiles=tuple(zip(QUANTILES, quantiles.tolist(), strict=True)),
            n_binned=int(known.n_binned),
            document_maxima=tuple(maxima.tolist()),
        )

    def top_examples(self, unit: Unit, k: int) -> list[Exemplar]:
        """The k documents where the unit is largest, each at its maximum, falling; fewer where explore holds fewer.

        Refuses: a unit that the index does not cover; k below 1 or above what the index keeps.
        """
        at, side = self._place(unit)
        if not 1 <= k <= self.settings.top_k:
            raise ToolRefused(f"{k!r} examples cannot be shown: the index keeps 1 to {self.settings.top_k} a neuron")
        keys = self.summary.top_key[side, at, :k]
        keys = keys[keys != NO_DOCUMENT]
        windows, positions = self.summary.top_window[side, at], self.summary.top_position[side, at]
        places = zip(documents_in(keys).tolist(), windows.tolist(), positions.tolist(), strict=False)
        return self._exemplars(places, values_in(keys).tolist())

    def quantile_examples(self, unit: Unit, k: int) -> list[Exemplar]:
        """k tokens at equal steps of rank, falling, out of the tokens drawn by hash from the whole of explore.

        Refuses: a unit that the index does not cover; k below 1 or above the number of tokens kept.
        """
        at, _ = self._place(unit)
        values = unit.sign * self.summary.sample_values[:, at]
        if not 1 <= k <= len(values):
            raise ToolRefused(f"{k!r} examples cannot be shown: the index keeps {len(values)} tokens")
        ranks = np.argsort(-values, kind="stable")[((np.arange(k) + 0.5) * len(values) / k).astype(np.int64)]
        return self._exemplars(map(tuple, self.summary.sample_at[ranks].tolist()), values[ranks].tolist())

    def _place(self, unit: Unit) -> tuple[int, int]:
        if not self.covers(unit):
            raise ToolRefused(
                f"the index does not cover {unit}: it knows neurons 0 to {self.target.spec.d_mlp - 1} of layers "
                f"{', '.join(map(str, self.layers))}"
            )
        return self.layers.index(unit.layer) * self.target.spec.d_mlp + unit.index, 0 if unit.sign > 0 else 1

    def _maxima(self, at: int, side: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        keys = self.summary.top_key[side, at]
        return values_in(keys[keys != NO_DOCUMENT]).astype(np.float64)

    def _exemplars(self, places: Iterable[tuple[int, int, int]], values: Sequence[float]) -> list[Exemplar]:
        wanted = list(zip(places, values, strict=False))
        groups = {place[0] for place, _ in wanted}
        tokens = tokens_of(self.target, [one for one in self.corpus.of("explore") if one.group in groups])
        return [
            Exemplar(group, window, position, value, tokens.select([np.flatnonzero(tokens.documents == group)[window]]))
            for (group, window, position), value in wanted
        ]


def build_index(
    target: TargetModel,
    corpus: Corpus,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    layers: Sequence[int] | None = None,
    settings: IndexSettings | None = None,
) -> Index:
    """The index of `layers` (all) on the explore text, taken from the cache as far as it is there.

    cache: the folder of all indexes; None is `cache_folder()`. progress(done, total) counts documents. A shard is
    stored when it is complete, so that an interrupted build goes on; a damaged one is made again, which `notes` says.
    Refuses: layers that the target lacks; a cache that cannot be written.
    """
    store = _Store.of(target, corpus, cache, layers, settings)
    groups = _groups(corpus)
    shards = [groups[at : at + store.settings.shard] for at in range(0, len(groups), store.settings.shard)]
    sweep = _sweep(target, corpus, groups, store)
    total = store.empty()
    done = 0
    for number, shard in enumerate(shards):
        stored = store.load(number)
        if stored is None:
            stored = store.empty()
            for at in range(0, len(shard), store.settings.chunk):
                chunk = shard[at : at + store.settings.chunk]
                summarise(target, [document for group in chunk for document in group], sweep, stored)
                if progress is not None:
                    progress(done + at + len(chunk), len(groups))
            store.save(number, stored)
        total.merge(stored, sample_limit=store.settings.sample_tokens)
        done += len(shard)
        if progress is not None:
            progress(done, len(groups))
    return Index(target, corpus, store.layers, store.settings, total, tuple(store.notes))


def find_index(
    target: TargetModel,
    corpus: Corpus,
    *,
    cache: Path | None = None,
    layers: Sequence[int] | None = None,
    settings: IndexSettings | None = None,
) -> Index | None:
    """The index if it is complete and undamaged in the cache, else None. Runs no text through the target."""
    store = _Store.of(target, corpus, cache, layers, settings)
    total = store.empty()
    for number in range(-(-corpus.n_groups("explore") // store.settings.shard)):
        stored = store.load(number)
        if stored is None:
            return None
        total.merge(stored, sample_limit=store.settings.sample_tokens)
    return Index(target, corpus, store.layers, store.settings, total)


def _groups(corpus: Corpus) -> list[list[Document]]:
    return [list(group) for _, group in groupby(corpus.of("explore"), key=lambda document: document.group)]


def _sweep(target: TargetModel, corpus: Corpus, groups: list[list[Document]], store: "_Store") -> Sweep:
    """What the pass keeps; the share of tokens drawn is estimated from the first chunk, so that every run agrees."""
    pilot = [document for group in groups[: store.settings.chunk] for document in group]
    characters = sum(len(document.text) for document in pilot)
    whole = sum(len(document.text) for document in corpus.of("explore"))
    n_tokens = tokens_of(target, pilot).n_scored * whole / characters
    drawn = min(2**64 - 1, int(store.settings.binned_tokens / max(1.0, n_tokens) * 2**64))
    return Sweep(store.layers, drawn, store.settings.sample_tokens)


@dataclass
class _Store:
    """The folder of one index: shards, and a manifest with the checksum of each."""

    folder: Path
    layers: tuple[int, ...]
    settings: IndexSettings
    n_units: int
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        target: TargetModel,
        corpus: Corpus,
        cache: Path | None,
        layers: Sequence[int] | None,
        settings: IndexSettings | None,
    ) -> "_Store":
        spec = target.spec
        chosen = tuple(range(spec.n_layers)) if layers is None else tuple(sorted(set(layers)))
        if not chosen or chosen[0] < 0 or chosen[-1] >= spec.n_layers:
            raise ToolRefused(
                f"layers {list(chosen)} cannot be indexed: {spec.name} has layers 0 to {spec.n_layers - 1}"
            )
        settings = settings or IndexSettings()
        about = {
            "version": INDEX_VERSION,
            "target": asdict(target.fingerprint()),
            "corpus": corpus.sha256,
            "layers": chosen,
            "settings": asdict(settings),
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        return cls((cache or cache_folder()) / key[:32], chosen, settings, len(chosen) * spec.d_mlp)

    def empty(self) -> Summary:
        return Summary.empty(self.n_units, self.settings.top_k)

    def load(self, number: int) -> Summary | None:
        """The shard, if it was stored and is undamaged; a damaged one is noted."""
        wanted = self._manifest().get(str(number))
        if wanted is None:
            return None
        path = self._shard(number)
        raw = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(raw).hexdigest() != wanted:
            self.notes.append(f"shard {number} of the index was damaged and had to be made again")
            return None
        return Summary(**load_arrays(raw))

    def save(self, number: int, summary: Summary) -> None:
        raw = arrays_to_bytes({name: np.asarray(array, order="C") for name, array in summary.arrays().items()})
        manifest = {**self._manifest(), str(number): hashlib.sha256(raw).hexdigest()}
        write_whole(self._shard(number), raw)
        write_whole(self.folder / "manifest.json", json.dumps(manifest, indent=1).encode())

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def _manifest(self) -> dict[str, str]:
        path = self.folder / "manifest.json"
        if not path.is_file():
            return {}
        try:
            rows = json.loads(path.read_bytes())
        except ValueError:
            rows = None
        if not isinstance(rows, dict):
            self.notes.append("the manifest of the index was damaged: everything had to be made again")
            path.unlink()
            return {}
        return rows

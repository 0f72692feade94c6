"""What every unit does on the explore text: statistics and the documents where it is largest, cached."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuronaut.tools.corpus import Corpus, tokens_of
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.index_plan import NEURONS, KindName, Progress, build_shards, plan_index
from neuronaut.tools.kinds.base import IndexSettings, Kind
from neuronaut.tools.kinds.features import Features
from neuronaut.tools.kinds.heads import Heads, HeadSummary
from neuronaut.tools.kinds.neurons import Neurons
from neuronaut.tools.kinds.values import ValueSummary
from neuronaut.tools.shards import ShardStore
from neuronaut.tools.summaries import NO_DOCUMENT, documents_in, quantiles_of, values_in
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

TOP_DOCUMENTS = 20  # `top` is the median of so many largest per-document maxima
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


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
    """A place in explore: `value` is the activation, sign applied, at `position` of the one window in `tokens`.

    key: of a head, the position that it looks at from there; value is the share of attention.
    """

    document: int
    window: int
    position: int
    value: float
    tokens: Tokens = field(repr=False)
    key: int | None = None

    @property
    def text(self) -> str:
        """The text of the window."""
        return self.tokens.texts[0]

    @property
    def piece(self) -> str:
        """The token at the position."""
        return self.tokens.vocabulary.pieces[int(self.tokens.ids[0, self.position])]


class Known(NamedTuple):
    """A unit's place: the part that holds it, the summary of the part, and the unit's column there."""

    kind: Kind
    summary: Any
    column: int


@dataclass(frozen=True)
class Index:
    """Statistics and exemplars of units on explore text only. notes: what was rebuilt, and why.

    kinds: the parts that are complete. A part is read from the cache when it is first asked for.
    """

    target: TargetModel = field(repr=False)
    corpus: Corpus = field(repr=False)
    kinds: tuple[Kind, ...]
    store: ShardStore = field(repr=False)
    notes: tuple[str, ...] = ()
    _summaries: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def settings(self) -> IndexSettings:
        """What the index keeps."""
        return self.store.settings

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose neurons are known."""
        return tuple(dict.fromkeys(kind.layer for kind in self.kinds if isinstance(kind, Neurons)))

    @property
    def n_tokens(self) -> int:
        """Tokens seen, special tokens not counted; of heads alone the queries."""
        summary = self.summary(self.kinds[0])
        return int(summary.values.n if isinstance(summary, HeadSummary) else summary.n)

    @property
    def n_documents(self) -> int:
        """Documents seen, near-duplicates counted once."""
        summary = self.summary(self.kinds[0])
        return int(summary.values.n_documents if isinstance(summary, HeadSummary) else summary.n_documents)

    def summary(self, kind: Kind) -> Any:
        """What is known of a part: all shards merged."""
        if kind.name not in self._summaries:
            total = kind.empty(self.settings)
            for number in range(self.store.n_shards):
                arrays = self.store.load(kind.name, number)
                if arrays is None:
                    raise ToolRefused(f"shard {number} of {kind.name} was lost: run `neuronaut index build` again")
                total.merge(kind.restore(arrays, self.settings))
            self._summaries[kind.name] = total
        return self._summaries[kind.name]

    def covers(self, unit: Unit) -> bool:
        """Whether the index knows the unit."""
        return self._part(unit) is not None

    def unit_stats(self, unit: Unit) -> UnitStats:
        """The statistics of a neuron. Refuses a unit that the index does not cover."""
        if unit.kind != "neuron":
            raise ToolRefused(f"{unit} is a {unit.kind}: its statistics are in the table of the index")
        _, known, at = self._known(unit)
        side, sign = _side(unit), unit.sign
        maxima = _maxima(known, at, side)
        least = -float(_maxima(known, at, 1 - side)[0])
        counts = known.counts[at] if sign > 0 else known.counts[at][::-1]
        quantiles = quantiles_of(counts, np.array(QUANTILES), least, float(maxima[0]))
        return UnitStats(
            unit=unit,
            n_tokens=int(known.n),
            n_documents=int(known.n_documents),
            mean=sign * float(known.mean[at]),
            variance=float(known.variance[at]),
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

        Of a feature, documents in which it is above 0; of a head, those with its strongest pairs of query and key.
        Refuses: a unit that the index does not cover; k below 1 or above what the index keeps.
        """
        kind, known, at = self._known(unit)
        if not 1 <= k <= self.settings.top_k:
            raise ToolRefused(f"{k!r} examples cannot be shown: the index keeps 1 to {self.settings.top_k} a unit")
        largest = (known.values if isinstance(known, HeadSummary) else known).largest
        here = (at,) if isinstance(kind, Features) else (_side(unit), at)
        keys = largest.keys[here][:k]
        keys = keys[keys != NO_DOCUMENT]
        places = np.column_stack([documents_in(keys), largest.places[here][: len(keys)]])
        return self._exemplars(places.tolist(), values_in(keys).tolist())

    def quantile_examples(self, unit: Unit, k: int) -> list[Exemplar]:
        """k tokens at equal steps of rank, falling, out of the tokens drawn by hash from the whole of explore.

        Refuses: a feature, a unit that the index does not cover; k below 1 or above the number of tokens kept.
        """
        kind, known, at = self._known(unit)
        if isinstance(kind, Features):
            raise ToolRefused(f"{unit} is 0 at nearly all tokens: only its largest documents are kept")
        sample = (known.values if isinstance(known, HeadSummary) else known).sample
        values = unit.sign * sample.values[:, at]
        if not 1 <= k <= len(values):
            raise ToolRefused(f"{k!r} examples cannot be shown: the index keeps {len(values)} tokens")
        ranks = np.argsort(-values, kind="stable")[((np.arange(k) + 0.5) * len(values) / k).astype(np.int64)]
        return self._exemplars(sample.at[ranks].tolist(), values[ranks].tolist())

    def table(self, kind: KindName) -> dict[str, np.ndarray[Any, Any]]:
        """Columns of numbers, one row a unit of all parts of a kind; see `tools.index_table`."""
        from neuronaut.tools.index_table import table_of

        return table_of(self, kind)

    def _part(self, unit: Unit) -> Kind | None:
        for kind in self.kinds:
            match kind:
                case Features():
                    found = unit.kind == "feature" and unit.name == kind.dictionary
                case Heads():
                    found = unit.kind == "head" and unit.layer == kind.layer and unit.sign > 0
                case Neurons():
                    found = (unit.kind, unit.layer, unit.expert) == ("neuron", kind.layer, kind.expert)
                case _:
                    found = False
            if found and 0 <= unit.index < kind.width:
                return kind
        return None

    def _known(self, unit: Unit) -> Known:
        kind = self._part(unit)
        if kind is None:
            names = ", ".join(f"{one.name}" for one in self.kinds)
            raise ToolRefused(f"the index does not cover {unit}: it knows {names}")
        return Known(kind, self.summary(kind), unit.index)

    def _exemplars(self, places: Iterable[Sequence[int]], values: Sequence[float]) -> list[Exemplar]:
        wanted = list(zip(places, values, strict=False))
        groups = {place[0] for place, _ in wanted}
        tokens = tokens_of(self.target, self.corpus.in_groups("explore", groups))
        return [
            Exemplar(
                group, window, position, value, tokens.select([np.flatnonzero(tokens.documents == group)[window]]), *key
            )
            for (group, window, position, *key), value in wanted
        ]


def _side(unit: Unit) -> int:
    return 0 if unit.sign > 0 else 1


def _maxima(known: ValueSummary, at: int, side: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    keys = known.largest.keys[side, at]
    return values_in(keys[keys != NO_DOCUMENT]).astype(np.float64)


def build_index(
    target: TargetModel,
    corpus: Corpus,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    layers: Sequence[int] | None = None,
    settings: IndexSettings | None = None,
    kinds: Collection[KindName] = NEURONS,
) -> Index:
    """The index of some kinds in `layers` (all) on the explore text, taken from the cache as far as it is there.

    cache: the folder of all indexes; None is `cache_folder()`. progress(done, total) counts documents. A shard is
    stored when it is complete, so that an interrupted build goes on; a damaged one is made again, which `notes` says.
    Refuses: what `plan_index` refuses; a cache that cannot be written.
    """
    plan = plan_index(target, corpus, kinds=kinds, layers=layers, cache=cache, settings=settings)
    build_shards(plan, progress=progress)
    return Index(target, corpus, plan.sweep.kinds, plan.store, tuple(plan.store.notes))


def find_index(
    target: TargetModel,
    corpus: Corpus,
    *,
    cache: Path | None = None,
    layers: Sequence[int] | None = None,
    settings: IndexSettings | None = None,
    kinds: Collection[KindName] = NEURONS,
) -> Index | None:
    """The index if all its shards are there and whole, else None. Runs no text through the target."""
    plan = plan_index(target, corpus, kinds=kinds, layers=layers, cache=cache, settings=settings)
    if any(plan.missing(number) for number in range(plan.n_shards)):
        return None
    return Index(target, corpus, plan.sweep.kinds, plan.store)

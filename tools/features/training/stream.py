"""Activations of a site on explore text, a shuffled part at a time. No other split is ever read here."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.corpus import Corpus, tokens_of
from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.features.training.settings import TOKENS_A_FEATURE, Settings, site_width
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import Tokens

CHUNK = 128  # documents tokenised together
BATCH_TOKENS = 4096


class Spot(NamedTuple):
    """Where a part of the stream begins: which time the text is read, and before which of its documents."""

    epoch: int
    document: int


class Part(NamedTuple):
    """Activations (m, d), the order (n,) in which they are taken, and where the next part begins."""

    values: Tensor
    order: Tensor
    following: Spot


class Source(Protocol):
    """Parts of a stream; the same spot gives the same part, bit by bit."""

    def part(self, spot: Spot) -> Part: ...


def site_activations(target: TargetModel, site: Site, tokens: Tokens) -> Tensor:
    """(n_scored, d) float32 activations of a site at all text tokens, window by window; heads side by side."""
    found = torch.empty(tokens.n_scored, site_width(target.spec, site))
    ends = np.cumsum(tokens.scored.sum(axis=1))
    for rows in batches(tokens, BATCH_TOKENS):
        ids = to_ids(tokens, rows)
        width = ids.shape[1]
        read = target.run(ids, read=[site], stop=site.layer + 1).read[site].flatten(2).float()
        for row, values in zip(rows, read, strict=True):
            chosen = values[torch.from_numpy(tokens.scored[row, :width])]
            found[ends[row] - len(chosen) : ends[row]] = chosen
    if not bool(torch.isfinite(found).all()):
        raise ToolFailed(f"{site} has activations that are not finite on this text")
    return found


@dataclass
class ExploreStream:
    """The explore text of a corpus, its documents in a new order each time, special tokens left out.

    As many activations as the buffer holds are read and shuffled together; where it holds all, they are read once.
    """

    target: TargetModel
    corpus: Corpus
    settings: Settings
    _whole: Tensor | None = field(default=None, repr=False)
    _is_larger: bool = field(default=False, repr=False)

    def part(self, spot: Spot) -> Part:
        """The part of the stream that begins at a spot."""
        total = len(self.corpus.of("explore"))
        values, n_documents = (self._whole, total) if self._whole is not None else self._read_at(spot, total)
        end = spot.document + n_documents
        following = Spot(spot.epoch, end) if end < total else Spot(spot.epoch + 1, 0)
        return Part(values, torch.randperm(len(values), generator=self._generator(spot)), following)

    def _read_at(self, spot: Spot, total: int) -> tuple[Tensor, int]:
        """All activations, in the order of the first time, if the buffer holds them, so that a training that goes on has the
        same ones; else those from the spot on."""
        if not self._is_larger:
            first, n_documents = self._read(Spot(0, 0))
            if n_documents == total:
                self._whole = first
                return first, total
            self._is_larger = True
            if spot == Spot(0, 0):
                return first, n_documents
        return self._read(spot)

    def _generator(self, spot: Spot) -> torch.Generator:
        drawn = np.random.default_rng([self.settings.seed, spot.epoch, spot.document]).integers(2**62)
        return torch.Generator().manual_seed(int(drawn))

    def _read(self, spot: Spot) -> tuple[Tensor, int]:
        """Activations from a spot on, as many as the buffer holds, and of how many documents they are."""
        site, documents = self.settings.site, self.corpus.of("explore")
        order = np.random.default_rng([self.settings.seed, spot.epoch]).permutation(len(documents))[spot.document :]
        room = max(self.settings.batch, self.settings.buffer_bytes // (4 * site_width(self.target.spec, site)))
        parts: list[Tensor] = []
        n_documents = held = 0
        while n_documents < len(order) and held < room:
            chunk = [documents[at] for at in order[n_documents : n_documents + CHUNK]]
            parts.append(site_activations(self.target, site, tokens_of(self.target, chunk)))
            held, n_documents = held + len(parts[-1]), n_documents + len(chunk)
        return torch.cat(parts), n_documents


def check_length(target: TargetModel, corpus: Corpus, width: int) -> None:
    """Refuses a corpus whose explore text holds fewer than 10 tokens a feature."""
    documents, need, found = corpus.of("explore"), TOKENS_A_FEATURE * width, 0
    for at in range(0, len(documents), CHUNK):
        found += tokens_of(target, documents[at : at + CHUNK]).n_scored
        if found >= need:
            return
    raise UserError(
        f"{corpus.name!r} is too short for a dictionary of {width} features: its explore text holds {found:,} tokens, and "
        f"{TOKENS_A_FEATURE} a feature are needed; give a corpus with more text, or a smaller --width"
    )

"""Neurons whose activation is a known function of the text: a target model with functions planted in it."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.chat.format import ChatFormat
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.targets.base import (
    AttentionWeights,
    EdgeGradients,
    EdgeStart,
    Edit,
    Fingerprint,
    ModelSpec,
    Run,
    Site,
    TargetModel,
)
from neuronaut.tools.targets.checks import last_layer
from neuronaut.tools.targets.hooks import edited
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import site_of
from neuronaut.tools.targets.writing import WritesAgain
from neuronaut.tools.tokens import Tokens, Vocabulary, tokens_from_ids
from neuronaut.tools.units import Unit

Floats = NDArray[np.float32]

CACHE_BYTES = 1 << 28


class Function(Protocol):
    """An activation as a function of the text. What it says of a position may depend on the tokens up to it only."""

    @property
    def name(self) -> str:
        """Equal names, equal functions: the name enters the fingerprint."""
        ...

    def __call__(self, tokens: Tokens) -> Floats:
        """(n_windows, n_pos) activations; what is said of padding is free."""
        ...


class Overlay(WritesAgain):
    """A TargetModel in which some neurons' activations are replaced by functions of the text.

    The values are written through the neurons' own output weights, so that later layers and the logits see them; edits
    that the caller makes come after them. vectors: (d_model,) what some of the planted neurons write instead, per unit of
    activation; exact where no norm follows the MLP. Refuses a neuron that the target does not have.
    """

    def __init__(
        self, target: TargetModel, plants: Mapping[Unit, Function], vectors: Mapping[Unit, Tensor] | None = None
    ) -> None:
        self._target, self._plants, self._vectors = target, dict(plants), dict(vectors or {})
        if strangers := [unit.address for unit in self._vectors if unit not in self._plants]:
            raise ValueError(f"only a planted neuron can be given a write vector: {', '.join(strangers)}")
        self._by_site: dict[Site, list[Unit]] = {}
        for unit in plants:
            check_unit(target.spec, unit)
            self._by_site.setdefault(site_of(target, unit), []).append(unit)
        self._cache: OrderedDict[tuple[bytes, Site], Tensor] = OrderedDict()
        self._last: tuple[bytes, Tokens] | None = None

    def run(
        self,
        ids: Tensor,
        *,
        read: Collection[Site] = (),
        edits: Sequence[Edit] = (),
        start: tuple[int, Tensor] | None = None,
        stop: int | None = None,
        logits: bool = False,
    ) -> Run:
        """One pass with the planted neurons in place; see TargetModel.run."""
        layers = range(0 if start is None else start[0], self.spec.n_layers if stop is None else stop)
        planted = self._edits(ids, layers, edits) if ids.dim() == 2 else []
        return self._target.run(ids, read=read, edits=[*planted, *edits], start=start, stop=stop, logits=logits)

    def branches(self, ids: Tensor, edits: Sequence[Edit], *, keep: int = 1) -> Tensor:
        """(n_edits, keep, d_vocab) logits at the end of one prompt, one run for each edit; see TargetModel.branches."""
        found = [self.run(ids, edits=[edit], logits=True).logits for edit in edits]
        return torch.cat([logits[:, -keep:] for logits in found if logits is not None])

    def gradients(
        self,
        ids: Tensor,
        read: Collection[Site],
        score: Callable[[Tensor], Tensor],
        *,
        edits: Sequence[Edit] = (),
        at: Site | None = None,
    ) -> dict[Site, tuple[Tensor, Tensor]]:
        """As TargetModel.gradients; a planted neuron follows the text, so that no gradient passes through it."""
        planted = self._edits(ids, range(last_layer(self.spec, at)), edits)
        return self._target.gradients(ids, read, score, edits=[*planted, *edits], at=at)

    def senders(self, ids: Tensor, *, edits: Sequence[Edit] = ()) -> Tensor:
        """(batch, n_senders, pos, d_model) with the planted neurons in place; see TargetModel.senders."""
        return self._target.senders(ids, edits=[*self._edits(ids, range(self.spec.n_layers), edits), *edits])

    def run_edges(
        self,
        ids: Tensor,
        other: Tensor,
        cut: Tensor,
        *,
        positions: Tensor | None = None,
        start: EdgeStart | None = None,
        edits: Sequence[Edit] = (),
        keep: int = 1,
    ) -> Tensor:
        """As TargetModel.run_edges; a planted neuron follows the text, whatever its MLP reads."""
        planted = self._edits(ids, range(0 if start is None else start.layer, self.spec.n_layers), edits)
        return self._target.run_edges(
            ids, other, cut, positions=positions, start=start, edits=[*planted, *edits], keep=keep
        )

    def edge_gradients(
        self, ids: Tensor, score: Callable[[Tensor], Tensor], *, edits: Sequence[Edit] = (), keep: int = 1
    ) -> EdgeGradients:
        """As TargetModel.edge_gradients; no gradient passes through a planted neuron."""
        planted = self._edits(ids, range(self.spec.n_layers), edits)
        return self._target.edge_gradients(ids, score, edits=[*planted, *edits], keep=keep)

    def values(self, ids: Tensor, site: Site) -> Tensor:
        """(batch, pos, n_planted) activations of the neurons planted at a site, in the order of the plants."""
        key = (hashlib.blake2b(ids.numpy().tobytes(), key=str(tuple(ids.shape)).encode()).digest(), site)
        if key not in self._cache:
            tokens = self._tokens(key[0], ids)
            values = np.stack([self._plants[unit](tokens) for unit in self._by_site[site]], axis=-1)
            self._cache[key] = torch.from_numpy(values.astype(np.float32))
        self._cache.move_to_end(key)
        found = self._cache[key]
        while len(self._cache) > 1 and sum(4 * kept.numel() for kept in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return found

    def _tokens(self, key: bytes, ids: Tensor) -> Tokens:
        """The ids as text; that of the last call is kept, since the layers of a pass ask one by one."""
        if self._last is None or self._last[0] != key:
            self._last = (key, tokens_from_ids(ids.tolist(), self.vocabulary))
        return self._last[1]

    def _edits(self, ids: Tensor, layers: range, after: Sequence[Edit]) -> list[Edit]:
        """Two edits a layer or expert, however many neurons are planted: these are emptied, then filled; a third where one of them
        brings its own write vector. after: the caller's edits."""
        found = []
        for site in sorted(self._by_site):
            if site.layer not in layers:
                continue
            indices = [unit.index for unit in self._by_site[site]]
            kept, filled = torch.ones(self.spec.d_mlp), torch.zeros(*ids.shape, self.spec.d_mlp)
            kept[indices] = 0.0
            filled[:, :, indices] = self.values(ids, site)
            found += [Edit(site, "scale", kept), Edit(site, "add", filled)]
            if writers := [unit for unit in self._by_site[site] if unit in self._vectors]:
                for edit in after:
                    filled = edited(filled, edit) if edit.site == site else filled
                found.append(Edit(Site("mlp_out", site.layer), "add", self._instead(writers, filled)))
        return found

    def _instead(self, writers: list[Unit], values: Tensor) -> Tensor:
        """(batch, pos, d_model) what the neurons write with their own vectors, less what their output weights write.

        values: (batch, pos, d_mlp), right in the columns of the writers.
        """
        indices = [unit.index for unit in writers]
        change = torch.stack([self._vectors[unit] for unit in writers])
        return values[:, :, indices] @ (
            change - self._target.write_vectors(writers[0].layer, writers[0].expert)[indices]
        )

    def fingerprint(self) -> Fingerprint:
        """The target's, with a hash of what is planted where."""
        digest = hashlib.sha256()
        for unit in sorted(self._plants):
            digest.update(f"{unit.address} {self._plants[unit].name}\n".encode())
            if unit in self._vectors:
                digest.update(self._vectors[unit].numpy().tobytes())
        own = self._target.fingerprint()
        return replace(own, processing=f"{own.processing}, planted {digest.hexdigest()}")

    @property
    def spec(self) -> ModelSpec:
        """The target's."""
        return self._target.spec

    @property
    def dictionaries(self) -> Mapping[str, Dictionary]:
        """The target's; they see what is planted."""
        return self._target.dictionaries

    @property
    def vocabulary(self) -> Vocabulary:
        """The target's."""
        return self._target.vocabulary

    @property
    def forwards(self) -> float:
        """The target's."""
        return self._target.forwards

    @property
    def chat_format(self) -> ChatFormat:
        """The target's."""
        return self._target.chat_format

    def tokenize(self, texts: Sequence[str], documents: Sequence[int] | None = None) -> Tokens:
        """As the target does."""
        return self._target.tokenize(texts, documents)

    def decode(self, ids: Sequence[int]) -> str:
        """As the target does."""
        return self._target.decode(ids)

    def read_vector(self, unit: Unit) -> Tensor:
        """The target's: of a planted neuron it says nothing about when it fires."""
        return self._target.read_vector(unit)

    def write_vector(self, unit: Unit) -> Tensor:
        """The one planted with the neuron, else the target's, which a planted neuron writes with."""
        return self._vectors.get(unit.with_sign(1), self._target.write_vector(unit))

    def read_vectors(self, layer: int, expert: int | None = None) -> Tensor:
        """The target's."""
        return self._target.read_vectors(layer, expert)

    def write_vectors(self, layer: int, expert: int | None = None) -> Tensor:
        """The target's, with the planted ones in their places."""
        vectors = self._target.write_vectors(layer, expert).clone()
        for unit, vector in self._vectors.items():
            if (unit.layer, unit.expert) == (layer, expert):
                vectors[unit.index] = vector
        return vectors

    def attention_weights(self, layer: int) -> AttentionWeights:
        """The target's."""
        return self._target.attention_weights(layer)

    def attention_norm_gain(self, layer: int) -> Tensor:
        """The target's."""
        return self._target.attention_norm_gain(layer)

    def mlp_norm_gain(self, layer: int) -> Tensor:
        """The target's."""
        return self._target.mlp_norm_gain(layer)

    def final_norm_gain(self) -> Tensor:
        """The target's."""
        return self._target.final_norm_gain()

    @property
    def embed(self) -> Tensor:
        """The target's."""
        return self._target.embed

    @property
    def unembed(self) -> Tensor:
        """The target's."""
        return self._target.unembed

    def final_norm(self, residual: Tensor) -> Tensor:
        """The target's."""
        return self._target.final_norm(residual)

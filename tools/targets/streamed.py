"""Models whose layers are read from their files one at a time, so that no more than one is in memory.

The modules are those of transformers, made without weights; a layer is filled when it is wanted and emptied afterwards. What a
layer computes is therefore, bit for bit, what it computes in the whole model.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.targets.base import Edit, Run, Site
from neuronaut.tools.targets.bridge import load_skeleton
from neuronaut.tools.targets.layers import Layer, check_alike, fuse_activations, layer_of, unwrap
from neuronaut.tools.targets.tensor_files import TensorFiles
from neuronaut.tools.targets.transformer_lens import TransformerLensTarget
from neuronaut.tools.targets.vectors import PROBE_TOKENS

STREAMED = ("gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen3")


class StreamedTarget(TransformerLensTarget):
    """A TargetModel of which the layers in `loaded` alone can be run, to read their sites; it has the fingerprint of the whole
    model. Refuses models of experts and architectures that are not in STREAMED."""

    def _open(self) -> None:
        kind = str(self._folder.config.get("model_type"))
        if kind not in STREAMED:
            raise UserError(
                f"the layers of {self._folder.name} cannot be streamed: its architecture is {kind[:80]!r}, and streamed are "
                f"{', '.join(STREAMED)}; load it whole, without --stream"
            )
        self._files = TensorFiles.of(self._folder)
        self._model, bridge, self._fast_attention = load_skeleton(self._folder, self._dtype)
        self._cfg = bridge.cfg
        places = _places(bridge, self._folder.name)
        self._model.eval().requires_grad_(False)
        fuse_activations(self._model)
        self._stem = str(bridge.adapter.component_mapping["blocks"].name)
        self._blocks = self._model.get_submodule(self._stem)
        self._last_norm = self._model.get_submodule(str(bridge.adapter.component_mapping["ln_final"].name))
        self._layers = [_layer_at(block, places) for block in self._blocks]
        self._checked: set[int] = set()
        self._fill_outside()
        self._attend(self._fast_attention)
        check_alike(self._layers, self.spec)

    @property
    def dtype(self) -> torch.dtype:
        """Of the residual stream."""
        return self._dtype

    def _fill_outside(self) -> None:
        """What belongs to no layer is read now, but for the embedding, of which rows are read as they are wanted, and the
        unembedding, which nothing here needs."""
        embed, unembed = self._model.get_input_embeddings(), self._model.get_output_embeddings()
        prefix, named = f"{self._model.base_model_prefix}.", dict(self._model.named_parameters())
        unneeded = {id(one) for one in unembed.parameters()} - {id(embed.weight)}
        self._stored = {
            name: self._files.checked(name, one.shape, without=prefix)
            for name, one in named.items()
            if id(one) not in unneeded
        }
        own = next(name for name, one in named.items() if one is embed.weight)
        self._rows = Rows(embed, self._files, self._stored[own], self._dtype)
        outside = [name for name in self._stored if name != own and not name.startswith(f"{self._stem}.")]
        _fill(self._model, {name: self._files.read(self._stored[name], self._dtype) for name in outside})
        _ = self.spec  # of the embedding as it is
        self._model.set_input_embeddings(self._rows)

    @contextlib.contextmanager
    def loaded(self, layer: int) -> Iterator[None]:
        """The time during which a layer is in memory. Refuses a layer that is built in a way that is not known."""
        block, stem = self._blocks[layer], f"{self._stem}.{layer}."
        empty = dict(block.named_parameters())
        _fill(block, {name: self._files.read(self._stored[stem + name], self._dtype) for name in empty})
        try:
            if layer not in self._checked:
                forwards = self.forwards
                made = torch.Generator().manual_seed(layer)
                n = min(PROBE_TOKENS, self.spec.n_ctx, self.spec.d_vocab)
                self._refuse_strange_layer(layer, (layer, torch.randn(1, n, self.spec.d_model, generator=made)))
                self._checked.add(layer)
                self.forwards = forwards
            yield
        finally:
            _fill(block, empty)

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
        """As TargetModel.run. Refuses layers that are not loaded, and logits."""
        layers = range(0 if start is None else start[0], self.spec.n_layers if stop is None else stop)
        if logits or any(next(self._blocks[at].parameters()).is_meta for at in layers):
            raise ToolRefused(
                f"the layers of {self.spec.name} are streamed: one at a time is in memory, which an index alone is made from"
            )
        self._rows.wanted = start is None
        return super().run(ids, read=read, edits=edits, start=start, stop=stop)


class Rows(nn.Module):
    """An embedding of which the rows that a text needs are read from its file. wanted: whether they matter."""

    def __init__(self, inner: nn.Module, files: TensorFiles, name: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self._files, self._name, self._dtype, self.wanted = inner, files, name, dtype, True

    @property
    def weight(self) -> Tensor:
        """(d_vocab, d_model), without values."""
        return self.inner.weight  # type: ignore[return-value]

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, pos, d_model); zeros where they do not matter."""
        if not self.wanted:
            return torch.zeros(*ids.shape, self.weight.shape[1], dtype=self._dtype)
        known, at = torch.unique(ids, return_inverse=True)
        rows = self._files.rows(self._name, known.tolist(), self._dtype)
        found: Tensor = functional_call(self.inner, {"weight": rows}, (at,))
        return found


@dataclass(frozen=True)
class Weights:
    """The weights of an MLP that need no wrapper."""

    original_component: nn.Module
    down: nn.Module

    @property
    def W_out(self) -> Tensor:
        """(d_mlp, d_model), as x @ W."""
        weight: Any = self.down.weight
        return weight.T if isinstance(self.down, nn.Linear) else weight


def _places(bridge: Any, name: str) -> dict[str, str | tuple[str, ...]]:
    """Where in a block each module of a Layer is, by the one block of a bridge."""
    layer = layer_of(bridge.blocks[0], name)
    unwrap(bridge.original_model)
    inside = {id(module): place for place, module in layer.block.named_modules()}
    found: dict[str, str | tuple[str, ...]] = {}
    for field in fields(Layer):
        one = layer.weights.original_component if field.name == "weights" else getattr(layer, field.name)
        if field.name == "projections":
            found[field.name] = tuple(inside[id(module)] for module in one)
        elif isinstance(one, nn.Module) and field.name != "attention_weights":
            found[field.name] = inside[id(one)]
    return found


def _layer_at(block: nn.Module, places: dict[str, str | tuple[str, ...]]) -> Layer:
    """The inner modules of a block."""
    found: dict[str, Any] = {field.name: None for field in fields(Layer)}
    for field, place in places.items():
        if isinstance(place, tuple):
            found[field] = tuple(map(block.get_submodule, place))
        else:
            found[field] = block.get_submodule(place)
    return replace(Layer(**found), weights=Weights(found["weights"], found["neurons_in"]))


def _fill(module: nn.Module, tensors: dict[str, Any]) -> None:
    """Puts tensors in the place of parameters."""
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        whole = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
        module.get_submodule(owner)._parameters[leaf] = whole

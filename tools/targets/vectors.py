"""What the weights of a loaded model say: vectors of its units, its attention, its last norm."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.attention import attention_weights_of
from neuronaut.tools.targets.base import AttentionWeights, ModelSpec, Site, TargetModel
from neuronaut.tools.targets.checks import check_expert, check_layer
from neuronaut.tools.targets.hooks import before
from neuronaut.tools.targets.layers import Layer, gain_of
from neuronaut.tools.targets.placement import Elsewhere
from neuronaut.tools.targets.sites import read_vectors_at, site_of, write_vectors_at
from neuronaut.tools.units import Unit

PROBE_TOKENS = 8


class WeightVectors(ABC):
    """The part of a TargetModel that runs no text. Raw weights: no norm folded, nothing centred."""

    _layers: list[Layer]
    _last_norm: nn.Module
    _model: Any
    _dtype: torch.dtype
    _there: Elsewhere

    @property
    @abstractmethod
    def _target(self) -> TargetModel: ...

    @property
    @abstractmethod
    def spec(self) -> ModelSpec:
        """The shape of the model."""

    def read_vector(self, unit: Unit) -> Tensor:
        """(d_model,) column of the input weights (gated: of the gate), or of the encoder."""
        return read_vectors_at(self._target, site_of(self._target, unit))[unit.index]

    def write_vector(self, unit: Unit) -> Tensor:
        """(d_model,) row of the output weights, or of the decoder."""
        return write_vectors_at(self._target, site_of(self._target, unit))[unit.index]

    def read_vectors(self, layer: int, expert: int | None = None) -> Tensor:
        """(d_mlp, d_model) of all neurons of a layer, or of one of its experts."""
        check_expert(self.spec, Site("neurons", layer, expert=expert))
        found = self._layers[layer]
        if found.experts is not None and expert is not None:
            return found.experts.read_vectors(expert).cpu()
        read: Tensor = (found.weights.W_gate if self.spec.gated else found.weights.W_in).detach().float().T.cpu()
        return read

    def write_vectors(self, layer: int, expert: int | None = None) -> Tensor:
        """(d_mlp, d_model) of all neurons of a layer, or of one of its experts; where a norm follows the MLP (Gemma, OLMo 2), its
        gain is multiplied in and its scale, which differs from place to place, left out."""
        check_expert(self.spec, Site("neurons", layer, expert=expert))
        found = self._layers[layer]
        if found.experts is not None and expert is not None:
            write = found.experts.write_vectors(expert)
        else:
            write = found.weights.W_out.detach().float()
        return (write if found.post_norm is None else write * self._gain(found.post_norm)).cpu()

    def _gain(self, norm: nn.Module) -> Tensor:
        with self._there.working():
            return gain_of(norm, self.spec.d_model)

    def attention_weights(self, layer: int) -> AttentionWeights:
        """The raw weights of a layer's attention, head by head."""
        check_layer(self.spec, layer)
        found = attention_weights_of(self._layers[layer].attention_weights, self.spec, layer)
        return AttentionWeights(*(one.cpu() for one in found))

    def attention_norm_gain(self, layer: int) -> Tensor:
        """(d_model,) of the norm before a layer's attention, ones where attention reads the residual as it is (OLMo 2).

        Refuses a layer of which neither is known.
        """
        check_layer(self.spec, layer)
        norm = self._layers[layer].attn_norm
        if norm is not None:
            return self._gain(norm).cpu()
        if not self._reads_as_it_is(layer):
            raise ToolRefused(
                f"which norm comes before the attention of layer {layer} of {self.spec.name} is not known"
            )
        return torch.ones(self.spec.d_model)

    def _reads_as_it_is(self, layer: int) -> bool:
        ids = torch.arange(min(PROBE_TOKENS, self.spec.n_ctx, self.spec.d_vocab))[None]
        entered: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            entered.append(x.clone())
            return x

        hook = before(self._layers[layer].attention, keep)
        try:
            residual = self._target.run(ids, read=[Site("resid_pre", layer)], stop=layer + 1).read[
                Site("resid_pre", layer)
            ]
        finally:
            hook.remove()
        return torch.equal(entered[0].cpu(), residual)

    def mlp_norm_gain(self, layer: int) -> Tensor:
        """(d_model,) of the norm before a layer's MLP, ones where the MLP reads the residual as it is (OLMo 2)."""
        check_layer(self.spec, layer)
        found = self._layers[layer]
        norm = found.mlp_norm or (found.attn_norm if self.spec.parallel else None)
        return torch.ones(self.spec.d_model) if norm is None else gain_of(norm, self.spec.d_model)

    @property
    def embed(self) -> Tensor:
        """(d_vocab, d_model)."""
        weight: Tensor = self._model.get_input_embeddings().weight
        return weight.detach().float().cpu()

    @property
    def unembed(self) -> Tensor:
        """(d_model, d_vocab)."""
        weight: Tensor = self._model.get_output_embeddings().weight
        return weight.detach().float().cpu().T

    @torch.inference_mode()
    def final_norm(self, residual: Tensor) -> Tensor:
        """The last norm applied to a residual."""
        normed: Tensor = self._last_norm(residual.to(self._there.device, self._dtype))
        return normed.float().cpu()

    def final_norm_gain(self) -> Tensor:
        """(d_model,) the gain of the last norm."""
        return self._gain(self._last_norm).cpu()

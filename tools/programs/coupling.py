"""Which parts of a model are read at all, by weights: backwards from the output, so that idle parts drop out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuronaut.tools.targets.base import TargetModel

COUPLED = 1e-3  # cosine-like: of the largest that a reader's weights could make of what is written

Slot = tuple[int, str]
"""Where something is read: (layer, "L1H0.q"), (layer, "mlp"), (n_layers, "output")."""


@dataclass(frozen=True)
class Coupling:
    """heads, neurons: of each layer, those that matter. readers: (layer, neuron) to the slots that read it."""

    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[tuple[int, ...], ...]
    readers: dict[tuple[int, int], frozenset[Slot]]


def coupled(target: TargetModel) -> Coupling:
    """The heads and neurons whose writing is read by something that matters, the output first of all."""
    spec = target.spec
    unembed = target.final_norm_gain()[:, None] * target.unembed
    slots: dict[Slot, Tensor] = {(spec.n_layers, "output"): unembed - unembed.mean(1, keepdim=True)}
    heads: list[tuple[int, ...]] = []
    neurons: list[tuple[int, ...]] = []
    readers: dict[tuple[int, int], frozenset[Slot]] = {}
    for layer in range(spec.n_layers - 1, -1, -1):
        found = _reading(_seen(target, target.write_vectors(layer)), slots)
        readers |= {(layer, n): slots_of for n, slots_of in enumerate(found) if slots_of}
        neurons.append(tuple(n for n, slots_of in enumerate(found) if slots_of))
        if neurons[-1]:
            slots[layer, "mlp"] = target.read_vectors(layer)[list(neurons[-1])].T
        attention = target.attention_weights(layer)
        share = spec.n_heads // spec.n_kv_heads
        kept = [head for head in range(spec.n_heads) if any(_reading(_seen(target, attention.W_O[head]), slots))]
        heads.append(tuple(kept))
        for head in kept:
            name = f"L{layer}H{head}"
            slots[layer, f"{name}.q"] = attention.W_Q[head]
            slots[layer, f"{name}.k"] = attention.W_K[head // share]
            slots[layer, f"{name}.v"] = attention.W_V[head // share]
    return Coupling(tuple(heads[::-1]), tuple(neurons[::-1]), readers)


def _seen(target: TargetModel, writes: Tensor) -> Tensor:
    """What is left of written vectors (n, d_model) behind a norm that subtracts the mean."""
    return writes - writes.mean(1, keepdim=True) if target.spec.norm == "layernorm" else writes


def _reading(writes: Tensor, slots: dict[Slot, Tensor]) -> list[frozenset[Slot]]:
    """Of each row (n, d_model), the slots (d_model, width) that make something of it."""
    rows = writes / writes.norm(dim=1, keepdim=True).clamp_min(1e-12)
    strengths = {
        slot: (rows @ weights).norm(dim=1) / torch.linalg.matrix_norm(weights, 2).clamp_min(1e-12)
        for slot, weights in slots.items()
    }
    return [frozenset(slot for slot, all_ in strengths.items() if float(all_[n]) > COUPLED) for n in range(len(rows))]

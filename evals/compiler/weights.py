"""From a program to the weights of a transformer that computes it exactly, and to what each of its parts does.

Two residual dimensions of +-NORM make the layer norms constant to a few parts in a million; one takes up minus the sum of
all others, so that nothing is lost where the norm subtracts the mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuronaut.evals.compiler.parts import (
    BALLAST,
    DOWN,
    START,
    UP,
    Component,
    Floats,
    Head,
    Layout,
    Neurons,
    head_of,
    idle_head,
    idle_neurons,
    neurons_of,
    width,
)
from neuronaut.evals.compiler.program import MAX_LENGTH, Count, Label, Map, Mean, Program, Pull
from neuronaut.evals.fixtures import BOS, gpt2_config

NORM = 4096.0
LOGIT = 20.0
SPARE_NEURONS = 4  # idle ones a layer, at least


@dataclass(frozen=True)
class Compiled:
    """A model and its truth. config, tensors: of the GPT-2 kind. pieces: the vocabulary, the start token first.

    places: the residual dimensions of each variable, before the basis was turned.
    """

    program: Program
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    pieces: tuple[str, ...]
    components: tuple[Component, ...]
    places: Mapping[str, tuple[int, ...]]


def piece_of(label: Label) -> str:
    """The token that says a label."""
    return "-" if label is None else str(label)


def compile_program(program: Program, seed: int, *, spare_heads: int = 1, turn: bool = False) -> Compiled:
    """The model. Raises ValueError for a program that cannot be compiled.

    seed: in which order heads and neurons stand, and what the idle ones read. spare_heads: idle heads a layer, at least.
    turn: a random rotation of the residual basis, so that no dimension stands for a label; the numbers of counts and
    means are then less exact (about 1e-3).
    """
    rng, layout = np.random.default_rng(seed), Layout.of(program)
    n_layers = max(layout.depth.values()) // 2 + 1
    attending = [one for one in layout.depth if isinstance(one, Pull | Mean | Count)]
    n_heads = spare_heads + max(sum(layout.depth[one] == 2 * at for one in attending) for at in range(n_layers))
    d_head = max([8, -(-layout.size // n_heads), *map(width, attending)])
    d_model = n_heads * d_head
    lookups = [neurons_of(one, layout, d_model) for one in layout.depth if isinstance(one, Map)]
    layers = [[group for group in lookups if group.component.layer == at] for at in range(n_layers)]
    d_mlp = SPARE_NEURONS + max(sum(len(group.bias) for group in groups) for groups in layers)
    pieces = tuple(dict.fromkeys((BOS, *map(piece_of, (*program.tokens.domain, *program.output.domain)))))
    sizes = {"n_layers": n_layers, "n_heads": n_heads, "d_model": d_model, "d_mlp": d_mlp}
    config = gpt2_config(**sizes, n_ctx=MAX_LENGTH + 1, d_vocab=len(pieces))
    basis = _rotation(d_model, rng) if turn else np.eye(d_model)
    tensors, components = _embeddings(layout, pieces, basis), []
    for at, groups in enumerate(layers):
        heads = [head_of(one, layout, d_model, d_head) for one in attending if layout.depth[one] == 2 * at]
        heads += [idle_head(at, layout, d_model, d_head, rng) for _ in range(n_heads - len(heads))]
        heads = [heads[i] for i in rng.permutation(n_heads)]
        spare = idle_neurons(at, d_mlp - sum(len(group.bias) for group in groups), layout, d_model, rng)
        order = rng.permutation(d_mlp)
        found = _attention(heads, basis) | _mlp([*groups, spare], order, basis) | _norms(("ln_1", "ln_2"), d_model)
        tensors |= {f"transformer.h.{at}.{name}": tensor for name, tensor in found.items()}
        components += [replace(head.component, indices=(i,)) for i, head in enumerate(heads)]
        components += _placed([*groups, spare], order)
    tensors |= _norms(("transformer.ln_f",), d_model)
    torched = {name: torch.from_numpy(np.ascontiguousarray(value)).float() for name, value in tensors.items()}
    places = {one.name: tuple(found.values()) for one, found in layout.places.items()}
    return Compiled(program, config, torched, pieces, tuple(components), places)


def _embeddings(layout: Layout, pieces: Sequence[str], basis: Floats) -> dict[str, Floats]:
    program, d_model = layout.program, len(basis)
    tokens, positions = np.zeros((len(pieces), d_model)), np.zeros((MAX_LENGTH + 1, d_model))
    tokens[:, UP], tokens[:, DOWN], tokens[0, START] = NORM, -NORM, 1.0
    for token, at in layout.places[program.tokens].items():
        tokens[pieces.index(str(token)), at] = 1.0
    for position, at in enumerate(layout.places[layout.position].values()):
        positions[1 + position, at] = 1.0
    said = np.zeros((len(pieces), d_model))
    for label, at in layout.places[program.output].items():
        said[pieces.index(piece_of(label)), at] = LOGIT  # type: ignore[arg-type]
    return {
        "transformer.wte.weight": _centred(tokens) @ basis,
        "transformer.wpe.weight": _centred(positions) @ basis,
        "lm_head.weight": said @ basis,
    }


def _attention(heads: Sequence[Head], basis: Floats) -> dict[str, Floats]:
    """Queries, keys and values stand side by side, in each of them head after head."""
    reads = [getattr(head, name) for name in ("query", "key", "value") for head in heads]
    biases = [*(head.bias for head in heads), np.zeros(2 * len(basis))]
    return {
        "attn.c_attn.weight": basis.T @ np.concatenate(reads, axis=1),
        "attn.c_attn.bias": np.concatenate(biases),
        "attn.c_proj.weight": _centred(np.concatenate([head.out for head in heads])) @ basis,
        "attn.c_proj.bias": np.zeros(len(basis)),
    }


def _mlp(groups: Sequence[Neurons], order: Any, basis: Floats) -> dict[str, Floats]:
    """order: (d_mlp,) which neuron of the groups stands where."""
    return {
        "mlp.c_fc.weight": basis.T @ np.concatenate([group.read for group in groups], axis=1)[:, order],
        "mlp.c_fc.bias": np.concatenate([group.bias for group in groups])[order],
        "mlp.c_proj.weight": _centred(np.concatenate([group.write for group in groups])[order]) @ basis,
        "mlp.c_proj.bias": np.zeros(len(basis)),
    }


def _norms(names: Sequence[str], d_model: int) -> dict[str, Floats]:
    """Gains that undo what the +-NORM of the residual makes the norms divide by."""
    gain = np.full(d_model, NORM * np.sqrt(2 / d_model))
    return {f"{name}.{part}": value for name in names for part, value in (("weight", gain), ("bias", 0 * gain))}


def _placed(groups: Sequence[Neurons], order: Any) -> list[Component]:
    """The groups with the places where their neurons stand."""
    owner = np.repeat(np.arange(len(groups)), [len(group.bias) for group in groups])[order]
    stands = (tuple(np.flatnonzero(owner == n).tolist()) for n in range(len(groups)))
    return [replace(group.component, indices=indices) for group, indices in zip(groups, stands, strict=True)]


def _centred(rows: Floats) -> Floats:
    """Rows whose sum is 0: one dimension takes up the rest."""
    rows[:, BALLAST] -= rows.sum(axis=1)
    return rows


def _rotation(n: int, rng: np.random.Generator) -> Floats:
    """(n, n) random rotation that leaves the mean of a vector as it is, which is what the layer norm needs."""
    frame = np.linalg.qr(np.concatenate([np.ones((n, 1)), rng.normal(size=(n, n - 1))], axis=1))[0]
    inner = np.eye(n)
    inner[1:, 1:] = np.linalg.qr(rng.normal(size=(n - 1, n - 1)))[0]
    return frame @ inner @ frame.T

"""Small models of which it is known where the next token is decided: by which head, neuron or embedding, and before that, where it
is known already though nothing says so.

Each says what a permutation makes of the token before. The first layer carries that token over into a code that the unembedding
does not read; a later layer, drawn by the seed, turns the code into the answer. Until then a token that is never the answer leads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.evals.fixtures import BOS, gpt2_config, write_folder

Decider = Literal["head", "mlp", "embedding"]
N_LETTERS, N_CTX, N_LAYERS, N_HEADS, D_MLP = 10, 10, 4, 2, 56
D_MODEL = 48
D_HEAD = D_MODEL // N_HEADS
PIECES = (BOS, *"abcdefghij", "?")
TOKENS = range(len(PIECES))  # residual dimensions of the token, the place, the code and the answer
PLACES = range(TOKENS.stop, TOKENS.stop + N_CTX)
CODE = range(PLACES.stop, PLACES.stop + N_LETTERS)
SAID = range(CODE.stop, CODE.stop + N_LETTERS + 1)
DEFAULT = 0.3  # how much "?" leads by
NOISE = 0.001
SHARP = 20.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Planted:
    """decides: the layer, None for the embedding. part: which says the answer; neurons: (n_letters,) by the letter that is read,
    empty where a head says it. follows: the answer to each letter before, by number."""

    decider: Decider
    decides: int | None
    part: str
    neurons: tuple[str, ...]
    follows: tuple[int, ...]


def plant(seed: int, folder: Path) -> Planted:
    """The model's folder is written, and its truth given back. Deciders take turns with the seeds."""
    rng = np.random.default_rng(seed)
    decider: Decider = ("head", "mlp", "embedding")[seed % 3]
    layer, follows = int(rng.integers(1, N_LAYERS)), rng.permutation(N_LETTERS)
    tensors = _embeddings(follows if decider == "embedding" else None)
    heads, neurons = rng.permutation(N_HEADS), rng.permutation(D_MLP)[:N_LETTERS]
    for at in range(N_LAYERS):
        attention, mlp = _idle(rng)
        if at == 0 and decider != "embedding":
            _previous(attention, int(heads[0]))
        if at == layer and decider == "head":
            _turning(attention, int(heads[1]), follows)
        if at == layer and decider == "mlp":
            _looking_up(mlp, neurons, follows)
        tensors |= {
            f"transformer.h.{at}.{name}": value for name, value in (attention | mlp | _norms(("ln_1", "ln_2"))).items()
        }
    tensors |= _norms(("transformer.ln_f",))
    sizes = {
        "n_layers": N_LAYERS,
        "n_heads": N_HEADS,
        "d_model": D_MODEL,
        "d_mlp": D_MLP,
        "n_ctx": N_CTX,
        "d_vocab": len(PIECES),
    }
    write_folder(
        folder, gpt2_config(**sizes), {name: torch.from_numpy(value) for name, value in tensors.items()}, PIECES
    )
    named = tuple(f"{layer}.{neuron}" for neuron in neurons) if decider == "mlp" else ()
    part = {"head": f"L{layer}H{heads[1]}", "mlp": f"mlp{layer}", "embedding": "embed"}[decider]
    return Planted(decider, None if decider == "embedding" else layer, part, named, tuple(follows.tolist()))


def texts(seed: int, n: int) -> list[str]:
    """Random letters, as many as a window holds."""
    rng = np.random.default_rng([seed, 1])
    return [" ".join(PIECES[1 + letter] for letter in rng.integers(0, N_LETTERS, N_CTX - 1)) for _ in range(n)]


def _embeddings(follows: NDArray[np.int64] | None) -> dict[str, Floats]:
    tokens, places = np.zeros((len(PIECES), D_MODEL)), np.zeros((N_CTX, D_MODEL))
    tokens[:, TOKENS], places[:, PLACES] = np.eye(len(PIECES)), np.eye(N_CTX)
    tokens[:, SAID[-1]] = DEFAULT
    if follows is not None:
        tokens[np.arange(1, 1 + N_LETTERS), np.array(SAID)[follows]] = 3.0
    said = np.zeros((len(PIECES), D_MODEL))
    said[1:, SAID] = 3.0 * np.eye(N_LETTERS + 1)
    return {"transformer.wte.weight": tokens, "transformer.wpe.weight": places, "lm_head.weight": said}


def _idle(rng: np.random.Generator) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """A layer that writes next to nothing."""
    attention = {
        "attn.c_attn.weight": rng.normal(size=(D_MODEL, 3 * D_MODEL)) * NOISE, "attn.c_attn.bias": np.zeros(3 * D_MODEL),
        "attn.c_proj.weight": rng.normal(size=(D_MODEL, D_MODEL)) * NOISE, "attn.c_proj.bias": np.zeros(D_MODEL),
    }  # fmt: skip
    mlp = {
        "mlp.c_fc.weight": rng.normal(size=(D_MODEL, D_MLP)), "mlp.c_fc.bias": np.zeros(D_MLP),
        "mlp.c_proj.weight": rng.normal(size=(D_MLP, D_MODEL)) * NOISE, "mlp.c_proj.bias": np.zeros(D_MODEL),
    }  # fmt: skip
    return attention, mlp


def _looks(attention: dict[str, Floats], head: int, back: int) -> None:
    """Queries and keys of a head that looks so many places back."""
    weight = attention["attn.c_attn.weight"]
    query, key = (slice(part * D_MODEL + head * D_HEAD, part * D_MODEL + (head + 1) * D_HEAD) for part in (0, 1))
    weight[:, query], weight[:, key] = 0.0, 0.0
    for at, place in enumerate(PLACES):
        weight[place, query.start + max(0, at - back)] = SHARP
        weight[place, key.start + at] = 1.0


def _carries(attention: dict[str, Floats], head: int, pairs: list[tuple[int, int]], strength: float) -> None:
    """Values of a head: from one dimension of the residual to another."""
    weight, out = attention["attn.c_attn.weight"], attention["attn.c_proj.weight"]
    value = slice(2 * D_MODEL + head * D_HEAD, 2 * D_MODEL + (head + 1) * D_HEAD)
    weight[:, value], out[head * D_HEAD : (head + 1) * D_HEAD] = 0.0, 0.0
    for column, (source, goal) in enumerate(pairs):
        weight[source, value.start + column] = 1.0
        out[head * D_HEAD + column, goal] = strength


def _previous(attention: dict[str, Floats], head: int) -> None:
    _looks(attention, head, 1)
    _carries(attention, head, [(TOKENS[1 + letter], CODE[letter]) for letter in range(N_LETTERS)], 0.2)


def _turning(attention: dict[str, Floats], head: int, follows: NDArray[np.int64]) -> None:
    _looks(attention, head, 0)
    _carries(attention, head, [(CODE[letter], SAID[int(then)]) for letter, then in enumerate(follows)], 0.8)


def _looking_up(mlp: dict[str, Floats], neurons: NDArray[np.int64], follows: NDArray[np.int64]) -> None:
    for letter, (neuron, then) in enumerate(zip(neurons.tolist(), follows.tolist(), strict=True)):
        mlp["mlp.c_fc.weight"][:, neuron] = 0.0
        mlp["mlp.c_fc.weight"][CODE[letter], neuron] = 1.0
        mlp["mlp.c_fc.bias"][neuron] = -1.7
        mlp["mlp.c_proj.weight"][neuron] = 0.0
        mlp["mlp.c_proj.weight"][neuron, SAID[then]] = 1.5


def _norms(names: tuple[str, ...]) -> dict[str, Floats]:
    return {
        f"{name}.{part}": np.full(D_MODEL, value) for name in names for part, value in (("weight", 1.0), ("bias", 0.0))
    }

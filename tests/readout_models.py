"""Small random models with read-outs that are constructed to read a neuron, what it reads, or neither."""

import random
from pathlib import Path

import torch

from neuronaut.evals.fixtures import BOS, gpt2_config, write_folder
from neuronaut.tools.corpus import Corpus, corpus_from_texts
from neuronaut.tools.readouts.heads import Head, HeadConfig
from neuronaut.tools.readouts.moved import read_directions
from neuronaut.tools.registered import Registered
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

D_MODEL, D_MLP, N_LAYERS = 64, 80, 2
WORDS = (*"abcdefghijklmnopqrstuvwxyz", *"0123456789")
UNIT = Unit("neuron", 0, 7)
AFTER = ("resid_post", 1)  # a layer behind that of the unit


def random_model(folder: Path, seed: int) -> Path:
    """The folder of a model with two layers, every weight random."""
    made = torch.Generator().manual_seed(seed)
    pieces = (BOS, *WORDS)
    config = gpt2_config(n_layers=N_LAYERS, n_heads=4, d_model=D_MODEL, d_mlp=D_MLP, n_ctx=16, d_vocab=len(pieces))

    def drawn(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=made)

    tensors = {
        "transformer.wte.weight": drawn(len(pieces), D_MODEL), "transformer.wpe.weight": drawn(16, D_MODEL, scale=0.3),
        "lm_head.weight": drawn(len(pieces), D_MODEL), "transformer.ln_f.weight": 1 + drawn(D_MODEL, scale=0.2),
        "transformer.ln_f.bias": drawn(D_MODEL, scale=0.1),
    }  # fmt: skip
    narrow = D_MODEL**-0.5
    for layer in range(N_LAYERS):
        at = f"transformer.h.{layer}."
        for norm in ("ln_1", "ln_2"):
            tensors |= {f"{at}{norm}.weight": 1 + drawn(D_MODEL, scale=0.2), f"{at}{norm}.bias": drawn(D_MODEL, scale=0.1)}  # fmt: skip
        tensors |= {
            f"{at}attn.c_attn.weight": drawn(D_MODEL, 3 * D_MODEL, scale=narrow), f"{at}attn.c_attn.bias": drawn(3 * D_MODEL, scale=0.1),
            f"{at}attn.c_proj.weight": drawn(D_MODEL, D_MODEL, scale=narrow), f"{at}attn.c_proj.bias": drawn(D_MODEL, scale=0.1),
            f"{at}mlp.c_fc.weight": drawn(D_MODEL, D_MLP, scale=narrow), f"{at}mlp.c_fc.bias": drawn(D_MLP, scale=0.1),
            f"{at}mlp.c_proj.weight": drawn(D_MLP, D_MODEL, scale=0.15), f"{at}mlp.c_proj.bias": drawn(D_MODEL, scale=0.1),
        }  # fmt: skip
    return write_folder(folder, config, tensors, pieces)


def random_texts(n: int = 400, seed: int = 0) -> Corpus:
    """Letters and digits at random."""
    rng = random.Random(seed)
    return corpus_from_texts("letters", [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(n)])


def heads(target: TargetModel, seed: int, *, site: tuple[str, int] = AFTER) -> dict[str, Head]:
    """`writer` is the neuron's write direction, `inputs` the one that drives it, `stranger` a random one."""
    made = torch.Generator().manual_seed(1000 + seed)
    weights = {
        "writer": target.write_vector(UNIT),
        "inputs": read_directions(target, UNIT)[UNIT.index],
        "stranger": torch.randn(D_MODEL, generator=made),
    }
    sha256 = target.fingerprint().weights_sha256
    config = HeadConfig.model_validate({"weights_sha256": sha256, "site": site[0], "layer": site[1]})
    return {name: Head(f"head {name}", name, config, one[None], torch.zeros(1)) for name, one in weights.items()}


def opened(folder: Path, seed: int, corpus: Corpus) -> ToolContext:
    """A random model with its three read-outs."""
    target = load_target(random_model(folder, seed))
    made = heads(target, seed)
    return ToolContext(target, corpus, registered=Registered(heads=made))

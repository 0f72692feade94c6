"""What hooks cost on mlx: a pass that reads all neurons and residuals beside a bare forward of mlx-lm, in the same run.

python -m neuronaut.evals.mlx_speed [--experts]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from neuronaut.tools.targets.base import Site
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.sites import neuron_sites

SHAPE = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4}
TEXT, D_VOCAB = (4, 128), 2048


def random_model(folder: Path, *, experts: bool) -> Path:
    """The folder of a random model of the shape of Llama or of Mixtral, with the tokens of one character each."""
    import transformers
    from tokenizers import Tokenizer, models

    torch.manual_seed(0)
    shape = SHAPE | {"vocab_size": D_VOCAB, "max_position_embeddings": 512, "bos_token_id": None}
    config: transformers.PretrainedConfig = transformers.LlamaConfig(**shape, intermediate_size=1024)
    if experts:
        config = transformers.MixtralConfig(**shape, intermediate_size=512, num_local_experts=8, num_experts_per_tok=2)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    vocabulary = {chr(0x4E00 + number): number for number in range(D_VOCAB)}
    Tokenizer(models.BPE(vocabulary, [])).save(str(folder / "tokenizer.json"))
    return folder


def measured(folder: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of each kind of pass, the median over rounds that take turns, and their ratios to the bare one."""
    import mlx.core as mx
    from mlx_lm.utils import load_model

    target = load_target(folder, backend="mlx")
    theta = {"rope_theta": 10000.0, "tie_word_embeddings": False}
    bare, _ = load_model(folder, model_config=theta)
    ids = torch.randint(0, D_VOCAB, TEXT, generator=torch.Generator().manual_seed(0))
    array, layers = mx.array(ids.numpy()), range(target.spec.n_layers)
    neurons = [site for layer in layers for site in neuron_sites(target.spec, layer)]
    residuals = [Site("resid_post", layer) for layer in layers]
    passes: dict[str, Callable[[], object]] = {
        "bare": lambda: mx.eval(bare(array)),
        "nothing read": lambda: target.run(ids, logits=True),
        "neurons": lambda: target.run(ids, read=neurons, logits=True),
        "neurons and residuals": lambda: target.run(ids, read=[*neurons, *residuals], logits=True),
        "patterns too": lambda: target.run(
            ids, read=[*neurons, *residuals, *(Site("pattern", layer) for layer in layers)], logits=True
        ),
    }
    took: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(rounds + 1):
        for name, one in passes.items():
            began = time.perf_counter()
            one()
            if number:  # the first round warms up
                took[name].append(1000 * (time.perf_counter() - began))
    medians = {name: statistics.median(times) for name, times in took.items()}
    ratios = {name: statistics.median(a / b for a, b in zip(took[name], took["bare"], strict=True)) for name in passes}
    return {"milliseconds": medians, "ratios": ratios, "device": mx.default_device().type.name, "rounds": rounds}


def main() -> None:
    """Print the measurements as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--experts", action="store_true", help="8 experts of 512 neurons, of which 2 are chosen")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / "model", experts=args.experts)
        print(json.dumps(measured(model, args.rounds), indent=1))


if __name__ == "__main__":
    main()

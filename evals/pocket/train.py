"""Train the embedded model: `python -m neuronaut.evals.pocket.train --out DIR --seed 0 --tokens N`.

A second stage goes on from its weights on damaged text: `... --start DIR --out DIR2 --seed 1 --tokens N --noise 0.12`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from .folder import Pocket
from .network import Output, Shape, Transformer
from .packing import IGNORED, Rows, block_mask, pack
from .tokenizer import bos_of, save_tokenizer, train_tokenizer
from .world import MONITORED, documents, held_out_documents

TOKENIZER_TEXTS = 40_000
CROPPED, MIN_CROP, DAMAGED = 0.3, 8, 0.6  # of a stage with noise
LOG_EVERY, REVIVE_EVERY, SAVE_EVERY = 50, 200, 500


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 0
    tokens: int = 20_000_000
    sparsity: float = 0.05
    rate: float = 2e-3
    rows: int = 32
    warm: float = 0.02
    ramp: tuple[float, float] = (0.02, 0.15)
    revive: tuple[float, float] = (0.1, 0.6)
    noise: float = 0.0

    @property
    def further(self) -> Recipe:
        """The same for a stage that starts from trained weights: the penalty and the revival from its first step."""
        return replace(self, ramp=(-1.0, 0.0), revive=(0.0, self.revive[1]))


@dataclass(frozen=True)
class Progress:
    """One line of the training log."""

    step: int
    tokens: int
    seconds: float
    loss: float
    held_out: float
    active: float
    penalty: float


class TrainingRun(NamedTuple):
    """What a run leaves behind."""

    model: Transformer
    log: list[Progress]


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, BOS first."""
    return [[bos_of(tokenizer), *encoding.ids] for encoding in tokenizer.encode_batch(texts)]


def training_documents(tokenizer: Tokenizer, tokens: int, seed: int) -> Iterator[list[int]]:
    """Training documents as ids, until they hold `tokens` tokens."""
    stream, batch = documents(seed, held_out=False), 4000
    while tokens > 0:
        for ids in encode(tokenizer, [next(stream).text for _ in range(batch)]):
            tokens -= len(ids)
            yield ids
            if tokens <= 0:
                return


def cropped(documents: Iterable[list[int]], seed: int) -> Iterator[list[int]]:
    """The documents, a share of CROPPED of them without a random part of their beginning (BOS stays)."""
    chance = np.random.default_rng(seed)
    for ids in documents:
        cut = chance.random() < CROPPED and len(ids) > MIN_CROP
        yield [ids[0], *ids[int(chance.integers(1, len(ids) - MIN_CROP + 1)) :]] if cut else ids


def damaged(rows: Rows, noise: float, seed: int) -> Rows:
    """The rows, in a share of DAMAGED of them each token replaced with chance `noise` by one drawn from the text.

    A replaced token is never a target, so that the model learns to go on from damage and not to make it. Hypotheses are
    tested on edited text; a model that has only seen perfect text falls silent at any edit.
    """
    chance = np.random.default_rng(seed)
    inside = (rows.owner >= 0) & (rows.positions > 0)
    ids, drawn = rows.ids.clone(), rows.ids[inside].numpy()
    hit = (chance.random(tuple(ids.shape)) < noise) & (chance.random((len(ids), 1)) < DAMAGED)
    chosen = torch.from_numpy(hit) & inside
    ids[chosen] = torch.from_numpy(chance.choice(drawn, size=int(chosen.sum())))
    targets = rows.targets.clone()
    targets[:, :-1][chosen[:, 1:]] = IGNORED
    return rows._replace(ids=ids, targets=targets)


def learning_rate(share: float, recipe: Recipe) -> float:
    """The rate when `share` of the tokens is used: linear up, then half a cosine to 0."""
    if share < recipe.warm:
        return recipe.rate * share / recipe.warm
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (share - recipe.warm) / (1 - recipe.warm)))


def penalty_weight(share: float, recipe: Recipe) -> float:
    """The weight of the sparsity penalty when `share` of the tokens is used: 0, then a ramp, then constant."""
    start, end = recipe.ramp
    return recipe.sparsity * min(1.0, max(0.0, (share - start) / (end - start)))


def forward(model: Transformer, rows: Rows, at: slice, dtype: torch.dtype) -> tuple[Output, Tensor]:
    """The output on some rows, and the mean loss of their predicted tokens in nats."""
    output = model(rows.ids[at], rows.positions[at], block_mask(rows.owner[at]), dtype=dtype)
    loss = F.cross_entropy(output.logits.float(), rows.targets[at].flatten(), ignore_index=IGNORED)
    return output, loss


def optimizer_for(model: Transformer, rate: float) -> torch.optim.Optimizer:
    """AdamW with decay on the matrices of the layers only."""
    decayed = [p for name, p in model.named_parameters() if name.startswith("h.") and p.dim() == 2]
    kept = [p for name, p in model.named_parameters() if not (name.startswith("h.") and p.dim() == 2)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


@torch.no_grad()
def revive(model: Transformer, optimizer: torch.optim.Optimizer, dead: Tensor, inputs: list[Tensor]) -> None:
    """Point each dead neuron (`dead`, n_layers x d_mlp) at the input of a random token, with a small random output.

    inputs: for each layer what its neurons read, (n_tokens, d_model). A neuron starts with activation 1 at its token
    and 0 where the cosine with it is below one half.
    """
    for layer, block in enumerate(model.blocks):
        mlp, chosen = block.mlp, dead[layer].nonzero()[:, 0]
        picked = inputs[layer][torch.randint(len(inputs[layer]), (len(chosen),))].float()
        mlp.c_fc.weight[:, chosen] = (2 * picked / picked.square().sum(1, keepdim=True)).T
        mlp.c_fc.bias[chosen] = -1.0
        written = torch.randn(len(chosen), model.shape.d_model)
        mlp.c_proj.weight[chosen] = 0.1 * written / written.norm(dim=1, keepdim=True)
        for weights, where in ((mlp.c_fc.weight, (..., chosen)), (mlp.c_fc.bias, chosen), (mlp.c_proj.weight, chosen)):
            state = optimizer.state[weights]
            state["exp_avg"][where] = 0.0
            state["exp_avg_sq"][where] = state["exp_avg_sq"].mean()


def train(
    recipe: Recipe, model: Transformer, rows: Rows, held_out: Rows, save: Callable[[Transformer], None]
) -> TrainingRun:
    """The model after training on all rows, and its log; `save` gets the model every 500 steps.

    The penalty is the mean over tokens of activation x norm of what the neuron writes, summed over a layer's neurons
    and averaged over layers: shrinking activations while growing the output weights earns nothing.
    """
    log, began, shape = list[Progress](), time.monotonic(), model.shape
    optimizer = optimizer_for(model, recipe.rate)
    steps, silent = len(rows.ids) // recipe.rows, torch.ones(shape.n_layers, shape.d_mlp, dtype=torch.bool)
    for step in range(steps):
        share = step / steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(share, recipe)
        output, loss = forward(model, rows, slice(step * recipe.rows, (step + 1) * recipe.rows), torch.bfloat16)
        penalty = (output.activity * model.write_norms()).sum() / shape.n_layers
        optimizer.zero_grad()
        (loss + penalty_weight(share, recipe) * penalty).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        silent &= output.activity.detach() == 0
        if (step + 1) % REVIVE_EVERY == 0:
            if recipe.revive[0] <= share < recipe.revive[1]:
                revive(model, optimizer, silent, neuron_inputs(model, held_out))
            silent.fill_(True)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            used = (step + 1) * recipe.rows * rows.ids.shape[1]
            log.append(measure(model, held_out, step + 1, used, time.monotonic() - began, loss.item(), penalty.item()))
            print(json.dumps(log[-1].__dict__), file=sys.stderr, flush=True)
        if (step + 1) % SAVE_EVERY == 0:
            save(model)
    return TrainingRun(model, log)


@torch.no_grad()
def neuron_inputs(model: Transformer, rows: Rows) -> list[Tensor]:
    """What the neurons of each layer read on `rows`: (n_tokens, d_model) a layer."""
    read: list[Tensor] = []
    hooks = [
        block.mlp.c_fc.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
        for block in model.blocks
    ]
    forward(model, rows, slice(None), torch.bfloat16)
    for hook in hooks:
        hook.remove()
    return [inputs[rows.owner.flatten() >= 0] for inputs in read]


@torch.no_grad()
def measure(
    model: Transformer, held_out: Rows, step: int, used: int, seconds: float, loss: float, penalty: float
) -> Progress:
    """A line of the log: held-out loss, and the mean share of a layer's neurons that are active at a token."""
    active: list[Tensor] = []
    hooks = [
        block.mlp.c_proj.register_forward_pre_hook(
            lambda _module, inputs: active.append((inputs[0] > 0).float().mean())
        )
        for block in model.blocks
    ]
    _, held = forward(model, held_out, slice(None), torch.bfloat16)
    for hook in hooks:
        hook.remove()
    return Progress(
        step,
        used,
        round(seconds, 1),
        round(loss, 4),
        round(held.item(), 4),
        round(torch.stack(active).mean().item(), 4),
        round(penalty, 3),
    )


def export(model: Transformer, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a folder that transformers loads as GPT2LMHeadModel; weights are rounded to float16."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.shape.huggingface(), indent=2) + "\n")
    weights = {f"transformer.{name}": value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    save_tokenizer(tokenizer, folder, model.shape.context)


def main(arguments: list[str] | None = None) -> None:
    """Generate, train, export; progress on stderr, one JSON line every 50 steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--tokens", type=int, default=Recipe.tokens)
    parser.add_argument("--sparsity", type=float, default=Recipe.sparsity)
    parser.add_argument("--rate", type=float, default=Recipe.rate)
    parser.add_argument("--start", type=Path, help="a trained folder to go on from")
    parser.add_argument("--noise", type=float, default=Recipe.noise, help="share of tokens replaced in damaged rows")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    recipe = Recipe(chosen.seed, chosen.tokens, chosen.sparsity, chosen.rate, noise=chosen.noise)
    model, tokenizer, recipe = _beginning(recipe, chosen.start)
    length = model.shape.context
    texts = training_documents(tokenizer, recipe.tokens, recipe.seed)
    rows = pack(list(cropped(texts, recipe.seed) if recipe.noise else texts), length, recipe.seed)
    rows = damaged(rows, recipe.noise, recipe.seed) if recipe.noise else rows
    held_out = pack(encode(tokenizer, [made.text for made in held_out_documents(MONITORED)]), length, 0)
    model, log = train(recipe, model, rows, held_out, lambda so_far: export(so_far, tokenizer, chosen.out))
    export(model, tokenizer, chosen.out)
    record = {
        "recipe": recipe.__dict__,
        "shape": model.shape.sizes(),
        "rows": len(rows.ids),
        "log": [line.__dict__ for line in log],
    }
    before = chosen.start / "training_log.json" if chosen.start else None
    stages = json.loads(before.read_text())["stages"] if before else []
    (chosen.out / "training_log.json").write_text(json.dumps({"stages": [*stages, record]}, indent=1) + "\n")


def _beginning(recipe: Recipe, start: Path | None) -> tuple[Transformer, Tokenizer, Recipe]:
    """What training begins with: a new model and tokenizer, or those of a trained folder."""
    torch.manual_seed(recipe.seed)
    if start is not None:
        trained = Pocket.load(start)
        return trained.model.train(), trained.tokenizer, recipe.further
    stream = documents(recipe.seed, held_out=False)
    tokenizer = train_tokenizer((next(stream).text for _ in range(TOKENIZER_TEXTS)), Shape().vocabulary)
    return Transformer(Shape()), tokenizer, recipe


if __name__ == "__main__":
    main()

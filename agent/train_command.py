"""The command `train-sae`. Everything heavy is imported when it is needed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from neuronaut.agent.options import CorpusFile, Json, Model, Seed


class Twins(StrEnum):
    """Which untrained twins of a model something is repeated on."""

    none = "none"
    random_init = "random-init"
    row_shuffled = "row-shuffled"
    both = "both"


def train_sae(
    site: Annotated[
        str,
        typer.Option(help="resid_pre, attn_out, mlp_out, resid_post, neurons or heads (all of a layer, before W_O)."),
    ],
    layer: Annotated[int, typer.Option(help="Of the site, counted from 0.")],
    width: Annotated[int, typer.Option(help="Number of features.")],
    k: Annotated[int, typer.Option(help="Features active at a token: at most (topk), or on average (jumprelu).")],
    out: Annotated[Path, typer.Option(help="New folder for cfg.json, sae_weights.safetensors and report.json.")],
    tokens: Annotated[
        float, typer.Option(min=1, max=1e12, help="To train on; the explore text is repeated as often as needed.")
    ] = 2e6,
    activation: Annotated[str, typer.Option(help="topk or jumprelu.")] = "topk",
    twins: Annotated[
        Twins, typer.Option(help="Untrained models on which the same is done, to compare with.")
    ] = Twins.random_init,
    model: Model = "pocket",
    corpus: CorpusFile = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a dictionary of features (a sparse autoencoder) on explore text, and measure it on design text.

    A stopped training goes on with the same command. SAELens reads the folder.

    Example: neuronaut train-sae --site resid_post --layer 6 --width 1024 --k 8 --out features
    """
    from neuronaut.agent.training import Wanted
    from neuronaut.agent.training import train_sae as train

    wanted = Wanted(model, corpus, site, layer, width, k, tokens, out, activation, twins.value, seed)
    train(wanted, as_json=as_json)

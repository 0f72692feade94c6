"""Small models as folders of the GPT-2 kind, as the assistant loads any other."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from neuronaut.tools.files import write_whole

BOS = "<s>"


def gpt2_config(*, n_layers: int, n_heads: int, d_model: int, d_mlp: int, n_ctx: int, d_vocab: int) -> dict[str, Any]:
    """The content of config.json: ReLU, learned positions, embedding and unembedding apart, the start token first."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "relu",
        "n_layer": n_layers,
        "n_head": n_heads,
        "n_embd": d_model,
        "n_inner": d_mlp,
        "n_positions": n_ctx,
        "vocab_size": d_vocab,
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], pieces: Sequence[str]) -> Path:
    """The folder, with weights, configuration and a tokenizer of whole words between spaces. pieces: BOS is the first."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    words = tokenizers.Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=BOS))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([BOS])
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS}
    weights = {name: tensor.detach().to(torch.float32).contiguous() for name, tensor in tensors.items()}
    write_whole(folder / "config.json", json.dumps(dict(config)).encode())
    write_whole(folder / "tokenizer.json", words.to_str().encode())
    write_whole(folder / "tokenizer_config.json", json.dumps(settings).encode())
    write_whole(folder / "model.safetensors", save(weights, metadata={"format": "pt"}))
    return folder

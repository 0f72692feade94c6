"""The shipped folder, read back: weights, tokenizer, corpus documents with their truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from .network import Shape, Transformer
from .packing import block_mask
from .tokenizer import bos_of
from .world import Document


@dataclass(frozen=True)
class Pocket:
    """The model as it is shipped (weights rounded to float16, computed in float32) and its tokenizer."""

    model: Transformer
    tokenizer: Tokenizer

    @classmethod
    def load(cls, folder: Path) -> Pocket:
        """The model of `folder`."""
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        model = Transformer(Shape(vocabulary=tokenizer.get_vocab_size()))
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict({name.removeprefix("transformer."): value.float() for name, value in weights.items()})
        return cls(model.eval(), tokenizer)

    @property
    def bos(self) -> int:
        """The token before every document."""
        return bos_of(self.tokenizer)

    def token(self, text: str) -> int:
        """The one token that `text` is."""
        (only,) = self.tokenizer.encode(text).ids
        return int(only)

    @torch.no_grad()
    def predictions(self, texts: list[str]) -> list[Tensor]:
        """For each text (n_tokens + 1, d_vocab): row i is what is expected at token i, as log-probabilities."""
        encoded = [[self.bos, *encoding.ids] for encoding in self.tokenizer.encode_batch(texts)]
        longest = max(map(len, encoded))
        ids = torch.tensor([[*tokens, *[self.bos] * (longest - len(tokens))] for tokens in encoded])
        owner = torch.zeros_like(ids)
        logits = self.model(ids, torch.arange(longest).expand_as(ids), block_mask(owner)).logits.view(*ids.shape, -1)
        return [row[: len(tokens)].log_softmax(-1) for row, tokens in zip(logits, encoded, strict=True)]


def token_at(document: Document, offsets: list[tuple[int, int]], char: int) -> int:
    """The number of the token that holds character `char` of `document`."""
    return next(number for number, (start, end) in enumerate(offsets) if start <= char < end)

"""Loss per register of the model, and of a unigram and a bigram model fitted on its training text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from .folder import Pocket
from .packing import IGNORED, block_mask, pack
from .world import Document, training_texts

# Pseudo-counts of the unigram distribution added to each row of bigram counts: the best of 0.5, 2, 5, 10, 20 and 40 on
# the documents that the trainer watches.
SMOOTHING = 20.0


@dataclass(frozen=True)
class RegisterLoss:
    """Mean loss in nats per token of one register; the end of a document counts as a token."""

    register: str
    tokens: int
    model: float
    unigram: float
    bigram: float


@dataclass(frozen=True)
class Counted:
    """Log-probabilities of the counting models: (d_vocab,) and (d_vocab, d_vocab), the row being the token before."""

    unigram: NDArray[np.float64]
    bigram: NDArray[np.float64]


def fit(pocket: Pocket, texts: int = 40_000) -> Counted:
    """Counting models of the first training texts."""
    size, bos = pocket.tokenizer.get_vocab_size(), pocket.bos
    pairs = np.zeros((size, size))
    for encoding in pocket.tokenizer.encode_batch(training_texts(texts)):
        tokens = np.array([bos, *encoding.ids, bos])
        np.add.at(pairs, (tokens[:-1], tokens[1:]), 1)
    unigram = (pairs.sum(0) + 0.1) / (pairs.sum() + 0.1 * size)
    bigram = (pairs + SMOOTHING * unigram) / (pairs.sum(1, keepdims=True) + SMOOTHING)
    return Counted(np.log(unigram), np.log(bigram))


@torch.no_grad()
def losses(pocket: Pocket, counted: Counted, documents: Iterable[Document]) -> list[RegisterLoss]:
    """One line a register, and one for all."""
    texts: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        texts[document.register].append(document.text)
    found: list[RegisterLoss] = []
    for register, members in sorted(texts.items()):
        encoded = [[pocket.bos, *encoding.ids] for encoding in pocket.tokenizer.encode_batch(members)]
        rows = pack(encoded, pocket.model.shape.context, 0)
        total, n = 0.0, int((rows.targets != IGNORED).sum())
        for start in range(0, len(rows.ids), 64):
            now = slice(start, start + 64)
            output = pocket.model(rows.ids[now], rows.positions[now], block_mask(rows.owner[now]))
            total += F.cross_entropy(
                output.logits, rows.targets[now].flatten(), ignore_index=IGNORED, reduction="sum"
            ).item()
        kept = rows.targets != IGNORED
        before, after = rows.ids[kept].numpy(), rows.targets[kept].numpy()
        found.append(
            RegisterLoss(
                register,
                n,
                total / n,
                float(-counted.unigram[after].mean()),
                float(-counted.bigram[before, after].mean()),
            )
        )
    return [*found, _together(found)]


def _together(found: list[RegisterLoss]) -> RegisterLoss:
    sizes = np.array([line.tokens for line in found])
    model, unigram, bigram = (
        float(np.average([getattr(line, name) for line in found], weights=sizes))
        for name in ("model", "unigram", "bigram")
    )
    return RegisterLoss("all", int(sizes.sum()), model, unigram, bigram)

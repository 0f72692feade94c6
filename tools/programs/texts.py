"""Texts of given words, as a small model is asked about: all short ones, and random ones of full length."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import TargetModel

Text = tuple[int, ...]  # numbers of words
SHORT = 256  # at most so many texts are all of their length; their beginnings are texts too, since the model is causal
MAX_WORDS = 32


@dataclass(frozen=True)
class Words:
    """The tokens of which texts are made. lead: 1 where a start token stands before each text, else 0."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    bos: int | None
    longest: int

    @property
    def lead(self) -> int:
        """Places before the first word."""
        return int(self.bos is not None)

    def tensor(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """(batch, lead + length) ids of texts of one length, given as numbers of words."""
        start = [] if self.bos is None else [self.bos]
        return torch.tensor([[*start, *(self.ids[word] for word in text)] for text in texts], dtype=torch.long)


def find_words(target: TargetModel, vocabulary: Sequence[str], length: int | None) -> Words:
    """The words by their pieces; none named is the whole vocabulary. Refuses unknown pieces, one twice, too many or too
    few, and texts that do not fit the context."""
    spec, known = target.spec, target.vocabulary
    number = {piece: i for i, piece in reversed(list(enumerate(known.pieces))) if i not in known.special}
    pieces = tuple(vocabulary) or tuple(number)[::-1]
    if missing := [piece for piece in pieces if piece not in number]:
        raise ToolRefused(
            f"{missing[0]!r} is no token of {spec.name}: give pieces as its vocabulary has them, with the leading space"
        )
    if len(set(pieces)) < len(pieces) or not 2 <= len(pieces) <= MAX_WORDS:
        raise ToolRefused(
            f"a program is read from texts of 2 to {MAX_WORDS} different words, not {len(pieces)}: name them in vocabulary"
        )
    room = spec.n_ctx - (spec.bos is not None)
    if length is not None and length > room:
        raise ToolRefused(f"texts of {length} words do not fit {spec.name}, which has room for {room}")
    return Words(
        tuple(number[piece] for piece in pieces), pieces, spec.bos, min(room, 12) if length is None else length
    )


def short_texts(words: Words) -> list[Text]:
    """All texts of the largest length that has at most SHORT of them."""
    n = len(words.ids)
    length = max(k for k in range(1, words.longest + 1) if k == 1 or n**k <= SHORT)
    return list(product(range(n), repeat=length))


def random_texts(words: Words, n: int, rng: np.random.Generator, *, uneven: bool) -> list[Text]:
    """`n` texts of full length. uneven: some words are commoner than others in each text, and the last word may be said
    again, so that large counts and long runs come up."""
    k, length = len(words.ids), words.longest
    if not uneven:
        return [tuple(text) for text in rng.integers(k, size=(n, length)).tolist()]
    found = []
    for _ in range(n):
        text = rng.choice(k, size=length, p=rng.dirichlet(np.full(k, 0.5)))
        again = rng.random(length) < rng.choice([0.0, 0.5])
        for at in range(1, length):
            text[at] = text[at - 1] if again[at] else text[at]
        found.append(tuple(text.tolist()))
    return found

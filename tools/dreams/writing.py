"""Where a dream begins and what it may write: pieces of natural text and random tokens, both as texts that the tokenizer keeps."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens


@dataclass(frozen=True)
class TextWriting:
    """Prompts of `length` tokens behind BOS, if the model has one. tokens_of: natural text that they begin with."""

    target: TargetModel
    text: Tokens = field(repr=False)
    length: int

    def __post_init__(self) -> None:
        room = self.target.spec.n_ctx - self.start
        if self.length > room:
            raise ToolRefused(f"length {self.length} is longer than {self.target.spec.name} reads: give at most {room}")

    @property
    def start(self) -> int:
        """1 where BOS comes first."""
        return 0 if self.target.spec.bos is None else 1

    @cached_property
    def tokens(self) -> Tensor:
        """Those with a text of their own; what stands for half a character is left out."""
        vocabulary = self.target.vocabulary
        pieces = enumerate(vocabulary.pieces[: self.target.spec.d_vocab])
        known = [
            token for token, piece in pieces if piece and "\ufffd" not in piece and token not in vocabulary.special
        ]
        return torch.tensor(known)

    @cached_property
    def _frequent(self) -> NDArray[np.float64]:
        """(n_tokens,) how often each token stands in natural text, one more so that none is left out."""
        counts = np.bincount(self.text.ids[self.text.scored], minlength=int(self.tokens.max()) + 1) + 1.0
        found: NDArray[np.float64] = counts[self.tokens.numpy()]
        return found / found.sum()

    def draw(self, n: int, rng: np.random.Generator) -> Tensor:
        """Half of them pieces of natural text, half tokens at random by their frequency there."""
        pieces = self.pieces(n // 2, rng)
        drawn = rng.choice(self.tokens.numpy(), size=(n - len(pieces), self.length), p=self._frequent)
        return torch.cat([pieces, self.begun(torch.from_numpy(drawn))])

    def pieces(self, n: int, rng: np.random.Generator) -> Tensor:
        """At most n pieces of natural text, (≤ n, pos); none where no text is as long."""
        room = self.text.lengths - self.start - self.length + 1
        windows = np.flatnonzero(room > 0)
        if n == 0 or not len(windows):
            return self.begun(torch.zeros((0, self.length), dtype=torch.long))
        chosen = rng.choice(windows, size=n)
        at = self.start + (rng.random(n) * room[chosen]).astype(int)
        rows = np.stack(
            [self.text.ids[window, low : low + self.length] for window, low in zip(chosen, at, strict=True)]
        )
        found = self.begun(torch.from_numpy(rows).long())
        return found[self.scored(found)]

    def scored(self, ids: Tensor) -> Tensor:
        """(n,) bool: those that hold no special token behind the first."""
        special = torch.tensor(sorted(self.target.vocabulary.special), dtype=torch.long)
        return ~torch.isin(ids[:, self.start :], special).any(dim=1)

    def begun(self, ids: Tensor) -> Tensor:
        """Rows with BOS put before them where the model has one."""
        bos = self.target.spec.bos
        return ids if bos is None else torch.cat([torch.full((len(ids), 1), bos), ids], dim=1)

    def writable(self, ids: Tensor) -> Tensor:
        """(n,) bool: decoded and cut into tokens again they are what they were."""
        again = self.target.tokenize([self.target.decode(row) for row in ids.tolist()])
        width = ids.shape[1]
        fits = torch.zeros(len(ids), dtype=torch.bool)
        for window, document in enumerate(again.documents.tolist()):
            same = int(again.lengths[window]) == width and bool(
                (again.ids[window, :width] == ids[document].numpy()).all()
            )
            fits[document] = same
        return fits

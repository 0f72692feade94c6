"""What the target expects next: the shares from which half of all replacements are drawn."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.registry import Array, ToolContext
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import PAD

NEXT_CONTEXT = 64  # tokens from which a replacement is predicted; long texts cost much and change it little
BATCH = 64  # texts
KEPT_BYTES = 1 << 27  # of residuals
LEAST_KEPT = 1024  # windows; where not so many fit, none is kept


@dataclass
class NextTokens:
    """The target's next-token shares at places of a text.

    Places of one window share one pass: its residuals before the last norm are kept, the latest KEPT_BYTES of them.
    """

    target: TargetModel
    _kept: OrderedDict[bytes, Tensor] = field(default_factory=OrderedDict, repr=False)

    @classmethod
    def of(cls, context: ToolContext) -> "NextTokens":
        """The one of a context, so that its units share what is kept."""
        known: NextTokens = context.__dict__.setdefault("_next_tokens", cls(context.target))
        return known

    def __call__(self, ids: NDArray[np.integer], positions: NDArray[np.int64]) -> Array:
        """(n, d_vocab) the shares of the token at each position (n,) of windows ids (n, pos), PAD where they have ended.

        They follow from the tokens before the position, the first and the last NEXT_CONTEXT - 1 where those are more.
        """
        heads, places = zip(*map(self._head, ids, np.maximum(positions, 1).tolist()), strict=True)
        residuals = self._residuals(heads)
        found = np.empty((len(ids), self.target.spec.d_vocab))
        for at in range(0, len(ids), BATCH):
            part = [
                residuals[head][place]
                for head, place in zip(heads[at : at + BATCH], places[at : at + BATCH], strict=True)
            ]
            none = torch.zeros(len(part), 1, dtype=torch.long)
            run = self.target.run(none, start=(self.target.spec.n_layers, torch.stack(part)[:, None]), logits=True)
            assert run.logits is not None
            found[at : at + BATCH] = torch.softmax(run.logits[:, 0].double(), dim=-1).numpy()
        return found

    @property
    def keeps(self) -> bool:
        """Whether windows are kept."""
        return 4 * NEXT_CONTEXT * self.target.spec.d_model * LEAST_KEPT <= KEPT_BYTES

    def _head(self, ids: NDArray[np.integer], n: int) -> tuple[bytes, int]:
        """The tokens that are run for a place with `n` tokens before it, as bytes, and the last one of those n among them."""
        if n > NEXT_CONTEXT:
            head = np.append(ids[:1], ids[n - NEXT_CONTEXT + 1 : n])
        else:
            head = ids[: NEXT_CONTEXT if self.keeps else n]
        return head[head != PAD].astype(np.int64).tobytes(), min(n, NEXT_CONTEXT) - 1

    def _residuals(self, heads: Sequence[bytes]) -> dict[bytes, Tensor]:
        """(n_pos, d_model) of each window."""
        found = {head: self._kept[head] for head in heads if head in self._kept}
        missing = sorted({head for head in heads if head not in found}, key=lambda head: (len(head), head))
        for at in range(0, len(missing), BATCH):
            part = missing[at : at + BATCH]
            found |= dict(zip(part, self._read(part), strict=True))
        if self.keeps:
            for head, residual in found.items():
                self._kept[head] = residual
                self._kept.move_to_end(head)
            width = 4 * NEXT_CONTEXT * self.target.spec.d_model
            while len(self._kept) * width > KEPT_BYTES:
                self._kept.popitem(last=False)
        return found

    def _read(self, heads: Sequence[bytes]) -> list[Tensor]:
        rows = [torch.frombuffer(bytearray(head), dtype=torch.long) for head in heads]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        last = self.target.spec.n_layers - 1
        read = self.target.run(ids, read=[Site("resid_post", last)], stop=last + 1).read[Site("resid_post", last)]
        return [residual[: len(row)].clone() for residual, row in zip(read, rows, strict=True)]

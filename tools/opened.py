"""Text of a corpus as a target sees it, tokenised as far as it is needed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from neuronaut.tools.corpus import Document, tokens_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens, joined

_AT_ONCE = 256  # documents


@dataclass
class OpenedText:
    """Documents in their order; what was tokenised is kept."""

    target: TargetModel
    documents: Sequence[Document]
    _tokens: Tokens | None = field(default=None, repr=False)
    _at: int = 0

    def first(self, n_tokens: int) -> Tokens:
        """The first windows that hold at least `n_tokens` tokens together; all windows where they hold fewer.

        Documents behind those are not read, except for a few that are tokenised with them.
        """
        parts = [] if self._tokens is None else [self._tokens]
        found = sum(int(part.lengths.sum()) for part in parts)
        while not parts or (found < n_tokens and self._at < len(self.documents)):
            parts.append(tokens_of(self.target, self.documents[self._at : self._at + _AT_ONCE]))
            found += int(parts[-1].lengths.sum())
            self._at += _AT_ONCE
        if len(parts) > 1 or self._tokens is None:
            self._tokens = joined(parts)
        tokens = self._tokens
        enough = int(np.searchsorted(np.cumsum(tokens.lengths), n_tokens)) + 1
        return tokens if enough >= len(tokens) else tokens.select(range(enough))

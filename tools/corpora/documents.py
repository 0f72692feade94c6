"""One text of a corpus, and the rule that says on which texts claims are made and on which they are tested."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Split = Literal["explore", "design", "confirm", "audit"]

SPLIT_RULE = b"neuronaut split 1"
SPLITS: tuple[Split, ...] = get_args(Split)
CONFIRM_BLOCKS = 3
_BEGINS = np.array([0.4, 0.6, 0.9])  # where design, confirm and audit begin


@dataclass(frozen=True)
class Document:
    """One text. Near-duplicates share `group`, the number called "document" everywhere else; block: 0-2 in confirm."""

    text: str
    group: int
    split: Split
    block: int = 0


def places_of(keys: NDArray[np.uint8]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """(n,) number of the split and of the block of each group, by the first 16 bytes of its key (n, 32)."""
    share, block = (keys[:, at : at + 8].copy().view(">u8").ravel() for at in (0, 8))
    split = np.searchsorted(_BEGINS, share / 2.0**64, side="right")
    confirm = split == SPLITS.index("confirm")
    return split.astype(np.int8), np.where(confirm, block % CONFIRM_BLOCKS, 0).astype(np.int8)

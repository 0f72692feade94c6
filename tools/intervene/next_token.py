"""Log-probabilities of the token after each text, with and without edits, in batches that fit into memory."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.tokens import Tokens

BATCH_TOKENS = 4096
LOGIT_BYTES = 256 << 20  # logits of one batch; one text may need more


def token_id(target: TargetModel, piece: str) -> int:
    """The id of the token whose text is `piece`. Refuses text that is no single token."""
    if piece in target.vocabulary.pieces:
        return target.vocabulary.pieces.index(piece)
    raise ToolRefused(
        f"{piece!r} is not one token of {target.spec.name}: give a single token with its leading space, such as ' the'"
    )


def last_of(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Row and position of the last token of each text."""
    return torch.arange(len(tokens)), torch.from_numpy(tokens.lengths - 1)


def tokens_at_once(target: TargetModel) -> int:
    """How many padded tokens may be run together when logits are asked for."""
    return min(BATCH_TOKENS, LOGIT_BYTES // (4 * target.spec.d_vocab))


def divergence(plain: Tensor, changed: Tensor) -> Tensor:
    """(…,) KL(plain ‖ changed) in nats, of log-probabilities (…, d_vocab)."""
    return (plain.exp() * (plain - changed)).sum(dim=-1)


def text_batches(target: TargetModel, tokens: Tokens) -> Iterator[tuple[NDArray[np.int64], Tokens]]:
    """Row numbers and texts of each batch."""
    for rows in batches(tokens, tokens_at_once(target)):
        yield rows, tokens.select(rows)


def last_log_probs(
    target: TargetModel, tokens: Tokens, edits: Sequence[Edit], *, start: tuple[int, Tensor] | None = None
) -> Tensor:
    """(n_windows, d_vocab) log-probabilities of the token after each text, in one batch. Fails where they are not finite."""
    logits = target.run(to_ids(tokens), edits=edits, start=start, logits=True).logits
    assert logits is not None
    found = torch.log_softmax(logits[last_of(tokens)].float(), dim=-1)
    if not bool(torch.isfinite(found).all()):
        raise ToolFailed("the edited model gives logits that are not finite: choose a smaller value")
    return found


def residual_before(target: TargetModel, ids: Tensor, layer: int) -> tuple[int, Tensor] | None:
    """Where to resume at `layer`; None at layer 0, before which nothing is run."""
    if layer == 0:
        return None
    site = Site("resid_post", layer - 1)
    return layer, target.run(ids, read=[site], stop=layer).read[site]


def values_at_last(target: TargetModel, tokens: Tokens, site: Site) -> Tensor:
    """(n_windows, width[, d_head]) the site at the last token of each text."""
    found: Tensor | None = None
    for rows, part in text_batches(target, tokens):
        here = target.run(to_ids(part), read=[site], stop=site.layer + 1).read[site][last_of(part)]
        found = here.new_empty(len(tokens), *here.shape[1:]) if found is None else found
        found[torch.from_numpy(rows)] = here
    assert found is not None, "no text"
    return found

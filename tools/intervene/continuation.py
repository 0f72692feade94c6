"""What a model goes on to write, with and without an edit that stays in place."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.intervene.next_token import text_batches
from neuronaut.tools.intervene.parts import Places
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.targets.base import Edit, TargetModel
from neuronaut.tools.tokens import Tokens

Held = Callable[[Tensor, Places], Edit]  # numbers of texts and where the edit is held in each of them, to the edit


class Continuation(NamedTuple):
    """The tokens written behind each text, (n_texts, n_new), and the log-probability of the watched one at each of them."""

    ids: Tensor
    watched: Tensor


def check_room(target: TargetModel, tokens: Tokens, n_new: int) -> None:
    """Refuses texts behind which there is no room for `n_new` tokens."""
    longest = int(tokens.lengths.max())
    if longest + n_new > target.spec.n_ctx:
        raise ToolRefused(
            f"{n_new} tokens behind a prompt of {longest} do not fit into the context of {target.spec.name} "
            f"({target.spec.n_ctx} tokens): ask for at most {target.spec.n_ctx - longest}"
        )


def continued(
    target: TargetModel, tokens: Tokens, n_new: int, watched: int, held: Held | None = None, *, on: Places
) -> Continuation:
    """The likeliest token again and again (greedy), the edit made at the places `on` of each text and, where its last
    token is one of them, at all tokens written since."""
    found = Continuation(torch.zeros(len(tokens), n_new, dtype=torch.long), torch.zeros(len(tokens), n_new))
    for rows, part in text_batches(target, tokens):
        chosen, lengths = torch.from_numpy(rows), torch.from_numpy(part.lengths)
        ids, columns = F.pad(to_ids(part), (0, n_new)), on.columns[chosen]
        goes_on = (columns == lengths[:, None] - 1).any(dim=1)
        at = torch.arange(len(ids))
        for step in range(n_new):
            width = int(lengths.max()) + step
            edits = [] if held is None else [held(chosen, Places(columns, width))]
            logits = target.run(ids[:, :width], edits=edits, logits=True).logits
            assert logits is not None
            log_probs = torch.log_softmax(logits[at, lengths - 1 + step].float(), dim=-1)
            if not bool(torch.isfinite(log_probs).all()):
                raise ToolFailed("the steered model gives logits that are not finite: choose a smaller dose")
            best = log_probs.argmax(dim=-1)
            if step + 1 < n_new:
                ids[at, lengths + step] = best
            columns = torch.cat([columns, torch.where(goes_on, lengths + step, -1)[:, None]], dim=1)
            found.ids[chosen, step], found.watched[chosen, step] = best, log_probs[:, watched]
    return found

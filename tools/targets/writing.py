"""What a model writes behind a prompt, by running the whole text again for each token: for engines that keep no keys and values."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.targets.base import Choose, Edit, Site, TargetModel, Written


class WritesAgain:
    """The part of a TargetModel that writes text, where the engine keeps no keys and values."""

    def write(
        self: TargetModel,
        ids: Tensor,
        choose: Choose,
        *,
        read: Collection[Site] = (),
        prompt_edits: Sequence[Edit] = (),
        edits: Sequence[Edit] = (),
    ) -> Written:
        """As TargetModel says; the whole text is run again for each token."""
        check_prompt(ids, read, [*prompt_edits, *edits])
        n_prompt, scores = ids.shape[1], None
        while True:
            made = edits_of(prompt_edits, edits, n_prompt, ids.shape[1])
            logits = self.run(ids, edits=made, logits=True).logits
            assert logits is not None
            scores = following(logits, ids) if scores is None else scores
            last = log_probs_of(logits[0, -1])
            token = choose(last)
            if token is None:
                break
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
            scores = torch.cat([scores, last[token, None]])
        found = self.run(ids, read=read, edits=made) if read else None
        return Written(ids, {} if found is None else found.read, scores)


def edits_of(prompt_edits: Sequence[Edit], edits: Sequence[Edit], n_prompt: int, width: int) -> list[Edit]:
    """The edits of a run over the whole text, those of the prompt at its positions and the others behind them."""
    prompt = (torch.arange(width) < n_prompt)[None]
    here = [replace(edit, positions=prompt) for edit in prompt_edits]
    return here + ([replace(edit, positions=~prompt) for edit in edits] if width > n_prompt else [])


def check_prompt(ids: Tensor, read: Collection[Site], edits: Sequence[Edit]) -> None:
    """Refuses several prompts, the attention pattern, and edits at named positions."""
    if len(ids) != 1:
        raise ToolRefused(f"text is written behind one prompt, not {len(ids)}")
    if any(site.name == "pattern" for site in read):
        raise ToolRefused(
            "the attention pattern is not read while text is written: read it in a run over the whole text"
        )
    if any(edit.positions is not None for edit in edits):
        raise ToolRefused("edits of a text that is being written name no positions: they are made at all of them")


def log_probs_of(logits: Tensor) -> Tensor:
    """(…, d_vocab) float32. Fails where they are not finite."""
    found = torch.log_softmax(logits.float(), dim=-1)
    if not bool(torch.isfinite(found).all()):
        raise ToolFailed("the model gives logits that are not finite: choose smaller edits")
    return found


def following(logits: Tensor, ids: Tensor) -> Tensor:
    """(pos,) the log-probability of each token given those before it, NaN for the first. ids: (1, pos)."""
    found = torch.full((ids.shape[1],), torch.nan)
    # One position at a time: all of them at once would double the memory of the logits.
    for at in range(1, ids.shape[1]):
        found[at] = log_probs_of(logits[0, at - 1])[ids[0, at]]
    return found

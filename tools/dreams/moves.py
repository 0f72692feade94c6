"""Children of prompts: a token swapped where gradients say so, one taken out and another put in, two prompts joined."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.dreams.aims import Aim, Slopes
from neuronaut.tools.dreams.found import Floats, Found, Prompts

SWAP, MOVE, JOIN = "swap", "move", "join"
SHARES = {SWAP: 0.6, MOVE: 0.2, JOIN: 0.2}  # of the children; the last two keep runs of words that one swap would tear


@dataclass(frozen=True)
class Brood:
    """Parents whose children are drawn one by one. prices: activation a nat a token, one for each; slopes: None without gradients;
    keep: candidates a place."""

    found: Found
    ids: Tensor
    prices: Floats
    slopes: Slopes | None
    keep: int

    def child(self, parent: int, rng: np.random.Generator) -> Tensor:
        """(pos,) one child of a parent."""
        place = int(rng.integers(self.found.writing.start, self.ids.shape[1]))
        match rng.choice(list(SHARES), p=list(SHARES.values())):
            case "move":
                return self._moved(parent, place, rng)
            case "join":
                other = int(rng.integers(len(self.ids)))
                return torch.cat([self.ids[other, :place], self.ids[parent, place:]])
            case _:
                gain = None if self.slopes is None else self._gains(self.slopes, parent, place)
                child = self.ids[parent].clone()
                child[place] = self._one_of_the_best(gain, rng)
                return child

    def _moved(self, parent: int, place: int, rng: np.random.Generator) -> Tensor:
        """A token leaves, one that is likely at `place` is put in there, and those between them move up."""
        ids, gone = self.ids[parent], int(rng.integers(self.found.writing.start, self.ids.shape[1]))
        rest = torch.cat([ids[:gone], ids[gone + 1 :]])
        likely = None
        if self.slopes is not None and place > 0:
            likely = self.slopes.log_probs[parent, place - 1 if place <= gone else place]
        token = self._one_of_the_best(likely, rng)
        return torch.cat([rest[:place], torch.tensor([token]), rest[place:]])

    def _gains(self, slopes: Slopes, parent: int, place: int) -> Tensor:
        return gains(self.found.aim, self.ids[parent], slopes, parent, place, float(self.prices[parent]))

    def _one_of_the_best(self, scores: Tensor | None, rng: np.random.Generator) -> int:
        """One of the `keep` best tokens by scores, (d_vocab,); any where there are none."""
        tokens = self.found.writing.tokens
        if scores is None:
            return int(rng.choice(tokens))
        top = torch.topk(scores[tokens], min(self.keep, len(tokens))).indices
        return int(tokens[top[int(rng.integers(len(top)))]])


def children(
    found: Found, parents: Prompts, prices: Floats, n: int, keep: int, rng: np.random.Generator, *, guided: bool
) -> Tensor:
    """(len(parents) * n, pos): n of each parent. keep: candidates a place. guided: by gradients; else any token is written."""
    brood = Brood(found, parents.ids, prices, found.slopes(parents) if guided else None, keep)
    return torch.stack([brood.child(parent, rng) for parent in range(len(parents.ids)) for _ in range(n)])


def gains(aim: Aim, ids: Tensor, slopes: Slopes, member: int, place: int, price: float) -> Tensor:
    """(d_vocab,) what each token would bring at a place, to first order; the cost of that token itself is exact."""
    embed = aim.target.embed
    slope = slopes.value[member, place] - price * slopes.cost[member, place].float()
    brought = embed @ slope
    brought = brought - brought[ids[place]]
    if place == 0:
        return brought
    log_probs = slopes.log_probs[member, place - 1]
    return brought + price / (len(ids) - 1) * (log_probs - log_probs[ids[place]])

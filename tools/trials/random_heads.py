"""Heads with random weights: how often would a query look at a named key by accident?"""

import numpy as np
import torch

from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.look.attention import Pattern, count_looks
from neuronaut.tools.predicates.attends import Attends, named_keys
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

N_RANDOM_HEADS = 40
LEAST = 1e-6  # attention below it counts as so much when the spread of a head's scores is taken
MAX_TOKENS = 4096


def shares_of_random_heads(
    target: TargetModel, unit: Unit, claim: Attends, tokens: Tokens, pattern: Pattern, *, seed: int
) -> list[float]:
    """(N_RANDOM_HEADS,) the share that heads with random query and key weights reach for a claim.

    They read what the layer of the unit receives, normed, and their scores are spread as much as those of the unit; they
    know positions only from what they read.
    """
    windows = np.arange(max(1, min(len(tokens), MAX_TOKENS // tokens.ids.shape[1])))
    part = tokens.select(windows)
    width = part.ids.shape[1]
    site, made = Site("resid_pre", unit.layer), torch.Generator().manual_seed(seed % 2**63)
    residual = torch.zeros(len(part), width, target.spec.d_model)
    for rows in batches(part):
        ids = to_ids(part)[torch.from_numpy(rows)]
        residual[torch.from_numpy(rows)] = target.run(ids, read=[site], stop=unit.layer + 1).read[site].float()
    normed = torch.nn.functional.layer_norm(residual, residual.shape[-1:])
    centred = normed - normed[torch.from_numpy(part.scored)].mean(dim=0)
    keys = named_keys(claim, part)
    spread = _spread(pattern[windows][:, :width, :width], part)
    found = []
    later = torch.ones(width, width).triu(1).bool()
    for _ in range(N_RANDOM_HEADS):
        query, key = (torch.randn(target.spec.d_model, target.spec.d_head, generator=made) for _ in range(2))
        scores = (centred @ query) @ (centred @ key).transpose(1, 2)
        scores = scores / scores[torch.from_numpy(part.scored)].std().clamp_min(1e-9) * spread
        drawn = torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1).numpy()
        found.append(count_looks(drawn, keys, part).share)
    return found


def _spread(pattern: Pattern, tokens: Tokens) -> float:
    """The standard deviation, over keys, of the logarithm of a head's attention, mean over queries."""
    n_pos = tokens.ids.shape[1]
    seen = np.tril(np.ones((n_pos, n_pos), dtype=bool))
    logs = np.where(seen, np.log(np.maximum(pattern, LEAST)), 0.0)
    n = np.arange(1, n_pos + 1)
    mean = logs.sum(axis=-1) / n
    spreads = np.sqrt(np.where(seen, (logs - mean[..., None]) ** 2, 0.0).sum(axis=-1) / n)
    asked = tokens.scored & (np.arange(n_pos) >= 1)
    return float(spreads[asked].mean()) if asked.any() else 0.0

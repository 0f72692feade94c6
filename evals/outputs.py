"""Write vectors to plant: neurons that promote or suppress chosen tokens, by an effect that can be measured."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.overlay import Function
from neuronaut.tools.targets.sites import site_of
from neuronaut.tools.trials.dose import Plain, choose_places, plain_run, vector_effect
from neuronaut.tools.trials.writes import Direction, null_vectors, own_tokens, seen_tokens, unigram
from neuronaut.tools.units import Unit

RIDGE = 1.0  # of the mean variance of the unembedding; without it a direction is long and its effect small
WANTED = 0.6  # nats by which the planted tokens move on average at the unit's own dose
LEAST = 0.25  # nats by which each of them moves
APART = 2.0  # times as far as any other token in the same direction
SPECIAL = 1.2  # times the 95th percentile of other neurons, as a rule must beat simpler ones by a margin
LENGTH = 0.1  # that the search for the right one starts with
MOST_TOKENS = 4
STEPS = 8  # of that search
PLACES = 24  # explore places an arm on which the length is found


@dataclass(frozen=True)
class Output:
    """What a neuron is made to do to the output: the tokens, the direction, the write vector (d_model,), and the nats by
    which the tokens move at the unit's own dose on explore text."""

    direction: Direction
    tokens: tuple[str, ...]
    vector: Tensor
    nats: float


def near_tokens(target: TargetModel, token: int, among: Tensor) -> list[int]:
    """The ids `among` in order of the cosine between their columns of the unembedding and that of `token`, itself first."""
    columns = target.unembed[:, among] - target.unembed[:, among].mean(dim=1, keepdim=True)
    own = target.unembed[:, token] - target.unembed[:, among].mean(dim=1)
    cosine = torch.nn.functional.cosine_similarity(columns, own[:, None], dim=0)
    return [int(i) for i in among[torch.argsort(cosine, descending=True, stable=True)]]


def token_direction(target: TargetModel, ids: list[int], among: Tensor) -> Tensor:
    """(d_model,) the residual direction of length 1 that raises the logits of `ids` while those of `among` (ids) stay.

    Through the final norm's gain, its scale left out; a ridge solution, since d_model directions cannot move one of
    d_vocab logits alone.
    """
    columns = target.unembed.double() * target.final_norm_gain().double()[:, None]
    columns = columns - columns.mean(dim=0) if target.spec.norm == "layernorm" else columns
    others = columns[:, among] - columns[:, among].mean(dim=1, keepdim=True)
    spread = others @ others.T / others.shape[1]
    ridge = RIDGE * spread.trace() / len(spread) * torch.eye(len(spread), dtype=spread.dtype)
    found = torch.linalg.solve(
        spread + ridge, (columns[:, ids] - columns[:, among].mean(dim=1, keepdim=True)).mean(dim=1)
    )
    return (found / found.norm()).float()


def explore_runs(context: ToolContext, unit: Unit, function: Function, seed: int) -> list[Plain]:
    """The plain runs at the places where the function would fire and where it is silent; empty without a firing rule."""
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = function(tokens)
    rule = firing_rule(activations, tokens)
    if isinstance(rule, str):
        return []
    places = choose_places(tokens, activations, rule.threshold, sign=1, n=PLACES, seed=seed)
    return [plain_run(context.target, unit.layer, one) for one in places]


def effect_of(target: TargetModel, unit: Unit, plains: list[Plain], vector: Tensor) -> Tensor:
    """(d_vocab,) mean change of the log-probabilities when the unit fires, at its own dose, if it wrote `vector`."""
    site = site_of(target, unit)
    effects = [vector_effect(target, site, plain, plain.places.change[:, None] * vector) for plain in plains]
    return torch.cat(effects).mean(dim=0)


def margin(
    target: TargetModel, unit: Unit, plains: list[Plain], vector: Tensor, moved: float, n: int, seen: Tensor
) -> float:
    """How many times further than the 95th percentile of other neurons of the layer, each with `n` tokens of its own and
    at the length of `vector`, the tokens move."""
    others = null_vectors(target, unit, 0)
    nulls = []
    for other in others / others.norm(dim=1, keepdim=True) * vector.norm():
        effect = effect_of(target, unit, plains, other)
        _, own = own_tokens(effect, seen.numpy(), n)
        nulls.append(abs(float(effect[own].mean())))
    return moved / float(np.quantile(nulls, 0.95))


def draw_output(
    context: ToolContext, unit: Unit, function: Function, direction: Direction, seed: int
) -> Iterator[Output | str]:
    """An admissible output for a neuron that fires as `function` says; before it why others were refused.

    Asked for, on explore text: each planted token moves by at least 0.25 nats in the direction, the least of them twice
    as far as any other token that the text holds, and all together 1.2 times as far as the 95th percentile of other
    neurons of the layer at equal norm: an output that does no more than they is PARTIAL by the rule of verdicts.
    """
    rng, target = np.random.default_rng(seed), context.target
    seen = torch.from_numpy(seen_tokens(unigram(context)))
    pool = torch.nonzero(seen)[:, 0]
    plains = explore_runs(context, unit, function, seed)
    if not plains:
        raise ValueError(f"{function.name} has no firing rule on explore text")
    sign = 1.0 if direction == "promotes" else -1.0
    while True:
        ids = near_tokens(target, int(rng.choice(pool)), pool)[: int(rng.integers(1, MOST_TOKENS + 1))]
        vector = sign * token_direction(target, ids, pool)
        length, moved = LENGTH, torch.zeros(0)
        for _ in range(STEPS):
            moved = sign * effect_of(target, unit, plains, length * vector)
            if abs(reached := float(moved[ids].mean()) - WANTED) < 0.1 * WANTED:
                break
            length *= float(np.clip(WANTED / max(reached + WANTED, 1e-3), 0.25, 4.0))
        others = seen.clone()
        others[ids] = False
        least, beside, together = float(moved[ids].min()), float(moved[others].max()), float(moved[ids].mean())
        if least < LEAST:
            yield f"a token moves by {least:.2f} nats only"
        elif least < APART * beside:
            yield f"another token moves by {beside:.2f} nats, one of the chosen by {least:.2f}"
        elif (times := margin(target, unit, plains, length * vector, together, len(ids), seen)) < SPECIAL:
            yield f"they move {times:.2f} times as far as those of the layer's strongest neurons"
        else:
            pieces = target.vocabulary.pieces
            yield Output(direction, tuple(pieces[i] for i in ids), length * vector, sign * together)
            return

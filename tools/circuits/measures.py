"""Does a set of nodes carry a task? Measured on prompts that the search did not see, beside random circuits.

Sources: Wang et al. 2022, arXiv:2211.00593 (faithfulness, minimality); Shi et al. 2024, arXiv:2410.13032 (circuits beside random
ones, minimality against inflated circuits).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.circuits.nodes import Array, Mask, Node, NodeRuns, nodes_of
from neuronaut.tools.intervene.next_token import text_batches
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.stats import document_weights, holm, percentile_of
from neuronaut.tools.targets.base import Edit, ModelSpec, Site, TargetModel
from neuronaut.tools.tokens import Tokens

N_RANDOM = 200
STRICT = 95.0  # percentile of non-members that a member has to beat
SIDE = 0.05  # one-sided bounds


class Shared(NamedTuple):
    """A share of the clean-corrupted gap; low, high: one-sided 95 % bounds, groups of prompts drawn again."""

    share: float
    low: float
    high: float


class Beside(NamedTuple):
    """A circuit among random ones of as many members of each type. shares: (n_random,). bets: (n_groups,) 1 where the
    circuit keeps more in a group than the random one that was dealt to it, else -1."""

    shares: Array
    percentile: float
    bets: tuple[float, ...]


def share_of(runs: NodeRuns, scores: Array, seed: int) -> Shared:
    """The share that scores (n_prompts,) keep, 1 for the plain model and 0 for corrupted prompts.

    The bounds take the clean and the corrupted scores from the same groups that are drawn.
    """
    kept, gap = grouped(runs, scores - runs.corrupted), grouped(runs, runs.clean - runs.corrupted)
    weights = document_weights(len(gap), seed)
    below = weights @ gap
    drawn = (weights @ kept)[below > 0] / below[below > 0]
    low, high = np.quantile(drawn, [SIDE, 1 - SIDE])
    return Shared(runs.share(scores), float(low), float(high))


def grouped(runs: NodeRuns, values: Array) -> Array:
    """(n_groups,) sums of values (n_prompts,) over the prompts of each group."""
    return np.asarray(np.bincount(runs.prompts.groups, weights=values), dtype=np.float64)


def random_circuits(spec: ModelSpec, circuit: Mask, n: int, seed: int, roles: Sequence[str] = ()) -> list[Mask]:
    """`n` sets of as many heads and as many MLPs (of each role, where nodes have one), drawn at random, none of them the
    circuit itself.

    Fewer, all there are, where the model has no more such sets.
    """
    of_kind = [(node.head is None, node.role) for node in nodes_of(spec, roles)]
    every = [(is_mlp, role) for is_mlp in (False, True) for role in roles or [""]]
    kinds = [np.array([at for at, kind in enumerate(of_kind) if kind == one]) for one in every]
    sizes = [int(circuit[kind].sum()) for kind in kinds]
    rng, found = np.random.default_rng(seed), dict[bytes, Mask]()
    for _ in range(20 * n):
        drawn = np.zeros_like(circuit)
        for kind, size in zip(kinds, sizes, strict=True):
            drawn[rng.permutation(kind)[:size]] = True
        if not np.array_equal(drawn, circuit):
            found.setdefault(drawn.tobytes(), drawn)
        if len(found) == n:
            break
    return list(found.values())


def beside_random(runs: NodeRuns, scores: Array, others: Sequence[Mask]) -> Beside:
    """How much more the circuit keeps than random ones. scores: (n_prompts,) of the circuit alone."""
    if not len(others):
        return Beside(np.zeros(0), 0.0, ())
    found = runs.scores(others)
    shares = np.array([runs.share(one) for one in found])
    own = grouped(runs, scores)
    dealt = np.stack([grouped(runs, one) for one in found])[np.arange(len(own)) % len(others), np.arange(len(own))]
    bets = tuple(float(bet) for bet in np.where(own > dealt, 1.0, -1.0))
    return Beside(shares, percentile_of(runs.share(scores), shares), bets)


class Minimality(NamedTuple):
    """Members: what the removal of each costs, as a share of the gap, and p-values after Holm. others: the same cost of
    non-members, each put into the circuit and taken out again; bar: the cost that 95 % of them do not reach, bars: at each
    role of a member ("" for whole heads and MLPs), of which bar is the largest."""

    costs: Mapping[str, float]
    p_values: Mapping[str, float]
    others: Mapping[str, float]
    bar: float
    bars: Mapping[str, float]


def minimality(runs: NodeRuns, circuit: Mask, scores: Array) -> Minimality:
    """Whether each member's removal hurts more than that of 95 % of the non-members (by role: of those at the same role, since
    most nodes at other roles reach nothing in the circuit).

    p: signed-rank test over groups of "the removal costs no more than that of the non-member at the bar"; 0 is the null
    cost where there is no non-member. scores: (n_prompts,) of the circuit.
    """
    names, role = [str(node) for node in runs.nodes], [node.role for node in runs.nodes]
    inside = np.flatnonzero(circuit).tolist()
    roles = [one for one in dict.fromkeys(role) if one in {role[node] for node in inside}]
    outside = [node for node in np.flatnonzero(~circuit).tolist() if role[node] in roles]
    taken = scores - runs.scores([turned(circuit, node) for node in inside])
    added = runs.scores([turned(circuit, node) for node in outside]) - scores if outside else taken[:0]
    at_bar = {one: _at_bar(added[np.array([role[node] == one for node in outside], dtype=bool)]) for one in roles}
    raw = [_signed_rank(grouped(runs, cost - at_bar[role[node]])) for node, cost in zip(inside, taken, strict=True)]
    gap = runs.gap
    bars = {one: float(cost.mean()) / gap for one, cost in at_bar.items()}
    return Minimality(
        {names[node]: float(cost.mean()) / gap for node, cost in zip(inside, taken, strict=True)},
        {names[node]: p for node, p in zip(inside, holm(raw), strict=True)},
        {names[node]: float(cost.mean()) / gap for node, cost in zip(outside, added, strict=True)},
        max(bars.values(), default=0.0),
        bars,
    )


def _at_bar(added: Array) -> Array:
    """(n_prompts,) cost of the non-member at the bar, of (n_others, n_prompts) costs; 0 where there is none."""
    if not len(added):
        return np.zeros(added.shape[1])
    order = np.argsort(added.mean(axis=1), kind="stable")
    return np.asarray(added[order[int(np.ceil(STRICT / 100 * len(order))) - 1]])


def turned(circuit: Mask, node: int) -> Mask:
    """The circuit with one node put in, or taken out."""
    other = circuit.copy()
    other[node] = ~other[node]
    return other


def _signed_rank(differences: Array) -> float:
    """One-sided p of "the differences are not above 0"; 1 where all are 0."""
    if not np.any(differences):
        return 1.0
    return float(scipy_stats.wilcoxon(differences, alternative="greater").pvalue)


def curve(runs: NodeRuns, circuit: Mask, minimal: Minimality) -> list[tuple[int, float]]:
    """(size, share): the members one after the other, the one that costs most first, and then the non-members; last those
    whose cost was not measured."""
    names = [str(node) for node in runs.nodes]
    ranked = [sorted(costs, key=lambda name: -costs[name]) for costs in (minimal.costs, minimal.others)]
    order = [names.index(name) for name in dict.fromkeys((*ranked[0], *ranked[1], *names))]
    sizes = sorted(
        {*range(len(ranked[0]) + 1), *range(len(ranked[0]), len(order), max(1, len(order) // 16)), len(order)}
    )
    masks = []
    for size in sizes:
        mask = np.zeros_like(circuit)
        mask[order[:size]] = True
        masks.append(mask)
    return [(size, runs.share(scores)) for size, scores in zip(sizes, runs.scores(masks), strict=True)]


def harm(target: TargetModel, circuit: Mask, tokens: Tokens) -> NDArray[np.float64]:
    """(n_documents,) nats a token that other text gets worse when every member carries its mean over that text.

    0 is no harm. Means over all tokens that are no padding, special ones left out.
    """
    means, rise, counted = _means(target, circuit, tokens), np.zeros(len(tokens)), np.zeros(len(tokens))
    for rows, part in text_batches(target, tokens):
        ids, scored = to_ids(part), torch.from_numpy(part.scored)
        edits = [Edit(_site(node), "set", mean, index=node.head, positions=scored) for node, mean in means.items()]
        rise[rows] = (_losses(target, ids, scored, edits) - _losses(target, ids, scored, [])).sum(dim=1).numpy()
        counted[rows] = part.scored[:, 1:].sum(axis=1)
    documents = np.unique(tokens.documents, return_inverse=True)[1]
    total, size = np.bincount(documents, weights=rise), np.bincount(documents, weights=counted)
    return np.asarray((total / np.maximum(size, 1))[size > 0])


def _means(target: TargetModel, circuit: Mask, tokens: Tokens) -> dict[Node, Tensor]:
    """What each member carries on average, at all tokens but the special ones: (d_head,) of a head, (d_model,) of an MLP."""
    nodes = [node for node, member in zip(nodes_of(target.spec), circuit, strict=True) if member]
    sites, totals = list(dict.fromkeys(map(_site, nodes))), dict[Node, Tensor]()
    for _, part in text_batches(target, tokens):
        read, scored = target.run(to_ids(part), read=sites).read, torch.from_numpy(part.scored)
        for node in nodes:
            value = read[_site(node)] if node.head is None else read[_site(node)][:, :, node.head]
            totals[node] = totals.get(node, 0) + value[scored].double().sum(dim=0)
    return {node: (total / tokens.n_scored).float() for node, total in totals.items()}


def _site(node: Node) -> Site:
    return Site("mlp_out" if node.head is None else "heads", node.layer)


def _losses(target: TargetModel, ids: Tensor, scored: Tensor, edits: Sequence[Edit]) -> Tensor:
    """(n, pos - 1) nats of each next token, 0 where it is not scored."""
    logits = target.run(ids, edits=edits, logits=True).logits
    assert logits is not None
    lost = F.cross_entropy(logits[:, :-1].flatten(0, 1).double(), ids[:, 1:].flatten(), reduction="none")
    return lost.reshape(len(ids), -1) * scored[:, 1:]

"""What heads attend to, what they carry, and what goes wrong without them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.targets.base import Edit, Site, TargetModel

Kind = Literal["previous", "induction", "duplicate", "successor", "positional"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNSCORED = -100


@dataclass(frozen=True)
class Task:
    """Texts with what should be said. ids: (batch, pos), the start token first. answers: (batch, pos), UNSCORED where
    nothing is asked. random: (batch, pos) texts of random letters, on which attention is measured."""

    ids: Tensor
    answers: Tensor
    random: Tensor


@dataclass(frozen=True)
class HeadScores:
    """attends: the mean share of a query's attention on the keys of a kind, over queries that have such keys; of a
    successor head that attends to the token itself. effect: nats that the answers lose when the head carries what it
    carries elsewhere."""

    attends: Mapping[Kind, float]
    effect: float


def _previous(ids: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (key == query - 1).expand(len(ids), -1, -1)


def _induction(ids: Tensor, query: Tensor, key: Tensor) -> Tensor:
    before = F.pad(ids, (1, 0), value=-1)[:, :-1]
    return (before[:, None, :] == ids[:, :, None]) & (key > 1) & (key <= query)


def _duplicate(ids: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (ids[:, None, :] == ids[:, :, None]) & (key < query)


def _itself(ids: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (key == query).expand(len(ids), -1, -1)


def _first(ids: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return ((key == 1) & (query > 2)).expand(len(ids), -1, -1)  # before that, the first is the previous one


KEYS: Mapping[Kind, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "previous": _previous,
    "induction": _induction,
    "duplicate": _duplicate,
    "successor": _itself,
    "positional": _first,
}


def keys_of(kind: Kind, ids: Tensor) -> Tensor:
    """(batch, query, key) bool: where a head of the kind attends. The start token is no key and no query."""
    place = torch.arange(ids.shape[1])
    query, key = place[None, :, None], place[None, None, :]
    return KEYS[kind](ids, query, key) & (key > 0) & (query > 0)


def attended(pattern: Tensor, keys: Tensor) -> float:
    """The mean share of attention on `keys`, both (batch, query, key), over queries that have any; 0 without any."""
    asked = keys.any(-1)
    return float((pattern * keys).sum(-1)[asked].mean()) if bool(asked.any()) else 0.0


def loss(target: TargetModel, task: Task, edits: list[Edit] | None = None) -> float:
    """Nats an answer."""
    logits = target.run(task.ids, edits=edits or [], logits=True).logits
    assert logits is not None
    return float(F.cross_entropy(logits.flatten(0, 1), task.answers.flatten(), ignore_index=UNSCORED))


def accuracy(target: TargetModel, task: Task) -> float:
    """The share of answers that are the likeliest token."""
    logits = target.run(task.ids, logits=True).logits
    assert logits is not None
    asked = task.answers != UNSCORED
    return float((logits.argmax(-1) == task.answers)[asked].float().mean())


def without(target: TargetModel, ids: Tensor, layer: int, head: int) -> list[Edit]:
    """An edit that lets a head carry what it carries on the next text, a place earlier."""
    site = Site("heads", layer)
    own = target.run(ids, read=[site], stop=layer + 1).read[site]
    return [Edit(site, "set", own[:, :, head].roll((1, 1), (0, 1)), head)]


def measure(target: TargetModel, task: Task) -> dict[tuple[int, int], HeadScores]:
    """Of every (layer, head)."""
    spec, found = target.spec, {}
    patterns = target.run(task.random, read=[Site("pattern", at) for at in range(spec.n_layers)]).read
    keys, whole = {kind: keys_of(kind, task.random) for kind in KINDS}, loss(target, task)
    for layer in range(spec.n_layers):
        for head in range(spec.n_heads):
            pattern = patterns[Site("pattern", layer)][:, head]
            attends = {kind: attended(pattern, keys[kind]) for kind in KINDS}
            rise = loss(target, task, without(target, task.ids, layer, head)) - whole
            found[layer, head] = HeadScores(attends, rise)
    return found


def carries(target: TargetModel, task: Task, layer: int, head: int, expected: Mapping[int, int]) -> float:
    """The share of answers at which what one head writes makes `expected` of the most attended token the likeliest.

    expected: token id to token id, the ids among which the likeliest is sought. Direct effect on the logits only.
    """
    site, out = Site("heads", layer), Site("attn_out", layer)
    others = torch.ones(target.spec.n_heads, 1)
    others[head] = 0.0
    read = target.run(task.ids, read=[out, Site("pattern", layer)], stop=layer + 1).read
    rest = target.run(task.ids, edits=[Edit(site, "scale", others)], read=[out], stop=layer + 1).read[out]
    written = (read[out] - rest) * target.final_norm_gain()
    domain = torch.tensor(sorted(expected))
    asked = task.answers != UNSCORED
    key = task.ids.gather(1, read[Site("pattern", layer)][:, head].argmax(-1))[asked]
    said = domain[(written[asked] @ target.unembed[:, domain]).argmax(-1)]
    wanted = torch.tensor([expected.get(int(token), -1) for token in key])
    return float((said == wanted).float().mean())

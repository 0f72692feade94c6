"""Tokens that have an order, such as months, and which heads say the one a step on when they look at one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.look.head_weights import Embedding, HeadWeights
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tasks.sequences import DAYS, DIGITS, LETTERS, MONTHS, NUMBER_WORDS
from neuronaut.tools.tokens import Vocabulary

MIN_PAIRS = 3
Scores = NDArray[np.float64]


class Order(NamedTuple):
    """Tokens in order, those that a vocabulary holds. places: where each stands in the order, of `length`, which may be a circle."""

    name: str
    ids: tuple[int, ...]
    places: tuple[int, ...]
    length: int
    circle: bool

    @classmethod
    def of(cls, name: str, ids: Sequence[int | None], circle: bool) -> "Order":
        """ids: None of what the vocabulary does not hold. circle: the first follows the last."""
        there = [(at, token) for at, token in enumerate(ids) if token is not None]
        return cls(name, tuple(token for _, token in there), tuple(at for at, _ in there), len(ids), circle)

    def pairs(self, step: int = 1) -> NDArray[np.int64]:
        """(n, 2) numbers of tokens, the second `step` behind the first."""
        number = {place: at for at, place in enumerate(self.places)}
        then = [(at, (place + step) % self.length if self.circle else place + step) for place, at in number.items()]
        return np.array([(at, number[to]) for at, to in then if to in number], dtype=np.int64).reshape(-1, 2)


def orders_of(vocabulary: Vocabulary) -> list[Order]:
    """Digits, number words, months, days and letters, as the vocabulary writes most of them; of three pairs at least."""
    place = {piece: i for i, piece in reversed(list(enumerate(vocabulary.pieces)))}
    series = (
        ("digits", DIGITS[:10], False), ("number words", NUMBER_WORDS, False), ("months", MONTHS, True),
        ("days", DAYS, True), ("letters", LETTERS, False),
    )  # fmt: skip
    found = []
    for name, items, circle in series:
        low = [one.lower() for one in items]
        ways = ([f" {one}" for one in items], items, [f" {one}" for one in low], low)
        each = [Order.of(name, [place.get(one) for one in way], circle) for way in ways]
        best = max(each, key=lambda order: len(order.pairs()))
        if len(best.pairs()) >= MIN_PAIRS:
            found.append(best)
    return found


def n_pairs(orders: Sequence[Order], step: int = 1) -> int:
    """How many tokens of all orders have one a step on."""
    return sum(len(order.pairs(step)) for order in orders)


def likeliest(target: TargetModel, orders: Sequence[Order], embedding: Embedding) -> list[NDArray[np.int64]]:
    """Of each order (n_heads of all layers, n_tokens): the number of the token that gets the largest logit of the order."""
    layers = [HeadWeights(target, layer, embedding) for layer in range(target.spec.n_layers)]
    return [np.concatenate([one.ov(order.ids, order.ids).argmax(-1).numpy() for one in layers]) for order in orders]


def step_scores(orders: Sequence[Order], best: Sequence[NDArray[np.int64]], step: int = 1) -> Scores:
    """(n_heads,) share of the tokens of all orders for which the one a step on is likeliest. best: see `likeliest`.

    Source: Gould et al. 2023, arXiv:2312.09230.
    """
    return share_right(best, [order.pairs(step) for order in orders])


def share_right(best: Sequence[NDArray[np.int64]], pairs: Sequence[NDArray[np.int64]]) -> Scores:
    """(n_heads,) share of pairs of tokens of which the second is likeliest at the first; 0 of none. pairs: (n, 2) of each order."""
    hits = sum((one[:, pair[:, 0]] == pair[:, 1]).sum(axis=1) for one, pair in zip(best, pairs, strict=True))
    return np.asarray(hits / max(1, sum(map(len, pairs))), dtype=np.float64)


def successor_scores(target: TargetModel, orders: Sequence[Order], embedding: Embedding) -> Scores:
    """(n_layers, n_heads) share of the tokens of all orders for which the next one gets the largest logit of its order."""
    return step_scores(orders, likeliest(target, orders, embedding)).reshape(target.spec.n_layers, -1)


def successor_chance(orders: Sequence[Order]) -> float:
    """The share of successors that a head finds whose largest logit falls anywhere in the order."""
    return sum(len(order.pairs()) / len(order.ids) for order in orders) / n_pairs(orders)

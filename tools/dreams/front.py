"""Which prompts no other beats: more activation at no more cost, or less cost at no less activation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def front(values: Floats, costs: Floats) -> NDArray[np.intp]:
    """Numbers of the points that no other dominates, the cheapest first; of equal points the first."""
    order = np.lexsort((np.arange(len(values)), -values, costs))
    ahead = np.concatenate([[-np.inf], np.maximum.accumulate(values[order])[:-1]])
    return order[values[order] > ahead]


def area(values: Floats, costs: Floats, worst: tuple[float, float]) -> float:
    """What the points dominate of the corner (value, cost) `worst`: value above it times cost below it; 0 for no points."""
    inside = (values > worst[0]) & (costs < worst[1])
    values, costs = values[inside], costs[inside]
    at = front(values, costs)
    until = np.append(costs[at][1:], worst[1])
    return float(((values[at] - worst[0]) * (until - costs[at])).sum())

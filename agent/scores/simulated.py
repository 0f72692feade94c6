"""The number of simulated activations, whoever simulated them."""

from collections.abc import Collection, Sequence

import numpy as np

from neuronaut.agent.scores.base import Judged, Replies
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.learn.arithmetic import FittedPearson, Pearson, estimate, uncentred_r2
from neuronaut.tools.learn.windows import Window


def simulation_number(
    pairs: Sequence[tuple[Window, Sequence[float]]], random: Collection[int], replies: Replies, *, fitted: bool = False
) -> Judged:
    """Pearson correlation of true and simulated activations over the concatenated tokens of all windows.

    random: the `id` of windows that were drawn at random, whose own correlation stands beside. fitted: as published, the
    simulation is first fitted to the truth, which loses the sign. Refuses simulated activations that are all equal.
    """
    truth = np.concatenate([window.activations for window, _ in pairs])
    said = np.concatenate([np.asarray(values, dtype=np.float64) for _, values in pairs])
    documents = tuple(window.document for window, values in pairs for _ in values)
    if np.ptp(said) == 0:
        raise ToolRefused("the simulated activations are all equal, so that they have no correlation with anything")
    positive = np.maximum(truth, 0.0)
    beside = {"R² against 0": uncentred_r2(positive, said / 10 * positive.max())} if positive.max() > 0 else {}
    drawn = np.array([id(window) in random for window, values in pairs for _ in values], dtype=bool)
    if drawn.any() and np.ptp(said[drawn]) > 0 and np.ptp(truth[drawn]) > 0:
        among = [one for one, chosen in zip(documents, drawn, strict=True) if chosen]
        beside["r on the random windows alone"] = estimate(among, Pearson(truth[drawn], said[drawn])).value
    published = FittedPearson(truth, said) if fitted else None
    return Judged(Pearson(truth, said), documents, replies, published, beside)

"""Of a model with many parts, those that its answers depend on most, as gradients estimate it."""

from dataclasses import replace

from torch import Tensor

from neuronaut.tools.programs.coupling import Coupling
from neuronaut.tools.programs.parts import Observed
from neuronaut.tools.targets.base import Site

MAX_HEADS, MAX_NEURONS = 64, 2048  # a model with no more is described whole
KEPT_HEADS, KEPT_NEURONS = 8, 48


def screened(observed: Observed, coupling: Coupling) -> Coupling:
    """The coupling, cut to the heads and neurons of the largest attribution where there are more than the limits."""
    many_heads = sum(map(len, coupling.heads)) > MAX_HEADS
    many_neurons = sum(map(len, coupling.neurons)) > MAX_NEURONS
    if not many_heads and not many_neurons:
        return coupling
    heads = _largest(observed, "heads", KEPT_HEADS, coupling.heads)
    neurons = _largest(observed, "neurons", KEPT_NEURONS, coupling.neurons)
    kept = {(layer, n) for layer, all_ in enumerate(neurons) for n in all_}
    return replace(
        coupling, heads=heads, neurons=neurons, readers={at: s for at, s in coupling.readers.items() if at in kept}
    )


def _largest(observed: Observed, name: str, n: int, among: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """The `n` of the largest |deviation from the mean times gradient of the log-probability of the model's answers|."""
    sites = [Site("heads" if name == "heads" else "neurons", layer) for layer in range(len(among))]

    def score(logits: Tensor) -> Tensor:
        return logits.log_softmax(-1).amax(-1)[:, observed.words.lead :].sum(1)

    found = observed.target.gradients(observed.ids, sites, score)
    scores: dict[tuple[int, int], float] = {}
    for site, all_ in zip(sites, among, strict=True):
        value, gradient = found[site]
        product = (value - value.mean(dim=(0, 1))) * gradient
        each = (product.sum(-1) if name == "heads" else product).abs().mean(dim=(0, 1))
        scores |= {(site.layer, index): float(each[index]) for index in all_}
    best = set(sorted(scores, key=lambda at: -scores[at])[:n])
    return tuple(tuple(i for i in all_ if (layer, i) in best) for layer, all_ in enumerate(among))

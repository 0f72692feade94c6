"""How many features of the shipped dictionary fire where a true label of the text holds, beside other directions of the same site.

python -m neuronaut.evals.feature_labels prints the table of docs/dictionaries.md. The labels are those that the generator of the
embedded text wrote down; they are read on design text, which the dictionary was not trained on. Agreement with a label is no
proof of what a feature means, and a feature may mean what has no label.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from neuronaut.evals.batch import cached_corpus, cached_target
from neuronaut.evals.pocket.labels import NAMES, token_labels
from neuronaut.evals.pocket.world import corpus_documents
from neuronaut.evals.pocket_labels import SAME, Labels
from neuronaut.tools.corpus import tokens_of
from neuronaut.tools.features.training.settings import find_site
from neuronaut.tools.features.training.stream import site_activations
from neuronaut.tools.targets.base import Site
from neuronaut.tools.tokens import Tokens

NAME = "resid6"
DOCUMENTS = 500  # of design text
DRAWN = 300  # units of each kind, at most
MIN_ACTIVE = 20  # documents; rarer units are left out
Values = NDArray[np.float32]


class Agreement(NamedTuple):
    """Units that are active in enough documents; shares of them at a label with F1 of at least 0.8 and 0.5; the median F1."""

    n: int
    same: float
    half: float
    median: float


def design_labels() -> tuple[Tokens, Labels]:
    """Some design text, and the true labels of its scored tokens."""
    target, corpus = cached_target(), cached_corpus()
    documents = corpus.of("design")[:DOCUMENTS]
    tokens, written = tokens_of(target, documents), {one.text: one for one in corpus_documents(len(corpus.documents))}
    found = []
    for window, document in enumerate(documents):
        at = tokens.scored[window]
        offsets = list(zip(tokens.starts[window, at].tolist(), tokens.ends[window, at].tolist(), strict=True))
        found.append(token_labels(written[document.text], offsets, tokens.ids[window, at].tolist()).holds)
    holds = np.concatenate(found)
    there = np.asarray(holds.any(axis=0))
    return tokens, Labels(tuple(np.array(NAMES)[there].tolist()), holds[:, there])


def agreement(values: Values, tokens: Tokens, labels: Labels, seed: int = 0) -> Agreement:
    """Of units, values (n_scored, n_units): one fires above half of the median of its 20 largest document maxima, and is compared
    with the label, or two joined by `and` or `or`, that come closest."""
    numbers = np.unique(tokens.documents, return_inverse=True)[1]
    of = np.repeat(numbers, tokens.scored.sum(axis=1))
    found = []
    for unit in np.random.default_rng(seed).permutation(values.shape[1])[:DRAWN]:
        maxima = np.zeros(numbers.max() + 1)
        np.maximum.at(maxima, of, values[:, unit])
        if (maxima > 0).sum() >= MIN_ACTIVE:
            nearest = labels.best(values[:, unit] > np.median(np.sort(maxima)[-MIN_ACTIVE:]) / 2)
            found.append(0.0 if nearest is None else nearest.f1)
    f1 = np.array(found)
    return Agreement(len(f1), float((f1 >= SAME).mean()), float((f1 >= 0.5).mean()), float(np.median(f1)))


def directions(tokens: Tokens) -> Iterator[tuple[str, Values]]:
    """What is compared: features, the dimensions of their site, random directions through it, neurons of its layer."""
    target = cached_target()
    dictionary = target.dictionaries[NAME]
    x = site_activations(target, find_site(target.spec, dictionary.layout.reads.name, dictionary.layer), tokens)
    drawn = torch.randn(x.shape[1], DRAWN, generator=torch.Generator().manual_seed(0))
    yield f"features of {NAME}", dictionary.encode(x).numpy()
    yield "dimensions of the site", torch.cat([x, -x], dim=1).numpy()
    yield "random directions of the site", ((x - x.mean(dim=0)) @ drawn).numpy()
    yield "neurons of the layer", site_activations(target, Site("neurons", dictionary.layer), tokens).numpy()


def main() -> None:
    """Print the table."""
    tokens, labels = design_labels()
    print("| | units | at a label (F1 ≥ 0.8) | F1 ≥ 0.5 | median F1 |\n| --- | --- | --- | --- | --- |")
    for name, values in directions(tokens):
        found = agreement(values, tokens, labels)
        print(f"| {name} | {found.n} | {found.same:.3f} | {found.half:.3f} | {found.median:.2f} |", flush=True)


if __name__ == "__main__":
    main()

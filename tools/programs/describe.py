"""A small model described as a program."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from neuronaut.tools.programs.build import Builder
from neuronaut.tools.programs.coupling import coupled
from neuronaut.tools.programs.parts import Observed
from neuronaut.tools.programs.program import Program
from neuronaut.tools.programs.screen import screened
from neuronaut.tools.programs.texts import Text, Words, random_texts, short_texts
from neuronaut.tools.programs.wiring import Graph, find_graph
from neuronaut.tools.targets.base import TargetModel

GRAPH_TEXTS = 96  # on which contributions are exchanged


@dataclass(frozen=True)
class Described:
    """A program with the graph that it was read from. texts: all that it was learnt from."""

    program: Program
    graph: Graph
    texts: tuple[Text, ...]


def describe(target: TargetModel, words: Words, *, n: int, seed: int, apart: Collection[Text] = ()) -> Described:
    """The program, learnt from all short texts and `n` random ones, those left out that are to be kept apart."""
    rng, left_out = np.random.default_rng(seed), set(apart)
    texts = [text for text in _learnt_from(words, n, rng) if text not in left_out]
    few = rng.permutation(len(texts))[:GRAPH_TEXTS]
    looked_at = Observed(target, words, words.tensor([texts[i] for i in few]))
    graph = find_graph(looked_at, screened(looked_at, coupled(target)), seed)
    program = Builder(Observed(target, words, words.tensor(texts)), graph).program()
    return Described(program, graph, tuple(texts))


def _learnt_from(words: Words, n: int, rng: np.random.Generator) -> list[Text]:
    """Short texts, continued at random to full length, then random ones, half of them uneven."""
    short = short_texts(words)
    more = rng.integers(len(words.ids), size=(len(short), words.longest - len(short[0]))).tolist()
    found = [(*text, *rest) for text, rest in zip(short, more, strict=True)]
    found += random_texts(words, n // 2, rng, uneven=False)
    return found + random_texts(words, n - n // 2, rng, uneven=True)

"""The embedded model and its text, loaded once in a process."""

from functools import cache

from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target


@cache
def cached_target() -> TargetModel:
    """The embedded model, loaded once in a process."""
    return load_target("pocket")


@cache
def cached_corpus() -> Corpus:
    """Its text, read once in a process."""
    return pocket_corpus()

"""What a search ends with."""

from dataclasses import dataclass

from neuronaut.agent.proposers.counts import Counts
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import complexity


@dataclass(frozen=True)
class Found:
    """A predicate that the search ended with, scored on explore text.

    f1, precision, coverage: on all of it. selection_f1: on the documents that it was not fitted on. tried: predicates
    scored by the whole search.
    """

    predicate: Predicate
    f1: float
    precision: float
    coverage: float
    selection_f1: float
    items: int
    tried: int

    @classmethod
    def scored(cls, predicate: Predicate, counts: Counts, selection_f1: float, tried: int = 0) -> "Found":
        """By its counts on all explore text."""
        precision = counts.fires / max(counts.places, 1.0)
        f1 = 2 * precision * counts.mass / max(precision + counts.mass, 1e-12)
        return cls(predicate, f1, precision, counts.mass, selection_f1, complexity(predicate), tried)

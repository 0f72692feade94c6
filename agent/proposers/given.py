"""A person as a proposer: the hypothesis that the question itself puts forward, judged like all others."""

from dataclasses import dataclass

from neuronaut.agent.proposers.base import Explored, Proposal
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.words import claim_text

PERSON = "the asker"


@dataclass(frozen=True)
class Given:
    """Proposes one predicate, whatever the unit does."""

    predicate: Predicate

    @property
    def name(self) -> str:
        """The author of the hypothesis."""
        return PERSON

    @property
    def about_output(self) -> bool:
        """Whether it says what the unit writes, not when it fires."""
        return self.predicate.kind in ("promotes", "suppresses")

    def propose(self, explored: Explored) -> list[Proposal]:
        """The predicate, on the side that it speaks of."""
        if self.about_output:
            return [Proposal("writes", self.predicate, claim_text(self.predicate), self.name)]
        return [Proposal("reads", self.predicate, claim_text(self.predicate, sign=explored.unit.sign), self.name)]

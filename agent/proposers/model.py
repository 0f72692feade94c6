"""A language model as a proposer: it sees explore text only, and its predicates stand in the same pool as all others."""

from dataclasses import dataclass

from neuronaut.agent.llm.base import OutOfBudget
from neuronaut.agent.llm.budget import UnitSpent
from neuronaut.agent.llm.gateway import Gateway, NoReply
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.proposers.base import Explored, Proposal
from neuronaut.agent.proposers.replies import Hypotheses as Hypotheses
from neuronaut.agent.proposers.rounds import Rounds
from neuronaut.agent.session import Session


@dataclass
class ModelProposer:
    """Asks a language model about each unit and lets it revise; an entry that cannot be tested is said and left out, never
    guessed."""

    gateway: Gateway
    session: Session

    @property
    def name(self) -> str:
        """Provider and model, as the author of its hypotheses."""
        return f"{self.gateway.model.provider}:{self.gateway.model.model}"

    def propose(self, explored: Explored) -> list[Proposal]:
        """The model's hypotheses as proposals; empty when no usable reply came, which is said and recorded.

        Raises UserError where only the user can mend it (a refused key, a name that is not known).
        """
        say = self.session.say
        say("model", f"{self.name} is asked about {explored.unit.address}")
        rounds = Rounds(self.gateway, self.session, explored)
        try:
            reading = rounds.propose()
        except OutOfBudget as error:
            self.session.unasked = "" if isinstance(error, UnitSpent) else str(error)
            say("model", f"{self.name} is not asked: {error}; the others go on without it")
            return []
        except NoReply as error:
            say("model", f"no hypotheses from {self.name}: {error}; the others go on without it")
            return []
        counted = ", ".join(f"{n} {reason}" for reason, n in reading.reasons().items())
        say("model", f"{self.name} proposes {len(reading.predicates)}" + (f"; left out: {counted}" if counted else ""))
        self._revised(rounds)
        return rounds.proposals(self.name)

    def _revised(self, rounds: Rounds) -> None:
        """Its revisions, as many as it gains by and as its budget allows; what it has said stands."""
        try:
            while rounds.revise():
                self.session.say("model", f"{self.name} revises: {len(rounds.replies[-1])} new")
        except (OutOfBudget, NoReply) as error:
            self.session.say("model", f"no more from {self.name}: {error}; what it has proposed stands")


def model_proposer(session: Session) -> ModelProposer:
    """The proposer for the language model of a run."""
    return ModelProposer(gateway_of(session), session)

"""Verdicts on circuits: does a set of components carry a behaviour, and does each of them have to be there?"""

from typing import Literal

from pydantic import Field

from neuronaut.memory.cases import E_EFFECT, HOLDS, MIN_PERCENTILE, Decision, FrozenCase, ending
from neuronaut.tools.stats import refuting_e_value

MIN_ACCURACY = 0.8
MIN_SUFFICIENCY = 0.8
MAX_NECESSITY = 0.3
MAX_HARM = 0.05  # nats a token of other text
MAX_P = 0.05
LOCALISED = 0.5  # of the nodes of the model


class CircuitCase(FrozenCase):
    """All that the verdict on a circuit rests on, measured on prompts that the search did not see.

    accuracy, gap_low: of the whole model on these prompts, the lower bound of its clean minus corrupted score. sufficiency:
    share of that gap that is left when all else carries what it carries elsewhere; percentile: of it among random circuits
    of as many members of each type. necessity: share that is left when the members carry what they carry elsewhere.
    minimality: for each member the p-value, after Holm, of "its removal hurts no more than that of a random non-member".
    harm: loss on other text without the members, nats a token. bets: 1 for a group of prompts in which the circuit keeps
    more of the gap than a random one that was dealt to it, −1 for any other.
    """

    side: Literal["circuit"] = "circuit"
    n_claims: int = Field(ge=1)
    members: int = Field(ge=1)
    nodes: int = Field(ge=1)
    accuracy: float
    gap_low: float
    sufficiency: float
    sufficiency_low: float
    percentile: float
    necessity: float
    necessity_high: float
    minimality: dict[str, float]
    harm: float
    harm_high: float
    bets: tuple[float, ...]


def decide_circuit(case: CircuitCase) -> Decision:
    """SUPPORTED, PARTIAL with what is missing, REFUTED or UNRESOLVED for a circuit."""
    if case.accuracy < MIN_ACCURACY or case.gap_low <= 0:
        return Decision("UNRESOLVED", f"the model itself fails on unseen prompts (accuracy {case.accuracy:.2f})", 0.0)
    if refuting_e_value(case.bets) >= E_EFFECT:
        return Decision("REFUTED", "random circuits of its size keep as much of the behaviour", 0.0)
    missing = _missing(case)
    marks = []
    if case.harm_high > MAX_HARM:
        marks.append(f"other text needs it too (loss {case.harm:+.2f} nats a token without it)")
    return ending(
        case.bets,
        case.n_claims,
        missing,
        too_few="too few groups of prompts agree",
        of="groups",
        marks=marks,
        holds="; ".join(marks) or HOLDS,
    )


def _missing(case: CircuitCase) -> list[str]:
    found = []
    if case.sufficiency_low < MIN_SUFFICIENCY:
        found.append(f"alone it keeps {case.sufficiency:.2f} of the behaviour (at least {case.sufficiency_low:.2f})")
    if case.percentile < MIN_PERCENTILE:
        found.append(f"random circuits of its size keep as much (percentile {case.percentile:.0f})")
    if case.necessity_high > MAX_NECESSITY:
        found.append(f"without it {case.necessity:.2f} of the behaviour is left (at most {case.necessity_high:.2f})")
    idle = sorted(name for name, p in case.minimality.items() if p > MAX_P)
    if idle:
        found.append(f"no worse without {', '.join(idle)}")
    if case.members > LOCALISED * case.nodes:
        found.append(f"not localised: {case.members} of {case.nodes} components")
    return found

"""Verdicts on claims about causes: where a head looks, and which text breaks without a unit."""

from typing import Literal

from pydantic import Field

from neuronaut.memory.cases import (
    E_EFFECT,
    MIN_PERCENTILE,
    Decision,
    FrozenCase,
    e_bar,
)
from neuronaut.tools.stats import e_value, refuting_e_value

MIN_PREDICTED = 0.6  # of the queries for which the predicate names a key
MIN_OFF_FIRST = 0.5  # of the attention of such a query that is not on the first token
MIN_ROLE_NATS = 0.02
ELSEWHERE = 0.25  # of the loss on the predicted text


class OtherKeys(FrozenCase):
    """A competing rule of where the head looks, on the same text. share: of the queries of either at which it is right.

    apart_e: e-value of the documents of which more queries follow the claim than the rival, among those for which the
    two name different keys; None where there is none. agreement: share of the queries of either for which both name
    the same key.
    """

    claim: str
    complexity: int
    share: float
    agreement: float
    apart_e: float | None = None


class AttendsCase(FrozenCase):
    """All that the verdict on an attends claim rests on. bets: (wins − losses) / discordant of each document, in test order.

    share: of the queries with a predicted key that look at it, share_low its lower bound over documents; off_first: the
    share of their attention that is not on the first token; percentile: of `share` among the model's other heads, each
    judged by the same predicate. role_nats: what the text with a predicted key loses without the head, where measured.
    """

    side: Literal["attends"] = "attends"
    complexity: int
    n_claims: int = Field(ge=1)
    queries: int
    share: float
    share_low: float
    off_first: float
    off_first_low: float
    percentile: float
    bets: tuple[float, ...]
    rivals: tuple[OtherKeys, ...] = ()
    role_nats: float | None = None


class RoleCase(FrozenCase):
    """All that the verdict on a role claim rests on; nats a token. bets: the sign of each document's difference.

    delta: loss on the predicted minus the matched text when the unit carries what it carries elsewhere; elsewhere: loss
    on all other text. percentile: of delta among other units of the layer and kind.
    """

    side: Literal["role"] = "role"
    complexity: int
    n_claims: int = Field(ge=1)
    delta: float
    delta_low: float
    elsewhere: float
    elsewhere_high: float
    percentile: float
    bets: tuple[float, ...]


def decide_attends(case: AttendsCase) -> Decision:
    """SUPPORTED, PARTIAL with what is missing, REFUTED or UNRESOLVED for an attends claim."""
    e = e_value(case.bets)
    if case.queries == 0:
        return Decision("UNRESOLVED", "it names a key nowhere in this text", 0.0)
    if refuting_e_value(case.bets) >= E_EFFECT:
        return Decision("REFUTED", "the head does not follow the key when it is moved", 0.0)
    missing: list[str] = []
    if e < E_EFFECT:
        return Decision("UNRESOLVED", f"edits told too little (e {e:.3g} from {len(case.bets)} documents)", 0.0)
    if case.percentile <= MIN_PERCENTILE:
        missing.append(f"other heads look there as much (percentile {case.percentile:.0f})")
    if missing:
        return Decision("PARTIAL", "; ".join(missing), 0.0)
    if e < e_bar(case.n_claims):
        return Decision(
            "UNRESOLVED", f"e {e:.3g} from {len(case.bets)} documents is below {e_bar(case.n_claims):.0f}", 0.0
        )
    return Decision("SUPPORTED", "all conditions hold", e)


def decide_role(case: RoleCase) -> Decision:
    """SUPPORTED, PARTIAL with what is missing, REFUTED or UNRESOLVED for a role claim."""
    e = e_value(case.bets)
    if e < E_EFFECT:
        return Decision("UNRESOLVED", f"too few documents agree (e {e:.3g} from {len(case.bets)} documents)", 0.0)
    return Decision("SUPPORTED", "all conditions hold", e)

"""Verdicts on claims about causes: where a head looks, and which text breaks without a unit."""

from typing import Literal

from pydantic import Field

from neuronaut.memory.cases import (
    E_EFFECT,
    HOLDS,
    MIN_COVERAGE,
    MIN_PERCENTILE,
    RICHER_BY,
    SAME,
    Decision,
    FrozenCase,
    ending,
)
from neuronaut.tools.stats import refuting_e_value

MIN_LOOKS = 0.6  # of the queries for which a claim names a key; of those on random tokens; of what it says is written
REFUTED_LOOKS = 0.3  # half of that: a head that looks elsewhere from most places does not attend there
MIN_COVERS = 0.25  # of what a head looks at: heads of random weights follow some one token too
MIN_ROLE_NATS = 0.02
ELSEWHERE = 0.25  # of the claimed text's loss
NO_EFFECT = "no effect when removed alone"


class OtherKeys(FrozenCase):
    """A competing claim about where the head looks, on the same text. share: of its queries that look at the key it names.

    apart_e: e-value of the documents, each of which bets on the queries for which the two name different keys and one alone
    is right; against_e: the same for the rival. agreement: share of the queries of either for which both name the same.
    """

    claim: str
    complexity: int
    share: float
    agreement: float
    apart_e: float
    against_e: float


class AttendsCase(FrozenCase):
    """All that the verdict on an attends claim rests on. bets: (wins − losses) / discordant of each document, in test order.

    share: of the queries with a named key that look at it; by_chance: were keys named at random; off_first: the share of
    those queries' attention off the first token that is on the key; covers: of the attention of all queries; `_low`:
    one-sided 95 % lower bounds over documents.
    percentile: of `share` among other heads (and heads of random weights, where those are few), for the same claim.
    synthetic_low: the lower bound of `share` on random tokens, None for a claim that names tokens, which may hold in text
    alone. carried_low: of the share at which the head writes what the claim says, None where it says nothing.
    effect_low: nats by which the prediction changes when the head is removed, at those queries.
    """

    side: Literal["attends"] = "attends"
    complexity: int
    n_claims: int = Field(ge=1)
    queries: int
    share: float
    share_low: float
    by_chance: float
    off_first: float
    off_first_low: float
    covers: float
    percentile: float
    bets: tuple[float, ...]
    effect_low: float
    synthetic_low: float | None = None
    carried_low: float | None = None
    rivals: tuple[OtherKeys, ...] = ()


class RoleCase(FrozenCase):
    """All that the verdict on a role claim rests on; nats a token. bets: the sign of each document's difference.

    delta: what the claimed text loses beyond matched text when the unit carries what it carries elsewhere; elsewhere: what
    all other text loses; `_low`, `_high`: one-sided 95 % bounds over documents. percentile: of delta among other units.
    """

    side: Literal["role"] = "role"
    complexity: int
    n_claims: int = Field(ge=1)
    delta: float
    delta_low: float
    elsewhere: float
    elsewhere_low: float
    elsewhere_high: float
    percentile: float
    bets: tuple[float, ...]


def decide_attends(case: AttendsCase) -> Decision:
    """SUPPORTED, PARTIAL with what is missing, REFUTED or UNRESOLVED for an attends claim."""
    if case.queries == 0:
        return Decision("UNRESOLVED", "it names a key nowhere in this text", 0.0)
    if refuting_e_value(case.bets) >= E_EFFECT:
        return Decision("REFUTED", "the head does not follow when the key is moved", 0.0)
    if case.share < case.by_chance:
        return Decision("REFUTED", f"{case.share:.2f} of its queries look there, less than anywhere", 0.0)
    if case.share < REFUTED_LOOKS:
        return Decision("REFUTED", f"only {case.share:.2f} of its queries look there", 0.0)
    missing = [*_missing(case), *_unbeaten(case)]
    notes = [NO_EFFECT] if case.effect_low < MIN_ROLE_NATS else []
    notes += [f"it accounts for {case.covers:.2f} of what the head looks at"] if case.covers < MIN_COVERAGE else []
    richer = [r for r in case.rivals if r.complexity > case.complexity and r.against_e >= E_EFFECT]
    notes += [f"there is more to it: {r.claim!r} does better" for r in richer[:1] if r.share > case.share + RICHER_BY]
    holds = "; ".join([HOLDS, *notes])
    return ending(case.bets, case.n_claims, missing, too_few="edits told too little", holds=holds)


def _missing(case: AttendsCase) -> list[str]:
    found = []
    if case.share_low < MIN_LOOKS:
        told = f"{case.share:.2f} of its queries look there, lower bound {case.share_low:.2f}"
        found.append(f"{told}, {MIN_LOOKS:g} is asked")
    if case.off_first_low < MIN_COVERAGE:
        found.append(
            f"of their attention off the first token {case.off_first:.2f} is there, lower bound {case.off_first_low:.2f}"
        )
    if case.covers < MIN_COVERS:
        found.append(f"true where it speaks, accounts for {case.covers:.2f} of what the head looks at")
    if case.percentile <= MIN_PERCENTILE:
        found.append(f"other heads look there as much (percentile {case.percentile:.0f})")
    if case.synthetic_low is not None and case.synthetic_low < MIN_LOOKS:
        found.append(f"on random tokens only {case.synthetic_low:.2f} of its queries look there")
    if case.carried_low is not None and case.carried_low < MIN_LOOKS:
        found.append(f"writes what it says at only {case.carried_low:.2f} of these queries")
    return found


def _unbeaten(case: AttendsCase) -> list[str]:
    """Simpler claims must do worse where the two differ; those of equal size must not do better."""
    others = [r for r in case.rivals if r.agreement < SAME]
    lost = [f"no better than {r.claim!r}" for r in others if r.complexity < case.complexity and r.apart_e < E_EFFECT]
    same_size = [r for r in others if r.complexity == case.complexity]
    return lost + [f"worse than {r.claim!r}" for r in same_size if r.against_e >= E_EFFECT]


def decide_role(case: RoleCase) -> Decision:
    """SUPPORTED, PARTIAL with what is missing, REFUTED or UNRESOLVED for a role claim."""
    if refuting_e_value(case.bets) >= E_EFFECT or case.delta <= 0:
        return Decision("REFUTED", "this text loses no more than matched text", 0.0)
    missing = []
    if case.delta_low <= 0 or case.delta < MIN_ROLE_NATS:
        missing.append(f"this text loses only {case.delta:.3f} nats more, lower bound {case.delta_low:.3f}")
    limit = ELSEWHERE * case.delta
    if case.elsewhere_high > limit or case.elsewhere_low < -limit:
        missing.append(f"other text is not left alone ({case.elsewhere:+.3f} nats)")
    if case.percentile < MIN_PERCENTILE:
        missing.append(f"other units matter to it as much (percentile {case.percentile:.0f})")
    return ending(case.bets, case.n_claims, missing)

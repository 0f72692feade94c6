"""The verdict rule: a pure function of stored numbers. No language model, no user and no clock has a say in it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from neuronaut.tools.stats import e_value, refuting_e_value

RULE_VERSION = "1"

Status = Literal["SUPPORTED", "PARTIAL", "REFUTED", "UNRESOLVED"]

MIN_PRECISION = 0.6
MIN_COVERAGE = 0.5
MIN_R = 0.5
E_FLOOR = 1000.0  # times the claims of a unit: e-BH at 5 % holds for 50 claims before the factor 20·m takes over
E_EFFECT = 20.0  # 1 / 0.05
SMALL_CLAIM = 5  # items; larger ones must hold for their rarer half alone
RICHER_BY = 0.1
MIN_ADDED = 0.05  # coverage that a mode adds to the others
SAME = 0.99  # predicates that agree at this share of the places where either holds are one claim
MIN_NATS = 0.05
NOTHING_NATS = 0.01
MIN_PERCENTILE = 95.0


class _Case(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rival(_Case):
    """A competing predicate on the same text. difference: F1 of the claim minus the rival's, with its 95 % interval; for a
    graded claim r² takes the place of F1.

    agreement: share of the places where either holds at which both do. lacked_leaf_e: for a rival that is made of the
    claim's own leaves, the largest e-value among those that it lacks; None for any other rival, which the edits of a
    leaf may move as well. told_apart_e: e-value of the pairs of edits in which the rival is true of both arms or of
    neither, so that it cannot say why the unit fires on one of them; None where there is none.
    """

    claim: str
    complexity: int
    f1: float
    difference: float
    difference_low: float
    difference_high: float
    agreement: float
    lacked_leaf_e: float | None = None
    told_apart_e: float | None = None

    @property
    def beaten(self) -> bool:
        """Whether the claim does better on natural text, or no worse there and edits show what the rival misses."""
        if self.difference_low > 0 or (self.lacked_leaf_e or 0.0) >= E_EFFECT:
            return True
        return self.difference_high >= 0 and (self.told_apart_e or 0.0) >= E_EFFECT


class ModeCase(_Case):
    """One mode of a claim with several. bets: of the pairs of its own leaves; precision: at its own threshold t_m.

    added_coverage: coverage of the whole minus that of the other modes; added_low: lower end of its 95 % interval.
    """

    claim: str
    precision: float
    added_coverage: float
    added_low: float
    bets: tuple[float, ...]


class ReadsCase(_Case):
    """All that the verdict on a reads claim rests on. bets: (wins − losses) / discordant of each document, in test order.

    n_claims: primary predictions registered for the unit in the run. leaf_e: e-value of each leaf's own pairs, 1 for a
    leaf of which no pair could be made. rarer_half_precision: of the rarer half of its items alone, None for at most 5
    items. ap_null: the 95th percentile of the best-of-k average precision of null units.
    """

    side: Literal["reads"] = "reads"
    complexity: int
    n_claims: int = Field(ge=1)
    places: int
    precision: float
    precision_low: float
    coverage: float
    coverage_low: float
    f1: float
    base_rate: float
    ap: float
    ap_null: float
    r_low: float
    dense: bool
    graded: bool
    bets: tuple[float, ...]
    leaf_e: dict[str, float] = {}
    rarer_half_precision: float | None = None
    rivals: tuple[Rival, ...] = ()
    modes: tuple[ModeCase, ...] = ()


class WritesCase(_Case):
    """All that the verdict on a writes claim rests on; nats. percentile: among other neurons, each with its own tokens.

    bets: 1 for a document in which the tokens move more than their controls in both arms, −1 for any other.
    """

    side: Literal["writes"] = "writes"
    n_claims: int = Field(ge=1)
    delta: float
    delta_low: float
    delta_interval_90: tuple[float, float]
    percentile: float
    bets: tuple[float, ...]


Case = Annotated[ReadsCase | WritesCase, Field(discriminator="side")]
_CASES: TypeAdapter[ReadsCase | WritesCase] = TypeAdapter(Case)


@dataclass(frozen=True)
class Decision:
    """A status and, in plain words, why; `e` is 0 for a claim that fails a condition, as e-BH over many claims wants it."""

    status: Status
    reason: str
    e: float


def case_from_json(case: dict[str, Any]) -> ReadsCase | WritesCase:
    """The stored case of a verdict."""
    return _CASES.validate_python(case)


def decide(case: ReadsCase | WritesCase) -> Decision:
    """The verdict that rule version 1 gives."""
    return decide_reads(case) if isinstance(case, ReadsCase) else decide_writes(case)


def e_bar(n_claims: int) -> float:
    """The e-value that a claim needs when its unit has `n_claims` of them."""
    return max(E_FLOOR, 20.0 * n_claims)


def decide_reads(case: ReadsCase) -> Decision:
    """SUPPORTED, PARTIAL with what is missing, REFUTED or UNRESOLVED for a reads claim."""
    e = e_value(case.bets)
    if case.places == 0:
        return Decision("UNRESOLVED", "it is true nowhere in this text", 0.0)
    if case.dense and not case.graded:
        return Decision(
            "UNRESOLVED", "the unit fires on more than a quarter of all tokens: only a graded claim can hold", 0.0
        )
    if refuting_e_value(case.bets) >= E_EFFECT:
        return Decision("REFUTED", "edits that make it true or false do not move the unit as predicted", 0.0)
    if not case.dense and case.precision < case.base_rate:
        return Decision("REFUTED", f"fires at {case.precision:.2f} of its places, less than anywhere", 0.0)
    missing = _missing(case)
    if e < E_EFFECT:
        told = f"edits told too little (e {e:.3g} from {len(case.bets)} documents)"
        return Decision("UNRESOLVED", "; ".join([told, *missing]), 0.0)
    if missing:
        return Decision("PARTIAL", "; ".join(missing), 0.0)
    if e < e_bar(case.n_claims):
        return Decision(
            "UNRESOLVED", f"e {e:.3g} from {len(case.bets)} documents is below {e_bar(case.n_claims):.0f}", 0.0
        )
    richer = [r for r in case.rivals if r.complexity > case.complexity and r.difference < -RICHER_BY]
    more = f"there is more to it: {richer[0].claim!r} does better" if richer else "all conditions hold"
    return Decision("SUPPORTED", more, e)


def _missing(case: ReadsCase) -> list[str]:
    found = []
    if case.graded and case.r_low < MIN_R:
        found.append(f"correlation at least {case.r_low:.2f} only, {MIN_R} is asked")
    if not case.dense:
        if case.precision_low < MIN_PRECISION:
            found.append(f"fires at only {case.precision:.2f} of its places (at least {case.precision_low:.2f})")
        if case.coverage_low < MIN_COVERAGE:
            found.append(
                f"true where it speaks, covers {case.coverage:.2f} of the firing (at least {case.coverage_low:.2f})"
            )
        if case.ap <= case.ap_null:
            found.append(f"average precision {case.ap:.2f} is not above the best of null units ({case.ap_null:.2f})")
    if (
        case.complexity > SMALL_CLAIM
        and case.rarer_half_precision is not None
        and case.rarer_half_precision < MIN_PRECISION
    ):
        found.append(f"its rarer half alone fires at only {case.rarer_half_precision:.2f} of its places")
    found += [
        f"no better than without {leaf!r}" for leaf, e in case.leaf_e.items() if e < E_EFFECT and len(case.leaf_e) > 1
    ]
    return found + _weak_modes(case) + _unbeaten(case)


def _weak_modes(case: ReadsCase) -> list[str]:
    found = []
    for mode in case.modes:
        if (e := e_value(mode.bets)) < e_bar(case.n_claims):
            found.append(f"mode {mode.claim!r}: edits told too little (e {e:.3g})")
        if mode.precision < MIN_PRECISION:
            found.append(f"mode {mode.claim!r} fires at only {mode.precision:.2f} of its places")
        if mode.added_coverage < MIN_ADDED or mode.added_low <= 0:
            found.append(f"mode {mode.claim!r} adds only {mode.added_coverage:.2f} of the firing")
    return found


def wanting(case: ReadsCase) -> list[str]:
    """The leaves and modes of a claim that hold it back: told too little by their own edits, or adding too little."""
    leaves = [leaf for leaf, e in case.leaf_e.items() if e < E_EFFECT]
    return leaves + [mode.claim for mode in case.modes if _weak_modes(case.model_copy(update={"modes": (mode,)}))]


def _unbeaten(case: ReadsCase) -> list[str]:
    simpler = [r for r in case.rivals if r.complexity < case.complexity and r.agreement < SAME]
    lost = [f"no better than {r.claim!r} (F1 {r.f1:.2f})" for r in simpler if not r.beaten]
    if simpler:
        return lost
    nothing = 2 * case.base_rate / (1 + case.base_rate)
    if not case.dense and case.f1 <= nothing:
        lost.append(f"no better than 'nothing specific' (F1 {nothing:.2f})")
    peers = [r for r in case.rivals if r.complexity == case.complexity and r.agreement < SAME]
    return lost + [f"worse than {r.claim!r} (F1 {r.f1:.2f})" for r in peers if r.difference_high < 0]


def decide_writes(case: WritesCase) -> Decision:
    """SUPPORTED, PARTIAL ("true but tiny"), REFUTED or UNRESOLVED for a writes claim."""
    e = e_value(case.bets)
    low, high = case.delta_interval_90
    if low > -NOTHING_NATS and high < NOTHING_NATS:
        return Decision("REFUTED", "writes nothing measurable", 0.0)
    if refuting_e_value(case.bets) >= E_EFFECT:
        return Decision("REFUTED", "these tokens move no more than others of equal frequency", 0.0)
    if high < 0:
        return Decision("REFUTED", f"these tokens move the other way ({case.delta:+.3f} nats)", 0.0)
    if e < E_EFFECT:
        return Decision("UNRESOLVED", f"too few documents agree (e {e:.3g} from {len(case.bets)} documents)", 0.0)
    if case.percentile < MIN_PERCENTILE:
        return Decision(
            "PARTIAL", f"other neurons of the layer do as much to their tokens (percentile {case.percentile:.0f})", 0.0
        )
    if case.delta_low < MIN_NATS:
        return Decision("PARTIAL", f"true but tiny (at least {case.delta_low:.3f} nats)", 0.0)
    if e < e_bar(case.n_claims):
        return Decision(
            "UNRESOLVED", f"e {e:.3g} from {len(case.bets)} documents is below {e_bar(case.n_claims):.0f}", 0.0
        )
    return Decision("SUPPORTED", "all conditions hold", e)

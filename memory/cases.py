"""The numbers that a verdict rests on, as they are stored beside it, and what a verdict is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from neuronaut.tools.stats import e_value

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


@dataclass(frozen=True)
class Decision:
    """A status and, in plain words, why; `e` is 0 for a claim that fails a condition, as e-BH over many claims wants it."""

    status: Status
    reason: str
    e: float


def e_bar(n_claims: int) -> float:
    """The e-value that a claim needs when its unit has `n_claims` of them."""
    return max(E_FLOOR, 20.0 * n_claims)


HOLDS = "all conditions hold"


def ending(
    bets: Sequence[float],
    n_claims: int,
    missing: Sequence[str],
    *,
    too_few: str = "too few documents agree",
    of: str = "documents",
    marks: Sequence[str] = (),
    holds: str = HOLDS,
) -> Decision:
    """What becomes of a claim that nothing refutes: whether its bets say enough, and whether it lacks a condition.

    bets: in test order, one for each of `of`. too_few: why fewer than asked for say nothing. marks: told beside what is
    missing, and no condition. holds: the reason of a claim that lacks nothing.
    """
    e = e_value(bets)
    counted = f"e {e:.3g} from {len(bets)} {of}"
    if e < E_EFFECT:
        return Decision("UNRESOLVED", "; ".join([f"{too_few} ({counted})", *missing]), 0.0)
    if missing:
        return Decision("PARTIAL", "; ".join([*missing, *marks]), 0.0)
    if e < e_bar(n_claims):
        return Decision("UNRESOLVED", f"{counted} is below {e_bar(n_claims):.0f}", 0.0)
    return Decision("SUPPORTED", holds, e)


class FrozenCase(BaseModel):
    """Numbers that are stored with a verdict and never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rival(FrozenCase):
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


class ModeCase(FrozenCase):
    """One mode of a claim with several. bets: of the pairs of its own leaves; precision: at its own threshold t_m.

    added_coverage: coverage of the whole minus that of the other modes; added_low: lower end of its 95 % interval.
    """

    claim: str
    precision: float
    added_coverage: float
    added_low: float
    bets: tuple[float, ...]


class ReadsCase(FrozenCase):
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


class WritesCase(FrozenCase):
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

"""Verdicts on changes: did a unit of another checkpoint change more than noise of the same size changes any?"""

from typing import Literal

from pydantic import Field

from neuronaut.memory.cases import E_EFFECT, MIN_PERCENTILE, Decision, FrozenCase, ending
from neuronaut.tools.changes.rule import MIN_TIMES
from neuronaut.tools.stats import refuting_e_value


class ChangeCase(FrozenCase):
    """All that the verdict on a change rests on. times: what the unit writes on the same inputs has changed, beside what noise
    of the same size makes of it; low: one-sided 95 % lower bound over documents. percentile: among the units that each
    of `twins` noise twins moves most. place: among all `units`. bets: 1 for a document in which it is moved MIN_TIMES times as
    far as by noise, -1 for any other."""

    side: Literal["change"] = "change"
    n_claims: int = Field(ge=1)
    times: float
    times_low: float
    percentile: float
    twins: int
    place: int
    units: int
    bets: tuple[float, ...]


def decide_change(case: ChangeCase) -> Decision:
    """SUPPORTED, PARTIAL with what is missing, REFUTED or UNRESOLVED for a change."""
    if refuting_e_value(case.bets) >= E_EFFECT:
        return Decision("REFUTED", f"noise of the same size moves it as far ({case.times:.1f} times noise)", 0.0)
    missing = []
    if case.percentile <= MIN_PERCENTILE:
        missing.append(f"noise moves other units as far (above {case.percentile:.0f} % of those that it moves most)")
    if case.times_low < MIN_TIMES:
        missing.append(f"true but small ({case.times:.1f} times noise, at least {case.times_low:.1f})")
    return ending(case.bets, case.n_claims, missing)

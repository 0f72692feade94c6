"""Verdicts on read-outs: does a predictor read a unit, or what the unit reads, or neither?"""

from typing import Literal

from pydantic import Field

from neuronaut.memory.cases import E_EFFECT, MIN_PERCENTILE, Decision, FrozenCase, ending
from neuronaut.tools.readouts.rule import CHANCE_Z, MIN_EFFECT, MIN_R2, MIN_SHARE, MIN_Z, NOTHING
from neuronaut.tools.stats import refuting_e_value


class Moved(FrozenCase):
    """How far something moves a read-out: in its standard deviations, with the 95 % interval by document; z against random
    directions of equal length, percentile among other units of the layer. share: of the natural slope of the read-out on the
    unit, what comes about through the unit; of inputs it is not asked."""

    effect: float
    low: float
    high: float
    sign: float
    z: float
    percentile: float
    random: float
    others: float
    share: float | None = None
    share_low: float | None = None
    share_high: float | None = None
    natural_slope: float | None = None

    @property
    def specific(self) -> bool:
        """Whether it moves the read-out measurably, and more than random directions do."""
        return self.z >= MIN_Z and self.high >= NOTHING


class ReadoutCase(FrozenCase):
    """All that the verdict on a relation of a read-out to a unit rests on. line: r2 of the read-out on what the unit is set to.
    bets: 1 for a document that goes as the relation says, −1 for any other."""

    side: Literal["readout"] = "readout"
    n_claims: int = Field(ge=1)
    relation: Literal["unit", "inputs", "neither"]
    by_unit: Moved | None = None
    by_inputs: Moved | None = None
    line: float | None = None
    bets: tuple[float, ...]


def decide_readout(case: ReadoutCase) -> Decision:
    """SUPPORTED, PARTIAL with what is missing, REFUTED or UNRESOLVED for a relation of a read-out to a unit."""
    if case.relation == "neither":
        return _neither(case)
    moved = case.by_unit if case.relation == "unit" else case.by_inputs
    assert moved is not None
    if moved.high < NOTHING:
        return Decision("REFUTED", f"moves it by nothing measurable ({moved.effect:.3f} standard deviations)", 0.0)
    if moved.z < CHANCE_Z:
        return Decision("REFUTED", f"random directions of equal length move it as much (z {moved.z:.1f})", 0.0)
    if refuting_e_value(case.bets) >= E_EFFECT:
        return Decision("REFUTED", "other units of the layer move it as much", 0.0)
    return ending(case.bets, case.n_claims, _missing(case, moved))


def _missing(case: ReadoutCase, moved: Moved) -> list[str]:
    found = []
    if moved.z < MIN_Z:
        found.append(f"hardly more than random directions of equal length (z {moved.z:.1f})")
    if moved.percentile < MIN_PERCENTILE:
        found.append(f"other units of the layer move it as much (percentile {moved.percentile:.0f})")
    if case.relation == "unit":
        if (moved.share_low or 0.0) < MIN_SHARE:
            found.append(
                f"true but small: {moved.share or 0.0:.0%} of how it goes with the unit comes through the unit"
            )
        if (case.line or 0.0) < MIN_R2:
            found.append(f"it follows the unit on no line (r2 {case.line or 0.0:.2f})")
    elif moved.low < MIN_EFFECT:
        found.append(f"true but small ({moved.effect:.2f} standard deviations, at least {moved.low:.2f})")
    return found


def _neither(case: ReadoutCase) -> Decision:
    named = (("the unit", case.by_unit), ("what the unit reads", case.by_inputs))
    read = [f"{name} moves it (z {moved.z:.1f})" for name, moved in named if moved is not None and moved.specific]
    if read:
        return Decision("REFUTED", "; ".join(read), 0.0)
    return ending(case.bets, case.n_claims, [])

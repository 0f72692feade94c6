"""The verdict rule: a pure function of stored numbers. No language model, no user and no clock has a say in it."""

from typing import Annotated, Any, TypeAlias, assert_never

from pydantic import Field, TypeAdapter

from neuronaut.memory.cases import (
    E_EFFECT,
    HOLDS,
    MIN_ADDED,
    MIN_COVERAGE,
    MIN_NATS,
    MIN_PERCENTILE,
    MIN_PRECISION,
    MIN_R,
    NOTHING_NATS,
    RICHER_BY,
    SAME,
    SMALL_CLAIM,
    Decision,
    ModeCase,
    ReadsCase,
    Rival,
    Status,
    WritesCase,
    e_bar,
    ending,
)
from neuronaut.memory.causes import AttendsCase, RoleCase, decide_attends, decide_role
from neuronaut.memory.changes import ChangeCase, decide_change
from neuronaut.memory.circuits import CircuitCase, decide_circuit
from neuronaut.memory.readouts import ReadoutCase, decide_readout
from neuronaut.tools.stats import e_value, refuting_e_value

__all__ = [
    "MIN_COVERAGE",
    "MIN_PRECISION",
    "RULE_VERSION",
    "AttendsCase",
    "Case",
    "ChangeCase",
    "CircuitCase",
    "Decision",
    "ModeCase",
    "ReadoutCase",
    "ReadsCase",
    "Rival",
    "RoleCase",
    "Status",
    "WritesCase",
    "case_from_json",
    "decide",
    "decide_reads",
    "decide_writes",
    "e_bar",
    "wanting",
]

RULE_VERSION = "1"

Case: TypeAlias = ReadsCase | WritesCase | AttendsCase | RoleCase | CircuitCase | ReadoutCase | ChangeCase
_CASES: TypeAdapter[Case] = TypeAdapter(Annotated[Case, Field(discriminator="side")])


def case_from_json(case: dict[str, Any]) -> Case:
    """The stored case of a verdict."""
    return _CASES.validate_python(case)


def decide(case: Case) -> Decision:
    """The verdict that rule version 1 gives."""
    match case:
        case ReadsCase():
            return decide_reads(case)
        case WritesCase():
            return decide_writes(case)
        case AttendsCase():
            return decide_attends(case)
        case RoleCase():
            return decide_role(case)
        case CircuitCase():
            return decide_circuit(case)
        case ReadoutCase():
            return decide_readout(case)
        case ChangeCase():
            return decide_change(case)
        case _ as never:
            assert_never(never)


def decide_reads(case: ReadsCase) -> Decision:
    """SUPPORTED, PARTIAL with what is missing, REFUTED or UNRESOLVED for a reads claim."""
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
    richer = [r for r in case.rivals if r.complexity > case.complexity and r.difference < -RICHER_BY]
    more = f"there is more to it: {richer[0].claim!r} does better" if richer else HOLDS
    return ending(case.bets, case.n_claims, missing, too_few="edits told too little", holds=more)


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
    low, high = case.delta_interval_90
    if low > -NOTHING_NATS and high < NOTHING_NATS:
        return Decision("REFUTED", "writes nothing measurable", 0.0)
    if refuting_e_value(case.bets) >= E_EFFECT:
        return Decision("REFUTED", "these tokens move no more than others of equal frequency", 0.0)
    if high < 0:
        return Decision("REFUTED", f"these tokens move the other way ({case.delta:+.3f} nats)", 0.0)
    if e_value(case.bets) >= E_EFFECT:
        if case.percentile < MIN_PERCENTILE:
            told = f"other neurons of the layer do as much to their tokens (percentile {case.percentile:.0f})"
            return Decision("PARTIAL", told, 0.0)
        if case.delta_low < MIN_NATS:
            return Decision("PARTIAL", f"true but tiny (at least {case.delta_low:.3f} nats)", 0.0)
    return ending(case.bets, case.n_claims, [])

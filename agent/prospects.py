"""How a claim may fare in its test, by design text alone, and which claim is tested next."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from neuronaut.memory.judge import MIN_COVERAGE, MIN_PRECISION
from neuronaut.tools.trials.reads import MOST_RIVALS

ITEM_COST = 0.002
MODES_WORTH = 0.1  # F1
IDLE_COST = 0.3  # of a claim all of whose leaves can be edited without moving the unit
SIZES = (5, 20)  # items: a claim of at most so many is worth a test where only a longer one is proved
ENOUGH = 1.0  # margin on design text of a claim that may hold by itself
SHORTFALL = 0.5  # F1 for each part of the margin that is missing
MOST_NAMED = 4  # rivals of a test that its author may choose
ALIKE = 0.05  # promises that differ by less: here an author's wish decides which of its own claims goes first


@dataclass(frozen=True)
class Prospect:
    """How a predicate of `compare_on_design` may fare in its test.

    worth: F1 less the price of its items and idle leaves. margin: the smaller of the lower bounds of precision and coverage,
    each in parts of what a SUPPORTED claim needs. idle: share of its leaves whose edits moved nothing, 0 where it was not edited.
    against: rivals (JSON) that its author wants it tested against.
    """

    worth: float
    margin: float
    items: int
    against: tuple[str, ...] = ()
    idle: float = 0.0

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Prospect":
        """A claim of modes is scored at the threshold of its weakest, which is the harder test: it gets something for it."""
        modes = MODES_WORTH if json.loads(row["predicate"])["kind"] == "modes" else 0.0
        idle = row["idle"] or 0.0
        worth = row["f1"] + modes - ITEM_COST * row["complexity"] - IDLE_COST * idle
        margin = min(row["precision_low"] / MIN_PRECISION, row["coverage_low"] / MIN_COVERAGE)
        return cls(worth, margin, row["complexity"], idle=idle)

    @property
    def promise(self) -> float:
        """What tests are given out by: worth, less what speaks against a claim that will hardly be SUPPORTED."""
        return self.worth - SHORTFALL * max(0.0, ENOUGH - self.margin)


def in_order(rows: Sequence[dict[str, Any]], wishes: Sequence[int | None]) -> list[dict[str, Any]]:
    """Rows of `compare_on_design`, the most promising first. wishes: for each origin its rank among its author's claims; of
    claims with one that are about as promising the first wished goes first, in the places that they have together."""
    ordered = sorted(rows, key=lambda row: -Prospect.of(row).promise)
    places = [at for at, row in enumerate(ordered) if wishes[row["origin"]] is not None]
    groups: list[list[dict[str, Any]]] = []
    for at in places:
        row = ordered[at]
        if groups and Prospect.of(groups[-1][0]).promise - Prospect.of(row).promise < ALIKE:
            groups[-1].append(row)
        else:
            groups.append([row])
    wished = [row for group in groups for row in sorted(group, key=lambda row: wishes[row["origin"]] or 0)]
    for at, row in zip(places, wished, strict=True):
        ordered[at] = row
    return ordered


def rivals_of(
    others: Sequence[dict[str, Any]], against: Collection[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rivals of a test, the strongest first, and the rest. others: hypotheses by promise; those of `against` that are
    too weak to be among the rivals take the last places, never those of the strongest."""
    named = [row for row in others[MOST_RIVALS:] if row["predicate"] in against][:MOST_NAMED]
    rivals = [*others[: MOST_RIVALS - len(named)], *named]
    return rivals, [row for row in others if row not in rivals]


def shorter(prospects: dict[str, Prospect], proved: list[str], waiting: list[str]) -> list[str]:
    """Of what waits the claims of a smaller size than all that is proved that may be enough by themselves, the best first."""
    least = min(prospects[one].items for one in proved)
    sizes = [size for size in SIZES if size < least]
    return sorted(
        (one for one in waiting if sizes and prospects[one].items <= sizes[-1] and prospects[one].margin >= ENOUGH),
        key=lambda one: -prospects[one].margin,
    )

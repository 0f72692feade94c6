"""Does the loop find what is known to be there? Planted units, each of a rule that a test could prove."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuronaut.evals.batch import cached_corpus, cached_target
from neuronaut.evals.draws import draw_truths
from neuronaut.evals.loop import ask_batch, supported
from neuronaut.evals.overlay import NOISE
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size, median_interval, share
from neuronaut.evals.truths import FAMILIES, Truth, families, truth_f1
from neuronaut.tools.predicates.evaluate import holds, strength
from neuronaut.tools.predicates.nodes import AnyOf, Modes, Predicate
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.stats import average_precision
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.together import BatchContext
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

FOUND = 0.95  # F1 against the truth on audit text from which a rule counts as found
NAMED = 0.8  # F1 of a part of a claim with a mode
RIGHT = 0.9  # share of the places of a part
BATCH = 100  # units that share the passes over natural text


def places(target: TargetModel, n: int, seed: int) -> list[Unit]:
    """`n` different neurons, drawn layer by layer in turn."""
    rng, layers = np.random.default_rng(seed), target.spec.n_layers
    orders = [rng.permutation(target.spec.d_mlp) for _ in range(layers)]
    return [Unit("neuron", i % layers, int(orders[i % layers][i // layers])) for i in range(n)]


def planted(
    target: TargetModel, truths: Sequence[Truth], seed: int, noise: float = NOISE
) -> tuple[Overlay, list[Unit]]:
    """The target with a unit for each rule, and those units in order."""
    units = places(target, len(truths), seed)
    functions = {
        unit: truth.planted(seed * 10_000 + number, noise)
        for number, (unit, truth) in enumerate(zip(units, truths, strict=True))
    }
    return Overlay(target, functions), units


def judged(row: Row, truth: Truth, audit: Tokens) -> Row:
    """The row with what its claims are worth against the truth on audit text.

    truth_f1: F1 of the best SUPPORTED claim, 0 where there is none. attainable: the largest F1 that a predicate of the
    language is known to have. score: truth_f1 in parts of it, at most 1. truth_ap: area under precision over recall of
    the predicted strength of that claim as a detector of the truth, 0 where there is none.
    """
    true = truth.holds(audit)
    for claim in row["claims"]:
        claim["truth_f1"] = truth_f1(holds(predicate_from_json(claim["predicate"]), audit), true)
    best = max(supported(row), key=lambda claim: claim["truth_f1"], default=None)
    f1 = 0.0 if best is None else best["truth_f1"]
    area = 0.0 if best is None else _area(predicate_from_json(best["predicate"]), true, audit)
    attainable = max(truth.nearest(audit), f1)
    found = {
        "truth": str(truth),
        "truth_ap": area,
        "base_rate": float(true[audit.scored].mean()),
        "truth_f1": f1,
        "attainable": attainable,
    }
    modes = of_modes(truth.predicate, best, audit) if isinstance(truth.predicate, Modes) else {}
    return {**row, **found, "score": min(f1 / attainable, 1.0), **modes}


def _area(claim: Predicate, true: NDArray[np.bool_], audit: Tokens) -> float:
    return average_precision(strength(claim, audit)[audit.scored].astype(np.float64), true[audit.scored])


def of_modes(truth: Modes, best: dict[str, Any] | None, audit: Tokens) -> dict[str, Any]:
    """How many of the modes a claim names, and how many of those that it names are right.

    A mode is named by a part of the claim with F1 of at least 0.8 against it; a part is right where at least 0.9 of its
    places are places of the truth. The weak mode is the last.
    """
    parts = [] if best is None else _parts(predicate_from_json(best["predicate"]))
    masks, true = [holds(part, audit) for part in parts], holds(truth, audit)
    named = [any(truth_f1(mask, holds(mode.predicate, audit)) >= NAMED for mask in masks) for mode in truth.of]
    right = [bool(mask.any()) and (mask & true).sum() >= RIGHT * mask.sum() for mask in masks]
    return {
        "modes": len(named),
        "modes_named": sum(named),
        "weak_named": named[-1],
        "parts": len(right),
        "parts_right": int(sum(right)),
    }


def _parts(claim: Predicate) -> tuple[Predicate, ...]:
    """What a claim says one by one."""
    parts = claim.children() if isinstance(claim, (AnyOf, Modes)) else (claim,)
    return tuple(one for part in parts for one in (_parts(part) if isinstance(part, (AnyOf, Modes)) else (part,)))


@dataclass(frozen=True)
class Planted:
    """Neurons of the embedded model that fire by a known rule, which also matters downstream."""

    name: str = "planted"
    about: str = (
        "neurons of the embedded model that fire by a planted rule; every fifth rule lies outside the hypothesis "
        "language and is scored against the nearest predicate, and nothing SUPPORTED counts as F1 0"
    )
    sizes: Mapping[Size, int] = field(default_factory=lambda: {"smoke": 5, "standard": 200, "full": 1000})

    def batches(self, n: int, seed: int) -> list[Batch]:
        """Admissible truths in batches of BATCH."""
        context = ToolContext(cached_target(), cached_corpus())
        truths = [one for one in draw_truths(context, families(n), seed) if isinstance(one, Truth)]
        cases = [Case(f"{i:04}", truth.family, truth.to_json()) for i, truth in enumerate(truths)]
        parts = (tuple(cases[at : at + BATCH]) for at in range(0, n, BATCH))
        return [Batch(f"{seed}-{at}", part, {"seed": seed * 1000 + at}) for at, part in enumerate(parts)]

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """A row a unit: what the loop said of it, and what that is worth against the truth on audit text."""
        truths = {case.key: Truth.from_json(case.truth) for case in batch.cases}
        overlay, units = planted(cached_target(), list(truths.values()), batch.settings["seed"])
        context = BatchContext(overlay, cached_corpus(), units=tuple(units))
        audit = context.tokens("audit")
        asked = [(key, unit) for key, unit in zip(truths, units, strict=True) if key in wanted]
        rows = ask_batch(context, [unit for _, unit in asked], batch, asking)
        for (key, _), row in zip(asked, rows, strict=True):
            head = {"case": key, "family": truths[key].family}
            yield {**head, **(row if row["outcome"] == "failed" else judged(row, truths[key], audit))}

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """Median and share found, the worst family, forwards a unit, and the modes."""
        done = [row for row in rows if row["outcome"] == "ok"]
        if not done:
            return []
        value = np.array([row["score"] for row in done])
        families_ = [name for name in FAMILIES if any(row["family"] == name for row in done)]
        by_family = {name: np.array([row["score"] for row in done if row["family"] == name]) for name in families_}
        worst = min(by_family, key=lambda name: float(by_family[name].mean()))
        alone = np.array([row["forwards"] for row in done])
        whole = alone + [row["shared_forwards"] for row in done]
        return [
            Score("median F1", float(np.median(value)), len(value), *median_interval(value), goal=0.97),
            share("units with F1 of at least 0.95", int((value >= FOUND).sum()), len(value), goal=0.92),
            share("units with a SUPPORTED claim", sum(bool(supported(row)) for row in done), len(value)),
            share("SUPPORTED claims with F1 below 0.5", *_false_claims(done)),
            *(Score(f"family: {name}, mean F1", float(part.mean()), len(part)) for name, part in by_family.items()),
            Score(f"worst family ({worst}), mean F1", float(by_family[worst].mean()), len(by_family[worst])),
            Score("forwards a unit, median, reading the corpus apart", float(np.median(alone)), len(done), at_most=400),
            Score("forwards a unit with its part of reading the corpus, median", float(np.median(whole)), len(done)),
            Score("seconds a unit, median", float(np.median([row["seconds"] for row in done])), len(done)),
            *_mode_scores([row for row in done if "modes" in row]),
        ]


def _false_claims(rows: Sequence[Row]) -> tuple[int, int]:
    claims = [claim for row in rows for claim in supported(row)]
    return sum(claim["truth_f1"] < 0.5 for claim in claims), len(claims)


def _mode_scores(rows: Sequence[Row]) -> list[Score]:
    if not rows:
        return []
    total = {
        name: sum(row[name] for row in rows) for name in ("modes", "modes_named", "weak_named", "parts", "parts_right")
    }
    return [
        share("modes: recall", total["modes_named"], total["modes"], goal=0.92),
        share("modes: precision", total["parts_right"], total["parts"], goal=0.95),
        share("modes: the weak one", total["weak_named"], len(rows), goal=0.8),
    ]


SUITE = Planted()

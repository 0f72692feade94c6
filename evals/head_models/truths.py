"""Which head of a model is of which kind, by measurement: where it attends, what it carries, and what is lost without it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from neuronaut.evals.compiler.verify import Untrue
from neuronaut.evals.head_models.measure import KINDS, HeadScores, Kind, Task, carries, measure
from neuronaut.tools.targets.base import TargetModel

MIN_SCORE = 0.6  # of attention on the keys of the kind; of answers that a successor head carries rightly
MIN_EFFECT = 0.1  # nats an answer
MAX_IDLE_SCORE = 0.3
MAX_IDLE_EFFECT = 0.01

Label = Kind | Literal["none", "unclear"]


@dataclass(frozen=True)
class Head:
    """What was measured of a head. kind: "unclear" where it is neither one of a kind nor idle, and is not asked about."""

    layer: int
    head: int
    kind: Label
    score: float
    effect: float


def stated(target: TargetModel, task: Task, kinds: Mapping[tuple[int, int], Kind]) -> list[Head]:
    """The heads of a constructed model. Raises Untrue where one does not do what it was made for."""
    found = []
    for (layer, head), scores in measure(target, task).items():
        kind = kinds.get((layer, head))
        score = max(scores.attends.values()) if kind is None else scores.attends[kind]
        idle = abs(scores.effect) <= MAX_IDLE_EFFECT
        if not (idle if kind is None else score >= MIN_SCORE and scores.effect >= MIN_EFFECT):
            raise Untrue(
                f"L{layer}H{head}, made as {kind or 'idle'}, scores {score:.2f} and has an effect of {scores.effect:.3f}"
            )
        found.append(Head(layer, head, kind or "none", score, scores.effect))
    return found


def learnt(
    target: TargetModel, task: Task, needed: Collection[Kind], successor: Mapping[int, int]
) -> tuple[list[Head], list[str]]:
    """The heads of a trained model, and what speaks against keeping it: kinds that the task needs and no head is of.

    successor: token id to the id of the next letter.
    """
    found = [
        _named(place, scores, carries(target, task, *place, successor), needed)
        for place, scores in measure(target, task).items()
    ]
    missing = [kind for kind in KINDS if kind in needed and not any(head.kind == kind for head in found)]
    return found, [f"no {kind} head was confirmed" for kind in missing]


def _named(place: tuple[int, int], scores: HeadScores, carried: float, needed: Collection[Kind]) -> Head:
    """Only kinds that the task needs are looked for; of an idle head no kind may score."""
    by_kind: dict[Kind, float] = dict(scores.attends) | {"successor": carried}
    looked_for: list[Kind] = [kind for kind in KINDS if kind in needed]
    kind = max(looked_for, key=lambda one: by_kind[one])
    if by_kind[kind] >= MIN_SCORE and scores.effect >= MIN_EFFECT:
        return Head(*place, kind, by_kind[kind], scores.effect)
    best = max(by_kind.values())
    idle = best <= MAX_IDLE_SCORE and abs(scores.effect) <= MAX_IDLE_EFFECT
    return Head(*place, "none" if idle else "unclear", best, scores.effect)

"""What a model writes when a unit is pushed: continuations with and without, at a strength of a given divergence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.continuation import check_room, continued
from neuronaut.tools.intervene.outcomes import Change
from neuronaut.tools.intervene.parts import Part, Places, places_of
from neuronaut.tools.intervene.strength import divergences, matched
from neuronaut.tools.learn.windows import Window
from neuronaut.tools.registry import Array
from neuronaut.tools.targets.base import Edit, TargetModel
from neuronaut.tools.tokens import tokens_from_ids
from neuronaut.tools.units import Unit

KL = 0.5  # nats between the next tokens of the plain and the pushed model, mean over the prompts
WRITTEN = 8  # tokens


class Pushed(NamedTuple):
    """Each prompt with what is written behind it, plain and pushed; the units of activation added, and the divergence."""

    plain: tuple[str, ...]
    pushed: tuple[str, ...]
    documents: tuple[int, ...]
    dose: float
    kl: float


def prompts_of(windows: Sequence[Window]) -> list[tuple[int, ...]]:
    """The tokens of each window up to the first at which the unit is active."""
    return [window.ids[: int(np.flatnonzero(window.strengths > 0)[0]) + 1] for window in windows]


def pushed_texts(target: TargetModel, unit: Unit, windows: Sequence[Window]) -> Pushed:
    """8 tokens written behind the beginning of each window, without and with the unit held higher from its last token on.

    The dose, added to the unit's activation, is the one at which KL(plain ‖ pushed) of the next token is 0.5 nats, mean
    over the prompts. Refuses a unit that reaches no such divergence.
    """
    bos = () if target.spec.bos is None else (target.spec.bos,)
    tokens = tokens_from_ids([bos + ids for ids in prompts_of(windows)], target.vocabulary)
    check_room(target, tokens, WRITTEN)
    places, part = places_of(target, tokens, "last"), Part.of(target, unit)

    def divergence(numbers: Array, doses: Array) -> Array:
        moves = [Change(part, unit.sign * float(dose), "add") for dose in doses]
        return divergences(target, tokens, places, moves).mean(axis=1)

    found = matched(divergence, 1, KL)
    dose = float(found.doses[0])
    if np.isnan(dose):
        raise ToolRefused(f"no push of {unit.address} moves the next token by {KL} nats (at most {found.kl[0]:.2g})")

    def held(rows: Tensor, at: Places) -> Edit:
        return Edit(part.site, "add", unit.sign * dose, index=part.index, positions=at.mask)

    both = [continued(target, tokens, WRITTEN, 0, how, on=places).ids for how in (None, held)]
    texts = [
        tuple(
            target.decode([*row[row >= 0].tolist(), *more]) for row, more in zip(tokens.ids, ids.tolist(), strict=True)
        )
        for ids in both
    ]
    documents = tuple(window.document for window in windows)
    return Pushed(texts[0], texts[1], documents, unit.sign * dose, float(found.kl[0]))

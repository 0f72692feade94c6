"""What a unit writes, proposed from scores of the vocabulary: the tokens that it raises and those that it lowers."""

from collections.abc import Mapping, Sequence

from neuronaut.agent.proposers.base import Proposal
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.words import claim_text
from neuronaut.tools.units import Sign

MAX_TOKENS = 10
_SHARE_OF_BEST = 0.35  # a token further below the strongest is left out: the mean effect of the set should stay large

Scores = Sequence[tuple[str, float]]


def propose_writes(
    promoted: Scores, suppressed: Scores, *, effects: Mapping[str, float] | None = None, sign: Sign = 1
) -> list[Proposal]:
    """A `promotes` and a `suppresses` hypothesis, the larger effect first; empty where no score has the sign.

    promoted, suppressed: (piece, score), positive and negative scores by direct logit attribution. effects: measured
    change of log-probability (nats) on design text by piece; where given it decides which tokens stay, in which order.
    """
    raised = _strongest(promoted, effects, 1)
    lowered = _strongest(suppressed, effects, -1)
    found: list[tuple[float, Predicate]] = []
    if raised:
        found.append((raised[0][1], nodes.Promotes(tokens=tuple(piece for piece, _ in raised))))
    if lowered:
        found.append((lowered[0][1], nodes.Suppresses(tokens=tuple(piece for piece, _ in lowered))))
    found.sort(key=lambda pair: -pair[0])
    return [
        Proposal(
            "writes", predicate, claim_text(predicate, sign=sign), "grammar", tried=len(promoted) + len(suppressed)
        )
        for _, predicate in found
    ]


def _strongest(scores: Scores, effects: Mapping[str, float] | None, direction: int) -> list[tuple[str, float]]:
    """(piece, size) of at most MAX_TOKENS tokens whose score or effect has the direction, largest first."""
    sizes: dict[str, float] = {}
    for piece, score in scores:
        size = direction * (score if effects is None else effects.get(piece, 0.0))
        if piece.strip() and size > 0:
            sizes[piece] = max(size, sizes.get(piece, 0.0))
    ordered = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_TOKENS]
    return [(piece, size) for piece, size in ordered if size >= _SHARE_OF_BEST * ordered[0][1]]

"""What proposers are shown of a unit, and what they make of it: both where the model is, for that is where the work is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from neuronaut.agent.dreams import synthetic
from neuronaut.agent.proposers.base import Explored, Pace, Proposal, Proposer, Synthetic
from neuronaut.agent.proposers.pool import Pool, gathered
from neuronaut.agent.session import Session
from neuronaut.tools.look.activations import activations_of
from neuronaut.tools.look.damage import WINDOWS, damaged
from neuronaut.tools.look.examples import EXPLORE_TOKENS, LIST_TOKENS
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.look.weights import promoted_pieces
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.units import Unit

PROMOTED = 10  # tokens shown to proposers
FAST_DAMAGED = 150  # windows of damaged text where the answer is wanted soon


@dataclass(frozen=True)
class View:
    """What says how a unit is explored; the rest is as in `Explored`."""

    unit: Unit
    rule: FiringRule
    seed: int
    pace: Pace
    refuted: tuple[str, ...]
    recalled: tuple[str, ...]
    synthetic: tuple[Synthetic, ...] = ()


class Searched(NamedTuple):
    """What was explored, and what each of some proposers found in it."""

    explored: Explored
    found: list[list[Proposal]]


@dataclass(frozen=True)
class Told:
    """A proposer that has proposed already."""

    name: str
    found: list[Proposal]

    def propose(self, explored: Explored) -> list[Proposal]:
        """What it proposed."""
        return self.found


def proposed(session: Session, unit: Unit, rule: FiringRule) -> Pool:
    """What all proposers of a session say of a unit. The search is done where the model is; the others, which may need
    the notebook or wait for replies, are asked here."""
    view, searching = _view(session, unit, rule), [one for one in session.proposers if one.name == "grammar"]
    if len(searching) == len(session.proposers):
        return session.context.compute(pool_of, view, searching)
    explored, found = session.context.compute(searched, view, searching)
    told = {id(one): Told(one.name, some) for one, some in zip(searching, found, strict=True)}
    return gathered([told.get(id(one), one) for one in session.proposers], explored)


def _view(session: Session, unit: Unit, rule: FiringRule) -> View:
    earlier = [finding for finding in session.earlier_findings(unit) if finding.side == "reads"]
    return View(
        unit,
        rule,
        seed=session.config.seed,
        pace="fast" if session.config.loop == "fast" else "full",
        refuted=tuple(one.predicate for one in earlier if one.status == "REFUTED" and one.same_inputs),
        recalled=tuple(f"{one.status}: {one.claim}" for one in earlier),
        synthetic=synthetic(session, unit),
    )


def pool_of(context: ToolContext, view: View, proposers: Sequence[Proposer]) -> Pool:
    """What the search finds alone."""
    return gathered(proposers, explored_of(context, view))


def searched(context: ToolContext, view: View, proposers: Sequence[Proposer]) -> Searched:
    """What the search finds, for others beside it."""
    explored = explored_of(context, view)
    return Searched(explored, [one.propose(explored) for one in proposers])


def explored_of(context: ToolContext, view: View) -> Explored:
    """What proposers may know of a unit."""
    unit, rule = view.unit, view.rule
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    windows = FAST_DAMAGED if view.pace == "fast" else WINDOWS
    apart = damaged(tokens, activations, rule, seed=view.seed, windows=windows)
    return Explored(
        unit,
        tokens,
        activations,
        rule,
        damaged=(apart, activations_of(context.target, unit, apart)),
        wide=(
            context.sample("explore", LIST_TOKENS),
            context.activations(unit, "explore", n_tokens=LIST_TOKENS),
        ),
        promoted=tuple(promoted_pieces(context.target, unit, PROMOTED)) if unit.kind != "router" else (),
        refuted=view.refuted,
        recalled=view.recalled,
        synthetic=view.synthetic,
        pace=view.pace,
    )

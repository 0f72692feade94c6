"""The hypotheses of all proposers together, and why some of what they handed over cannot be tested."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pydantic import BaseModel

from neuronaut.agent.llm.base import plain
from neuronaut.agent.proposers.base import Explored, Proposal, Proposer
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.predicates.nodes import Promotes, Suppresses
from neuronaut.tools.predicates.tree import canonical_json, predicate_from_json
from neuronaut.tools.trials.design import MOST_COMPARED

MAX_AUTHOR, MAX_WORDS = 200, 400
MOST_STORIES = 2  # about the output, of three blocks; one belongs to what is found on design text


class Pool(NamedTuple):
    """What can be tested, side by side, in the order of the proposers; and one sentence for all else."""

    reads: list[Proposal]
    writes: list[Proposal]
    left_out: list[str]


def gathered(proposers: Sequence[Proposer], explored: Explored) -> Pool:
    """The testable hypotheses of all proposers; one that gives none in time, or fails, does not stop the others, and one
    that gives too many does not crowd them out."""
    pool = Pool([], [], [])
    taken: list[list[Proposal]] = []
    for proposer in proposers:
        taken.append([])
        try:
            found = proposer.propose(replace(explored, others=tuple(one for some in taken for one in some)))
        except (TimeoutError, ToolFailed) as error:
            pool.left_out.append(f"nothing from {proposer.name!r:.80}: {error}")
            continue
        if not isinstance(found, list):
            pool.left_out.append(f"nothing from {proposer.name!r:.80}: it gave {type(found).__name__} and no list")
            continue
        for proposal in found:
            try:
                one = testable(proposal)
            except (ToolRefused, ValueError, RecursionError) as error:
                pool.left_out.append(f"no hypothesis: {error}")
                continue
            taken[-1].append(one)
    for side, kept, most in (("reads", pool.reads, MOST_COMPARED), ("writes", pool.writes, MOST_STORIES)):
        found_by = [[one for one in some if one.side == side] for some in taken]
        total = sum(map(len, found_by))
        share = total if total <= most else max(1, most // len(found_by))
        kept += [one for some in found_by for one in some[:share]][:most]
        if total > len(kept):
            pool.left_out.append(f"{total - len(kept)} of {total} about {side}: {share} of each proposer are compared")
    return pool


class Brought(NamedTuple):
    """What a predicate was brought with. authors: all who brought it, the first one first; words: of the first who has some;
    wish: None where several brought it."""

    authors: str
    words: str | None
    wish: int | None
    against: tuple[str, ...]


def brought(pool: Sequence[Proposal]) -> dict[str, Brought]:
    """Predicate (JSON) to what it was brought with, in the order of the pool."""
    by: dict[str, list[Proposal]] = {}
    for proposal in pool:
        by.setdefault(canonical_json(proposal.predicate), []).append(proposal)
    return {predicate: _together(some) for predicate, some in by.items()}


def _together(some: Sequence[Proposal]) -> Brought:
    authors = dict.fromkeys(one.author for one in some)
    words = next((one.words for one in some if one.words), None)
    wish = some[0].wish if len(authors) == 1 else None
    against = dict.fromkeys(canonical_json(rival) for one in some for rival in one.against)
    return Brought(", ".join(authors), words, wish, tuple(against))


def testable(proposal: object) -> Proposal:
    """The proposal with its predicate checked anew. Raises ToolRefused, ValueError or RecursionError for what is none."""
    if not isinstance(proposal, Proposal):
        raise ToolRefused(f"{type(proposal).__name__} is no proposal")
    if not isinstance(proposal.predicate, BaseModel):
        raise ToolRefused(f"{type(proposal.predicate).__name__} is no predicate")
    if not isinstance(proposal.author, str) or not proposal.author.isprintable() or len(proposal.author) > MAX_AUTHOR:
        raise ToolRefused(f"an author is a printable name of at most {MAX_AUTHOR} characters")
    if not isinstance(proposal.words, str) or not all(isinstance(one, BaseModel) for one in proposal.against):
        raise ToolRefused("an author's own sentence is text, and what it wants a claim tested against are predicates")
    predicate = predicate_from_json(proposal.predicate.model_dump(mode="json", warnings=False))
    for text in (canonical_json(predicate), proposal.author):
        text.encode()  # half of a surrogate pair cannot be stored
    if (proposal.side == "writes") != isinstance(predicate, Promotes | Suppresses):
        raise ToolRefused(f"{predicate.kind!r} says nothing of the side {proposal.side!r}")
    against = tuple(predicate_from_json(one.model_dump(mode="json", warnings=False)) for one in proposal.against)
    return replace(proposal, predicate=predicate, words=plain(proposal.words, MAX_WORDS), against=against)

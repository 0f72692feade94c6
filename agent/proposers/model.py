"""A language model as a proposer: it sees explore text only, and its predicates stand in the same pool as all others."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from neuronaut.agent.llm.base import OutOfBudget, Request, plain
from neuronaut.agent.llm.gateway import Gateway, Malformed, NoReply
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.proposers.base import Explored, Proposal
from neuronaut.agent.proposers.shown import prompt_variables
from neuronaut.agent.session import Session
from neuronaut.prompts import render
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import simplify
from neuronaut.tools.predicates.words import claim_text

KEPT = 8  # hypotheses of one reply; each is compared on design text, with edits of each leaf
READ = 64  # entries of one reply that are looked at
SAID = 3  # refusals that are told one by one
MAX_PREDICATE = 5_000  # characters


class Hypothesis(BaseModel):
    """One hypothesis: a sentence, and a predicate in the language described."""

    model_config = ConfigDict(extra="forbid")
    claim: str
    predicate: str


class Hypotheses(BaseModel):
    """Rival hypotheses about one neuron, the one believed most first."""  # sent along, as the docstring above

    model_config = ConfigDict(extra="forbid")
    hypotheses: list[Hypothesis]


@dataclass(frozen=True)
class LeftOut:
    """An entry of a reply that is not tested: why, in a few words that are counted, and in a sentence."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Reading:
    """What a reply holds: distinct predicates that can be tested, and what was left out."""

    predicates: tuple[Predicate, ...]
    left_out: tuple[LeftOut, ...]
    beyond: int = 0  # entries after the last that was looked at

    def reasons(self) -> dict[str, int]:
        """How many entries were left out, by reason."""
        found = Counter(one.reason for one in self.left_out)
        return dict(found) | ({f"after the first {READ} entries": self.beyond} if self.beyond else {})


def read_hypotheses(text: str) -> Reading:
    """The hypotheses of a reply. Raises Malformed where it is no list of them, or where it has some but none can be tested."""
    try:
        found: Any = json.loads(
            text
        )  # a half of a surrogate pair, which pydantic's parser refuses, spoils one entry only
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON ({plain(str(error), 120)}).") from None
    entries = found.get("hypotheses") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise Malformed('it is not an object {"hypotheses": [...]}.')
    predicates: dict[Predicate, None] = {}
    left_out = []
    for entry in entries[:READ]:
        read = _read(entry)
        if isinstance(read, LeftOut):
            left_out.append(read)
        elif read in predicates:
            left_out.append(LeftOut("a repeat", plain(str(read), 100)))
        elif len(predicates) == KEPT:
            left_out.append(LeftOut(f"after the first {KEPT} that can be tested", plain(str(read), 100)))
        else:
            predicates[read] = None
    if entries and not predicates:
        raise Malformed("none of its predicates can be tested: " + "; ".join(one.detail for one in left_out[:SAID]))
    return Reading(tuple(predicates), tuple(left_out), max(0, len(entries) - READ))


def _read(entry: object) -> Predicate | LeftOut:
    try:
        hypothesis = Hypothesis.model_validate(entry, strict=True)
    except ValidationError:
        return LeftOut("not a claim with a predicate", f"{plain(repr(entry)[:500], 100)} is no claim with a predicate")
    if len(hypothesis.predicate) > MAX_PREDICATE:
        return LeftOut(
            "too long", f"a predicate of {len(hypothesis.predicate):,} characters (at most {MAX_PREDICATE:,})"
        )
    try:
        predicate = simplify(parse_text(hypothesis.predicate))
    except ToolRefused as error:
        return LeftOut("not in the predicate language", f"{plain(hypothesis.predicate, 100)}: {plain(str(error), 200)}")
    if predicate.kind in ("promotes", "suppresses"):
        return LeftOut("about the output", f"{plain(hypothesis.predicate, 100)} says what it writes, not when it fires")
    return predicate


@dataclass
class ModelProposer:
    """Asks a language model once for each unit; an entry that cannot be tested is said and left out, never guessed."""

    gateway: Gateway
    session: Session

    @property
    def name(self) -> str:
        """Provider and model, as the author of its hypotheses."""
        return f"{self.gateway.model.provider}:{self.gateway.model.model}"

    def propose(self, explored: Explored) -> list[Proposal]:
        """The model's hypotheses as proposals; empty when no usable reply came, which is said and recorded.

        Raises UserError where only the user can mend it (a refused key, a name that is not known).
        """
        say, sign = self.session.say, explored.unit.sign
        say("model", f"{self.name} is asked about {explored.unit.address}")
        prompt = render("propose", **prompt_variables(explored))
        request = Request("propose", render("propose_system"), prompt, Hypotheses, self.gateway.model.max_tokens)
        try:
            reading = self.gateway.ask(request, read_hypotheses)
        except OutOfBudget as error:
            self.session.unasked = str(error)
            say("model", f"{self.name} is not asked: {error}; the others go on without it")
            return []
        except NoReply as error:
            say("model", f"no hypotheses from {self.name}: {error}; the others go on without it")
            return []
        for one in reading.left_out[:SAID]:
            say("model", f"left out: {one.detail}")
        counted = ", ".join(f"{n} {reason}" for reason, n in reading.reasons().items())
        say("model", f"{self.name} proposes {len(reading.predicates)}" + (f"; left out: {counted}" if counted else ""))
        return [Proposal("reads", p, claim_text(p, sign=sign), self.name) for p in reading.predicates]


def model_proposer(session: Session) -> ModelProposer:
    """The proposer for the language model of a run."""
    return ModelProposer(gateway_of(session), session)

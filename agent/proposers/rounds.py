"""The rounds of one question to a language model: it looks, proposes, is shown its mistakes on explore text, and revises."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from neuronaut.agent.llm.base import Call, Request, Said, Told, plain
from neuronaut.agent.llm.gateway import Gateway, Malformed, NoReply
from neuronaut.agent.proposers.base import Explored, Proposal
from neuronaut.agent.proposers.looks import offered, seen, wrong_at
from neuronaut.agent.proposers.replies import KEPT, SAID, Hypotheses, Reading, read_hypotheses
from neuronaut.agent.proposers.shown import LONGEST, escaped, prompt_variables
from neuronaut.agent.session import Session
from neuronaut.prompts import render, stamped
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.predicates.words import claim_text

REVISIONS = 2
LOOK_ROUNDS, MOST_LOOKS, MOST_CALLS = 2, 3, 16  # rounds of a side; looks of a round; calls that are answered at all
ENOUGH = 0.99  # precision and coverage from which there is nothing to mend
WRONG, AROUND = 5, 10  # places of each kind that are shown, tokens before each
MAX_SAID = 4_000  # characters of a reply that stay in the conversation as they were written


@dataclass
class Rounds:
    """One side of a unit with one language model. Raises NoReply or OutOfBudget where it is not answered.

    known: its predicates in the order in which it gave them, with its own words. scores: F1, precision and coverage of
    each on explore text. newest: those of the last reply, the one that it wants tested first first.
    """

    gateway: Gateway
    session: Session
    explored: Explored
    request: Request = field(init=False)
    looks: int = LOOK_ROUNDS
    revisions: int = 0
    known: dict[Predicate, str] = field(default_factory=dict)
    scores: dict[Predicate, dict[str, float]] = field(default_factory=dict)
    replies: list[list[Predicate]] = field(default_factory=list)
    against: tuple[Predicate, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        prompt, limit = render("propose", **prompt_variables(self.explored)), self.gateway.model.max_tokens
        said = stamped("propose_system", "propose")
        self.request = Request(
            "propose", render("propose_system"), prompt, Hypotheses, limit, tools=offered(), prompts=said
        )

    @property
    def rival(self) -> Proposal | None:
        """The best hypothesis about the same that somebody else brought."""
        others = [one for one in self.explored.others if one.side == "reads"]
        return max(others, key=lambda one: one.explore_f1, default=None)

    def propose(self) -> Reading:
        """Its first hypotheses."""
        try:
            return self._taken(self._reading())
        except NoReply as error:
            if self.request.turns or not _knows_no_tools(self.gateway, error):
                raise
        self.request = replace(self.request, tools=())
        return self._taken(self._reading())

    def revise(self) -> bool:
        """Show it where its newest hypotheses are wrong and take what it makes of that; False where there is nothing to gain."""
        before = max((row["f1"] for row in self.scores.values()), default=-1.0)
        found = self._scored(self.replies[-1])
        if found is None or self.revisions == REVISIONS:
            return False
        best = max(self.scores[one]["f1"] for one in self.replies[-1])
        if best <= before or any(min(row["precision"], row["coverage"]) >= ENOUGH for row in self.scores.values()):
            return False
        self.revisions += 1
        self._tell("revise", **found)
        self._taken(self._reading())
        return True

    def proposals(self, author: str) -> list[Proposal]:
        """At most KEPT of its hypotheses, those with the largest F1 on explore text, in the order in which it wants them tested."""
        wanted = [one for reply in reversed(self.replies) for one in reply]
        best = sorted(wanted, key=lambda one: -self._f1(one))[:KEPT]
        sign, tried = self.explored.unit.sign, max(1, len(self.scores))
        return [
            Proposal(
                "reads", one, claim_text(one, sign=sign), author, self._f1(one), tried, **self._shares(one),
                words=self.known[one], wish=wish, against=self._named(one),
            )
            for wish, one in enumerate(one for one in wanted if one in best)
        ]  # fmt: skip

    def _f1(self, predicate: Predicate) -> float:
        return self.scores.get(predicate, {}).get("f1", 0.0)

    def _shares(self, predicate: Predicate) -> dict[str, float]:
        row = self.scores.get(predicate, {})
        return {name: row.get(name, 0.0) for name in ("precision", "coverage")}

    def _named(self, predicate: Predicate) -> tuple[Predicate, ...]:
        """The rivals that it wants this one tested against."""
        if self.against is None or self.against[0] != predicate:
            return ()
        by_name = {str(number): one for number, one in enumerate(self.known, start=1)}
        if self.rival is not None:
            by_name["R1"] = self.rival.predicate
        return tuple(by_name[name] for name in self.against[1] if name in by_name and by_name[name] != predicate)

    def _add(self, *turns: Said | Told) -> None:
        self.request = replace(self.request, turns=(*self.request.turns, *turns))

    def _tell(self, name: str, **given: Any) -> None:
        """The next turn in the words of a prompt."""
        self._add(Told(render(name, **given)))
        said = tuple(dict.fromkeys((*self.request.prompts, *stamped(name))))
        self.request = replace(self.request, prompts=said)

    def _reading(self) -> Reading:
        """What it replies in the end; it may look first, and mend one reply that cannot be used."""
        mended = False
        for _ in range(LOOK_ROUNDS + 3):
            reply = self.gateway.converse(self.request, about=self.explored.unit.with_sign(1).address)
            if reply.calls:
                calls = tuple(_sendable(call) for call in reply.calls[:MOST_CALLS])
                self._add(Said(reply.text[:MAX_SAID], calls), self._looked(reply.calls[:MOST_CALLS]))
                continue
            try:
                reading = read_hypotheses(reply.text)
            except Malformed as error:
                if mended:
                    raise NoReply(f"two replies could not be used: {error}", "malformed") from None
                mended = True
                self._add(Said(reply.text[:MAX_SAID].strip() or "…"))
                self._tell("repair", prompt="", reason=str(error))
                continue
            self._add(Said(reply.text if len(reply.text) <= MAX_SAID else _compact(reading)))
            return reading
        raise NoReply("it goes on calling tools and proposes nothing", "malformed")

    def _looked(self, calls: tuple[Call, ...]) -> Told:
        """What its calls gave; those beyond the bounds, and those that are wrong, get one sentence and count as well."""
        results, refused = [], 0
        for number, call in enumerate(calls):
            if not self.looks:
                results.append((call.id, "no look is left: reply with hypotheses"))
            elif number >= MOST_LOOKS:
                results.append((call.id, f"at most {MOST_LOOKS} looks at a time"))
            else:
                found = seen(self.session, self.explored, call)
                results.append((call.id, found.text))
                refused += found.refused
        allowed = calls[: MOST_LOOKS if self.looks else 0]
        names = ", ".join(plain(call.name, 40) for call in allowed) or "nothing more"
        beyond = refused + len(calls) - len(allowed)
        self.session.say("model", f"it looks at {names}" + (f"; {beyond} calls refused" if beyond else ""))
        self.looks = max(0, self.looks - 1)
        return Told(results=tuple(results))

    def _taken(self, reading: Reading) -> Reading:
        """The reading, its new predicates kept. One that it was shown as a rival is not its own."""
        for one in reading.left_out[:SAID]:
            self.session.say("model", f"left out: {one.detail}")
        told = {self.rival.predicate} if self.rival is not None and self.revisions else set()
        new = [one for one in reading.predicates if one not in self.known and one not in told]
        self.known |= {one: words for one, words in zip(reading.predicates, reading.words, strict=True) if one in new}
        self.replies.append(new)
        if new and reading.against:
            self.against = new[0], reading.against
        return reading

    def _scored(self, new: list[Predicate]) -> dict[str, Any] | None:
        """The variables of the prompt `revise`; None where nothing is new or the predicates cannot be scored together."""
        if not new:
            return None
        earlier = sorted(self.scores, key=lambda one: -self._f1(one))[:1]
        own = [*new, *earlier]
        rivals = [self.rival.predicate] if self.rival is not None else []
        told = [canonical_json(one) for one in (*own, *rivals)]
        args = {"unit": self.explored.unit.address, "predicates": told, "told": len(own), "k": WRONG, "context": AROUND}
        try:
            found = self.session.experiment("mistakes", args).payload
        except (ToolRefused, ToolFailed) as error:
            self.session.say("model", f"its hypotheses are not scored: {error}")
            return None
        self.scores |= {one: _numbers(row) for one, row in zip(own, found["predicates"], strict=False)}
        numbers = {one: str(number) for number, one in enumerate(self.known, start=1)}
        names = [numbers[one] for one in own]
        return {
            "scores": [{"name": name, **self.scores[one]} for name, one in zip(names, own, strict=True)],
            "rivals": [
                {"name": "R1", "text": escaped(str(one), LONGEST), **_numbers(found["predicates"][-1])}
                for one in rivals
            ],
            **{
                kind: [wrong_at(self.explored, row, names, AROUND) for row in found[kind]]
                for kind in ("missed", "silent")
            },
            "looks": self.looks if self.request.tools else 0,
        }


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in ("f1", "precision", "coverage")}


def _sendable(call: Call) -> Call:
    """A call as it may be sent back: services refuse other names than they would take for a tool."""
    arguments = call.arguments if len(call.arguments) <= MAX_SAID else "{}"
    return Call(call.id, re.sub(r"[^a-zA-Z0-9_-]", "_", call.name)[:64] or "_", arguments)


def _compact(reading: Reading) -> str:
    """A reply that is too long to be sent back, without what was left out of it."""
    pairs: Iterable[tuple[Predicate, str]] = zip(reading.predicates, reading.words, strict=True)
    return json.dumps({"hypotheses": [{"claim": words, "predicate": str(one)} for one, words in pairs]})


def _knows_no_tools(gateway: Gateway, error: NoReply) -> bool:
    """Whether a local server refused the request because it offers tools."""
    return gateway.model.provider == "compatible" and "tool" in str(error).lower()

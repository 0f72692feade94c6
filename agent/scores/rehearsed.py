"""What a language model would be asked, counted before anything is sent; refused where it is much and no budget is given."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from neuronaut.agent.config import RunConfig
from neuronaut.agent.llm.base import COMPLETE, OutOfBudget, Reply, Request
from neuronaut.agent.llm.budget import UNIT, most_tokens_in
from neuronaut.agent.llm.gateway import Gateway, NoReply
from neuronaut.agent.llm.opened import within_budget
from neuronaut.agent.scores.base import Case, Name
from neuronaut.agent.scores.chosen import ASKED
from neuronaut.agent.scores.measure import Compared
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.errors import ToolFailed, ToolRefused, UserError

REPLY = 100  # tokens; the longest form, 32 activations, takes about so many, and thinking more
STEP = 1_000  # to which a budget is rounded up

R = TypeVar("R")


@dataclass(frozen=True)
class Kept:
    """The replies that a notebook keeps. No call is recorded, since none is made."""

    notebook: Notebook

    def begin_call(self, *_: Any, **__: Any) -> str:
        """Never: nothing is sent."""
        raise AssertionError("a rehearsal sends nothing")

    def end_call(self, *_: Any, **__: Any) -> None:
        """Never: nothing is sent."""
        raise AssertionError("a rehearsal sends nothing")

    def say(self, line: str) -> None:
        """Nothing: nothing is spent."""

    def earlier_reply(self, request_sha256: str) -> Reply | None:
        """The complete reply that the same request got before."""
        row = queries.earlier_reply(self.notebook, request_sha256, COMPLETE)
        return None if row is None else Reply(row["response"], row["answered_by"], row["stop_reason"], None, None, None)


@dataclass
class Rehearsal(Gateway):
    """Sends nothing, and keeps the questions to which there is no reply yet, each once. n_seen: with those that have one."""

    questions: dict[str, Request] = field(default_factory=dict)
    n_seen: int = 0

    def ask_all(
        self, requests: Sequence[Request], read: Callable[[str], R], *, about: Sequence[str | None] | None = None
    ) -> list[R | NoReply | OutOfBudget]:
        """No reply to any."""
        self.n_seen += len(requests)
        self.questions |= {self.sha256(one): one for one in requests if self.earlier(one) is None}
        return [NoReply("nothing is sent") for _ in requests]

    @property
    def tokens(self) -> int:
        """A high guess of the tokens of all questions and their replies, without thinking."""
        return sum(most_tokens_in(one.as_json()) + REPLY for one in self.questions.values())


def announced(config: RunConfig, notebook: Notebook, names: Sequence[Name], cases: "Cases") -> str:
    """How many questions a language model is asked at most. Refuses more than a question about one neuron may take, where
    they are billed and no budget is given."""
    model, budget = within_budget(config)
    rehearsal = Rehearsal(model, Kept(notebook), budget)
    for name in names:
        if name in ASKED:
            _rehearse(name, rehearsal, cases)
    n, tokens = len(rehearsal.questions), rehearsal.tokens
    much = f"{n:,} question{'' if n == 1 else 's'} at most, about {tokens:,} tokens"
    limits, most = config.budget, (UNIT.calls or 0, UNIT.tokens or 0)
    given = (limits.calls, limits.tokens, limits.usd) != (None, None, None)
    if model.billed and not given and (n > most[0] or tokens > most[1]):
        raise UserError(
            f"{model.provider}:{model.model} would be asked {much}, and without a budget it is asked at most {most[0]} and "
            f"{most[1]:,}: give --budget-tokens {-(-tokens // STEP) * STEP} (or --budget-calls, or --budget-usd), or name fewer "
            "--scores"
        )
    return f"{model.provider}:{model.model} is asked {much}; again only where a reply cannot be read"


@dataclass(frozen=True)
class Cases:
    """What each score judges: an explanation of a unit, and what both are compared with. published: also as published."""

    own: Case
    other: Compared
    published: bool

    def compared(self, *, judges_unit: bool) -> Iterator[Case]:
        """The baselines."""
        own, other = self.own, self.other
        if other.subject is None:
            return
        if other.explanation is not None and not judges_unit:
            yield Case(own.context, own.subject, other.explanation, own.seed)
        yield Case(own.context, other.subject, own.explanation, own.seed)


def _rehearse(name: Name, rehearsal: Rehearsal, cases: Cases) -> None:
    """Put the questions of one score; those of its baselines only where it has some itself."""
    score, before = ASKED[name](rehearsal), rehearsal.n_seen
    with suppress(ToolRefused, ToolFailed):
        score.judge(cases.own)
    if rehearsal.n_seen == before:
        return
    if cases.published:
        with suppress(ToolRefused, ToolFailed):
            score.as_published(cases.own)
    for case in cases.compared(judges_unit=score.judges_unit):
        with suppress(ToolRefused, ToolFailed):
            score.judge(case)

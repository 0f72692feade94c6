"""A language model as a proposer: it sees explore text only, and its predicates stand in the same pool as all others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from neuronaut.agent.config import ModelName
from neuronaut.agent.llm.base import LanguageModel, Reply, Request
from neuronaut.agent.llm.gateway import Gateway, NoReply
from neuronaut.agent.llm.prices import read_prices
from neuronaut.agent.llm.registry import open_language_model
from neuronaut.agent.proposers.base import Explored, Proposal
from neuronaut.agent.session import Session
from neuronaut.agent.view import visible
from neuronaut.memory import queries
from neuronaut.prompts import render
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.examples import TopExamplesArgs, choose_places
from neuronaut.tools.predicates.text import claim_text, parse_text

SHOWN_EXAMPLES = 12
CONTEXT = 12


class Hypothesis(BaseModel):
    """One proposed hypothesis: a sentence and a predicate in text form."""

    model_config = ConfigDict(extra="forbid")
    claim: str = Field(max_length=500)
    predicate: str = Field(max_length=5000)


class Hypotheses(BaseModel):
    """What the language model returns."""

    model_config = ConfigDict(extra="forbid")
    hypotheses: list[Hypothesis]


@dataclass
class NotebookLog:
    """Language-model calls of one run as rows of its notebook."""

    session: Session

    def begin_call(self, purpose: str, model: LanguageModel, request: dict[str, Any], request_sha256: str) -> str:
        """The id of the intent, committed before anything is sent."""
        from neuronaut.memory.ledger import canonical

        row = {"purpose": purpose, "provider": model.provider, "model": model.model, "request": canonical(request)}
        return self.session.notebook.begin_call(self.session.run, {**row, "request_sha256": request_sha256})

    def end_call(
        self, call: str, *, reply: Reply | None, error: str | None, usd_micro: int | None, seconds: float
    ) -> None:
        """The reply or the error."""
        row: dict[str, Any] = {"error": error, "usd_micro": usd_micro, "seconds": seconds}
        if reply is not None:
            row |= {"answered_by": reply.model, "response": reply.text, "stop_reason": reply.stop_reason}
            row |= {"tokens_in": reply.tokens_in, "tokens_cached": reply.tokens_cached, "tokens_out": reply.tokens_out}
        self.session.notebook.end_call(call, row)

    def earlier_reply(self, request_sha256: str) -> Reply | None:
        """The reply that the same request got before, in any run of the notebook."""
        row = queries.earlier_reply(self.session.notebook, request_sha256)
        if row is None:
            return None
        counts = (row["tokens_in"], row["tokens_cached"], row["tokens_out"])
        return Reply(row["response"], row["answered_by"], row["stop_reason"], *counts)


@dataclass
class ModelProposer:
    """Asks a language model once for each unit; a predicate that cannot be read is said and left out, never guessed."""

    gateway: Gateway
    session: Session

    @property
    def name(self) -> str:
        """Provider and model, as the author of its hypotheses."""
        return f"{self.gateway.model.provider}:{self.gateway.model.model}"

    def propose(self, explored: Explored) -> list[Proposal]:
        """The model's hypotheses as proposals; empty when no usable reply came."""
        request = Request(
            "propose", render("propose_system"), render("propose", **prompt_variables(explored)), Hypotheses
        )
        try:
            reply = self.gateway.ask(request, Hypotheses)
        except NoReply as error:
            self.session.say("model", f"no usable reply: {error}")
            return []
        found = []
        for hypothesis in reply.hypotheses[:8]:
            try:
                predicate = parse_text(hypothesis.predicate)
            except ToolRefused as error:
                self.session.say("model", f"untestable and left out: {hypothesis.claim} ({error})")
                continue
            if predicate.kind in ("promotes", "suppresses"):
                continue
            found.append(Proposal("reads", predicate, claim_text(predicate, sign=explored.unit.sign), self.name))
        return found


def model_proposer(session: Session, name: ModelName) -> ModelProposer:
    """The proposer for a language model named on the command line, within the run's budget."""
    model = open_language_model(name, session.config.base_url)
    budget = session.config.budget
    gateway = Gateway(model, NotebookLog(session), read_prices(), max_tokens=budget.tokens, max_usd=budget.usd)
    return ModelProposer(gateway, session)


def prompt_variables(explored: Explored) -> dict[str, Any]:
    """What the prompt shows: contexts in three bands and the tokens on which the unit fires, all from explore text."""
    variables: dict[str, Any] = {"unit": explored.unit.address.rstrip("-"), "sign": explored.unit.sign}
    for band in ("top", "quantiles", "random"):
        args = TopExamplesArgs(unit=explored.unit.address, k=SHOWN_EXAMPLES, band=band)
        places = choose_places(explored.tokens, explored.activations, args)
        variables[band] = [_marked(explored, window, pos) for window, pos in places]
    variables["token_table"] = _token_table(explored)
    variables["refuted"] = list(explored.refuted)
    return variables


def _marked(explored: Explored, window: int, pos: int) -> str:
    tokens = explored.tokens
    low, high = max(0, pos - CONTEXT), min(int(tokens.lengths[window]), pos + 4)
    pieces = [
        tokens.vocabulary.pieces[i] if tokens.scored[window, at] else "" for at, i in enumerate(tokens.ids[window])
    ]
    share = float(explored.activations[window, pos]) / max(1e-9, float(explored.activations.max()))
    text = f"{''.join(pieces[low:pos])}<<{pieces[pos]}>>{''.join(pieces[pos + 1 : high])}"
    return f"{share:5.2f}  {visible(text)}"


def _token_table(explored: Explored) -> list[dict[str, Any]]:
    tokens = explored.tokens
    ids, fires = tokens.ids[tokens.scored], explored.activations[tokens.scored] > explored.rule.threshold
    n = np.bincount(ids, minlength=len(tokens.vocabulary.pieces))
    fired = np.bincount(ids, weights=fires, minlength=len(n))
    best = [int(i) for i in np.argsort(-fired, kind="stable")[:20] if fired[i] > 0]
    return [{"piece": repr(tokens.vocabulary.pieces[i]), "rate": fired[i] / n[i], "n": int(n[i])} for i in best]

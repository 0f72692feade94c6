"""Can a language model do what is asked of it here? Three small requests, and what to do about each that fails."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ValidationError

from neuronaut.agent.config import ModelName, parse_llm
from neuronaut.agent.llm.base import (
    COMPLETE,
    KeyRefused,
    LanguageModel,
    LanguageModelError,
    Offered,
    Reply,
    Request,
    plain,
)
from neuronaut.agent.llm.prices import read_prices
from neuronaut.agent.llm.registry import open_language_model
from neuronaut.prompts import render
from neuronaut.tools.errors import UserError

Row = tuple[Literal["ok", "warning", "error"], str, str]
SECONDS = 60.0
MOST = 4_096  # tokens of a reply: a model that thinks needs them
KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "compatible": "NEURONAUT_LLM_KEY"}
NOTE = Offered("note", "Keeps a number.", {"type": "object", "properties": {"number": {"type": "integer"}}})


class Number(BaseModel):
    """A number."""

    number: int


class Failed(Exception):
    """A request brought nothing: why, and what to do next."""


@dataclass
class Trial:
    """Asks one language model. replies: what came back so far."""

    model: LanguageModel
    replies: list[Reply]

    def ask(self, what: str, *, tool: bool = False, structured: bool = False) -> tuple[Reply, list[str]]:
        """A whole reply, and the pieces in which it was heard. Raises Failed."""
        heard: list[str] = []
        limit = min(MOST, self.model.max_tokens)
        form, tools = Number if structured else None, (NOTE,) if tool else ()
        request = Request("check", render("check_system"), render("check", what=what), form, limit, tools=tools)
        try:
            reply = self.model.ask(request, heard.append if what == "words" else None)
        except (LanguageModelError, UserError) as error:
            raise Failed(str(error)) from None
        self.replies.append(reply)
        if reply.stop_reason not in COMPLETE:
            raise Failed(f"the reply is not whole, it stopped with {plain(reply.stop_reason, 60)!r}: try another model")
        return reply, heard

    def structured(self) -> Row:
        """A reply in a JSON schema, which proposals and scores need."""
        reply, _ = self.ask("reply", structured=True)
        try:
            number = Number.model_validate_json(reply.text).number
        except ValidationError:
            said = plain(reply.text, 60)
            raise Failed(
                f"it ignores the JSON schema and says {said!r}: start another model or a newer server"
            ) from None
        return "ok", "structured reply", f"from {plain(reply.model, 60)}" + (f", though with {number}" * (number != 7))

    def tool(self) -> Row:
        """A tool call, which a conversation needs."""
        reply, _ = self.ask("tool", tool=True)
        try:
            called = [(call.name, json.loads(call.arguments)) for call in reply.calls]
        except (ValueError, RecursionError):
            raise Failed(
                "it calls a tool with arguments that are not JSON: a conversation will not work well"
            ) from None
        if called != [("note", {"number": 7})]:
            written = plain(", ".join(f"{call.name}({call.arguments})" for call in reply.calls), 80)
            said = f"calls {written}" if called else "calls no tool"
            raise Failed(f"asked to call one tool it {said}: `ask` works with it, a conversation will not")
        return "ok", "tool call", "note(number=7)"

    def streamed(self) -> Row:
        """Words as they come, which a conversation shows."""
        reply, heard = self.ask("words")
        if len(heard) < 2:
            return "warning", "streaming", "the words came in one piece: a conversation shows them at the end only"
        if "".join(heard) != reply.text:
            return "warning", "streaming", "the words that came differ from the reply: a conversation shows the reply"
        return "ok", "streaming", f"{len(heard)} pieces"


def examine_model(llm: str, base_url: str | None) -> list[Row]:
    """Whether a language model can be used: its key, its address, what it can do, whether its cost is known."""
    name = parse_llm(llm)
    if name.provider in ("scripted", "recorded"):
        open_language_model(name, base_url)
        return [("ok", "language model", f"{llm}: its replies are in that file, nothing is sent")]
    rows = [_key(name)]
    try:
        model = open_language_model(name, base_url, SECONDS)
    except KeyRefused as error:
        return [("error", "key", str(error))]
    rows += _tried(Trial(model, []))
    return rows


def _key(name: ModelName) -> Row:
    variable = KEYS[name.provider]
    given = bool(os.environ.get(variable, "").strip())
    return "ok", "key", f"{variable} is set" if given else f"{variable} is not set, which some servers do not need"


def _tried(trial: Trial) -> Iterator[Row]:
    """A row for each request; without a first reply the others are not sent."""
    source = trial.model.source
    try:
        first: Row = trial.structured()
    except Failed as failed:
        if not trial.replies:
            yield "error", "reply", str(failed)
            return
        first = ("error", "structured reply", str(failed))
    yield "ok", "address", source
    yield first
    for what, ask in (("tool call", trial.tool), ("streaming", trial.streamed)):
        try:
            yield ask()
        except Failed as failed:
            yield "error", what, str(failed)
    yield _tokens(trial.replies)
    yield _price(trial)


def _tokens(replies: list[Reply]) -> Row:
    counts = [(reply.tokens_in, reply.tokens_out) for reply in replies]
    if any(None in count for count in counts):
        return "warning", "tokens", "not counted by the server: a budget counts the most that each call can take"
    n_in, n_out = (sum(count[at] or 0 for count in counts) for at in (0, 1))
    return "ok", "tokens", f"this check took {n_in:,} in and {n_out:,} out"


def _price(trial: Trial) -> Row:
    prices = read_prices()
    costs = [prices.micro_dollars(trial.model, reply) for reply in trial.replies]
    if None in costs:
        return (
            "warning",
            "price",
            f"unknown for {trial.model.model}: --budget-usd needs it in the table that $NEURONAUT_PRICES names",
        )
    return "ok", "price", f"this check cost ${sum(cost or 0 for cost in costs) / 1e6:.6f} (prices of {prices.date})"

"""Right answers to the three requests of `neuronaut doctor --llm`, so that a server whose script has none passes as well."""

from typing import Any

from neuronaut.agent.llm.scripted import Scripted
from neuronaut.evals.fake_provider.script import Seen, Step, says
from neuronaut.prompts import render

NUMBER = 7  # as prompts/check.j2 asks
WORDS = "one two three four five six seven eight nine"


def answers_itself(script: list[Scripted]) -> bool:
    """Whether a script begins with an answer to the first of them, so that it is to answer all."""
    return isinstance(script[0], str) and "".join(script[0].split()).startswith('{"number":')


def check(seen: Seen) -> Step | None:
    """The answer to a request of the doctor, None for any other; known by its system prompt, and by what it wants."""
    if _system(seen) != render("check_system"):
        return None
    if seen.body.get("tools"):
        return says(calls=[("note", {"number": NUMBER})])
    formed = {"responses": "text", "chat": "response_format", "messages": "output_config"}[seen.format]
    return says(f'{{"number": {NUMBER}}}' if formed in seen.body else WORDS)


def _system(seen: Seen) -> Any:
    """The system prompt; None where the request has none in its place."""
    try:
        match seen.format:
            case "responses":
                return seen.body["instructions"]
            case "chat":
                return seen.body["messages"][0]["content"]
            case "messages":
                return seen.body["system"][0]["text"]
    except (KeyError, IndexError, TypeError):
        pass
    return None

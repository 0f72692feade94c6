"""Questions about one prompt: which parts matter, why the model says what it says, how it comes to it."""

import re

from neuronaut.agent.questions.question import Parts, Question
from neuronaut.agent.questions.quoted import QUOTED, all_quoted, prompt_of, unquoted
from neuronaut.agent.questions.units import names_a_unit
from neuronaut.tools.errors import UserError

_MATTER = re.compile(
    r"\b(?:which|what)\s+(neurons?|heads?|components?|parts?)\b.*?\bmatters?(?:\s+most)?\s+(?:for|in|to|after|at)\b\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_WHY = re.compile(
    r"\bwhy\b.*?\b(?:say|says|predicts?|writes?|outputs?|completes?|continues?|answers?)\b\s*(?:with\s+)?(.*)",
    re.IGNORECASE | re.DOTALL,
)
_STORY = re.compile(
    r"\b(?:how\b.*?\b(?:come|comes|came|get|gets|got|arrive|arrives)\s+(?:up\s+with|to|at)|how\b.*?\bdecides?\s+(?:on|for)|"
    r"how\b.*?\b(?:predicts?|says?)|which\s+layers?\b.*?\bdecides?(?:\s+(?:on|for))?|story\s+of)\b\s*(?:say(?:ing)?\s+)?(.*)",
    re.IGNORECASE | re.DOTALL,
)


def about_a_prompt(text: str) -> Question | None:
    """Which neurons, heads or components matter for a prompt, in quotes or bare."""
    match = _MATTER.search(text)
    if match is None:
        return None
    quoted, prompt, answer = all_quoted(match[2]), prompt_of(match[2]), ""
    if not prompt:
        raise UserError(
            f"{text!r} names no prompt: write it in quotes, as in \"which heads matter for 'After Mary and'\""
        )
    if len(quoted) == 2 and re.search(r"\bafter\b", QUOTED.sub("", match[2]), re.IGNORECASE):
        answer, prompt = quoted
    elif len(quoted) > 1:
        raise UserError(
            f"{text!r} names {len(quoted)} prompts: ask about one, or write \"which heads matter for ' met' after 'After Mary and'\""
        )
    named = match[1].lower().rstrip("s")
    parts: Parts = "neurons" if named == "neuron" else "heads" if named == "head" else "components"
    return Question(text, "matter", parts=parts, prompt=prompt, answer=answer)


def about_a_reason(text: str) -> Question | None:
    """Why the model says a token after a prompt."""
    match = _WHY.search(text)
    if match is None or names_a_unit(text[: match.start(1)]):
        return None
    answer, prompt = _answer_and_prompt(text, match[1], "why does the model say ' met' after 'After Mary and Lucy'")
    return Question(text, "why", answer=answer, prompt=prompt)


def about_a_story(text: str) -> Question | None:
    """How the model comes to a token after a prompt: which layer decides."""
    match = _STORY.search(text)
    if match is None or names_a_unit(text[: match.start(1)]):
        return None
    example = "how does the model come to ' met' after 'After Mary and Lucy'"
    answer, prompt = _answer_and_prompt(text, match[1], example)
    return Question(text, "story", answer=answer, prompt=prompt)


def _answer_and_prompt(text: str, rest: str, example: str) -> tuple[str, str]:
    """What follows the words of a question about a prompt: the answer, "" for what the model says, and the prompt."""
    quoted = all_quoted(rest)
    if len(quoted) >= 2:
        return quoted[0], quoted[1]
    said, _, prompt = rest.partition(" after ") if " after " in rest else rest.partition("after ")
    answer, prompt = unquoted(said).strip(), prompt_of(prompt)
    if not prompt:
        raise UserError(f'{text!r} names no prompt: write "{example}"')
    if re.search(r"\b(?:and not|rather than|instead of)\b", answer):
        raise UserError(
            f"{answer!r} names two answers: ask about one; `neuronaut tool logit_lens` and `patch` take a wrong_answer"
        )
    return "" if answer in ("this", "that", "so", "what it says", "its answer") else answer, prompt

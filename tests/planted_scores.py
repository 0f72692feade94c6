"""A unit whose truth is known: it fires on the names of two months, of documents of 32 words; and judges who know that."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from neuronaut.agent.llm.base import LanguageModel, LanguageModelError, Reply, Request
from neuronaut.agent.llm.budget import Budget
from neuronaut.agent.llm.gateway import Gateway
from neuronaut.agent.llm.prices import Prices
from neuronaut.agent.scores.base import Case, Explanation
from neuronaut.tools.learn.subject import Subject
from neuronaut.tools.learn.windows import windows_of
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.tokens import Tokens, Vocabulary, tokens_from_ids
from neuronaut.tools.units import Unit

MONTHS = (" May", " June")
PIECES = (*(f" word{n}" for n in range(60)), *MONTHS)
UNIT = Unit("neuron", 0, 0)
RULE = FiringRule(threshold=5.0, median=0.0, top=10.0, spread=0.0, dense=False)
EXPLANATION = Explanation("the names of months", "as given")
N_DOCUMENTS = 300


def planted_text(seed: int = 0, first: int = 0) -> tuple[Tokens, np.ndarray]:
    """Documents of 32 words, every second one with one to four months, and activations: 3 to 10 at a month, else 0."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 60, (N_DOCUMENTS, 32))
    activations = np.zeros(rows.shape, dtype=np.float32)
    for row in range(0, N_DOCUMENTS, 2):
        at = rng.choice(32, int(rng.integers(1, 5)), replace=False)
        rows[row, at] = rng.integers(60, 62, len(at))
        activations[row, at] = rng.integers(3, 11, len(at))
    vocabulary = Vocabulary(PIECES, frozenset())
    return tokens_from_ids(rows.tolist(), vocabulary, list(range(first, first + N_DOCUMENTS))), activations


class PlantedContext:
    """What scores need of a context: explore text, whose documents have other numbers than those that are scored."""

    def sample(self, split: str, n: int) -> Tokens:
        """The explore text."""
        return planted_text(1, N_DOCUMENTS)[0]

    def activations(self, unit: Unit, split: str, *, n_tokens: int) -> np.ndarray:
        """On explore text."""
        return planted_text(1, N_DOCUMENTS)[1]


def planted_case(seed: int = 0) -> Case:
    """The planted unit with the true explanation."""
    subject = Subject(UNIT, RULE, tuple(windows_of(*planted_text(), RULE, "audit")), ("audit",))
    return Case(PlantedContext(), subject, EXPLANATION, seed)  # type: ignore[arg-type]


class Silent:
    """A log that keeps nothing."""

    def begin_call(self, *_: Any, **__: Any) -> str:
        return "call"

    def end_call(self, *_: Any, **__: Any) -> None: ...

    def earlier_reply(self, _: str) -> None: ...

    def say(self, _: str) -> None: ...


class Answers:
    """A language model that answers by a function of the request. It keeps what it was asked."""

    provider, model, source, billed, max_tokens = "scripted", "known", "here", False, 4096

    def __init__(self, answer: Callable[[Request], Any]) -> None:
        self.answer, self.requests = answer, list[Request]()

    def ask(self, request: Request, heard: object = None) -> Reply:
        self.requests.append(request)
        found = self.answer(request)
        if isinstance(found, LanguageModelError):
            raise found
        return Reply(found if isinstance(found, str) else json.dumps(found), "known", "stop", 10, 0, 5)


def asks(answer: Callable[[Request], Any]) -> Gateway:
    """A gateway to a language model that answers by a function."""
    model: LanguageModel = Answers(answer)
    return Gateway(model, Silent(), Budget(Prices("2026-11-01", {})))


def numbered(request: Request) -> list[str]:
    """The numbered lines of a question."""
    return re.findall(r"^\d+\. (.*)$", request.prompt, re.MULTILINE)


def has_month(text: str) -> bool:
    """The truth about a text."""
    return any(month in text for month in MONTHS)


def marks_months(text: str) -> bool:
    """The truth about the marked tokens of a text."""
    marked = re.findall(r"<<(.*?)>>", text)
    return bool(marked) and all(re.fullmatch("( May| June)+", one) for one in marked)


def truth(request: Request) -> Any:
    """What a judge answers who knows when the unit fires."""
    lines = numbered(request)
    match request.purpose.removeprefix("score_"):
        case "detection":
            return {"labels": [int(has_month(line)) for line in lines]}
        case "fuzz":
            return {"labels": [int(marks_months(line)) for line in lines]}
        case "intruder":
            return {"intruder": [marks_months(line) for line in lines].index(False) + 1}
        case "saebench":
            return {"active": [number for number, line in enumerate(lines, start=1) if has_month(line)]}
        case purpose:
            raise AssertionError(purpose)

"""Questions in people's words: what can be asked, and how it is read."""

from neuronaut.agent.questions.parse import parse_question
from neuronaut.agent.questions.question import HeadKind, Question

__all__ = ["HeadKind", "Question", "parse_question"]

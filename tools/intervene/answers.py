"""Answers as tokens, and how they are scored: one token or several as a sequence, less a wrong one where there is one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import TargetModel

Answer = tuple[tuple[int, ...], int]  # token ids, and the sign of their score


def answer_ids(target: TargetModel, text: str) -> tuple[int, ...]:
    """The tokens of an answer, its leading space written out. Refuses an empty one."""
    pieces = target.vocabulary.pieces
    if text in pieces:
        return (pieces.index(text),)
    if not text:
        raise ToolRefused("an answer is empty: give its text with its leading space, such as ' Mary'")
    # SentencePiece puts a space before each text, so that the answer's own is left to it
    for written in dict.fromkeys([text, text.removeprefix(" ")]):
        tokens = target.tokenize([written]) if written else None
        ids = [] if tokens is None else [int(token) for token in tokens.ids[0] if token >= 0]
        found = tuple(token for token in ids if token not in target.vocabulary.special)
        if found and "".join(pieces[token] for token in found) == text:
            return found
    raise ToolRefused(f"{text!r} is cut into tokens that do not spell it: give an answer with its leading space")


def signed_answers(target: TargetModel, answer: str, wrong: str | None) -> tuple[Answer, ...]:
    """The answer, and the wrong one with sign -1. Refuses answers that are empty or equal."""
    if wrong == answer:
        raise ToolRefused(f"answer and wrong_answer are both {answer!r}: their scores never differ, so name two")
    texts = [(answer, 1)] if wrong is None else [(answer, 1), (wrong, -1)]
    return tuple((answer_ids(target, text), sign) for text, sign in texts)


def read_together(answers: Sequence[Answer]) -> list[list[Answer]]:
    """The answers that one run can be read for: those that are equal but for their last token."""
    found: dict[tuple[int, ...], list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer[0][:-1], []).append(answer)
    return list(found.values())


def sequence_scores(log_probs: Tensor, answers: Sequence[Answer]) -> Tensor:
    """(n,) signed sum of the answers' log-probabilities, from (n, n_answer, d_vocab) at each of their tokens."""
    parts = []
    for answer, sign in answers:
        chosen = log_probs[:, torch.arange(len(answer)), torch.tensor(answer)]
        parts.append(sign * chosen.sum(dim=1))
    return torch.stack(parts).sum(dim=0)

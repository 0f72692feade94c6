"""What follows from a change: the score of an answer or the loss of a text, along all paths and along the direct one alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.intervene.answers import Answer, read_together, sequence_scores
from neuronaut.tools.intervene.next_token import residual_before, text_batches
from neuronaut.tools.intervene.parts import Part, Places
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.tokens import Tokens


class Move(Protocol):
    """A change of the model that can be made at given places of given texts."""

    @property
    def out(self) -> Site:
        """Where it enters the residual stream."""
        ...

    @property
    def layer(self) -> int:
        """The first layer that must be run."""
        ...

    def edit(self, rows: Tensor, places: Places) -> Edit:
        """The change of the texts numbered `rows`. places: theirs."""
        ...


@dataclass(frozen=True)
class Change:
    """A part, and what is done to it at the places of each text: values (n_texts, m, 1 or d_head or d_model) or a number."""

    part: Part
    values: Tensor | float
    how: Literal["set", "add", "scale"] = "set"

    @property
    def out(self) -> Site:
        """Where the part writes."""
        return self.part.out

    @property
    def layer(self) -> int:
        """The one in which the part is read."""
        return self.part.site.layer

    def edit(self, rows: Tensor, places: Places) -> Edit:
        """The change of some texts."""
        if not isinstance(self.values, Tensor):
            return Edit(self.part.site, self.how, self.values, index=self.part.index, positions=places.mask)
        values = places.put(self.values[rows])
        values = values[..., 0] if self.part.is_number else values
        return Edit(self.part.site, self.how, values, index=self.part.index, positions=places.mask)


@dataclass(frozen=True)
class Push:
    """A direction, (d_model,) or one for each place, (n_texts, m, d_model), added to what a layer's attention or MLP writes,
    `amounts` of it, (n_texts, m)."""

    out: Site
    direction: Tensor
    amounts: Tensor

    @property
    def layer(self) -> int:
        """The one in which it is pushed."""
        return self.out.layer

    def edit(self, rows: Tensor, places: Places) -> Edit:
        """The push of some texts."""
        direction = self.direction[rows] if self.direction.dim() > 1 else self.direction
        return Edit(self.out, "add", places.put(self.amounts[rows][..., None] * direction), positions=places.mask)


class Outcomes(NamedTuple):
    """Scores in nats, float64; a larger one is better for the answer, or for the text.

    plain: (n_texts,). total, direct: (n_moves, n_texts), along all paths, and along the direct one (no row if not asked for).
    """

    plain: Tensor
    total: Tensor
    direct: Tensor


class Scored(NamedTuple):
    """Texts that are run together: their numbers, ids with the answer behind each text but for its last token, where the
    next token is scored, (n, k), and which one that is in each text, -1 for none."""

    rows: Tensor
    ids: Tensor
    columns: Tensor
    following: Tensor

    def at(self, values: Tensor) -> Tensor:
        """(n, k, …) of values over all positions, (n, pos, …)."""
        return values[torch.arange(len(values))[:, None], self.columns]


@dataclass(frozen=True)
class Watched:
    """What is measured of a text: the signed log-probabilities of the answers after it; without answers, the mean
    log-probability of its own tokens, special ones left out, which is minus its loss."""

    answers: tuple[Answer, ...] = ()

    @property
    def name(self) -> Literal["log_prob", "logit_diff", "loss"]:
        """`logit_diff` with a wrong answer: for single tokens it is the difference of their logits."""
        if not self.answers:
            return "loss"
        return "log_prob" if len(self.answers) == 1 else "logit_diff"

    def outcomes(
        self, target: TargetModel, tokens: Tokens, places: Places, moves: Sequence[Move], *, direct: bool = False
    ) -> Outcomes:
        """The scores without and with each move, made alone at the places.

        direct: all other parts keep what they had, so that the change reaches the logits through the last norm alone.
        Layers before the first changed one are run once. Refuses texts too short to have a loss, and answers that do not
        fit into the context; fails where logits are not finite.
        """
        self.check(target, tokens)
        n, rows = len(tokens), (len(moves), len(moves) if direct else 0)
        found = Outcomes(*(torch.zeros(*of, n, dtype=torch.float64) for of in ((), rows[:1], rows[1:])))
        for answers in read_together(self.answers) if self.answers else [[]]:
            for texts in _texts_with(target, tokens, answers):
                here = Places(places.columns[texts.rows], texts.ids.shape[1])
                for into, scores in zip(found, _scores(target, texts, here, (moves, direct), answers), strict=True):
                    into[..., texts.rows] += scores
        return found

    def check(self, target: TargetModel, tokens: Tokens) -> None:
        """Refuses texts that have no loss, and answers that do not fit behind them, before anything is run."""
        if not self.answers and not bool(tokens.scored[:, 1:].any(axis=1).all()):
            short = int(np.flatnonzero(~tokens.scored[:, 1:].any(axis=1))[0])
            raise ToolRefused(
                f"text {short + 1} has no loss: it has no token that follows another one; give longer texts"
            )
        more = max((len(answer) - 1 for answer, _ in self.answers), default=0)
        if int(tokens.lengths.max()) + more > target.spec.n_ctx:
            raise ToolRefused(
                f"prompt {int(tokens.lengths.argmax()) + 1} and an answer of {more + 1} tokens are longer than the context of "
                f"{target.spec.name} ({target.spec.n_ctx} tokens): shorten it"
            )


def _texts_with(target: TargetModel, tokens: Tokens, answers: Sequence[Answer]) -> Iterator[Scored]:
    """Batches of texts with the answers' common tokens behind them; of the bare texts where there is no answer."""
    for rows, part in text_batches(target, tokens):
        ids, lengths = to_ids(part), torch.from_numpy(part.lengths)[:, None]
        if not answers:
            following = torch.where(torch.from_numpy(part.scored), ids, -1)[:, 1:]
            columns = torch.arange(ids.shape[1] - 1).expand(len(ids), -1)
            yield Scored(torch.from_numpy(rows), ids, columns, following)
            continue
        answer = torch.tensor(answers[0][0])
        ids = F.pad(ids, (0, len(answer) - 1))
        ids.scatter_(1, lengths + torch.arange(len(answer) - 1), answer[:-1].expand(len(ids), -1))
        columns = lengths - 1 + torch.arange(len(answer))
        yield Scored(torch.from_numpy(rows), ids, columns, answer.expand(len(ids), -1))


def _scores(
    target: TargetModel,
    texts: Scored,
    places: Places,
    asked: tuple[Sequence[Move], bool],
    answers: Sequence[Answer],
) -> Outcomes:
    """The outcomes of one batch. asked: the moves, and whether along the direct path too."""
    (moves, direct), n_layers = asked, target.spec.n_layers
    last, outs = Site("resid_post", n_layers - 1), {move.out for move in moves} if direct else set()
    start = residual_before(target, texts.ids, min((move.layer for move in moves), default=0))
    plain = target.run(texts.ids, read=[last, *outs] if direct else [], start=start, logits=True)
    own = _score(plain.logits, texts, answers, gather=True)
    found = own.new_zeros(len(moves), len(own)), own.new_zeros(len(moves) if direct else 0, len(own))
    for number, move in enumerate(moves):
        read = [move.out] if direct else []
        run = target.run(texts.ids, read=read, edits=[move.edit(texts.rows, places)], start=start, logits=True)
        found[0][number] = _score(run.logits, texts, answers, gather=True)
        if direct:
            residual = texts.at(plain.read[last] + (run.read[move.out] - plain.read[move.out]))
            through = target.run(texts.ids[:, : residual.shape[1]], start=(n_layers, residual), logits=True)
            found[1][number] = _score(through.logits, texts, answers, gather=False)
    return Outcomes(own, *found)


def _score(logits: Tensor | None, texts: Scored, answers: Sequence[Answer], *, gather: bool) -> Tensor:
    """(n,) float64. gather: the logits are those of all positions, not of the scored ones alone."""
    assert logits is not None
    logits = texts.at(logits) if gather else logits
    if not bool(torch.isfinite(logits).all()):
        raise ToolFailed("the edited model gives logits that are not finite: choose a smaller value")
    if answers:
        return sequence_scores(torch.log_softmax(logits.double(), dim=-1), answers)
    known = texts.following >= 0
    log_probs = torch.log_softmax(logits.float(), dim=-1).gather(-1, texts.following.clamp(min=0)[..., None])[..., 0]
    return (log_probs.double() * known).sum(dim=1) / known.sum(dim=1)

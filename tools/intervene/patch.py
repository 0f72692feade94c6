"""Activations of one run put into the other of a clean and a corrupted prompt: which of them carry the answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.intervene.answers import Answer, read_together, sequence_scores, signed_answers
from neuronaut.tools.intervene.effect_figures import patch_figures
from neuronaut.tools.intervene.next_token import divergence
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.checks import check_layer

# Of the largest log-probability: float32 sums in another order differ by 1e-6 of it, so that a share is good to 1 %.
MIN_DIFFERENCE = 1e-4
PatchSite = Literal["resid_pre", "attn_out", "mlp_out", "resid_post", "heads", "neurons"]


class PatchArgs(ToolArgs):
    """Clean and corrupted prompt of equal length in tokens, the answers, and what is carried over.

    wrong_answer: what the corrupted prompt asks for; without it the answer's log-probability alone is measured. site: all
    but heads and neurons are carried over position by position; heads and neurons one by one, at all positions.
    layer: None is every layer (neurons need one). direction: `denoise` puts clean activations into the corrupted run,
    `noise` corrupted ones into the clean run. metric: `kl` looks at the whole distribution and not at the answers.
    """

    example: ClassVar = {
        "clean": "Mary gave the ring to",
        "corrupted": "Leo gave the ring to",
        "answer": " Mary",
        "wrong_answer": " Leo",
        "layer": 4,
    }
    clean: Prompt
    corrupted: Prompt
    answer: str
    wrong_answer: str | None = None
    site: PatchSite = "resid_pre"
    layer: int | None = Field(default=None, ge=0)
    direction: Literal["denoise", "noise"] = "denoise"
    metric: Literal["log_prob", "kl"] = "log_prob"


@tool("patch")
def patch(context: ToolContext, args: PatchArgs) -> ToolResult:
    """How much of the answer comes back (or is lost) when one activation of the other run is put in, each alone.

    effect: `denoise`: (patched − corrupted) / (clean − corrupted) of the metric, 1 is the clean run, 0 the corrupted one;
    `noise`: (clean − patched) / (clean − corrupted), 1 is all lost. The metric is the log-probability of the answer, less
    that of wrong_answer where given (for single tokens the logit difference); an answer of several tokens is scored as
    their sequence; `kl`: less the divergence of the clean prediction from that of the run.
    Refuses: prompts or answers that are equal, prompts of unequal length, scores that are equal up to rounding.
    Source: Heimersheim & Nanda 2024, arXiv:2404.15255.
    """
    target, pair = context.target, PromptPair.of(context.target, args.clean, args.corrupted)
    sites = patch_sites(target, args)
    metric = metric_of(pair, args.answer, args.wrong_answer, args.metric)
    base, other = (pair.corrupted, pair.clean) if args.direction == "denoise" else (pair.clean, pair.corrupted)
    scores = metric.grid(base, other, sites)
    low, high = (metric.corrupted, metric.clean) if args.direction == "denoise" else (metric.clean, metric.corrupted)
    effect = (scores - low) / (high - low)
    best = Measurement("effect_best", float(effect.max()), "share of the metric", 1, null_value=0.0, n_of="prompt pair")
    payload = grid_payload(args, metric, sites, effect)
    return ToolResult((best,), payload, {"effect": effect.numpy()}, patch_figures("patch", payload))


@dataclass(frozen=True)
class PromptPair:
    """A clean and a corrupted prompt of equal length, (1, pos) ids each."""

    target: TargetModel
    clean: Tensor
    corrupted: Tensor

    @classmethod
    def of(cls, target: TargetModel, clean: Prompt, corrupted: Prompt) -> "PromptPair":
        """The tokens of both. Refuses prompts that are equal or of unequal length."""
        tokens = read_texts(target, (clean, corrupted))
        if tokens.lengths[0] != tokens.lengths[1]:
            raise ToolRefused(
                f"clean has {tokens.lengths[0]} tokens and corrupted {tokens.lengths[1]}: they must be equally long"
            )
        if np.array_equal(*tokens.ids):
            raise ToolRefused(
                "clean and corrupted are the same tokens: there is nothing to recover, so change one of them"
            )
        ids = to_ids(tokens)
        return cls(target, ids[:1], ids[1:])

    @property
    def columns(self) -> list[dict[str, str]]:
        """The pieces at each position."""
        pieces = self.target.vocabulary.pieces
        both = zip(self.clean[0].tolist(), self.corrupted[0].tolist(), strict=True)
        return [{"clean": pieces[i], "corrupted": pieces[j]} for i, j in both]

    def after(self, ids: Tensor, answer: Sequence[int], edits: Sequence[Edit] = ()) -> Tensor:
        """(n_edits, n_answer, d_vocab) float64 log-probabilities at each token of an answer after one of the prompts, with
        each edit made alone in the prompt; of the plain run, (1, …), where there is no edit."""
        more = torch.tensor([list(answer[:-1])], dtype=torch.long)
        whole, keep = torch.cat([ids, more], dim=1), len(answer)
        made = [_within_prompt(edit, ids.shape[1], more.shape[1]) for edit in edits]
        if made:
            logits = self.target.branches(whole, made, keep=keep)
        else:
            run = self.target.run(whole, logits=True)
            assert run.logits is not None
            logits = run.logits[:, -keep:]
        found = torch.log_softmax(logits.double(), dim=-1)
        if not bool(torch.isfinite(found).all()):
            raise ToolFailed("the patched model gives logits that are not finite")
        return found


def _within_prompt(edit: Edit, n_pos: int, more: int) -> Edit:
    """An edit of a prompt as one of the prompt with `more` tokens behind it."""
    positions = torch.ones(1, n_pos, dtype=torch.bool) if edit.positions is None else edit.positions
    value = edit.value
    if isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] == n_pos:
        value = torch.cat([value, value.new_zeros(len(value), more, *value.shape[2:])], dim=1)
    return Edit(edit.site, edit.how, value, edit.index, F.pad(positions, (0, more)))


@dataclass(frozen=True)
class Metric:
    """What is measured of a prompt pair: the answer's log-probability, less that of a wrong one; or less the divergence of
    the clean prediction (`answers` empty)."""

    name: str
    pair: PromptPair
    answers: tuple[Answer, ...]

    def scores(self, ids: Tensor, edits: Sequence[Edit] = ()) -> Tensor:
        """(n_edits,) float64, in nats; (1,) of the plain run where there is no edit."""
        return self.scored(lambda answer: self.pair.after(ids, answer, edits))

    def scored(self, after: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """(n,) float64, in nats, of runs that give (n, n_answer, d_vocab) log-probabilities at each token of an answer."""
        return torch.stack([self._score(after(same[0][0]), same) for same in self._together()]).sum(dim=0)

    def grid(self, base: Tensor, other: Tensor, sites: Sequence[Site]) -> Tensor:
        """(n_sites, n_columns) float64 scores of the base prompt with one activation of the other one put in at a time: of each
        position, or of each head or neuron at all positions. base, other: (1, pos) ids.

        Before the first token that differs both have the same activations, so that nothing is run there.
        """
        first = int((base != other)[0].float().argmax())
        carried = self.pair.target.run(other, read=sites).read
        rows = [patch_edits(site, carried[site], first) for site in sites]
        found = self.scores(base, [edit for row in rows for edit in row]).reshape(len(sites), -1)
        if sites[0].name in ("heads", "neurons") or not first:
            return found
        return torch.cat([self.scores(base).expand(len(sites), first), found], dim=1)

    def gradients(self, ids: Tensor, sites: Sequence[Site], edits: Sequence[Edit] = ()) -> dict[Site, Tensor]:
        """(batch, pos, …) gradient of the score at each site. ids: (batch, pos) of a prompt, each with all of the edits."""
        total: dict[Site, Tensor] = {}
        for same in self._together():
            answer = same[0][0]
            more = torch.tensor([answer[:-1]], dtype=torch.long).expand(len(ids), -1)
            whole = torch.cat([ids, more], dim=1)
            made = [_within_prompt(edit, ids.shape[1], more.shape[1]) for edit in edits]

            def score(logits: Tensor, same: Sequence[Answer] = same, keep: int = len(answer)) -> Tensor:
                return self._score(torch.log_softmax(logits[:, -keep:].double(), dim=-1), same)

            found = self.pair.target.gradients(whole, sites, score, edits=made)
            for site, (_, gradient) in found.items():
                total[site] = total.get(site, 0) + gradient[:, : ids.shape[1]]
        return total

    def _together(self) -> list[list[Answer]]:
        return read_together(self.answers) if self.answers else [[((0,), 0)]]

    def _score(self, log_probs: Tensor, answers: Sequence[Answer]) -> Tensor:
        """(n,) of (n, n_answer, d_vocab)."""
        return sequence_scores(log_probs, answers) if self.answers else -divergence(self._reference, log_probs[:, 0])

    @cached_property
    def _reference(self) -> Tensor:
        return self.pair.after(self.pair.clean, (0,))[0, 0]

    @cached_property
    def clean(self) -> float:
        """Of the clean run."""
        return float(self.scores(self.pair.clean)[0])

    @cached_property
    def corrupted(self) -> float:
        """Of the corrupted run."""
        return float(self.scores(self.pair.corrupted)[0])


def metric_of(pair: PromptPair, answer: str, wrong: str | None, name: str) -> Metric:
    """The metric by its name. Refuses answers that are empty or equal, and a pair that it does not separate."""
    metric = Metric(name, pair, signed_answers(pair.target, answer, wrong) if name != "kl" else ())
    scale = max(abs(metric.clean), abs(metric.corrupted), 1.0)
    if abs(metric.clean - metric.corrupted) < MIN_DIFFERENCE * scale:
        raise ToolRefused(
            f"clean and corrupted give the same answer: both score {metric.clean:.4g} up to rounding, so that there is "
            "nothing to recover; give prompts of which the model prefers different answers"
        )
    return metric


def patch_sites(target: TargetModel, args: PatchArgs) -> list[Site]:
    """The sites of the rows of a grid. Refuses layers that the model lacks, and the neurons of all layers at once."""
    n_layers = target.spec.n_layers
    if args.layer is not None:
        check_layer(target.spec, args.layer)
    if args.site == "neurons" and args.layer is None:
        raise ToolRefused("neurons are patched one layer at a time: give the layer")
    return [Site(args.site, layer) for layer in (range(n_layers) if args.layer is None else [args.layer])]


def grid_payload(args: PatchArgs, metric: Metric, sites: Sequence[Site], effect: Tensor) -> dict[str, Any]:
    """What is told of a grid of effects (n_sites, n_columns), with its columns: positions, or indices of heads or neurons."""
    by_position = args.site not in ("heads", "neurons")
    return {
        "site": args.site,
        "direction": args.direction,
        "metric": metric.name,
        "clean": metric.clean,
        "corrupted": metric.corrupted,
        "columns": metric.pair.columns if by_position else list(range(effect.shape[1])),
        "rows": [
            {"layer": site.layer, "effect": [round(value, 5) for value in row.tolist()]}
            for site, row in zip(sites, effect, strict=True)
        ],
    }


def patch_edits(site: Site, carried: Tensor, first: int) -> list[Edit]:
    """The edits of one row: of each position from `first` on, or of each head or neuron at all of them.

    carried: (1, pos, …), before `first` that of the run that is edited.
    """
    n_pos = carried.shape[1]
    if site.name in ("heads", "neurons"):
        rest = (torch.arange(n_pos) >= first)[None]
        return [Edit(site, "set", carried[:, :, i], index=i, positions=rest) for i in range(carried.shape[2])]
    alone = torch.eye(n_pos, dtype=torch.bool)
    return [Edit(site, "set", carried, positions=alone[at : at + 1]) for at in range(first, n_pos)]

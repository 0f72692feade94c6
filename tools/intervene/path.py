"""What one part of a model tells another: the other run of a prompt pair is carried along chosen edges only."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.circuits.bench import BYTES, EdgeBench
from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.intervene.patch import Metric, PromptPair, metric_of
from neuronaut.tools.look.examples import Prompt
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tasks.base import TaskPrompts

Floats = NDArray[np.float64]

NULLS = 32  # sets of other senders
LISTED = 20  # edges in the answer; all are in the array


class PathPatchArgs(ToolArgs):
    """Clean and corrupted prompt of equal length in tokens, the answers, and the edges along which the other run is carried.

    senders: "embed", heads such as "L4H2", MLPs such as "mlp9". receivers: inputs of heads such as "L7H0.q" (".k", ".v";
    "L7KV0.k" where heads share keys and values), of MLPs such as "mlp9", or "logits"; None is every part that reads later.
    direction, metric, wrong_answer: as in `patch`. seed: draws the sets of other senders.
    """

    example: ClassVar = {
        "clean": "When Mary and Leo met, Leo gave the ring to",
        "corrupted": "When Mary and Leo met, Mary gave the ring to",
        "answer": " Mary",
        "wrong_answer": " Leo",
        "senders": ["L4H2"],
        "receivers": ["mlp9", "logits"],
    }
    clean: Prompt
    corrupted: Prompt
    answer: str
    wrong_answer: str | None = None
    senders: tuple[str, ...] = Field(min_length=1, max_length=1000)
    receivers: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=10_000)
    direction: Literal["denoise", "noise"] = "noise"
    metric: Literal["log_prob", "kl"] = "log_prob"
    seed: int = 0


@tool("path_patch")
def path_patch(context: ToolContext, args: PathPatchArgs) -> ToolResult:
    """How much of the answer is lost (or comes back) when what the senders write in the other run reaches the chosen receivers
    only, all later parts running on with what these then give.

    effect: share of the metric, as in `patch`; 0 is nothing, 1 is all. total: through every receiver, which is to patch the
    senders themselves; direct: through the logits alone. edges: each sender to each receiver alone. Null: the same through
    32 random sets of as many other senders of the same kinds that reach one of the receivers (percentile), where there are
    such.
    Refuses what `patch` refuses, names of parts that do not exist, and receivers that all read before the senders write.
    Source: Wang et al. 2022, arXiv:2211.00593, section 3; Goldowsky-Dill et al. 2023, arXiv:2304.05969.
    """
    target, pair = context.target, PromptPair.of(context.target, args.clean, args.corrupted)
    wires = Wires.of(target.spec)
    chosen = edges_between(wires, args.senders, args.receivers)
    carrier = Carrier(metric_of(pair, args.answer, args.wrong_answer, args.metric), args.direction, wires)
    whole, logits = edges_between(wires, args.senders, None), torch.zeros_like(chosen)
    logits[wires.logits] = whole[wires.logits]
    alone, nulls = chosen.nonzero(), other_sets(wires, chosen, args.seed)
    single = torch.zeros(len(alone), *chosen.shape, dtype=torch.bool)
    single[torch.arange(len(alone)), alone[:, 0], alone[:, 1]] = True
    found = carrier.effects(torch.cat([torch.stack([chosen, whole, logits]), single, nulls]))
    singles, others = found[3 : 3 + len(alone)].numpy(), found[3 + len(alone) :].numpy()
    measured = [
        _measured(float(value), None, name) for name, value in zip(("total", "direct"), found[1:3], strict=True)
    ]
    payload = {
        "senders": list(args.senders),
        "receivers": "all" if args.receivers is None else list(args.receivers),
        "direction": args.direction,
        "metric": args.metric,
        "clean": carrier.metric.clean,
        "corrupted": carrier.metric.corrupted,
        "edges": _listed(wires, alone, singles),
    }
    arrays = {"effect": singles, "edges": alone.numpy(), "null": others}
    return ToolResult((_measured(float(found[0]), others), *measured), payload, arrays)


def _listed(wires: Wires, edges: Tensor, effects: Floats) -> list[dict[str, str | float]]:
    """The edges of largest effect, by name. edges: (n, 2) receivers and senders."""
    order = np.argsort(-np.abs(effects), kind="stable")[:LISTED]
    named = [(*edges[at].tolist(), round(float(effects[at]), 5)) for at in order]
    return [{"sender": wires.senders[s], "receiver": wires.receivers[r], "effect": effect} for r, s, effect in named]


def _measured(value: float, others: Floats | None, name: str = "effect") -> Measurement:
    """others: (n,) the effects of other senders, if there are any."""
    unit = "share of the metric"
    if others is None or not len(others):
        return Measurement(name, value, unit, 1, null_value=0.0, n_of="prompt pair")
    percentile = percentile_of(abs(value), np.abs(others))
    return Measurement(
        name, value, unit, 1, null_value=float(np.median(others)), null_percentile=percentile, n_of="prompt pair"
    )


def edges_between(wires: Wires, senders: Sequence[str], receivers: Sequence[str] | None) -> Tensor:
    """(n_receivers, n_senders) bool: the edges that exist from any of the senders to any of the receivers (None: to all).

    Refuses unknown names, and senders and receivers that no edge joins.
    """
    writes, reads = (
        torch.zeros(len(wires.senders), dtype=torch.bool),
        torch.zeros(len(wires.receivers), dtype=torch.bool),
    )
    writes[[wires.sender(name) for name in senders]] = True
    reads[[wires.receiver(name) for name in receivers] if receivers is not None else slice(None)] = True
    found = wires.possible & reads[:, None] & writes
    if not bool(found.any()):
        raise ToolRefused(
            f"no edge leads from {', '.join(senders)} to {', '.join(receivers or ())}: receivers must read later than senders "
            "write"
        )
    return found


def other_sets(wires: Wires, chosen: Tensor, seed: int) -> Tensor:
    """(n, n_receivers, n_senders) bool: the edges into the same receivers from random sets of as many other senders of each
    kind; empty where there are too few others, and no set comes twice."""
    writes, reads = chosen.any(dim=0), chosen.any(dim=1)
    reachable = wires.possible[reads].any(dim=0) & ~writes
    kinds = ["mlp" if name.startswith("mlp") else "head" if name != "embed" else name for name in wires.senders]
    asked = [kinds[at] for at in writes.nonzero()[:, 0].tolist() if kinds[at] != "embed"]
    pools = {
        kind: [at for at in reachable.nonzero()[:, 0].tolist() if kinds[at] == kind] for kind in sorted(set(asked))
    }
    if not asked or any(len(pool) < asked.count(kind) for kind, pool in pools.items()):
        return chosen.new_zeros(0, *chosen.shape)
    rng, sets = np.random.default_rng(seed), dict[tuple[int, ...], None]()
    for _ in range(NULLS):
        drawn = [rng.choice(pool, asked.count(kind), replace=False).tolist() for kind, pool in pools.items()]
        sets[tuple(sorted(chain.from_iterable(drawn)))] = None
    found = chosen.new_zeros(len(sets), *chosen.shape)
    for at, members in enumerate(sets):
        found[at][:, list(members)] = wires.possible[:, list(members)] & reads[:, None]
    return found


@dataclass(frozen=True)
class Carrier:
    """A prompt pair, one run of which carries the other along edges; see PathPatchArgs for direction."""

    metric: Metric
    direction: Literal["denoise", "noise"]
    wires: Wires

    @property
    def _runs(self) -> tuple[Tensor, Tensor]:
        """The prompt that is run, and the one that is carried into it."""
        pair = self.metric.pair
        return (pair.corrupted, pair.clean) if self.direction == "denoise" else (pair.clean, pair.corrupted)

    @cached_property
    def _other(self) -> Tensor:
        return self.metric.pair.target.senders(self._runs[1])

    def effects(self, cuts: Tensor) -> Tensor:
        """(n_cuts,) float64 share of the metric, with each set of edges cut, (n_cuts, n_receivers, n_senders)."""
        clean, corrupted = self.metric.clean, self.metric.corrupted
        scores = self.metric.scored(lambda answer: self._log_probs(cuts, answer))
        moved = scores - corrupted if self.direction == "denoise" else clean - scores
        return moved / (clean - corrupted)

    def _log_probs(self, cuts: Tensor, answer: Sequence[int]) -> Tensor:
        """(n_cuts, n_answer, d_vocab) at each token of an answer behind the prompt; edges are cut in the prompt."""
        base, n_pos, target = self._runs[0], self._runs[0].shape[1], self.metric.pair.target
        ids = torch.cat([base, torch.tensor([list(answer[:-1])], dtype=torch.long)], dim=1)
        inside = (torch.arange(ids.shape[1]) < n_pos)[None]
        other = F.pad(self._other, (0, 0, 0, ids.shape[1] - n_pos))
        width = 2 * len(self.wires.senders) + len(self.wires.receivers)
        size, parts = max(1, BYTES // (4 * width * ids.shape[1] * target.spec.d_model)), []
        for first in range(0, len(cuts), size):
            rows = cuts[first : first + size]
            parts.append(target.run_edges(ids.expand(len(rows), -1), other, rows, positions=inside, keep=len(answer)))
        found = torch.cat(parts).double().log_softmax(-1)
        if not bool(torch.isfinite(found).all()):
            raise ToolFailed("the patched model gives logits that are not finite")
        return found


def path_effects(
    target: TargetModel, prompts: TaskPrompts, senders: Sequence[str], receivers: Sequence[str] | None
) -> Tensor:
    """(n,) float64 change of the score of each clean prompt, in nats, when what the senders write on its corrupted twin reaches
    the receivers (None: all) only. Null: 0. Refuses what `edges_between` refuses."""
    bench = EdgeBench(target, prompts)
    chosen = edges_between(bench.wires, senders, receivers)
    plain, carried = bench.scores(torch.stack([torch.zeros_like(chosen), chosen]))
    return carried - plain

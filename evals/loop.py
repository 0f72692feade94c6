"""The real loop on many units of one target: what each was claimed to read, and how the claims were judged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from neuronaut.agent import nodes
from neuronaut.agent.config import Budget, Loop, RunConfig
from neuronaut.agent.proposers.base import Proposer, Side
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.agent.session import Session
from neuronaut.evals.proposers import proposers as named_proposers
from neuronaut.evals.suite import Asking, Batch, Row
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.corpus import Corpus, Split, pocket_corpus
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.look.activations import batches
from neuronaut.tools.registry import Array, ToolContext
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.nulls import comparison_indices
from neuronaut.tools.units import Unit

Text = tuple[Split, int | None, int | None]  # split, block, tokens of the sample
Proposers = Callable[[Unit], list[Proposer]]

BATCH_TOKENS = 4096  # so that the neurons of all layers fit beside each other
NUMBERS = {"reads": ("f1", "precision", "coverage", "leaf_e"), "writes": ("delta", "delta_low", "percentile")}


@dataclass
class BatchContext(ToolContext):
    """A context that reads all its units, and those they are compared with, in one pass when the first is asked for.

    shared_forwards: forwards of these passes, which belong to no unit alone.
    """

    units: tuple[Unit, ...] = ()
    shared_forwards: float = 0.0
    _shared: dict[Text, dict[int, Array]] = field(default_factory=dict, repr=False)

    def activations(self, unit: Unit, split: Split, *, block: int | None = None, n_tokens: int | None = None) -> Array:
        """As ToolContext gives them."""
        if unit.with_sign(1) not in self.units:
            return super().activations(unit, split, block=block, n_tokens=n_tokens)
        at = int(np.searchsorted(self._wanted[unit.layer], unit.index))
        return unit.sign * self._values(split, block, n_tokens)[unit.layer][at]

    def activations_beside(
        self, unit: Unit, indices: Array, split: Split, *, block: int | None = None, n_tokens: int | None = None
    ) -> Array:
        """As ToolContext gives them."""
        wanted = self._wanted.get(unit.layer, np.array([], dtype=np.int64))
        if unit.with_sign(1) not in self.units or not np.isin(indices, wanted).all():
            return super().activations_beside(unit, indices, split, block=block, n_tokens=n_tokens)
        return unit.sign * self._values(split, block, n_tokens)[unit.layer][np.searchsorted(wanted, indices)]

    @cached_property
    def _wanted(self) -> dict[int, Array]:
        """Layer to the neurons that are read there, in rising order."""
        d_mlp = self.target.spec.d_mlp
        return {
            layer: np.union1d([u.index for u in self.units if u.layer == layer], comparison_indices(d_mlp, layer))
            for layer in sorted({unit.layer for unit in self.units})
        }

    def _values(self, split: Split, block: int | None, n_tokens: int | None) -> dict[int, Array]:
        """Layer to (n_wanted, n_windows, n_pos), sign +1, 0 at padding."""
        key = (split, block, n_tokens)
        if key not in self._shared:
            tokens = self.tokens(split, block) if n_tokens is None else self.sample(split, n_tokens)
            before = self.target.forwards
            self._shared[key] = self._read(tokens)
            self.shared_forwards += self.target.forwards - before
        return self._shared[key]

    def _read(self, tokens: Tokens) -> dict[int, Array]:
        sites = {layer: Site("neurons", layer) for layer in self._wanted}
        values = {
            layer: np.zeros((len(indices), *tokens.ids.shape), dtype=np.float32)
            for layer, indices in self._wanted.items()
        }
        for rows in batches(tokens, BATCH_TOKENS):
            width = int(tokens.lengths[rows].max(initial=1))
            ids = torch.from_numpy(np.maximum(tokens.ids[rows, :width], 0)).long()
            read = self.target.run(ids, read=list(sites.values()), stop=max(sites) + 1).read
            for layer, indices in self._wanted.items():
                chosen = read[sites[layer]][:, :, torch.from_numpy(indices)]
                values[layer][:, rows, :width] = chosen.permute(2, 0, 1).float().numpy()
        for of_layer in values.values():
            if not np.isfinite(of_layer).all():
                raise ToolFailed("activations are not finite on this text")
            of_layer[:, tokens.ids < 0] = 0.0
        return values


def ask_each(
    context: ToolContext,
    units: Sequence[Unit],
    seed: int,
    path: Path,
    *,
    proposers: Proposers | None = None,
    loop: Loop = "full",
    sides: Sequence[Side] = ("reads",),
) -> Iterator[dict[str, Any]]:
    """A row a unit, all in one notebook: its judged claims about when it fires (`claims`) and about the output (`writes`),
    those that were not tested, what was no hypothesis (`left_out`), outcomes, cost.

    proposers: whose hypotheses are tested on a unit; None is the built-in search. Where something fails, `outcome` is
    "failed" with the error beside it, and the next unit is asked.
    """
    target, corpus = context.target, context.corpus
    with Notebook(path) as notebook:
        for unit in units:
            question = f"what does neuron {unit.address} do"
            config = RunConfig(question=question, seed=seed, fast=True, loop=loop, budget=Budget())
            size = (corpus.name, corpus.sha256, corpus.n_characters)
            run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
            heard: list[tuple[str, str]] = []
            began, before, shared = monotonic(), target.forwards, _shared(context)
            failed: dict[str, Any] = {"outcome": "ok"}
            try:
                chosen: list[Proposer] = [GrammarProposer(seed=seed)] if proposers is None else proposers(unit)
                session = Session(run, config, notebook, context, chosen, lambda *line: heard.append(line))  # noqa: B023
                for side in ("reads", "writes"):
                    if side in sides:
                        (nodes.reads if side == "reads" else nodes.writes)(session, unit)
            except Exception as error:  # noqa: BLE001  whatever goes wrong with one case, the others are asked
                failed = {"outcome": "failed", "error": f"{type(error).__name__}: {error}"[:500]}
            rows = queries.hypotheses(notebook, run)
            judged = [row for row in rows if row["verdicts"]]
            mutual = _shared(context) - shared
            yield {
                **failed,
                "unit": unit.address,
                "layer": unit.layer,
                "run": run,
                "claims": [_claim(row) for row in judged if row["side"] == "reads"],
                "writes": [_claim(row) for row in judged if row["side"] == "writes"],
                "untested": [row["predicate"] for row in rows if not row["verdicts"]],
                "left_out": [line for label, line in heard if label == "left out"],
                "outcomes": [f"{row['status']} {row['reason']}" for row in queries.outcomes(notebook, run)],
                "seconds": monotonic() - began,
                "forwards": target.forwards - before - mutual,
            }


def ask_batch(
    context: BatchContext,
    units: Sequence[Unit],
    batch: Batch,
    asking: Asking,
    *,
    proposers: Proposers | None = None,
) -> Iterator[Row]:
    """The rows of `ask_each` on some units of a batch, its notebook kept in the folder of the evaluation.

    shared_forwards: a unit's part of the passes over natural text. proposers: None are those that `asking` names.
    """
    path = asking.folder / f"{batch.name}.db"
    proposers = proposers or named_proposers(asking.proposer, context, asking.seed)
    for row in ask_each(context, units, asking.seed, path, proposers=proposers, loop=asking.loop):
        yield {**row, "shared_forwards": context.shared_forwards / max(len(context.units), 1)}


@cache
def cached_target() -> TargetModel:
    """The embedded model, loaded once in a process."""
    return load_target("pocket")


@cache
def cached_corpus() -> Corpus:
    """Its text, read once in a process."""
    return pocket_corpus()


def _shared(context: ToolContext) -> float:
    return context.shared_forwards if isinstance(context, BatchContext) else 0.0


def _claim(row: dict[str, Any]) -> dict[str, Any]:
    verdict = row["verdicts"][-1]
    case = verdict["case"]
    return {
        "status": verdict["outcome"],
        "reason": verdict["reason"],
        "items": row["complexity"],
        "predicate": row["predicate"],
        "claim": row["claim"],
        **{name: case[name] for name in NUMBERS[row["side"]]},
        "bets": len(case["bets"]),
    }


def supported(row: dict[str, Any], side: Side = "reads") -> list[dict[str, Any]]:
    """The claims of a row about one side that were SUPPORTED."""
    return [claim for claim in row["claims" if side == "reads" else "writes"] if claim["status"] == "SUPPORTED"]

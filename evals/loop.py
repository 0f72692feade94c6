"""The real loop on many units of one target: what each was claimed to read, and how the claims were judged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from neuronaut.agent import nodes
from neuronaut.agent.config import Budget, RunConfig
from neuronaut.agent.proposers.base import Proposer
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.agent.session import Session
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.corpus import Split
from neuronaut.tools.look.activations import batches
from neuronaut.tools.registry import Array, ToolContext
from neuronaut.tools.targets.base import Site
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

Proposers = Callable[[Unit], list[Proposer]]

BATCH_TOKENS = 4096  # so that the neurons of all layers fit beside each other


@dataclass
class BatchContext(ToolContext):
    """A context that reads all its units in one pass when the first of them is asked for."""

    units: tuple[Unit, ...] = ()

    def activations(self, unit: Unit, split: Split, *, block: int | None = None, n_tokens: int | None = None) -> Array:
        """As ToolContext gives them."""
        key = (unit.with_sign(1), split, block, n_tokens)
        if key[0] in self.units and key not in self._activations:
            tokens = self.tokens(split, block) if n_tokens is None else self.sample(split, n_tokens)
            for one, values in zip(self.units, self._read(tokens), strict=True):
                self._activations[one, split, block, n_tokens] = values
        return super().activations(unit, split, block=block, n_tokens=n_tokens)

    def _read(self, tokens: Tokens) -> Array:
        """(n_units, n_windows, n_pos) of all units with sign +1, 0 at padding."""
        sites = [Site("neurons", unit.layer) for unit in self.units]
        values = np.zeros((len(self.units), *tokens.ids.shape), dtype=np.float32)
        for rows in batches(tokens, BATCH_TOKENS):
            width = int(tokens.lengths[rows].max(initial=1))
            ids = torch.from_numpy(np.maximum(tokens.ids[rows, :width], 0)).long()
            stop = max(unit.layer for unit in self.units) + 1
            read = self.target.run(ids, read=list(dict.fromkeys(sites)), stop=stop).read
            for number, (unit, site) in enumerate(zip(self.units, sites, strict=True)):
                values[number, rows, :width] = read[site][:, :, unit.index].float().numpy()
        values[:, tokens.ids < 0] = 0.0
        return values


def ask_each(
    context: ToolContext, units: Sequence[Unit], seed: int, path: Path, *, proposers: Proposers | None = None
) -> Iterator[dict[str, Any]]:
    """A row a unit, reads side only, all in one notebook: its judged claims, those that were not tested, outcomes, cost.

    proposers: whose hypotheses are tested on a unit; None is the built-in search.
    """
    target, corpus = context.target, context.corpus
    with Notebook(path) as notebook:
        for unit in units:
            config = RunConfig(question=f"what does neuron {unit.address} do", seed=seed, fast=True, budget=Budget())
            size = (corpus.name, corpus.sha256, corpus.n_characters)
            run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
            chosen: list[Proposer] = [GrammarProposer(seed=seed)] if proposers is None else proposers(unit)
            session = Session(run, config, notebook, context, chosen, lambda label, line: None)
            began, before = monotonic(), target.forwards
            nodes.reads(session, unit)
            rows = queries.hypotheses(notebook, run)
            yield {
                "unit": unit.address,
                "layer": unit.layer,
                "claims": [_claim(row) for row in rows if row["verdicts"]],
                "untested": [row["predicate"] for row in rows if not row["verdicts"]],
                "outcomes": [f"{row['status']} {row['reason']}" for row in queries.outcomes(notebook, run)],
                "seconds": monotonic() - began,
                "forwards": target.forwards - before,
            }


def _claim(row: dict[str, Any]) -> dict[str, Any]:
    verdict = row["verdicts"][-1]
    case = verdict["case"]
    return {
        "status": verdict["outcome"],
        "reason": verdict["reason"],
        "items": row["complexity"],
        "predicate": row["predicate"],
        "claim": row["claim"],
        **{name: case[name] for name in ("f1", "precision", "coverage", "leaf_e")},
        "bets": len(case["bets"]),
    }


def supported(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The claims of a row that were SUPPORTED."""
    return [claim for claim in row["claims"] if claim["status"] == "SUPPORTED"]

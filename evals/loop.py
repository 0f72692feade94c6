"""The real loop on many units of one target: what each was claimed to read, and how the claims were judged."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from neuronaut.agent import nodes
from neuronaut.agent.config import Budget, RunConfig
from neuronaut.agent.proposers.base import Proposer
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.agent.session import Session
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.units import Unit

Proposers = Callable[[Unit], list[Proposer]]


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

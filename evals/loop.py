"""The real loop on many units of one target: what each was claimed to read, and how the claims were judged."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from neuronaut.agent import reads, writes
from neuronaut.agent.config import Loop, RunConfig
from neuronaut.agent.cost import Cost
from neuronaut.agent.llm.base import KeyRefused
from neuronaut.agent.proposers.base import Proposer, Side
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.agent.proposers.model import model_proposer
from neuronaut.agent.session import Session
from neuronaut.evals.proposers import proposers as named_proposers
from neuronaut.evals.suite import Asking, Batch, Row, Terms
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.together import BatchContext
from neuronaut.tools.units import Unit

Proposers = Callable[[Unit], list[Proposer]]

NUMBERS = {"reads": ("f1", "precision", "coverage", "leaf_e"), "writes": ("delta", "delta_low", "percentile")}


def ask_each(
    context: ToolContext,
    units: Sequence[Unit],
    seed: int,
    path: Path,
    *,
    proposers: Proposers | None = None,
    loop: Loop = "full",
    sides: Sequence[Side] = ("reads",),
    llm: Terms | None = None,
) -> Iterator[dict[str, Any]]:
    """A row a unit, all in one notebook: its judged claims about when it fires (`claims`) and about the output (`writes`),
    those that were not tested, what was no hypothesis (`left_out`), outcomes, cost.

    proposers: whose hypotheses are tested on a unit; None is the built-in search. llm: the language model that proposes
    too, its calls kept in the same notebook, with `calls`, `tokens`, `usd` and `calls_failed` of each unit. Where something
    fails, `outcome` is "failed" with the error beside it, and the next unit is asked; a refused key ends it all.
    """
    with Notebook(path) as notebook:
        for unit in units:
            question = f"what does neuron {unit.address} do"
            config = RunConfig(question=question, seed=seed, fast=True, loop=loop)
            if llm is not None:
                asked = {"llm": llm.name, "base_url": llm.base_url, "budget": llm.budget}
                config = config.model_copy(update=asked)
            yield _answered(context, notebook, unit, config, proposers, sides)


def _answered(
    context: ToolContext,
    notebook: Notebook,
    unit: Unit,
    config: RunConfig,
    proposers: Proposers | None,
    sides: Sequence[Side],
) -> dict[str, Any]:
    """The row of one unit, which is asked in a run of its own."""
    target, corpus = context.target, context.corpus
    size = (corpus.name, corpus.sha256, corpus.n_characters)
    run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
    heard: list[tuple[str, str]] = []
    began, before, shared = monotonic(), target.forwards, _shared(context)
    failed: dict[str, Any] = {"outcome": "ok"}
    try:
        chosen: list[Proposer] = [GrammarProposer(seed=config.seed)] if proposers is None else proposers(unit)
        _ask(Session(run, config, notebook, context, chosen, lambda *line: heard.append(line)), unit, sides)
    except KeyRefused:
        raise
    except Exception as error:  # noqa: BLE001  whatever goes wrong with one case, the others are asked
        failed = {"outcome": "failed", "error": f"{type(error).__name__}: {error}"[:500]}
    rows = queries.hypotheses(notebook, run)
    judged = [row for row in rows if row["verdicts"]]
    mutual = _shared(context) - shared
    spent = {"seconds": monotonic() - began, "forwards": round(target.forwards - before - mutual, 6)}
    cost = Cost.of(notebook, run, seconds=spent["seconds"], forwards=spent["forwards"])
    notebook.end_run(run, "error" if "error" in failed else "answered", failed.get("error", ""), cost.fields)
    return {
        **failed,
        "unit": unit.address,
        "layer": unit.layer,
        "run": run,
        "claims": [_claim(row) for row in judged if row["side"] == "reads"],
        "writes": [_claim(row) for row in judged if row["side"] == "writes"],
        "untested": [row["predicate"] for row in rows if not row["verdicts"]],
        "left_out": [line for label, line in heard if label == "left out"],
        "outcomes": [f"{row['status']} {row['reason']}" for row in queries.outcomes(notebook, run)],
        **spent,
        **({} if config.llm is None else _asked(notebook, run, cost)),
    }


def _ask(session: Session, unit: Unit, sides: Sequence[Side]) -> None:
    if session.config.llm is not None:
        session.proposers.append(model_proposer(session))
    for side, answer in (("reads", reads.answer), ("writes", writes.answer)):
        if side in sides:
            answer(session, unit)


def _asked(notebook: Notebook, run: str, cost: Cost) -> dict[str, Any]:
    """What the language model was asked in a run, and how many calls brought no reply."""
    failed = sum(call["end"] is None or call["end"]["response"] is None for call in queries.calls(notebook, run))
    return {"calls": cost.llm_calls, "tokens": cost.tokens, "usd": cost.usd, "calls_failed": failed}


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
    for row in ask_each(context, units, asking.seed, path, proposers=proposers, loop=asking.loop, llm=asking.llm):
        yield {**row, "shared_forwards": round(context.shared_forwards / max(len(context.units), 1), 6)}


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

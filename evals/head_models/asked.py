"""What the assistant says of every head of a small model, and which kind of head that is."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neuronaut.agent import heads
from neuronaut.agent.config import Budget, RunConfig
from neuronaut.agent.session import Session
from neuronaut.evals.head_models.measure import Kind
from neuronaut.evals.head_models.truths import Head
from neuronaut.memory import queries
from neuronaut.memory.causes import MIN_ROLE_NATS
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.predicates.attends import Attends, attends_from_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.units import Unit

BY_KEY: dict[str, Kind] = {
    "previous": "previous",
    "induction": "induction",
    "duplicate": "duplicate",
    "first": "positional",
    "current": "successor",
}


@dataclass(frozen=True)
class Tag:
    """What was found of a head. kind: of its SUPPORTED claim, "none" where there is none that names a kind; claim, carries: in
    words; effect: the lower bound of nats by which the prediction changes without the head, None without a claim."""

    kind: Kind | str
    claim: str
    carries: str
    effect: float | None
    statuses: tuple[str, ...]


def kind_of(claim: Attends) -> Kind | str:
    """The kind of head that a claim describes.

    Of a head that writes what comes next it does not matter whether it looks at the token itself or, where another token
    asks for it, at the one before. What a head of a constructed model writes is for its MLPs alone and cannot be read
    off the vocabulary: there a head that looks at the token itself counts as one that carries what comes next, which is
    the one kind of those in question that does. A head that copies the token itself is none of them.
    """
    carries = None if claim.carries is None else claim.carries.kind
    if carries == "successor":
        return "successor"
    if claim.key.kind == "current" and (carries is not None or claim.queries is not None):
        return "none"
    return BY_KEY.get(claim.key.kind, "none")


def ask_heads(
    target: TargetModel, corpus: Corpus, asked: Collection[Head], seed: int, path: Path
) -> list[dict[str, Any]]:
    """A row for each head that is asked about, all in one notebook: the truth, and what was found (`said`)."""
    context, rows = ToolContext(target, corpus), []
    size = (corpus.name, corpus.sha256, corpus.n_characters)
    with Notebook(path) as notebook:
        for head in asked:
            unit = Unit("head", head.layer, head.head)
            config = RunConfig(question=f"what does head {unit.address} do", seed=seed, fast=True, budget=Budget())
            run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
            heads.attends(Session(run, config, notebook, context, [], lambda *_: None), unit)
            found = queries.hypotheses(notebook, run)
            notebook.end_run(run, "answered", "", {})
            rows.append(asdict(head) | {"said": asdict(_tag(found))})
    return rows


def _tag(found: list[dict[str, Any]]) -> Tag:
    """The tag from the hypotheses of a run: a kind only where the claim is SUPPORTED and removing the head changes what is
    said."""
    judged = [row for row in found if row["verdicts"]]
    statuses = tuple(row["verdicts"][-1]["outcome"] for row in judged)
    for row in judged:
        verdict = row["verdicts"][-1]
        if verdict["outcome"] == "SUPPORTED":
            claim, effect = attends_from_json(row["predicate"]), float(verdict["case"]["effect_low"])
            kind = kind_of(claim) if effect >= MIN_ROLE_NATS else "none"
            return Tag(kind, row["claim"], "" if claim.carries is None else claim.carries.kind, effect, statuses)
    return Tag("none", "", "", None, statuses)

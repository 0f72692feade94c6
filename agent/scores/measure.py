"""One score of one explanation, beside another unit's explanation and another unit, recorded as an experiment."""

import hashlib
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from neuronaut import prompts
from neuronaut.agent.llm.base import OutOfBudget
from neuronaut.agent.scores.base import Case, Explanation, Judged, Score
from neuronaut.agent.session import Session, as_stored, tools_sha256
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.tools.errors import ToolFailed, ToolRefused, UserError
from neuronaut.tools.learn.arithmetic import Estimate, Number, estimate
from neuronaut.tools.learn.subject import Subject
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolResult

Row = dict[str, Any]


@dataclass(frozen=True)
class Compared:
    """Another unit and its explanation: what the two baselines need; `refused` says why there is none."""

    subject: Subject | None = None
    explanation: Explanation | None = None
    refused: str = ""


@dataclass
class Scoring:
    """All that is the same for every score of a command. published: also count as the reference code does."""

    session: Session
    subject: Subject
    explanation: Explanation
    other: Compared
    published: bool = True
    rows: list[Row] = field(default_factory=list)

    def score(self, score: Score) -> Row:
        """The row of one score: from the notebook where it was done before, else measured and recorded.

        A refused score has no number but the reason, under `refused`. Raises OutOfBudget, and UserError where only the user
        can mend it.
        """
        notebook, run, spec = self.session.notebook, self.session.run, self._spec(score)
        started = notebook.begin_experiment(run, spec, fresh=self.session.config.again)
        if started.finished is not None:
            row: Row = started.finished["payload"]
            self.rows.append(_printed(row))
            return row
        began, forwards = time.monotonic(), self.session.context.target.forwards

        def spent() -> tuple[float, float]:
            return time.monotonic() - began, self.session.context.target.forwards - forwards

        try:
            row, measured = self._measured(score)
        except (ToolRefused, ToolFailed) as error:
            refused = isinstance(error, ToolRefused)
            notebook.end_experiment(started.id, None, error=str(error), refused=refused, spent=spent())
            row = {"score": score.name, "mode": score.mode, "refused": str(error)}
        except (OutOfBudget, UserError) as error:
            notebook.end_experiment(started.id, None, error=str(error), spent=spent())
            raise
        else:
            stored = as_stored(ToolResult(measured, row))
            subjects = [(self.explanation.text, one) for one in measured]
            notebook.end_experiment(started.id, stored, spent=spent(), evidence=subjects)
            row = stored["payload"]
        self.rows.append(_printed(row))
        return row

    def _spec(self, score: Score) -> ExperimentSpec:
        args = {
            "unit": self.subject.unit.address,
            "explanation": self.explanation.text,
            "judge": score.judge_named,
            "judge_source": score.judge_source,
            "mode": score.mode,
            "published": self.published,
            "against": None if self.other.explanation is None else self.other.explanation.text,
        }
        return ExperimentSpec(f"score_{score.name}", _source_sha256(), args, self.session.config.seed)

    def _case(self, subject: Subject, explanation: Explanation) -> Case:
        return Case(self.session.context, subject, explanation, self.session.config.seed)

    def _measured(self, score: Score) -> tuple[Row, tuple[Measurement, ...]]:
        case = self._case(self.subject, self.explanation)
        judged = score.judge(case)
        own = self._estimated(judged.documents, judged.number)
        row: Row = {
            "score": score.name, "mode": score.mode, "unit": self.subject.unit.address, "explanation": self.explanation.text,
            "source": self.explanation.source, "judge": score.judge_named, "of": score.of, "chance": score.chance,
            "splits": list(self.subject.splits), **_told(own, judged), "refused": None,
            "published": self._as_published(score, case, judged) if self.published else None,
            "shuffled": None if score.judges_unit else self._shuffled(score), "random_unit": self._random_unit(score),
            "beside": judged.beside, "notes": list(judged.notes),
            **({"items": [asdict(one) for one in judged.items]} if judged.items else {}),
        }  # fmt: skip
        return row, tuple(_measurements(row))

    def _estimated(self, documents: tuple[int, ...], number: Number) -> Estimate:
        found = estimate(documents, number, self.session.config.seed)
        if found.value != found.value:
            raise ToolRefused(
                "the number is not defined on these items: one of the two sides does not vary, or is empty"
            )
        return found

    def _as_published(self, score: Score, case: Case, judged: Judged) -> Row | None:
        if judged.published is not None:
            return _told(self._estimated(judged.documents, judged.published), judged) | {"refused": None}
        try:
            other = score.as_published(case)
            return (
                None
                if other is None
                else _told(self._estimated(other.documents, other.number), other) | {"refused": None}
            )
        except (ToolRefused, ToolFailed) as error:
            return {"refused": str(error)}

    def _shuffled(self, score: Score) -> Row:
        if self.other.explanation is None or self.other.subject is None:
            return {"refused": self.other.refused}
        about = {"explanation": self.other.explanation.text, "unit": self.other.subject.unit.address,
                 "source": self.other.explanation.source}  # fmt: skip
        return self._arm(score, self._case(self.subject, self.other.explanation)) | about

    def _random_unit(self, score: Score) -> Row:
        if self.other.subject is None:
            return {"refused": self.other.refused}
        arm = self._arm(score, self._case(self.other.subject, self.explanation))
        return arm | {"unit": self.other.subject.unit.address}

    def _arm(self, score: Score, case: Case) -> Row:
        try:
            judged = score.judge(case)
            return _told(self._estimated(judged.documents, judged.number), judged) | {"refused": None}
        except (ToolRefused, ToolFailed) as error:
            return {"refused": str(error)}


def _printed(row: Row) -> Row:
    """The row without its items, which the notebook has."""
    return {name: value for name, value in row.items() if name != "items"}


def _told(found: Estimate, judged: Judged) -> Row:
    ci = None if found.ci is None else list(found.ci)
    return {"value": found.value, "ci": ci, "documents": found.documents, "replies": asdict(judged.replies)}


def _measurements(row: Row) -> "list[Measurement]":
    shuffled, found = row["shuffled"], []
    null = None if shuffled is None or shuffled["refused"] else shuffled["value"]
    for suffix, arm in (
        ("", row),
        ("_published", row["published"]),
        ("_shuffled", shuffled),
        ("_random_unit", row["random_unit"]),
    ):
        if arm is not None and not arm["refused"]:
            ci = None if arm["ci"] is None else (arm["ci"][0], arm["ci"][1])
            own_null = null if suffix == "" else None
            found.append(
                Measurement(f"{row['score']}{suffix}", arm["value"], row["of"], arm["documents"], ci, own_null)
            )
    return found


@cache
def _source_sha256() -> str:
    """Of the tools, this package and its prompts: what decides a score beside its arguments."""
    digest = hashlib.sha256(tools_sha256().encode())
    here = resources.files(__package__ or "neuronaut.agent.scores")
    for file in sorted(here.iterdir(), key=lambda one: one.name):
        if file.name.endswith(".py"):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    for prompt in sorted(resources.files(prompts).iterdir(), key=lambda one: one.name):
        if prompt.name.startswith("score_"):
            digest.update(prompt.name.encode() + b"\0" + prompt.read_bytes())
    return digest.hexdigest()

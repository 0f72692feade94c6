"""The answer to a question as Python values: claims with verdicts, evidence, experiments, figures, cost."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from neuronaut.agent.answer import ORDER, answer_of
from neuronaut.agent.api.tables import Table, Type
from neuronaut.agent.claim_numbers import numbers_of
from neuronaut.agent.cost import Cost
from neuronaut.agent.render import text_of
from neuronaut.agent.unlike import UNLIKE, unlike
from neuronaut.agent.view import visible
from neuronaut.memory import queries
from neuronaut.memory.cases import HOLDS
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.errors import UserError
from neuronaut.tools.figures import Figure

if TYPE_CHECKING:
    import pandas
    import polars

    from neuronaut.memory.review.plots import Plot

Kind = Literal["claims", "evidence", "experiments"]
METRIC = {"reads": "f1", "writes": "delta", "attends": "share", "role": "delta", "circuit": "sufficiency"}
CLAIMS: dict[str, Type] = {
    "id": "text", "unit": "text", "side": "text", "status": "text", "sentence": "text", "metric": "text", "value": "float",
    "low": "float", "high": "float", "null": "float", "n": "int", "measured_in": "text", "e": "float",
    "edited_documents": "int", "best_rival": "text", "best_rival_score": "float", "complexity": "int", "author": "text",
    "reason": "text", "run": "text",
}  # fmt: skip
SHOWN_CLAIMS = ("status", "unit", "side", "sentence", "metric", "value", "low", "high", "null", "e", "reason")
EVIDENCE: dict[str, Type] = {
    "id": "text", "experiment": "text", "tool": "text", "metric": "text", "value": "float", "low": "float", "high": "float",
    "null": "float", "percentile": "float", "n": "int", "measured_in": "text", "subject": "text",
}  # fmt: skip
SHOWN_EVIDENCE = ("id", "tool", "metric", "value", "low", "high", "null", "n", "measured_in")
EXPERIMENTS: dict[str, Type] = {
    "id": "text", "tool": "text", "outcome": "text", "seconds": "float", "forwards": "float", "figures": "int", "args": "text",
    "error": "text",
}  # fmt: skip
SHOWN_EXPERIMENTS = ("id", "tool", "outcome", "seconds", "forwards", "error")


class Score(NamedTuple):
    """The number by which claims of a side are compared. null: the same of other units; None is what was not measured."""

    metric: str
    value: float
    interval: tuple[float, float] | None
    null: float | None
    n: int | None
    measured_in: str

    def __str__(self) -> str:
        interval = f" [{self.interval[0]:.2f}, {self.interval[1]:.2f}]" if self.interval else ""
        null = f", null {self.null:.2f}" if self.null is not None else ""
        return f"{self.metric} {self.value:.2f}{interval}{null}"


class RivalScore(NamedTuple):
    """Another explanation of the same unit, on the same text."""

    sentence: str
    score: float
    complexity: int
    status: str


@dataclass(frozen=True, repr=False)
class Claim:
    """One hypothesis with its verdict. `json` is the claim as `neuronaut ask --json` prints it; evidence: its rows."""

    json: dict[str, Any] = field(hash=False)
    evidence: Table = field(hash=False, compare=False)
    run: str = ""

    @property
    def id(self) -> str:
        """The id of the hypothesis, the same in SQL, terminal and pages."""
        return str(self.json["id"])

    @property
    def status(self) -> str:
        """SUPPORTED, PARTIAL, UNRESOLVED or REFUTED."""
        return str(self.json["status"])

    @property
    def side(self) -> str:
        """reads, writes, attends, role or circuit."""
        return str(self.json["side"])

    @property
    def unit(self) -> str:
        """The address of the unit; 8.481- is the downward side of 8.481."""
        return str(self.json["unit"])

    @property
    def sentence(self) -> str:
        """What is claimed, in words."""
        return str(self.json["claim"])

    @property
    def reason(self) -> str:
        """Why the verdict is what it is."""
        return str(self.json["reason"])

    @property
    def author(self) -> str:
        """Who proposed it."""
        return str(self.json["author"])

    @property
    def holds_wholly(self) -> bool:
        """Whether all conditions of the verdict rule hold."""
        return self.reason == HOLDS

    @property
    def score(self) -> Score | None:
        """F1, nats, share or sufficiency, by side; None where it was not measured."""
        metric = METRIC[self.side]
        units = {row["metric"]: row["measured_in"] for row in self.evidence}
        if found := self.json["scores"].get(metric):
            low_high = None if found["ci"] is None else (found["ci"][0], found["ci"][1])
            return Score(metric, found["value"], low_high, found["null"], found["n"], units.get(metric, ""))
        value = self.json["numbers"].get(metric)
        return None if value is None else Score(metric, float(value), None, None, None, "")

    @property
    def numbers(self) -> str:
        """Its numbers in one line, as the terminal prints them."""
        return numbers_of(self.json)

    @property
    def rivals(self) -> tuple[RivalScore, ...]:
        """The explanations that it was tested against, the best first."""
        found = [RivalScore(r["claim"], r["f1"], r["complexity"], r["status"]) for r in self.json["rivals"]]
        return tuple(sorted(found, key=lambda rival: -rival.score))

    @property
    def rivals_table(self) -> Table:
        """The rivals as a table."""
        columns: dict[str, Type] = {"status": "text", "score": "float", "complexity": "int", "sentence": "text"}
        return Table(columns, tuple(rival._asdict() for rival in self.rivals), "rivals")

    @property
    def predicate(self) -> str:
        """The condition that a computer checks, as `lab.ask(f"test {claim.unit}: {claim.predicate}")` takes it."""
        from neuronaut.tools.predicates.text import readable
        from neuronaut.tools.predicates.tree import predicate_from_json

        return readable(predicate_from_json(self.json["predicate"]))

    @property
    def row(self) -> dict[str, Any]:
        """The claim as one row of a table."""
        score, best, pairs = self.score, next(iter(self.rivals), None), self.json["pairs"]
        low, high = (None, None) if score is None or score.interval is None else score.interval
        of_score = dict.fromkeys(("metric", "value", "null", "n", "measured_in"))
        if score is not None:
            of_score = {name: value for name, value in score._asdict().items() if name != "interval"}
        return {
            "id": self.id, "unit": self.unit, "side": self.side, "status": self.status, "sentence": self.sentence, **of_score,
            "low": low, "high": high, "e": pairs["e"], "edited_documents": pairs["documents"],
            "best_rival": best and best.sentence, "best_rival_score": best and best.score,
            "complexity": self.json["complexity"], "author": self.author, "reason": self.reason, "run": self.run,
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.status}  {visible(self.unit)} {visible(self.sentence)}", f"  {self.numbers}"]
        return "\n".join(lines if self.holds_wholly else [*lines, f"  {visible(self.reason)}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from neuronaut.agent.api.html import claim_html

        return claim_html(self)


def claims_of(answer: dict[str, Any], evidence: Table) -> tuple[Claim, ...]:
    """The claims of an answer, what held first, the best of equals first."""
    found = []
    for one in answer["claims"]:
        cited = tuple(row for row in evidence if row["id"] in one["evidence"])
        found.append(Claim(one, Table(EVIDENCE, cited, "evidence", SHOWN_EVIDENCE), answer["run"]))
    return tuple(
        sorted(found, key=lambda claim: (ORDER.index(claim.status), -(claim.score.value if claim.score else 0.0)))
    )


@dataclass(frozen=True, repr=False)
class Answer:
    """What a run found. `json` is what `neuronaut ask --json` prints; `print(answer)` is what the terminal shows."""

    json: dict[str, Any] = field(hash=False)
    evidence: Table = field(hash=False, compare=False)
    experiments: Table = field(hash=False, compare=False)
    figures: tuple[Figure, ...] = field(default=(), hash=False, compare=False)

    @classmethod
    def read(cls, notebook: Notebook, run: str) -> Self:
        """The answer of a run, as the notebook has it. Refuses one whose results have another form than tools give."""
        with notebook.snapshot():
            try:
                answer, done = answer_of(notebook, run), queries.experiments(notebook, run)
            except UNLIKE as error:
                raise UserError(f"{unlike(run)}: `neuronaut show {run} --raw` has its rows") from error
            drawn = [_figure(notebook, figure) for figure in answer["figures"]]
        evidence = Table(
            EVIDENCE, tuple(_evidence(e, v) for e in done for v in e["evidence"]), "evidence", SHOWN_EVIDENCE
        )
        experiments = Table(EXPERIMENTS, tuple(map(_experiment, done)), "experiments", SHOWN_EXPERIMENTS)
        return cls(answer, evidence, experiments, tuple(drawn))

    @property
    def run(self) -> str:
        """The id of the run: `lab.show(run)`, `neuronaut show RUN`."""
        return str(self.json["run"])

    @property
    def question(self) -> str:
        """What was asked."""
        return str(self.json["question"])

    @property
    def model(self) -> str:
        """What was studied."""
        return str(self.json["target"]["name"])

    @property
    def outcome(self) -> str:
        """answered, out_of_budget, cancelled, gave_up, error, or unfinished."""
        return str(self.json["outcome"])

    @property
    def cost(self) -> Cost | None:
        """Seconds, forward passes, calls of a language model and what they cost; None before the run has ended."""
        return None if self.json["cost"] is None else Cost(**self.json["cost"])

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """Every claim with a verdict, REFUTED ones included: what held first."""
        return claims_of(self.json, self.evidence)

    @property
    def best(self) -> Claim | None:
        """The first of the claims; None where none was tested."""
        return next(iter(self.claims), None)

    def table(self, of: Kind = "claims") -> Table:
        """Claims, evidence or experiments, one row each."""
        if of == "claims":
            return Table(CLAIMS, tuple(claim.row for claim in self.claims), "claims", SHOWN_CLAIMS)
        return self.evidence if of == "evidence" else self.experiments

    def to_pandas(self, of: Kind = "claims") -> "pandas.DataFrame":
        """Claims, evidence or experiments as a pandas frame, one row each."""
        return self.table(of).to_pandas()

    def to_polars(self, of: Kind = "claims") -> "polars.DataFrame":
        """Claims, evidence or experiments as a polars frame, one row each."""
        return self.table(of).to_polars()

    def plot(self) -> "Plot":
        """The score of each claim with its interval, beside the null and its best rival, as a Plotly figure."""
        from neuronaut.memory.review.plots import score_plot

        return score_plot(self.question, [claim.row for claim in self.claims])

    def __str__(self) -> str:
        return text_of(self.json)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from neuronaut.agent.api.html import answer_html

        return answer_html(self)


def _figure(notebook: Notebook, kept: dict[str, Any]) -> Figure:
    plotly = queries.artifact(notebook, kept["plotly"]) if kept.get("plotly") else None
    svg = queries.artifact(notebook, kept["svg"]).decode()
    return Figure(str(kept["name"]), None if plotly is None else json.loads(plotly), svg)


def _evidence(experiment: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"], "experiment": experiment["id"], "tool": experiment["tool"], "metric": row["metric"],
        "value": row["value"], "low": row["ci_low"], "high": row["ci_high"], "null": row["null_value"],
        "percentile": row["null_percentile"], "n": row["n"], "measured_in": row["unit_of_measure"], "subject": row["subject"],
    }  # fmt: skip


def _experiment(row: dict[str, Any]) -> dict[str, Any]:
    end = row["end"] or {"outcome": "unfinished", "seconds": None, "forwards": None, "error": None}
    return {
        "id": row["id"], "tool": row["tool"], "args": json.dumps(row["args"], ensure_ascii=False),
        "figures": len(row.get("result", {}).get("figures", [])),
        **{name: end[name] for name in ("outcome", "seconds", "forwards", "error")},
    }  # fmt: skip

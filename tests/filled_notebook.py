"""A notebook that is filled by hand: what its exports should hold is known."""

from pathlib import Path
from typing import Any

from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.judge import Decision, ReadsCase, Rival
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.targets.base import Fingerprint
from neuronaut.tools.units import Unit

FINGERPRINT = Fingerprint("m", "w" * 64, "t" * 64, "float32", "b", "1", "{}")
CORPUS = ("texts", "c" * 64, 1000)


class Book:
    """A notebook that is filled by hand: runs with claims, verdicts and outcomes, and a batch with null units."""

    def __init__(self, path: Path) -> None:
        self.path, self.notebook = path, Notebook(path)

    def run(self, question: str = "what", *, ended: bool = True, seed: int = 0) -> str:
        run = self.notebook.start_run({"question": question, "seed": seed, "api": "sk-canary"}, FINGERPRINT, CORPUS)
        if ended:
            self.notebook.end_run(run, "answered", "", {"forwards": 12.5, "seconds": 3.25, "usd": 0.25})
        return run

    def claim(
        self, run: str, address: str, claim: str, *, status: Any = "SUPPORTED", f1: float = 0.9, **row: Any
    ) -> str:
        book, predicate = self.notebook, row.pop("predicate", "token(' a')")
        given_row = {"side": "reads", "claim": claim, "predicate": canonical_json(parse_text(predicate)), "complexity": 2,
                     "author": "grammar", **row}  # fmt: skip
        hypothesis = book.add_hypothesis(run, Unit.parse(address), given_row)
        if status is None:
            return hypothesis
        made = {
            "metric": "f1",
            "comparator": ">",
            "threshold": 0.0,
            "baseline": "",
            "split": "confirm/0",
            "payload": {"h": hypothesis},
        }
        prediction = book.register(hypothesis, made)
        spec = ExperimentSpec("test_reads", "0" * 64, {"unit": address, "h": hypothesis})
        begun = book.begin_experiment(run, spec, prediction=prediction)
        numbers = {"f1": f1, "precision": 0.8, "coverage": 0.7, "base_rate": 0.01, "ap": 0.5, "r": 0.4, "e": 1e5}
        measured = [
            (
                claim,
                Measurement(
                    name, value, "share", 321, (value - 0.1, value + 0.05) if name == "f1" else None, 0.0, 97.0
                ),
            )
            for name, value in numbers.items()
        ]
        left = {"unexplained": {"share": 0.25, "tokens": [" b"]}}
        evidence = book.end_experiment(begun.id, {"payload": left, "measurements": []}, evidence=measured)
        common = {"complexity": 1, "agreement": 0.2, "difference_high": 0.9, "lacked_leaf_e": None}
        rivals = (
            Rival(claim="beaten", f1=0.3, difference=0.6, difference_low=0.5, **common),
            Rival(claim="as good", f1=0.88, difference=0.0, difference_low=-0.1, **common),
        )
        case = ReadsCase(
            complexity=2, n_claims=1, places=50, precision=0.8, precision_low=0.7, coverage=0.7, coverage_low=0.6, f1=f1,
            base_rate=0.01, ap=0.5, ap_null=0.0, r_low=0.3, dense=False, graded=False, bets=(1.0,) * 17, leaf_e={},
            rarer_half_precision=None, modes=(), rivals=rivals,
        )  # fmt: skip
        book.verdict(prediction, case, Decision(status, "said why", 1e5 if status == "SUPPORTED" else 0.0), evidence)
        return hypothesis

    def looked(self, run: str, address: str, pieces: list[str], values: list[float]) -> None:
        begun = self.begin(run, "top_examples", {"unit": address, "k": 3, "band": "top", "context": 12, "seed": 0})
        example = {"document": 3, "pieces": pieces, "activations": values, "centre": 1, "activation": max(values)}
        self.notebook.end_experiment(
            begun.id, {"payload": {"unit": address, "examples": [example]}, "measurements": []}
        )

    def begin(self, run: str, tool: str, args: dict[str, Any]) -> Any:
        return self.notebook.begin_experiment(run, ExperimentSpec(tool, "0" * 64, args))

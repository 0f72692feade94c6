"""A small notebook made through the public methods; run as a script it writes `notebook-schema-N.db` beside itself.

Each released schema keeps its file: this script is run once for it, before the release, and the file is never changed.
"""

import sqlite3
from pathlib import Path
from typing import Any

from neuronaut.memory.evaluations import EvaluationKey, Evaluations
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.judge import ReadsCase, decide
from neuronaut.memory.migrations import MIGRATIONS
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.targets.base import Fingerprint
from neuronaut.tools.units import Unit

TARGET = Fingerprint("tiny", "w" * 64, "t" * 64, "float32", "torch", "2", "plain")
CORPUS = ("texts", "c" * 64, 1000)
CONFIG = {"question": "what does neuron 1.7 do", "seed": 0}
UNIT = Unit("neuron", 1, 7)
HEAD_FILE = "notebook-schema-{}.head"


def start(notebook: Notebook, config: dict[str, Any] = CONFIG) -> str:
    """A new run."""
    return notebook.start_run(config, TARGET, CORPUS)


def claim(notebook: Notebook, run: str, name: str, *, unit: Unit = UNIT) -> str:
    """A proposed hypothesis `fires on "NAME"`."""
    row = {"side": "reads", "claim": f'fires on "{name}"', "predicate": f'{{"kind":"token","any_of":["{name}"]}}'}
    return notebook.add_hypothesis(run, unit, {**row, "complexity": 1, "author": "grammar"})


def case_of(f1: float, bets: tuple[float, ...]) -> ReadsCase:
    """A case that is SUPPORTED for many won bets and REFUTED for many lost ones."""
    return ReadsCase(
        complexity=1, n_claims=1, places=80, precision=0.9, precision_low=0.8, coverage=0.9, coverage_low=0.8, f1=f1,
        base_rate=0.01, ap=0.9, ap_null=0.1, r_low=0.5, dense=False, graded=False, bets=bets,
    )  # fmt: skip


def judged(notebook: Notebook, run: str, hypothesis: str, case: ReadsCase, *, unit: Unit = UNIT) -> dict[str, str]:
    """The ids of a prediction, its experiment, one evidence and the verdict; the test opens a block of confirm text."""
    block = notebook.open_block(run, unit, "reads")
    row = {"metric": "f1", "comparator": ">", "threshold": 0, "baseline": "rivals", "split": f"confirm/{block}"}
    prediction = notebook.register(hypothesis, {**row, "payload": {"claim": hypothesis}})
    spec = ExperimentSpec("test_reads", "s" * 64, {"unit": unit.address, "block": block, "claim": hypothesis})
    started = notebook.begin_experiment(run, spec, prediction=prediction)
    payload = {"places": case.places, "ap_null": case.ap_null, "pairs": {"bets": list(case.bets)}}
    measured = [("claim", Measurement("f1", case.f1, "share", 40, (case.f1 - 0.1, case.f1 + 0.05), 0.1, 99.0))]
    stored = {"payload": payload, "measurements": []}
    evidence = notebook.end_experiment(started.id, stored, spent=(1, 2), evidence=measured)
    verdict = notebook.verdict(prediction, case, decide(case), evidence)
    return {"prediction": prediction, "experiment": started.id, "evidence": evidence[0], "verdict": verdict}


def fill(path: Place | Path) -> dict[str, str]:
    """The ids of what stands in a notebook with one answered run: a SUPPORTED and a REFUTED claim, a call and a batch of one, a
    failure, two items that wait; and an evaluation with one row."""
    with Evaluations(path) as benchmark:
        evaluation = benchmark.begin(EvaluationKey("planted", 0, "grammar", "full", "c" * 64), {"commit": None}).id
        benchmark.add(evaluation, {"case": "1.7", "family": "bigram", "outcome": "ok", "truth_f1": 0.5})
    with Notebook(path) as notebook:
        run = start(notebook)
        supported = claim(notebook, run, "cat")
        ids = judged(notebook, run, supported, case_of(0.9, (1.0,) * 20))
        refuted = claim(notebook, run, "dog")
        judged(notebook, run, refuted, case_of(0.2, (-1.0,) * 20))
        claim(notebook, run, "mouse")
        failed = notebook.begin_experiment(run, ExperimentSpec("look", "s" * 64, {"unit": "1.7"}))
        notebook.end_experiment(failed.id, None, error="the model gave no number")
        notebook.outcome(run, Unit("neuron", 1, 7, -1), "reads", "ABSTAINED", "too rare here")
        request = {
            "purpose": "propose",
            "provider": "scripted",
            "model": "m",
            "request": "{}",
            "request_sha256": "r" * 64,
        }
        call = notebook.begin_call(run, request)
        notebook.end_call(
            call, {"response": "{}", "answered_by": "m", "stop_reason": "stop", "seconds": 1, "usd_micro": 5}
        )
        waiting = {**request, "request_sha256": "q" * 64, "about": "1.7"}
        batch, items = notebook.begin_batch(run, {"provider": "scripted", "model": "m", "source": "s"}, [waiting])
        notebook.sent_batch(batch, "batch_1")
        said = {"response": "", "calls": '[{"id":"1","name":"look","arguments":"{}"}]', "seconds": 60}
        said |= {"answered_by": "m", "stop_reason": "tool_use", "tokens_in": 9, "tokens_written": 4}
        notebook.end_batch(batch, "ended", "", {items[0]: said})
        notebook.add_items(run, [("1.7", None, "1"), ("1.8", "shuffled", "1")])
        notebook.end_run(run, "answered", "", {"seconds": 3.0, "forwards": 12.0})
        return {
            "run": run,
            "supported": supported,
            "refuted": refuted,
            "failed": failed.id,
            "call": call,
            "batch": batch,
            "evaluation": evaluation,
            **ids,
        }


def main() -> None:
    """Write the notebook of the newest schema, as one file, and its head."""
    number = MIGRATIONS["sqlite"][-1][0]
    path = Path(__file__).with_name(f"notebook-schema-{number}.db")
    path.unlink(missing_ok=True)
    fill(path)
    with Notebook(path) as notebook:
        path.with_name(HEAD_FILE.format(number)).write_text(notebook.head() + "\n", encoding="utf-8")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()


if __name__ == "__main__":
    main()

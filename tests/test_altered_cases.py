"""Every number that a verdict rests on is compared with what was measured: one that was altered is named."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from neuronaut.agent.circuits import circuit_case
from neuronaut.agent.heads import attends_case, role_case
from neuronaut.agent.session import Done
from neuronaut.memory import ledger, schema
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.judge import Case, decide
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place
from neuronaut.memory.science import Rows, verdict_problems
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.predicates.attends import Attends, Copies, Previous
from neuronaut.tools.targets.base import Fingerprint
from neuronaut.tools.units import Unit

BETS = [1.0] * 25
CLAIM = Attends(key=Previous(), carries=Copies())
UNITS = {"attends": Unit("head", 1, 0), "role": Unit("head", 1, 0), "circuit": Unit.of_task("months")}
RIVAL = {
    "claim": "attends to the same token",
    "complexity": 1,
    "share": 0.1,
    "agreement": 0.2,
    "apart_e": 50.0,
    "against_e": 0.1,
}
PAYLOADS: dict[str, dict[str, Any]] = {
    "attends": {
        "complexity": 2, "queries": 90, "share": 0.9, "share_low": 0.8, "by_chance": 0.1, "off_first": 0.9, "off_first_low": 0.8,
        "covers": 0.7, "bets": BETS, "effect_low": 0.1, "synthetic_low": 0.9, "carried_low": 0.7, "rivals": [RIVAL],
    },
    "role": {"complexity": 2, "delta_low": 0.3, "elsewhere_low": 0.0, "elsewhere_high": 0.02, "bets": BETS},
    "circuit": {
        "members": ["L0H0", "mlp3"], "size": 2, "nodes": 50, "accuracy": 0.97, "gap_low": 3.0, "sufficiency": 0.93,
        "sufficiency_low": 0.85, "percentile": 100.0, "necessity": 0.05, "necessity_high": 0.1,
        "minimality": {"L0H0": 0.001, "mlp3": 0.02}, "harm": 0.01, "harm_high": 0.02, "bets": BETS,
    },
}  # fmt: skip
MEASURED = {
    "attends": (
        Measurement("share", 0.9, "share", 25, None, 0.2, 99.0), Measurement("off_first", 0.9, "share", 25),
        Measurement("effect", 0.2, "nats", 25),
    ),
    "role": (Measurement("delta", 0.4, "nats", 25, None, 0.0, 99.0), Measurement("elsewhere", 0.01, "nats", 25)),
    "circuit": (Measurement("sufficiency", 0.93, "share", 25, None, 0.4, 100.0), Measurement("harm", 0.01, "nats", 24)),
}  # fmt: skip


def _case(side: str, done: Done) -> Case:
    match side:
        case "attends":
            return attends_case(done, 1)
        case "role":
            return role_case(done, 1)
        case _:
            return circuit_case(done, 1)


def _judged(place: Place, side: str) -> tuple[Notebook, Rows]:
    """A notebook with one SUPPORTED claim of a side, and the rows that its verdict is checked by."""
    notebook, unit, payload, found = Notebook(place), UNITS[side], PAYLOADS[side], MEASURED[side]
    target = Fingerprint("tiny", "w" * 64, "t" * 64, "float32", "torch", "2", "plain")
    run = notebook.start_run({"question": "?", "seed": 0}, target, ("texts", "c" * 64, 1000))
    fields = {"side": side, "claim": "holds", "predicate": '{"kind":"any"}', "complexity": 2, "author": "a test"}
    hypothesis = notebook.add_hypothesis(run, unit, fields)
    block = notebook.open_block(run, unit, side)
    foreseen = {
        "metric": found[0].metric,
        "comparator": ">=",
        "threshold": 0,
        "baseline": "",
        "split": f"confirm/{block}",
    }
    prediction = notebook.register(hypothesis, {**foreseen, "payload": {}})
    spec = ExperimentSpec(f"test_{side}", "s" * 64, {"unit": unit.address, "block": block})
    started = notebook.begin_experiment(run, spec, prediction=prediction)
    stored = json.loads(ledger.canonical({"payload": payload, "measurements": []}))
    evidence = notebook.end_experiment(started.id, stored, evidence=[("holds", one) for one in found])
    case = _case(side, Done(started.id, stored["payload"], {one.metric: one for one in found}, evidence))
    assert decide(case).status == "SUPPORTED"
    notebook.verdict(prediction, case, decide(case), evidence)
    tables = (
        "prediction",
        "hypothesis",
        "experiment_end",
        "evidence",
        "verdict",
        "verdict_evidence",
        "hypothesis_status",
    )
    rows: Rows = {}
    for table in tables:
        listed = notebook.rows(sa.select(getattr(schema, table)))
        rows[table] = {str(row.get("id", number)): dict(row) for number, row in enumerate(listed)}
    return notebook, rows


def _altered(value: Any) -> Any:
    match value:
        case dict():
            return {**value, next(iter(value)): _altered(next(iter(value.values())))}
        case list():
            return [_altered(value[0]), *value[1:]]
        case str():
            return value + "s"
        case _:
            return value / 2 + 0.001


@pytest.mark.parametrize("side", PAYLOADS)
def test_every_altered_number_of_a_case_is_named(place: Place, side: str) -> None:
    notebook, rows = _judged(place, side)
    with notebook:
        assert verdict_problems(notebook, rows) == []
        (key,) = rows["verdict"]
        case = json.loads(rows["verdict"][key]["case"])
        for name in case.keys() - {"side", "n_claims", "rivals"}:
            changed = case | {name: _altered(case[name])}
            rows["verdict"][key]["case"] = json.dumps(changed)
            problems = verdict_problems(notebook, rows)
            assert any(f"verdict {key} rests on {name} " in problem for problem in problems), (name, problems)
        if case.get("rivals"):
            rows["verdict"][key]["case"] = json.dumps(case | {"rivals": [{**case["rivals"][0], "apart_e": 51.0}]})
            assert any("rests on rivals" in problem for problem in verdict_problems(notebook, rows))
            rows["verdict"][key]["case"] = json.dumps(case | {"rivals": []})
            assert any("rests on rivals" in problem for problem in verdict_problems(notebook, rows))


def test_a_condition_that_was_taken_out_of_a_case_is_named(place: Place) -> None:
    notebook, rows = _judged(place, "attends")
    with notebook:
        (key,) = rows["verdict"]
        case = json.loads(rows["verdict"][key]["case"])
        for name in ("synthetic_low", "carried_low"):
            rows["verdict"][key]["case"] = json.dumps(case | {name: None})
            assert any(f"rests on {name} null" in problem for problem in verdict_problems(notebook, rows))


def test_an_altered_e_value_of_a_verdict_is_named(place: Place) -> None:
    notebook, rows = _judged(place, "role")
    with notebook:
        (key,) = rows["verdict"]
        rows["verdict"][key]["e"] *= 1000
        assert any(f"verdict {key} has the e-value" in problem for problem in verdict_problems(notebook, rows))

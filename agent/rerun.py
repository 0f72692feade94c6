"""Measure again what a run or an experiment measured, and compare."""

import json
import math
import time
from collections.abc import Iterator
from typing import Any

from neuronaut.agent.config import RunConfig
from neuronaut.agent.cost import Cost
from neuronaut.agent.dictionaries import changed_dictionaries, weights_used
from neuronaut.agent.opening import open_inputs
from neuronaut.agent.registered import changed_registered, hashes_used, opened
from neuronaut.agent.session import stored_in, tools_sha256
from neuronaut.agent.view import print_json, steps_on_stderr, visible
from neuronaut.memory import queries
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.memory.provenance import PACKAGES, version
from neuronaut.memory.store import check_writable
from neuronaut.tools.errors import ToolFailed, ToolRefused, UserError
from neuronaut.tools.registry import ToolContext, find_tool

TOLERANCE = 1e-4  # relative: float32 sums in another order differ by about 1e-6, thresholds rarely flip
SMALLEST = 1e-6  # numbers below it are compared as parts of it: their last digits are noise


def rerun(identifier: str, path: Place | None, *, as_json: bool) -> int:
    """New experiments beside the old ones; 1 if a number of a result differs by more than the tolerance, or a text at all."""
    path = path or default_place()
    run, done = chosen(identifier, path)
    check_writable(path)
    with Notebook(path) as notebook:
        config, say = RunConfig.model_validate(run["config"]), steps_on_stderr()
        target, corpus = open_inputs(config, say)
        found = repeated(notebook, identifier, run, done, ToolContext(target, corpus, registered=opened(config)))
    rows, changed = found["repeats"], found["changed_inputs"]
    different = [row for row in rows if row["outcome"] == "different"]
    if as_json:
        print_json(found)
    else:
        for result in rows:
            print(f"{result['outcome']:<17} {result['tool']:<18} {result['experiment']}  {visible(result['detail'])}")
        print(f"changed inputs: {', '.join(changed) or 'none'}")
    return 1 if different else 0


def repeated(
    notebook: Notebook, identifier: str, run: dict[str, Any], done: list[dict[str, Any]], context: ToolContext
) -> dict[str, Any]:
    """A new run that does some experiments of a run again: each with what became of its numbers, and which inputs changed."""
    config, target, corpus = RunConfig.model_validate(run["config"]), context.target, context.corpus
    if other := [*changed_dictionaries(config, target), *changed_registered(config)]:
        raise UserError(
            f"run {run['id']} cannot be repeated: its {' and '.join(other)} changed since; ask the question again"
        )
    changed = _changed_inputs(run, target, corpus, done)
    size = (corpus.name, corpus.sha256, corpus.n_characters)
    again = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size, parent=run["id"])
    began, forwards = time.monotonic(), target.forwards

    def end(outcome: str, reason: str) -> None:
        cost = Cost.of(notebook, again, seconds=time.monotonic() - began, forwards=target.forwards - forwards)
        notebook.end_run(again, outcome, reason, cost.fields)

    try:
        rows = [_repeat(notebook, again, e, context) for e in done]
    except KeyboardInterrupt:
        end("cancelled", f"rerun of {identifier}, interrupted")
        raise
    end("answered", f"rerun of {identifier}")
    return {"run": again, "repeats": rows, "changed_inputs": changed, "ledger_head": notebook.head()}


def chosen(identifier: str, path: Place) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The run of an id, and its experiments with a result. Refuses an id of anything else, and one without results."""
    with Notebook(path, read_only=True) as notebook:
        table, row = queries.find(notebook, identifier)
        if table not in ("run", "experiment"):
            raise UserError(f"{identifier} is a {table}: only runs and experiments can be run again")
        run = queries.find_run(notebook, identifier if table == "run" else row["run"])
        experiments = [e for e in queries.experiments(notebook, run["id"]) if identifier in (run["id"], e["id"])]
    done = [e for e in experiments if e["end"] and e["end"]["outcome"] == "ok"]
    if not done:
        raise UserError(f"{table} {identifier} has no result that could be compared: ask the question again")
    if any(e["tool"].startswith("score_") for e in done):
        raise UserError(f"{table} {identifier} holds scores: repeat them with `neuronaut score … --again`")
    return run, done


def _changed_inputs(run: dict[str, Any], target: Any, corpus: Any, experiments: list[dict[str, Any]]) -> list[str]:
    now, then = target.fingerprint(), run["target"]
    names = ("weights_sha256", "tokenizer_sha256", "dtype", "backend", "backend_version", "processing")
    changed = [name for name in names if getattr(now, name) != then[name]]
    if corpus.sha256 != run["corpus"]["sha256"]:
        changed.append("corpus")
    if any(e["tool_sha256"] != tools_sha256() for e in experiments):
        changed.append("tool source")
    then_installed = json.loads(run["packages"])
    changed += [f"{name} {then_installed.get(name)}" for name in PACKAGES if then_installed.get(name) != version(name)]
    return changed


def _repeat(notebook: Notebook, run: str, old: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    tool = find_tool(old["tool"])
    used = weights_used(old["args"], context.target) | hashes_used(old["args"], context.registered)
    spec = ExperimentSpec(old["tool"], tools_sha256(), old["args"], old["seed"], used)
    started = notebook.begin_experiment(run, spec, repeat_of=old["id"], fresh=True)
    report = {"experiment": old["id"], "repeat": started.id, "tool": old["tool"]}
    began, forwards = time.monotonic(), context.target.forwards
    try:
        result = tool.run(context, tool.parse(old["args"]))
        stored = stored_in(notebook, result)
    except (ToolRefused, ToolFailed) as error:
        notebook.end_experiment(started.id, None, error=str(error), refused=isinstance(error, ToolRefused))
        return {**report, "outcome": "different", "detail": str(error)}
    spent = (time.monotonic() - began, context.target.forwards - forwards)
    notebook.end_experiment(started.id, stored, spent=spent, evidence=[("", m) for m in result.measurements])
    worst, gap = _widest_gap(old["result"], stored)
    if gap == 0:
        return {**report, "outcome": "identical", "detail": ""}
    outcome = "within tolerance" if gap <= TOLERANCE else "different"
    return {**report, "outcome": outcome, "detail": f"{worst} by {gap:.2g} (relative)" if gap < 1 else worst}


def _widest_gap(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, float]:
    """Where two results differ most, and by how much: relative for numbers, infinite for anything else.

    Figures are left out: they show numbers of the result, to their last digit.
    """
    then, again = (dict(_leaves({**one, "figures": None})) for one in (before, now))
    gaps = {place: _gap(then.get(place), again.get(place)) for place in then | again}
    return max(gaps.items(), key=lambda found: found[1], default=("", 0.0))


def _gap(before: Any, now: Any) -> float:
    if before == now:
        return 0.0
    if isinstance(before, (int, float)) and isinstance(now, (int, float)):
        return abs(now - before) / max(SMALLEST, abs(before))
    return math.inf


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and text of a result with its place, such as `measurements f1 value`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place} {key}".strip())
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            name = inner.get("metric", at) if isinstance(inner, dict) else at
            yield from _leaves(inner, f"{place} {name}".strip())
    else:
        yield place, value

"""Measure again what a run or an experiment measured, and compare."""

from pathlib import Path
from typing import Any

from neuronaut.agent.config import RunConfig
from neuronaut.agent.runs import open_inputs
from neuronaut.agent.session import tools_sha256
from neuronaut.agent.view import print_json, steps_on_stderr, visible
from neuronaut.memory import queries
from neuronaut.memory.notebook import ExperimentSpec, Notebook
from neuronaut.memory.store import default_path
from neuronaut.tools.errors import ToolFailed, ToolRefused, UserError
from neuronaut.tools.registry import ToolContext, find_tool

TOLERANCE = 1e-4  # relative: float32 sums in another order differ by about 1e-6, thresholds rarely flip


def rerun(identifier: str, path: Path | None, *, as_json: bool) -> int:
    """New experiments beside the old ones; 1 if a metric differs by more than its tolerance."""
    with Notebook(path or default_path()) as notebook:
        table, row = queries.find(notebook, identifier)
        if table not in ("run", "experiment"):
            raise UserError(f"{identifier} is a {table}: only runs and experiments can be run again")
        run = queries.find_run(notebook, identifier if table == "run" else row["run"])
        experiments = [e for e in queries.experiments(notebook, run["id"]) if table == "run" or e["id"] == identifier]
        config, say = RunConfig.model_validate(run["config"]), steps_on_stderr()
        target, corpus = open_inputs(config, say)
        changed = _changed_inputs(run, target, corpus, experiments)
        size = (corpus.name, corpus.sha256, corpus.n_characters)
        again = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size, parent=run["id"])
        context = ToolContext(target, corpus)
        done = [e for e in experiments if e["end"] and e["end"]["outcome"] == "ok"]
        rows = [_repeat(notebook, again, e, context) for e in done]
        notebook.end_run(again, "answered", f"rerun of {identifier}", {"forwards": target.forwards})
        head = notebook.head()
    different = [row for row in rows if row["outcome"] == "different"]
    if as_json:
        print_json({"run": again, "repeats": rows, "changed_inputs": changed, "ledger_head": head})
    else:
        for result in rows:
            print(f"{result['outcome']:<17} {result['tool']:<18} {result['experiment']}  {visible(result['detail'])}")
        print(f"changed inputs: {', '.join(changed) or 'none'}")
    return 1 if different else 0


def _changed_inputs(run: dict[str, Any], target: Any, corpus: Any, experiments: list[dict[str, Any]]) -> list[str]:
    now, then = target.fingerprint(), run["target"]
    names = ("weights_sha256", "tokenizer_sha256", "dtype", "backend_version", "processing")
    changed = [name for name in names if getattr(now, name) != then[name]]
    if corpus.sha256 != run["corpus"]["sha256"]:
        changed.append("corpus")
    if any(e["tool_sha256"] != tools_sha256() for e in experiments):
        changed.append("tool source")
    return changed


def _repeat(notebook: Notebook, run: str, old: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    tool = find_tool(old["tool"])
    spec = ExperimentSpec(old["tool"], tools_sha256(), old["args"], old["seed"])
    started = notebook.begin_experiment(run, spec, repeat_of=old["id"], fresh=True)
    report = {"experiment": old["id"], "repeat": started.id, "tool": old["tool"]}
    try:
        result = tool.run(context, tool.parse(old["args"]))
    except (ToolRefused, ToolFailed) as error:
        notebook.end_experiment(started.id, None, error=str(error), refused=isinstance(error, ToolRefused))
        return {**report, "outcome": "different", "detail": str(error)}
    stored = {"payload": result.payload, "measurements": []}
    notebook.end_experiment(started.id, stored, evidence=[("", m) for m in result.measurements])
    before = {row["metric"]: row["value"] for row in old["evidence"]}
    gaps = {
        m.metric: abs(m.value - before[m.metric]) / max(1e-9, abs(before[m.metric]))
        for m in result.measurements
        if m.metric in before
    }
    worst = max(gaps, key=lambda name: gaps[name], default=None)
    if worst is None or gaps[worst] == 0:
        return {**report, "outcome": "identical", "detail": ""}
    outcome = "within tolerance" if gaps[worst] <= TOLERANCE else "different"
    return {**report, "outcome": outcome, "detail": f"{worst} by {gaps[worst]:.2g} (relative)"}

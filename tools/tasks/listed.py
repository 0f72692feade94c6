"""The tool `tasks`: which prompt families there are, and which of them the target can do."""

from typing import Any, ClassVar

from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tasks.base import SOLVED, Task, solved
from neuronaut.tools.tasks.catalogue import task_named, tasks


class TasksArgs(ToolArgs):
    """Which tasks (none named: all), with which corruption (the usual one of each), on how many prompts."""

    example: ClassVar = {"names": ["indirect object", "months"]}
    names: tuple[str, ...] = Field(default=(), max_length=100)
    corruption: str | None = None
    n: int = Field(default=32, ge=8, le=512)
    seed: int = 0


@tool("tasks")
def list_tasks(context: ToolContext, args: TasksArgs) -> ToolResult:
    """The tasks, with the target's accuracy on each and how far corruption moves its answer; which of them it can do.

    accuracy: share of prompts whose likeliest token (for verbs, brackets, names and years: the likeliest answer) is right; a
    task can be done from 0.8 on. gap: mean clean less corrupted log-odds of right against wrong answers, nats, null 0. Only
    prompts of the search half are looked at. A task that the tokenizer cannot express says so instead.
    """
    chosen = [task_named(name) for name in args.names] or tasks()
    rows = [_row(context.target, task, args) for task in chosen]
    return ToolResult((), {"tasks": rows, "can": [row["name"] for row in rows if row.get("can")]})


def _row(target: TargetModel, task: Task, args: TasksArgs) -> dict[str, Any]:
    told = {"name": task.name, "family": task.family, "about": task.about, "corruptions": list(task.corruptions)}
    try:
        prompts = task.prompts(target, args.n, seed=args.seed, corruption=args.corruption)
    except ToolRefused as refusal:
        return told | {"can": False, "refused": str(refusal)}
    found = solved(target, prompts)
    return told | {
        "can": found.accuracy >= SOLVED and found.gap > 0,
        "accuracy": round(found.accuracy, 4),
        "gap": round(found.gap, 4),
        "n": len(prompts),
        "groups": len(set(prompts.groups.tolist())),
        "clean": prompts.clean_texts[0],
        "corrupted": prompts.corrupted_texts[0],
        "answer": target.vocabulary.pieces[int(prompts.right[0, 0])],
    }

"""The closed list of tasks."""

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.tasks import copying, facts, grammar, names, sequences, years
from neuronaut.tools.tasks.base import Task

TASKS: dict[str, Task] = {
    task.name: task for family in (copying, names, years, sequences, grammar, facts) for task in family.TASKS
}


def tasks() -> list[Task]:
    """All tasks, family by family."""
    return list(TASKS.values())


def task_named(name: str) -> Task:
    """The task of that name. Refuses an unknown name, and says which there are."""
    if name not in TASKS:
        raise ToolRefused(f"there is no task {name!r}: choose from {', '.join(TASKS)}")
    return TASKS[name]

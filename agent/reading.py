"""Notebooks that are only read, and what is wrong with them."""

from neuronaut.agent.view import print_json, visible
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place


def open_notebook(path: Place | None) -> Notebook:
    """The notebook of a command that reads."""
    return Notebook(path or default_place(), read_only=True)


def verify(path: Place | None, head: str | None, *, as_json: bool) -> int:
    """Print what is wrong with the notebook; 1 if anything is."""
    from neuronaut.memory.verify import verify as find_problems

    with open_notebook(path) as notebook:
        problems, now = find_problems(notebook, head), notebook.head()
    if as_json:
        print_json({"ok": not problems, "problems": problems, "ledger_head": now})
    else:
        for problem in problems:
            print(visible(problem))
        print(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            if problems
            else f"whole: every row, artifact and verdict checks out; head {now}"
        )
    return 1 if problems else 0

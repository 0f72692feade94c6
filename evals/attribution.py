"""How well estimates by gradients rank components beside exact patching, on the tasks that the embedded model can do.

Run as `python -m neuronaut.evals.attribution`; prints a row a task.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tasks.base import SOLVED, Task, TaskPrompts, solved
from neuronaut.tools.tasks.catalogue import tasks

SITES = ("heads", "mlp_out", "resid_pre")
STEPS = (1, 5)


def pairs(target: TargetModel, task: Task, n: int, seed: int) -> Iterator[dict[str, str]]:
    """Clean and corrupted prompts with single answers that the target has right, as arguments of `patch`; none of a task
    that it cannot do."""
    prompts: TaskPrompts = task.prompts(target, 4 * n, seed=seed)
    known, pieces = solved(target, prompts), target.vocabulary.pieces
    if known.accuracy < SOLVED:
        return
    alone = (prompts.right >= 0).sum(dim=1) == 1
    for row in [int(i) for i in np.flatnonzero(known.kept) if alone[i]][:n]:
        yield {
            "clean": prompts.clean_texts[row],
            "corrupted": prompts.corrupted_texts[row],
            "answer": pieces[int(prompts.right[row, 0])],
            "wrong_answer": pieces[int(prompts.wrong[row, 0])],
        }


def agreement(context: ToolContext, pair: dict[str, str], site: str, steps: int) -> float | None:
    """Spearman correlation over the components of one site; None for a pair that is refused, or without a spread."""
    tool = find_tool("attribution_patch")
    try:
        result = tool.run(context, tool.parse({**pair, "site": site, "steps": steps}))
    except ToolRefused:
        return None
    return next((m.value for m in result.measurements if m.metric == "rank_agreement"), None)


def main() -> None:
    """Command line: the mean agreement of each task, site and number of steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4, help="prompt pairs of each task")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    target = load_target("pocket")
    context = ToolContext(target, pocket_corpus())
    columns = [(site, steps) for steps in STEPS for site in SITES]
    print(f"{'task':<26}" + "".join(f"{site}/{steps:<4}".rjust(14) for site, steps in columns))
    everything: dict[tuple[str, int], list[float]] = {column: [] for column in columns}
    for task in tasks():
        chosen, cells = list(pairs(target, task, args.n, args.seed)), []
        for column in columns:
            found = [value for pair in chosen if (value := agreement(context, pair, *column)) is not None]
            everything[column] += found
            cells.append(f"{np.mean(found):14.2f}" if found else f"{'-':>14}")
        print(f"{task.name:<26}" + "".join(cells), flush=True)
    print(f"{'all pairs':<26}" + "".join(f"{np.mean(everything[column]):14.2f}" for column in columns))


if __name__ == "__main__":
    main()

"""How far dreams drive units beside natural text of the same length, and what each part of the search brings.

    python -m neuronaut.evals.dreams --units 8.481 6.457 3.100 4.373 2.30 --seeds 3

Every number is a share of what the strongest natural piece of the same length reaches, cut out of its text: of any piece, and
of fluent ones. The text is that with which the search begins, so that a dream which only keeps its beginning scores 1.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from neuronaut.tools.corpus import load_corpus, pocket_corpus
from neuronaut.tools.dreams.chosen import unit_aim
from neuronaut.tools.dreams.dream import DreamArgs
from neuronaut.tools.dreams.found import Found
from neuronaut.tools.dreams.natural import fluent_cost, grids, natural_of, strongest
from neuronaut.tools.dreams.search import Beginning, dreamt, random_search
from neuronaut.tools.dreams.writing import TextWriting
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

UNITS = ("8.481", "6.457", "3.100", "4.373", "2.30")
SEARCHES = ("dream", "from random prompts alone", "without gradients", "random prompts")


class Reached(NamedTuple):
    """Shares of the strongest natural piece: of all prompts beside all pieces, of fluent ones beside fluent ones."""

    most: float
    fluent: float


def reached(context: ToolContext, unit: Unit, args: DreamArgs, seed: int) -> dict[str, Reached]:
    """What each of SEARCHES reaches. Refuses a unit that no natural piece drives."""
    aim, tokens = unit_aim(context.target, unit), context.sample("explore", EXPLORE_TOKENS)
    writing, (grid,) = TextWriting(context.target, tokens, args.length), grids([aim], tokens)
    bar = fluent_cost(aim, writing, np.random.default_rng(0))
    pieces, _ = strongest(aim, writing, grid, tokens)
    most, fluent = pieces.values.max(), pieces.values[pieces.costs <= bar].max(initial=0.0)
    if fluent <= 0:
        raise SystemExit(f"{unit.address} is driven by no fluent piece of {args.length} tokens: name another unit")
    begun = Beginning(natural_of(grid, tokens).scale, pieces.ids)

    def share(found: Found) -> Reached:
        values, costs = found.prompts.values, found.prompts.costs
        return Reached(float(values.max() / most), float(values[costs <= bar].max(initial=0.0) / fluent))

    found = dreamt(aim, writing, args.plan, begun, np.random.default_rng(seed))
    runs = (
        found,
        dreamt(aim, writing, args.plan, begun._replace(ids=pieces.ids[:0]), np.random.default_rng(seed)),
        dreamt(aim, writing, args.plan, begun, np.random.default_rng(seed), guided=False),
        random_search(aim, writing, begun, found.forwards, np.random.default_rng(seed)),
    )
    return {name: share(run) for name, run in zip(SEARCHES, runs, strict=True)}


def lines(rows: Sequence[tuple[str, dict[str, Reached]]]) -> Iterator[str]:
    """A table in Markdown: for each unit the median over seeds, fluent prompts first; at the end that of all."""
    yield "| unit | " + " | ".join(f"{name}: fluent, all" for name in SEARCHES) + " |"
    yield "|---|" + "---|" * len(SEARCHES)
    for unit in [*dict.fromkeys(unit for unit, _ in rows), ""]:
        mine = [found for name, found in rows if unit in ("", name)]
        cells = [
            f"{np.median([one[name].fluent for one in mine]):.2f}, {np.median([one[name].most for one in mine]):.2f}"
            for name in SEARCHES
        ]
        yield f"| {unit or 'all'} | " + " | ".join(cells) + " |"


def main() -> None:
    """Command line: a row as soon as a unit is done with a seed, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", nargs="+", default=list(UNITS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--forwards", type=int, default=DreamArgs.model_fields["forwards"].default)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--corpus", help="a file of texts; of pocket its own")
    asked = parser.parse_args()
    corpus = load_corpus(asked.corpus) if asked.corpus else pocket_corpus()
    context, rows = ToolContext(load_target(asked.model), corpus), list[tuple[str, dict[str, Reached]]]()
    with torch.no_grad():
        for unit in map(Unit.parse, asked.units):
            args = DreamArgs(unit=unit.address, forwards=asked.forwards)
            for seed in range(asked.seeds):
                rows.append((unit.address, reached(context, unit, args, seed)))
                told = " · ".join(f"{name} {one.fluent:.2f}, {one.most:.2f}" for name, one in rows[-1][1].items())
                print(f"{unit.address} seed {seed}: {told}", flush=True)
    print("\n".join(lines(rows)))


if __name__ == "__main__":
    main()

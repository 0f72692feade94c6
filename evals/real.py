"""A public language model's neurons: what the assistant's SUPPORTED claims reach on unseen text, beside lookup tables of
as many items, a trie of its examples, and the first hypothesis of the same search without the loop."""

import argparse
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from neuronaut.evals import proposers
from neuronaut.evals.baselines import Bench, First
from neuronaut.evals.figure import curve_svg
from neuronaut.evals.loop import ask_each
from neuronaut.evals.real_scores import SIZES, lines, scores_at
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size
from neuronaut.tools.corpus import load_corpus
from neuronaut.tools.errors import ToolFailed, ToolRefused, UserError
from neuronaut.tools.look.activations import layer_activations
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.predicates.tree import canonical_json, predicate_from_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.together import BatchContext
from neuronaut.tools.units import Sign, Unit

MODEL, CORPUS = "models/stories260K", "corpora/tinystories.jsonl"
BATCH = 24  # units; 48 of each of five layers make ten batches
SIGNS: tuple[Sign, ...] = (1, -1)


def data_folder() -> Path:
    """The folder of public models. UserError where it is not named, or lacks the model or the text of this suite."""
    named = os.environ.get("NEURONAUT_REAL_DATA")
    if not named:
        raise UserError(
            "the suite 'real' asks about a public model: set NEURONAUT_REAL_DATA to the folder that docs/real-models.md describes"
        )
    for part in (MODEL, CORPUS):
        if not (Path(named) / part).exists():
            raise UserError(
                f"NEURONAUT_REAL_DATA names {named!r}, which has no {part}: docs/real-models.md says where it comes from"
            )
    return Path(named)


@cache
def _opened(folder: Path) -> ToolContext:
    return ToolContext(load_target(folder / MODEL), load_corpus(folder / CORPUS))


def live_units(context: ToolContext) -> list[list[Unit]]:
    """Per layer the neurons with sign that have a firing rule on explore text and are not dense; each sign is a unit."""
    tokens = context.sample("explore", EXPLORE_TOKENS)
    everyone = np.arange(context.target.spec.d_mlp)
    found = []
    for layer in range(context.target.spec.n_layers):
        values = layer_activations(context.target, layer, everyone, tokens)
        rules = {(sign, i): firing_rule(sign * values[i], tokens) for i in everyone.tolist() for sign in SIGNS}
        live = [place for place, rule in rules.items() if not isinstance(rule, str) and not rule.dense]
        found.append([Unit("neuron", layer, i, sign) for sign, i in live])
    return found


@cache
def _all_live(folder: Path) -> list[list[Unit]]:
    return live_units(_opened(folder))


class Real:
    """The suite `real`."""

    name = "real"
    about = (
        "Neurons of stories260K on TinyStories, both signs: the share with a SUPPORTED claim of at most 5, 20 and 100 items, "
        "beside the best lookup table of as many."
    )
    sizes: Mapping[Size, int] = {"smoke": 2, "standard": 60, "full": 240}

    def batches(self, n: int, seed: int) -> Sequence[Batch]:
        """`n` live neurons with sign, equally many of each layer; a batch holds neighbours, so that shallow ones are read
        without running the deep layers."""
        layers = _all_live(data_folder())
        rng, cases = np.random.default_rng(seed), list[Case]()
        for layer, units in enumerate(layers):
            share = n // len(layers) + (layer < n % len(layers))
            drawn = rng.permutation(len(units))[:share].tolist()
            cases += [Case(units[i].address, f"layer {layer}") for i in drawn]
        chunks = [cases[at : at + BATCH] for at in range(0, len(cases), BATCH)]
        described = {"model": MODEL, "corpus": CORPUS}
        return [Batch(f"real-{number}", tuple(chunk), described) for number, chunk in enumerate(chunks)]

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """A row a unit: its claims, the first hypothesis, tables and trie, each with its quality on all confirm text."""
        cases = [case for case in batch.cases if case.key in wanted]
        if not cases:
            return
        units = [Unit.parse(case.key) for case in cases]
        bench, reading = _bench(units)
        notebook = asking.folder / f"{batch.name}.db"
        for case, unit in zip(cases, units, strict=True):
            row: Row = {"case": case.key, "family": case.family}
            try:
                row |= {"outcome": "ok", "reading": reading, **_asked(bench, unit, asking, notebook)}
            except (ToolRefused, ToolFailed) as error:
                row |= {"outcome": "failed", "error": str(error), "seconds": None, "forwards": None}
            yield row

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """Shares of units at each size, and by how much the claims beat the best table."""
        done = [row for row in rows if row["outcome"] == "ok"]
        return [score for size in SIZES for score in scores_at(done, size)]


SUITE = Real()


def _bench(units: Sequence[Unit]) -> tuple[Bench, dict[str, float]]:
    """The text with the activations of all units, and what each unit's share in reading them costs."""
    opened = _opened(data_folder())
    context = BatchContext(
        opened.target, opened.corpus, units=tuple(dict.fromkeys(unit.with_sign(1) for unit in units))
    )
    bench, began, before = Bench(context), monotonic(), context.target.forwards
    bench.read(units[0])
    seconds, forwards = monotonic() - began, context.target.forwards - before
    return bench, {"seconds": seconds / len(units), "forwards": forwards / len(units)}


def _asked(bench: Bench, unit: Unit, asking: Asking, notebook: Path) -> dict[str, Any]:
    """What the loop says of a unit, and the baselines."""
    inner, *others = proposers.proposers(asking.proposer, bench.context, asking.seed)(unit)
    first = First(inner)
    chosen = [first, *others]
    (row,) = ask_each(
        bench.context, [unit], asking.seed, notebook, proposers=lambda _: chosen, loop=asking.loop, llm=asking.llm
    )
    if "error" in row:
        raise ToolFailed(row["error"])
    tested = [predicate_from_json(claim["predicate"]) for claim in row["claims"]]
    untested = [] if first.first is None else [first.first.predicate]
    measured = bench.measured(unit, [*tested, *untested], seed=asking.seed)
    unseen = measured.pop("claims")
    claims = [{**claim, "unseen": found} for claim, found in zip(row["claims"], unseen, strict=False)]
    one_shot = {**unseen[-1], "predicate": canonical_json(untested[0])} if untested else None
    return {**row, "claims": claims, "one_shot": one_shot, **measured}


def main() -> None:
    """Command line: ask a sample of units, or draw the figure of rows that were asked before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines: read for a figure, else appended to")
    parser.add_argument("--figure", type=Path, help="draw the curve of the rows here, as SVG")
    parser.add_argument("--n", type=int, default=SUITE.sizes["smoke"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.figure is None:
        with tempfile.TemporaryDirectory() as folder:
            asking = Asking(args.seed, "grammar", "full", Path(folder))
            for batch in SUITE.batches(args.n, args.seed):
                for row in SUITE.ask(batch, {case.key for case in batch.cases}, asking):
                    with args.rows.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(row) + "\n")
                    print(row["case"], row["outcome"], [c["status"] for c in row.get("claims", [])], flush=True)
    stored = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines()]
    if args.figure is not None:
        args.figure.write_text(curve_svg(lines(stored)), encoding="utf-8")
    for score in SUITE.scores(stored):
        print(score)


if __name__ == "__main__":
    main()

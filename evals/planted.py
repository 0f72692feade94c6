"""Does the loop find what is known to be there? Planted units, each of a rule that a test could prove."""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuronaut.agent.view import visible
from neuronaut.evals.loop import BatchContext, ask_each, supported
from neuronaut.evals.overlay import NOISE, FromPredicate, Overlay
from neuronaut.evals.truths import FAMILIES, Truth, draw_truths, truth_f1
from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import predicate_from_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

FOUND = 0.95  # F1 against the truth on audit text from which a rule counts as found


def places(target: TargetModel, n: int, seed: int) -> list[Unit]:
    """`n` different neurons, drawn layer by layer in turn."""
    rng, layers = np.random.default_rng(seed), target.spec.n_layers
    orders = [rng.permutation(target.spec.d_mlp) for _ in range(layers)]
    return [Unit("neuron", i % layers, int(orders[i % layers][i // layers])) for i in range(n)]


def planted(
    target: TargetModel, truths: Sequence[Truth], seed: int, noise: float = NOISE
) -> tuple[Overlay, list[Unit]]:
    """The target with a unit for each rule, and those units in order."""
    units = places(target, len(truths), seed)
    functions = {
        unit: FromPredicate(truth.predicate, seed=seed * 10_000 + number, noise=noise)
        for number, (unit, truth) in enumerate(zip(units, truths, strict=True))
    }
    return Overlay(target, functions), units


def ask_planted(
    target: TargetModel, corpus: Corpus, truths: Sequence[Truth], seed: int, *, noise: float = NOISE
) -> Iterator[dict[str, Any]]:
    """A row a unit: its rule, what the loop said, and F1 of the best SUPPORTED claim on audit text (0 where none is)."""
    overlay, units = planted(target, truths, seed, noise)
    context = BatchContext(overlay, corpus, units=tuple(units))
    audit = context.tokens("audit")
    with tempfile.TemporaryDirectory() as folder:
        rows = ask_each(context, units, seed, Path(folder) / "notebook.db")
        for row, truth in zip(rows, truths, strict=True):
            true = holds(truth.predicate, audit)
            for claim in row["claims"]:
                claim["truth_f1"] = truth_f1(holds(predicate_from_json(claim["predicate"]), audit), true)
            best = max((claim["truth_f1"] for claim in supported(row)), default=0.0)
            rule = {
                "family": truth.family,
                "truth": str(truth.predicate),
                "base_rate": float(true[audit.scored].mean()),
            }
            yield {**row, **rule, "truth_f1": best}


def table(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int, int, int, float]]:
    """Per family and in all: units, SUPPORTED, found (SUPPORTED with F1 of at least 0.95), mean F1."""
    named = [(family, [row for row in rows if row["family"] == family]) for family in FAMILIES]
    return [
        (
            name,
            len(part),
            sum(bool(supported(row)) for row in part),
            sum(row["truth_f1"] >= FOUND for row in part),
            float(np.mean([row["truth_f1"] for row in part])),
        )
        for name, part in [*named, ("all", list(rows))]
        if part
    ]


def said(row: dict[str, Any]) -> str:
    """One line about a unit: the last verdict, or why there is none."""
    if not row["claims"]:
        return "; ".join(row["outcomes"])
    last = row["claims"][-1]
    return f"{last['status']:<10} {last['truth_f1']:.2f}  {last['claim'][:100]}; {last['reason'][:160]}"


def main() -> None:
    """Command line: plant, ask, print a line a unit and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=NOISE, help="standard deviation, in parts of the level")
    parser.add_argument("--out", type=Path, help="write one JSON line a unit here")
    args = parser.parse_args()
    target, corpus = load_target("pocket"), pocket_corpus()
    drawn = list(draw_truths(ToolContext(target, corpus), args.n, args.seed))
    truths = [one for one in drawn if isinstance(one, Truth)]
    print(f"{len(truths)} rules, {len(drawn) - len(truths)} not admitted:", flush=True)
    for reason, times in Counter(one for one in drawn if isinstance(one, str)).most_common():
        print(f"  {times:4} {reason}")
    rows = []
    for row in ask_planted(target, corpus, truths, args.seed, noise=args.noise):
        rows.append(row)
        print(
            f"{row['unit']:<7} {row['seconds']:5.1f} s  {visible(row['truth'])}\n    {visible(said(row))}", flush=True
        )
        if args.out:
            with args.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
    print(f"\n{'family':<14} units  SUPPORTED  found  mean F1")
    for name, n, hits, found, mean in table(rows):
        print(f"{name:<14} {n:5}  {hits:9}  {found:5}  {mean:7.3f}")


if __name__ == "__main__":
    main()

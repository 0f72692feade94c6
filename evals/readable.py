"""How many of a model's live neurons get a SUPPORTED reads claim, and of what size: a seeded sample, stratified by layer."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from neuronaut.evals.loop import ask_each
from neuronaut.tools.corpus import load_corpus, pocket_corpus
from neuronaut.tools.look.activations import layer_activations
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.stats import clopper_pearson
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

SIZES = (5, 20, 100)


def live_units(context: ToolContext, layer: int) -> list[Unit]:
    """The neurons of a layer that have a firing rule on the explore sample (active in at least 20 documents)."""
    tokens = context.sample("explore", EXPLORE_TOKENS)
    everyone = np.arange(context.target.spec.d_mlp)
    values = layer_activations(context.target, layer, everyone, tokens)
    alive = [not isinstance(firing_rule(activations, tokens), str) for activations in values]
    return [Unit("neuron", layer, int(i)) for i in everyone[alive]]


def sample_units(context: ToolContext, n: int, seed: int) -> tuple[list[Unit], dict[int, int]]:
    """`n` live neurons, equally many from each layer, and how many live ones each layer has."""
    rng, layers = np.random.default_rng(seed), context.target.spec.n_layers
    chosen, alive = [], {}
    for layer in range(layers):
        units = live_units(context, layer)
        alive[layer] = len(units)
        share = n // layers + (layer < n % layers)
        chosen += [units[int(i)] for i in rng.permutation(len(units))[:share]]
    return chosen, alive


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of units with a SUPPORTED claim of at most 5, 20 and 100 items, with exact 95 % intervals, by layer and in all."""

    def share(part: list[dict[str, Any]], size: int) -> dict[str, Any]:
        hits = sum(any(c["status"] == "SUPPORTED" and c["items"] <= size for c in row["claims"]) for row in part)
        low, high = clopper_pearson(hits, len(part))
        return {"hits": hits, "n": len(part), "share": hits / len(part), "ci": [low, high]}

    layers = sorted({row["layer"] for row in rows})
    parts = {"all": rows, **{f"layer {n}": [row for row in rows if row["layer"] == n] for n in layers}}
    return {name: {size: share(part, size) for size in SIZES} for name, part in parts.items()}


def main() -> None:
    """Command line: run the sample, print a line a unit and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--n", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write one JSON line a unit here")
    args = parser.parse_args()
    target = load_target(args.model)
    corpus = pocket_corpus() if args.corpus is None else load_corpus(args.corpus)
    context = ToolContext(target, corpus)
    units, alive = sample_units(context, args.n, args.seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in ask_each(context, units, args.seed, Path(folder) / "notebook.db"):
            rows.append(row)
            best = min(row["claims"], key=lambda c: (c["status"] != "SUPPORTED", -c["f1"]), default=None)
            said = (
                f"{best['status']:<11} {best['f1']:.2f} {best['items']:>3}  {best['claim'][:90]}"
                if best
                else "ABSTAINED"
            )
            print(f"{row['unit']:<8} {row['seconds']:5.1f} s  {said}", flush=True)
            if args.out:
                with args.out.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
    print(f"live neurons by layer: {list(alive.values())}")
    for name, shares in table(rows).items():
        cells = (f"{s['hits']:>3}/{s['n']} ({s['ci'][0]:.2f}-{s['ci'][1]:.2f})" for s in shares.values())
        print(f"{name:<9} SUPPORTED with at most {', '.join(map(str, SIZES))} items:", "  ".join(cells))


if __name__ == "__main__":
    main()

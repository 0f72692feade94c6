"""How fast exact patching grids are beside those of `transformer_lens.patching`, in one run, and whether they are equal.

    python -m neuronaut.evals.patching_speed --target pocket gpt2-size

Both patch a corrupted prompt of `--tokens` random tokens with clean activations: the residual before each layer at each
position, and each head at all positions; both are given the clean activations. Ratios are of the processor's time, which other
programs disturb less.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronaut.evals.speed import gpt2_size
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.load import POCKET, load_target

GOALS = {"pocket": {"resid_pre": 15.0, "heads": 10.0}, "gpt2-size": {"resid_pre": 6.0, "heads": 6.0}}
TOLERANCE = 1e-4  # of the largest logit
ROUNDS = 3


def grid_edits(target: TargetModel, clean: Tensor, site: str) -> list[Edit]:
    """The edits of a grid over all layers, row by row."""
    n_layers, n_pos = target.spec.n_layers, clean.shape[1]
    if site == "heads":
        sites = [Site("heads", layer) for layer in range(n_layers)]
        read = target.run(clean, read=sites).read
        heads = range(target.spec.n_heads)
        return [Edit(at, "set", read[at][:, :, head], index=head) for at in sites for head in heads]
    sites = [Site("resid_pre", layer) for layer in range(n_layers)]
    read = target.run(clean, read=sites).read
    alone = torch.eye(n_pos, dtype=torch.bool)
    return [Edit(at, "set", read[at], positions=alone[p : p + 1]) for at in sites for p in range(n_pos)]


def processor_seconds(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Time of the processor, and what came of it."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def compared(folder: Path, name: str, n_tokens: int, rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Seconds of both, their ratio and the largest difference of a logit difference, for each grid."""
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge

    target = load_target(folder)
    made = torch.Generator().manual_seed(0)
    clean, corrupted = (torch.randint(5, target.spec.d_vocab, (1, n_tokens), generator=made) for _ in range(2))
    bridge: Any = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
    metric = lambda logits: logits[0, -1, 7] - logits[0, -1, 11]  # noqa: E731
    theirs = {"resid_pre": "get_act_patch_resid_pre", "heads": "get_act_patch_attn_head_out_all_pos"}
    found: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        _, cached = bridge.run_with_cache(clean)
        for site, function in theirs.items():
            edits = grid_edits(target, clean, site)

            def ours(edits: list[Edit] = edits) -> Tensor:
                logits = target.branches(corrupted, edits)[:, -1]
                return logits[:, 7] - logits[:, 11]

            def of_the_library(function: str = function) -> Tensor:
                grid: Tensor = getattr(patching, function)(bridge, corrupted, cached, metric)
                return grid.flatten()

            ours()  # loads what is loaded once
            fast, mine = min((processor_seconds(ours) for _ in range(rounds)), key=lambda one: one[0])
            slow, expected = processor_seconds(of_the_library)
            apart = float((mine - expected).abs().max()) / max(1.0, float(expected.abs().max()))
            found[site] = {"ours": fast, "transformer_lens": slow, "ratio": slow / fast, "apart": apart}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: exit 1 where a grid is slower than its goal, or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", choices=sorted(GOALS), default=["pocket"])
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    good = True
    for name in args.target:
        with tempfile.TemporaryDirectory() as made, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = POCKET if name == "pocket" else gpt2_size(Path(made))
            for site, row in compared(Path(folder), name, args.tokens).items():
                goal = GOALS[name][site]
                good &= row["ratio"] >= goal and row["apart"] <= TOLERANCE
                print(
                    f"{name:10} {site:10} {row['ours']:8.3f} s beside {row['transformer_lens']:8.3f} s: {row['ratio']:6.1f} times as "
                    f"fast (goal {goal:g}), {row['apart']:.1e} apart",
                    flush=True,
                )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

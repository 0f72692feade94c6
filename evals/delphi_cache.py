"""Our index of all neurons beside the activation cache of EleutherAI's delphi: python -m neuronaut.evals.delphi_cache

Both read the same tokens of the embedded corpus through the embedded model, each in a process of its own with one thread:
tokens a second of the processor, and how far memory rises above what the loaded model takes. delphi keeps every activation in memory, the
index keeps statistics and the documents of largest activation. Where delphi's cache cannot be imported, that is said.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from time import process_time
from typing import Any

WIDTH = 128  # tokens a row: delphi takes rectangles
ROWS = 32  # a batch of delphi's
MISSING = 4  # exit code of a process that could not import delphi


def _peak() -> float:
    """Mebibytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measured(work: Any) -> dict[str, float]:
    before, began = _peak(), process_time()
    work()
    return {"seconds": process_time() - began, "mebibytes": _peak() - before}


def _documents(n_tokens: int) -> tuple[Any, Any, list[Any]]:
    """The embedded model, its corpus, and as many first explore documents as hold `n_tokens` tokens."""
    from neuronaut.evals.batch import cached_corpus, cached_target
    from neuronaut.tools.corpus import tokens_of

    target, corpus = cached_target(), cached_corpus()
    found, n = [], 0
    for document in corpus.of("explore"):
        found.append(document)
        n += int(tokens_of(target, [document]).lengths.sum())
        if n >= n_tokens:
            break
    return target, corpus, found


def ours(n_tokens: int) -> dict[str, float]:
    """The index of all neurons, on those documents."""
    from neuronaut.tools.corpus import Corpus, tokens_of
    from neuronaut.tools.index import build_index

    target, corpus, documents = _documents(n_tokens)
    some = Corpus(corpus.name, "0" * 64, tuple(documents))
    n = int(tokens_of(target, documents).lengths.sum())
    build_index(target, Corpus(corpus.name, "1" * 64, tuple(documents[:64])), cache=Path(tempfile.mkdtemp()))  # warm
    with tempfile.TemporaryDirectory() as folder:
        found = _measured(lambda: build_index(target, some, cache=Path(folder)))
    return {"tokens": n, **found}


def theirs(n_tokens: int) -> dict[str, float]:
    """delphi's cache of the same neurons, on the same tokens in rows."""
    cache_class = _imported()
    import torch
    from transformers import AutoModelForCausalLM

    from neuronaut.tools.corpus import tokens_of
    from neuronaut.tools.targets.load import POCKET

    target, _, documents = _documents(n_tokens)
    tokens = tokens_of(target, documents)
    ids = torch.from_numpy(tokens.ids[tokens.ids >= 0]).long()
    rows = ids[: len(ids) // (WIDTH * ROWS) * WIDTH * ROWS].view(-1, WIDTH)
    model = AutoModelForCausalLM.from_pretrained(POCKET).eval()
    points = {f"transformer.h.{layer}.mlp.act": (lambda x: x) for layer in range(target.spec.n_layers)}
    cache_class(model, points, ROWS).run(ROWS * WIDTH, rows)  # warm
    cache = cache_class(model, points, ROWS)
    return {"tokens": rows.numel(), **_measured(lambda: cache.run(rows.numel(), rows))}


def _imported() -> Any:
    """delphi's class, without the rest of its package, which needs what a cache does not."""
    delphi = importlib.import_module("delphi")
    package = types.ModuleType("delphi.latents")
    package.__path__ = [str(Path(str(delphi.__file__)).parent / "latents")]
    sys.modules["delphi.latents"] = package
    return importlib.import_module("delphi.latents.cache").LatentCache


def _child(which: str, n_tokens: int) -> dict[str, float] | None:
    """One side, in a process of its own; None where delphi cannot be imported."""
    command = [sys.executable, "-m", "neuronaut.evals.delphi_cache", "--only", which, "--tokens", str(n_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == MISSING:
        print(done.stderr.strip().splitlines()[-1], file=sys.stderr)
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print both sides and their ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--only", choices=("ours", "theirs"))
    args = parser.parse_args()
    if args.only:
        import torch

        torch.set_num_threads(1)
        try:
            print(json.dumps(ours(args.tokens) if args.only == "ours" else theirs(args.tokens)))
        except ImportError as error:
            print(f"delphi's cache cannot be imported here ({error}): nothing was compared", file=sys.stderr)
            raise SystemExit(MISSING) from None
        return
    mine, other = _child("ours", args.tokens), _child("theirs", args.tokens)
    assert mine is not None
    rate = {name: one["tokens"] / one["seconds"] for name, one in (("index", mine), ("delphi", other)) if one}
    told: dict[str, Any] = {"index": mine, "delphi": other, "tokens_a_second": {k: round(v) for k, v in rate.items()}}
    if other is not None:
        told["times_faster"] = round(rate["index"] / rate["delphi"], 2)
        told["times_less_memory"] = round(other["mebibytes"] / max(mine["mebibytes"], 1.0), 1)
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

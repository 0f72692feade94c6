"""How long a large corpus takes to open, and how much memory: `python -m neuronaut.evals.corpus_scale --gigabytes 2`.

The text is made up: words of a vocabulary of 50,000 by Zipf's law, documents of about 200 words, a tenth with letters that
are not ASCII, a hundredth of them near-copies. Each step runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

VOCABULARY = 50_000
DOCUMENTS_AT_ONCE = 2_000
STEPS = ("open", "open again", "read explore", "ask --fast")
QUESTION = "what does neuron 6.457 do"


def texts(n_bytes: int, *, seed: int = 0) -> Iterator[list[str]]:
    """Documents, some at a time, until they have `n_bytes` bytes."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    ends = np.array(["", "", "", "", "", "", ",", ",", ".", ".", "é"])
    lengths = rng.integers(2, 11, VOCABULARY)
    words = np.array(["".join(letters[(26 * rng.random(n) ** 2).astype(int)]) for n in lengths], dtype=object)
    share = 1 / np.arange(10, VOCABULARY + 10)
    borders = np.cumsum(share / share.sum())
    done = 0
    while done < n_bytes:
        counts = np.maximum(20, rng.lognormal(5.2, 0.5, DOCUMENTS_AT_ONCE)).astype(int)
        drawn = words[np.minimum(np.searchsorted(borders, rng.random(counts.sum())), VOCABULARY - 1)]
        marks = ends[rng.integers(0, 10, len(drawn))].astype(object)
        parts = np.split(drawn + marks, np.cumsum(counts)[:-1])
        found = [" ".join(part) for part in parts]
        for at in range(0, len(found), 10):
            found[at] += " né à Orléans"
        for at in range(0, len(found), 100):
            found[at] = f"{found[at + 1]} Again."
        done += sum(map(len, found))
        yield found


def write(path: Path, n_bytes: int) -> None:
    """A .jsonl or .parquet of about `n_bytes` of text."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetWriter(path, pa.schema([("text", pa.string())]), compression="zstd") as writer:
            for batch in texts(n_bytes):
                writer.write_table(pa.table({"text": batch}))
        return
    with path.open("w") as file:
        for batch in texts(n_bytes):
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in batch)


def run_step(step: str, path: Path) -> None:
    """One step in this process; its seconds and memory as JSON on stdout."""
    from neuronaut.tools.corpus import load_corpus

    began, worked = time.perf_counter(), time.process_time()
    corpus = load_corpus(path)
    opened = time.perf_counter() - began
    if step == "read explore":
        n_read = sum(len(document.text) for document in corpus.of("explore"))
        assert n_read == corpus.characters("explore").sum()
    if step == "ask --fast":
        from neuronaut.agent.config import RunConfig
        from neuronaut.agent.runs import ask
        from neuronaut.memory.place import place_of

        with open(os.devnull, "w") as nowhere:
            out, sys.stdout = sys.stdout, nowhere
            ask(
                RunConfig(question=QUESTION, corpus=str(path), fast=True),
                place_of(str(path.with_suffix(".db"))),
                as_json=True,
            )
            sys.stdout = out
    row = {
        "step": step,
        "documents": len(corpus.documents),
        "characters": corpus.n_characters,
        "opened": round(opened, 2),
        "seconds": round(time.perf_counter() - began, 2),
        "processor": round(time.process_time() - worked, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(row), flush=True)


def main() -> None:
    """Make the text, take the steps, remove the text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--kind", choices=("jsonl", "parquet"), default="jsonl")
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=STEPS)
    parser.add_argument("--one", nargs=2, metavar=("STEP", "FILE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        run_step(asked.one[0], Path(asked.one[1]))
        return
    with tempfile.TemporaryDirectory(prefix="corpus-scale-") as folder:
        path = Path(folder) / f"text.{asked.kind}"
        write(path, int(asked.gigabytes * 1e9))
        print(f"{path.stat().st_size / 1e9:.2f} GB in {path.name}", file=sys.stderr)
        own = {**os.environ, "NEURONAUT_CACHE": folder}
        for step in asked.steps:
            command = [sys.executable, "-m", "neuronaut.evals.corpus_scale", "--one", step, str(path)]
            subprocess.run(command, env=own, check=True)


if __name__ == "__main__":
    main()

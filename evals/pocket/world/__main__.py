"""Write the corpus: `python -m neuronaut.evals.pocket.world --out corpus.jsonl.gz`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .registers import CORPUS_SIZE, HELD_OUT_SEED, corpus_documents, write_corpus


def main(arguments: list[str] | None = None) -> None:
    """Write the held-out documents that every tool sees: texts and ids, no labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--documents", type=int, default=CORPUS_SIZE)
    chosen = parser.parse_args(arguments)
    write_corpus(chosen.out, corpus_documents(chosen.documents, chosen.seed))


if __name__ == "__main__":
    main()

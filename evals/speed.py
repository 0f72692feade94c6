"""How fast the index is beside a bare forward pass, and how its memory grows with the text, in one run.

    python -m neuronaut.evals.speed --target pocket --tokens 100000 1000000

Timings are shares of each other within the run: absolute times say more about the machine than about the code. With
`--threads 1` the processor's time is counted, which other programs disturb less. `--target gpt2-size` is a random model.
"""

import argparse
import hashlib
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from neuronaut.tools.corpus import Corpus, Document, load_corpus, pocket_corpus
from neuronaut.tools.index import build_index
from neuronaut.tools.index_plan import KindName, plan_index
from neuronaut.tools.kinds.base import Chunk, IndexSettings
from neuronaut.tools.sweep import add_chunk, batches, ids_of
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import POCKET, load_target

GOAL_SHARE = {"pocket": 0.75, "gpt2-size": 0.85}  # of the speed of the bare forward, of neurons alone
GOAL_WITH_HEADS = 0.6
GOAL_MIB = 2048
PASSES: tuple[tuple[KindName, ...], ...] = (("neurons",), ("heads",), ("neurons", "heads"))
GOAL_GROWTH = 1.25  # of the peak memory, from the shortest text to ten times it
ROUNDS = 2


@dataclass(frozen=True)
class Speed:
    """Tokens per second of the bare forward (no unembedding), of cutting text into tokens, and of the index pass over tokens
    by the kinds that it reads."""

    n_tokens: int
    forward: float
    tokenise: float
    passes: dict[tuple[KindName, ...], float]

    def share(self, kinds: tuple[KindName, ...]) -> float:
        """Speed of the whole index pass, tokenising included, over that of the bare forward; 1 is free."""
        return 1 / (self.forward / self.tokenise + self.forward / self.passes[kinds])


@dataclass(frozen=True)
class Peak:
    """The largest resident memory (MiB) of a process that builds an index; `before`: with the model loaded alone."""

    n_tokens: int
    before: float
    peak: float


def index_speed(target: TargetModel, corpus: Corpus, *, n_tokens: int = 1_000_000) -> Speed:
    """The best of two rounds for each chunk of the first explore documents, forward and index passes taking turns."""
    size, layers = IndexSettings().chunk, range(target.spec.n_layers)
    plans = {kinds: plan_index(target, corpus, kinds=kinds, layers=layers) for kinds in PASSES}
    drawn = plans[PASSES[0]].sweep.drawn
    into = {
        (kinds, turn): {kind.name: kind.empty(IndexSettings()) for kind in plan.sweep.kinds}
        for kinds, plan in plans.items()
        for turn in range(ROUNDS)
    }
    forward = tokenise = 0.0
    index, held = dict.fromkeys(PASSES, 0.0), 0
    groups = _groups(_first(target, corpus, n_tokens))
    _forward(target, Chunk.of(target, groups[:16], 0, drawn))  # warms up
    for number in range(-(-len(groups) // size)):
        part = groups[number * size : (number + 1) * size]
        chunk = Chunk.of(target, part, number, drawn)
        held += chunk.tokens.n_scored
        tokenise += min(_seconds(partial(Chunk.of, target, part, number, drawn)) for _ in range(ROUNDS))
        turns = [
            [_seconds(partial(_forward, target, chunk))]
            + [_seconds(partial(add_chunk, target, chunk, plans[k].sweep.kinds, into[k, turn])) for k in PASSES]
            for turn in range(ROUNDS)
        ]
        best = [min(times) for times in zip(*turns, strict=True)]
        forward += best[0]
        index = {kinds: index[kinds] + seconds for kinds, seconds in zip(PASSES, best[1:], strict=True)}
    passes = {kinds: held / seconds for kinds, seconds in index.items()}
    return Speed(held, held / forward, held / tokenise, passes)


def peak_memory(name: str, corpus: Corpus, n_tokens: int) -> Peak:
    """Measured in a process of its own, on documents made of the corpus's words in random order."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_peak, (name, corpus, n_tokens))


def _measure_peak(name: str, corpus: Corpus, n_tokens: int) -> Peak:
    target = load_target(name)
    target.run(torch.zeros((1, 8), dtype=torch.int64), stop=1)
    before = _peak_now()
    documents = tuple(_shuffled(target, corpus, n_tokens))
    text = Corpus("shuffled", hashlib.sha256(str(n_tokens).encode()).hexdigest(), documents)
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(target, text, cache=Path(folder), kinds=("neurons", "heads"))
        return Peak(index.n_tokens, before, _peak_now())


def _shuffled(target: TargetModel, corpus: Corpus, n_tokens: int) -> Iterator[Document]:
    random = np.random.default_rng(0)
    originals = corpus.of("explore")
    held = number = 0
    while held < n_tokens:
        words = originals[number % len(originals)].text.split()
        text = " ".join(words[at] for at in random.permutation(len(words)))
        held += target.tokenize([text]).n_scored
        yield Document(text, number, "explore")
        number += 1


def _peak_now() -> float:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _first(target: TargetModel, corpus: Corpus, n_tokens: int) -> list[Document]:
    documents = corpus.of("explore")
    held = 0
    for at, document in enumerate(documents):
        held += target.tokenize([document.text]).n_scored
        if held >= n_tokens:
            return list(documents[: at + 1])
    return list(documents)


def _groups(documents: list[Document]) -> list[list[Document]]:
    return [list(group) for _, group in groupby(documents, key=lambda one: one.group)]


def _forward(target: TargetModel, chunk: Chunk) -> None:
    for batch in batches(chunk, target.spec):
        target.run(ids_of(batch), stop=target.spec.n_layers)


def _seconds(work: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    work()
    return clock() - start


def gpt2_size(folder: Path) -> Path:
    """A model of GPT-2 small's shape with random weights and pocket's tokenizer."""
    import transformers

    config = transformers.GPT2Config(bos_token_id=0, eos_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    shutil.copy(POCKET / "tokenizer.json", folder)
    return folder


def main() -> None:
    """Prints the table; exit 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", default="pocket")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--tokens", type=int, nargs=2, default=(100_000, 1_000_000), metavar=("SHORT", "LONG"))
    parser.add_argument("--speed-tokens", type=int, default=1_000_000, help="at most so many for the speed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    corpus = load_corpus(asked.corpus) if asked.corpus else pocket_corpus()
    fast = _report_speed(asked.target, corpus, asked.speed_tokens)
    flat = asked.target == "gpt2-size" or _report_memory(asked.target, corpus, asked.tokens)
    sys.exit(0 if fast and flat else 1)


def _report_speed(name: str, corpus: Corpus, n_tokens: int) -> bool:
    goal = GOAL_SHARE.get(name, GOAL_SHARE["pocket"])
    with tempfile.TemporaryDirectory() as folder:
        target = load_target(str(gpt2_size(Path(folder)))) if name == "gpt2-size" else load_target(name)
        speed = index_speed(target, corpus, n_tokens=n_tokens)
    print(f"{'bare forward, no unembedding':46}{speed.forward:12,.0f} tokens/s on {speed.n_tokens:,} tokens")
    print(f"{'tokenising':46}{speed.tokenise:12,.0f} tokens/s")
    goals = {PASSES[0]: goal, PASSES[2]: GOAL_WITH_HEADS}
    for kinds in PASSES:
        label = f"index of {' and '.join(kinds)}, share of it" + (f" (≥ {goals[kinds]})" if kinds in goals else "")
        print(f"{label:46}{speed.share(kinds):12.2f}", flush=True)
    return all(speed.share(kinds) >= least for kinds, least in goals.items())


def _report_memory(name: str, corpus: Corpus, n_tokens: Sequence[int]) -> bool:
    short, long = (peak_memory(name, corpus, n) for n in n_tokens)
    growth = long.peak / short.peak
    for peak in (short, long):
        label = f"peak memory at {peak.n_tokens:,} tokens"
        print(f"{label:46}{peak.peak:12,.0f} MiB ({peak.before:,.0f} with the model alone)")
    print(f"{f'growth (goal ≤ {GOAL_GROWTH})':46}{growth:12.2f}")
    return growth <= GOAL_GROWTH and long.peak < GOAL_MIB


if __name__ == "__main__":
    main()

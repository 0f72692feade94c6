"""The triviality baseline: what is claimed of a trained model's neurons beyond what is claimed of its untrained twins.

Claims about a twin can be true: its early neurons are functions of the token. So what counts is how much more the
trained model earns, and at what complexity.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, get_args

import numpy as np
from scipy.stats import bootstrap

from neuronaut.evals.batch import cached_corpus, cached_target
from neuronaut.evals.loop import ask_batch, supported
from neuronaut.evals.sample import SIZES, live_sample, small_claims
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target, open_folder
from neuronaut.tools.targets.twins import twin_folder
from neuronaut.tools.together import BatchContext
from neuronaut.tools.units import Unit

Kind = Literal["trained", "random-init", "row-shuffled"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BATCH = 20


@cache
def twin(kind: Kind, seed: int) -> TargetModel:
    """The embedded model or a twin of it; a twin is made once and kept by the hash of its weights' recipe."""
    if kind == "trained":
        return cached_target()
    return load_target(twin_folder(open_folder("pocket"), kind, seed).path)


@dataclass(frozen=True)
class Twins:
    """Neurons of the embedded model and of its random-init and row-shuffled twins, asked alike."""

    name: str = "twins"
    about: str = (
        "natural neurons of the embedded model and of untrained twins of it (matrices drawn anew, or rows shuffled): the "
        "triviality baseline; claims about a twin can be true"
    )
    sizes: Mapping[Size, int] = field(default_factory=lambda: {"smoke": 3, "standard": 60, "full": 720})

    def batches(self, n: int, seed: int) -> list[Batch]:
        """Live neurons of each kind of model, layer by layer; the kinds take turns."""
        per_kind = -(-n // len(KINDS))
        found = []
        for kind in KINDS:
            units = live_sample(twin(kind, seed), cached_corpus(), per_kind, seed)
            cases = [Case(f"{kind} {unit.address}", kind, {"unit": unit.address}) for unit in units]
            parts = (tuple(cases[at : at + BATCH]) for at in range(0, len(cases), BATCH))
            found += [Batch(f"{kind}-{at}", part, {"kind": kind, "seed": seed}) for at, part in enumerate(parts)]
        return sorted(found, key=lambda batch: batch.name.rpartition("-")[2].zfill(4))

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """A row a unit: what the loop said of it."""
        cases = [case for case in batch.cases if case.key in wanted]
        units = [Unit.parse(case.truth["unit"]) for case in cases]
        target = twin(batch.settings["kind"], int(batch.settings["seed"]))
        context = BatchContext(target, cached_corpus(), units=tuple(units))
        for case, row in zip(cases, ask_batch(context, units, batch, asking), strict=True):
            yield {"case": case.key, "family": case.family, **row}

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """Shares with a SUPPORTED claim of at most 5, 20 and 100 items of each kind, and how much more the trained earns."""
        done = {kind: [r for r in rows if r["family"] == kind and r["outcome"] == "ok"] for kind in KINDS}
        found = [score for kind, part in done.items() for score in small_claims(part, kind)]
        for size in SIZES:
            hits = {kind: np.array([_has(row, size) for row in part]) for kind, part in done.items()}
            found += [
                more(f"trained beyond {kind}, at most {size} items", hits["trained"], hits[kind]) for kind in KINDS[1:]
            ]
        for kind, part in done.items():
            items = [claim["items"] for row in part for claim in supported(row)]
            found.append(
                Score(
                    f"{kind}: items of a SUPPORTED claim, median",
                    float(np.median(items)) if items else None,
                    len(items),
                )
            )
        return found  # fmt: skip


def more(name: str, these: np.ndarray, those: np.ndarray) -> Score:
    """How much larger one share is than another, with a 95 % bootstrap interval over units."""
    n = min(len(these), len(those))
    if n < 2:
        return Score(name, None, n)
    value = float(these.mean() - those.mean())
    samples = (these.astype(float), those.astype(float))
    found = bootstrap(
        samples, lambda a, b, axis: a.mean(axis) - b.mean(axis), n_resamples=2000, method="percentile", rng=0, vectorized=True
    )  # fmt: skip
    interval = found.confidence_interval
    return Score(name, value, n, float(interval.low), float(interval.high))


def _has(row: Row, size: int) -> bool:
    return any(claim["items"] <= size for claim in supported(row))


SUITE = Twins()

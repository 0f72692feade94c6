"""`neuronaut eval compare A B`: paired differences between two evaluations over the cases that both have done."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from neuronaut.agent.view import print_json, visible
from neuronaut.evals import registry
from neuronaut.evals.run import NOTEBOOK
from neuronaut.evals.suite import Row
from neuronaut.evals.tables import read_parquet
from neuronaut.memory.evaluations import Evaluation, open_evaluations
from neuronaut.tools.errors import UserError

RESAMPLES = 9999
GIVEN = frozenset({"layer", "base_rate"})  # numbers of the case, not of its answer
Rows = tuple[Evaluation, list[Row]]


@dataclass(frozen=True)
class Difference:
    """The mean of a metric over the `n` common cases in A and in B, and B - A with its 95 % bootstrap interval over cases."""

    metric: str
    n: int
    a: float
    b: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    """Two evaluations of one suite. not_ok: common cases that one of them failed or did not attempt; they are left out."""

    suite: str
    a: str
    b: str
    common: int
    not_ok: int
    only_a: int
    only_b: int
    differences: tuple[Difference, ...]
    scores: tuple[tuple[str, float | None, float | None], ...]


def compare(first: str, second: str, results: Path, *, as_json: bool) -> None:
    """Print the differences of each suite that both hold.

    Each is an evaluation id in `results`, a results folder (the newest evaluation of each suite), or a Parquet file.
    """
    a, b = read(first, results), read(second, results)
    suites = [name for name in a if name in b]
    if not suites:
        raise UserError(f"{first!r} holds {', '.join(a)} and {second!r} {', '.join(b)}: there is no suite in common")
    found = [compared(a[name], b[name]) for name in suites]
    if as_json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        _print(one)


def read(name: str, results: Path) -> dict[str, Rows]:
    """Suite to evaluation and rows."""
    path = Path(name).expanduser()
    if path.is_file():
        evaluation, rows = read_parquet(path)
        return {evaluation.key.suite: (evaluation, rows)}
    folder = path if path.is_dir() else results
    with open_evaluations(folder / NOTEBOOK) as notebook:
        found = notebook.find() if path.is_dir() else notebook.find(id=name)
        if not found:
            raise UserError(
                f"{name!r} is no evaluation in {str(folder)!r}, no results folder and no Parquet file of results"
            )
        newest = {one.key.suite: one for one in reversed(found)}
        return {suite: (one, notebook.done(one.id)) for suite, one in sorted(newest.items())}


def compared(a: Rows, b: Rows) -> Compared:
    """The paired differences between two evaluations of one suite. Refuses two seeds: their cases are others."""
    suite = a[0].key.suite
    if a[0].key.seed != b[0].key.seed:
        raise UserError(
            f"{suite}: seeds {a[0].key.seed} and {b[0].key.seed} have different cases, which cannot be paired: evaluate one seed twice"
        )
    of_a, of_b = ({row["case"]: row for row in rows} for _, rows in (a, b))
    common = sorted(of_a.keys() & of_b.keys())
    ok = [case for case in common if of_a[case]["outcome"] == of_b[case]["outcome"] == "ok"]
    pairs = [of_a[case] for case in ok], [of_b[case] for case in ok]
    return Compared(
        suite, a[0].id, b[0].id, len(common), len(common) - len(ok), len(of_a) - len(common), len(of_b) - len(common),
        tuple(differences(*pairs)), tuple(_scores(suite, *pairs)),
    )  # fmt: skip


def differences(a: Sequence[Row], b: Sequence[Row]) -> Iterable[Difference]:
    """Of each number that the rows hold, over the cases where both have it; rows in the same order of cases."""
    numbers = [numbers_of(row) for row in a], [numbers_of(row) for row in b]
    for metric in sorted({name for row in numbers[0] for name in row}):
        both = [(x[metric], y[metric]) for x, y in zip(*numbers, strict=True) if metric in x and metric in y]
        if both:
            first, second = np.array(both).T
            low, high = interval(second - first)
            yield Difference(
                metric, len(both), float(first.mean()), float(second.mean()), float((second - first).mean()), low, high
            )


def interval(values: "np.typing.NDArray[np.float64]") -> tuple[float, float]:
    """95 % bootstrap interval (BCa) of the mean; no width where all values are equal."""
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, batch=256, rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def numbers_of(row: Row) -> dict[str, float]:
    """The numbers and truth values of a row, and whether a claim of it was SUPPORTED."""
    numbers = {name: value for name, value in row.items() if isinstance(value, (bool, int, float))}
    found = {name: float(value) for name, value in numbers.items() if name not in GIVEN}
    if "claims" in row:
        found["supported"] = float(any(claim["status"] == "SUPPORTED" for claim in row["claims"]))
    return found


def _scores(suite: str, a: Sequence[Row], b: Sequence[Row]) -> Iterable[tuple[str, float | None, float | None]]:
    """The suite's own scores over the common cases in A and in B; none where this version does not know the suite."""
    if suite not in registry.SUITES or not a:
        return
    scored = registry.load(registry.SUITES[suite])
    of_b: Mapping[str, float | None] = {score.name: score.value for score in scored.scores(b)}
    yield from ((score.name, score.value, of_b.get(score.name)) for score in scored.scores(a))


def _print(one: Compared) -> None:
    print(f"{visible(one.suite)}  ·  A {one.a}  ·  B {one.b}")
    print(
        f" {one.common} cases in common, {one.not_ok} of them failed or not attempted in one; {one.only_a} in A only, "
        f"{one.only_b} in B only"
    )
    print(f" {'mean over cases':<44} {'n':>5} {'A':>10} {'B':>10} {'B - A':>10}  95 % interval")
    for d in one.differences:
        print(
            f" {visible(d.metric):<44} {d.n:>5} {d.a:>10.4g} {d.b:>10.4g} {d.difference:>+10.4g}  [{d.low:+.4g}, {d.high:+.4g}]"
        )
    if one.scores:
        print(f" {'score of the suite':<50} {'A':>10} {'B':>10}")
    for name, a, b in one.scores:
        print(f" {visible(name):<50} {shown(a):>10} {shown(b):>10}")


def shown(value: float | None) -> str:
    """A number in few digits; a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"

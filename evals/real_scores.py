"""The rows of `real` as shares of units: claims beside baselines, at several sizes."""

from collections.abc import Sequence

import numpy as np
from scipy import stats as scipy_stats

from neuronaut.evals.baselines import GRID
from neuronaut.evals.figure import Line
from neuronaut.evals.heldout import Bools, Floats, passes
from neuronaut.evals.lookup import WIDTHS
from neuronaut.evals.suite import Row, Score
from neuronaut.tools.stats import clopper_pearson

SIZES = (5, 20, 100)
GOAL = 0.10
RESAMPLES = 9999


def reached(row: Row, items: int) -> dict[str, bool]:
    """Which ways of telling the unit's firing pass with at most so many items.

    `loop`: a SUPPORTED claim that also has the precision and coverage on unseen text that is asked of the others.
    `tested`: any claim of the loop that has them, SUPPORTED or not. `… (bound)`: their lower bounds are asked.
    """
    at = max(number for number, size in enumerate(GRID) if size <= items)
    small = [claim["unseen"] for claim in row["claims"] if claim["items"] <= items]
    one_shot = row["one_shot"] if row["one_shot"] is not None and row["one_shot"]["items"] <= items else None
    judged = {**{kind: curve[at] for kind, curve in row["tables"].items()}, "trie": row["trie"]["cuts"][at]}
    return {
        "loop": any(
            claim["status"] == "SUPPORTED" and passes(claim["unseen"])
            for claim in row["claims"]
            if claim["items"] <= items
        ),
        "tested": any(passes(claim) for claim in small),
        "one-shot": one_shot is not None and passes(one_shot),
        "one-shot (bound)": one_shot is not None and passes(one_shot, low=True),
        **{name: passes(quality) for name, quality in judged.items()},
        **{f"{name} (bound)": passes(quality, low=True) for name, quality in judged.items()},
    }


def scores_at(rows: Sequence[Row], size: int) -> list[Score]:
    """Share of each way with at most `size` items, with its exact interval, and how far the loop is beyond the best table."""
    found = [reached(row, size) for row in rows]
    end, n = f"of at most {size} items", len(rows)
    if not n:
        return [Score(f"loop minus best table {end}", None, 0, goal=GOAL)]
    ways = {name: np.array([row[name] for row in found]) for name in found[0]}
    scores = [
        Score(f"{name} {end}", float(hits.mean()), n, *clopper_pearson(int(hits.sum()), n))
        for name, hits in ways.items()
    ]
    for note in ("", " (bound)"):
        tables = [ways[f"{kind}{note}"] for kind in WIDTHS]
        difference, low, high = beyond(ways["loop"], tables)
        goal = None if note else GOAL
        scores.append(Score(f"loop minus best table{note} {end}", difference, n, low, high, goal))
    return scores


def beyond(ours: Bools, tables: Sequence[Bools]) -> tuple[float, float | None, float | None]:
    """Share of units that ours reaches less the largest share that one kind of table does, with a paired 95 % bootstrap
    interval over units in which the best kind is chosen anew each time; no interval for fewer than two units."""

    def difference(*samples: Floats, axis: int = -1) -> Floats:
        shares = [sample.mean(axis=axis) for sample in samples]
        return np.asarray(shares[0] - np.max(shares[1:], axis=0))

    samples = [hits.astype(np.float64) for hits in (ours, *tables)]
    value = float(difference(*samples))
    if len(ours) < 2:
        return value, None, None
    drawn = scipy_stats.bootstrap(
        samples,
        difference,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return value, float(drawn.low), float(drawn.high)


def lines(rows: Sequence[Row]) -> list[Line]:
    """Share of units against items, with exact 95 % intervals, of the loop and of each baseline."""
    done = [row for row in rows if row["outcome"] == "ok"]
    found = [[reached(row, size) for row in done] for size in GRID]
    names = {
        "loop": "SUPPORTED claim",
        "tested": "any tested claim",
        "one-shot": "one-shot",
        "trie": "trie",
        **{kind: f"table: {kind}" for kind in WIDTHS},
    }
    drawn = []
    for name, label in names.items():
        hits = [sum(unit[name] for unit in units) for units in found]
        spans = [clopper_pearson(hit, len(done)) for hit in hits]
        drawn.append(Line(label, GRID, [hit / len(done) for hit in hits], spans, strong=name == "loop"))
    return drawn

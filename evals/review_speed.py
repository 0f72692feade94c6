"""How long the queries of the review pages take in a notebook of a million claims.

    python -m neuronaut.evals.review_speed [--claims 1000000] [--notebook FILE|URL] [--json]

An empty notebook is filled with made-up claims (see `many_claims`); one that is not empty is measured as it is. The times are those of
the functions that the pages and the terminal call, on the wall, with the notebook opened once; nothing is kept between two calls.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from neuronaut.evals.many_claims import make
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, Place, place_of
from neuronaut.memory.search import facet_counts, search_page

GOALS = {"index page": 300.0, "full text": 200.0}  # milliseconds, p95
REPEATS = 40
STATES = ("supported", "refuted", "unresolved", "withdrawn", "proposed", "testing")


class Timing(NamedTuple):
    """Milliseconds of one kind of query; the goal is for p95, None where there is none."""

    what: str
    p50: float
    p95: float
    n: int
    goal: float | None

    @property
    def missed(self) -> bool:
        """Whether it took longer than it may."""
        return self.goal is not None and self.p95 > self.goal


class Draws:
    """Things to look for that are in the notebook, drawn from its claims."""

    def __init__(self, notebook: Notebook, seed: int = 0) -> None:
        self.random = random.Random(seed)
        page = search_page(notebook, "", limit=1000)
        self.rows = list(page.rows)
        self.words = [word.strip('"') for row in self.rows for word in row["claim"].split()[2:]]
        self.places = [row["id"] for row in self.rows]

    def row(self) -> dict[str, Any]:
        """A claim."""
        return self.random.choice(self.rows)

    def word(self) -> str:
        """A word of a claim: frequent ones come often."""
        return self.random.choice([one for one in self.words if one.isalpha()])


def measures(notebook: Notebook, draws: Draws) -> Iterator[tuple[str, float | None, Callable[[], object]]]:
    """Each kind of query: its name, its goal and one call of it with something drawn anew."""

    def page(words: Callable[[], str], *, deep: bool = False) -> Callable[[], object]:
        def both() -> object:
            asked = words()
            after = draws.random.choice(draws.places) if deep else None
            return search_page(notebook, asked, after=after), facet_counts(notebook, asked)

        return both

    def run(asked: str) -> object:
        found = queries.find_run(notebook, asked), queries.hypotheses(notebook, asked)
        return found, queries.experiments(notebook, asked), queries.calls(notebook, asked)

    text, index = GOALS["full text"], GOALS["index page"]
    yield "index page with counts", index, page(lambda: "")
    yield "the same, further down", index, page(lambda: "", deep=True)
    yield "list of runs, one page", index, lambda: queries.runs(notebook, limit=50)
    yield "one word", text, lambda: search_page(notebook, draws.word())
    yield "one word with counts", index, page(draws.word)
    yield "two words", text, lambda: search_page(notebook, f"{draws.word()} {draws.word()}")
    yield (
        "three words, which no claim has",
        text,
        lambda: search_page(notebook, f"{draws.word()} fires nosuchword {draws.word()} x"),
    )
    yield "a phrase", text, lambda: search_page(notebook, '"{} {}"'.format(*draws.row()["claim"].split()[-2:]))
    yield "beginning of a word, 2 letters", text, lambda: search_page(notebook, draws.word()[:2])
    yield "the same with counts", index, page(lambda: draws.word()[:2])
    yield "a word that all claims have", text, lambda: search_page(notebook, "what")
    yield "a word without another", text, lambda: search_page(notebook, f"{draws.word()} -{draws.word()} fires")
    for state in STATES:
        yield f"status:{state} with counts", index, page(lambda state=state: f"status:{state}")  # type: ignore[misc]
    yield "status:supported kind:head layer:8", index, page(lambda: "status:supported kind:head layer:8")
    yield "status:supported side:writes, which is none", index, page(lambda: "status:supported side:writes")
    yield (
        "a word, status and layer",
        text,
        lambda: search_page(notebook, f"{draws.word()} status:refuted layer:{draws.row()['layer']} fires"),
    )
    yield "claims of a unit", None, lambda: search_page(notebook, f"unit:{draws.row()['address']}")
    yield "trail of a run", None, lambda: run(draws.row()["run"])


def measure(notebook: Notebook, repeats: int = REPEATS) -> list[Timing]:
    """The times of all kinds of queries."""
    draws, found = Draws(notebook), []
    for what, goal, call in measures(notebook, draws):
        took = []
        for _ in range(repeats):
            began = time.perf_counter()
            call()
            took.append(1000 * (time.perf_counter() - began))
        p95 = statistics.quantiles(took, n=20)[-1] if len(took) > 1 else took[0]
        found.append(Timing(what, statistics.median(took), min(p95, max(took)), len(took), goal))
    return found


def main() -> None:
    """Fill a notebook where it is empty, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=1_000_000)
    parser.add_argument("--notebook", type=place_of)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place: Place = given.notebook or File(Path(folder) / "n.db")
        made = _fill(place, given.claims)
        with Notebook(place, read_only=True) as notebook:
            timings, version = measure(notebook, given.repeats), notebook.version()
    if given.json:
        print(
            json.dumps(
                {
                    "database": version,
                    "claims": given.claims,
                    "made_seconds": made,
                    "timings": [t._asdict() for t in timings],
                }
            )
        )
        return
    print(f"{version}, {given.claims:,} claims" + (f", made in {made:.0f} s" if made is not None else ""))
    for one in timings:
        goal = "" if one.goal is None else f"  goal {one.goal:.0f}" + ("  MISSED" if one.missed else "")
        print(f"  {one.what:<44} p50 {one.p50:7.1f} ms  p95 {one.p95:7.1f} ms{goal}")


def _fill(place: Place, claims: int) -> float | None:
    """How long filling took; None for a notebook that holds claims."""
    with Notebook(place) as notebook:
        if search_page(notebook, "", limit=1).rows:
            return None
    print(f"making {claims:,} claims in {str(place)!r}", file=sys.stderr)
    began = time.perf_counter()
    make(place, claims)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

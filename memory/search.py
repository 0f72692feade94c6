"""Claims found by words and facets, a page at a time, the newest first; what is shown is read back from the records."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from neuronaut.memory import queries, schema
from neuronaut.memory.claim_index import COUNTS, TABLE, WORDS, counted_facets, document, record_of
from neuronaut.memory.query_words import LETTERS, Query, as_fts5, as_tsquery, query_of, value_of
from neuronaut.memory.science import RANKED
from neuronaut.memory.store import Store
from neuronaut.tools.errors import UserError

Row = dict[str, Any]
SCORES = {"reads": "f1", **RANKED}  # the metric that says how well a claim of a side did in its test
COUNTED = ("status", "side", "kind", "layer")
_COUNTED_LETTERS = {LETTERS[name] for name in COUNTED}
MOST_COUNTED = 1_000
LAST_CLAIMS = 50_000  # gone through one by one in about 60 ms
REBUILD = "`neuronaut search --rebuild` makes it anew from the records"


@dataclass(frozen=True)
class Page:
    """Claims, and where the next page begins (None at the end).

    Each row has the columns of its hypothesis (id, claim, side, author, words, predicate, run, …), and `address`, `layer`, `kind`,
    `target`, `question`, `status`, the `reason` of that status, and `score`: the evidence (metric, value, ci_low, ci_high,
    null_value, n, unit_of_measure) that its last verdict cites for it: F1 of reads, nats of writes and role, the share of attends,
    what a circuit keeps alone; None where nothing was judged.
    """

    rows: tuple[Row, ...]
    next: str | None


class Facets(NamedTuple):
    """How many claims match for each value of status, side, kind and layer, the largest count first.

    newest_only: so many match that only the newest MOST_COUNTED of them were counted; the numbers are then no totals.
    """

    counts: dict[str, list[tuple[str, int]]]
    newest_only: bool


def search_page(notebook: Store, words: str, *, after: str | None = None, limit: int = 50) -> Page:
    """The newest claims that match all the words, and none that stand behind a minus; all claims for no words.

    Words are looked for in the claim's sentence, its author's own words, the reason of its status and the question of its run,
    whatever their case and accents; the last one may be the beginning of a word, "some words" stand beside each other. Facets are
    status: side: author: unit: run: layer: kind: model:, with quotes where a value has spaces. after: `next` of the page before.

    Refuses: an unknown status, side, kind or layer; very long queries; a notebook whose search index does not fit its records.
    """
    query = query_of(words)
    with _indexed(notebook):
        if query.impossible:
            return Page((), None)
        found = _newest(notebook, query, limit + 1, None if after is None else _number(notebook, after))
        rows = _read_back(notebook, found[:limit])
        return Page(rows, rows[-1]["id"] if len(found) > limit else None)


def search(notebook: Store, words: str, *, limit: int = 100) -> list[Row]:
    """The rows of the first page."""
    return list(search_page(notebook, words, limit=limit).rows)


def facet_counts(notebook: Store, words: str) -> Facets:
    """How many claims match, for each value of status, side, kind and layer, as the search index has it; in bounded time."""
    query = query_of(words)
    with _indexed(notebook):
        if query.impossible:
            return Facets(_by_value({}), False)
        if all(term.tokens[0][0] in _COUNTED_LETTERS for term in query.terms):
            kept = notebook.rows(sa.select(COUNTS).where(COUNTS.c.n > 0))
            return Facets(_by_value({row["facets"]: row["n"] for row in kept if _holds(query, row["facets"])}), False)
        rows = _newest(notebook, query, MOST_COUNTED + 1, None)
        newest = Counter(counted_facets(row["words"]) for row in rows[:MOST_COUNTED])
        return Facets(_by_value(newest), len(rows) > MOST_COUNTED)


def _holds(query: Query, facets: str) -> bool:
    there = facets.split()
    return all((term.tokens[0] in there) is not term.absent for term in query.terms)


def _by_value(counted: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """Counts of combinations as counts of the values of each facet."""
    sums = {name: Counter[str]() for name in COUNTED}
    of = {LETTERS[name]: name for name in COUNTED}
    for facets, n in counted.items():
        for token in facets.split():
            sums[of[token[0]]][value_of(token)] += n
    return {name: sorted(found.items(), key=lambda one: (-one[1], one[0])) for name, found in sums.items()}


@contextlib.contextmanager
def _indexed(notebook: Store) -> Iterator[None]:
    """One state of the notebook with its search index. Refuses one without."""
    with notebook.snapshot():
        if not notebook.searchable:
            raise UserError(f"the notebook {str(notebook.place)!r} has lost its search index: {REBUILD}")
        notebook.index_moved()
        yield


def _matching(notebook: Store, query: Query, *columns: sa.Column[Any]) -> tuple[sa.Select[Any], sa.ColumnElement[Any]]:
    """A select of what matches, and the number that orders it, by the index that finds the words."""
    statement = sa.select(*columns)
    if not query.terms:
        return statement, TABLE.c.n
    if (
        notebook.kind == "postgresql"
    ):  # a plan for these words, not for any: so they stand in the statement; see tokens_of
        return statement.where(sa.text(f"claim_index.found @@ '{as_tsquery(query)}'::tsquery")), TABLE.c.n
    joined = WORDS.join(TABLE, TABLE.c.n == WORDS.c.rowid)
    match = sa.text("claim_words MATCH :words").bindparams(words=as_fts5(query))
    return statement.select_from(joined).where(match), WORDS.c.rowid


def _newest(notebook: Store, query: Query, limit: int, before: int | None) -> list[Row]:
    """The newest documents that match and stand before a number.

    On a server it looks through the last claims first, and then at all that the index finds: its planner would often choose
    to go through all claims from the newest on, which takes a second where few match.
    """
    matching, key = _matching(notebook, query, TABLE.c.n, TABLE.c.hypothesis, TABLE.c.words)
    matching = matching if before is None else matching.where(key < before)
    if notebook.kind == "sqlite" or not query.terms:
        return notebook.rows(matching.order_by(key.desc()).limit(limit))
    end = before if before is not None else notebook.rows(sa.select(sa.func.max(TABLE.c.n).label("n")))[0]["n"] or 0
    found = notebook.rows(matching.where(key >= end - LAST_CLAIMS).order_by(key.desc()).limit(limit))
    if len(found) == limit:
        return found
    if len(found) > limit // 3:  # the rest is not far
        older_still = matching.where(key < end - LAST_CLAIMS).order_by(key.desc())
        return found + notebook.rows(older_still.limit(limit - len(found)))
    older = (
        matching.with_only_columns(TABLE.c.n).where(key < end - LAST_CLAIMS).cte("older").prefix_with("MATERIALIZED")
    )
    newest = sa.select(older).order_by(older.c.n.desc()).limit(limit - len(found)).subquery()
    return found + notebook.rows(sa.select(TABLE).join(newest, newest.c.n == TABLE.c.n).order_by(TABLE.c.n.desc()))


def _number(notebook: Store, hypothesis: str) -> int:
    """Where a claim stands in the order of the index."""
    found = notebook.rows(sa.select(TABLE.c.n).where(TABLE.c.hypothesis == hypothesis))
    if not found:
        raise UserError(f"there is no claim {hypothesis!r} for a page to begin after: begin with the first page")
    return int(found[0]["n"])


def _read_back(notebook: Store, found: list[Row]) -> tuple[Row, ...]:
    """The records of claims that the index found. Refuses what the records do not bear out."""
    wanted = [one["hypothesis"] for one in found]
    records: dict[str, Row] = {}
    for at in range(0, len(wanted), queries.MANY):
        part = schema.hypothesis.c.id.in_(wanted[at : at + queries.MANY])
        records |= {row["id"]: row for row in notebook.rows(record_of(part))}
    for one in found:
        if one["hypothesis"] not in records or document(records[one["hypothesis"]]) != one["words"]:
            raise UserError(
                f"the search index of {str(notebook.place)!r} does not fit the record of claim {one['hypothesis']}: "
                f"`neuronaut verify` says whether records were altered; {REBUILD}"
            )
    scores = _scores(notebook, records)
    return tuple({**records[one], "score": scores.get(one)} for one in wanted)


def index_problems(notebook: Store) -> list[str]:
    """Whether the search index has every claim as it is recorded, and counts them right; nothing where there is no index."""
    if not notebook.searchable:
        return []
    found = {
        str(row["hypothesis"]): row["words"] for row in notebook.rows(sa.select(TABLE.c.hypothesis, TABLE.c.words))
    }
    counted = Counter(counted_facets(words) for words in found.values())
    wrong, last, key = 0, "", schema.hypothesis.c.id
    while part := notebook.rows(record_of(key > last).limit(queries.MANY)):
        wrong += sum(found.pop(row["id"], None) != document(row) for row in part)
        last = part[-1]["id"]
    wrong += len(found)
    if wrong:
        return [f"the search index differs from the records of {wrong:,} claims: {REBUILD}"]
    held = {row["facets"]: row["n"] for row in notebook.rows(sa.select(COUNTS).where(COUNTS.c.n != 0))}
    return [] if held == counted else [f"the search index counts its claims wrongly: {REBUILD}"]


def _scores(notebook: Store, records: Mapping[str, Row]) -> dict[str, Row]:
    """The evidence by which each claim was measured."""
    predictions = queries.grouped(notebook, schema.prediction, "hypothesis", records)
    verdicts = queries.grouped(
        notebook, schema.verdict, "prediction", (p["id"] for ps in predictions.values() for p in ps)
    )
    last = {h: vs[-1]["id"] for h, ps in predictions.items() if (vs := [v for p in ps for v in verdicts[p["id"]]])}
    cited = queries.grouped(notebook, schema.verdict_evidence, "verdict", last.values())
    evidence = queries.grouped(notebook, schema.evidence, "id", (c["evidence"] for cs in cited.values() for c in cs))
    found: dict[str, Row] = {}
    for hypothesis, verdict in last.items():
        metric = SCORES[records[hypothesis]["side"]]
        rows = [e for c in cited[verdict] for e in evidence[c["evidence"]] if e["metric"] == metric]
        found |= {hypothesis: rows[-1]} if rows else {}
    return found

"""The search index of claims: one document of tokens for each, made from the records and never a record itself.

A document holds the claim's sentence, the author's own words, the reason of its latest status and the question of its run, and as
facets its status, side, kind, layer, unit, run, authors and model. It is written in the transaction that records the claim or moves
it, by this code and not by the database, so that both databases hold the same tokens; `rebuild` makes all of them anew.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.database import Kind
from neuronaut.memory.query_words import LETTERS, MARK, facet, tokens_of

TABLE = sa.Table(
    "claim_index",
    sa.MetaData(),
    sa.Column("n", schema.Integer, primary_key=True, autoincrement=False),  # later claims have larger numbers
    sa.Column("hypothesis", sa.String(80), nullable=False, unique=True),
    sa.Column("words", sa.Text, nullable=False),
)
COUNTS = sa.Table(  # claims by the first facets of their documents, so that a notebook of millions is counted at once
    "claim_count",
    TABLE.metadata,
    sa.Column("facets", sa.Text, primary_key=True),
    sa.Column("n", schema.Integer, nullable=False),
)
WORDS = sa.table("claim_words", sa.column("rowid"), sa.column("words"))  # SQLite's own index of them
CREATED: dict[Kind, tuple[str, ...]] = {
    "sqlite": (
        "CREATE TABLE claim_index (\n  n INTEGER NOT NULL,\n  hypothesis VARCHAR(80) NOT NULL,\n  words TEXT NOT NULL,\n"
        "  PRIMARY KEY (n),\n  UNIQUE (hypothesis)\n)",
        "CREATE TABLE claim_count (\n  facets TEXT NOT NULL,\n  n INTEGER NOT NULL,\n  PRIMARY KEY (facets)\n)",
        "CREATE VIRTUAL TABLE claim_words USING fts5(words, content='claim_index', content_rowid='n', columnsize=0, tokenize='ascii', prefix='3')",
    ),
    "postgresql": (
        'CREATE TABLE claim_index (\n  n BIGINT NOT NULL,\n  hypothesis VARCHAR(80) COLLATE "C" NOT NULL,\n'
        "  words TEXT COLLATE \"C\" NOT NULL,\n  found TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple'::regconfig, words)) STORED,\n"
        "  PRIMARY KEY (n),\n  UNIQUE (hypothesis)\n)",
        'CREATE TABLE claim_count (\n  facets TEXT COLLATE "C" NOT NULL,\n  n BIGINT NOT NULL,\n  PRIMARY KEY (facets)\n)',
        "CREATE INDEX claim_index_by_words ON claim_index USING gin (found)",
    ),
}
_PART = 500  # documents at a time: SQLite takes 999 values in its oldest builds


def record_of(where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """What the records say of claims that a document holds or a result shows: the hypothesis, its unit, run, target and status."""
    h, u, r, t, s = schema.hypothesis, schema.unit, schema.run, schema.target_model, schema.hypothesis_status
    last = sa.select(sa.func.max(s.c.seq)).where(s.c.hypothesis == h.c.id).correlate(h).scalar_subquery()
    joined = h.join(u, u.c.id == h.c.unit).join(r, r.c.id == h.c.run).join(t, t.c.id == u.c.target)
    joined = joined.join(s, sa.and_(s.c.hypothesis == h.c.id, s.c.seq == last))
    columns = (
        h,
        u.c.address,
        u.c.layer,
        u.c.kind,
        t.c.name.label("target"),
        r.c.question,
        s.c.to_state.label("status"),
        s.c.reason,
    )
    return sa.select(*columns).select_from(joined).where(where).order_by(h.c.id)


def _records(db: sa.Connection, hypotheses: list[str]) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(record_of(schema.hypothesis.c.id.in_(hypotheses))).mappings()]


def document(row: Mapping[str, Any]) -> str:
    """The tokens of one claim: its facets, those that are counted first, then its texts."""
    facets = [facet(name, row[name]) for name in ("status", "side", "kind")]
    facets += [facet("layer", row["layer"])] if row["kind"] != "task" else []
    facets += [facet("unit", row["address"]), facet("run", row["run"]), facet("model", row["target"])]
    facets += [facet("author", author.strip()) for author in row["author"].split(",")]
    texts = (row["claim"], row["words"] or "", row["reason"], row["question"])
    return " ".join(facets + [token for text in texts for token in (MARK, *tokens_of(text))])


def counted_facets(words: str) -> str:
    """The tokens of status, side, kind and layer of a document."""
    return words.partition(f" {LETTERS['unit']}")[0]


def bring_up(db: sa.Connection, kind: Kind, hypotheses: Iterable[str]) -> None:
    """Write the documents of new or moved claims, inside the transaction that records them."""
    wanted = sorted(hypotheses)
    for at in range(0, len(wanted), _PART):
        part = wanted[at : at + _PART]
        known = {row.hypothesis: row for row in db.execute(sa.select(TABLE).where(TABLE.c.hypothesis.in_(part)))}
        rows = _records(db, part)
        changed = Counter[str]()
        for row in rows:
            if row["id"] in known:
                changed.update(_change(db, kind, known[row["id"]], document(row)))
        _count(db, changed)
        _add(db, kind, [row for row in rows if row["id"] not in known])


def _change(db: sa.Connection, kind: Kind, known: sa.Row[Any], words: str) -> dict[str, int]:
    """Write a document anew. Returns what it changes of the counts."""
    if known.words == words:
        return {}
    if kind == "sqlite":
        db.execute(_FORGET, {"n": known.n, "words": known.words})
        db.execute(WORDS.insert().values(rowid=known.n, words=words))
    db.execute(TABLE.update().where(TABLE.c.n == known.n).values(words=words))
    before, after = counted_facets(known.words), counted_facets(words)
    return {} if before == after else {before: -1, after: 1}


_FORGET = sa.text("INSERT INTO claim_words (claim_words, rowid, words) VALUES ('delete', :n, :words)")


def _add(db: sa.Connection, kind: Kind, rows: Iterable[Mapping[str, Any]]) -> None:
    first = (db.execute(sa.select(sa.func.max(TABLE.c.n))).scalar() or 0) + 1
    made = [{"n": n, "hypothesis": row["id"], "words": document(row)} for n, row in enumerate(rows, first)]
    if not made:
        return
    db.execute(TABLE.insert(), made)
    if kind == "sqlite":
        db.execute(WORDS.insert(), [{"rowid": one["n"], "words": one["words"]} for one in made])
    _count(db, Counter(counted_facets(one["words"]) for one in made))


def _count(db: sa.Connection, changed: Mapping[str, int]) -> None:
    if found := [{"facets": facets, "by": by} for facets, by in sorted(changed.items()) if by]:
        db.execute(_COUNT, found)


_COUNT = sa.text(
    "INSERT INTO claim_count (facets, n) VALUES (:facets, :by) ON CONFLICT (facets) DO UPDATE SET n = claim_count.n + excluded.n"
)


def missing(db: sa.Connection, kind: Kind) -> bool:
    """Whether the index is not there: it was dropped, or a copy was made without it."""
    there = set(sa.inspect(db).get_table_names())
    return not {TABLE.name, COUNTS.name, *([WORDS.name] if kind == "sqlite" else [])} <= there


def rebuild(db: sa.Connection, kind: Kind) -> None:
    """Make the whole index anew from the records, inside the caller's transaction."""
    for name in (WORDS.name, TABLE.name, COUNTS.name):
        db.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
    for statement in CREATED[kind]:
        db.exec_driver_sql(statement, execution_options={"no_parameters": True})
    fill(db, kind)


def fill(db: sa.Connection, kind: Kind) -> None:
    """Write the documents of all claims into an empty index."""
    h, last = schema.hypothesis.c.id, ""
    while part := list(db.execute(sa.select(h).where(h > last).order_by(h).limit(_PART)).scalars()):
        _add(db, kind, _records(db, part))
        last = part[-1]
    if kind == "postgresql":  # its planner must know which words are frequent, and autovacuum comes later
        db.exec_driver_sql(f"ANALYZE {TABLE.name}")

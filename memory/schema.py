"""The tables of the notebook. Records are only added: triggers refuse UPDATE and DELETE.

In both databases texts are ordered by their bytes and numbers have 64 bits.
"""

import math
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    Table,
    TypeDecorator,
    UniqueConstraint,
    func,
)
from sqlalchemy import Float as Real
from sqlalchemy import Integer as Int
from sqlalchemy import String as Chars
from sqlalchemy import Text as Words

from neuronaut.tools.errors import Altered

metadata = MetaData()


class _Float(TypeDecorator[float]):
    """A finite number. SQLite keeps whatever was written into a column behind neuronaut's back, so each is looked at when
    it is read; `Store.stored` reads it as it lies there."""

    impl = Real
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:
        """The number. Refuses what is none."""
        if value is None or (type(value) is float and math.isfinite(value)):
            return value
        raise _no_number(value)


class _Integer(TypeDecorator[int]):
    """A whole number of 64 bits, looked at when it is read."""

    impl = Int
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """The type of the column in a database."""
        return dialect.type_descriptor(BigInteger() if dialect.name == "postgresql" else Int())

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """The number. Refuses what is none."""
        if value is None or type(value) is int:
            return value
        raise _no_number(value)


def _no_number(value: Any) -> Altered:
    shown = repr(value if isinstance(value, (int, float)) else str(value)[:40])
    return Altered(f"the notebook holds {shown} where a number was recorded")


Float, Integer = _Float(), _Integer()
Text = Words().with_variant(Words(collation="C"), "postgresql")

VERDICTS = ("supported", "partial", "refuted", "unresolved")
TRANSITIONS: tuple[tuple[str, str], ...] = (
    ("proposed", "registered"),
    ("proposed", "withdrawn"),
    ("proposed", "untestable"),
    ("registered", "testing"),
    ("registered", "withdrawn"),
    ("registered", "untestable"),
    *(("testing", end) for end in VERDICTS),
    *((end, "stale") for end in VERDICTS),
    ("stale", "testing"),
    *((state, "superseded") for state in ("proposed", "registered", "testing", *VERDICTS, "stale")),
)


def _chars(n: int) -> Chars:
    """A short text of at most n characters, which SQLite does not count."""
    return Chars(n).with_variant(Chars(n, collation="C"), "postgresql")


def _id() -> Column[str]:
    return Column("id", _chars(80), primary_key=True)


def _ref(name: str, table: str, *, null: bool = False) -> Column[str]:
    return Column(name, ForeignKey(f"{table}.id"), nullable=null)


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


artifact = Table(
    "artifact",
    metadata,
    _id(),
    _text("media_type"),
    Column("n_bytes", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
target_model = Table(
    "target_model", metadata, _id(), _text("name"), _text("weights_sha256"), _text("tokenizer_sha256"), _text("dtype"),
    _text("backend"), _text("backend_version"), _text("processing"),
)  # fmt: skip
corpus = Table(
    "corpus", metadata, _id(), _text("name"), _text("sha256"), Column("n_characters", Integer, nullable=False)
)
run = Table(
    "run", metadata, _id(), _text("question"), _ref("target", "target_model"), _ref("corpus", "corpus"),
    _ref("parent_run", "run", null=True), _text("code_version"), _text("code_commit", null=True),
    _text("packages"), _text("config"), Column("seed", Integer, nullable=False), _text("started"),
)  # fmt: skip
run_end = Table(
    "run_end", metadata, _id(), _ref("run", "run"), _text("outcome"), _text("reason"), _text("cost"), _text("ended"),
    CheckConstraint("outcome in ('answered','gave_up','out_of_budget','cancelled','error')"),
)  # fmt: skip
dictionary = Table(
    "dictionary", metadata, _id(), _text("name"), _text("sha256"), _text("architecture"), _text("site"),
    Column("layer", Integer, nullable=False), Column("width", Integer, nullable=False), UniqueConstraint("name", "sha256"),
)  # fmt: skip
unit = Table(
    "unit", metadata, _id(), _ref("target", "target_model"), _text("kind"), Column("layer", Integer, nullable=False),
    Column("index", Integer, nullable=False), Column("sign", Integer, nullable=False), _text("address"),
    _ref("dictionary", "dictionary", null=True),
    UniqueConstraint("target", "address"), CheckConstraint("sign in (1, -1)"),
    CheckConstraint("(kind = 'feature') = (dictionary is not null)"),
)  # fmt: skip
hypothesis = Table(
    "hypothesis", metadata, _id(), _ref("run", "run"), _ref("unit", "unit"), _ref("parent", "hypothesis", null=True),
    _text("side"), _text("claim"), _text("predicate"), Column("complexity", Integer, nullable=False), _text("author"),
    _text("words", null=True),  # the author's own sentence, which nothing checks
    UniqueConstraint("run", "unit", "side", "predicate", "author").ddl_if(dialect="sqlite"),
    CheckConstraint("side in ('reads','writes','attends','role','circuit')"),
)  # fmt: skip
allowed_transition = Table(
    "allowed_transition",
    metadata,
    Column("from_state", _chars(20), primary_key=True),
    Column("to_state", _chars(20), primary_key=True),
)
prediction = Table(
    "prediction", metadata, _id(), _ref("hypothesis", "hypothesis"), _text("metric"), _text("comparator"),
    Column("threshold", Float, nullable=False), _text("baseline"), _text("split"), _text("payload"), _text("sha256"),
)  # fmt: skip
experiment = Table(
    "experiment", metadata, _id(), _ref("run", "run"), _ref("prediction", "prediction", null=True), _text("tool"), _text("tool_sha256"),
    _text("args"), _ref("corpus", "corpus", null=True), Column("seed", Integer, nullable=False), _text("key"),
    _ref("repeat_of", "experiment", null=True), _text("started"),
)  # fmt: skip
experiment_end = Table(
    "experiment_end", metadata, _id(), Column("experiment", ForeignKey("experiment.id"), nullable=False, unique=True),
    _text("outcome"), _text("error", null=True), _ref("result", "artifact", null=True),
    Column("seconds", Float, nullable=False), Column("forwards", Float, nullable=False),
    CheckConstraint("outcome in ('ok','refused','failed')"),
    CheckConstraint("(outcome = 'ok') = (result is not null)"), CheckConstraint("(outcome = 'ok') = (error is null)"),
)  # fmt: skip
evidence = Table(
    "evidence", metadata, _id(), _ref("experiment", "experiment"), _text("subject"), _text("metric"), Column("value", Float, nullable=False),
    _text("unit_of_measure"), Column("n", Integer, nullable=False), Column("ci_low", Float), Column("ci_high", Float),
    Column("null_value", Float), Column("null_percentile", Float),
    CheckConstraint("(ci_low is null) = (ci_high is null)"), CheckConstraint("ci_low is null or ci_low <= ci_high"),
)  # fmt: skip
verdict = Table(
    "verdict", metadata, _id(), _ref("prediction", "prediction"), _text("outcome"), _text("rule_version"), _text("reason"),
    Column("e", Float, nullable=False), _text("case"),
    CheckConstraint("outcome in ('SUPPORTED','PARTIAL','REFUTED','UNRESOLVED')"),
)  # fmt: skip
verdict_evidence = Table(
    "verdict_evidence", metadata, Column("verdict", ForeignKey("verdict.id"), primary_key=True),
    Column("evidence", ForeignKey("evidence.id"), primary_key=True),
)  # fmt: skip
hypothesis_status = Table(
    "hypothesis_status", metadata, Column("hypothesis", ForeignKey("hypothesis.id"), primary_key=True),
    Column("seq", Integer, primary_key=True), Column("prev_seq", Integer), Column("from_state", _chars(20)),
    Column("to_state", _chars(20), nullable=False), _ref("verdict", "verdict", null=True), _text("reason"),
    UniqueConstraint("hypothesis", "seq", "to_state"),
    ForeignKeyConstraint(["from_state", "to_state"], ["allowed_transition.from_state", "allowed_transition.to_state"]),
    ForeignKeyConstraint(
        ["hypothesis", "prev_seq", "from_state"],
        ["hypothesis_status.hypothesis", "hypothesis_status.seq", "hypothesis_status.to_state"],
    ),
    CheckConstraint("(seq = 0) = (prev_seq is null)"), CheckConstraint("(seq = 0) = (from_state is null)"),
    CheckConstraint("seq = 0 or seq = prev_seq + 1"), CheckConstraint("seq > 0 or to_state = 'proposed'"),
    CheckConstraint("to_state not in ('supported','partial','refuted') or verdict is not null"),
)  # fmt: skip
outcome = Table(
    "outcome",
    metadata,
    _id(),
    _ref("run", "run"),
    _ref("unit", "unit"),
    _text("side"),
    _text("status"),
    _text("reason"),
)
block_opened = Table(
    "block_opened", metadata, _id(), _ref("run", "run"), _ref("unit", "unit"), _text("side"), _ref("corpus", "corpus"),
    Column("block", Integer, nullable=False), UniqueConstraint("unit", "side", "corpus", "block"),
)  # fmt: skip
llm_batch = Table(
    "llm_batch", metadata, _id(), _ref("run", "run"), _text("provider"), _text("model"), _text("source"), _text("created"),
)  # fmt: skip
llm_batch_sent = Table(
    "llm_batch_sent", metadata, _id(), Column("batch", ForeignKey("llm_batch.id"), nullable=False, unique=True),
    _text("remote"), _text("sent"),  # remote: the provider's id of it
)  # fmt: skip
llm_batch_end = Table(
    "llm_batch_end", metadata, _id(), Column("batch", ForeignKey("llm_batch.id"), nullable=False, unique=True),
    _text("outcome"), _text("reason"), _text("ended"),
    CheckConstraint("outcome in ('ended','failed','expired','cancelled','not sent')"),
)  # fmt: skip
llm_call = Table(
    "llm_call", metadata, _id(), _ref("run", "run"), _text("purpose"), _text("provider"), _text("model"), _text("request"), _text("request_sha256"),
    _ref("maybe_billed_twice", "llm_call", null=True),  # the same request, begun earlier and never ended
    _ref("batch", "llm_batch", null=True), _text("about", null=True),  # about: the unit whose budget it is paid from
)  # fmt: skip
llm_call_end = Table(
    "llm_call_end", metadata, _id(), Column("call", ForeignKey("llm_call.id"), nullable=False, unique=True), _text("answered_by", null=True),
    _text("response", null=True), _text("stop_reason", null=True), Column("tokens_in", Integer), Column("tokens_cached", Integer),
    Column("tokens_written", Integer), Column("tokens_out", Integer), Column("usd_micro", Integer),
    Column("seconds", Float, nullable=False), _text("error", null=True),
    _text("calls", null=True),  # the tools that the reply calls, as JSON
    CheckConstraint("(response is null) <> (error is null)"), CheckConstraint("calls is null or response is not null"),
)  # fmt: skip
review = Table(
    "review", metadata, _id(), _text("target_table"), _text("target_id"), _text("author"), _text("verb"), _text("reason"),
    CheckConstraint("verb in ('agree','dispute','invalidate','comment')"),
)  # fmt: skip
evaluation = Table(
    "evaluation", metadata, _id(), _text("suite"), Column("seed", Integer, nullable=False), _text("proposer"), _text("loop"),
    _text("code_sha256"), _text("settings"), _text("started"),
)  # fmt: skip
evaluation_row = Table(
    "evaluation_row", metadata, _id(), _ref("evaluation", "evaluation"), _text("case"), _text("family"), _text("outcome"), _text("row"),
    UniqueConstraint("evaluation", "case"), CheckConstraint("outcome in ('ok','failed','not attempted')"),
)  # fmt: skip
batch = Table(
    "batch", metadata, Column("run", ForeignKey("run.id"), primary_key=True), _text("wanted"),
    CheckConstraint("wanted in ('go','pause','stop')"),
)  # fmt: skip
item = Table(
    "item", metadata, _id(), _ref("run", "run"), Column("rank", Integer, nullable=False), _text("address"),
    _text("null_kind", null=True),  # of a planted null unit, which takes the values of the unit at the address
    _text("beside"),  # items of one value are read in one pass over the text
    _text("state"), Column("attempt", Integer, nullable=False), Column("steps", Integer, nullable=False),
    _text("owner", null=True), Column("lease_until", Float),
    _ref("asked", "run", null=True), _text("reason", null=True),  # asked: the run that answers for it
    UniqueConstraint("run", "rank"), CheckConstraint("state in ('waiting','leased','done','failed','skipped')"),
    CheckConstraint("(state = 'leased') = (owner is not null)"), CheckConstraint("(state = 'leased') = (lease_until is not null)"),
    CheckConstraint("state <> 'done' or asked is not null"),
    CheckConstraint("(state in ('failed','skipped')) = (reason is not null)"),
)  # fmt: skip
ledger = Table(
    "ledger", metadata, Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("table_name", _chars(40), nullable=False), _text("row_id"), _text("row_sha256"), _text("prev_sha256"), _text("sha256"),
)  # fmt: skip
schema_migration = Table(
    "schema_migration",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    _text("name"),
    _text("source_sha256"),
    _text("applied"),
)

for _column in (
    hypothesis.c.run, hypothesis.c.unit, prediction.c.hypothesis, experiment.c.run, experiment.c.key, evidence.c.experiment,
    verdict.c.prediction, outcome.c.run, run_end.c.run, llm_call.c.run, llm_call.c.request_sha256, llm_call.c.batch,
    llm_batch.c.run, experiment.c.prediction, experiment.c.repeat_of, experiment_end.c.result, verdict_evidence.c.evidence,
    outcome.c.unit, unit.c.address, run.c.parent_run, review.c.target_id,
):  # fmt: skip
    Index(f"{_column.table.name}_by_{_column.name}", _column)
Index("item_by_asked", item.c.asked)
Index("item_by_rank", item.c.run, item.c.state, item.c.rank)
Index("item_by_beside", item.c.run, item.c.state, item.c.beside, item.c.rank)

Index(  # PostgreSQL indexes no long text
    "hypothesis_once", hypothesis.c.run, hypothesis.c.unit, hypothesis.c.side, func.md5(hypothesis.c.predicate),
    func.md5(hypothesis.c.author), unique=True, info={"only": "postgresql"},
)  # fmt: skip

WORKING = ("batch", "item")  # what is being worked on: the only rows that change; what came of it are records
RECORDS: tuple[Table, ...] = tuple(
    t for t in metadata.sorted_tables if t.name not in ("ledger", "schema_migration", "allowed_transition", *WORKING)
)

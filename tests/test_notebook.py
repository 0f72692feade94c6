"""Records are only added, states move as allowed, experiments are done once, and files of earlier releases stay readable."""

import datetime
import runpy
import shutil
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from neuronaut.memory import ledger, migrations, queries, schema, store
from neuronaut.memory.experiments import ExperimentSpec, Started
from neuronaut.memory.judge import decide
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, Place
from neuronaut.memory.recall import earlier_findings
from neuronaut.memory.search import search
from neuronaut.memory.statements import statements
from neuronaut.memory.store import Store, primary_key
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

DATA = Path(__file__).parent / "data"
made = runpy.run_path(str(DATA / "make_notebook.py"))
start, claim, judged, case_of, UNIT = (made[name] for name in ("start", "claim", "judged", "case_of", "UNIT"))
CALL = {"purpose": "propose", "provider": "scripted", "model": "m", "request": "{}", "request_sha256": "r" * 64}
REVIEW = {"target_table": "run", "target_id": "x", "author": "a", "verb": "agree", "reason": ""}
DICTIONARY = {"name": "d", "sha256": "d" * 64, "architecture": "topk", "site": "resid_post", "layer": 1, "width": 8}
REPLY = {"response": "{}", "answered_by": "m", "stop_reason": "stop", "seconds": 1.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "n.db"


@pytest.fixture
def filled(place: Place) -> dict[str, str]:
    return made["fill"](place)


# Only added


def refused(store: Store, *statements: str) -> None:
    """Each is refused to whoever owns the tables, past the notebook's own code."""
    for statement in statements:
        with pytest.raises(IntegrityError, match="rows are only added"), store._writing():
            store._db.exec_driver_sql(statement)


def test_no_table_can_be_changed_deleted_from_or_replaced_in(place: Place, filled: dict[str, str]) -> None:
    with Store(place) as store:
        with store._writing():
            store._insert(schema.review, {"id": "X", **REVIEW})
            store._insert(schema.dictionary, {"id": "X", **DICTIONARY})
        for table in schema.metadata.sorted_tables:
            if table.name in schema.WORKING:
                continue
            column = f'"{next(iter(table.columns)).name}"'
            same = f"INSERT INTO {table.name} SELECT * FROM {table.name} LIMIT 1"
            refused(store, f"UPDATE {table.name} SET {column} = {column}", f"DELETE FROM {table.name}")
            if isinstance(place, File):
                refused(store, same.replace("INSERT", "INSERT OR REPLACE"))
            else:
                keys = ", ".join(f'"{name}"' for name in primary_key(table))
                refused(store, f"{same} ON CONFLICT ({keys}) DO UPDATE SET {column} = excluded.{column}")
                refused(store, f"TRUNCATE {table.name} CASCADE", f"DELETE FROM {table.name} WHERE false")


def test_each_row_has_one_ledger_line_of_the_same_transaction(place: Place, filled: dict[str, str]) -> None:
    with Notebook(place, read_only=True) as notebook:
        rows = sum(len(notebook.rows(sa.select(table))) for table in schema.RECORDS)
        assert notebook.head().startswith(f"{rows}:")


def test_a_failed_transaction_leaves_no_trace(place: Place, filled: dict[str, str]) -> None:
    with Notebook(place) as notebook:
        head = notebook.head()
        with pytest.raises(IntegrityError):
            notebook.end_call(filled["call"], {"seconds": 1.0, "error": "a second end"})
        assert notebook.head() == head
        assert verify(notebook, head) == []


def test_ids_of_one_process_sort_in_the_order_in_which_they_were_made() -> None:
    ids = [store.new_id() for _ in range(2000)]
    assert ids == sorted(set(ids))
    assert {len(one) for one in ids} == {26}


def test_numbers_are_hashed_as_the_file_gives_them_back(place: Place) -> None:
    with Notebook(place) as notebook:
        run = start(notebook)
        done = notebook.begin_experiment(run, ExperimentSpec("look", "s", {}))
        notebook.end_experiment(done.id, {}, spent=(1, 2))  # whole numbers in columns of floats
        assert verify(notebook) == []


# What the database refuses


STATES = ("proposed", "registered", "testing", "supported", "partial", "refuted", "unresolved", "stale", "withdrawn",
          "untestable", "superseded")  # fmt: skip
VERDICTS = STATES[3:7]
MOVES = (
    {("proposed", "registered"), ("registered", "testing"), ("stale", "testing")}
    | {(before, "withdrawn") for before in ("proposed", "registered")}
    | {(before, "untestable") for before in ("proposed", "registered")}
    | {("testing", verdict) for verdict in VERDICTS}
    | {(verdict, "stale") for verdict in VERDICTS}
    | {(state, "superseded") for state in STATES[:8]}
)


def hypothesis_in(notebook: Notebook, state: str) -> tuple[str, str]:
    """A hypothesis in a state, and a verdict on it or on another one."""
    run = start(notebook)
    verdict = judged(notebook, run, claim(notebook, run, "other"), case_of(0.9, (1.0,) * 20))["verdict"]
    hypothesis = claim(notebook, run, "this")
    ways = {"proposed": (), "registered": ("registered",), "testing": ("registered", "testing"),
            "stale": ("registered", "testing", "unresolved", "stale"), "withdrawn": ("withdrawn",),
            "untestable": ("untestable",), "superseded": ("superseded",)}  # fmt: skip
    for to in ways.get(state, ("registered", "testing", state)):
        notebook.move(hypothesis, to, verdict=verdict)
    return hypothesis, verdict


def test_the_moves_that_the_code_lists_are_those_of_the_specification() -> None:
    assert set(schema.TRANSITIONS) == MOVES


@pytest.mark.parametrize("state", STATES)
def test_a_hypothesis_moves_only_as_allowed(place: Place, state: str) -> None:
    with Notebook(place) as notebook:
        hypothesis, verdict = hypothesis_in(notebook, state)
        allowed = set()
        for to in STATES:
            seen = len(notebook.rows(sa.select(schema.hypothesis_status)))
            try:
                with notebook._writing():
                    notebook._move(hypothesis, to, verdict, "")
                    allowed.add(to)
                    raise UserError("undo")
            except (IntegrityError, UserError):
                pass
            assert len(notebook.rows(sa.select(schema.hypothesis_status))) == seen
        assert allowed == {to for before, to in MOVES if before == state}


@pytest.mark.parametrize("state", ["supported", "partial", "refuted"])
def test_a_decided_state_needs_a_verdict(place: Place, state: str) -> None:
    with Notebook(place) as notebook:
        hypothesis, _ = hypothesis_in(notebook, "testing")
        with pytest.raises(IntegrityError):
            notebook.move(hypothesis, state)


BAD_STEPS = {
    "a gap": {"seq": 3, "prev_seq": 2, "from_state": "registered", "to_state": "testing"},
    "a second start": {"seq": 0, "prev_seq": None, "from_state": None, "to_state": "proposed"},
    "another start": {"seq": 2, "prev_seq": None, "from_state": None, "to_state": "proposed"},
    "a state it is not in": {"seq": 2, "prev_seq": 1, "from_state": "testing", "to_state": "unresolved"},
    "a fork": {"seq": 1, "prev_seq": 0, "from_state": "proposed", "to_state": "withdrawn"},
    "a step over one": {"seq": 2, "prev_seq": 0, "from_state": "proposed", "to_state": "withdrawn"},
}


@pytest.mark.parametrize("step", BAD_STEPS)
def test_the_status_chain_has_no_gap_fork_or_second_start(place: Place, step: str) -> None:
    with Notebook(place) as notebook:
        hypothesis, _ = hypothesis_in(notebook, "registered")
        row = {"hypothesis": hypothesis, "reason": "", **BAD_STEPS[step]}
        with pytest.raises(IntegrityError), notebook._writing():
            notebook._insert(schema.hypothesis_status, row)


REFUSED = {
    "an interval upside down": ("evidence", {"ci_low": 0.9, "ci_high": 0.1}),
    "half an interval": ("evidence", {"ci_low": 0.9}),
    "evidence of no experiment": ("evidence", {"experiment": "none"}),
    "a call's end with neither answer nor error": ("llm_call_end", {"response": None}),
    "a call's end with both": ("llm_call_end", {"error": "x"}),
    "a call of no batch": ("llm_call", {"batch": "none"}),
    "a batch sent twice": ("llm_batch_sent", {}),
    "a batch ended twice": ("llm_batch_end", {}),
    "an unknown verdict": ("verdict", {"outcome": "PROVED"}),
    "an unknown side": ("hypothesis", {"side": "both"}),
    "a unit without a sign": ("unit", {"sign": 0, "address": "1.8"}),
    "a unit twice": ("unit", {}),
    "a block opened twice": ("block_opened", {}),
    "a hypothesis twice": ("hypothesis", {}),
    "an experiment ended twice": ("experiment_end", {}),
    "a run's end that is none": ("run_end", {"outcome": "fine"}),
    "a review that is none": ("review", {"verb": "erase"}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_database_refuses(place: Place, filled: dict[str, str], what: str) -> None:
    name, change = REFUSED[what]
    table = schema.metadata.tables[name]
    with Notebook(place) as notebook:
        row = dict(notebook.rows(sa.select(table))[0]) if name != "review" else REVIEW
        if name == "evidence":
            row |= {"ci_low": None, "ci_high": None}
        with pytest.raises(IntegrityError), notebook._writing():
            notebook._insert(table, {**row, "id": store.new_id(), **change})


def test_an_error_calls_no_tools(place: Place, filled: dict[str, str]) -> None:
    with Notebook(place) as notebook:
        call = notebook.begin_call(filled["run"], CALL)
        with pytest.raises(IntegrityError, match=r"(?i)check"):
            notebook.end_call(call, {"error": "x", "calls": "[]", "seconds": 1.0})
        notebook.end_call(call, {"response": "", "calls": "[]", "seconds": 1.0})


# Once


def test_a_finished_experiment_is_not_begun_again(place: Place) -> None:
    spec = ExperimentSpec("look", "s" * 64, {"unit": "1.7"})
    with Notebook(place) as notebook:
        run, other = start(notebook), start(notebook)
        first = notebook.begin_experiment(run, spec)
        assert notebook.begin_experiment(run, spec).finished is None  # begun and killed: it is done again
        notebook.end_experiment(first.id, {"answer": 1})
        assert notebook.begin_experiment(run, spec) == stored(first.id)
        assert notebook.begin_experiment(other, spec) == stored(first.id)
        assert notebook.begin_experiment(run, spec, fresh=True) == stored(first.id)
        assert notebook.begin_experiment(other, spec, fresh=True).finished is None  # measured anew in another run


def stored(identifier: str) -> Started:
    return Started(identifier, {"answer": 1}, ())


@pytest.mark.parametrize("change", ["tool", "tool_sha256", "args", "seed", "corpus", "target"])
def test_an_experiment_with_another_input_is_another_one(place: Place, change: str) -> None:
    values = {"tool": "look", "tool_sha256": "s", "args": {"unit": "1.7"}, "seed": 0}
    others = {"tool": "see", "tool_sha256": "z", "args": {"unit": "1.8"}, "seed": 1}
    with Notebook(place) as notebook:
        run = start(notebook)
        notebook.end_experiment(notebook.begin_experiment(run, ExperimentSpec(**values)).id, {})
        if change == "corpus":
            run = notebook.start_run(made["CONFIG"], made["TARGET"], ("texts", "d" * 64, 1000))
        elif change == "target":
            run = notebook.start_run(made["CONFIG"], replace(made["TARGET"], dtype="float16"), made["CORPUS"])
        else:
            values[change] = others[change]
        assert notebook.begin_experiment(run, ExperimentSpec(**values)).finished is None


def test_a_failed_experiment_is_no_result(place: Place) -> None:
    spec = ExperimentSpec("look", "s", {})
    with Notebook(place) as notebook:
        run = start(notebook)
        notebook.end_experiment(notebook.begin_experiment(run, spec).id, None, error="broken")
        assert notebook.begin_experiment(run, spec).finished is None


def test_hypotheses_predictions_verdicts_and_outcomes_are_recorded_once(place: Place) -> None:
    with Notebook(place) as notebook:
        run = start(notebook)
        case = case_of(0.9, (1.0,) * 20)
        for _ in range(2):
            hypothesis = claim(notebook, run, "cat")
            row = {
                "metric": "f1",
                "comparator": ">",
                "threshold": 0,
                "baseline": "b",
                "split": "confirm/0",
                "payload": {},
            }
            prediction = notebook.register(hypothesis, row)
            done = notebook.begin_experiment(run, ExperimentSpec("test", "s", {}), prediction=prediction)
            if done.finished is None:
                notebook.end_experiment(done.id, {})
            notebook.verdict(prediction, case, decide(case), [])
            notebook.outcome(run, UNIT, "writes", "ABSTAINED", "too rare")
        for table in (schema.hypothesis, schema.prediction, schema.experiment, schema.verdict, schema.outcome):
            assert len(notebook.rows(sa.select(table))) == 1
        assert queries.states(notebook, [hypothesis]) == {hypothesis: "supported"}


def test_a_block_is_opened_once_and_three_are_all(place: Place) -> None:
    with Notebook(place) as notebook:
        first, second = start(notebook), start(notebook)
        opened = [notebook.open_block(run, UNIT, "reads") for run in (first, second, first, second)]
        assert opened == [0, 1, 2, None]
        assert notebook.open_block(first, UNIT, "writes") == 0
        assert queries.opened_blocks(notebook, first, UNIT.address, "reads") == [0, 2]


def test_a_call_that_was_begun_and_never_ended_marks_the_next_one(place: Place) -> None:
    with Notebook(place) as notebook:
        run = start(notebook)
        lost = notebook.begin_call(run, CALL)
        sent = notebook.begin_call(run, CALL)
        notebook.end_call(sent, REPLY)
        other = notebook.begin_call(run, {**CALL, "request_sha256": "q" * 64})
        notebook.end_call(other, {"error": "timed out", "seconds": 2.0})
        retried = notebook.begin_call(run, {**CALL, "request_sha256": "q" * 64})
        marks = {row["id"]: row["maybe_billed_twice"] for row in queries.calls(notebook, run)}
        assert marks == {lost: None, sent: lost, other: None, retried: None}
        assert queries.earlier_reply(notebook, "r" * 64, {"stop"})["response"] == "{}"
        assert queries.earlier_reply(notebook, "q" * 64, {"stop"}) is None


def test_two_writers_at_once_leave_one_chain(place: Place) -> None:
    Notebook(place).close()

    def write() -> None:
        with Notebook(place) as notebook:
            run = start(notebook)
            for name in range(15):
                claim(notebook, run, str(name))

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Notebook(place, read_only=True) as notebook:
        assert verify(notebook) == []
        assert len(notebook.rows(sa.select(schema.hypothesis))) == 45


def test_a_reader_is_not_disturbed_by_a_writer(place: Place, filled: dict[str, str]) -> None:
    with Notebook(place) as writer, Notebook(place, read_only=True) as reader, writer._writing():
        writer._insert(schema.run_end, {"id": "x", "run": filled["run"], "outcome": "error", "reason": "", "cost": "{}",
                                        "ended": "now"})  # fmt: skip
        assert verify(reader) == []
        assert queries.find_run(reader, filled["run"])["end"]["outcome"] == "answered"


# Reading back


def test_what_was_recorded_is_read_back(place: Place, filled: dict[str, str]) -> None:
    with Notebook(place, read_only=True) as notebook:
        rows = {row["claim"]: row for row in queries.hypotheses(notebook, filled["run"])}
        assert [row["status"] for row in rows.values()] == ["supported", "refuted", "proposed"]
        (verdict,) = rows['fires on "cat"']["verdicts"]
        assert verdict["case"]["f1"] == 0.9
        assert [e["value"] for e in verdict["evidence"]] == [0.9]
        steps = queries.experiments(notebook, filled["run"])
        assert [step["end"]["outcome"] for step in steps] == ["ok", "ok", "failed"]
        assert steps[0]["result"]["payload"]["places"] == 80
        (listed,) = queries.runs(notebook)
        assert (listed["id"], listed["outcome"], listed["target"]) == (filled["run"], "answered", "tiny")


def test_hypotheses_take_the_same_number_of_queries_however_many_there_are(place: Place) -> None:
    with Notebook(place) as notebook:
        asked: list[str] = []
        sa.event.listen(notebook._engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
        counts = []
        for n in (2, 40):
            run = start(notebook)
            unit = Unit("neuron", 1, n)
            for name in range(n):
                hypothesis = claim(notebook, run, str(name), unit=unit)
                if name < 2:
                    judged(notebook, run, hypothesis, case_of(0.9, (1.0,) * 20), unit=unit)
            asked.clear()
            assert len(queries.hypotheses(notebook, run)) == n
            counts.append(len(asked))
        assert counts[0] == counts[1] < 20


@pytest.mark.parametrize(
    ("words", "found"),
    [("", 3), ("fires", 3), ("CAT", 1), ("status:supported", 1), ("status:REFUTED fires", 1), ("unit:1.7", 3),
     ("unit:1.8", 0), ("layer:1 side:reads author:grammar", 3), ("%", 0), ("note:cat", 0)],
)  # fmt: skip
def test_claims_are_found_by_words_and_facets(place: Place, filled: dict[str, str], words: str, found: int) -> None:
    with Notebook(place, read_only=True) as notebook:
        assert len(search(notebook, words)) == found


def test_earlier_findings_on_a_unit_are_recalled_and_no_others(place: Place) -> None:
    with Notebook(place) as notebook:
        first = start(notebook)
        judged(notebook, first, claim(notebook, first, "cat"), case_of(0.9, (1.0,) * 20))
        claim(notebook, first, "mouse")  # without a verdict
        other = Unit("neuron", 1, 8)
        judged(notebook, first, claim(notebook, first, "dog", unit=other), case_of(0.2, (-1.0,) * 20), unit=other)
        second = start(notebook)
        judged(notebook, second, claim(notebook, second, "cow"), case_of(0.2, (-1.0,) * 20))
        found = earlier_findings(notebook, second, UNIT, "s" * 64)
        assert [(f.status, f.claim, f.run, f.same_inputs) for f in found] == [
            ("SUPPORTED", 'fires on "cat"', first, True)
        ]
        third = start(notebook)
        assert [f.run for f in earlier_findings(notebook, third, UNIT, "s" * 64)] == [first, second]
        assert [f.same_inputs for f in earlier_findings(notebook, third, UNIT, "z" * 64)] == [False, False]


# Versions


@pytest.mark.parametrize("file", sorted(DATA.glob("notebook-schema-*.db")), ids=lambda file: file.stem)
def test_a_notebook_of_each_released_schema_is_opened_migrated_and_whole(file: Path, path: Path) -> None:
    path.write_bytes(file.read_bytes())
    head = file.with_suffix(".head").read_text(encoding="utf-8").strip()
    with Notebook(path) as notebook:
        assert verify(notebook, head) == []
        (run,) = queries.runs(notebook)
        assert [row["status"] for row in queries.hypotheses(notebook, run["id"])] == [
            "supported",
            "refuted",
            "proposed",
        ]
        again = start(notebook)
        judged(notebook, again, claim(notebook, again, "cow"), case_of(0.2, (-1.0,) * 20))
        assert verify(notebook, head) == []


def test_a_call_that_repeats_a_lost_one_is_kept_by_the_migration_that_adds_batches(path: Path) -> None:
    file = DATA / "notebook-schema-3.db"
    path.write_bytes(file.read_bytes())
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    first = dict(connection.execute("SELECT * FROM llm_call").fetchone())
    last = dict(connection.execute("SELECT seq, sha256 FROM ledger ORDER BY seq DESC LIMIT 1").fetchone())
    row = {**first, "id": "0" * 26, "maybe_billed_twice": first["id"]}  # sorts before the one that it refers to
    digest, seq = ledger.row_hash(row), last["seq"] + 1
    line = ledger.line_hash(seq, "llm_call", row["id"], digest, last["sha256"])
    for table, values in (
        ("llm_call", tuple(row.values())),
        ("ledger", (seq, "llm_call", row["id"], digest, last["sha256"], line)),
    ):
        connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
    connection.commit()
    connection.close()
    with Notebook(path) as notebook:
        assert verify(notebook, file.with_suffix(".head").read_text(encoding="utf-8").strip()) == []
        assert verify(notebook, f"{seq}:{line}") == []
        kept = {call["id"]: call["maybe_billed_twice"] for call in queries.calls(notebook, first["run"])}
        assert kept == {first["id"]: None, row["id"]: first["id"]}
        with pytest.raises(IntegrityError), notebook._writing():
            notebook._insert(schema.llm_call, {**row, "id": store.new_id(), "maybe_billed_twice": "none"})


def test_each_migration_has_a_notebook_of_its_schema() -> None:
    numbers = [number for number, _ in migrations.MIGRATIONS["sqlite"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {file.stem for file in DATA.glob("*.db")} == {f"notebook-schema-{number}" for number in numbers}


def test_the_migrations_together_make_the_tables_that_the_code_knows(path: Path) -> None:
    Notebook(path).close()
    connection = sqlite3.connect(path)
    tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    made_by_migrations = {
        sql for name, sql in tables if not name.startswith("claim_words_")
    }  # what FTS5 makes for itself
    moves = set(connection.execute("SELECT from_state, to_state FROM allowed_transition"))
    connection.close()
    wanted = statements("sqlite")
    assert made_by_migrations == {sql for sql in wanted if sql.startswith("CREATE")}
    assert moves == set(schema.TRANSITIONS)


def test_the_source_of_each_migration_is_recorded(place: Place) -> None:
    with Notebook(place) as notebook:
        kind = notebook._database.kind
        rows = notebook.rows(sa.select(schema.schema_migration).order_by(schema.schema_migration.c.number))
    wanted = migrations.MIGRATIONS[kind]
    assert [(row["number"], row["name"]) for row in rows] == list(wanted)
    assert [row["source_sha256"] for row in rows] == [migrations.source_sha256(kind, *one) for one in wanted]
    assert all(datetime.datetime.fromisoformat(row["applied"]).tzinfo is not None for row in rows)


def test_a_later_migration_is_applied_once_and_keeps_the_rows(
    place: Place, filled: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Notebook(place, read_only=True) as notebook:
        kind = notebook._database.kind
    known = migrations.MIGRATIONS[kind]
    later = known[-1][0] + 1
    shutil.copytree(migrations.FOLDER, tmp_path / "sql")
    monkeypatch.setattr(migrations, "FOLDER", tmp_path / "sql")
    notes = "CREATE TABLE note (id TEXT)\n\nCREATE INDEX note_by_id ON note (id)\n"
    migrations.file_of(kind, later, "notes").write_text(notes)
    monkeypatch.setitem(migrations.MIGRATIONS, kind, (*known, (later, "notes")))
    with pytest.raises(UserError, match="must be upgraded first"):
        Notebook(place, read_only=True)
    for _ in range(2):
        with Notebook(place) as notebook:
            applied = notebook.rows(sa.select(schema.schema_migration.c.number))
            assert sorted(row["number"] for row in applied) == [*(number for number, _ in known), later]
            assert len(queries.runs(notebook)) == 1
            assert verify(notebook) == []


def test_the_tables_on_a_server_are_those_that_the_code_knows() -> None:
    """The text of each migration is frozen; all of them together are the tables of the code."""
    made_by_migrations = [
        statement
        for number, name in migrations.MIGRATIONS["postgresql"]
        for statement in migrations.source_of("postgresql", number, name).strip().split("\n\n")
    ]
    assert sorted(made_by_migrations) == sorted(statements("postgresql"))


def test_both_databases_hold_the_same_tables_columns_keys_and_conditions(tmp_path: Path, server: Any) -> None:
    """Read back from the databases themselves; on a server one uniqueness is an index, since long texts have none."""
    found = []
    with server.place() as on_server:
        for place in (File(tmp_path / "n.db"), on_server):
            with Notebook(place) as notebook, notebook.snapshot():
                looked = sa.inspect(notebook._db)
                names = [
                    one for one in sorted(looked.get_table_names()) if not one.startswith("claim_")
                ]  # the search index
                found.append({table: shape(looked, table) for table in names})
    assert found[0] == found[1]


def shape(looked: sa.Inspector, table: str) -> dict[str, object]:
    indexes = {(one["name"], tuple(one["column_names"])) for one in looked.get_indexes(table) if not one["unique"]}
    foreign = {
        (tuple(one["constrained_columns"]), one["referred_table"], tuple(one["referred_columns"]))
        for one in looked.get_foreign_keys(table)
    }
    unique = {tuple(one["column_names"]) for one in looked.get_unique_constraints(table)}
    return {
        "columns": [(one["name"], one["nullable"]) for one in looked.get_columns(table)],
        "key": looked.get_pk_constraint(table)["constrained_columns"],
        "conditions": len(looked.get_check_constraints(table)),
        "unique": unique - {("run", "unit", "side", "predicate", "author")},
        "indexes": indexes,
        "foreign": foreign,
    }


def test_another_corpus_does_not_make_the_prompts_of_a_circuit_fresh(place: Place) -> None:
    task = Unit.of_task("months")
    with Notebook(place) as notebook:
        runs = [notebook.start_run(made["CONFIG"], made["TARGET"], (name, name * 64, 1000)) for name in ("a", "b")]
        assert [notebook.open_block(run, task, "circuit") for run in (*runs, *runs)] == [0, 1, 2, None]
        assert [notebook.open_block(run, UNIT, "reads") for run in runs] == [0, 0]


def test_items_may_change_and_are_no_part_of_the_ledger(place: Place, filled: dict[str, str]) -> None:
    with Notebook(place) as notebook:
        head = notebook.head()
        leased = notebook.lease(filled["run"], "me", now=0.0, until=1e9 + 0.5, limit=9, alive=lambda _: True)
        assert [(one.address, one.null_kind, one.state) for one in leased] == [
            ("1.7", None, "leased"),
            ("1.8", "shuffled", "leased"),
        ]
        notebook.end_item(leased[1], "skipped", "dead")
        assert notebook.item_counts(filled["run"]) == {("leased", False): 1, ("skipped", True): 1}
        assert notebook.head() == head
        assert verify(notebook, head) == []
        assert notebook.items(filled["run"])[0].lease_until == 1e9 + 0.5
        with pytest.raises(IntegrityError), notebook._writing():
            notebook._db.execute(schema.item.update().values(state="leased", owner=None))

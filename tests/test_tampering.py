"""Each kind of tampering with a notebook is named by `verify`; what it cannot see alone shows against the printed head."""

import contextlib
import json
import runpy
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from neuronaut.memory import ledger, schema
from neuronaut.memory.database import Kind
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, Place
from neuronaut.memory.statements import statements
from neuronaut.memory.store import primary_key
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError

made = runpy.run_path(str(Path(__file__).parent / "data" / "make_notebook.py"))


class Intruder:
    """Someone who may do everything to a notebook, past its triggers and references, with `?` for values in both databases."""

    def __init__(self, place: Place) -> None:
        self.kind: Kind = "sqlite" if isinstance(place, File) else "postgresql"
        if isinstance(place, File):
            self.connection: Any = sqlite3.connect(place.path, isolation_level=None)
            for (name,) in self.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                self.execute(f"DROP TRIGGER {name}")
        else:
            self.connection = psycopg.connect(place.url, autocommit=True)
            self.execute("SET session_replication_role = replica")  # no references are checked
            for name, table in self.execute(
                "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"
            ):
                self.execute(f"DROP TRIGGER {name} ON {table}")

    def execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        """A cursor with the rows."""
        if self.kind == "postgresql":
            return self.connection.execute(statement.replace("?", "%s"), values or None)
        return self.connection.execute(statement, values)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def seal(self) -> None:
        """Put the triggers back."""
        for statement in statements(self.kind):
            if "TRIGGER" in statement and "CREATE FUNCTION" not in statement:
                self.execute(statement)


@pytest.fixture
def notebook(place: Place) -> Place:
    made["fill"](place)
    return place


@pytest.fixture
def attack(notebook: Place) -> Iterator[Intruder]:
    """The notebook without what guards it; `seal` puts that back."""
    with contextlib.closing(Intruder(notebook)) as intruder:
        yield intruder


def problems(place: Place, head: str | None = None) -> list[str]:
    with Notebook(place, read_only=True) as opened:
        return verify(opened, head)


def head(place: Place) -> str:
    with Notebook(place, read_only=True) as opened:
        return opened.head()


def forge_ledger(intruder: Intruder) -> None:
    """Write the whole ledger anew for the rows that are there, as someone who knows the code would."""
    rows = {table.name: table for table in schema.RECORDS}
    lines = intruder.execute("SELECT seq, table_name, row_id FROM ledger ORDER BY seq").fetchall()
    prev = ledger.GENESIS
    for seq, table, key in lines:
        names = [column.name for column in rows[table].columns]
        listed = ", ".join(f'"{name}"' for name in names)
        keys = primary_key(rows[table])
        found = [dict(zip(names, values, strict=True)) for values in intruder.execute(f"SELECT {listed} FROM {table}")]
        digest = next(ledger.row_hash(row) for row in found if ledger.row_key(row, keys) == key)
        line = ledger.line_hash(seq, table, key, digest, prev)
        intruder.execute(
            "UPDATE ledger SET row_sha256 = ?, prev_sha256 = ?, sha256 = ? WHERE seq = ?", (digest, prev, line, seq)
        )
        prev = line


def test_an_untouched_notebook_is_whole(notebook: Place) -> None:
    assert problems(notebook, head(notebook)) == []


def test_a_neuron_of_the_same_name_in_another_model_has_blocks_of_its_own(notebook: Place) -> None:
    with Notebook(notebook) as opened:
        run = opened.start_run(
            made["CONFIG"], replace(made["TARGET"], name="other", weights_sha256="v" * 64), made["CORPUS"]
        )
        made["judged"](opened, run, made["claim"](opened, run, "cow"), made["case_of"](0.9, (1.0,) * 20))
    assert problems(notebook, head(notebook)) == []


ALTERED = {
    "evidence": "UPDATE evidence SET value = 0.99",
    "run": "UPDATE run SET question = 'another'",
    "verdict": "UPDATE verdict SET outcome = 'SUPPORTED' WHERE outcome = 'REFUTED'",
    "hypothesis_status": "UPDATE hypothesis_status SET to_state = 'supported' WHERE to_state = 'refuted'",
    "prediction": "UPDATE prediction SET threshold = 9e999",
    "experiment_end": "UPDATE experiment_end SET seconds = 'soon'",
    "llm_call": "UPDATE llm_call SET about = '1.8' WHERE about = '1.7'",
    "llm_call_end": "UPDATE llm_call_end SET usd_micro = NULL",
    "llm_call_end (tools)": "UPDATE llm_call_end SET calls = NULL",
    "llm_batch": "UPDATE llm_batch SET model = 'another'",
    "llm_batch_sent": "UPDATE llm_batch_sent SET remote = 'another'",
    "llm_batch_end": "UPDATE llm_batch_end SET outcome = 'expired'",
}

TYPED = {  # PostgreSQL keeps no value of another type than the column's
    "prediction": "UPDATE prediction SET threshold = 'Infinity'",
    "experiment_end": "UPDATE experiment_end SET seconds = 'NaN'",
}


@pytest.mark.parametrize("table", ALTERED)
def test_an_altered_value_is_named(notebook: Place, attack: Intruder, table: str) -> None:
    attack.execute(ALTERED[table] if attack.kind == "sqlite" else TYPED.get(table, ALTERED[table]))
    attack.seal()
    assert any(
        p.startswith(f"{table.split()[0]} ") and p.endswith("was altered after it was recorded")
        for p in problems(notebook)
    )


def test_a_dropped_row_is_named(notebook: Place, attack: Intruder) -> None:
    (key,) = attack.execute("SELECT id FROM evidence").fetchone()
    attack.execute("DELETE FROM evidence WHERE id = ?", (key,))
    attack.seal()
    assert f"evidence {key} was dropped: the ledger records it" in problems(notebook)


def test_an_unrecorded_row_is_named(notebook: Place, attack: Intruder) -> None:
    attack.execute("INSERT INTO review VALUES ('X', 'run', 'Y', 'someone', 'agree', '')")
    attack.seal()
    assert problems(notebook) == [
        "review X is not recorded in the ledger: it was added behind neuronaut's back",
    ]


def test_reordered_ledger_lines_are_named(notebook: Place, attack: Intruder) -> None:
    attack.execute("UPDATE ledger SET seq = -1 WHERE seq = 5")
    attack.execute("UPDATE ledger SET seq = 5 WHERE seq = 6")
    attack.execute("UPDATE ledger SET seq = 6 WHERE seq = -1")
    attack.seal()
    assert "ledger line 5 was altered or reordered: its hash does not follow from the line before" in problems(notebook)


def test_a_missing_ledger_line_is_named(notebook: Place, attack: Intruder) -> None:
    attack.execute("DELETE FROM ledger WHERE seq = 4")
    attack.seal()
    assert "ledger line 4 is missing (the next one is 5)" in problems(notebook)


@pytest.mark.parametrize("value", [b"{}", "text", 5])
def test_an_altered_artifact_is_named(notebook: Place, attack: Intruder, value: object) -> None:
    if attack.kind == "postgresql" and not isinstance(value, bytes):
        value = str(value).encode()
    (key,) = attack.execute("SELECT id FROM artifact").fetchone()
    attack.execute("UPDATE artifact SET content = ? WHERE id = ?", (value, key))
    attack.seal()
    assert f"artifact {key} was altered: its content has another hash" in problems(notebook)


def test_a_cut_tail_shows_only_against_the_head(notebook: Place, attack: Intruder) -> None:
    kept_outside = head(notebook)
    tail = attack.execute("SELECT seq, table_name, row_id FROM ledger ORDER BY seq DESC LIMIT 3").fetchall()
    for seq, table, key in tail:
        attack.execute(f"DELETE FROM {table} WHERE id = ?", (key,))
        attack.execute("DELETE FROM ledger WHERE seq = ?", (seq,))
    attack.seal()
    lines = int(kept_outside.split(":")[0])
    assert problems(notebook) == []
    assert problems(notebook, kept_outside) == [
        f"the tail was cut: the ledger has {lines - 3} lines, the head kept outside names line {lines}"
    ]


def test_a_full_rewrite_shows_only_against_the_head(notebook: Place, attack: Intruder) -> None:
    kept_outside = head(notebook)
    attack.execute("UPDATE run SET question = 'another'")
    forge_ledger(attack)
    attack.seal()
    (unlike,) = problems(notebook)
    assert "the search index differs from the records" in unlike
    with Notebook(notebook) as writer:
        writer.rebuild_index()
    line = kept_outside.split(":")[0]
    assert problems(notebook) == []
    found = problems(notebook, kept_outside)
    assert found == [f"the notebook was rewritten: line {line} has another hash than the head kept outside"]
    assert found == problems(notebook, kept_outside[: len(line) + 17] + "…")


def test_removed_triggers_are_named(notebook: Place, attack: Intruder) -> None:
    name = "evidence_no_update" if attack.kind == "sqlite" else "evidence_only_added"
    assert f"the trigger {name} was removed or changed" in problems(notebook)


@pytest.mark.parametrize("kept", ["", "5", "5:xyz", "-1:" + "0" * 64, "5:" + "a" * 15])
def test_what_is_no_head_is_said(notebook: Place, kept: str) -> None:
    if kept:
        assert "is no ledger head" in problems(notebook, kept)[0]
    else:
        assert problems(notebook, kept) == []


# What a rewritten ledger does not hide: science out of order, and verdicts that do not follow


def _earlier_experiment(intruder: Intruder) -> str:
    """The first experiment's line put before its prediction's."""
    (experiment, prediction) = intruder.execute(
        "SELECT id, prediction FROM experiment WHERE prediction IS NOT NULL"
    ).fetchone()
    seqs = [
        intruder.execute("SELECT seq FROM ledger WHERE row_id = ?", (key,)).fetchone()[0]
        for key in (prediction, experiment)
    ]
    for old, new in ((seqs[0], -1), (seqs[1], seqs[0]), (-1, seqs[1])):
        intruder.execute("UPDATE ledger SET seq = ? WHERE seq = ?", (new, old))
    return f"experiment {experiment} tested prediction {prediction}, which came after it"


def _borrowed_evidence(intruder: Intruder) -> str:
    """The second prediction judged by the evidence of the first one's experiment."""
    (first, second) = (row[0] for row in intruder.execute("SELECT id FROM verdict ORDER BY id"))
    intruder.execute(
        "UPDATE verdict_evidence SET evidence = (SELECT evidence FROM verdict_evidence WHERE verdict = ?) WHERE verdict = ?",
        (first, second),
    )
    key = intruder.execute("SELECT evidence FROM verdict_evidence WHERE verdict = ?", (second,)).fetchone()[0]
    intruder.execute(
        "UPDATE ledger SET row_id = ? WHERE table_name = 'verdict_evidence' AND row_id LIKE ?",
        (f"{second}/{key}", f"{second}%"),
    )
    return "was done with the answer in hand: it judged prediction"


def _better_number(intruder: Intruder) -> str:
    (key, case) = intruder.execute("SELECT id, \"case\" FROM verdict WHERE outcome = 'SUPPORTED'").fetchone()
    better = json.dumps({**json.loads(case), "f1": 0.97})
    intruder.execute('UPDATE verdict SET "case" = ? WHERE id = ?', (better, key))
    return f"verdict {key} rests on f1 0.97, measured was 0.9"


def _better_bets(intruder: Intruder) -> str:
    (key, case) = intruder.execute("SELECT id, \"case\" FROM verdict WHERE outcome = 'SUPPORTED'").fetchone()
    intruder.execute(
        'UPDATE verdict SET "case" = ? WHERE id = ?', (json.dumps({**json.loads(case), "bets": [1.0] * 30}), key)
    )
    return f"verdict {key} rests on bets"


def _other_outcome(intruder: Intruder) -> str:
    (key,) = intruder.execute("SELECT id FROM verdict WHERE outcome = 'REFUTED'").fetchone()
    intruder.execute("UPDATE verdict SET outcome = 'SUPPORTED' WHERE id = ?", (key,))
    return f"verdict {key} says SUPPORTED, but its case gives REFUTED"


def _unreadable_case(intruder: Intruder) -> str:
    (key,) = intruder.execute("SELECT id FROM verdict").fetchone()
    intruder.execute("UPDATE verdict SET \"case\" = 'no JSON' WHERE id = ?", (key,))
    return f"verdict {key} has a case that the rule cannot read"


def _other_status(intruder: Intruder) -> str:
    (key,) = intruder.execute("SELECT hypothesis FROM hypothesis_status WHERE to_state = 'supported'").fetchone()
    intruder.execute("UPDATE hypothesis_status SET to_state = 'partial' WHERE to_state = 'supported'")
    return f"hypothesis {key} is called partial, its verdict says SUPPORTED"


def _peeked(intruder: Intruder) -> str:
    (key,) = intruder.execute("SELECT id FROM experiment WHERE prediction IS NOT NULL").fetchone()
    intruder.execute("UPDATE experiment SET prediction = NULL WHERE id = ?", (key,))
    return f"experiment {key} looked at confirm block 0 without a registered prediction"


def _unopened(intruder: Intruder) -> str:
    (key, args) = intruder.execute("SELECT id, args FROM experiment WHERE prediction IS NOT NULL").fetchone()
    args = json.dumps({**json.loads(args), "block": 2})
    intruder.execute("UPDATE experiment SET args = ? WHERE id = ?", (args, key))
    return f"experiment {key} looked at confirm block 2 before it was opened for a test"


@pytest.mark.parametrize(
    "change",
    [_earlier_experiment, _borrowed_evidence, _better_number, _better_bets, _other_outcome, _unreadable_case,
     _other_status, _peeked, _unopened],
)  # fmt: skip
def test_science_out_of_order_shows_even_in_a_rewritten_ledger(
    notebook: Place, attack: Intruder, change: Callable[[Intruder], str]
) -> None:
    expected = change(attack)
    forge_ledger(attack)
    attack.seal()
    found = problems(notebook)
    assert any(expected in problem for problem in found), found


SERVER_ATTACKS = {
    "a trigger that refuses only sometimes": (
        ("DROP TRIGGER evidence_only_added ON evidence",
         "CREATE TRIGGER evidence_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON evidence FOR EACH STATEMENT "
         "WHEN (current_user = 'nobody') EXECUTE FUNCTION only_added()",
         "ALTER TABLE evidence ENABLE ALWAYS TRIGGER evidence_only_added"),
        "the trigger evidence_only_added was removed or changed",
    ),
    "a trigger that is switched off": (
        ("ALTER TABLE evidence DISABLE TRIGGER evidence_only_added",), "the trigger evidence_only_added was removed or changed",
    ),
    "a trigger that can be slept through": (
        ("ALTER TABLE evidence ENABLE TRIGGER evidence_only_added",), "the trigger evidence_only_added was removed or changed",
    ),
    "a function that refuses nothing": (
        ("CREATE OR REPLACE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$",),
        "the function only_added() was removed or changed",
    ),
    "a trigger of someone else": (
        ("CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
         "CREATE TRIGGER other BEFORE INSERT ON evidence FOR EACH ROW EXECUTE FUNCTION other()"),
        "the trigger other is not neuronaut's",
    ),
    "conditions that were not checked": (
        ("ALTER TABLE evidence ADD CONSTRAINT small CHECK (value < 0) NOT VALID",),
        "PostgreSQL does not vouch for small: it was not checked for all rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SERVER_ATTACKS)
def test_what_guards_the_rows_on_a_server_is_checked(server: Any, what: str) -> None:
    changes, expected = SERVER_ATTACKS[what]
    with server.place() as place:
        made["fill"](place)
        assert problems(place) == []
        with psycopg.connect(place.url, autocommit=True) as connection:
            for change in changes:
                connection.execute(change)
        assert expected in problems(place)


def test_a_change_of_any_byte_of_the_file_is_no_traceback_and_no_wrong_number(tmp_path: Path) -> None:
    """Every 2039th byte is turned over, one at a time; what reads differently must be refused."""
    whole = tmp_path / "n.db"
    made["fill"](whole)
    raw = whole.read_bytes()
    with Notebook(whole, read_only=True) as opened:
        before = opened.rows(schema.evidence.select().order_by(schema.evidence.c.id))
    torn = tmp_path / "torn.db"
    detected = 0
    for at in range(0, len(raw), 2039):
        torn.write_bytes(raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :])
        for left in ("-wal", "-shm"):
            torn.with_name(torn.name + left).unlink(missing_ok=True)
        try:
            found = problems(File(torn))
        except UserError:
            found = ["refused"]
        detected += bool(found)
        if not found:
            with Notebook(torn, read_only=True) as opened:
                assert opened.rows(schema.evidence.select().order_by(schema.evidence.c.id)) == before
    assert detected > 10

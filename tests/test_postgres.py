"""What is asked of a notebook on a PostgreSQL server beside what is asked of every notebook: the address, the server, writers."""

import itertools
import json
import os
import random
import runpy
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from neuronaut.memory import postgresql, queries, schema
from neuronaut.memory.evaluations import EvaluationKey, Evaluations
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, Place, Server, default_place, place_of
from neuronaut.memory.postgresql import escaped, unescaped
from neuronaut.memory.store import Store
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

made = runpy.run_path(str(Path(__file__).parent / "data" / "make_notebook.py"))
start, claim, judged, case_of = (made[name] for name in ("start", "claim", "judged", "case_of"))
HOSTILE = [
    "\0",
    "a\0b\0",
    "\x1a",
    "\x1a0",
    "\x1a\0\x1a\x1a0",
    "\\0 \\x00 %s %(x)s ' \" ; --",
    "𝄞\u202e\ufeff",
    "x" * 9000,
    "",
]


@pytest.fixture
def on_server(server: Any) -> Iterator[Server]:
    with server.place() as place:
        yield place


# Values


@given(st.text(alphabet=st.sampled_from(["\0", "\x1a", "0", "a"])))
def test_every_text_comes_back_from_a_form_without_nul(text: str) -> None:
    assert "\0" not in escaped(text)
    assert unescaped(escaped(text)) == text


def test_hostile_texts_numbers_and_bytes_come_back_and_have_the_same_hashes_in_both(
    tmp_path: Path, on_server: Server
) -> None:
    numbers = [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, 2.0**-1074 * 3]
    hashes = []
    for place in (File(tmp_path / "n.db"), on_server):
        with Notebook(place) as notebook:
            with notebook._writing():
                for number, text in enumerate(HOSTILE):
                    row = {"target_table": "run", "target_id": text, "author": "a", "verb": "agree", "reason": text}
                    notebook._insert(schema.review, {"id": f"{number}", **row})
                for number, value in enumerate(numbers):
                    row = {"suite": "s", "seed": 2**63 - 1 - number, "proposer": repr(value), "loop": "", "code_sha256": "",
                           "settings": "", "started": ""}  # fmt: skip
                    notebook._insert(schema.evaluation, {"id": f"{number}", **row})
            content = bytes(range(256)) * 3
            key = notebook.artifact(content, "application/octet-stream")
            started = notebook.begin_experiment(start(notebook), ExperimentSpec("look", "s", {}))
            spent = (numbers[3], numbers[2])
            notebook.end_experiment(started.id, {"texts": HOSTILE, "numbers": numbers}, spent=spent)
            assert verify(notebook) == []
            assert queries.artifact(notebook, key) == content
            reviews = notebook.rows(sa.select(schema.review).order_by(schema.review.c.id))
            assert [row["reason"] for row in reviews] == HOSTILE
            seeds = notebook.rows(sa.select(schema.evaluation.c.seed).order_by(schema.evaluation.c.id))
            assert [row["seed"] for row in seeds] == [2**63 - 1 - n for n in range(len(numbers))]
            (end,) = notebook.rows(sa.select(schema.experiment_end))
            assert (end["seconds"], end["forwards"]) == spent
            (step,) = queries.experiments(notebook, notebook.rows(sa.select(schema.run.c.id))[0]["id"])
            assert step["result"] == {"texts": HOSTILE, "numbers": numbers}
            of = sa.select(schema.ledger.c.row_sha256).where(schema.ledger.c.table_name.in_(["review", "evaluation"]))
            hashes.append([row["row_sha256"] for row in notebook.rows(of.order_by(schema.ledger.c.seq))])
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == len(HOSTILE) + len(numbers)


def test_a_number_of_more_than_64_bits_is_refused_with_a_sentence(place: Place) -> None:
    with Notebook(place) as notebook:
        call = notebook.begin_call(start(notebook), {"purpose": "p", "provider": "s", "model": "m", "request": "{}",
                                                     "request_sha256": "r"})  # fmt: skip
        with pytest.raises(UserError, match="is too large a number to be recorded"):
            notebook.end_call(call, {"response": "", "seconds": 1, "tokens_in": 2**63})
        notebook.end_call(call, {"response": "", "seconds": 1, "tokens_in": 2**63 - 1})


def test_a_claim_with_a_predicate_longer_than_an_index_takes_is_kept_once(place: Place) -> None:
    name = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))
    with Notebook(place) as notebook:
        run = start(notebook)
        assert claim(notebook, run, name) == claim(notebook, run, name) != claim(notebook, run, name + "x")


def test_rows_are_in_the_order_of_their_bytes_whatever_the_database_is_set_to(server: Any, tmp_path: Path) -> None:
    names = ["b", "B", "a", "_", "é", "Z", "-", "aa", "a b", "ß"]
    database = server.database("TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'")
    with psycopg.connect(server.url(database)) as connection:
        asked = connection.execute("SELECT x FROM unnest(%s::text[]) x ORDER BY x", [names]).fetchall()
    wanted = sorted(names, key=str.encode)
    assert [name for (name,) in asked] != wanted  # the database itself would order them otherwise
    for place in (File(tmp_path / "n.db"), Server(server.url(database))):
        with Evaluations(place) as benchmark:
            one = benchmark.begin(EvaluationKey("s", 0, "p", "l", "c"), {}).id
            for name in names:
                benchmark.add(one, {"case": name, "family": "f", "outcome": "ok"})
            assert [row["case"] for row in benchmark.done(one)] == wanted
            assert verify(benchmark) == []


# The address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql+psycopg://me:s3cret@host/db", "postgresql://me@host/db"),
        ("postgres://me:p%40s3cret:x@[::1]:5/db?sslmode=require&password=s3cret", "postgresql://me@[::1]:5/db?sslmode=require"),
        ("postgresql:///db?host=%2Frun&sslpassword=s3cret", "postgresql:///db?host=%2Frun"),
    ],
)  # fmt: skip
def test_a_place_is_shown_without_its_password(text: str, shown: str) -> None:
    place = place_of(text)
    assert str(place) == shown
    assert "s3cret" not in repr(place)
    assert place_of(str(place)) == place_of(shown)


def test_the_default_place_may_be_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEURONAUT_NOTEBOOK", "postgresql://me:s3cret@host/db")
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path))
    assert str(default_place()) == "postgresql://me@host/db"
    assert default_place().checkpoints.is_relative_to(tmp_path)


BAD_ADDRESSES = {
    "mysql://me:p%25w-canary@host/db": "'mysql' is no database that keeps notebooks: give a file, or postgresql://",
    "sqlite:///n.db": "'sqlite' is no database that keeps notebooks",
    "postgresql://me:canary@host:port/db": "the URL of the notebook cannot be read (it is not shown here)",
    "postgresql://me:canary@[::1/db": "the URL of the notebook cannot be read (it is not shown here)",
    "postgresql://me:canary@127.0.0.1:1/db": "cannot be reached (",
    "postgresql://me:canary@127.0.0.1:1/db?connect_timeout=soon": "cannot be reached (",
    "postgresql://me:canary@127.0.0.1:1/db?nonsense=1": "cannot be reached (",
}


@pytest.mark.parametrize("address", BAD_ADDRESSES)
@pytest.mark.parametrize("by", ["option", "variable"])
def test_an_address_that_leads_nowhere_is_one_sentence_without_its_password(
    neuronaut: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, address: str, by: str
) -> None:
    if by == "variable":
        monkeypatch.setenv("NEURONAUT_NOTEBOOK", address)
    for argv in (("search",), ("ask", "what does neuron 8.481 do"), ("verify",), ("resume", "x"), ("chat",)):
        said = neuronaut(*argv, *(("--notebook", address) if by == "option" else ()))
        assert said.code == 2
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert BAD_ADDRESSES[address] in said.err or argv == ("chat",)
        assert "canary" not in said.err


def test_over_tcp_a_password_lets_in_and_is_never_shown(
    server: Any, neuronaut: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    from urllib.parse import quote

    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / "cache"))
    password = runpy.run_path(str(Path(__file__).with_name("postgres_server.py")))["PASSWORD"]
    name = server.database()
    url, wrong = server.tcp_url(name, quote(password, safe="")), server.tcp_url(name, "wrong-canary")
    said = [neuronaut("ask", "neuron 1.8", *tiny, "--fast", "--json", "--notebook", url)]
    run = json.loads(said[0].out)["run"]
    assert f"postgresql://keeper@127.0.0.1:{server.port}/{name}" in said[0].out
    said += [neuronaut(*argv, "--notebook", url) for argv in (("show", run), ("verify",), ("doctor",), ("rerun", run))]
    assert [one.code for one in said] == [0] * 5
    assert "PostgreSQL " in said[3].out
    refused = neuronaut("ask", "neuron 1.8", *tiny, "--notebook", wrong)
    assert refused.code == 2
    assert "cannot be reached" in refused.err
    unknown = neuronaut("search", "--notebook", server.tcp_url("nowhere", quote(password, safe="")))
    assert "cannot be reached" in unknown.err
    assert 'database "nowhere" does not exist' in unknown.err
    texts = [text for one in [*said, refused, unknown] for text in (one.out, one.err)]
    with Store(Server(url)) as store:
        texts += [str(row) for table in schema.RECORDS for row in store.rows(sa.select(table))]
    texts += [file.read_bytes().decode(errors="replace") for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert not [text for text in texts if "canary" in text or quote(password, safe="") in text]


def test_without_psycopg_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "neuronaut.memory.postgresql")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"needs psycopg: pip install 'neuronaut\[postgres\]'"):
        Store(place_of("postgresql://me@127.0.0.1:1/db"))


def test_the_same_question_has_the_same_answer_on_a_server(
    neuronaut: Callable[..., Any],
    tiny: tuple[str, ...],
    on_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / "cache"))
    answers = []
    for place in (str(tmp_path / "n.db"), on_server.url):
        said = neuronaut("ask", "neuron 1.8", *tiny, "--json", "--notebook", place)
        assert said.code == 0, said.err
        found = json.loads(said.out)
        assert neuronaut("verify", "--notebook", place, "--head", found["ledger_head"]).code == 0
        assert neuronaut("resume", found["run"], "--notebook", place, "--json").out == said.out  # shown again
        judgements = [{name: one[name] for name in ("claim", "status", "reason")} for one in found["claims"]]
        answers.append((judgements, found["outcomes"], found["measured"], found["survive"]))
    assert answers[0] == answers[1]
    assert answers[0][0]


# The server


def test_a_database_of_another_encoding_is_refused(server: Any) -> None:
    database = server.database("TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(UserError, match="holds LATIN1 texts"):
        Store(Server(server.url(database)))


def test_a_database_of_something_else_or_of_newer_code_stays_as_it_was(server: Any, on_server: Server) -> None:
    database = server.database("TEMPLATE template0")
    server.sql("CREATE TABLE photo (name text)", database=database)
    for read_only in (True, False):
        with pytest.raises(UserError, match="is a database of something else"):
            Store(Server(server.url(database)), read_only=read_only)
    assert server.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database=database) == [(1,)]
    with psycopg.connect(on_server.url) as connection:
        connection.execute("INSERT INTO schema_migration VALUES (99, 'later', 'x', 'y')")
    with pytest.raises(UserError, match="made by a newer neuronaut"):
        Store(on_server)
    empty = Server(server.url(server.database("TEMPLATE template0")))
    with pytest.raises(UserError, match="is empty: ask a question first"):
        Store(empty, read_only=True)


def test_who_may_only_read_reads_and_is_told_why_nothing_is_recorded(server: Any, on_server: Server) -> None:
    head = made["fill"](on_server)
    with psycopg.connect(on_server.url) as connection:
        connection.execute("DROP ROLE IF EXISTS visitor")
        connection.execute("CREATE ROLE visitor LOGIN")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO visitor")
    visitor = Server(on_server.url.replace("keeper@", "visitor@"))
    with Notebook(visitor, read_only=True) as notebook:
        assert verify(notebook) == []
        assert queries.find_run(notebook, head["run"])["end"]["outcome"] == "answered"
    with Notebook(visitor) as notebook, pytest.raises(UserError, match="may not be used by this user: GRANT it"):
        start(notebook)
    with psycopg.connect(on_server.url) as connection:
        connection.execute("DROP OWNED BY visitor")
        connection.execute("DROP ROLE visitor")


def test_what_is_opened_for_reading_is_read_only_for_the_server_too(on_server: Server) -> None:
    with Notebook(on_server, read_only=True) as notebook:
        with pytest.raises(UserError, match="open for reading only"):
            start(notebook)
        notebook.read_only = False
        with pytest.raises(UserError, match="cannot be written to"):
            start(notebook)


def test_commits_are_on_disk_before_they_count_even_where_the_database_is_set_otherwise(
    server: Any, on_server: Server
) -> None:
    name = on_server.url.split("@/")[1].split("?")[0]
    server.sql(f"ALTER DATABASE {name} SET synchronous_commit = off", f"ALTER DATABASE {name} SET bytea_output = 'escape'",
               f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")  # fmt: skip
    with Notebook(on_server) as notebook:
        with notebook._writing():
            assert notebook._db.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
            assert notebook._db.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
        with notebook.snapshot():
            assert notebook._db.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "repeatable read"
        content = bytes(range(256))
        assert queries.artifact(notebook, notebook.artifact(content, "x")) == content


def test_a_snapshot_does_not_see_what_others_record_meanwhile(on_server: Server) -> None:
    with Notebook(on_server) as writer, Notebook(on_server) as reader:
        with reader.snapshot():
            assert len(queries.runs(reader)) == 0
            start(writer)
            assert len(queries.runs(reader)) == 0
            assert reader.head().startswith("0:")
        assert len(queries.runs(reader)) == 1


def test_a_connection_lost_in_mid_transaction_is_one_sentence_and_what_was_recorded_is_kept(
    server: Any, on_server: Server
) -> None:
    with Notebook(on_server) as notebook:
        run, head = start(notebook), notebook.head()
        with pytest.raises(UserError, match="what was recorded is kept") as caught:
            lose(notebook, run, server)
        assert "\n" not in str(caught.value)
        assert verify(notebook, head) == []  # the next use connects anew
        assert queries.hypotheses(notebook, run) == []
        judged(notebook, run, claim(notebook, run, "dog"), case_of(0.9, (1.0,) * 20))
        assert verify(notebook, head) == []


def lose(notebook: Notebook, run: str, server: Any) -> None:
    with notebook.together():
        claim(notebook, run, "cat")
        (pid,) = notebook._db.exec_driver_sql("SELECT pg_backend_pid()").one()
        server.sql(f"SELECT pg_terminate_backend({pid})")
        claim(notebook, run, "dog")


def test_a_writer_that_holds_the_lock_too_long_is_not_waited_for_for_ever(
    on_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "LOCK_SECONDS", 0.2)
    with Notebook(on_server) as holder, Notebook(on_server) as other:
        run = start(holder)
        with holder.together(), pytest.raises(UserError, match="is locked by another process"):
            other.end_run(run, "answered", "", {})
        other.end_run(run, "answered", "", {})


# Writers


def writer(place: Server, n: int) -> tuple[int, int]:
    """The id of a process that records n verdicts, each with all that it rests on, and a pipe that says so for each."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: none of them is in PostgreSQL
        pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        os.close(reading)
        with Notebook(place) as notebook:
            run = start(notebook)
            os.write(writing, b"r")
            for number in range(n):
                unit = Unit("neuron", 1, number)
                with notebook.together():
                    judged(notebook, run, claim(notebook, run, str(number)), case_of(0.9, (1.0,) * 20), unit=unit)
                    notebook.outcome(run, unit, "writes", "ABSTAINED", "x")
                os.write(writing, b".")
        code = 0
    finally:
        os._exit(code)


def test_two_processes_that_record_at_once_leave_one_whole_ledger(on_server: Server) -> None:
    processes = [writer(on_server, 20) for _ in range(2)]
    said = [b"".join(iter(lambda: os.read(reading, 100), b"")) for _, reading in processes]  # noqa: B023
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _ in processes] == [0, 0]
    assert said == [b"r" + b"." * 20] * 2
    with Notebook(on_server, read_only=True) as notebook:
        assert verify(notebook) == []
        assert len(notebook.rows(sa.select(schema.verdict))) == 40
        lines = notebook.rows(sa.select(schema.ledger.c.table_name).order_by(schema.ledger.c.seq))
        writers = notebook.rows(sa.select(schema.hypothesis.c.run).order_by(schema.hypothesis.c.id))
    assert len(lines) > 2 * 200
    turns = [row["run"] for row in writers]
    assert sum(one != other for one, other in itertools.pairwise(turns)) > 2  # they did work at once


@pytest.mark.parametrize("seed", range(4))
def test_a_writer_that_is_killed_leaves_no_half_and_no_lock(on_server: Server, seed: int) -> None:
    pid, reading = writer(on_server, 100_000)
    assert os.read(reading, 1) == b"r"
    for _ in range(2):
        assert os.read(reading, 1) == b"."
    time.sleep(random.Random(seed).uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    told = b"".join(iter(lambda: os.read(reading, 100), b"")).count(b".") + 2
    os.close(reading)
    with Notebook(on_server) as notebook:
        run = start(notebook)
        notebook.end_run(run, "answered", "", {})
        assert verify(notebook) == []
        n = {name: len(notebook.rows(sa.select(schema.metadata.tables[name]))) for name in ("verdict", "outcome")}
    assert n["verdict"] == n["outcome"] >= told

"""Claims are found by words and facets, a page at a time, alike in both databases; the records are trusted, the search index is not."""

import contextlib
import runpy
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from neuronaut.evals.many_claims import make
from neuronaut.evals.review_speed import Draws, measure, measures
from neuronaut.memory import queries, schema
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.judge import Decision
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, Place, Server
from neuronaut.memory.query_words import STATES, tokens_of
from neuronaut.memory.search import MOST_COUNTED, facet_counts, search_page
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import UserError
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.units import Unit

DATA = Path(__file__).parent / "data"
made = runpy.run_path(str(DATA / "make_notebook.py"))
HEAD = Unit("head", 2, 3)
CLAIMS = {  # name: unit, side, author, sentence
    "cat": (Unit("neuron", 1, 7), "reads", "grammar", 'fires on "cat" after a red car'),
    "category": (Unit("neuron", 1, 7), "reads", "grammar, openai:m", "fires on a category of cars"),
    "cafe": (Unit("neuron", 8, 481), "writes", "design effects", "raises “Café” – naïve_words, E=mc²"),
    "tokyo": (Unit("neuron", 8, 481, -1), "reads", "grammar", "東京都 and Москва, ΣΊΣΥΦΟΣ"),
    "head": (HEAD, "attends", "design attention", "looks at the token after 8.481 (car red)"),
    "task": (Unit.of_task("months"), "circuit", "pruning", "does the months"),
}  # fmt: skip


def fill(place: Place) -> dict[str, str]:
    """The ids of the claims by their names, one recorded after the other: a SUPPORTED and a REFUTED one among them."""
    with Notebook(place) as notebook:
        run = made["start"](notebook, {"question": "what is nowhere else", "seed": 0})
        ids = {}
        for name, (unit, side, author, claim) in CLAIMS.items():
            row = {"side": side, "claim": claim, "predicate": f'{{"of":"{name}"}}', "complexity": 1, "author": author}
            ids[name] = notebook.add_hypothesis(run, unit, row)
        made["judged"](notebook, run, ids["cat"], made["case_of"](0.9, (1.0,) * 20))
        made["judged"](notebook, run, ids["category"], made["case_of"](0.2, (-1.0,) * 20))
        notebook.move(ids["task"], "withdrawn", reason="said twice, by a bicycle")
        return {**ids, "run": run}


def found(place: Place, words: str) -> set[str]:
    """The names of the claims that match."""
    with Notebook(place, read_only=True) as notebook:
        sentences = {row["claim"] for row in search_page(notebook, words).rows}
    return {name for name, (*_, claim) in CLAIMS.items() if claim in sentences}


ALL = set(CLAIMS)
QUERIES = {
    "": ALL,
    "cat": {"cat", "category"},
    "cat fires": {"cat"},
    '"cat"': {"cat"},
    "CAT FIRES": {"cat"},
    "fires car": {"cat", "category"},
    '"red car"': {"cat"},
    '"car red"': {"head"},
    "car red": {"cat", "head"},
    "red-car": {"cat"},
    "cafe": {"cafe"},
    "CAFÉ": {"cafe"},
    "naive": {"cafe"},
    "naïve_wor": {"cafe"},
    "mc2": {"cafe"},
    "東京": {"tokyo"},
    "京都": {"tokyo"},
    "都東": set(),
    "москва": {"tokyo"},
    "моск": {"tokyo"},
    "σίσυφος": {"tokyo"},
    "σισυφοσ": {"tokyo"},
    "8.481": {"head"},
    "8.48": {"head"},
    "481 8": {"head"},
    '"481 8"': set(),
    "cat -category": {"cat"},
    "-cat -car": {"category", "cafe", "tokyo", "task"},
    '-"red car" car': {"category", "head"},
    "-fires": {"cafe", "tokyo", "head", "task"},
    "bicycle": {"task"},
    "nowhere": ALL,
    '"nowhere else"': ALL,
    '"cars what"': set(),
    "%": set(),
    "cat %": set(),
    "_": set(),
    "c*": {"cat", "category", "cafe", "head"},
    "status:supported": {"cat"},
    "status:REFUTED fires": {"category"},
    "-status:proposed": {"cat", "category", "task"},
    "status:withdrawn": {"task"},
    "side:reads": {"cat", "category", "tokyo"},
    "kind:head": {"head"},
    "kind:task": {"task"},
    "layer:1": {"cat", "category"},
    "layer:01": {"cat", "category"},
    "layer:0": set(),
    "unit:8.481": {"cafe"},
    "unit:8.481-": {"tokyo"},
    "unit:L2H3": {"head"},
    'unit:"head 2.3"': {"head"},
    "unit:task:months": {"task"},
    "author:openai:m": {"category"},
    "author:grammar": {"cat", "category", "tokyo"},
    'author:"design effects"': {"cafe"},
    "author:design": set(),
    "model:tiny": ALL,
    "model:TINY kind:head": {"head"},
    "model:tin": set(),
    "run:nothing": set(),
    "kind:neuron -layer:8": {"cat", "category"},
    "status:supported kind:head": set(),
    "note:cat": set(),
    "status:": set(),
    "what is": ALL,
    '"': set(),
    '""': set(),
    "-": set(),
    "cat OR head": set(),
    "NEAR(cat car)": set(),
    "cat AND NOT head": set(),
    "words:cat": set(),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, server: Any) -> Any:
    """The same claims in a file and on a server."""
    with server.place() as on_server:
        both = {"sqlite": File(tmp_path_factory.mktemp("find") / "n.db"), "postgresql": on_server}
        for one in both.values():
            fill(one)
        yield both


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("words", QUERIES)
def test_words_and_facets_find_the_same_claims_in_both_databases(
    places: dict[str, Place], kind: str, words: str
) -> None:
    assert found(places[kind], words) == QUERIES[words]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_query_raises_anything_but_a_sentence(places: dict[str, Place], kind: str) -> None:
    piece = st.sampled_from(
        [*"\"'*()-:^{\\é \0\x1a\ud800", "AND", "NEAR(", "status:", "layer:9999999999", "kind:x", "cat"]
    )
    hostile = st.one_of(
        st.text(max_size=60), st.lists(piece, max_size=30).map("".join), st.text("ab.-\"'", max_size=1200)
    )

    with Notebook(places[kind], read_only=True) as notebook:

        @settings(max_examples=150, deadline=None, database=None)
        @given(hostile)
        def asked(words: str) -> None:
            try:
                counted = facet_counts(notebook, words)
                page = search_page(notebook, words)
            except UserError:
                return
            assert sum(n for _, n in counted.counts["status"]) == len(page.rows)

        asked()


def test_both_databases_find_the_same_for_any_words(places: dict[str, Place]) -> None:
    said = sorted({token for *_, claim in CLAIMS.values() for token in claim.split()})
    words = [*said, "status:proposed", "kind:neuron", "what"]
    asked = st.lists(st.tuples(st.sampled_from(["", "-", '"']), st.sampled_from(words), st.integers(1, 9)), max_size=4)
    with (
        Notebook(places["sqlite"], read_only=True) as file,
        Notebook(places["postgresql"], read_only=True) as on_server,
    ):

        @settings(max_examples=150, deadline=None, database=None)
        @given(asked)
        def same(parts: list[tuple[str, str, int]]) -> None:
            query = " ".join(f"{mark}{word if ':' in word else word[:cut]}" for mark, word, cut in parts)
            answers = [[row["claim"] for row in search_page(one, query).rows] for one in (file, on_server)]
            assert answers[0] == answers[1], query

        same()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_words_that_begin_alike_have_tokens_that_begin_alike(one: str, other: str) -> None:
    """Otherwise the beginning of a word would not find it; and a token is nothing that a query language reads."""
    for token in tokens_of(one + other):
        assert token.isascii()
        assert token.isalnum()
        assert token == token.lower()
    plain = [word for word in one.split() if word.isalpha() and word.isascii()]
    for word in plain:
        (short,), (long,) = tokens_of(word), tokens_of(word + "zz")
        assert long.startswith(short)


@pytest.mark.parametrize(
    ("words", "said"),
    [("status:open", "supported"), ("side:left", "attends"), ("kind:mlp", "neuron, head, router, feature, task"), ("layer:x", "layer number"),
     ("layer:٣", "layer number"), ("-status:open", "supported"), ("x" * 1001, "at most 1,000"), ("a " * 33, "at most 32")],
)  # fmt: skip
def test_a_value_that_no_claim_can_have_is_refused_with_the_choices(
    places: dict[str, Place], words: str, said: str
) -> None:
    for place in places.values():
        for ask in (search_page, facet_counts):
            with Notebook(place, read_only=True) as notebook, pytest.raises(UserError, match=said):
                ask(notebook, words)


# Pages


def test_pages_hold_every_claim_once_and_do_not_shift_when_claims_are_added(place: Place) -> None:
    ids = fill(place)
    newest_first = [ids[name] for name in reversed(CLAIMS)]
    with Notebook(place) as notebook:
        seen, after = [], None
        while True:
            page = search_page(notebook, "nowhere", after=after, limit=2)
            seen += [row["id"] for row in page.rows]
            row = {"side": "reads", "claim": "nowhere", "predicate": "{}", "complexity": 1, "author": f"a{len(seen)}"}
            notebook.add_hypothesis(ids["run"], HEAD, row)
            if page.next is None:
                break
            after = page.next
        assert seen == newest_first
        with pytest.raises(UserError, match="begin with the first page"):
            search_page(notebook, "", after="nothing")


def test_runs_come_in_pages(place: Place) -> None:
    with Notebook(place) as notebook:
        runs = [made["start"](notebook, {"question": f"q {n}", "seed": 0}) for n in range(5)]
        first = queries.runs(notebook, limit=2)
        assert [row["id"] for row in first] == runs[:2:-1]
        assert [row["id"] for row in queries.runs(notebook, after=first[-1]["id"], limit=9)] == runs[2::-1]


def test_a_row_has_the_score_that_its_last_verdict_cites(place: Place) -> None:
    ids = fill(place)
    with Notebook(place) as notebook:
        bet = {
            "metric": "delta",
            "comparator": ">",
            "threshold": 0,
            "baseline": "",
            "split": "confirm/0",
            "payload": {},
        }
        prediction = notebook.register(ids["cafe"], bet)
        begun = notebook.begin_experiment(ids["run"], ExperimentSpec("test_writes", "s", {}), prediction=prediction)
        measured = [
            ("claim", Measurement("f1", 0.1, "share", 9)),
            ("claim", Measurement("delta", 1.25, "nats", 24, (1.0, 1.5), 0.1)),
        ]
        evidence = notebook.end_experiment(begun.id, {}, evidence=measured)
        notebook.verdict(prediction, made["case_of"](0.9, ()), Decision("SUPPORTED", "so", 9.0), evidence)
        rows = {row["id"]: row for row in search_page(notebook, "").rows}
    assert {name: rows[ids[name]]["score"] and (rows[ids[name]]["score"]["metric"], rows[ids[name]]["score"]["value"]) for name in CLAIMS} == {
        "cat": ("f1", 0.9), "category": ("f1", 0.2), "cafe": ("delta", 1.25), "tokyo": None, "head": None, "task": None,
    }  # fmt: skip
    assert rows[ids["cafe"]]["score"]["id"] == evidence[1]
    assert (rows[ids["cafe"]]["status"], rows[ids["cafe"]]["kind"], rows[ids["cafe"]]["layer"]) == (
        "supported",
        "neuron",
        8,
    )


# Counts


@pytest.mark.parametrize("words", ["", "status:proposed", "-side:reads", "fires", "kind:neuron car", "run:none", "%"])
def test_counts_are_those_of_the_claims_that_match(places: dict[str, Place], words: str) -> None:
    for place in places.values():
        with Notebook(place, read_only=True) as notebook:
            rows = search_page(notebook, words).rows
            counts, newest_only = facet_counts(notebook, words)
        assert newest_only is False
        for name in ("status", "side", "kind"):
            values = [row[name] for row in rows]
            assert dict(counts[name]) == {value: values.count(value) for value in values}
            assert [n for _, n in counts[name]] == sorted((n for _, n in counts[name]), reverse=True)
        layers = [str(row["layer"]) for row in rows if row["kind"] != "task"]
        assert dict(counts["layer"]) == {value: layers.count(value) for value in layers}


def test_counts_of_very_many_matches_say_that_they_are_of_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = File(tmp_path / "n.db")
    fill(place)
    monkeypatch.setattr("neuronaut.memory.search.MOST_COUNTED", 3)
    with Notebook(place, read_only=True) as notebook:
        counts, newest_only = facet_counts(notebook, "nowhere")
        assert (newest_only, dict(counts["kind"])) == (True, {"neuron": 1, "head": 1, "task": 1})
        assert facet_counts(notebook, "")[1] is False, "of facets alone all are counted"
        assert sum(n for _, n in facet_counts(notebook, "")[0]["kind"]) == len(CLAIMS)
    assert MOST_COUNTED >= 1_000


# The index is no record


def test_claims_are_found_inside_the_transaction_that_records_them_and_not_after_it_failed(place: Place) -> None:
    fill(place)
    row = {"side": "reads", "predicate": "{}", "complexity": 1, "author": "grammar"}
    with Notebook(place) as notebook:
        run = made["start"](notebook)
        with notebook.together():
            kept = notebook.add_hypothesis(run, HEAD, {**row, "claim": "a zebra"})
            assert [one["id"] for one in search_page(notebook, "zebra").rows] == [kept]
            notebook.move(kept, "withdrawn")
        with contextlib.suppress(ZeroDivisionError), notebook.together():
            notebook.add_hypothesis(run, HEAD, {**row, "claim": "a gnu", "author": "me"})
            assert len(search_page(notebook, "gnu").rows) == 1
            raise ZeroDivisionError
        assert search_page(notebook, "gnu").rows == ()
        assert [one["status"] for one in search_page(notebook, "zebra status:withdrawn").rows] == ["withdrawn"]
        assert search_page(notebook, "zebra status:proposed").rows == ()
        with pytest.raises(IntegrityError):
            notebook.move(kept, "supported")
        assert [one["status"] for one in search_page(notebook, "zebra").rows] == ["withdrawn"]
        assert dict(facet_counts(notebook, "")[0]["status"])["withdrawn"] == 2


def execute(place: Place, *statements: str) -> None:
    """Change a notebook from outside."""
    connection: Any = (
        psycopg.connect(place.url, autocommit=True)
        if isinstance(place, Server)
        else sqlite3.connect(str(place), isolation_level=None)
    )
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_dropped_index_is_said_and_made_anew_by_the_next_writer(place: Place) -> None:
    fill(place)
    before = {words: found(place, words) for words in ("cat", "status:withdrawn", "bicycle")}
    execute(
        place,
        *(["DROP TABLE claim_words"] if isinstance(place, File) else []),
        "DROP TABLE claim_index",
        "DROP TABLE claim_count",
    )
    with Notebook(place, read_only=True) as notebook:
        assert verify(notebook) == []
        for ask in (search_page, facet_counts):
            with pytest.raises(UserError, match="search --rebuild"):
                ask(notebook, "cat")
    Notebook(place).close()
    assert {words: found(place, words) for words in before} == before
    with Notebook(place, read_only=True) as notebook:
        assert dict(facet_counts(notebook, "")[0]["kind"]) == {"neuron": 4, "head": 1, "task": 1}


def test_a_claim_that_the_index_lacks_and_a_wrong_count_are_named(place: Place) -> None:
    fill(place)
    execute(place, "UPDATE claim_count SET n = n + 1")
    with Notebook(place, read_only=True) as notebook:
        assert [one.partition(":")[0] for one in verify(notebook)] == ["the search index counts its claims wrongly"]
    execute(place, "DELETE FROM claim_index WHERE n = 2")
    with Notebook(place, read_only=True) as notebook:
        assert [one.partition(":")[0] for one in verify(notebook)] == [
            "the search index differs from the records of 1 claims"
        ]
    with Notebook(place) as notebook:
        notebook.rebuild_index()
        assert verify(notebook) == []


@pytest.mark.parametrize("what", ["the index", "the record"])
def test_what_the_records_do_not_bear_out_is_refused(place: Place, what: str, neuronaut: Any) -> None:
    fill(place)
    if what == "the index":
        execute(place, "UPDATE claim_index SET words = replace(words, 'wcat ', 'wdog ') WHERE words LIKE '%wcat %'")
    elif isinstance(place, File):
        execute(
            place,
            "DROP TRIGGER hypothesis_no_update",
            "UPDATE hypothesis SET claim = 'sings' WHERE claim LIKE '%red car'",
        )
    else:
        execute(
            place,
            "DROP TRIGGER hypothesis_only_added ON hypothesis",
            "UPDATE hypothesis SET claim = 'sings' WHERE claim LIKE '%red car'",
        )
    with Notebook(place, read_only=True) as notebook:
        problems = verify(notebook)
        assert problems
        assert all(("search index differs" in one) is (what == "the index") for one in problems)
        with pytest.raises(UserError, match="does not fit the record of claim"):
            search_page(notebook, "status:supported")
    shown = place.url if isinstance(place, Server) else str(place)
    assert "fires on" in neuronaut("search", "--rebuild", "category", "--notebook", shown).out


@pytest.mark.parametrize("file", sorted(DATA.glob("notebook-schema-*.db")), ids=lambda file: file.stem)
def test_the_claims_of_older_notebooks_are_found_after_the_upgrade(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    path.write_bytes(file.read_bytes())
    Notebook(path).close()
    with Notebook(path, read_only=True) as notebook:
        assert [row["claim"] for row in search_page(notebook, "cat status:supported").rows] == ['fires on "cat"']
        assert dict(facet_counts(notebook, "")[0]["status"]) == {"supported": 1, "refuted": 1, "proposed": 1}


# At size


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """2,000 made-up claims."""
    place = File(tmp_path_factory.mktemp("many") / "n.db")
    make(place, 2_000)
    return place


def test_made_up_claims_are_whole_records(many: Place) -> None:
    with Notebook(many, read_only=True) as notebook:
        assert verify(notebook) == []
        assert dict(facet_counts(notebook, "")[0]["status"]) == {
            "proposed": 1200, "supported": 200, "refuted": 200, "unresolved": 200, "withdrawn": 200,
        }  # fmt: skip
        assert dict(facet_counts(notebook, "")[0]["kind"]) == {"neuron": 1960, "head": 40}


def test_made_up_claims_on_a_server_are_the_same(server: Any) -> None:
    with server.place() as place:
        make(place, 500)
        with Notebook(place, read_only=True) as notebook:
            assert verify(notebook) == []
            assert len(search_page(notebook, "status:supported fires", limit=100).rows) == 50


def test_every_query_of_the_pages_is_timed(many: Place) -> None:
    with Notebook(many, read_only=True) as notebook:
        timings = measure(notebook, repeats=2)
    assert {one.what for one in timings} >= {
        "index page with counts",
        "one word",
        "status:supported with counts",
        "trail of a run",
    }
    assert all(0 < one.p50 <= one.p95 for one in timings)
    assert not any(one.missed for one in timings), "two thousand claims are few"


def test_words_and_facets_are_looked_up_in_indexes(many: Place) -> None:
    """No plan reads a whole table, but the few rows of the counts and of units by nothing else than their key."""
    with Notebook(many, read_only=True) as notebook:
        asked: list[tuple[str, Any]] = []
        sa.event.listen(notebook._engine, "before_cursor_execute", lambda *args: asked.append((args[2], args[3])))
        for _, _, call in measures(notebook, Draws(notebook)):
            call()
        plans = set()
        with notebook.snapshot():
            for statement, values in asked:
                if statement.startswith("SELECT") and "sqlite_master" not in statement:
                    steps = notebook._db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
                    plans |= {str(step[3]) for step in steps}
    scans = {plan for plan in plans if plan.startswith("SCAN") and "VIRTUAL TABLE" not in plan and "USING" not in plan}
    assert scans <= {"SCAN claim_index", "SCAN claim_count", "SCAN run", "SCAN CONSTANT ROW"}
    assert any("claim_words VIRTUAL TABLE INDEX" in plan for plan in plans)
    assert not any("USE TEMP B-TREE FOR ORDER BY" in plan for plan in plans if "claim" in plan)


def test_each_status_is_a_facet() -> None:
    assert set(STATES) == {state for step in schema.TRANSITIONS for state in step}

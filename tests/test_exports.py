"""Exports hold what the notebook holds, as other programs read it, and nothing that a spreadsheet would run."""

import gzip
import json
import math
import runpy
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronaut.agent.exporting.delphi import write_scores
from neuronaut.agent.scores.asked import Detection
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.export import COLUMNS, flat_rows
from neuronaut.memory.tables import TYPES, guarded, storable, unguarded, write_table
from neuronaut.tools.errors import UserError
from neuronaut.tools.learn.arithmetic import estimate
from neuronaut.tools.units import Unit

Book = runpy.run_path(str(Path(__file__).with_name("filled_notebook.py")))["Book"]
HOSTILE = (
    "=HYPERLINK(\"http://x\",\"y\")", "+1", "-1+1", "@SUM(A1)", "\t=1", "'quoted", "''", " =1", "＝1", "a\nb\r\nc", 'say "x", y',
    "<script>alert(1)</script>", "a\x00b", "\u202egnp", "naïve 🦊", "nan", "NULL", "", "1e5", "x" * 3000,
)  # fmt: skip
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    found = Book(tmp_path_factory.mktemp("exports") / "notebook.db")
    one = found.run()
    found.claim(one, "6.457", "partly", status="PARTIAL", f1=0.95, predicate="digit")
    found.claim(one, "6.457", "better", f1=0.9)
    found.claim(one, "6.457", "weaker", f1=0.8, predicate="token(' b')")
    found.claim(one, "6.457", "never tested", status=None, predicate="token(' c')")
    found.notebook.outcome(one, Unit.parse("6.457-"), "reads", "ABSTAINED", "this side does not exist")
    found.claim(found.run(ended=False), "6.1", "of a run at work")
    batch = found.run("neuronaut label", ended=False)
    items = [("0.1", None, "0"), ("0.2", "hash", "0"), ("0.3", None, "0"), ("0.4", None, "0")]
    found.notebook.add_items(batch, items)
    asked = [found.run("item"), found.run("null item")]
    found.claim(asked[0], "0.1", "of an item")
    found.claim(asked[1], "0.7", "of a null unit")
    with sqlite3.connect(found.path) as raw:
        for rank, (state, run, reason) in enumerate(
            [
                ("done", asked[0], None),
                ("done", asked[1], None),
                ("failed", None, "it broke"),
                ("skipped", None, "dead"),
            ]
        ):
            raw.execute("UPDATE item SET state=?, asked=?, reason=? WHERE rank=?", (state, run, reason, rank))
    raw.close()
    hostile = found.run("hostile")
    for number, text in enumerate(HOSTILE):
        found.claim(hostile, f"1.{number}", text or "-", words=text, author=f"a{number}")
    yield found
    found.notebook.close()


def in_sql(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as raw:
        rows = raw.execute(sql).fetchall()
    raw.close()
    return rows


def test_labels_are_the_best_verdict_of_each_unit_and_side_and_equal_the_rows_of_the_notebook(
    book: Any, tmp_path: Path
) -> None:
    file = tmp_path / "labels.parquet"
    n = write_table(file, COLUMNS, flat_rows(book.notebook, "labels"))
    frame = pd.read_parquet(file)
    assert len(frame) == n
    sql = """SELECT h.id, v.id, v.outcome, h.claim, h.predicate, u.address, u.layer, u."index", e.value, e.ci_low, e.ci_high, e.n
             FROM verdict v JOIN prediction p ON p.id = v.prediction JOIN hypothesis h ON h.id = p.hypothesis
             JOIN unit u ON u.id = h.unit JOIN experiment x ON x.prediction = p.id
             JOIN evidence e ON e.experiment = x.id AND e.metric = 'f1'"""
    truth = {row[0]: row for row in in_sql(book.path, sql)}
    judged = frame[frame.hypothesis.notna()]
    for row in judged.itertuples():
        _, v, status, claim, predicate, address, layer, index, f1, low, high, n = truth[row.hypothesis]
        assert (row.verdict, row.status, row.claim, row.predicate, row.address) == (
            v,
            status,
            claim,
            predicate,
            address,
        )
        assert (row.layer, row.f1, row.f1_low, row.f1_high, row.n_documents) == (layer, f1, low, high, n)
        assert row[list(frame.columns).index("index") + 1] == index
    mine = frame[frame.address == "6.457"]
    assert mine.claim.tolist() == ["better"]  # SUPPORTED before PARTIAL, then the larger F1
    assert (mine.n_rivals.item(), mine.rivals_beaten.item(), mine.best_rival.item()) == (2, 1, "as good")
    assert (mine.n_edited_documents.item(), mine.e.item(), mine.run_usd_micro.item()) == (17, 1e5, 250_000)
    assert mine.ledger_head.item() == book.notebook.head()
    low_side = frame[frame.address == "6.457-"]
    assert (low_side.status.item(), low_side.reason.item()) == ("ABSTAINED", "this side does not exist")
    assert "6.1" not in set(frame.address)  # its run has not ended


def test_claims_are_all_hypotheses_whatever_came_of_them(book: Any) -> None:
    rows = list(flat_rows(book.notebook, "claims", nulls="with"))
    ended = "SELECT h.id FROM hypothesis h WHERE h.run IN (SELECT run FROM run_end)"
    assert {row["hypothesis"] for row in rows} == {one for (one,) in in_sql(book.path, ended)}
    assert [row["status"] for row in rows if row["claim"] == "never tested"] == ["PROPOSED"]
    assert all(row["f1"] is None for row in rows if row["status"] == "PROPOSED")


def test_null_units_are_left_out_unless_wanted_and_are_marked(book: Any) -> None:
    real, only, both = (list(flat_rows(book.notebook, "labels", nulls=one)) for one in ("without", "only", "with"))
    assert [row["claim"] for row in only] == ["of a null unit"]
    assert {row["null_kind"] for row in only} == {"hash"}
    assert all(row["null_kind"] is None for row in real)
    assert len(both) == len(real) + len(only)


def test_a_batch_has_a_row_for_items_that_failed_or_were_skipped(book: Any) -> None:
    (batch,) = {row[0] for row in in_sql(book.path, "SELECT run FROM batch")}
    rows = list(flat_rows(book.notebook, "labels", batch, "with"))
    told = [(row["address"], row["status"], row["reason"], row["null_kind"], row["batch"]) for row in rows]
    assert told == [
        ("0.1", "SUPPORTED", "said why", None, batch), ("0.7", "SUPPORTED", "said why", "hash", batch),
        ("0.3", "FAILED", "it broke", None, batch), ("0.4", "SKIPPED", "dead", None, batch),
    ]  # fmt: skip
    assert [row["address"] for row in flat_rows(book.notebook, "labels", batch)] == ["0.1", "0.3", "0.4"]


def test_many_runs_are_read_some_at_a_time_with_none_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book(tmp_path / "many.db")
    for number in range(7):
        book.claim(book.run(), f"0.{number}", f"claim {number}")
    whole = list(flat_rows(book.notebook, "labels"))
    monkeypatch.setattr("neuronaut.memory.export.RUNS", 3)
    assert list(flat_rows(book.notebook, "labels")) == whole
    assert sorted(row["address"] for row in whole) == [f"0.{number}" for number in range(7)]
    book.notebook.close()


def test_every_format_has_the_same_rows_and_types_in_pandas_and_polars(book: Any, tmp_path: Path) -> None:
    wanted = list(flat_rows(book.notebook, "claims", nulls="with"))
    kinds = {"text": pl.String, "int": pl.Int64, "float": pl.Float64}
    schema = {name: kinds[kind] for name, kind in COLUMNS.items()}
    for suffix in ("parquet", "jsonl", "jsonl.gz", "csv"):
        write_table(file := tmp_path / f"t.{suffix}", COLUMNS, iter(wanted))
        match suffix:
            case "parquet":
                assert dict(pl.read_parquet_schema(file)) == schema
                rows = pl.read_parquet(file).to_dicts()
                assert pd.read_parquet(file).layer.dtype.kind == "i" or pd.read_parquet(file).layer.isna().any()
            case "csv":
                frame = pl.read_csv(file, schema=schema)
                rows = [
                    {k: unguarded(v) if isinstance(v, str) else v for k, v in row.items()} for row in frame.to_dicts()
                ]
                again = pd.read_csv(file, keep_default_na=False, dtype=str)
                assert again.claim.map(unguarded).tolist() == [row["claim"] for row in rows]
            case _:
                raw = gzip.decompress(file.read_bytes()) if suffix.endswith("gz") else file.read_bytes()
                rows = [json.loads(line) for line in raw.splitlines()]
                assert len(pd.read_json(file, lines=True)) == len(rows)
        nul = "\ufffd" if suffix == "csv" else "\x00"
        expected = [{k: v.replace("\x00", nul) if isinstance(v, str) else v for k, v in row.items()} for row in wanted]
        assert rows == expected, suffix
        assert [row["author_words"] for row in rows[-len(HOSTILE) :]] == [text.replace("\x00", nul) for text in HOSTILE]


def test_no_cell_of_a_csv_begins_as_a_formula(book: Any, tmp_path: Path) -> None:
    write_table(file := tmp_path / "t.csv", COLUMNS, flat_rows(book.notebook, "claims"))
    frame = pl.read_csv(file, infer_schema=False)
    texts = [name for name, kind in COLUMNS.items() if kind == "text"]
    cells = [cell for name in texts for cell in frame[name] if cell]
    assert len(cells) > 500
    assert not [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@＝＋－＠") or cell[0] in "\t\r\n"]


@given(st.text())
def test_a_guarded_cell_gives_its_text_back(text: str) -> None:
    assert unguarded(guarded(text)) == text.replace("\x00", "\ufffd")


def test_half_surrogates_become_one_character_that_a_file_can_hold() -> None:
    assert storable("a\ud800b\udc00") == "a\ufffdb\ufffd"
    assert storable("🦊") == "🦊"


def test_no_key_of_a_run_is_exported(
    book: Any, tmp_path: Path, neuronaut: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-env")
    assert "sk-canary" in in_sql(book.path, "SELECT config FROM run")[0][0]
    for kind, name in (("labels", "a.csv"), ("claims", "b.jsonl"), ("claims", "c.parquet")):
        said = neuronaut("export", kind, "--out", tmp_path / name, "--notebook", book.path, "--nulls", "with")
        assert said.code == 0, said.err
        assert "sk-canary" not in said.out + said.err
    texts = [
        pd.read_parquet(tmp_path / "c.parquet").to_csv(),
        *(f.read_text() for f in tmp_path.iterdir() if f.suffix != ".parquet"),
    ]
    assert not [one for one in texts if "sk-canary" in one]


@pytest.mark.parametrize("name", ["k.csv", "k.jsonl", "k.jsonl.gz", "k.parquet"])
@pytest.mark.parametrize("kind", ["labels", "claims"])
def test_a_key_in_a_text_is_not_exported_and_its_row_is_named(
    kind: str, name: str, tmp_path: Path, neuronaut: Command
) -> None:
    key = "sk-ant-api03-" + "AbCd0123456789EfGh"
    made = Book(tmp_path / "n.db")
    run = made.run()
    made.claim(run, "1.1", "fires on a")
    claim = made.claim(run, "1.2", "fires on b", words=f"somebody wrote {key} here")
    said = neuronaut("export", kind, "--out", tmp_path / name, "--notebook", made.path)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"row 2 (address 1.2, hypothesis {claim}, run {run}) would hold an Anthropic key in author_words" in said.err
    assert key not in said.err
    assert not [file for file in tmp_path.iterdir() if name in file.name]


def test_what_two_rows_say_together_is_no_key(tmp_path: Path) -> None:
    rows = [{"a": "it ends with bearer"}, {"a": "abcdefghij0123456789klm"}]
    assert write_table(tmp_path / "t.csv", {"a": "text"}, rows) == 2


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    write_table(file, {"a": "text"}, [{"a": "first"}])

    def breaks() -> Iterator[dict[str, str]]:
        yield {"a": "second"}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_table(file, {"a": "text"}, breaks())
    assert pl.read_parquet(file)["a"].to_list() == ["first"]
    assert list(tmp_path.iterdir()) == [file]


def test_bad_input_is_one_sentence(book: Any, tmp_path: Path, neuronaut: Command) -> None:
    for argv, told in (
        (("labels", "--out", tmp_path / "x.xlsx"), "names no format"),
        (("labels", "--out", tmp_path / "x.csv", "--run", "NONE"), "there is no run"),
        (("check", "--out", tmp_path / "nothing"), "is no folder"),
        (("delphi", "--out", tmp_path / "d"), "no detection or fuzz score"),
    ):
        said = neuronaut("export", *argv, "--notebook", book.path)
        assert said.code == 2
        assert told in said.err
        assert said.err.count("\n") == 1
    assert set(TYPES) == {"text", "int", "float"}


# Files that delphi reads


_planted = runpy.run_path(str(Path(__file__).with_name("planted_scores.py")))


def read_as_delphi(scores: Path, module: str) -> pd.DataFrame:
    """What delphi's result analysis makes of a folder of scores: every file whose name holds the module, the latent after the
    last `latent` of its stem, one row for each of the list's samples (read in delphi 0.1.3, log/result_analysis.py)."""
    frames = []
    for folder in (one for one in scores.iterdir() if one.is_dir()):
        for file in folder.glob(f"*{module}*"):
            samples = json.loads(file.read_bytes())
            needed = ("distance", "activating", "prediction", "probability", "correct", "activations")
            rows = [{"text": "".join(s["str_tokens"]), **{name: s[name] for name in needed}} for s in samples]
            latent = int(file.stem.split("latent")[-1])
            frames.append(pd.DataFrame(rows).assign(latent_idx=latent, score_type=folder.name, module=module))
    return pd.concat(frames, ignore_index=True)


def balanced_accuracy(frame: pd.DataFrame) -> float:
    """As delphi counts a confusion table: samples without a prediction are left out."""
    valid = frame[frame.prediction.notna()]
    truth, said = valid.activating.astype(bool), valid.prediction.astype(float) >= 0.5
    return float(((said & truth).sum() / truth.sum() + (~said & ~truth).sum() / (~truth).sum()) / 2)


def test_delphi_reads_the_score_that_the_notebook_has(tmp_path: Path) -> None:
    wrong = iter([1, 0, 0, 0, 0] * 1000)
    judge = _planted["asks"](
        lambda request: {"labels": [label ^ next(wrong) for label in _planted["truth"](request)["labels"]]}
    )
    judged = Detection(judge).judge(_planted["planted_case"]())
    value = estimate(judged.documents, judged.number).value
    assert 0.5 < value < 1.0
    book = Book(tmp_path / "n.db")
    for number, unit in enumerate(("1.7", "10.7", "1.7-")):
        run = book.run(seed=number)
        row = {"unit": unit, "explanation": f"=said of {unit}", "items": [asdict(one) for one in judged.items]}
        begun = book.notebook.begin_experiment(run, ExperimentSpec("score_detection", "0" * 64, {"unit": unit}))
        book.notebook.end_experiment(begun.id, {"payload": json.loads(json.dumps(row)), "measurements": []})
    written = write_scores(tmp_path / "out", book.notebook)
    assert written.left_out.total() == 1
    frame = read_as_delphi(tmp_path / "out" / "scores", "blocks.1.mlp.hook_post")
    assert set(frame.latent_idx) == {7}
    assert len(frame) == len(judged.items)  # layer 10 is another module
    assert math.isclose(balanced_accuracy(frame), value)
    assert set(frame[frame.activating].distance) == set(range(10))
    strongest = frame[frame.activating].assign(top=lambda one: one.activations.map(max)).groupby("distance").top.mean()
    assert strongest.idxmax() == 0
    text = (tmp_path / "out" / "explanations" / "blocks.1.mlp.hook_post_latent7.txt").read_text()
    assert json.loads(text) == "=said of 1.7"
    with pytest.raises(UserError, match="is there already"):
        write_scores(tmp_path / "out", book.notebook)
    book.notebook.close()

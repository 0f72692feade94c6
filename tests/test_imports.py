"""Explanations that others made are tested as claims are: each once, and what cannot be tested is said."""

import csv
import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent.exporting import importing
from neuronaut.agent.exporting.compiled import plain_form
from neuronaut.agent.exporting.given_rows import read_rows
from neuronaut.memory.tables import guarded
from neuronaut.tools.errors import UserError
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json

Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('the word "and"', "word('and', ignore_case=True)"),
        ("The word and.", "word('and', ignore_case=True)"),
        ('fires on " dem"', "token(' dem')"),
        ('This neuron activates on the tokens "a", "b" and "c"', "token('a', 'b', 'c')"),
        ("occurrences of 'Monday' or 'Tuesday'", "word('Monday', 'Tuesday', ignore_case=True)"),
        ("the words “Mary” and “Lucy”", "word('Mary', 'Lucy', ignore_case=True)"),
        ("digits", "digit"),
        ("punctuation marks", "punctuation"),
        ("the beginning of sentences", "starts_sentence"),
        ('the "x" in code', None),  # more than the form says
        ('words related to "joy"', None),
        ('fires on " dem" just after " auf"', None),
        ('not the word "and"', None),
        ("words of sadness", None),
        ("", None),
    ],
)
def test_a_plain_form_is_read_whole_or_not_at_all(text: str, taken: str | None) -> None:
    found = plain_form(text)
    assert (None if found is None else str(found)) == taken


def test_rows_name_units_and_predicates_in_each_of_the_forms(tmp_path: Path) -> None:
    digit = canonical_json(parse_text("digit"))
    rows = [
        {"unit": "8.481", "explanation": "a"}, {"address": "8.481-", "claim": "b", "predicate": "digit"},
        {"layer": 8, "index": "481", "description": "c", "predicate": digit},
        {"modelId": "gpt2", "layer": "8", "index": "481", "description": "d", "predicate": json.loads(digit)},
        {"modelId": "gpt2", "layer": "6-res-jb", "index": "7", "description": "e"}, {"feature": "sae:x/3", "label": "f"},
        {"unit": "L1H2", "text": "g"}, {"unit": "8.481"}, {"unit": "8.481", "text": 7}, {"layer": "x", "index": "1", "text": "h"},
        {"unit": "8.481", "text": "i", "predicate": "token("}, {"unit": "8.481", "text": "j" * 2001},
        {"unit": "8.481", "text": "\ud800k\x00"},
    ]  # fmt: skip
    lines = [json.dumps(row) for row in rows] + ["no json", "[1]"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    found = list(read_rows(tmp_path / "a.jsonl", "jb"))
    assert found == list(read_rows(tmp_path / "a.jsonl.gz", "jb"))
    named = [row.unit.address if row.unit else "-" for row in found]
    assert " ".join(named) == "8.481 8.481- 8.481 8.481 sae:jb/7 sae:x/3 - 8.481 - - 8.481 - 8.481 - -"
    assert [str(row.predicate) for row in found[1:4]] == ["digit"] * 3
    faults = {row.line: row.fault for row in found if row.fault}
    assert sorted(faults) == [7, 8, 9, 10, 12, 14, 15]
    assert "is a head" in faults[7]
    assert "is not in the predicate language" in found[10].refused
    assert found[12].text == "\ufffdk\ufffd"
    assert list(read_rows(tmp_path / "a.jsonl"))[4].fault.endswith("say with --features which dictionary it is")


def test_a_csv_gives_back_what_was_guarded_and_keeps_the_apostrophes_of_others(tmp_path: Path) -> None:
    texts = ["=1+1", "'tis", "''", "a\nb", '"q",', "@x", "-"]
    for name, cells in (("ours.csv", [guarded(text) for text in texts]), ("theirs.csv", ["'tis", "'80s", "plain"])):
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([["unit", "explanation"], *(["0.1", cell] for cell in cells)])
    assert [row.text for row in read_rows(tmp_path / "ours.csv")] == texts
    assert [row.text for row in read_rows(tmp_path / "theirs.csv")] == ["'tis", "'80s", "plain"]


def test_a_file_that_is_no_table_is_refused_in_one_sentence(tmp_path: Path) -> None:
    for name, content, told in (
        ("a.xlsx", b"x", "give .csv"), ("b.csv", b"name,score\n1,2\n", "it needs a column unit"), ("c.csv", b"", "the columns none"),
        ("d.csv", b"unit,text\n0.1,\xff\n", "is not UTF-8"), ("e.jsonl.gz", b"plain", "no whole gzip"),
        ("f.csv", b'unit,text\n0.1,"a"b\n', "is no CSV"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=told):
            list(read_rows(tmp_path / name))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_rows(tmp_path / "none.csv"))


# Through the command


ROWS = (
    ("0.6", "the word dog", ""), ("0.6", "a mood", ""), ("0.6", "the word dog", ""), ("0.6", "writes", "promotes(' the')"),
    ("1.5", "=of \" the\" and others", "token(' the')"), ("9.9", "nowhere", "digit"),
    ("0.6", "", ""),
)  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with (tmp_path / "theirs.csv").open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([("unit", "explanation", "predicate"), *ROWS])
    return tmp_path / "theirs.csv"


def imported(command: Command, file: Path, *argv: object, code: int = 3) -> dict[str, Any]:
    said = command("import", file, *argv, "--json")
    assert said.code == code, said.err
    return dict(json.loads(said.out))


def counts(path: Path) -> dict[str, int]:
    with sqlite3.connect(path) as raw:
        found = {
            t: raw.execute(f"SELECT count(*) FROM {t}").fetchone()[0]
            for t in ("run", "experiment", "verdict", "hypothesis")
        }
    raw.close()
    return found


def test_each_explanation_is_tested_once_and_the_same_file_twice_tests_nothing(
    neuronaut: Command, tiny: tuple[str, ...], file: Path, tmp_path: Path
) -> None:
    first = imported(neuronaut, file, *tiny)
    told = [(row["unit"], row["verdict"], row["taken_as"]) for row in first["rows"]]
    assert told[1] == ("0.6", "UNTESTABLE", None)
    assert "no language model was asked" in first["rows"][1]["why"]
    assert first["rows"][2] == first["rows"][0] | {"line": 3}
    assert told[4][2] == "token(' the')"
    assert first["rows"][4]["explanation"] == '=of " the" and others'
    assert told[5][:2] == ("9.9", "UNUSABLE")
    assert "does not exist" in first["rows"][5]["why"]
    assert told[6][:2] == ("0.6", "UNUSABLE")
    assert "says nothing" in first["rows"][6]["why"]
    before = counts(tmp_path / "notebook.db")
    with sqlite3.connect(tmp_path / "notebook.db") as raw:
        stored = raw.execute(
            "SELECT h.id, h.author, v.outcome FROM verdict v JOIN prediction p ON p.id = v.prediction "
            "JOIN hypothesis h ON h.id = p.hypothesis"
        ).fetchall()
    raw.close()
    assert {author for _, author, _ in stored} == {"import:theirs"}
    told_of = {row["hypothesis"]: row["verdict"] for row in first["rows"]}
    assert len(stored) >= 2
    assert {one: told_of[one] for one, _, _ in stored} == {one: outcome for one, _, outcome in stored}
    second = imported(neuronaut, file, *tiny)
    assert second == first
    assert counts(tmp_path / "notebook.db") == before
    assert neuronaut("verify").code == 0


def test_a_stopped_import_goes_on_to_the_same_end(
    neuronaut: Command, tiny: tuple[str, ...], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = imported(neuronaut, file, *tiny, "--notebook", tmp_path / "whole.db")
    real, stops = importing.judged, [2]

    def killed(*args: Any, **kwargs: Any) -> str:
        stops[0] -= 1
        if stops[0] == 0:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(importing, "judged", killed)
    stopped = imported(neuronaut, file, *tiny, code=130)
    assert "NOT TESTED" in stopped["counts"]
    monkeypatch.setattr(importing, "judged", real)
    ended = imported(neuronaut, file, *tiny)
    ids = {"run", "hypothesis"}
    assert [{k: v for k, v in row.items() if k not in ids} for row in ended["rows"]] == [
        {k: v for k, v in row.items() if k not in ids} for row in whole["rows"]
    ]
    assert counts(tmp_path / "notebook.db") == counts(
        tmp_path / "whole.db"
    )  # its run went on, and nothing was done twice


def test_a_language_model_puts_prose_into_a_predicate_or_says_why_not(
    neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "prose.jsonl"
    texts = ("a pet that barks", "a feeling of loss", "broken reply")
    file.write_text("".join(json.dumps({"unit": "0.6", "explanation": text}) + "\n" for text in texts))
    assert imported(neuronaut, file, *tiny, code=0)["counts"] == {"UNTESTABLE": 3}
    texts += ("what barks",)
    with file.open("a") as opened:
        opened.write(json.dumps({"unit": "0.6", "explanation": texts[-1]}) + "\n")
    replies = [
        json.dumps({"predicate": "token(' dog')", "reason": ""}), json.dumps({"predicate": "", "reason": "a feeling has no words"}),
        "not json", json.dumps({"predicate": "sadness()", "reason": ""}), json.dumps({"predicate": "token(' dog')", "reason": ""}),
    ]  # fmt: skip
    (tmp_path / "script.json").write_text(json.dumps(replies))
    rows = imported(neuronaut, file, *tiny, "--llm", f"scripted:{tmp_path / 'script.json'}", code=0)["rows"]
    assert (rows[0]["taken_as"], rows[0]["taken_by"]) == ("token(' dog')", "language model")
    assert rows[0]["verdict"] != "UNTESTABLE"
    assert rows[1]["why"].endswith("a feeling has no words")
    assert "two replies could not be used" in rows[2]["why"]
    assert rows[3] == rows[0] | {
        "line": 4,
        "explanation": "what barks",
    }  # one predicate is tested once, whatever its words
    again = imported(neuronaut, file, *tiny, code=0)["rows"]
    assert [row["verdict"] for row in again] == [row["verdict"] for row in rows]


def test_a_budget_stops_between_explanations(neuronaut: Command, tiny: tuple[str, ...], file: Path) -> None:
    said = imported(neuronaut, file, *tiny, "--budget-forwards", 1, code=1)
    assert "forward passes is spent" in said["stopped"]
    assert said["counts"]["NOT TESTED"] >= 1


def test_what_is_exported_comes_back_and_is_found_to_be_as_good(
    neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    asked = neuronaut("ask", "test 0.6: token(' the')", *tiny, "--notebook", tmp_path / "a.db")
    assert asked.code == 0, asked.err
    assert neuronaut("export", "claims", "--out", tmp_path / "all.csv", "--notebook", tmp_path / "a.db").code == 0
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    given = canonical_json(parse_text("token(' the')"))
    (was,) = [row for row in rows if row["author"].startswith("the asker") and row["predicate"] == given]
    with (tmp_path / "one.csv").open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(was))
        writer.writeheader()
        writer.writerow(was)
    (now,) = imported(neuronaut, tmp_path / "one.csv", *tiny, "--notebook", tmp_path / "b.db", code=0)["rows"]
    assert now["explanation"] == was["claim"]
    assert (now["verdict"], now["f1"]) == (was["status"], float(was["f1"]))  # both on the first block of its text


@pytest.mark.slow
def test_a_supported_label_of_pocket_is_supported_when_it_is_imported(neuronaut: Command, tmp_path: Path) -> None:
    asked = neuronaut("ask", "what does neuron 6.457 do", "--fast", "--notebook", tmp_path / "a.db")
    assert asked.code == 0
    assert neuronaut("export", "labels", "--out", tmp_path / "l.parquet", "--notebook", tmp_path / "a.db").code == 0
    assert neuronaut("export", "labels", "--out", tmp_path / "l.jsonl", "--notebook", tmp_path / "a.db").code == 0
    was = json.loads((tmp_path / "l.jsonl").read_text().splitlines()[0])
    (tmp_path / "one.jsonl").write_text(json.dumps(was) + "\n")
    (now,) = imported(neuronaut, tmp_path / "one.jsonl", "--notebook", tmp_path / "b.db", code=0)["rows"]
    assert (was["status"], now["verdict"]) == ("SUPPORTED", "SUPPORTED")
    assert now["f1"] == was["f1"]  # on the same first block of text

"""Bad input through the command line: one sentence, exit code 2, no traceback, nothing lost and nothing half-made."""

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from neuronaut.memory import queries, sqlite, store
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify

Command = Callable[..., Any]
QUESTION = "what does neuron 1.7- do"
STEPS = ("notebook", "model", "corpus", "run", "look", "propose", "register", "verdict", "recall")


@pytest.fixture(scope="module")
def kept(tiny: tuple[str, ...], neuronaut: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A notebook with one answered run, and the id of the run."""
    path = tmp_path_factory.mktemp("kept") / "n.db"
    run = json.loads(neuronaut("ask", QUESTION, *tiny, "--notebook", path, "--fast", "--json").out)["run"]
    return path, run


def refusal(said: Any) -> str:
    """The one sentence of a command that was refused."""
    assert said.code == 2, said
    assert said.out == ""
    assert "Traceback" not in said.err
    sentences = [line for line in said.err.splitlines() if line.split()[0] not in STEPS]
    assert len(sentences) == 1, said.err
    assert sentences[0].startswith("neuronaut: ")
    return str(sentences[0].removeprefix("neuronaut: "))


# Questions, models, corpora, options


QUESTIONS = {
    "": "the question is empty",
    "hello": "names no neuron, head, prompt or task: ask about one neuron or head",
    "what does neuron 99.1 do": "layer 99 does not exist: model has layers 0 to 2",
    "what does neuron 1.999 do": "neuron 1.999 does not exist: layer 1 of model has neurons 0 to 39",
    "what does 1.2 do": "could be neuron 1.2 or head L1H2: write 'neuron 1.2' or 'head 1.2'",
    "what does head 1.9 do": "head L1H9 does not exist",
    "neurons 1.2 and 1.3": "names 2 units (1.2, 1.3): ask about one at a time",
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_that_cannot_be_asked(neuronaut: Command, tiny: tuple[str, ...], question: str) -> None:
    new = Path(os.environ["NEURONAUT_NOTEBOOK"])
    assert QUESTIONS[question] in refusal(neuronaut("ask", question, *tiny))
    assert list(new.parent.iterdir()) == []


MODELS = {
    "no such folder": ((), "there is no model folder"),
    "empty": (("",), "holds no model.safetensors; give one with its weights"),
    "no weights": (("config.json", "tokenizer.json"), "holds no model.safetensors; give one with its weights"),
    "a pickle": (("config.json", "pytorch_model.bin"), "pytorch_model.bin is a pickle, which can run code: convert it"),
    "no configuration": (("model.safetensors",), "config.json in"),
    "no tokenizer": (("config.json", "model.safetensors"), "holds no tokenizer.json: without it text cannot"),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_model_that_cannot_be_studied(neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path, what: str) -> None:
    files, wanted = MODELS[what]
    folder, new = tmp_path / "model", tmp_path / "n.db"
    for name in files:
        folder.mkdir(exist_ok=True)
        if name == "pytorch_model.bin":
            (folder / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
        elif name:
            shutil.copy(Path(tiny[1]) / name, folder)
    said = neuronaut("ask", QUESTION, "--model", folder, *tiny[2:], "--notebook", new)
    assert wanted in refusal(said)
    assert not new.exists()


def test_a_pickle_named_as_the_model_is_not_opened(neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    assert "is a pickle, which can run code" in refusal(neuronaut("ask", QUESTION, "--model", file, *tiny[2:]))


CORPORA: dict[str, tuple[bytes, str]] = {
    "no text.jsonl": (b'{"text": ""}\n{"text": " "}\n', "holds no text: nothing can be tested on it; give"),
    "empty.txt": (b"", "holds no text: nothing can be tested on it; give"),
    "one word.txt": (b"word", "is shorter than the splits need"),
    "short.jsonl": (b'{"text": "the cat sat"}\n{"text": "a dog ran"}\n', "of its 2 different documents"),
    "repeated.jsonl": (b'{"text": "the cat sat on the mat"}\n' * 300, "of its 1 different documents"),
    "not JSON.jsonl": (b"hello\n", "line 1 is not JSON: each line must be an object with `text`"),
    "numbers.jsonl": (b'{"text": 5}\n', "line 1 has no text: each line must be an object"),
    "bytes.jsonl": (b'{"text": "caf\xe9"}\n\xff\xfe\n', "line 2 is not JSON"),
    "cut.jsonl.gz": (b"\x1f\x8b\x08\x00", "cannot be read"),
    "notes.docx": (b"PK", "is no corpus: a corpus is a .txt, .jsonl, .jsonl.gz, .jsonl.zst or .parquet"),
}


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_that_nothing_can_be_tested_on(
    neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path, name: str
) -> None:
    content, wanted = CORPORA[name]
    (tmp_path / name).write_bytes(content)
    said = neuronaut("ask", QUESTION, *tiny[:2], "--corpus", tmp_path / name, "--notebook", tmp_path / "n.db")
    assert wanted in refusal(said)
    assert not (tmp_path / "n.db").exists()


def test_no_corpus_and_no_such_corpus(neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path) -> None:
    assert "needs text to be studied on: give --corpus FILE" in refusal(neuronaut("ask", QUESTION, *tiny[:2]))
    missing = neuronaut("ask", QUESTION, *tiny[:2], "--corpus", tmp_path / "none.txt")
    assert "there is no corpus" in refusal(missing)


def test_bytes_that_are_no_text_are_replaced_and_said(
    neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes(Path(tiny[3]).read_bytes() + b'{"text": "caf\xe9 in the old town"}\n')
    said = neuronaut("ask", QUESTION, *tiny[:2], "--corpus", file, "--fast")
    assert said.code == 0
    assert "1 pieces of text that are not UTF-8 were replaced by U+FFFD" in said.err


OPTIONS = {
    "--seed": ("x", "-1", "99999999999999999999"),
    "--budget-seconds": ("0", "-1", "nan", "inf", "soon"),
    "--budget-forwards": ("0", "inf"),
    "--budget-tokens": ("0", "1.5"),
    "--budget-usd": ("-1", "inf"),
    "--llm": ("gpt", "nobody:model", "openai:model", "compatible:model", "scripted:none.json"),
    "--nope": ("",),
}


@pytest.mark.parametrize(("option", "value"), [(o, v) for o, values in OPTIONS.items() for v in values])
def test_an_option_that_means_nothing(
    neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path, option: str, value: str
) -> None:
    new = tmp_path / "n.db"
    assert option in refusal(neuronaut("ask", QUESTION, *tiny, "--notebook", new, option, value)) or "script" in value
    assert not new.exists()


TOOLS = {
    '{"unit": "1.7", "texts": ["' + "the cat sat on the mat " * 6 + '"]}': "text 1 is longer than the context of model (24 tokens): shorten it",
    '{"unit": "1.7", "texts": []}': "argument texts",
    '{"unit": "9.7", "texts": ["cat"]}': "layer 9 does not exist: model has layers 0 to 2",
    '{"unit": "seven", "texts": ["cat"]}': "'seven' names no unit: write a neuron as 8.481",
    '{"unit": "L1H2", "texts": ["cat"]}': "is a head: only neurons and features have one activation a token",
    '{"unit": "1.7", "texts": ["cat"], "more": 1}': "argument more",
    '{"unit"': "the arguments are not JSON",
}  # fmt: skip


@pytest.mark.parametrize("args", TOOLS)
def test_a_tool_with_arguments_outside_its_bounds(neuronaut: Command, tiny: tuple[str, ...], args: str) -> None:
    assert TOOLS[args] in refusal(neuronaut("tool", "activations_on", args, *tiny))


def test_commands_tools_and_ids_that_do_not_exist(neuronaut: Command, kept: tuple[Path, str]) -> None:
    for argv in (("resume", "x"), ("show", "x"), ("rerun", "x"), ("show", "")):
        assert "`neuronaut search` lists what there is" in refusal(neuronaut(*argv, "--notebook", kept[0]))
    for argv in (("show", "x"), ("resume", "x"), ("rerun", "x"), ("verify",), ("search", "x")):
        assert "there is no notebook" in refusal(neuronaut(*argv))
        assert not Path(os.environ["NEURONAUT_NOTEBOOK"]).exists()
    assert "there is no tool 'x': choose from ablate" in refusal(neuronaut("tool", "x"))
    assert "No such command 'x'; see `neuronaut --help`" in refusal(neuronaut("x"))
    assert "Missing argument 'question'; see `neuronaut ask --help`" in refusal(neuronaut("ask"))


# Notebooks


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO schema_migration VALUES (99, 'later', 'x', 'y')")


def damaged_in_the_middle(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'evidence'").fetchone()
    raw = path.read_bytes()
    path.write_bytes(raw[: (page - 1) * 4096] + b"Z" * 4096 + raw[page * 4096 :])


def of_something_else(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE photo (name TEXT)")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


NOTEBOOKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "newer": (newer, "was made by a newer neuronaut (schema 99, this one knows 6): upgrade"),
    "damaged in the middle": (damaged_in_the_middle, "is damaged: restore a copy or give another --notebook"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:50_000]), "is damaged: restore a copy"),
    "without its first page": (
        lambda path: path.write_bytes(bytes(4096) + path.read_bytes()[4096:]),
        "is not a notebook, or is damaged: restore a copy or give another --notebook",
    ),
    "no database": (lambda path: path.write_text("dear diary\n" * 100), "is not a notebook, or is damaged"),
    "of something else": (of_something_else, "is a database of something else: give another --notebook"),
    "a folder": (a_folder, "is a folder: give a file for the notebook"),
}


@pytest.fixture
def copy(kept: tuple[Path, str], tmp_path: Path) -> Path:
    """A notebook that a test may spoil."""
    return Path(shutil.copy(kept[0], tmp_path / "copy.db"))


@pytest.mark.parametrize("what", NOTEBOOKS)
def test_a_notebook_that_cannot_be_used_is_not_touched(
    neuronaut: Command, tiny: tuple[str, ...], kept: tuple[Path, str], copy: Path, what: str
) -> None:
    spoil, wanted = NOTEBOOKS[what]
    spoil(copy)
    before = copy.read_bytes() if copy.is_file() else b""
    commands = [("ask", "neuron 1.8", *tiny), ("resume", kept[1]), ("rerun", kept[1])]
    commands += [] if what == "damaged in the middle" else [("verify",), ("show", kept[1]), ("search", "fires")]
    for argv in commands:
        assert wanted in refusal(neuronaut(*argv, "--notebook", copy)), argv
    assert neuronaut("doctor", "--notebook", copy).code == 1
    assert before == (copy.read_bytes() if copy.is_file() else b"")


def test_verify_says_where_a_notebook_is_damaged(neuronaut: Command, copy: Path) -> None:
    damaged_in_the_middle(copy)
    said = neuronaut("verify", "--notebook", copy)
    assert said.code == 1
    assert said.err == ""
    assert "SQLite finds the file damaged: " in said.out


def test_an_empty_file_is_no_notebook_to_read_and_a_place_for_a_new_one(
    neuronaut: Command, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    for argv in (("verify",), ("show", "x"), ("resume", "x")):
        assert "is empty: ask a question first" in refusal(neuronaut(*argv, "--notebook", empty))
    assert empty.read_bytes() == b""
    assert neuronaut("ask", QUESTION, *tiny, "--fast", "--notebook", empty).code == 0


def test_a_locked_notebook(
    neuronaut: Command, tiny: tuple[str, ...], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(copy, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=DELETE")
        other.execute("BEGIN EXCLUSIVE")
        for argv in (("ask", "neuron 1.8", *tiny), ("verify",)):
            said = refusal(neuronaut(*argv, "--notebook", copy))
            assert "is locked by another process: wait for it to end, or give another --notebook" in said
    with Notebook(copy) as notebook:
        assert verify(notebook) == []


@contextmanager
def nobody() -> Iterator[None]:
    """Someone for whom permissions count: root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.setresgid(65534, 65534, 0)
        os.setresuid(65534, 65534, 0)
    except OSError as error:
        pytest.skip(f"root cannot become someone else here ({error})")
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


def test_a_notebook_that_may_only_be_read(
    neuronaut: Command, tiny: tuple[str, ...], kept: tuple[Path, str], copy: Path
) -> None:
    folder = copy.parent
    everything = Path(tempfile.gettempdir())
    for inside in (folder, Path(tiny[1])):
        for above in (inside, *(one for one in inside.parents if everything in one.parents)):
            above.chmod(0o755)
    copy.chmod(0o444)
    folder.chmod(0o555)
    before = copy.read_bytes()
    with nobody():
        for argv in (("ask", "neuron 1.8", *tiny), ("rerun", kept[1])):
            assert "cannot be written to: change its permissions" in refusal(neuronaut(*argv, "--notebook", copy))
        new = refusal(neuronaut("ask", "neuron 1.8", *tiny, "--notebook", folder / "new.db"))
        assert "is no folder that can be written to; give another --notebook" in new
        assert neuronaut("verify", "--notebook", copy).code == 0
        assert neuronaut("show", kept[1], "--json", "--notebook", copy).code == 0
        assert neuronaut("resume", kept[1], "--json", "--notebook", copy).code == 0, "an answered run is shown again"
    assert copy.read_bytes() == before
    assert [file.name for file in folder.iterdir()] == [copy.name]


# A full disk


def test_a_full_disk_keeps_what_was_recorded_and_the_run_goes_on_later(
    neuronaut: Command, tiny: tuple[str, ...], copy: Path
) -> None:
    """No file may grow beyond a limit: what SQLite sees is what it sees on a full disk."""
    with Notebook(copy, read_only=True) as notebook:
        head = notebook.head()
    limit = 200_000
    command = [sys.executable, "-m", "neuronaut", "ask", "neuron 1.8", *tiny, "--fast", "--notebook", str(copy)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "full disk" in done.stderr.splitlines()[-1]
    assert "what was recorded is kept" in done.stderr.splitlines()[-1]
    with Notebook(copy) as notebook:
        assert verify(notebook, head) == []
        run = queries.runs(notebook)[0]
    assert run["outcome"] in (None, "error")
    assert neuronaut("resume", run["id"], "--notebook", copy).code == 0
    assert neuronaut("verify", "--notebook", copy, "--head", head).code == 0


@pytest.mark.parametrize("more", [0, 2, 8])
def test_a_database_that_is_full_ends_a_run_with_a_sentence(
    neuronaut: Command, tiny: tuple[str, ...], copy: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    pages = copy.stat().st_size // 4096 + more
    original = store.Store._transaction

    def limited(self: store.Store, *, writing: bool) -> Any:
        sqlite.pragma(self._db, f"PRAGMA max_page_count = {pages}")
        return original(self, writing=writing)

    with Notebook(copy, read_only=True) as notebook:
        head = notebook.head()
    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "_transaction", limited)
        said = refusal(neuronaut("ask", "neuron 1.8", *tiny, "--fast", "--notebook", copy))
    assert "could not be written because the disk is full: what was recorded is kept; free some space" in said
    with Notebook(copy, read_only=True) as notebook:
        assert verify(notebook, head) == []


def test_output_to_a_full_device_is_one_sentence() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", "from neuronaut.agent.cli import main; main()", "models"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.startswith("neuronaut: the disk or device that output goes to is full")
    assert "Traceback" not in ended.stderr

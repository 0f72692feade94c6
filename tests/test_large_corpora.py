"""Corpora that need not fit in memory: the same corpus either way, kept once, in bounded memory."""

import gzip
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuronaut.tools import corpus as corpora
from neuronaut.tools.corpora import gather, reading, sources
from neuronaut.tools.corpora.kept import laid_in
from neuronaut.tools.corpora.shelf import ShelvedDocuments
from neuronaut.tools.corpus import Corpus, corpus_from_texts, load_corpus, pocket_corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.opened import OpenedText
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.upkeep import find_garbage, remove

FINGERPRINTS = {  # of the first version of the rule
    "pocket": "a86df6a18e61b784aab309a901d416e2b671bfa9b5e136ef337bdfe4ba43dc9d",
    "tinystories.jsonl": "41c5ce58111d9c1dd0456d4e86bf3a45f69b2fe9118d7b68a9490c0b5947b2a4",
    "wikitext2-test.txt": "69860c356aff633142a7067e18189ce465cc092c6fe01f8d492fd2b6275f31ad",
    "tinyshakespeare.txt": "e6d113fc047c9ec1ebdd218758d0aae1a0e453aebe8dde77a80889f6d908128a",
}
POCKET = Path(corpora.__file__).parent / "targets" / "pocket" / "corpus.jsonl.gz"


def _texts(n: int, seed: int = 0) -> list[str]:
    """Documents of which some are equal, equal but for case, near-copies, or hold no letter; in several scripts."""
    random = np.random.default_rng(seed)
    words = np.array([f"word{at}" for at in range(500)] + ["été", "Straße", "naïve", "слово", "日本"])
    texts = [" ".join(random.choice(words, random.integers(1, 60))) for _ in range(n)]
    for at in range(0, n - 3, 7):
        texts[at + 1] = texts[at]
        texts[at + 2] = texts[at].upper() + "!"
        texts[at + 3] = texts[at] + " and one more"
    return [*texts, "...", "... ...", "...", "?!"]


def _jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def _parquet(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=100)
    return path


def _same(one: Corpus, other: Corpus) -> None:
    assert one.sha256 == other.sha256
    assert tuple(one.documents) == tuple(other.documents)
    for split in ("explore", "design", "confirm", "audit"):
        for block in (None, 0, 2):
            assert tuple(one.of(split, block)) == tuple(other.of(split, block))
        assert one.n_groups(split) == other.n_groups(split) == len({d.group for d in other.of(split)})
        assert one.characters(split).tolist() == other.characters(split).tolist()
        assert one.groups(split).tolist() == [d.group for d in other.of(split)]
        some = set(one.groups(split)[::5].tolist())
        assert [d for d in other.of(split) if d.group in some] == list(one.in_groups(split, some))
    assert one.n_characters == sum(len(document.text) for document in other.documents)


@pytest.mark.parametrize("name", FINGERPRINTS)
@pytest.mark.parametrize("hold", [gather.HELD_BYTES, 100_000])
def test_no_corpus_has_changed_whether_held_or_on_disk(
    name: str, hold: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = POCKET if name == "pocket" else request.getfixturevalue("real_data") / "corpora" / name
    corpus = load_corpus(place, cache=tmp_path, hold=hold)
    assert corpus.sha256 == FINGERPRINTS[name]
    assert isinstance(corpus.documents, ShelvedDocuments) == (hold == 100_000)


@pytest.mark.parametrize("hold", [0, 50_000])
def test_held_and_on_disk_are_one_corpus(tmp_path: Path, hold: int) -> None:
    texts = _texts(1500)
    laid = load_corpus(_jsonl(tmp_path / "a.jsonl", texts), cache=tmp_path / "cache", hold=hold)
    assert isinstance(laid.documents, ShelvedDocuments)
    _same(laid, corpus_from_texts("a", texts))
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()) == [
        "corpus.json",
        "table",
        "texts",
    ]
    part = laid.of("explore")[3:60:4]
    assert list(part) == list(tuple(laid.of("explore"))[3:60:4])
    assert pickle.loads(pickle.dumps(laid)).documents[7] == laid.documents[7]


def test_a_corpus_of_copies_is_put_in_order_in_linear_time(tmp_path: Path) -> None:
    base = [text for text in _texts(400) if len(text) > 30]
    near = [f"{text} {number}" for text in base for number in range(30)]
    corpus = load_corpus(_jsonl(tmp_path / "a.jsonl", near), cache=tmp_path / "cache", hold=0)
    _same(corpus, corpus_from_texts("a", near))


def test_every_kind_of_file_gives_the_same_corpus(tmp_path: Path) -> None:
    texts = _texts(600)
    wanted = corpus_from_texts("a", texts)
    raw = _jsonl(tmp_path / "a.jsonl", texts).read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(raw))
    with pa.CompressedOutputStream(str(tmp_path / "a.jsonl.zst"), "zstd") as packed:
        packed.write(raw)
    number = pa.array(range(len(texts)))
    _parquet(tmp_path / "text.parquet", text=pa.array(texts), title=pa.array(texts), number=number)
    _parquet(tmp_path / "only.parquet", words=pa.array(texts, pa.large_string()), number=number)
    _parquet(tmp_path / "coded.parquet", words=pa.array(texts).dictionary_encode())
    _parquet(tmp_path / "two.parquet", words=pa.array(texts), other=pa.array(["x"] * len(texts)))
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "text.parquet", "only.parquet", "coded.parquet"):
        assert load_corpus(tmp_path / name).sha256 == wanted.sha256, name
    assert load_corpus(f"{tmp_path}/two.parquet#words").sha256 == wanted.sha256
    rows = "".join(json.dumps({"story": text, "text": "x"}) + "\n" for text in texts)
    (tmp_path / "field.jsonl").write_text(rows)
    assert load_corpus(f"{tmp_path}/field.jsonl#story").sha256 == wanted.sha256
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    _jsonl(mixed / "one.jsonl", texts[:250])
    _parquet(mixed / "two.parquet", text=pa.array([*texts[250:], None, " "]))
    assert load_corpus(mixed).sha256 == wanted.sha256
    assert load_corpus(mixed).notes == ("2 empty documents were skipped",)


def test_a_url_gives_the_same_corpus_as_the_file(tmp_path: Path) -> None:
    texts = _texts(600)
    wanted = corpus_from_texts("a", texts).sha256
    memory = fsspec.filesystem("memory")
    memory.pipe("/texts/b.jsonl", _jsonl(tmp_path / "b.jsonl", texts[:300]).read_bytes())
    memory.pipe("/texts/c.parquet", _parquet(tmp_path / "c.parquet", text=pa.array(texts[300:])).read_bytes())
    memory.pipe("/texts/readme.md", b"no corpus")
    memory.pipe("/blocks.txt", "\n\n".join(texts).encode())
    (tmp_path / "blocks.txt").write_text("\n\n".join(texts))
    corpus = load_corpus("memory://texts", cache=tmp_path / "cache", hold=0)
    assert (corpus.sha256, corpus.name) == (wanted, "texts")
    assert list(find_garbage(tmp_path / "cache", [])) == []
    assert load_corpus("memory://blocks.txt").sha256 == load_corpus(tmp_path / "blocks.txt").sha256
    _jsonl(tmp_path / "a.jsonl", texts)
    assert load_corpus(f"file://{tmp_path}/a.jsonl").sha256 == wanted
    memory.rm("/texts", recursive=True)


def test_a_large_corpus_is_read_once_and_again_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = _jsonl(tmp_path / "a.jsonl", _texts(600)), tmp_path / "cache"
    first = load_corpus(path, cache=cache, hold=0)
    with monkeypatch.context() as patch:
        patch.setattr(corpora, "texts_of", lambda *_: pytest.fail("it was read again"))
        _same(load_corpus(path, cache=cache, hold=0), first)
    stamp = path.stat().st_mtime_ns
    path.write_text(path.read_text().replace("word1 ", "word2 "))
    os.utime(path, ns=(stamp + 1, stamp + 1))
    assert load_corpus(path, cache=cache, hold=0).sha256 != first.sha256
    outdated = [one for one in find_garbage(cache, []) if "has changed since" in one.reason]
    assert len(outdated) == 1
    assert len(list(cache.iterdir())) == 2
    assert outdated[0].n_bytes > 10_000
    assert remove(outdated[0])
    assert list(find_garbage(cache, [])) == []
    path.unlink()
    (gone,) = find_garbage(cache, [])
    assert gone.reason == f"its text {path} is gone"


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), laid_in(tmp_path) as laid:
        left = shutil.copytree(laid.folder, tmp_path / ".corpus-killed.part")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [left.name]
    assert list(find_garbage(tmp_path, [])) == []
    for path in (*left.iterdir(), left):
        os.utime(path, (0, 0))
    (garbage,) = find_garbage(tmp_path, [])
    assert remove(garbage)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_copy_is_never_read(tmp_path: Path) -> None:
    path, cache = _jsonl(tmp_path / "a.jsonl", _texts(600)), tmp_path / "cache"
    first = load_corpus(path, cache=cache, hold=0)
    (folder,) = cache.iterdir()
    for name in ("table", "corpus.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-3])
        _same(load_corpus(path, cache=cache, hold=0), first)
    raw = bytearray((folder / "texts").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "texts").write_bytes(raw)
    with pytest.raises(UserError, match=r"the kept copy of the corpus is damaged: remove .*made again"):
        list(load_corpus(path, cache=cache, hold=0).documents)


def test_a_long_document_is_read_in_parts_that_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "LONGEST_TEXT", 400)
    words = np.array([f"w{at}" for at in range(5000)])
    random = np.random.default_rng(0)
    long = [" ".join(random.choice(words, 300)) for _ in range(150)]
    corpus = load_corpus(_jsonl(tmp_path / "a.jsonl", long), cache=tmp_path / "cache", hold=0)
    _same(corpus, corpus_from_texts("a", long))
    assert sum(corpus.n_groups(split) for split in ("explore", "design", "confirm", "audit")) == 150
    assert max(len(document.text) for document in corpus.documents) <= 400
    together = sorted("".join(text.split()) for text in long)
    pieces: dict[int, list[str]] = {}
    for document in corpus.documents:
        pieces.setdefault(document.group, []).append(document.text)
    assert sorted(sum(len("".join(piece.split())) for piece in group) for group in pieces.values()) == sorted(
        map(len, together)
    )
    assert all(any("".join(piece.split()) in text for text in together) for group in pieces.values() for piece in group)


def _cut_at_once(text: str) -> list[str]:
    """The rule for plain text, on the whole text."""
    text = text.replace("\r\n", "\n")
    for border, least in ((r"^ ?= [^=\n]+ = ?$", 150), (r"^ ?= .+ = ?$", 2)):
        starts = [match.start() for match in re.finditer(border, text, re.MULTILINE)]
        if len(starts) >= least:
            return [text[a:b].strip() for a, b in pairwise([0, *starts, len(text)]) if text[a:b].strip()]
    paragraphs, joint = re.split(r"\n[ \t]*\n\s*", text), "\n\n"
    if len(paragraphs) == 1:
        paragraphs, joint = text.split("\n"), "\n"
    blocks: list[list[str]] = [[]]
    for paragraph in (piece.strip("\n") for piece in paragraphs):
        if paragraph.strip():
            if sum(map(len, blocks[-1])) >= 500:
                blocks.append([])
            blocks[-1].append(paragraph)
    return [joint.join(block) for block in blocks if block]


def test_plain_text_is_cut_line_by_line_as_it_would_be_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    lines = [
        "a b c " * 30,
        "",
        " ",
        "\t",
        "\x0b",
        "\xa0",
        "  indented " * 9,
        "one\r",
        "é\u2028f",
        "== x =",
        " = T = ",
        "= = S = =",
    ]
    path, plain = tmp_path / "a.txt", [line for line in lines if "=" not in line]
    for round_ in range(300):
        pool = lines if round_ % 2 else plain
        drawn = random.choice(np.array(pool, dtype=object), random.integers(0, 60))
        text = "\n".join(drawn) + random.choice(["", "\n", "\n\n", "\n  "])
        path.write_bytes(text.encode())
        (source,) = sources.sources_of(path)
        assert list(reading.texts_of(source, reading.Reading())) == _cut_at_once(text), repr(text)


def test_tokens_are_read_as_far_as_they_are_needed_and_are_the_same(tmp_path: Path) -> None:
    target = load_target("pocket")
    documents = pocket_corpus().of("design")
    whole = corpora.tokens_of(target, documents)
    opened = OpenedText(target, documents)
    for n_tokens in (1, 5_000, 20_000, 10**9):
        found = opened.first(n_tokens)
        enough = min(int(np.searchsorted(np.cumsum(whole.lengths), n_tokens)) + 1, len(whole))
        wanted = whole if enough == len(whole) else whole.select(range(enough))
        for name in ("ids", "starts", "ends", "documents"):
            assert np.array_equal(getattr(found, name), getattr(wanted, name)), (name, n_tokens)
        assert found.texts == wanted.texts


def test_of_a_long_split_only_the_first_tokens_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pocket, target = pocket_corpus(), load_target("pocket")
    assert pocket.notes == ()
    texts = [document.text for document in pocket.documents]
    path = _jsonl(tmp_path / "a.jsonl", texts)
    small = dict.fromkeys(corpora.MOST_TOKENS, 3000)
    monkeypatch.setattr(corpora, "MOST_TOKENS", small)
    monkeypatch.setattr("neuronaut.tools.registry.MOST_TOKENS", small)
    corpus = load_corpus(path, cache=tmp_path / "cache", hold=0)
    assert corpus.notes == (corpora.LONG,)
    read: list[str] = []
    monkeypatch.setattr(
        ShelvedDocuments,
        "__iter__",
        lambda self: (read.append("") or self.shelf.document(at) for at in self.at.tolist()),
    )
    tokens = ToolContext(target, corpus).tokens("confirm", 1)
    whole = corpora.tokens_of(target, pocket.of("confirm", 1))
    assert 3000 <= tokens.lengths.sum() < 3200
    assert np.array_equal(tokens.ids, whole.ids[: len(tokens), : tokens.ids.shape[1]])
    assert len(read) < 1000 < len(corpus.documents)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
def test_on_disk_the_peak_of_memory_is_not_that_of_the_text(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from neuronaut.tools.corpus import load_corpus

def peak():  # of this process alone, which what getrusage says is not
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

peaks = [peak()]
for hold in (1 << 20, 1 << 30):
    corpus = load_corpus(sys.argv[1], hold=hold, cache=None if hold < 1 << 30 else Path(sys.argv[2]))
    assert sum(len(one.text) for one in corpus.of("explore")) == corpus.characters("explore").sum()
    peaks.append(peak())
print(*(peak >> 10 for peak in peaks))
"""
    random = np.random.default_rng(0)
    words = np.array([f"word{at}" for at in range(3000)])
    body = [" ".join(row) for row in words[random.integers(0, 3000, (200, 1000))]]
    path = tmp_path / "a.jsonl"
    _jsonl(path, [text.replace("word", f"word{number}") for number in range(14) for text in body])
    own = {**os.environ, "NEURONAUT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "other")]
    run = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    before, laid, held = map(int, run.stdout.split())
    text = path.stat().st_size >> 20
    assert text >= 20
    assert laid - before < 1.5 * text < 2 * text <= held - before


Make = Callable[[Path], object]


def _torn(path: Path) -> object:
    return path.write_bytes(_parquet(path, text=pa.array(_texts(600))).read_bytes()[:-40])


def _holed(path: Path) -> object:
    raw = bytearray(_parquet(path, text=pa.array(_texts(600))).read_bytes())
    raw[100:1500] = bytes(1400)
    return path.write_bytes(raw)


BAD: dict[str, tuple[Make, str]] = {
    "columns.parquet": (
        lambda path: _parquet(path, a=pa.array(["x"]), b=pa.array(["y"])),
        r"several columns of text \('a', 'b'\): name one .* columns.parquet#a",
    ),
    "numbers.parquet": (lambda path: _parquet(path, a=pa.array([1])), "has no column of text: its columns are 'a'"),
    "named.parquet#b": (
        lambda path: _parquet(path, a=pa.array(["x"]), b=pa.array([1])),
        "has no column of text 'b': its columns of text are 'a'",
    ),
    "no.parquet": (lambda path: path.write_text("no Parquet" * 9), "cannot be read as Parquet"),
    "torn.parquet": (_torn, "cannot be read"),
    "holed.parquet": (_holed, "cannot be read"),
    "empty.parquet": (lambda path: _parquet(path, text=pa.array([], pa.string())), "holds no text"),
    "torn.jsonl.zst": (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd1234"), "cannot be read|holds no text"),
    "wide.txt": (lambda path: path.write_bytes("text".encode("utf-16")), "is UTF-16, not UTF-8: convert it"),
    "wide.jsonl": (lambda path: path.write_bytes('{"text": "a"}'.encode("utf-16")), "is UTF-16"),
    "plain.txt#text": (lambda path: path.write_text("a\n\nb"), "is plain text: it has no column 'text'"),
    "field.jsonl#story": (lambda path: path.write_text('{"text": "a"}\n'), "an object with a string `story`"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_corpus_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    make, wanted = BAD[name]
    make(tmp_path / name.partition("#")[0])
    with pytest.raises(UserError, match=wanted) as refusal:
        load_corpus(f"{tmp_path}/{name}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("s3://bucket/texts.jsonl", "needs a package that is not there: .*s3fs"),
        ("nothing://bucket/texts.jsonl", "cannot be read: Protocol not known: nothing"),
        ("memory://missing.jsonl", "there is no corpus 'memory://missing.jsonl'"),
        ("memory://bad.png", "is no corpus"),
        ("simplecache::memory://a.jsonl", "chains several places"),
        ("https://me:secret@example.org/a.jsonl", "holds a password"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_in_a_sentence(url: str, wanted: str) -> None:
    fsspec.filesystem("memory").pipe("/bad.png", b"x")
    with pytest.raises(UserError, match=wanted) as refusal:
        load_corpus(url)
    assert "secret" not in str(refusal.value)


def test_a_bomb_is_refused_before_it_fills_memory_or_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.jsonl.gz"
    bomb.write_bytes(gzip.compress(b'{"text": "' + bytes([97]) * (40 << 20) + b'"}'))
    with pytest.raises(UserError, match="line 1 is longer than 32 MiB"):
        load_corpus(bomb, cache=tmp_path / "cache")
    monkeypatch.setattr(sources, "ALWAYS_UNPACKED", 1 << 20)
    bomb.write_bytes(gzip.compress(b"\n" * (10 << 20)))
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        load_corpus(bomb, cache=tmp_path / "cache")
    path = _jsonl(tmp_path / "a.jsonl", _texts(6000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 0, 10**6))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"needs more than 0.0 GiB, half of what is free .*NEURONAUT_CACHE"):
        load_corpus(path, cache=tmp_path / "cache", hold=0)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = _jsonl(tmp_path / "a.jsonl", _texts(600))
    with pytest.raises(UserError, match=r"cannot be laid down in .*NEURONAUT_CACHE"):
        load_corpus(path, cache=tmp_path / "file" / "cache", hold=0)
    assert load_corpus(path, cache=tmp_path / "file" / "cache").notes == ()

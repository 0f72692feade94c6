"""Documents, near-duplicates and splits."""

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neuronaut.tools.corpus import Corpus, corpus_from_texts, load_corpus
from neuronaut.tools.duplicates import duplicate_groups
from neuronaut.tools.errors import UserError

WORDS = np.array([f"word{number}" for number in range(4000)])


def _texts(n: int, *, words: int = 60, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, words)) for _ in range(n)]


def _changed(text: str, places: list[int]) -> str:
    words = text.split()
    for place in places:
        words[place] = "other"
    return " ".join(words)


def _where(corpus: Corpus) -> dict[str, tuple[int, str, int]]:
    return {document.text: (document.group, document.split, document.block) for document in corpus.documents}


def _jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_splits_have_their_shares_and_share_no_group() -> None:
    corpus = corpus_from_texts("made", _texts(6000, words=12))
    sizes = Counter((document.split, document.block) for document in corpus.documents)
    wanted = {("explore", 0): 0.4, ("design", 0): 0.2, ("audit", 0): 0.1} | {
        ("confirm", block): 0.1 for block in range(3)
    }
    assert sizes.keys() == wanted.keys()
    for place, share in wanted.items():
        assert sizes[place] / 6000 == pytest.approx(share, abs=4 * (share * (1 - share) / 6000) ** 0.5)
    groups = {place: {document.group for document in corpus.of(*place)} for place in wanted}  # type: ignore[arg-type]
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 6000


def test_duplicates_share_a_group_and_a_split_and_do_not_crowd_into_explore() -> None:
    originals = _texts(1500)
    near = [_changed(text, [30]) for text in originals]  # Jaccard similarity 51/61
    shouted = [text.upper().replace(" ", ",  ") + "!" for text in originals]
    corpus = corpus_from_texts("made", [*originals, *near, *shouted, *originals])
    where = _where(corpus)
    assert all(where[one] == where[three] for one, three in zip(originals, shouted, strict=True))
    assert len({where[text] for text in originals}) == 1500
    together = np.mean([where[one][0] == where[two][0] for one, two in zip(originals, near, strict=True)])
    assert together > 0.95
    assert corpus.n_groups("explore") / len({place[0] for place in where.values()}) == pytest.approx(0.4, abs=0.05)


def test_texts_that_share_half_their_shingles_stay_apart() -> None:
    texts, others = _texts(300, words=100), _texts(300, words=100, seed=1)
    halves = [" ".join([*one.split()[:60], *two.split()[60:]]) for one, two in zip(texts, others, strict=True)]
    assert len(set(duplicate_groups([*texts, *halves]).tolist())) >= 595


def test_grouping_agrees_with_exact_jaccard_similarity() -> None:
    texts = _texts(120, words=80, seed=5)
    for at in range(60):
        texts[at + 60] = _changed(texts[at], list(range(7, 7 + at // 6 * 7, 7)))
    shingles = [{tuple(words[at : at + 5]) for at in range(76)} for words in map(str.split, texts)]
    groups = duplicate_groups(texts)
    for one in range(60):
        pair = shingles[one], shingles[one + 60]
        similarity = len(pair[0] & pair[1]) / len(pair[0] | pair[1])
        if not 0.5 < similarity < 0.85:
            assert (groups[one] == groups[one + 60]) == (similarity > 0.7), similarity


def test_the_split_of_a_text_depends_neither_on_its_place_nor_on_other_texts(tmp_path: Path) -> None:
    texts = _texts(300)
    one, back = corpus_from_texts("a", texts), corpus_from_texts("b", texts[::-1])
    assert (one.sha256, one.documents) == (back.sha256, back.documents)
    more = _where(corpus_from_texts("c", [*texts, *_texts(200, seed=9)]))
    assert all(more[text][1:] == place[1:] for text, place in _where(one).items())
    assert corpus_from_texts("a", texts[1:]).sha256 != one.sha256


def test_a_golden_split_does_not_move() -> None:
    corpus = corpus_from_texts("made", [f"document number {at} is about {at * at}" for at in range(400)])
    where = _where(corpus)
    found = [where[f"document number {at} is about {at * at}"][1][0] for at in range(12)]
    assert "".join(found) == "deadeedecccd"  # the first version of the rule


def test_a_corpus_is_read_alike_from_jsonl_gzip_and_a_folder(tmp_path: Path) -> None:
    texts = _texts(200)
    plain = load_corpus(_jsonl(tmp_path / "one.jsonl", texts))
    (tmp_path / "one.jsonl.gz").write_bytes(gzip.compress((tmp_path / "one.jsonl").read_bytes()))
    packed = load_corpus(tmp_path / "one.jsonl.gz")
    folder = tmp_path / "folder"
    folder.mkdir()
    _jsonl(folder / "b.jsonl", texts[:90])
    _jsonl(folder / "a.jsonl", texts[90:])
    (folder / "readme.md").write_text("no corpus")
    assert plain.sha256 == packed.sha256 == load_corpus(folder).sha256
    assert len(plain.documents) == 200
    assert plain.n_characters == sum(map(len, texts))


def test_a_text_file_is_cut_at_titles_headings_or_paragraphs(tmp_path: Path) -> None:
    body = _texts(400, words=30)
    path = tmp_path / "a.txt"
    articles = [f" = Title {at} = \n\n {text} \n\n = = Part = = \n\n {text} b\n" for at, text in enumerate(body)]
    path.write_text("".join(articles))
    assert len(load_corpus(path).documents) == 400
    path.write_text("".join(articles[:140]))
    assert len(load_corpus(path).documents) == 280
    for joint in ("\n\n", "\n \n\n", "\n", "\r\n\r\n"):
        path.write_bytes(joint.join(body).encode())
        texts = [document.text for document in load_corpus(path).documents]
        assert all(len(text) >= 500 for text in sorted(texts, key=len)[1:])
        assert sorted(word for text in texts for word in text.split()) == sorted(" ".join(body).split())


def test_bytes_that_are_no_text_are_replaced_and_counted(tmp_path: Path) -> None:
    texts = _texts(200)
    path = _jsonl(tmp_path / "a.jsonl", [*texts, "", "  \n", "a real \ufffd sign"])
    with path.open("ab") as file:
        file.write(b'{"text": "broken \xff\xfe bytes"}\n{"text": "half \\ud800 pair"}\n')
    corpus = load_corpus(path)
    assert len(corpus.documents) == 203
    assert corpus.notes == (
        "3 pieces of text that are not UTF-8 were replaced by U+FFFD",
        "2 empty documents were skipped",
    )
    assert "broken \ufffd\ufffd bytes" in _where(corpus)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("{", "line 3 is not JSON"),
        ("[" * 100_000, "line 3 is not JSON"),
        ("9" * 5000, "line 3 is not JSON"),
        ('{"words": "a"}', "line 3 has no text"),
        ('{"text": 3}', "line 3 has no text"),
        ('["text"]', "line 3 has no text"),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str, wanted: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n\n' + line + "\n")
    with pytest.raises(UserError, match=wanted):
        load_corpus(path)


def _make(kind: str, folder: Path) -> Path:
    made: dict[str, Callable[[Path], object]] = {
        "missing.txt": lambda path: None,
        "empty.txt": lambda path: path.write_text(""),
        "blank.jsonl": lambda path: path.write_text("\n\n"),
        "picture.png": lambda path: path.write_text("x"),
        "folder": lambda path: path.mkdir(),
        "torn.jsonl.gz": lambda path: path.write_bytes(gzip.compress(b'{"text": "a"}' * 99)[:-12]),
        "plain.jsonl.gz": lambda path: path.write_text("no gzip"),
        "huge.jsonl": lambda path: path.write_text(json.dumps({"text": "one document " * 100_000})),
        "few.jsonl": lambda path: _jsonl(path, _texts(60)),
        "same.jsonl": lambda path: _jsonl(path, _texts(1) * 5000),
    }
    made[kind](folder / kind)
    return folder / kind


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("missing.txt", "there is no corpus"),
        ("empty.txt", "holds no text"),
        ("blank.jsonl", "holds no text"),
        ("picture.png", "is no corpus"),
        ("folder", "holds no text"),
        ("torn.jsonl.gz", "cannot be read"),
        ("plain.jsonl.gz", "cannot be read"),
        ("huge.jsonl", "shorter than the splits need.* 1 different documents"),
        ("few.jsonl", "shorter than the splits need.* about 125"),
        ("same.jsonl", "shorter than the splits need.* 1 different documents"),
    ],
)
def test_a_corpus_that_cannot_carry_a_test_is_refused_in_a_sentence(tmp_path: Path, kind: str, wanted: str) -> None:
    with pytest.raises(UserError, match=wanted) as refusal:
        load_corpus(_make(kind, tmp_path))
    assert "\n" not in str(refusal.value)


def test_a_hundred_thousand_tiny_documents_take_seconds() -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(row) for row in WORDS[random.integers(0, len(WORDS), (100_000, 7))]]
    start = time.process_time()
    corpus = corpus_from_texts("tiny", texts)
    assert time.process_time() - start < 10
    assert len({document.group for document in corpus.documents}) > 99_900


def test_public_text_splits_into_hundreds_of_documents(real_data: Path) -> None:
    for name, least in (("tinystories.jsonl", 1000), ("wikitext2-test.txt", 500), ("tinyshakespeare.txt", 1000)):
        corpus = load_corpus(real_data / "corpora" / name)
        assert len(corpus.documents) >= least
        assert corpus.n_groups("explore") >= 0.3 * least

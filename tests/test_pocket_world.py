"""The generated world: the same on every machine, true labels, and a corpus that training never saw."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from neuronaut.evals.pocket import labels
from neuronaut.evals.pocket.packing import block_mask, pack
from neuronaut.evals.pocket.world import (
    REGISTERS,
    Document,
    Span,
    corpus_documents,
    document,
    training_texts,
    words,
    write_corpus,
)
from neuronaut.evals.pocket.world.registers import is_held_out

FOLDER = Path(__file__).parents[1] / "tools" / "targets" / "pocket"


@pytest.fixture(scope="module")
def held_out() -> list[Document]:
    return corpus_documents(1500)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def labelled(tokenizer: Tokenizer, made: Document) -> list[tuple[str, set[str]]]:
    encoding = tokenizer.encode(made.text)
    found = labels.token_labels(made, encoding.offsets, encoding.ids)
    names = np.array(found.names)
    pieces = [made.text[start:end] for start, end in encoding.offsets]
    return [(piece, set(names[row])) for piece, row in zip(pieces, found.holds, strict=True)]


def test_a_document_depends_on_its_seed_and_number_only() -> None:
    assert document(3, 17) == document(3, 17)
    assert document(3, 17).text != document(4, 17).text
    digest = hashlib.sha256("".join(document(0, number).text for number in range(500)).encode()).hexdigest()
    assert digest == "060460296b3beb9076142ad434e8f62ecf05191d840f71136494f8c0c36cdd33"


def test_no_held_out_text_is_a_training_text(held_out: list[Document]) -> None:
    assert not {made.text for made in held_out} & set(training_texts(20_000))
    assert all(is_held_out(made.text) for made in held_out)
    assert len({made.text for made in held_out}) == len(held_out)


def test_every_register_is_in_the_corpus(held_out: list[Document]) -> None:
    assert {made.register for made in held_out} == set(REGISTERS)


def test_the_shipped_corpus_is_the_generated_one_without_labels() -> None:
    lines = [json.loads(line) for line in gzip.decompress((FOLDER / "corpus.jsonl.gz").read_bytes()).splitlines()]
    made = corpus_documents(len(lines))
    assert [line["text"] for line in lines] == [one.text for one in made]
    assert {frozenset(line) for line in lines} == {frozenset({"id", "text"})}


def test_the_same_documents_give_the_same_bytes(tmp_path: Path, held_out: list[Document]) -> None:
    write_corpus(tmp_path / "a.gz", held_out[:50])
    write_corpus(tmp_path / "b.gz", held_out[:50])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize(
    ("label", "members"),
    [("month", words.MONTHS), ("day_name", words.DAYS), ("name", words.NAMES), ("number_word", words.NUMBER_WORDS)],
)
def test_a_word_class_holds_on_its_words_and_on_no_other(
    label: str, members: list[str], held_out: list[Document], tokenizer: Tokenizer
) -> None:
    seen = 0
    for made in held_out[:400]:
        for piece, found in labelled(tokenizer, made):
            if label in found:
                seen += 1
                assert any(piece.strip() in member for member in members)
            elif made.register not in labels.NO_CLASSES:
                assert piece.strip() not in members
    assert seen > 50


def test_a_word_has_no_label_that_the_world_never_uses(held_out: list[Document]) -> None:
    seen = {word for made in corpus_documents(4000) for word in re.findall("[A-Za-z]+", made.text)}
    unused = {label: members - seen for label, members in labels.CLASSES.items() if members - seen}
    assert not unused


def test_quotes_and_brackets_hold_exactly_between_their_marks(tokenizer: Tokenizer) -> None:
    text = 'Tom said, "I see (a [b] c) it". No'
    found = labelled(tokenizer, Document(0, "sayings", text, ()))

    def holding(label: str) -> str:
        return "".join(piece for piece, names in found if label in names)

    assert holding("inside_quotes") == "I see (a [b] c) it"
    assert holding("inside_brackets") == "a [b] c"
    assert holding("bracket_depth_2") == "b"
    assert holding("opening_bracket").split() == ["(", "["]
    assert holding("sentence_start") == "Tom No"


def test_repeats_count_earlier_tokens_of_the_document_only(tokenizer: Tokenizer) -> None:
    found = labelled(tokenizer, Document(0, "verse", "sing to me, sing to me, sing to me", ()))
    second = [piece.strip() for piece, names in found if "second_occurrence" in names]
    assert sorted(second) == [",", "me", "sing", "to"]
    assert found[0][1] >= {"first_token"}
    assert all("second_occurrence" not in names for _, names in found[:4])


def test_mentions_of_a_name_are_first_then_later(tokenizer: Tokenizer) -> None:
    made = Document(
        0, "giving", "Mary saw Tom. Mary ran.", (Span(0, 4, "name"), Span(9, 12, "name"), Span(14, 18, "name"))
    )
    found = labelled(tokenizer, made)
    assert [piece.strip() for piece, names in found if "first_mention" in names] == ["Mary", "Tom"]
    assert [piece.strip() for piece, names in found if "later_mention" in names] == ["Mary"]


def test_sums_and_facts_in_the_corpus_are_true(held_out: list[Document]) -> None:
    sums = [line for made in held_out if made.register == "arithmetic" for line in made.text.splitlines()]
    for line in sums:
        left, sign, right, _, answer = line.split()
        assert int(left) + (int(right) if sign == "+" else -int(right)) == int(answer)
    assert len(sums) > 100


def test_packed_documents_see_themselves_only_and_none_is_lost() -> None:
    texts = [[0, *range(10 * size, 11 * size)] for size in range(2, 60)]
    rows = pack(texts, 64, 0)
    kept = {
        tuple(rows.ids[row][rows.owner[row] == owner].tolist())
        for row in range(len(rows.ids))
        for owner in range(int(rows.owner[row].max()) + 1)
    }
    assert kept == {tuple(ids) for ids in texts}
    allowed = block_mask(rows.owner)[:, 0] == 0
    later = ~np.tril(np.ones((64, 64), dtype=bool))
    assert not bool(allowed.numpy()[:, later].any())
    assert bool((rows.positions[rows.ids == 0][:1] == 0).all())

"""Text cut into documents, and the documents into four splits that share no near-duplicate."""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from neuronaut.tools.duplicates import duplicate_groups, normalised
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens

Split = Literal["explore", "design", "confirm", "audit"]

SPLIT_RULE = b"neuronaut split 1"
CONFIRM_BLOCKS = 3
MIN_EXPLORE_DOCUMENTS = 40  # twice the 20 active documents below which a unit counts as too rare
MAX_FILE_BYTES = 4 << 30  # decompressed; a larger file is a mistake or a gzip bomb
MIN_BLOCK_CHARACTERS = 500  # paragraphs of a .txt are joined up to this length
TITLED_DOCUMENTS = 150  # so many titles of a .txt make titles alone the borders

_SHARES: tuple[tuple[float, Split], ...] = ((0.4, "explore"), (0.6, "design"), (0.9, "confirm"), (1.0, "audit"))
_HEADING = re.compile(r"^ ?= .+ = ?$", re.MULTILINE)
_TITLE = re.compile(r"^ ?= [^=\n]+ = ?$", re.MULTILINE)
_SUFFIXES = (".txt", ".jsonl", ".jsonl.gz")
_POCKET = Path(__file__).parent / "targets" / "pocket" / "corpus.jsonl.gz"


@dataclass(frozen=True)
class Document:
    """One text. Near-duplicates share `group`, the number called "document" everywhere else; block: 0-2 in confirm."""

    text: str
    group: int
    split: Split
    block: int = 0


@dataclass(frozen=True)
class Corpus:
    """Documents in an order fixed by their hashes, the members of a group side by side.

    sha256 depends on the set of texts and the split rule, not on file names or order. notes: what a reader should know
    (bytes replaced, texts skipped), one sentence each.
    """

    name: str
    sha256: str
    documents: tuple[Document, ...]
    notes: tuple[str, ...] = ()
    _splits: dict[tuple[Split, int | None], tuple[Document, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def of(self, split: Split, block: int | None = None) -> tuple[Document, ...]:
        """The documents of a split (confirm: of one block, if named), in corpus order."""
        key = (split, block)
        if key not in self._splits:
            self._splits[key] = tuple(
                document
                for document in self.documents
                if document.split == split and (block is None or document.block == block)
            )
        return self._splits[key]

    def n_groups(self, split: Split) -> int:
        """Number of different documents of a split, near-duplicates counted once."""
        return len({document.group for document in self.of(split)})

    @property
    def n_characters(self) -> int:
        """Length of all texts together."""
        return sum(len(document.text) for document in self.documents)


def load_corpus(path: Path) -> Corpus:
    """The documents of a .txt, .jsonl or .jsonl.gz file, or of a folder of those, cut into splits.

    A .jsonl holds one document a line, in the field `text`. A .txt is cut at lines `= Title =`; where these are fewer
    than 150, at lines of deeper headings too (`= = Section = =`); without headings at blank lines (or, without these,
    at line ends), short paragraphs joined up to 500 characters. Bytes that are not UTF-8 become U+FFFD and are counted
    in the notes.
    Refuses: no such file, an unknown kind of file, a line that is not JSON or has no text, no text at all, and fewer
    than 40 different documents in explore.
    """
    path = Path(path)
    read = _Reading()
    for file in _files(path):
        read.documents.extend(_documents_in(file, read))
    if not read.documents:
        raise UserError(f"{str(path)!r} holds no text: nothing can be tested on it; give a corpus with documents")
    return corpus_from_texts(path.name, read.documents, notes=read.notes())


@cache
def pocket_corpus() -> Corpus:
    """The text that belongs to the embedded target `pocket`."""
    return load_corpus(_POCKET)


def corpus_from_texts(name: str, texts: Sequence[str], *, notes: Sequence[str] = ()) -> Corpus:
    """The texts as a corpus: near-duplicates grouped, groups put into splits by hash.

    explore 40 %, design 20 %, confirm 30 % (3 blocks), audit 10 % of the groups. A group goes where the hash of its
    smallest member hash sends it, so that the order of the texts does not matter.
    Refuses: fewer than 40 groups in explore.
    """
    hashed = sorted((hashlib.sha256(normalised(text).encode()).digest(), text) for text in texts)
    texts = [text for _, text in hashed]
    members: dict[int, list[int]] = {}
    for at, group in enumerate(duplicate_groups(texts).tolist()):
        members.setdefault(group, []).append(at)
    keyed = sorted((hashlib.sha256(SPLIT_RULE + hashed[at[0]][0]).digest(), at) for at in members.values())
    keyed.sort(key=lambda one: one[0][16:])  # the order must not depend on the bytes that choose the split
    documents: list[Document] = []
    for number, (key, places) in enumerate(keyed):
        split, block = _place(key)
        documents.extend(Document(texts[at], number, split, block) for at in places)
    fingerprint = hashlib.sha256(SPLIT_RULE)
    for document in documents:
        fingerprint.update(hashlib.sha256(document.text.encode()).digest())
        fingerprint.update(f"{document.group} {document.split} {document.block};".encode())
    corpus = Corpus(name, fingerprint.hexdigest(), tuple(documents), tuple(notes))
    _refuse_if_short(corpus, len(keyed))
    return corpus


def tokens_of(target: TargetModel, documents: Sequence[Document]) -> Tokens:
    """The windows of the documents as the target sees them, in order; `documents` are the group numbers."""
    return target.tokenize([document.text for document in documents], [document.group for document in documents])


def _place(key: bytes) -> tuple[Split, int]:
    share = int.from_bytes(key[:8], "big") / 2**64
    split = next(name for limit, name in _SHARES if share < limit)
    return split, int.from_bytes(key[8:16], "big") % CONFIRM_BLOCKS if split == "confirm" else 0


def _refuse_if_short(corpus: Corpus, n_groups: int) -> None:
    found = corpus.n_groups("explore")
    if found < MIN_EXPLORE_DOCUMENTS:
        need = int(MIN_EXPLORE_DOCUMENTS / 0.4 * 1.25)
        raise UserError(
            f"{corpus.name!r} is shorter than the splits need: of its {n_groups} different documents {found} fall into "
            f"explore, which needs {MIN_EXPLORE_DOCUMENTS}; give at least about {need} different documents"
        )


@dataclass
class _Reading:
    documents: list[str] = field(default_factory=list)
    replaced: int = 0
    empty: int = 0

    def notes(self) -> tuple[str, ...]:
        replaced = f"{self.replaced} pieces of text that are not UTF-8 were replaced by U+FFFD"
        empty = f"{self.empty} empty documents were skipped"
        return tuple(note for count, note in ((self.replaced, replaced), (self.empty, empty)) if count)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name.endswith(_SUFFIXES)]
        if not files:
            raise UserError(f"the folder {str(path)!r} holds no text: put .txt, .jsonl or .jsonl.gz files into it")
        return files
    if not path.is_file():
        raise UserError(
            f"there is no corpus {str(path)!r}: name a .txt, .jsonl or .jsonl.gz file, or a folder of those"
        )
    if not path.name.endswith(_SUFFIXES):
        raise UserError(
            f"{str(path)!r} is no corpus: a corpus is a .txt, .jsonl or .jsonl.gz file, or a folder of those"
        )
    return [path]


def _documents_in(path: Path, read: _Reading) -> list[str]:
    raw = _bytes_of(path)
    text = raw.decode("utf-8", errors="replace").removeprefix("\ufeff")
    read.replaced += text.count("\ufffd") - raw.count("\ufffd".encode())
    found = _blocks(text.replace("\r\n", "\n")) if path.name.endswith(".txt") else _json_texts(path, text, read)
    kept = []
    for document in found:
        if document.strip():
            kept.append(document)
        else:
            read.empty += 1
    return kept


def _bytes_of(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"the corpus {str(path)!r} cannot be read: {error}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise UserError(
            f"the corpus {str(path)!r} is larger than {MAX_FILE_BYTES >> 30} GiB: cut it into several files"
        )
    return bytes(raw)


def _json_texts(path: Path, text: str, read: _Reading) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path.name} line {number} is not JSON: each line must be an object with `text`"
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f"{path.name} line {number} has no text: each line must be an object with a string `text`")
        clean = row["text"].encode("utf-8", errors="surrogatepass").decode("utf-8", errors="replace")
        if clean != row["text"]:  # half of a surrogate pair: valid JSON, but no text
            read.replaced += 1
        yield clean


def _blocks(text: str) -> list[str]:
    for border in (_TITLE, _HEADING):
        starts = [match.start() for match in border.finditer(text)]
        if len(starts) >= (TITLED_DOCUMENTS if border is _TITLE else 2):
            borders = [0, *starts, len(text)]
            pieces = (text[a:b].strip() for a, b in pairwise(borders))
            return [piece for piece in pieces if piece]
    paragraphs = re.split(r"\n[ \t]*\n\s*", text)
    joint = "\n\n"
    if len(paragraphs) == 1:
        paragraphs, joint = text.split("\n"), "\n"
    blocks: list[list[str]] = [[]]
    length = 0
    for paragraph in (piece.strip("\n") for piece in paragraphs):
        if paragraph.strip():
            if length >= MIN_BLOCK_CHARACTERS:
                blocks.append([])
                length = 0
            blocks[-1].append(paragraph)
            length += len(paragraph)
    return [joint.join(block) for block in blocks if block]

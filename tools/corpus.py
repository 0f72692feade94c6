"""Text cut into documents, and the documents into four splits that share no near-duplicate."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache as once
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.chat.texts import CHATS, ChatTexts
from neuronaut.tools.corpora.documents import CONFIRM_BLOCKS, SPLIT_RULE, SPLITS, Document, Split
from neuronaut.tools.corpora.gather import HELD_BYTES, Held, Laid, gathered
from neuronaut.tools.corpora.kept import folder_of, laid_in, put_away
from neuronaut.tools.corpora.reading import Reading, texts_of
from neuronaut.tools.corpora.shelf import Shelf, ShelvedDocuments
from neuronaut.tools.corpora.sources import Source, name_of, sources_of
from neuronaut.tools.errors import UserError
from neuronaut.tools.files import cache_folder
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens

__all__ = ["CONFIRM_BLOCKS", "SPLIT_RULE", "Corpus", "Document", "Split", "corpus_from_texts", "load_corpus"]

MIN_EXPLORE_DOCUMENTS = 40  # twice the 20 active documents below which a unit counts as too rare
MOST_TOKENS: dict[Split, int] = {"explore": 1 << 20, "design": 1 << 19, "confirm": 1 << 18, "audit": 1 << 18}
LONG = (
    f"the text is long: but for an index, at most {MOST_TOKENS['explore']:,} tokens of explore are read, "
    f"{MOST_TOKENS['design']:,} of design, {MOST_TOKENS['confirm']:,} of each block of confirm and of audit"
)
_POCKET = Path(__file__).parent / "targets" / "pocket" / "corpus.jsonl.gz"
_SAY_EACH = 1 << 28  # characters

Say = Callable[[str], None]


@dataclass(frozen=True)
class Corpus:
    """Documents in an order fixed by their hashes, the members of a group side by side.

    sha256 depends on the set of texts and the split rule, not on file names or order. notes: what a reader should know
    (bytes replaced, texts skipped), one sentence each. The documents of a large corpus lie on disk, and are read when
    they are looked at; a slice of them is read no earlier.
    """

    name: str
    sha256: str
    documents: Sequence[Document]
    notes: tuple[str, ...] = ()
    _splits: dict[tuple[Split, int | None], Sequence[Document]] = field(default_factory=dict, repr=False, compare=False)

    def of(self, split: Split, block: int | None = None) -> Sequence[Document]:
        """The documents of a split (confirm: of one block, if named), in corpus order."""
        key = (split, block)
        if key not in self._splits:
            documents = self.documents
            self._splits[key] = (
                documents.where(split, block)
                if isinstance(documents, ShelvedDocuments)
                else tuple(one for one in documents if one.split == split and block in (None, one.block))
            )
        return self._splits[key]

    def groups(self, split: Split) -> NDArray[np.int64]:
        """(n_documents,) the group of each document of a split, rising; reads no text."""
        documents = self.of(split)
        if isinstance(documents, ShelvedDocuments):
            return documents.groups.astype(np.int64)
        return np.array([document.group for document in documents], dtype=np.int64)

    def n_groups(self, split: Split) -> int:
        """Number of different documents of a split, near-duplicates counted once."""
        return len(np.unique(self.groups(split)))

    def in_groups(self, split: Split, groups: Collection[int]) -> Sequence[Document]:
        """The documents of a split that belong to some groups, in corpus order."""
        documents = self.of(split)
        if isinstance(documents, ShelvedDocuments):
            return documents.in_groups(groups)
        return [document for document in documents if document.group in groups]

    def characters(self, split: Split | None = None, block: int | None = None) -> NDArray[np.int64]:
        """(n_documents,) the length of each text of a split, or of all; reads no text that lies on disk."""
        documents = self.documents if split is None else self.of(split, block)
        if isinstance(documents, ShelvedDocuments):
            return documents.characters.astype(np.int64)
        return np.array([len(document.text) for document in documents], dtype=np.int64)

    @property
    def n_characters(self) -> int:
        """Length of all texts together."""
        return int(self.characters().sum())


def load_corpus(
    place: str | Path,
    *,
    cache: Path | None = None,
    hold: int = HELD_BYTES,
    say: Say | None = None,
    chats: Callable[[], ChatTexts] | None = None,
) -> Corpus:
    """The documents of a .txt, .jsonl, .jsonl.gz, .jsonl.zst or .parquet file, or of a folder of those, cut into splits.

    place: a path, or the URL of a file or folder (s3://…), which fsspec reads; `#NAME` behind it names the field or
    column of the text, otherwise `text`; `#messages` names chats, lists of role and content, which the model's chat template
    makes text of (chats: by which). A .jsonl holds one document a line. A .txt is cut at lines `= Title =`; where
    these are fewer than 150, at lines of deeper headings too (`= = Section = =`); without headings at blank lines (or,
    without these, at line ends), short paragraphs joined up to 500 characters. Bytes that are not UTF-8 become U+FFFD
    and are counted in the notes.
    A corpus that takes more than `hold` bytes of memory is copied into `cache` (None is `cache_folder()`), and found
    there as long as path, size and time of change of its files are the same.
    Refuses: no such file, an unknown kind of file, a line that is not JSON or has no text, no text at all, and fewer
    than 40 different documents in explore.
    """
    sources = sources_of(place)
    how = chats() if chats is not None and any(source.column == CHATS for source in sources) else None
    if how is not None:
        sources = [replace(source, template=how.sha256) for source in sources]
    cache = cache or cache_folder()
    kept = folder_of(cache, sources)
    shelf = None if kept is None else Shelf.at(kept)
    return _checked(_shelved(name_of(place), shelf) if shelf else _read(place, sources, cache, hold, say, how))


@once
def pocket_corpus() -> Corpus:
    """The text that belongs to the embedded target `pocket`."""
    return load_corpus(_POCKET)


def corpus_from_texts(name: str, texts: Sequence[str], *, notes: Sequence[str] = ()) -> Corpus:
    """The texts as a corpus in memory: near-duplicates grouped, groups put into splits by hash.

    explore 40 %, design 20 %, confirm 30 % (3 blocks), audit 10 % of the groups. A group goes where the hash of its
    smallest member hash sends it, so that the order of the texts does not matter.
    Refuses: fewer than 40 groups in explore.
    """
    held = gathered(texts, hold=0, lay=None)
    assert isinstance(held, Held)
    return _checked(_held(name, held, tuple(notes)))


def tokens_of(target: TargetModel, documents: Sequence[Document]) -> Tokens:
    """The windows of the documents as the target sees them, in order; `documents` are the group numbers."""
    return target.tokenize([document.text for document in documents], [document.group for document in documents])


def _read(
    place: str | Path, sources: Sequence[Source], cache: Path, hold: int, say: Say | None, chats: ChatTexts | None
) -> Corpus:
    """The corpus read anew, laid into the cache if it is large."""
    read, name = Reading(), name_of(place)
    with ExitStack() as stack:
        found = gathered(_told(sources, read, say, chats), hold=hold, lay=lambda: stack.enter_context(laid_in(cache)))
        if isinstance(found, Laid):
            if say is not None:
                say(f"{found.n:,} texts are put in order")
            sha256 = found.shelf(read.notes(), [source.origin for source in sources]).sha256
            return _shelved(name, put_away(found.folder, folder_of(cache, sources) or cache / f"corpus-{sha256[:32]}"))
    if not found.parts:
        raise UserError(f"{str(place)!r} holds no text: nothing can be tested on it; give a corpus with documents")
    return _held(name, found, read.notes())


def _told(sources: Iterable[Source], read: Reading, say: Say | None, chats: ChatTexts | None) -> Iterator[str]:
    """All texts; `say` is told how far it is."""
    done = 0
    for source in sources:
        for text in texts_of(source, read, chats):
            if say is not None and (done + len(text)) // _SAY_EACH > done // _SAY_EACH:
                say(f"{(done + len(text)) / 1e9:.1f} billion characters read, in {source.name}")
            done += len(text)
            yield text


def _held(name: str, found: Held, notes: tuple[str, ...]) -> Corpus:
    documents, sha256 = found.documents()
    return Corpus(name, sha256, documents, notes)


def _shelved(name: str, shelf: Shelf) -> Corpus:
    return Corpus(name, shelf.sha256, ShelvedDocuments.of(shelf), shelf.notes)


def _checked(corpus: Corpus) -> Corpus:
    """The corpus, with a note where its text is too long to be read whole. Refuses one that is too short."""
    found = corpus.n_groups("explore")
    if found < MIN_EXPLORE_DOCUMENTS:
        need = int(MIN_EXPLORE_DOCUMENTS / 0.4 * 1.25)
        groups = sum(corpus.n_groups(split) for split in SPLITS)
        raise UserError(
            f"{corpus.name!r} is shorter than the splits need: of its {groups} different documents {found} fall into "
            f"explore, which needs {MIN_EXPLORE_DOCUMENTS}; give at least about {need} different documents"
        )
    if any(corpus.characters(split).sum() > most for split, most in MOST_TOKENS.items() if split != "confirm"):
        return replace(corpus, notes=(*corpus.notes, LONG))
    return corpus

"""A model on disk: its configuration, its tokenizer as text pieces with offsets, its hashes. No weights are loaded here."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neuronaut.tools.errors import UserError
from neuronaut.tools.tokens import PAD, Tokens, Vocabulary

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_CONTEXT = 2048  # longer windows cost memory and carry no more independent evidence


class ModelFolder:
    """A Hugging Face folder with config.json, *.safetensors and tokenizer.json.

    Refuses: a missing folder or file, weights that exist only as a pickle.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        if path.suffix in PICKLES:
            raise UserError(
                f"{str(path)!r} is a pickle, which can run code when it is opened: convert it to safetensors first"
            )
        if not path.is_dir():
            raise UserError(
                f"there is no model folder {str(path)!r}: give 'pocket' or a folder with config.json and safetensors"
            )
        self.weights = sorted(path.glob("*.safetensors"))
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLES)
        if not self.weights:
            only = f"; {pickles[0]} is a pickle, which can run code: convert it to safetensors" if pickles else ""
            raise UserError(f"the folder {str(path)!r} holds no .safetensors file{only}")
        self.config = self._json("config.json")

    def _json(self, name: str, *, needed: bool = True) -> dict[str, Any]:
        file = self.path / name
        if not file.exists() and not needed:
            return {}
        try:
            loaded = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(
                f"{name} in {str(self.path)!r} cannot be read as JSON ({type(error).__name__}): it is needed"
            ) from None
        if not isinstance(loaded, dict):
            raise UserError(f"{name} in {str(self.path)!r} is not a JSON object")
        return loaded

    @cached_property
    def _tokenizer(self) -> Any:
        import tokenizers

        file = self.path / "tokenizer.json"
        if not file.exists():
            raise UserError(f"the folder {str(self.path)!r} holds no tokenizer.json: text cannot be turned into tokens")
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def bos(self) -> int | None:
        """The id that starts each text, None where the model was trained without one."""
        named = self._json("tokenizer_config.json", needed=False).get("bos_token")
        token = named.get("content") if isinstance(named, dict) else named
        return None if token is None else self._tokenizer.token_to_id(token)

    def context(self, n_ctx: int) -> int:
        """Tokens in one window, BOS included."""
        return min(n_ctx, MAX_CONTEXT)

    @cached_property
    def weights_sha256(self) -> str:
        """Over all weight files in name order, config.json included."""
        digest = hashlib.sha256()
        for file in [*self.weights, self.path / "config.json"]:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Of tokenizer.json."""
        return hashlib.sha256((self.path / "tokenizer.json").read_bytes()).hexdigest()

    @cached_property
    def _pieces(self) -> Vocabulary:
        tokenizer = self._tokenizer
        raw = json.loads((self.path / "tokenizer.json").read_text(encoding="utf-8"))
        special = {int(row["id"]) for row in raw.get("added_tokens", []) if row.get("special")}
        byte_level = '"ByteLevel"' in json.dumps([raw.get("decoder"), raw.get("pre_tokenizer")])
        pieces = []
        for i in range(tokenizer.get_vocab_size(with_added_tokens=True)):
            token = tokenizer.id_to_token(i)
            if token is None or i in special:
                pieces.append(token or f"<unused {i}>")
                special.add(i)
            elif byte_level:
                pieces.append(tokenizer.decode([i], skip_special_tokens=False))
            else:
                pieces.append(_byte_piece(token) or token.replace("▁", " "))
        return Vocabulary(tuple(pieces), frozenset(special))

    def vocabulary(self, d_vocab: int) -> Vocabulary:
        """Pieces for `d_vocab` ids: embedding rows beyond the tokenizer are special and carry no text."""
        known = self._pieces
        missing = range(len(known.pieces), d_vocab)
        if not missing and d_vocab == len(known.pieces):
            return known
        pieces = (*known.pieces, *(f"<unused {i}>" for i in missing))[:d_vocab]
        padded = Vocabulary(pieces, frozenset(i for i in (*known.special, *missing) if i < d_vocab))
        self._pieces = padded
        return padded

    def tokenize(
        self, texts: Sequence[str], documents: Sequence[int] | None, *, n_ctx: int, vocabulary: Vocabulary
    ) -> Tokens:
        """Windows of at most n_ctx tokens; a longer text gives several, each with its own part of the text."""
        room = n_ctx - (self.bos is not None)
        rows: list[tuple[int, str, list[int], list[tuple[int, int]]]] = []
        for number, (text, encoding) in enumerate(
            zip(texts, self._tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True)
        ):
            ids, offsets = encoding.ids, encoding.offsets
            for at in range(0, max(1, len(ids)), room):
                part, spans = ids[at : at + room], offsets[at : at + room]
                begin = 0 if at == 0 else spans[0][0]
                end = len(text) if at + room >= len(ids) else spans[-1][1]
                rows.append((number, text[begin:end], part, [(s - begin, e - begin) for s, e in spans]))
        return self._padded(rows, documents, vocabulary)

    def _padded(
        self,
        rows: list[tuple[int, str, list[int], list[tuple[int, int]]]],
        documents: Sequence[int] | None,
        vocabulary: Vocabulary,
    ) -> Tokens:
        first = 0 if self.bos is None else 1
        width = max((len(ids) for _, _, ids, _ in rows), default=0) + first
        ids = np.full((len(rows), width), PAD, dtype=np.int32)
        spans = np.zeros((2, len(rows), width), dtype=np.int32)
        for row, (_, text, part, offsets) in enumerate(rows):
            if self.bos is not None:
                ids[row, 0] = self.bos
            ids[row, first : first + len(part)] = part
            if part:
                spaced = [_with_space(text, vocabulary.pieces[i], span) for i, span in zip(part, offsets, strict=True)]
                spans[:, row, first : first + len(part)] = np.array(spaced, dtype=np.int32).T
        numbers = np.array([row[0] for row in rows], dtype=np.int64)
        if documents is not None:
            numbers = np.asarray(documents, dtype=np.int64)[numbers] if len(numbers) else numbers
        return Tokens(ids, spans[0], spans[1], numbers, tuple(row[1] for row in rows), vocabulary)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))


def _with_space(text: str, piece: str, span: tuple[int, int]) -> tuple[int, int]:
    """The offsets with the space that belongs to the piece: tokenizers differ in whether they count it."""
    start, end = span
    if piece[:1] == " " and start > 0 and text[start - 1] == " " and not text[start:end].startswith(" "):
        return start - 1, end
    return start, end


def _byte_piece(token: str) -> str | None:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        value = int(token[3:5], 16)
        return chr(value) if value < 128 else "\ufffd"
    return None

"""A model on disk: its configuration, its tokenizer as text pieces with offsets, its hashes. No weights are loaded here."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neuronaut.tools.chat.format import ChatFormat, format_of
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.shapes import check_sizes
from neuronaut.tools.tokens import PAD, Tokens, Vocabulary

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEX = "model.safetensors.index.json"
SLOW_TOKENIZERS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
MAX_CONTEXT = 2048  # longer windows cost memory and carry no more independent evidence


class ModelFolder:
    """A Hugging Face folder with config.json, *.safetensors and tokenizer.json.

    to_look_at: it may lack weights and tokenizer, since neither is used.
    Refuses: a missing folder or file, weights that exist only as a pickle, an adapter.
    """

    def __init__(self, path: Path, name: str, *, to_look_at: bool = False) -> None:
        self.path, self.name = path, name
        if path.suffix in PICKLES:
            raise UserError(
                f"{str(path)!r} is a pickle, which can run code when it is opened: `neuronaut convert {path.name} --out FOLDER "
                "--unsafe-pickle` makes a model folder of a checkpoint that you trust"
            )
        if not path.is_dir():
            raise UserError(
                f"there is no model folder {str(path)!r}: give 'pocket' or a folder with config.json and model.safetensors"
            )
        if (path / "adapter_config.json").exists():
            raise UserError(
                f"the folder {str(path)!r} holds an adapter (adapter_config.json), which is not read here: merge it into its "
                "model (peft's merge_and_unload) and save that"
            )
        self.weights = self._weight_files()
        if not to_look_at:
            self._check_weights_are_there()
        self.config = self._json("config.json")
        check_sizes(self.config, path)
        if not to_look_at and (fault := self.tokenizer_fault):
            raise UserError(f"the folder {str(path)!r} holds {fault}")

    def _weight_files(self) -> list[Path]:
        """Those that transformers reads, whatever lies beside them; they may be missing. Refuses an index that leads elsewhere."""
        whole = self.path / "model.safetensors"
        named = self._json(INDEX, needed=False).get("weight_map")
        if whole.exists() or not isinstance(named, dict):
            return [whole] if whole.exists() else sorted(self.path.glob("model*.safetensors"))
        names = sorted({str(name) for name in named.values()})
        if strange := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
            raise UserError(
                f"{INDEX} in {str(self.path)!r} names {strange[0][:80]!r}, which is no safetensors file of the folder: correct it"
            )
        return [self.path / name for name in names]

    def _check_weights_are_there(self) -> None:
        if self.weights:
            return
        pickles = sorted(file.name for file in self.path.iterdir() if file.suffix in PICKLES)
        only = f"{pickles[0]} is a pickle, which can run code: convert it to safetensors" if pickles else ""
        raise UserError(
            f"the folder {str(self.path)!r} holds no model.safetensors; {only or 'give one with its weights'}"
        )

    @property
    def tokenizer_fault(self) -> str | None:
        """Why the tokenizer cannot be used at all; None where there is one that says where its tokens stand in the text."""
        if (self.path / "tokenizer.json").is_file():
            return None
        if slow := [file for file in SLOW_TOKENIZERS if (self.path / file).is_file()]:
            return (
                f"{slow[0]} and no tokenizer.json: such a tokenizer does not say which characters a token stands for; save a "
                "fast one there"
            )
        return "no tokenizer.json: without it text cannot be turned into tokens; save one there"

    def _json(self, name: str, *, needed: bool = True) -> dict[str, Any]:
        file = self.path / name
        if not file.exists() and not needed:
            return {}
        if file.exists() and not file.is_file():
            raise UserError(f"{name} in {str(self.path)!r} is no regular file: it is needed")
        try:
            loaded = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
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
        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(file.read_bytes())
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"tokenizer.json in {str(self.path)!r} cannot be read: {reason}") from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @property
    def tokenizer_kind(self) -> str:
        """How tokenizer.json makes tokens: BPE, Unigram, WordPiece."""
        model = self._json("tokenizer.json").get("model")
        return str(model.get("type", "BPE")) if isinstance(model, dict) else "unknown"

    @property
    def tokenizer_size(self) -> int:
        """Tokens that tokenizer.json knows, added ones too."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer says how a conversation is written."""
        beside = any((self.path / name).is_file() for name in ("chat_template.jinja", "chat_template.json"))
        return beside or bool(self._json("tokenizer_config.json", needed=False).get("chat_template"))

    @property
    def missing_weights(self) -> list[str]:
        """Files that the index of several weight files names and that are not there."""
        return [file.name for file in self.weights if not file.exists()]

    @cached_property
    def bos(self) -> int | None:
        """The id that starts each text, None where the model was trained without one.

        The tokenizer's word counts (a null or `add_bos_token: false` too); config.json is asked where it says nothing.
        """
        said = self._json("special_tokens_map.json", needed=False)
        said |= self._json("tokenizer_config.json", needed=False)
        if said.get("add_bos_token") is False:
            return None
        if "bos_token" not in said:
            known = self.config.get("bos_token_id")
            return known if isinstance(known, int) and self._tokenizer.id_to_token(known) is not None else None
        named = said["bos_token"]
        token = named.get("content", named) if isinstance(named, dict) else named
        if not isinstance(token, str | None):
            raise UserError(
                f"the bos_token of the tokenizer in {str(self.path)!r} is {str(token)[:80]!r}, which is no text"
            )
        found: int | None = None if token is None else self._tokenizer.token_to_id(token)
        if token is not None and found is None:
            raise UserError(f"the token {token!r} that starts each text is not in tokenizer.json of {str(self.path)!r}")
        return found

    @cached_property
    def chat_format(self) -> ChatFormat:
        """How the model wants its chats."""
        said = self._json("special_tokens_map.json", needed=False)
        said |= self._json("tokenizer_config.json", needed=False)
        if "bos_token" not in said and self.bos is not None:
            said["bos_token"] = self._tokenizer.id_to_token(self.bos)
        configs = (self.config, self._json("generation_config.json", needed=False))
        return format_of(self.path, said, configs, self._tokenizer.token_to_id)

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
        tokenizer, raw = self._tokenizer, self._json("tokenizer.json")
        special = {int(row["id"]) for row in raw.get("added_tokens") or [] if row.get("special")}
        text_parts = json.dumps(
            [raw.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False
        )
        pieces = []
        for i in range(tokenizer.get_vocab_size(with_added_tokens=True)):
            token = tokenizer.id_to_token(i)
            if token is None or i in special:
                special.add(i)
                pieces.append(token or f"<unused {i}>")
            elif '"ByteLevel"' in text_parts:
                pieces.append(_byte_level_piece(token))
            else:
                spaced = token.replace("▁", " ") if "▁" in text_parts or '"Metaspace"' in text_parts else token
                pieces.append(_byte_piece(token) or spaced)
        return Vocabulary(tuple(pieces), frozenset(special))

    def vocabulary(self, d_vocab: int) -> Vocabulary:
        """Pieces for `d_vocab` ids: embedding rows beyond the tokenizer are special and carry no text.

        Refuses a tokenizer with text beyond the embedding: it belongs to another model.
        """
        known = self._pieces
        beyond = [i for i in range(d_vocab, len(known.pieces)) if i not in known.special]
        if beyond:
            raise UserError(
                f"tokenizer.json in {str(self.path)!r} knows {len(known.pieces):,} tokens and the model {d_vocab:,}, so that "
                f"{known.pieces[beyond[0]]!r} has no embedding: the tokenizer belongs to another model"
            )
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
            ids = encoding.ids
            offsets = [_span(text, vocabulary.pieces[i], at) for i, at in zip(ids, encoding.offsets, strict=True)]
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
        for row, (_, _, part, offsets) in enumerate(rows):
            if self.bos is not None:
                ids[row, 0] = self.bos
            ids[row, first : first + len(part)] = part
            if part:
                spans[:, row, first : first + len(part)] = np.array(offsets, dtype=np.int32).T
        numbers = np.array([row[0] for row in rows], dtype=np.int64)
        if documents is not None:
            numbers = np.asarray(documents, dtype=np.int64)[numbers] if len(numbers) else numbers
        return Tokens(ids, spans[0], spans[1], numbers, tuple(row[1] for row in rows), vocabulary)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))


def _span(text: str, piece: str, offsets: tuple[int, int]) -> tuple[int, int]:
    """Offsets with the space that belongs to the piece, which tokenizers may leave out; a space that is not in the text
    (SentencePiece puts one before the first word) is empty."""
    start, end = offsets
    if piece and not piece.strip(" ") and text[start:end].strip(" "):
        return start, start
    if piece[:1] == " " and start > 0 and text[start - 1] == " " and not text[start:end].startswith(" "):
        return start - 1, end
    return start, end


def _byte_piece(token: str) -> str | None:
    """The character of a byte-fallback token such as <0x0A>; a byte that is no character alone reads \\xc3."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)]).decode("utf-8", errors="backslashreplace")
    return None


def _byte_level_piece(token: str) -> str:
    """The text of a token whose characters stand for bytes; bytes that are no character alone read \\xc3.

    Source: GPT-2's bytes_to_unicode, the order that the ByteLevel tokenizers use.
    """
    if not all(character in _BYTES for character in token):
        return token
    return bytes(_BYTES[character] for character in token).decode("utf-8", errors="backslashreplace")


_SHOWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _SHOWN]
_BYTES = {chr(byte): byte for byte in _SHOWN} | {chr(256 + at): byte for at, byte in enumerate(_HIDDEN)}

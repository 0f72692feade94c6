"""Where a predicate holds: vectorised over all tokens of all windows at once."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.regexes import compiled, ending, texts_of
from neuronaut.tools.tokens import PAD, Tokens, Vocabulary

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

TAIL = 64  # characters before the token in which a match of `preceded_by` may begin
MEMO_BYTES = 1 << 27  # of the truth values kept with each Tokens
MEMO_TABLES = 256  # kept with each Vocabulary


def strength(predicate: Predicate, tokens: Tokens) -> Floats:
    """(n_windows, n_pos) predicted strength in [0, 1]; 0 at padding and special tokens."""
    match predicate:
        case nodes.Modes():
            parts = [mode.strength * holds(mode.predicate, tokens) for mode in predicate.of]
            return np.asarray(np.max(parts, axis=0), dtype=np.float32)
        case nodes.Graded():
            total = sum(part.weight * holds(part.predicate, tokens) for part in predicate.of)
            return np.minimum(total, 1.0).astype(np.float32)
        case _:
            return holds(predicate, tokens).astype(np.float32)


def holds(predicate: Predicate, tokens: Tokens) -> Bools:
    """(n_windows, n_pos) True where the predicate holds; False at padding and special tokens. Do not write into it."""
    memo: dict[Predicate, Bools] = tokens.__dict__.setdefault("_memo", {})
    found = memo.get(predicate)
    if found is None:
        found = _of_whole(predicate, tokens)
        if found is None:
            found = _holds(predicate, tokens) & tokens.scored
        found.setflags(write=False)
        while memo and len(memo) * found.nbytes > MEMO_BYTES:
            del memo[next(iter(memo))]
        memo[predicate] = found
    return found


def _of_whole(predicate: Predicate, tokens: Tokens) -> Bools | None:
    """What is known of the text that some windows were selected from, at them: a predicate looks at its own window only."""
    if tokens.whole is None:
        return None
    whole, rows = tokens.whole
    known: dict[Predicate, Bools] = whole.__dict__.get("_memo", {})
    return known[predicate][rows, : tokens.ids.shape[1]] if predicate in known else None


def _holds(predicate: Predicate, tokens: Tokens) -> Bools:
    match predicate:
        case nodes.AllOf():
            return np.asarray(np.logical_and.reduce([holds(part, tokens) for part in predicate.of]))
        case nodes.AnyOf() | nodes.Modes() | nodes.Graded():
            return np.asarray(np.logical_or.reduce([holds(part, tokens) for part in predicate.children()]))
        case nodes.Not():
            return ~holds(predicate.inner, tokens)
        case nodes.At():
            return shifted(holds(predicate.inner, tokens), predicate.offset)
        case nodes.Within():
            return _within(holds(predicate.inner, tokens), predicate.window)
        case nodes.Since():
            return _since(holds(predicate.inner, tokens), holds(predicate.last, tokens))
        case nodes.Repeated():
            return _repeated(tokens, predicate.min_gap)
        case nodes.Induction():
            return _induction(tokens, predicate.length)
        case nodes.Position():
            place = np.cumsum(tokens.scored, axis=1) - 1
            return (place >= predicate.first) & (place <= predicate.last)
        case nodes.Inside():
            return _inside(tokens, predicate.open, predicate.close)
        case nodes.StartsWord():
            return _starts_word(tokens)
        case nodes.StartsSentence():
            return _starts_sentence(tokens)
        case nodes.PrecededBy():
            return _preceded_by(tokens, predicate.regex)
        case nodes.Word():
            fold = str.casefold if predicate.ignore_case else str
            wanted = {fold(word) for word in predicate.any_of}
            return _by_text(tokens, "words", lambda word: fold(word) in wanted)
        case nodes.WordMatches():
            search = compiled(predicate.regex).search
            return _by_text(tokens, "words", lambda word: search(word) is not None)
        case nodes.WordSoFar():
            fold = str.casefold if predicate.ignore_case else str
            wanted = {fold(part) for part in predicate.any_of}
            return _by_text(tokens, "words_so_far", lambda part: fold(part) in wanted)
        case nodes.Token() | nodes.TokenMatches() | nodes.Digit() | nodes.Capitalised() | nodes.Punctuation():
            return _lookup(token_table(predicate, tokens.vocabulary), tokens)
        case nodes.Promotes() | nodes.Suppresses():
            raise ToolRefused(f"{predicate.kind} speaks of the output: it does not hold or fail at a token")
        case _ as never:
            assert_never(never)


def token_table(predicate: Predicate, vocabulary: Vocabulary) -> Bools:
    """(d_vocab,) for a leaf that looks at the current token alone. Refuses any other."""
    tables: dict[Predicate, Bools] = vocabulary.__dict__.setdefault("_tables", {})
    if predicate not in tables:
        if len(tables) >= MEMO_TABLES:
            del tables[next(iter(tables))]
        tables[predicate] = _token_table(predicate, vocabulary)
        tables[predicate].setflags(write=False)
    return tables[predicate]


def _token_table(predicate: Predicate, vocabulary: Vocabulary) -> Bools:
    match predicate:
        case nodes.Token():
            fold = str.casefold if predicate.ignore_case else str
            strip = str.strip if predicate.ignore_space else str
            wanted = {strip(fold(piece)) for piece in predicate.any_of}
            test: Callable[[str], Any] = lambda piece: strip(fold(piece)) in wanted  # noqa: E731
        case nodes.TokenMatches():
            test = compiled(predicate.regex).search
        case nodes.Digit():
            test = lambda piece: any(c.isdigit() for c in piece)  # noqa: E731
        case nodes.Capitalised():
            test = lambda piece: next((c.isupper() for c in piece if c.isalpha()), False)  # noqa: E731
        case nodes.Punctuation():
            test = lambda piece: not piece.isspace() and not any(c.isalnum() for c in piece)  # noqa: E731
        case _:
            raise ToolRefused(f"{predicate.kind} does not look at the current token alone")
    table = np.fromiter((bool(test(piece)) for piece in vocabulary.pieces), dtype=bool, count=len(vocabulary.pieces))
    table[list(vocabulary.special)] = False
    return table


def _lookup(table: Bools, tokens: Tokens) -> Bools:
    return table[np.maximum(tokens.ids, 0)]


def _by_text(tokens: Tokens, grid: str, test: Callable[[str], bool]) -> Bools:
    """Truth by the text that a grid of `tokens` has at each place; False where it has none."""
    numbers, texts = _numbered(tokens, grid)
    table = np.fromiter((bool(text) and test(text) for text in texts), dtype=bool, count=len(texts))
    return table[numbers]


def _numbered(tokens: Tokens, grid: str) -> tuple[NDArray[np.int64], list[str]]:
    """The texts of a grid as numbers, and what each stands for. Remembered."""
    memo: dict[str, tuple[NDArray[np.int64], list[str]]] = tokens.__dict__.setdefault("_numbered", {})
    if grid not in memo:
        texts, seen = getattr(tokens, grid), dict[str, int]()
        flat = [seen.setdefault(text, len(seen)) for text in texts.ravel()]
        memo[grid] = np.array(flat, dtype=np.int64).reshape(texts.shape), list(seen)
    return memo[grid]


def shifted(held: Bools, offset: int) -> Bools:
    """(n_windows, n_pos) what held `offset` tokens earlier."""
    moved = np.zeros_like(held)
    if offset < held.shape[1]:
        moved[:, offset:] = held[:, :-offset]
    return moved


def _within(held: Bools, window: int) -> Bools:
    count = np.cumsum(held, axis=1, dtype=np.int32)
    before = np.zeros_like(count)
    before[:, 1:] = count[:, :-1]
    early = np.zeros_like(count)
    if window + 1 <= held.shape[1]:
        early[:, window + 1 :] = count[:, : -window - 1]
    return before - early > 0


def _last_place(held: Bools) -> NDArray[np.int64]:
    """(n_windows, n_pos) the latest position strictly before each one at which it held; -1 if none."""
    places = np.where(held, np.arange(held.shape[1]), -1)
    latest = np.maximum.accumulate(places, axis=1)
    before = np.full_like(latest, -1)
    before[:, 1:] = latest[:, :-1]
    return before


def _since(inner: Bools, last: Bools) -> Bools:
    inner_place, last_place = _last_place(inner), _last_place(last)
    return (inner_place >= 0) & (inner_place > last_place)


def _previous_equal(keys: NDArray[np.int64], usable: Bools, min_gap: int) -> Bools:
    """True where the same key occurred in the window at least `min_gap` positions earlier (first occurrence counts)."""
    rows, positions = np.nonzero(usable)
    flat = keys[rows, positions]
    order = np.lexsort((positions, flat, rows))
    r, k, p = rows[order], flat[order], positions[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (r[1:] != r[:-1]) | (k[1:] != k[:-1])
    first = p[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))] if len(order) else p
    found = np.zeros(keys.shape, dtype=bool)
    found[r, p] = p - first >= min_gap
    return found


def _repeated(tokens: Tokens, min_gap: int) -> Bools:
    return _previous_equal(tokens.ids.astype(np.int64), tokens.scored, min_gap)


def _induction(tokens: Tokens, length: int) -> Bools:
    """The n-gram of `length` + 1 tokens that ends here occurred earlier in the window."""
    key, usable = tokens.ids.astype(np.int64), tokens.scored.copy()
    numbers = key
    for back in range(1, length + 1):
        moved = np.full_like(key, PAD)
        moved[:, back:] = key[:, :-back] if back < key.shape[1] else PAD
        usable &= shifted(tokens.scored, back)
        both = (numbers - numbers.min()) * (key.max() + 2) + (moved - PAD)
        _, inverse = np.unique(both.ravel(), return_inverse=True)
        numbers = np.asarray(inverse, dtype=np.int64).reshape(key.shape)
    return _previous_equal(numbers, usable, 1)


def _inside(tokens: Tokens, opening: str, closing: str) -> Bools:
    found = np.zeros(tokens.ids.shape, dtype=bool)
    for window, text in enumerate(tokens.texts):
        if opening not in text:
            continue
        inside = np.append(0, np.cumsum(_open_characters(text, opening, closing)))
        starts, ends = tokens.starts[window], tokens.ends[window]
        found[window] = (ends > starts) & (inside[ends] - inside[starts] == ends - starts)
    return found


def _open_characters(text: str, opening: str, closing: str) -> Bools:
    """(len(text),) True at the characters after an open mark; False at those of the marks themselves."""
    open_, level, after = np.zeros(len(text), dtype=bool), 0, 0
    for mark in re.finditer(f"{re.escape(closing)}|{re.escape(opening)}", text):
        open_[after : mark.start()] = level > 0
        if opening == closing:
            level = 1 - level
        else:
            level = max(0, level - 1) if mark.group() == closing else level + 1
        after = mark.end()
    open_[after:] = level > 0
    return open_


def _starts_word(tokens: Tokens) -> Bools:
    begins = _pieces_where("begins", lambda piece: piece.strip()[:1].isalnum(), tokens)
    spaced = _pieces_where("spaced", lambda piece: piece[:1].isspace(), tokens)
    ends_in_word = _pieces_where("ends", lambda piece: piece[-1:].isalnum(), tokens)
    return begins & (spaced | ~shifted(ends_in_word & tokens.scored, 1))


def _pieces_where(name: str, test: Callable[[str], bool], tokens: Tokens) -> Bools:
    tables: dict[str, Bools] = tokens.vocabulary.__dict__.setdefault("_piece_tests", {})
    if name not in tables:
        tables[name] = np.array([test(piece) for piece in tokens.vocabulary.pieces], dtype=bool)
    return _lookup(tables[name], tokens)


_SENTENCE_END = r"(?:\A|\n|[.!?][\"'”’)]*\s)\s*[\"'“‘(]*\z"


def _starts_sentence(tokens: Tokens) -> Bools:
    return _starts_word(tokens) & _text_before(tokens, partial(_found, compiled(_SENTENCE_END)), strip=True)


def _preceded_by(tokens: Tokens, regex: str) -> Bools:
    texts = texts_of(regex)
    if texts is not None and max(map(len, texts)) <= TAIL:
        return _text_before(tokens, lambda tail: tail.endswith(texts), strip=False)
    return _text_before(tokens, partial(_found, ending(regex)), strip=False)


def _text_before(tokens: Tokens, test: Callable[[str], bool], *, strip: bool) -> Bools:
    """True where one of the last TAIL characters before the token (strip: and its space) begins a match to the end.

    One character more than TAIL is shown to the pattern, so that `^` and `\\b` see where the text really begins.
    """
    numbers, tails = _tails(tokens, strip)
    if not tails:
        return np.zeros(tokens.ids.shape, dtype=bool)
    table = np.fromiter(map(test, tails), dtype=bool, count=len(tails))
    return table[numbers] & tokens.scored


def _found(pattern: Any, tail: str) -> bool:
    return (pattern.search(tail, 1) if len(tail) > TAIL else pattern.search(tail)) is not None


def _tails(tokens: Tokens, strip: bool) -> tuple[NDArray[np.int64], list[str]]:
    """(n_windows, n_pos) index of the text before each token among the different ones, and those."""
    memo: dict[bool, tuple[NDArray[np.int64], list[str]]] = tokens.__dict__.setdefault("_tails", {})
    if strip not in memo:
        seen: dict[str, int] = {}
        numbers = np.zeros(tokens.ids.shape, dtype=np.int64)
        for window, (text, scored) in enumerate(zip(tokens.texts, tokens.scored, strict=True)):
            row = [0] * len(scored)
            for pos in np.flatnonzero(scored).tolist():
                start = int(tokens.starts[window, pos])
                while strip and start < len(text) and text[start].isspace():
                    start += 1
                row[pos] = seen.setdefault(text[max(0, start - TAIL - 1) : start], len(seen))
            numbers[window] = row
        memo[strip] = numbers, list(seen)
    return memo[strip]

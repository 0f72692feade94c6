"""A slow second reading of the hypothesis language, place by place, as an oracle for the fast one.

Regular expressions run in Python's engine, for ASCII only, as the linear-time one reads `\\b`, `\\d` and `\\w`.
"""

import re

from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.tokens import PAD, Tokens

_WORD = re.compile(r"\w+(?:['’]\w+)*")


class Plain:
    """Truth of a predicate at one place of one window, by definition and without arrays."""

    def __init__(self, tokens: Tokens, window: int) -> None:
        vocabulary = tokens.vocabulary
        self.ids = [int(i) for i in tokens.ids[window]]
        self.scored = [i != PAD and i not in vocabulary.special for i in self.ids]
        self.pieces = ["" if i == PAD else vocabulary.pieces[i] for i in self.ids]
        self.text = tokens.texts[window]
        self.starts = [int(i) for i in tokens.starts[window]]
        self.ends = [int(i) for i in tokens.ends[window]]

    def strength(self, p: Predicate, at: int) -> float:
        """Predicted strength in [0, 1]."""
        if isinstance(p, nodes.Modes):
            return max(m.strength if self.holds(m.predicate, at) else 0.0 for m in p.of)
        if isinstance(p, nodes.Graded):
            return min(1.0, sum(w.weight for w in p.of if self.holds(w.predicate, at)))
        return float(self.holds(p, at))

    def holds(self, p: Predicate, at: int) -> bool:
        """False outside the window and at padding and special tokens."""
        return 0 <= at < len(self.ids) and self.scored[at] and bool(getattr(self, f"_{p.kind}")(p, at))

    def _all_of(self, p, at):
        return all(self.holds(part, at) for part in p.of)

    def _any_of(self, p, at):
        return any(self.holds(part, at) for part in p.of)

    def _not(self, p, at):
        return not self.holds(p.inner, at)

    def _modes(self, p, at):
        return any(self.holds(m.predicate, at) for m in p.of)

    def _graded(self, p, at):
        return any(self.holds(w.predicate, at) for w in p.of)

    def _at(self, p, at):
        return self.holds(p.inner, at - p.offset)

    def _within(self, p, at):
        return any(self.holds(p.inner, at - back) for back in range(1, p.window + 1))

    def _since(self, p, at):
        for earlier in range(at - 1, -1, -1):
            if self.holds(p.last, earlier):
                return False
            if self.holds(p.inner, earlier):
                return True
        return False

    def _token(self, p, at):
        def form(piece):
            piece = piece.casefold() if p.ignore_case else piece
            return piece.strip() if p.ignore_space else piece

        return any(form(piece) == form(self.pieces[at]) for piece in p.any_of)

    def _token_matches(self, p, at):
        return re.search(p.regex, self.pieces[at], re.ASCII)

    def _word_here(self, at):
        for match in _WORD.finditer(self.text):
            if match.start() < self.ends[at] and match.end() > self.starts[at]:
                return match.group()
        return ""

    def _word(self, p, at):
        word = self._word_here(at)
        return word and any((w.casefold() == word.casefold()) if p.ignore_case else w == word for w in p.any_of)

    def _word_matches(self, p, at):
        word = self._word_here(at)
        return word and re.search(p.regex, word, re.ASCII)

    def _word_so_far(self, p, at):
        start, end = self.starts[at], self.ends[at]
        if end > start and self.text[start:end].strip():
            end = start + len(self.text[start:end].rstrip())

        def kind(i, in_word):
            if re.match(r"\w", self.text[i]) or (in_word and self.text[i] in "'’"):
                return "word"
            return "space" if self.text[i].isspace() else "mark"

        begin, before = 0, ""
        for i in range(end):
            here = kind(i, before == "word")
            begin, before = (begin if here == before else i), here
        so_far = self.text[begin:end]
        return so_far and any((w.casefold() == so_far.casefold()) if p.ignore_case else w == so_far for w in p.any_of)

    def _preceded_by(self, p, at):
        end = self.starts[at]
        return any(
            re.compile(p.regex, re.ASCII).fullmatch(self.text, begin, end) for begin in range(max(0, end - 64), end + 1)
        )

    def _inside(self, p, at):
        if p.open == p.close:
            pieces = self.text.split(p.open)
            outside = {0}
            spans, begin = [], 0
            for number, piece in enumerate(pieces):
                if number % 2 == 1 and number not in outside:
                    spans.append((begin, begin + len(piece)))
                begin += len(piece) + len(p.open)
        else:
            spans, level, begin, i = [], 0, 0, 0
            while i < len(self.text):
                if self.text.startswith(p.close, i):
                    spans += [(begin, i)] if level else []
                    level, i = max(0, level - 1), i + len(p.close)
                    begin = i
                elif self.text.startswith(p.open, i):
                    spans += [(begin, i)] if level else []
                    level, i = level + 1, i + len(p.open)
                    begin = i
                else:
                    i += 1
            spans += [(begin, len(self.text))] if level else []
        start, end = self.starts[at], self.ends[at]
        return end > start and any(low <= start and end <= high for low, high in spans)

    def _repeated(self, p, at):
        return any(self.scored[q] and self.ids[q] == self.ids[at] for q in range(at - p.min_gap + 1))

    def _induction(self, p, at):
        n = p.length + 1

        def gram(end):
            begin = end - n + 1
            return self.ids[begin : end + 1] if begin >= 0 and all(self.scored[begin : end + 1]) else None

        return gram(at) is not None and any(gram(end) == gram(at) for end in range(at))

    def _position(self, p, at):
        return p.first <= sum(self.scored[:at]) <= p.last

    def _starts_word(self, p, at):
        start = self.starts[at]
        while start < self.ends[at] and self.text[start].isspace():
            start += 1
        return start < self.ends[at] and self.text[start].isalnum() and not self.text[:start][-1:].isalnum()

    def _starts_sentence(self, p, at):
        if not self._starts_word(p, at):
            return False
        begin = self.starts[at]
        while self.text[begin].isspace():
            begin += 1
        before = self.text[:begin].rstrip("\"'“‘(")
        gap = before[len(before.rstrip()) :]
        stop = before.rstrip()
        if not stop or "\n" in gap:
            return True
        return bool(gap) and stop.rstrip("\"'”’)")[-1:] in (".", "!", "?")

    def _digit(self, p, at):
        return re.search(r"\d", self.pieces[at])

    def _capitalised(self, p, at):
        letters = [c for c in self.pieces[at] if c.isalpha()]
        return bool(letters) and letters[0].isupper()

    def _punctuation(self, p, at):
        return self.pieces[at].strip() and not re.search(r"[^\W_]", self.pieces[at])

"""How many tokens a request can take at most, before it is sent: a high guess, and less where a part of it was billed before."""

import json
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BeforeValidator

from neuronaut.agent.llm.base import Reply

BYTES_A_TOKEN = 2  # a low guess, so that the count of tokens before a call is a high one: English text has about 4
PARTS = ("system", "prompt", "schema", "tools")
SEAMS = 16  # tokens; a text that is cut into parts may have a few more than as a whole
KEPT = 16  # requests that were billed
MOST_COUNTED = 10**9  # tokens; no context holds as many
FAR = 4  # times the high guess: two tokens for each byte of English
HIDDEN = 20_000  # tokens that a service may add to a request: instructions about tools and formats


def count_of(reported: object) -> int | None:
    """A count of tokens as a service reports it, a whole number; None for one that cannot be."""
    if isinstance(reported, bool) or not isinstance(reported, int | float):
        return None
    return int(reported) if 0 <= reported <= MOST_COUNTED and reported == int(reported) else None


Count = Annotated[int | None, BeforeValidator(count_of)]


def counted(reply: Reply, body: dict[str, Any]) -> Reply:
    """The reply without counts that its request cannot have; they are taken as missing, so that the high guess stands."""
    most = FAR * most_tokens_in(body) + HIDDEN
    n_in, n_out = count_of(reply.tokens_in), count_of(reply.tokens_out)
    n_in = None if n_in is not None and n_in > most else n_in
    within = most if n_in is None else n_in
    cached, written = (
        None if part is None or part > within else part
        for part in map(count_of, (reply.tokens_cached, reply.tokens_written))
    )
    return replace(reply, tokens_in=n_in, tokens_out=n_out, tokens_cached=cached, tokens_written=written)


def most_tokens_in(body: dict[str, Any]) -> int:
    """More tokens than the request can take, its schema included."""
    return _guess("".join(str(body[part]) for part in (*PARTS, "turns") if part in body))


def _text(part: Any) -> str:
    return (
        part if isinstance(part, str) else json.dumps(part, sort_keys=True, ensure_ascii=False)
    )  # also as it is stored


def _guess(text: str) -> int:
    content = text.encode("utf-8", "replace")
    not_ascii = sum(byte > 127 for byte in content)  # of other scripts a tokenizer may make one token a byte
    return (len(content) - not_ascii) // BYTES_A_TOKEN + not_ascii


@dataclass(frozen=True)
class Billed:
    """A request that was billed: its parts, its turns, and its tokens."""

    parts: dict[str, str]
    turns: tuple[str, ...]
    tokens: int

    @classmethod
    def of(cls, body: dict[str, Any], tokens: int) -> "Billed":
        """What to remember of a request."""
        turns = tuple(map(_text, body.get("turns", ())))
        return cls({part: _text(body[part]) for part in PARTS if part in body}, turns, tokens)

    def most_in(self, later: "Billed") -> int:
        """More tokens than a later request can take: those of this one, whatever it shares, and a guess of the rest."""
        rest = [text for part, text in later.parts.items() if self.parts.get(part) != text]
        same = 0
        if not rest:  # turns follow the same prompt
            pairs = zip(self.turns, later.turns, strict=False)
            same = next(
                (n for n, (one, other) in enumerate(pairs) if one != other), min(len(self.turns), len(later.turns))
            )
        return self.tokens + SEAMS + _guess("".join((*rest, *later.turns[same:])))


@dataclass
class Counting:
    """Remembers what requests to one language model were billed."""

    _billed: deque[Billed] = field(default_factory=lambda: deque(maxlen=KEPT))

    def most_in(self, body: dict[str, Any]) -> int:
        """More tokens than the request can take."""
        asked = Billed.of(body, 0)
        return min([most_tokens_in(body), *(known.most_in(asked) for known in self._billed)])

    def add(self, body: dict[str, Any], tokens: int) -> None:
        """A request was billed with so many tokens."""
        self._billed.append(Billed.of(body, tokens))

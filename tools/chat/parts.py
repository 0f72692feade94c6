"""Which part of a rendered chat each character is: found by rendering it again with one thing changed, never by guessing.

Content: where a word that occurs nowhere stands in place of a message, once the message itself, put there instead, gives back
the whole text; so a template that trims a message is understood, and one that rewrites it is not, which is then said. Where a
message begins and ends: by rendering the messages before it alone. What it stands for is the template's own behaviour: header
is what it writes before a message's content as that message is added, footer what it writes behind it.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from neuronaut.tools.chat.format import ChatFormat
from neuronaut.tools.chat.labels import Part
from neuronaut.tools.chat.messages import Message
from neuronaut.tools.chat.rendering import Asked, Refused, render, text_of

NEXT = "assistant"  # the role of the message that a generation prompt begins


class Span(NamedTuple):
    """Characters start to end, and what they are."""

    start: int
    end: int
    part: Part


@dataclass(frozen=True)
class Rendered:
    """The text of a chat, the parts that cover it in order, and what a reader should know, one sentence each."""

    text: str
    spans: tuple[Span, ...]
    notes: tuple[str, ...] = ()

    def part(self, start: int, end: int) -> Part:
        """The part of some characters; of several parts all of them, named in order."""
        starts = [span.start for span in self.spans]
        first = max(0, bisect_right(starts, start) - 1)
        last = max(first + 1, bisect_right(starts, max(start, end - 1)))
        found = list(dict.fromkeys(span.part for span in self.spans[first:last]))
        if len(found) == 1:
            return found[0]
        alike = len({part.role for part in found}) == 1
        kind = " and ".join(part.kind if alike else str(part) for part in found)
        messages = {part.message for part in found}
        return Part(kind, found[0].role if alike else "", messages.pop() if len(messages) == 1 else None)


def rendered_chats(chats: Sequence[Asked], how: ChatFormat, name: str) -> list[Rendered]:
    """Each chat as the model is given it, with its parts; rendered together. name: of the model."""
    plans = [_Plan(chat, _unused_word(chat.messages, how)) for chat in chats]
    asked = [one for plan in plans for one in plan.asked]
    found = iter(render(asked, how, name))
    texts = [[next(found) for _ in plan.asked] for plan in plans]
    return [
        plan.rendered(text_of(part[0], name, number), part[1:], how.special.get("bos_token", ""))
        for number, (plan, part) in enumerate(zip(plans, texts, strict=True), start=1)
    ]


def _unused_word(messages: Sequence[Message], how: ChatFormat) -> str:
    """A word of letters and digits that occurs in neither; the same one each time."""
    everything = "".join([how.template or "", *(message.content + message.role for message in messages)])
    number = 0
    while (
        word := "z" + hashlib.sha256(f"{number} {everything}".encode(errors="replace")).hexdigest()[:20] + "z"
    ) in everything:
        number += 1
    return word


@dataclass(frozen=True)
class _Plan:
    """A chat, and the word that stands in for its messages."""

    chat: Asked
    word: str

    @property
    def asked(self) -> list[Asked]:
        """The chat; each message replaced; its beginnings of 0 to all messages; pairs of chats that show how a message begins."""
        messages, ask = list(self.chat.messages), self.chat.ask
        found = [self.chat]
        for at, message in enumerate(messages):
            found.append(Asked([*messages[:at], self._marked(message.role), *messages[at + 1 :]], ask))
        found += [Asked(messages[:n], False) for n in range(len(messages) + 1)]
        for role, before in self._probes:
            found += [Asked(before, False), Asked([*before, self._marked(role)], False)]
        return found

    @property
    def _probes(self) -> list[tuple[str, list[Message]]]:
        """Roles, and messages behind which one of that role is added."""
        found = []
        for role in dict.fromkeys(message.role for message in self.chat.messages):
            first = Message(role="user" if role == NEXT else role, content="a")
            found += (
                [(role, [first])]
                if role == NEXT
                else [(role, [first, Message(role=NEXT, content="b")]), (role, [first])]
            )
        return found

    def _marked(self, role: str) -> Message:
        return Message(role=role, content=self.word)

    def rendered(self, text: str, others: Sequence[str | Refused], bos: str) -> Rendered:
        """The parts of the text, from what was rendered for it, in the order of `asked`."""
        messages = self.chat.messages
        n = len(messages)
        contents = [
            self._content(text, message.content, one) for message, one in zip(messages, others[:n], strict=True)
        ]
        ends = self._ends(text, contents, others[n : 2 * n + 1], self._headers(others[2 * n + 1 :]))
        painted = _Painted(text)
        for at, message in enumerate(messages):
            painted.message(at, message.role, contents, ends)
        if self.chat.ask and (asked_at := ends[n]) is not None:
            painted.fill(asked_at, len(text), Part("header", NEXT, n))
        if bos and text.startswith(bos):
            painted.fill(0, len(bos), Part("start"))
        return Rendered(text, painted.spans, tuple(_notes(text, messages, contents)))

    def _headers(self, probed: Sequence[str | Refused]) -> dict[str, str]:
        """What the template writes before a message of each role that is added behind others, where that is known."""
        found: dict[str, str] = {}
        for (role, _), before, behind in zip(self._probes, probed[::2], probed[1::2], strict=True):
            if isinstance(before, Refused) or isinstance(behind, Refused) or not behind.startswith(before):
                continue
            header, word, _ = behind[len(before) :].partition(self.word)
            if header and word:
                found.setdefault(role, header)
        return found

    def _ends(
        self,
        text: str,
        contents: Sequence[list[tuple[int, int]] | None],
        beginnings: Sequence[str | Refused],
        headers: Mapping[str, str],
    ) -> list[int | None]:
        """Where the first 0, 1, … messages end, and the next one begins; None where that is not known.

        The first message begins behind what the template writes before all messages, so that its header is told by the header
        of such a message elsewhere; so is one whose beginning is not known otherwise.
        """
        found = [None if isinstance(one, Refused) or not text.startswith(one) else len(one) for one in beginnings]
        found = [end if _fits(end, contents, at) else None for at, end in enumerate(found)]
        for at, (message, content) in enumerate(zip(self.chat.messages, contents, strict=True)):
            header = headers.get(message.role)
            if header and content and (at == 0 or found[at] is None) and text[: content[0][0]].endswith(header):
                begins = content[0][0] - len(header)
                found[at] = begins if _fits(begins, contents, at) else found[at]
        return found

    def _content(self, text: str, content: str, marked: str | Refused) -> list[tuple[int, int]] | None:
        """Where the content stands; nowhere, if the template leaves it out; None where it is not known."""
        if isinstance(marked, Refused):
            return None
        pieces = marked.split(self.word)
        if len(pieces) == 1:
            return [] if marked == text else None
        for form in dict.fromkeys([content, content.strip(), content.rstrip(), content.lstrip()]):
            if form.join(pieces) == text:
                starts = [len(form.join(pieces[: at + 1])) for at in range(len(pieces) - 1)]
                return [(start, start + len(form)) for start in starts]
        return None


def _fits(end: int | None, contents: Sequence[list[tuple[int, int]] | None], at: int) -> bool:
    """Whether the contents of the messages before number `at` lie before the end, and the others behind it."""
    if end is None:
        return False
    spans = [(number < at, *span) for number, one in enumerate(contents) for span in one or []]
    return all(stop <= end if before else start >= end for before, start, stop in spans)


def _notes(text: str, messages: Sequence[Message], contents: Sequence[list[tuple[int, int]] | None]) -> list[str]:
    found = []
    for number, (message, content) in enumerate(zip(messages, contents, strict=True)):
        who = f"message {number} ({message.role})"
        if content is None:
            found.append(f"the template rewrites {who}: which characters are its content is not known")
        elif not content and message.content:
            found.append(f"the template leaves {who} out")
        elif content and content[0][1] - content[0][0] < len(message.content):
            found.append(f"the template strips the white space around {who}")
    return found


class _Painted:
    """Parts of the characters of a text, put one over the other; `template` where nothing is."""

    def __init__(self, text: str) -> None:
        self._length = len(text)
        self._parts: list[Part] = [Part("template")] * len(text)

    def fill(self, start: int, end: int, part: Part) -> None:
        """Puts a part over characters."""
        self._parts[start:end] = [part] * max(0, end - start)

    def message(
        self, at: int, role: str, contents: Sequence[list[tuple[int, int]] | None], ends: Sequence[int | None]
    ) -> None:
        """Puts a message there, as far as it is known. ends: of the messages before it, and of it."""
        begin, end, spans = ends[at], ends[at + 1], contents[at]
        if spans is None:
            ended = [stop for one in contents[:at] for _, stop in one or []] + [one for one in ends[: at + 1] if one]
            later = [start for one in contents[at + 1 :] for start, _ in one or []]
            later += [one for one in ends[at + 1 :] if one is not None]
            self.fill(max(ended, default=0), min(later, default=self._length), Part("unknown", role, at))
            return
        if begin is not None and end is not None:
            self.fill(begin, end, Part("template", role, at))
        if begin is not None and spans:
            self.fill(begin, spans[0][0], Part("header", role, at))
        if end is not None and spans:
            self.fill(spans[-1][1], end, Part("footer", role, at))
        for start, stop in spans:
            self.fill(start, stop, Part("content", role, at))

    @property
    def spans(self) -> tuple[Span, ...]:
        """The runs of characters of one part."""
        found: list[Span] = []
        for at, part in enumerate(self._parts):
            if found and found[-1].part == part:
                found[-1] = Span(found[-1].start, at + 1, part)
            else:
                found.append(Span(at, at + 1, part))
        return tuple(found)

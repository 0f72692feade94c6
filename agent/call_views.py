"""The view of a language-model call: what was sent and what came back, as text that is marked as data."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from neuronaut.agent.layout import fields, heading, shown_text
from neuronaut.memory import related
from neuronaut.memory.lookup import Found
from neuronaut.memory.notebook import Notebook

if TYPE_CHECKING:
    from rich.console import RenderableType

    Parts = Iterator[RenderableType]

LONGEST = 30_000  # characters of one text


def call_view(notebook: Notebook, found: Found) -> "Parts":
    """A call of a language model: what it cost, what was sent, what came back."""
    one = related.call(notebook, found.row["id"])
    end = one["end"]
    yield heading(
        f"call of a language model, to {one['purpose']}",
        one["id"],
        "" if end is None else ("failed" if end["error"] else ""),
    )
    yield fields([
        ("model", f"{one['provider']}:{one['model']}"),
        ("answered by", end and end["answered_by"]),
        ("run", one["run"]),
        ("about", one["about"]),
        ("batch", one["batch"]),
        ("tokens", "not known: it was begun and never ended" if end is None else _tokens(end)),
        ("cost", "not known" if end is None or end["usd_micro"] is None else f"${end['usd_micro'] / 1e6:.6f}"),
        ("took", end and f"{end['seconds']:.1f} s"),
        ("stopped", end and end["stop_reason"]),
        ("error", end and end["error"]),
        ("repeats", one["maybe_billed_twice"] and f"{one['maybe_billed_twice']}, which may have been billed, too"),
    ])  # fmt: skip
    yield from _prompt(one["request"])
    if end is not None and end["response"] is not None:
        yield ""
        yield shown_text("── reply (data, not instructions)")
        yield shown_text(cut(end["response"]))
        if end["calls"]:
            yield shown_text(f"calls {end['calls']}")


def _tokens(end: Mapping[str, Any]) -> str:
    named = (
        ("in", "tokens_in"),
        ("from the cache", "tokens_cached"),
        ("written to it", "tokens_written"),
        ("out", "tokens_out"),
    )
    told = [f"{end[column]:,} {name}" for name, column in named if end[column] is not None]
    return ", ".join(told) or "not told"


def _prompt(request: Any) -> "Parts":
    """The messages of a request, in the form of either provider."""
    if not isinstance(request, Mapping):
        yield shown_text(cut(str(request)))
        return
    messages = [{"role": "system", "content": request["system"]}] if request.get("system") else []
    for message in (*messages, *(request.get("messages") or request.get("input") or [])):
        yield ""
        yield shown_text(f"── {message.get('role', 'message') if isinstance(message, Mapping) else 'message'}")
        yield shown_text(cut(_content(message)))
    settings = {name: value for name, value in request.items() if name not in ("system", "messages", "input")}
    if settings:
        yield ""
        yield fields([(str(name), cut(json.dumps(value, ensure_ascii=False), 500)) for name, value in settings.items()])


def _content(message: Any) -> str:
    content = message.get("content", "") if isinstance(message, Mapping) else message
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            str(part.get("text", json.dumps(part, ensure_ascii=False))) if isinstance(part, Mapping) else str(part)
            for part in content
        )
    return json.dumps(content, ensure_ascii=False)


def cut(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and how much is left."""
    return text if len(text) <= longest else f"{text[:longest]}\n… {len(text) - longest:,} more characters (--raw)"

"""Chats as the tokens that the model is given, each with the part of the template that it belongs to."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuronaut.tools.chat.messages import Message, is_finished
from neuronaut.tools.chat.parts import Rendered, rendered_chats
from neuronaut.tools.chat.rendering import Asked
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens


def render_for(target: TargetModel, chats: Sequence[Sequence[Message]], *, ask: bool | None = None) -> list[Rendered]:
    """Each chat by the template of the target. ask: whether the model's next message is begun behind it; None: where the last
    message is not its own."""
    asked = [Asked(chat, not is_finished(chat) if ask is None else ask) for chat in chats]
    return rendered_chats(asked, target.chat_format, target.spec.name)


def tokens_of_chats(target: TargetModel, rendered: Sequence[Rendered]) -> Tokens:
    """One window a chat. The template writes the token that starts a text, or leaves it out: none is put before it.

    Refuses a chat that is longer than the context, and one without tokens.
    """
    tokens = target.tokenize([one.text for one in rendered])
    first = int(target.spec.bos is not None)
    windows = np.bincount(tokens.documents, minlength=len(rendered))
    for number, (count, one) in enumerate(zip(windows.tolist(), rendered, strict=True), start=1):
        if count > 1:
            raise ToolRefused(
                f"chat {number} is longer than the context of {target.spec.name} ({target.spec.n_ctx - first} tokens): shorten it"
            )
        if not one.text:
            raise ToolRefused(f"chat {number} is empty: the template of {target.spec.name} writes nothing of it")
    parts = [
        tuple(
            one.part(int(start), int(end))
            for start, end in zip(tokens.starts[row, first:n], tokens.ends[row, first:n], strict=True)
        )
        for row, (one, n) in enumerate(zip(rendered, tokens.lengths.tolist(), strict=True))
    ]
    cut = {name: getattr(tokens, name)[:, first:] for name in ("ids", "starts", "ends")}
    return replace(tokens, **cut, parts=tuple(parts))

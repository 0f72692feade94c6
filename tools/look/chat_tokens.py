"""A chat as the model is given it: the rendered text, its tokens, and which part of the template each one belongs to."""

from typing import Any, ClassVar

from neuronaut.tools.chat.messages import Chat
from neuronaut.tools.chat.reading import render_for, tokens_of_chats
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool


class ChatTokensArgs(ToolArgs):
    """The messages, each with a role and a content. ask: whether the template begins the model's next message behind them;
    null: where the last message is not the model's own."""

    example: ClassVar = {
        "chat": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
    }
    chat: Chat
    ask: bool | None = None


@tool("chat_tokens")
def chat_tokens(context: ToolContext, args: ChatTokensArgs) -> ToolResult:
    """The tokens of a chat by the model's own chat template, and which part each one belongs to.

    part: start (the token that starts each text), header (what the template writes before a message's content as the message
    is added), content, footer (what it writes behind it), template (of no one message), unknown (a message that the
    template rewrites, with what stands around it). Tokens across two parts name both. Positions count every token from 0.
    Templates that write today's date write 1 January 2026.
    Refuses: a model without a chat template, messages that its template refuses, a chat longer than the context.
    """
    target = context.target
    [rendered] = render_for(target, [args.chat], ask=args.ask)
    tokens = tokens_of_chats(target, [rendered])
    pieces, special = target.vocabulary.pieces, target.vocabulary.special
    rows: list[dict[str, Any]] = []
    for position, (token, part) in enumerate(zip(tokens.ids[0].tolist(), tokens.parts[0], strict=True)):
        row = {"position": position, "token": pieces[token], "part": str(part), "message": part.message}
        rows.append(row | {"special": token in special})
    payload = {"prompt": rendered.text, "notes": list(rendered.notes), "tokens": rows}
    return ToolResult(payload=payload)

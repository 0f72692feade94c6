"""What a token of a chat belongs to."""

from typing import NamedTuple


class Part(NamedTuple):
    """What a token belongs to. kind: start (the token that starts each text), header, content, footer, template (of no one
    message, or of which one is not known), unknown (a message that the template rewrites, with what stands around it),
    generated. message: its number from 0, that of a message still to be written is behind the last."""

    kind: str
    role: str = ""
    message: int | None = None

    def __str__(self) -> str:
        return f"{self.role} {self.kind}".strip()

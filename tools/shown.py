"""Foreign text made harmless to look at: what could steer a terminal or turn a line around stands there as a symbol."""

import unicodedata

STEERING = ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")
_SHOWN = {"\n": "⏎", "\t": "⇥"}


def visible(text: str) -> str:
    """The text with control, format and private characters shown as symbols, so that nothing can steer a terminal."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character in _SHOWN:
        return _SHOWN[character]
    if unicodedata.category(character) in STEERING:
        return f"\\u{ord(character):04x}"
    return character

"""How a model wants its chats: the template of its folder, the texts of its special tokens, and the tokens that end a turn."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuronaut.tools.errors import UserError

FILE = "chat_template.jinja"
MOST_TEMPLATE = 1 << 20  # bytes


@dataclass(frozen=True)
class ChatFormat:
    """template: Jinja, None where the folder has none. special: texts of `bos_token`, `eos_token`, … as templates name them.
    ends: ids behind which the model has nothing more to say."""

    template: str | None = None
    special: Mapping[str, str] = field(default_factory=dict)
    ends: frozenset[int] = frozenset()


def format_of(
    path: Path,
    said: Mapping[str, Any],
    configs: tuple[Mapping[str, Any], ...],
    token_to_id: Callable[[str], int | None],
) -> ChatFormat:
    """The format of a model folder. said: what tokenizer_config.json and special_tokens_map.json say; configs: config.json and
    generation_config.json. Refuses a template that cannot be read, or of more than 1 MiB."""
    special = {name: text for name, value in said.items() if name.endswith("_token") and (text := _text_of(value))}
    ends = {i for config in configs for i in _ids(config.get("eos_token_id"))}
    end = token_to_id(special["eos_token"]) if "eos_token" in special else None
    return ChatFormat(_template(path, said), special, frozenset(ends if end is None else ends | {end}))


def _text_of(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, int) and not isinstance(one, bool)]


def _template(path: Path, said: Mapping[str, Any]) -> str | None:
    """Of a file of its own, else of tokenizer_config.json; of several the one called default."""
    file = path / FILE
    found: Any = said.get("chat_template")
    try:
        if file.is_file():
            if file.stat().st_size > MOST_TEMPLATE:
                raise UserError(f"{FILE} in {str(path)!r} is larger than {MOST_TEMPLATE:,} bytes: no chat template is")
            found = file.read_text(encoding="utf-8")
        elif found is None and (path / "chat_template.json").is_file():
            found = json.loads((path / "chat_template.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"the chat template in {str(path)!r} cannot be read ({type(error).__name__})") from None
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    if isinstance(found, str) and len(found) > MOST_TEMPLATE:
        raise UserError(f"the chat template in {str(path)!r} is longer than {MOST_TEMPLATE:,} characters: none is")
    return found if isinstance(found, str) and found else None

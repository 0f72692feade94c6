"""How a model wants its chats: the template of its folder, the texts of its special tokens, and the tokens that end a turn."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuronaut.tools.errors import UserError

FILE, OLD_FILE, CONFIG = "chat_template.jinja", "chat_template.json", "tokenizer_config.json"
MOST_TEMPLATE = 1 << 20  # bytes


@dataclass(frozen=True)
class ChatFormat:
    """template: Jinja, None where the folder has none. special: texts of `bos_token`, `eos_token`, … as templates name them.
    ends: ids behind which the model has nothing more to say. file: that the template is written in. fault: why it cannot be told which
    template is meant."""

    template: str | None = None
    special: Mapping[str, str] = field(default_factory=dict)
    ends: frozenset[int] = frozenset()
    file: str = FILE
    fault: str | None = None


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
    found, file = _template(path, said)
    template = found if isinstance(found, str) else None if found is None else _default_of(found)
    if template is not None and len(template) > MOST_TEMPLATE:
        raise UserError(
            f"the chat template in {file} of {str(path)!r} is longer than {MOST_TEMPLATE:,} characters: none is"
        )
    fault = None
    if template is None and found is not None:
        fault = f"{file} in {str(path)!r} holds no chat template as text and none called 'default': write one there"
    return ChatFormat(template or None, special, frozenset(ends if end is None else ends | {end}), file, fault)


def _text_of(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, int) and not isinstance(one, bool)]


def _template(path: Path, said: Mapping[str, Any]) -> tuple[Any, str]:
    """What stands for the template, and in which file: one of its own, else tokenizer_config.json."""
    found = said.get("chat_template")
    file = FILE if (path / FILE).is_file() else CONFIG
    if file == CONFIG and found is None and (path / OLD_FILE).is_file():
        file = OLD_FILE
    if file == CONFIG:
        return found, file
    try:
        if (path / file).stat().st_size > MOST_TEMPLATE:
            raise UserError(f"{file} in {str(path)!r} is larger than {MOST_TEMPLATE:,} bytes: no chat template is")
        text = (path / file).read_text(encoding="utf-8")
        return (json.loads(text).get("chat_template") if file == OLD_FILE else text), file
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"the chat template in {file} of {str(path)!r} cannot be read ({type(error).__name__})"
        ) from None


def _default_of(found: Any) -> str | None:
    """Of several templates, as older folders list them, the one called default."""
    rows = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    texts = (one.get("template") for one in rows if one.get("name") == "default")
    return next((text for text in texts if isinstance(text, str)), None)

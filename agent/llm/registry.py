"""From the name on the command line to a language model; the SDK is loaded only for the one chosen."""

from pathlib import Path
from typing import assert_never
from urllib.parse import urlsplit

from neuronaut.agent.config import ModelName
from neuronaut.agent.llm.base import TIMEOUT, LanguageModel
from neuronaut.tools.errors import UserError


def open_language_model(name: ModelName, base_url: str | None = None, timeout: float = TIMEOUT) -> LanguageModel:
    """The language model that `name` means, which has `timeout` seconds for each reply.

    Refuses a missing key, a compatible server without --base-url, and an address that is no http URL or holds a password.
    """
    if base_url is not None:
        _check_address(base_url)
    match name.provider:
        case "openai":
            from neuronaut.agent.llm.openai import OpenAIModel

            return OpenAIModel(name.name, base_url, timeout)
        case "compatible":
            from neuronaut.agent.llm.openai import CompatibleModel

            if base_url is None:
                raise UserError("--llm compatible:MODEL needs --base-url URL, for example http://127.0.0.1:11434/v1")
            return CompatibleModel(name.name, base_url, timeout)
        case "anthropic":
            from neuronaut.agent.llm.anthropic import AnthropicModel

            return AnthropicModel(name.name, base_url, timeout)
        case "scripted":
            from neuronaut.agent.llm.scripted import ScriptedModel

            return ScriptedModel.from_file(Path(name.name))
        case "recorded":
            from neuronaut.agent.llm.recorded import RecordedModel

            return RecordedModel.from_file(name.name)
        case _ as never:
            assert_never(never)


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise UserError("--base-url is no address of a server: write it as http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query:
        raise UserError("--base-url must hold no password or query: a key belongs in an environment variable")

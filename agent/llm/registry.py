"""From the name on the command line to a language model; the SDK is loaded only for the one chosen."""

from pathlib import Path
from typing import assert_never

from neuronaut.agent.config import ModelName
from neuronaut.agent.llm.base import LanguageModel
from neuronaut.tools.errors import UserError


def open_language_model(name: ModelName, base_url: str | None = None) -> LanguageModel:
    """The language model that `name` means. Refuses a missing key, and a compatible server without --base-url."""
    match name.provider:
        case "openai":
            from neuronaut.agent.llm.openai import OpenAIModel

            return OpenAIModel(name.name, base_url)
        case "compatible":
            from neuronaut.agent.llm.openai import CompatibleModel

            if base_url is None:
                raise UserError("--llm compatible:MODEL needs --base-url URL, for example http://127.0.0.1:11434/v1")
            return CompatibleModel(name.name, base_url)
        case "anthropic":
            from neuronaut.agent.llm.anthropic import AnthropicModel

            return AnthropicModel(name.name, base_url)
        case "scripted":
            from neuronaut.agent.llm.scripted import ScriptedModel

            return ScriptedModel.from_file(Path(name.name))
        case _ as never:
            assert_never(never)

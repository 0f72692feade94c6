"""Anthropic's Messages API with structured output."""

import os

from neuronaut.agent.llm.base import KeyRefused, LanguageModelError, Reply, Request, failure
from neuronaut.agent.llm.openai import strict_schema


class AnthropicModel:
    """`anthropic:MODEL` over the Messages API, with automatic prefix caching and no temperature."""

    provider = "anthropic"

    def __init__(self, model: str, base_url: str | None = None) -> None:
        import anthropic

        key = os.environ.get("ANTHROPIC_API_KEY")
        if key is None:
            raise KeyRefused("no key for anthropic: set the environment variable ANTHROPIC_API_KEY")
        self.model = model
        self._client = anthropic.Anthropic(api_key=key, base_url=base_url, max_retries=0, timeout=120.0)

    def ask(self, request: Request) -> Reply:
        """One structured reply. Raises LanguageModelError or KeyRefused; never retries by itself."""
        import anthropic

        schema = strict_schema(request.reply.model_json_schema())
        try:
            message = self._client.messages.create(
                model=self.model,
                max_tokens=request.max_tokens,
                system=request.system,
                messages=[{"role": "user", "content": request.prompt}],
                cache_control={"type": "ephemeral"},
                output_config={"format": {"type": "json_schema", "schema": schema}},
            )
        except anthropic.APIStatusError as error:
            raise failure(
                "anthropic", error.status_code, error.message, error.response.headers.get("retry-after")
            ) from None
        except anthropic.APIError as error:
            raise failure("anthropic", None, str(error)) from None
        text = "".join(block.text for block in message.content if block.type == "text")
        if message.stop_reason is None:
            raise LanguageModelError("anthropic: the reply has no stop reason", kind="malformed")
        usage = message.usage
        return Reply(
            text=text,
            model=message.model,
            stop_reason=message.stop_reason,
            tokens_in=usage.input_tokens,
            tokens_cached=usage.cache_read_input_tokens,
            tokens_out=usage.output_tokens,
        )

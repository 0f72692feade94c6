"""OpenAI's Responses API, and Chat Completions for servers that speak its format (vLLM, Ollama, llama.cpp, LM Studio)."""

import os
from typing import TYPE_CHECKING, Any

from neuronaut.agent.llm.base import KeyRefused, LanguageModelError, Reply, Request, failure

if TYPE_CHECKING:
    import openai


def strict_schema(schema: Any) -> Any:
    """The JSON schema with every object closed and every property required, as strict structured output wants it."""
    if isinstance(schema, dict):
        closed: dict[str, Any] = {key: strict_schema(value) for key, value in schema.items() if key != "default"}
        if closed.get("type") == "object" and "properties" in closed:
            closed["additionalProperties"] = False
            closed["required"] = list(closed["properties"])
        return closed
    return [strict_schema(item) for item in schema] if isinstance(schema, list) else schema


def _client(base_url: str | None, provider: str) -> "openai.OpenAI":
    import openai

    key = os.environ.get("OPENAI_API_KEY") or ("none" if provider == "compatible" else None)
    if key is None:
        raise KeyRefused("no key for openai: set the environment variable OPENAI_API_KEY")
    return openai.OpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=120.0)


def _reason(error: Exception) -> LanguageModelError | KeyRefused:
    import openai

    if isinstance(error, openai.APIStatusError):
        return failure("openai", error.status_code, error.message, error.response.headers.get("retry-after"))
    return failure("openai", None, str(error))


class OpenAIModel:
    """`openai:MODEL` over the Responses API; nothing is stored at the provider."""

    provider = "openai"

    def __init__(self, model: str, base_url: str | None = None) -> None:
        self.model = model
        self._client = _client(base_url, "openai")

    def ask(self, request: Request) -> Reply:
        """One structured reply. Raises LanguageModelError or KeyRefused; never retries by itself."""
        import openai

        schema = strict_schema(request.reply.model_json_schema())
        try:
            response = self._client.responses.create(
                model=self.model,
                instructions=request.system,
                input=request.prompt,
                max_output_tokens=request.max_tokens,
                store=False,
                text={"format": {"type": "json_schema", "name": request.purpose, "schema": schema, "strict": True}},
            )
        except openai.APIError as error:
            raise _reason(error) from None
        usage = response.usage
        refused = any(
            part.type == "refusal" for item in response.output if item.type == "message" for part in item.content
        )
        incomplete = response.incomplete_details.reason if response.incomplete_details else None
        return Reply(
            text=response.output_text,
            model=response.model,
            stop_reason="refusal" if refused else str(incomplete or response.status or "completed"),
            tokens_in=usage.input_tokens if usage else None,
            tokens_cached=usage.input_tokens_details.cached_tokens if usage and usage.input_tokens_details else None,
            tokens_out=usage.output_tokens if usage else None,
        )


class CompatibleModel:
    """`compatible:MODEL --base-url URL` over Chat Completions with a JSON schema as response format."""

    provider = "compatible"

    def __init__(self, model: str, base_url: str) -> None:
        self.model = model
        self._client = _client(base_url, "compatible")

    def ask(self, request: Request) -> Reply:
        """One structured reply. Raises LanguageModelError or KeyRefused; never retries by itself."""
        import openai

        schema = strict_schema(request.reply.model_json_schema())
        try:
            response = self._client.chat.completions.create(
                model=self.model,
                messages=[{"role": "system", "content": request.system}, {"role": "user", "content": request.prompt}],
                max_tokens=request.max_tokens,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": request.purpose, "schema": schema, "strict": True},
                },
            )
        except openai.APIError as error:
            raise _reason(error) from None
        if not response.choices:
            raise LanguageModelError("compatible: the reply holds no choice", kind="malformed")
        choice, usage = response.choices[0], response.usage
        return Reply(
            text=choice.message.content or "",
            model=response.model,
            stop_reason="refusal" if choice.message.refusal else choice.finish_reason,
            tokens_in=usage.prompt_tokens if usage else None,
            tokens_cached=None,
            tokens_out=usage.completion_tokens if usage else None,
        )

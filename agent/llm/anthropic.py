"""Anthropic's Messages API with structured output."""

from typing import TYPE_CHECKING

from pydantic import BaseModel

from neuronaut.agent.llm.again import again_after, asked_again
from neuronaut.agent.llm.base import (
    CONNECT,
    TIMEOUT,
    Heard,
    KeyRefused,
    Reply,
    Request,
    address,
    broken_connection,
    hidden,
    http_failure,
    key_of,
    said,
    schema_of,
    timed_out,
    wire,
)
from neuronaut.agent.llm.openai import strict_schema

if TYPE_CHECKING:
    import anthropic

ANTHROPIC_KEY = "ANTHROPIC_API_KEY"


class _Block(BaseModel):
    type: str
    text: str | None = None


class _Usage(BaseModel):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Message(BaseModel):
    model: str
    stop_reason: str | None
    content: list[_Block]
    usage: _Usage


class AnthropicModel:
    """`anthropic:MODEL` over the Messages API. No temperature, which newer models refuse; no cache, which a single
    question of each unit would pay for and not use."""

    provider = "anthropic"
    max_tokens = 8_000
    billed = True

    def __init__(self, model: str, base_url: str | None = None, timeout: float = TIMEOUT) -> None:
        key = key_of(ANTHROPIC_KEY)
        if not key:
            raise KeyRefused(f"--llm anthropic:{model} needs a key: set the environment variable {ANTHROPIC_KEY}")
        self.model, self._key, self._base_url, self._timeout = model, key, base_url, timeout
        with self._client() as client:
            self.source = address(str(client.base_url))

    def _client(self) -> "anthropic.Anthropic":
        import anthropic

        return anthropic.Anthropic(
            api_key=self._key,
            base_url=self._base_url,
            max_retries=0,
            timeout=anthropic.Timeout(self._timeout, connect=CONNECT),
            open_telemetry=False,  # nothing goes where the user did not name
            http_client=anthropic.DefaultHttpxClient(follow_redirects=False),
        )

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """One structured reply. Raises LanguageModelError, or UserError where only the user can mend it."""
        name = f"anthropic:{self.model}"
        message = wire(_Message, asked_again(lambda: self._body(request, name)), name)
        usage = message.usage
        cached = usage.cache_read_input_tokens or 0
        return Reply(
            text="".join(block.text or "" for block in message.content if block.type == "text"),
            model=message.model,
            stop_reason=message.stop_reason or "unknown",
            tokens_in=usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0),
            tokens_cached=cached,
            tokens_out=usage.output_tokens,
        )

    def _body(self, request: Request, name: str) -> bytes:
        import anthropic

        schema = strict_schema(schema_of(request))
        try:
            with self._client() as client:
                raw = client.messages.with_raw_response.create(
                    model=self.model,
                    max_tokens=request.max_tokens,
                    system=request.system,
                    messages=[{"role": "user", "content": request.prompt}],
                    output_config={"format": {"type": "json_schema", "schema": schema}},
                )
                return hidden(raw.http_response.text, self._key).encode("utf-8", "replace")
        except anthropic.APIStatusError as error:
            reason = hidden(said(error.body, error.message), self._key)
            wait = again_after(error.status_code, error.response.headers)
            raise http_failure(name, error.status_code, reason, ANTHROPIC_KEY, wait) from None
        except anthropic.APITimeoutError as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":
                raise broken_connection(name, self.source, error.__cause__) from None
            raise timed_out(name, self._timeout) from None
        except anthropic.APIError as error:
            raise broken_connection(name, self.source, error.__cause__) from None

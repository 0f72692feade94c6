"""OpenAI's Responses API, and Chat Completions for servers that speak its format (vLLM, Ollama, llama.cpp, LM Studio)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from neuronaut.agent.llm.again import again_after, asked_again
from neuronaut.agent.llm.base import (
    CONNECT,
    TIMEOUT,
    Heard,
    KeyRefused,
    LanguageModelError,
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

if TYPE_CHECKING:
    import openai

OPENAI_KEY = "OPENAI_API_KEY"
COMPATIBLE_KEY = "NEURONAUT_LLM_KEY"  # not OpenAI's: a key is sent to the server that it was made for only


def strict_schema(schema: Any) -> Any:
    """The JSON schema with every object closed and every property required, as strict structured output wants it."""
    if isinstance(schema, dict):
        closed: dict[str, Any] = {key: strict_schema(value) for key, value in schema.items() if key != "default"}
        if closed.get("type") == "object" and "properties" in closed:
            closed["additionalProperties"] = False
            closed["required"] = list(closed["properties"])
        return closed
    return [strict_schema(item) for item in schema] if isinstance(schema, list) else schema


class _Server:
    """A server that the openai SDK talks to: one POST at a time, its errors in our words, the key never among them."""

    def __init__(self, name: str, base_url: str | None, key_variable: str, key: str, timeout: float) -> None:
        self.name, self._base_url, self._timeout = name, base_url, timeout
        self._key_variable, self._key = key_variable, key
        with self._client() as client:
            self.source = address(str(client.base_url))

    def _client(self) -> "openai.OpenAI":
        import openai

        return openai.OpenAI(
            api_key=self._key,
            base_url=self._base_url,
            max_retries=0,
            timeout=openai.Timeout(self._timeout, connect=CONNECT),
            http_client=openai.DefaultHttpxClient(follow_redirects=False),  # text goes to the named server only
        )

    def body(self, post: Callable[["openai.OpenAI"], Any]) -> bytes:
        """The body of the reply to a raw POST. Raises LanguageModelError or UserError."""
        return asked_again(lambda: self._once(post))

    def _once(self, post: Callable[["openai.OpenAI"], Any]) -> bytes:
        import openai

        try:
            with self._client() as client:
                return hidden(post(client).http_response.text, self._key).encode("utf-8", "replace")
        except openai.APIStatusError as error:
            reason = hidden(said(error.body, error.message), self._key)
            wait = again_after(error.status_code, error.response.headers)
            raise http_failure(self.name, error.status_code, reason, self._key_variable, wait) from None
        except openai.APITimeoutError as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":
                raise broken_connection(self.name, self.source, error.__cause__) from None
            raise timed_out(self.name, self._timeout) from None
        except openai.APIError as error:
            raise broken_connection(self.name, self.source, error.__cause__) from None


class _Part(BaseModel):
    type: str
    text: str | None = None


class _Item(BaseModel):
    type: str
    content: list[_Part] | None = None


class _Cached(BaseModel):
    cached_tokens: int | None = None


class _ResponseUsage(BaseModel):
    input_tokens: int
    output_tokens: int
    input_tokens_details: _Cached | None = None


class _Incomplete(BaseModel):
    reason: str | None = None


class _Error(BaseModel):
    message: str = ""


class _Response(BaseModel):
    model: str
    status: str
    output: list[_Item]
    usage: _ResponseUsage | None = None
    incomplete_details: _Incomplete | None = None
    error: _Error | None = None


class OpenAIModel:
    """`openai:MODEL` over the Responses API; nothing is stored at the provider."""

    provider = "openai"
    max_tokens = 16_000  # a model that thinks spends most of it before its first word
    billed = True

    def __init__(self, model: str, base_url: str | None = None, timeout: float = TIMEOUT) -> None:
        key = key_of(OPENAI_KEY)
        if not key:
            raise KeyRefused(f"--llm openai:{model} needs a key: set the environment variable {OPENAI_KEY}")
        self.model = model
        self._server = _Server(f"openai:{model}", base_url, OPENAI_KEY, key, timeout)
        self.source = self._server.source

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """One structured reply. Raises LanguageModelError, or UserError where only the user can mend it."""
        server = self._server
        form: Any = {
            "type": "json_schema",
            "name": request.purpose,
            "schema": strict_schema(schema_of(request)),
            "strict": True,
        }
        body = server.body(
            lambda client: client.responses.with_raw_response.create(
                model=self.model,
                instructions=request.system,
                input=request.prompt,
                max_output_tokens=request.max_tokens,
                store=False,
                text={"format": form},
            )
        )
        found, name = wire(_Response, body, server.name), server.name
        if found.status == "failed":
            raise LanguageModelError(f"{name} failed: {found.error.message if found.error else ''}", maybe_billed=True)
        parts = [part for item in found.output if item.type == "message" for part in item.content or []]
        refused = any(part.type == "refusal" for part in parts)
        usage = found.usage
        return Reply(
            text="".join(part.text or "" for part in parts if part.type == "output_text"),
            model=found.model,
            stop_reason="refusal" if refused else _why(found),
            tokens_in=usage.input_tokens if usage else None,
            tokens_cached=usage.input_tokens_details.cached_tokens if usage and usage.input_tokens_details else None,
            tokens_out=usage.output_tokens if usage else None,
        )


def _why(response: _Response) -> str:
    details = response.incomplete_details
    return details.reason if details and details.reason else response.status


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _ChatUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Cached | None = None


class _Chat(BaseModel):
    model: str
    choices: list[_Choice]
    usage: _ChatUsage | None = None


class CompatibleModel:
    """`compatible:MODEL --base-url URL` over Chat Completions with a JSON schema as response format."""

    provider = "compatible"
    max_tokens = 4_096  # with the prompt it must fit the context that a local server was started with
    billed = True  # such a server may charge; $NEURONAUT_PRICES can say that it does not

    def __init__(self, model: str, base_url: str, timeout: float = TIMEOUT) -> None:
        self.model = model
        key = key_of(COMPATIBLE_KEY) or "no-key"
        self._server = _Server(f"compatible:{model}", base_url, COMPATIBLE_KEY, key, timeout)
        self.source = self._server.source

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """One structured reply. Raises LanguageModelError, or UserError where only the user can mend it."""
        server = self._server
        schema = strict_schema(schema_of(request))
        body = server.body(
            lambda client: client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=[{"role": "system", "content": request.system}, {"role": "user", "content": request.prompt}],
                max_tokens=request.max_tokens,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": request.purpose, "schema": schema, "strict": True},
                },
            )
        )
        found = wire(_Chat, body, server.name)
        if not found.choices:
            raise LanguageModelError(f"{server.name} sent a reply without a choice", maybe_billed=True)
        choice, usage = found.choices[0], found.usage
        return Reply(
            text=choice.message.content or "",
            model=found.model,
            stop_reason="refusal" if choice.message.refusal else choice.finish_reason or "unknown",
            tokens_in=usage.prompt_tokens if usage else None,
            tokens_cached=usage.prompt_tokens_details.cached_tokens if usage and usage.prompt_tokens_details else None,
            tokens_out=usage.completion_tokens if usage else None,
        )

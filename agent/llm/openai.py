"""OpenAI's Responses API, and Chat Completions for servers that speak its format (vLLM, Ollama, llama.cpp, LM Studio)."""

from typing import TYPE_CHECKING

from neuronaut.agent.llm import chat_completions, responses
from neuronaut.agent.llm.base import CONNECT, TIMEOUT, Heard, Reply, Request, address, key_of, needed_key
from neuronaut.agent.llm.batch_services import OpenAIBatches
from neuronaut.agent.llm.exchange import Server, certificates

if TYPE_CHECKING:
    import openai

OPENAI_KEY = "OPENAI_API_KEY"
COMPATIBLE_KEY = "NEURONAUT_LLM_KEY"  # not OpenAI's: a key is sent to the server that it was made for only


def _client(key: str, base_url: str | None, timeout: float) -> "openai.OpenAI":
    import openai

    return openai.OpenAI(
        api_key=key,
        base_url=base_url,
        max_retries=0,
        timeout=openai.Timeout(timeout, connect=CONNECT),
        # text goes to the named server only
        http_client=openai.DefaultHttpxClient(follow_redirects=False, verify=certificates()),
    )


def _server(name: str, base_url: str | None, key_variable: str, key: str, timeout: float) -> Server:
    import openai

    with _client(key, base_url, timeout) as client:
        return Server(openai, name, address(str(client.base_url)), key_variable, key, timeout)


class OpenAIModel:
    """`openai:MODEL` over the Responses API; nothing is stored at the provider."""

    provider = "openai"
    max_tokens = 16_000  # a model that thinks spends most of it before its first word
    billed = True

    def __init__(self, model: str, base_url: str | None = None, timeout: float = TIMEOUT) -> None:
        key = needed_key(f"openai:{model}", OPENAI_KEY)
        self.model, self._base_url = model, base_url
        self.server = _server(f"openai:{model}", base_url, OPENAI_KEY, key, timeout)
        self.source = self.server.source

    def client(self) -> "openai.OpenAI":
        """The SDK, which asks once and follows no redirection."""
        return _client(self.server.key, self._base_url, self.server.timeout)

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """One reply, its words heard as they come. Raises LanguageModelError, or UserError where only the user can mend it."""
        with self.client() as client:
            create = client.responses.with_streaming_response.create
            return self.server.tell(create, responses, request, self.model, heard)

    def batches(self) -> OpenAIBatches:
        """Its batches."""
        return OpenAIBatches(self.server, self.model, self.client)


class CompatibleModel:
    """`compatible:MODEL --base-url URL` over Chat Completions with a JSON schema as response format."""

    provider = "compatible"
    max_tokens = 4_096  # with the prompt it must fit the context that a local server was started with
    billed = True  # such a server may charge; $NEURONAUT_PRICES can say that it does not

    def __init__(self, model: str, base_url: str, timeout: float = TIMEOUT) -> None:
        self.model, self._base_url = model, base_url
        key = key_of(COMPATIBLE_KEY) or "no-key"
        self.server = _server(f"compatible:{model}", base_url, COMPATIBLE_KEY, key, timeout)
        self.source = self.server.source

    def client(self) -> "openai.OpenAI":
        """The SDK, which asks once and follows no redirection."""
        return _client(self.server.key, self._base_url, self.server.timeout)

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """One reply, its words heard as they come. Raises LanguageModelError, or UserError where only the user can mend it."""
        with self.client() as client:
            create = client.chat.completions.with_streaming_response.create
            return self.server.tell(create, chat_completions, request, self.model, heard)

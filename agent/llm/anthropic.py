"""Anthropic's Messages API."""

from typing import TYPE_CHECKING

from neuronaut.agent.llm import messages
from neuronaut.agent.llm.base import CONNECT, TIMEOUT, Heard, Reply, Request, address, needed_key
from neuronaut.agent.llm.batch_services import AnthropicBatches
from neuronaut.agent.llm.exchange import Server, certificates

if TYPE_CHECKING:
    import anthropic

ANTHROPIC_KEY = "ANTHROPIC_API_KEY"


def _client(key: str, base_url: str | None, timeout: float) -> "anthropic.Anthropic":
    import anthropic

    return anthropic.Anthropic(
        api_key=key,
        base_url=base_url,
        max_retries=0,
        timeout=anthropic.Timeout(timeout, connect=CONNECT),
        open_telemetry=False,  # nothing goes where the user did not name
        http_client=anthropic.DefaultHttpxClient(follow_redirects=False, verify=certificates()),
    )


class AnthropicModel:
    """`anthropic:MODEL` over the Messages API."""

    provider = "anthropic"
    max_tokens = 8_000
    billed = True

    def __init__(self, model: str, base_url: str | None = None, timeout: float = TIMEOUT) -> None:
        import anthropic

        key = needed_key(f"anthropic:{model}", ANTHROPIC_KEY)
        self.model, self._base_url = model, base_url
        with _client(key, base_url, timeout) as client:
            self.source = address(str(client.base_url))
        self.server = Server(anthropic, f"anthropic:{model}", self.source, ANTHROPIC_KEY, key, timeout)

    def client(self) -> "anthropic.Anthropic":
        """The SDK, which asks once and follows no redirection."""
        return _client(self.server.key, self._base_url, self.server.timeout)

    def ask(self, request: Request, heard: Heard | None = None) -> Reply:
        """One reply, its words heard as they come. Raises LanguageModelError, or UserError where only the user can mend it."""
        with self.client() as client:
            create = client.messages.with_streaming_response.create
            return self.server.tell(create, messages, request, self.model, heard)

    def batches(self) -> AnthropicBatches:
        """Its batches."""
        return AnthropicBatches(self.server, self.model, self.client)

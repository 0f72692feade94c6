"""The batch services of OpenAI and Anthropic: many requests are handed over at once, and their replies read within a day."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from neuronaut.agent.llm import messages, responses
from neuronaut.agent.llm.base import LanguageModelError, Reply, Request, plain, wire
from neuronaut.agent.llm.batch_log import Failure
from neuronaut.agent.llm.exchange import Opened, Server, sendable

Items = Sequence[tuple[str, Request]]  # each with an id of its own
Ended = Literal["ended", "failed", "expired", "cancelled"]


@dataclass(frozen=True)
class Progress:
    """How far a batch is. ended: None while it runs; reason: why it failed as a whole; files: where its results are."""

    ended: Ended | None
    answered: int = 0
    reason: str = ""
    files: tuple[str, ...] = ()


class BatchService(Protocol):
    """Takes many requests at once. Each method raises LanguageModelError, or UserError where only the user can mend it."""

    def create(self, items: Items) -> str:
        """The service's id of a new batch."""
        ...

    def progress(self, remote: str) -> Progress:
        """How far a batch is."""
        ...

    def results(self, remote: str, progress: Progress) -> Iterator[tuple[str, Reply | Failure]]:
        """What each item brought, by its id, in any order; an item may be missing."""
        ...


def fetched(server: Server, opened: Opened) -> str:
    """The body of one exchange as text, without the key, asked for again while nothing can have been paid."""

    def text(content: bytes) -> Reply:
        return Reply(content.decode("utf-8", "replace"), "", "", None, None, None)

    return server.ask(opened, text, lambda *_: text(b""), None).text


class _Named(BaseModel):
    id: str


class _Fault(BaseModel):
    code: str | None = None
    message: str | None = None


class _Faults(BaseModel):
    data: list[_Fault] | None = None


class _Counts(BaseModel):
    completed: int = 0
    failed: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class _OpenAIBatch(BaseModel):
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Faults | None = None
    request_counts: _Counts | None = None


_OPENAI_ENDS: dict[str, Ended] = {
    "completed": "ended", "failed": "failed", "expired": "expired", "cancelled": "cancelled",
}  # fmt: skip


@dataclass(frozen=True)
class OpenAIBatches:
    """Batches of the Responses API: a file of requests, and one or two files of results."""

    server: Server
    model: str
    client: Callable[[], AbstractContextManager[Any]]

    def create(self, items: Items) -> str:
        """Upload the requests and start the batch."""
        lines = (
            {"custom_id": item, "method": "POST", "url": "/v1/responses", "body": responses.body(request, self.model)}
            for item, request in items
        )
        content = "".join(json.dumps(sendable(line)) + "\n" for line in lines).encode()
        with self.client() as client:
            sent = {"file": ("requests.jsonl", content), "purpose": "batch"}
            file = self._found(_Named, lambda: client.files.with_streaming_response.create(**sent)).id
            asked = {"completion_window": "24h", "endpoint": "/v1/responses", "input_file_id": file}
            return self._found(_Named, lambda: client.batches.with_streaming_response.create(**asked)).id

    def progress(self, remote: str) -> Progress:
        """How far a batch is."""
        with self.client() as client:
            found = self._found(_OpenAIBatch, lambda: client.batches.with_streaming_response.retrieve(remote))
        counts, faults = found.request_counts or _Counts(), (found.errors and found.errors.data) or []
        files = tuple(file for file in (found.output_file_id, found.error_file_id) if file)
        reason = "; ".join(plain(fault.message or fault.code or "", 200) for fault in faults[:3])
        return Progress(_OPENAI_ENDS.get(found.status), counts.completed + counts.failed, reason, files)

    def _found(self, form: Any, opened: Opened) -> Any:
        return wire(form, fetched(self.server, opened).encode(), self.server.name)

    def results(self, remote: str, progress: Progress) -> Iterator[tuple[str, Reply | Failure]]:
        """What each item brought."""
        with self.client() as client:
            for file in progress.files:
                text = fetched(self.server, partial(client.files.with_streaming_response.content, file))
                for item, line in _lines(text):
                    yield item, self._result(line)

    def _result(self, line: dict[str, Any]) -> Reply | Failure:
        response, error = line.get("response"), line.get("error")
        if isinstance(response, dict) and response.get("status_code") == 200:
            return _read(lambda content: responses.reply(content, self.server.name), response.get("body"))
        if isinstance(error, dict) and error.get("code") in ("batch_expired", "batch_cancelled"):
            return _UNDONE["expired" if error["code"] == "batch_expired" else "cancelled"]
        body = response.get("body") if isinstance(response, dict) else None
        return Failure("failed", f"{self.server.name}: {_message(body) or _message({'error': error})}")


class _AnthropicBatch(BaseModel):
    processing_status: str
    request_counts: _Counts | None = None


@dataclass(frozen=True)
class AnthropicBatches:
    """Message Batches."""

    server: Server
    model: str
    client: Callable[[], AbstractContextManager[Any]]

    def create(self, items: Items) -> str:
        """Hand the requests over."""
        asked = [{"custom_id": item, "params": sendable(messages.body(request, self.model))} for item, request in items]
        with self.client() as client:
            made = fetched(self.server, lambda: client.messages.batches.with_streaming_response.create(requests=asked))
        return wire(_Named, made.encode(), self.server.name).id

    def progress(self, remote: str) -> Progress:
        """How far a batch is."""
        with self.client() as client:
            found = fetched(self.server, lambda: client.messages.batches.with_streaming_response.retrieve(remote))
        batch = wire(_AnthropicBatch, found.encode(), self.server.name)
        counts = batch.request_counts or _Counts()
        answered = counts.succeeded + counts.errored + counts.canceled + counts.expired
        return Progress("ended" if batch.processing_status == "ended" else None, answered)

    def results(self, remote: str, progress: Progress) -> Iterator[tuple[str, Reply | Failure]]:
        """What each item brought. The address that the service names for them is not used: the key goes nowhere else."""
        import httpx2

        path = f"/v1/messages/batches/{quote(remote, safe='')}/results"

        @contextmanager
        def opened() -> Iterator[Any]:
            yield client.get(path, cast_to=httpx2.Response)

        with self.client() as client:
            text = fetched(self.server, opened)
        for item, line in _lines(text):
            yield item, self._result(line)

    def _result(self, line: dict[str, Any]) -> Reply | Failure:
        result = line.get("result")
        result = result if isinstance(result, dict) else {}
        match result.get("type"):
            case "succeeded":
                return _read(lambda content: messages.reply(content, self.server.name), result.get("message"))
            case "expired":
                return _UNDONE["expired"]
            case "canceled":
                return _UNDONE["cancelled"]
        error = result.get("error")
        body = error if isinstance(error, dict) and "error" in error else {"error": error}
        return Failure("failed", f"{self.server.name}: {_message(body)}")


_UNDONE = {
    "expired": Failure("expired", "the batch expired before this request was answered"),
    "cancelled": Failure("cancelled", "the batch was cancelled before this request was answered"),
}


def _lines(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL text that have an id; a line that is none is left out, so that its item counts as missing."""
    for line in text.split("\n"):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get("custom_id"), str):
            yield found["custom_id"], found


def _read(reply: Callable[[bytes], Reply], body: object) -> Reply | Failure:
    try:
        return reply(json.dumps(body).encode())
    except LanguageModelError as error:
        return Failure("failed", str(error), billed=error.maybe_billed)


class _Said(BaseModel):
    error: _Fault


def _message(body: object) -> str:
    try:
        fault = _Said.model_validate(body).error
    except ValidationError:
        return "no reason given"
    return plain(fault.message or fault.code or "no reason given", 300)

"""The batch services of OpenAI and Anthropic, as routes of the server: strict about what they take, with every end of an item.

Sources: the types of the openai and anthropic SDKs, https://platform.openai.com/docs/guides/batch and
https://docs.claude.com/en/docs/build-with-claude/batch-processing.
"""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Literal

from neuronaut.evals.fake_provider.checks import why_refused
from neuronaut.evals.fake_provider.formats import Spoken, messages, responses
from neuronaut.evals.fake_provider.script import Answer, Seen, fails

Outcome = Spoken | Literal["errored", "expired", "cancelled", "missing", "garbled"]
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass
class Made:
    """A batch: its items by their ids, and how often it was looked at."""

    remote: str
    items: dict[str, dict[str, Any]]
    looks: int = 0


@dataclass
class FakeBatches:
    """A route. decide: what becomes of a request body; a batch ends at its look number `looks`, with `status`, of which
    Anthropic knows only that a batch is being cancelled."""

    decide: Callable[[dict[str, Any]], Outcome]
    looks: int = 2
    status: str = "completed"
    made: list[Made] = field(default_factory=list)
    _files: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, seen: Seen) -> Answer | None:
        """The answer to a request about files or batches; None for any other."""
        path = seen.path.split("?")[0]
        with self._lock:
            match seen.method, path.removeprefix("/v1/").split("/"):
                case "POST", ["files"]:
                    return self._upload(seen)
                case "GET", ["files", file, "content"]:
                    found = self._files.get(file)
                    return _refused(404, f"no such file: {file}") if found is None else Answer(found)
                case "POST", ["batches"]:
                    return self._begin(seen)
                case "GET", ["batches", remote]:
                    return self._look(remote, self._openai)
                case "POST", ["messages", "batches"]:
                    return self._take(seen)
                case "GET", ["messages", "batches", remote]:
                    return self._look(remote, self._anthropic)
                case "GET", ["messages", "batches", remote, "results"]:
                    return self._look(remote, self._results)
        return None

    @property
    def answered(self) -> list[dict[str, Any]]:
        """The bodies of all items of all batches."""
        return [body for made in self.made for body in made.items.values()]

    # OpenAI

    def _upload(self, seen: Seen) -> Answer:
        head = f"content-type: {seen.headers['content-type']}\r\n\r\n".encode()
        parts: dict[str, bytes] = {}
        for part in BytesParser(policy=HTTP).parsebytes(head + seen.content).walk():
            if not part.is_multipart():
                name = part.get_param("name", header="content-disposition")
                parts[str(name)] = bytes(part.get_payload(decode=True) or b"")
        if set(parts) != {"file", "purpose"} or parts["purpose"] != b"batch":
            return _refused(400, "a file for a batch needs purpose 'batch'")
        return self._json({"id": self._kept(parts["file"]), "object": "file", "purpose": "batch"})

    def _kept(self, content: bytes) -> str:
        name = f"file-{len(self._files) + 1}"
        self._files[name] = content
        return name

    def _begin(self, seen: Seen) -> Answer:
        body = seen.body
        if set(body) - {"metadata"} != {"completion_window", "endpoint", "input_file_id"}:
            return _refused(400, "parameters are missing or unknown")
        if (body["completion_window"], body["endpoint"]) != ("24h", "/v1/responses"):
            return _refused(400, "a batch has 24 hours, for /v1/responses here")
        items: dict[str, dict[str, Any]] = {}
        for line in self._files[body["input_file_id"]].decode().splitlines():
            item = json.loads(line)
            if set(item) != {"custom_id", "method", "url", "body"} or item["url"] != "/v1/responses":
                return _refused(400, "a line is no request")
            if item["custom_id"] in items:
                return _refused(400, "a custom_id stands twice")
            if why := why_refused(replace(seen, format="responses", body=item["body"])):
                return _refused(400, why)
            items[item["custom_id"]] = item["body"]
        return self._new(items, self._openai)

    def _openai(self, made: Made) -> Answer:
        body: dict[str, Any] = {
            "id": made.remote,
            "object": "batch",
            "endpoint": "/v1/responses",
            "status": "in_progress",
        }
        ends = {item: self.decide(asked) for item, asked in made.items.items()}
        if made.looks >= self.looks:
            body["status"] = self.status
            done = [
                _openai_line(item, end) for item, end in ends.items() if isinstance(end, Spoken) or end == "garbled"
            ]
            bad = [_openai_line(i, e) for i, e in ends.items() if e in ("errored", "expired", "cancelled")]
            if self.status == "failed":
                body["errors"] = {"object": "list", "data": [{"code": "invalid", "message": "line 1 is no request"}]}
            else:
                body["output_file_id"] = self._kept("".join(reversed(done)).encode()) if done else None
                body["error_file_id"] = self._kept("".join(bad).encode()) if bad else None
        body["request_counts"] = {"total": len(ends), "completed": len(ends) if made.looks else 0, "failed": 0}
        return self._json(body)

    # Anthropic

    def _take(self, seen: Seen) -> Answer:
        items: dict[str, dict[str, Any]] = {}
        for item in seen.body["requests"]:
            if set(item) != {"custom_id", "params"} or not CUSTOM_ID.fullmatch(item["custom_id"]):
                return _refused(400, "a request has no custom_id, or not one of at most 64 plain characters")
            if item["custom_id"] in items:
                return _refused(400, "a custom_id stands twice")
            if why := why_refused(replace(seen, format="messages", body=item["params"])):
                return _refused(400, why)
            items[item["custom_id"]] = item["params"]
        return self._new(items, self._anthropic)

    def _anthropic(self, made: Made) -> Answer:
        ended, ends = made.looks >= self.looks, [self.decide(asked) for asked in made.items.values()]
        counts = {
            "processing": 0 if ended else len(ends),
            "succeeded": ended * sum(isinstance(end, Spoken) for end in ends),
            "errored": ended * ends.count("errored"),
            "canceled": ended * ends.count("cancelled"),
            "expired": ended * ends.count("expired"),
        }
        status = "ended" if ended else "canceling" if self.status == "cancelled" else "in_progress"
        return self._json(
            {
                "id": made.remote, "type": "message_batch", "processing_status": status,
                "request_counts": counts, "results_url": "http://127.0.0.2:1/elsewhere" if ended else None,
            }
        )  # fmt: skip

    def _results(self, made: Made) -> Answer:
        ends = {item: self.decide(asked) for item, asked in made.items.items()}
        lines = [_anthropic_line(item, end) for item, end in ends.items() if end != "missing"]
        return Answer("".join(reversed(lines)).encode(), headers={"content-type": "application/x-jsonl"})

    # Both

    def _new(self, items: dict[str, dict[str, Any]], shown: Callable[[Made], Answer]) -> Answer:
        made = Made(f"batch_{len(self.made) + 1}", items)
        self.made.append(made)
        return shown(made)

    def _look(self, remote: str, shown: Callable[[Made], Answer]) -> Answer:
        found = next((made for made in self.made if made.remote == remote), None)
        if found is None:
            return _refused(404, f"no such batch: {remote}")
        found.looks += 1
        return shown(found)

    def _json(self, body: dict[str, Any]) -> Answer:
        return Answer(json.dumps(body).encode())


def _refused(status: int, message: str) -> Answer:
    return fails(status, message)(Seen("", {}, {}))


def _openai_line(item: str, end: Outcome) -> str:
    line: dict[str, Any] = {"id": f"req_{item}", "custom_id": item, "response": None, "error": None}
    match end:
        case Spoken():
            line["response"] = {"status_code": 200, "request_id": "r", "body": responses(end)}
        case "garbled":
            line["response"] = {"status_code": 200, "request_id": "r", "body": {"output": "what"}}
        case "errored":
            line["response"] = {"status_code": 400, "request_id": "r", "body": {"error": {"message": "too long"}}}
        case _:
            line["error"] = {"code": f"batch_{end}", "message": f"the request was {end}"}
    return json.dumps(line) + "\n"


def _anthropic_line(item: str, end: Outcome) -> str:
    result: dict[str, Any] = {"type": "canceled" if end == "cancelled" else end}
    match end:
        case Spoken():
            result = {"type": "succeeded", "message": messages(end)}
        case "garbled":
            result = {"type": "succeeded", "message": {"content": "what"}}
        case "errored":
            error = {"type": "invalid_request_error", "message": "too long"}
            result["error"] = {"type": "error", "error": error}
    return json.dumps({"custom_id": item, "result": result}) + "\n"

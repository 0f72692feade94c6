"""`neuronaut mcp`: what `agent.served` offers, over the Model Context Protocol. The only module that knows its SDK."""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import anyio
from mcp import MCPError, types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings

import neuronaut
from neuronaut.agent.registered import named
from neuronaut.agent.served.bearer import Bearer
from neuronaut.agent.served.bench import Bench, Row, told
from neuronaut.agent.served.findings import ListRuns, ShowRecord, claims_of, list_runs, show_record
from neuronaut.agent.served.offer import Offer, offered, offers
from neuronaut.agent.served.shown import shown
from neuronaut.agent.session import Say
from neuronaut.agent.view import steps_on_stderr, visible
from neuronaut.memory.review.guard import hosts_of, new_token
from neuronaut.prompts import render
from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.units import Unit

LOOPBACK = "127.0.0.1"
MOST_BODY = 1024 * 1024  # bytes of a request
NOT_FOUND = -32002  # as the protocol numbers it
SHOWN_RUNS = 50
LONGEST_REFUSAL = 1_000  # characters; a refusal may quote what was sent
SCHEME = "neuronaut://"
JSON = "application/json"
TEMPLATES = {
    "run/{id}": "The answer of a run: claims, verdicts, evidence, experiments.",
    "unit/{model}/{address}": "All claims about a unit of a model, with their verdicts.",
    "record/{id}": "Any record of the notebook.",
}


def serve_stdio(bench: Bench) -> None:
    """Answer the program that started this one, until it closes the pipe. Nothing but the protocol reaches stdout."""

    async def serve() -> None:
        server = Tools(bench).server()
        async with stdio_server() as (read, write):
            with contextlib.redirect_stdout(sys.stderr):
                await server.run(read, write, server.create_initialization_options())

    anyio.run(serve)


def serve_http(bench: Bench, port: int) -> None:
    """Answer programs on this machine that send the token which is printed on stderr, until Ctrl-C. port 0: any free one."""
    import uvicorn

    try:
        listening = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}): name another with --port") from None
    port, token = listening.getsockname()[1], new_token()
    security = TransportSecuritySettings(allowed_hosts=sorted(hosts_of(port)), allowed_origins=[])
    app = Tools(bench).server().streamable_http_app(transport_security=security, max_request_body_size=MOST_BODY)
    print(f"neuronaut: http://{LOOPBACK}:{port}/mcp\nAuthorization: Bearer {token}", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        Bearer(app, port=port, token=token), log_level="warning", access_log=False, server_header=False,
        limit_concurrency=64, timeout_graceful_shutdown=2,
    )  # fmt: skip
    with listening, contextlib.redirect_stdout(sys.stderr):
        uvicorn.Server(config).run(sockets=[listening])


class Tools:
    """The handlers of the protocol. One call at a time works on the model; the notebook is read beside it."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._turn = bench, anyio.Lock()
        self._model_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def server(self) -> "Server[Any]":
        """With everything that is offered."""
        return Server(
            "neuronaut",
            version=neuronaut.__version__,
            instructions=render("tool_server", allow_run=self._bench.allow_run, named=named(self._bench.config)),
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_templates,
            on_read_resource=self.read_resource,
        )

    async def list_tools(self, ctx: Any, params: Any) -> types.ListToolsResult:
        """All that can be called."""
        return types.ListToolsResult(tools=[_as_tool(one) for one in offers(allow_run=self._bench.allow_run).values()])

    async def call_tool(self, ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        """What a call found; a call that cannot be done is a sentence, and costs no forward pass."""
        try:
            offer = offered(params.name, allow_run=self._bench.allow_run)
            work = offer.prepared(self._bench, params.arguments or {})
            if not offer.needs_model:
                return _found(await anyio.to_thread.run_sync(work, steps_on_stderr()))
            async with self._turn:
                return _found(await self._worked(work, ctx))
        except (UserError, ToolFailed, OSError) as error:
            sentence = types.TextContent(type="text", text=visible(told(error))[:LONGEST_REFUSAL])
            return types.CallToolResult(content=[sentence], is_error=True)

    async def _worked(self, work: Callable[[Say], Row], ctx: Any) -> Row:
        """What the work gives, done in a thread of its own; its steps are progress. Where the request is cancelled, the work is
        stopped, and waited for."""
        loop, steps, say = asyncio.get_running_loop(), asyncio.Queue[str | None](), steps_on_stderr()

        def step(label: str, line: str) -> None:
            say(label, line)
            loop.call_soon_threadsafe(steps.put_nowait, label)

        def done() -> Row:
            try:
                return work(step)
            except KeyboardInterrupt:
                raise UserError("the work was stopped; what was finished is kept") from None

        self._bench.begin()
        doing = loop.run_in_executor(self._model_thread, done)
        doing.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            n = 0
            while (label := await steps.get()) is not None:
                n += 1
                await ctx.session.report_progress(n, message=label)
        except asyncio.CancelledError:
            self._bench.stop()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([doing])
            doing.exception()  # that it was stopped is told to nobody
            raise
        return doing.result()

    async def list_resources(self, ctx: Any, params: Any) -> types.ListResourcesResult:
        """The newest runs; none where there is no notebook yet."""
        try:
            runs = (await anyio.to_thread.run_sync(self._runs))["runs"]
        except UserError:
            runs = []
        return types.ListResourcesResult(
            resources=[
                types.Resource(uri=f"{SCHEME}run/{row['id']}", name=f"run {row['id']}", description=row["outcome"], mime_type=JSON)
                for row in runs
            ]
        )  # fmt: skip

    async def list_templates(self, ctx: Any, params: Any) -> types.ListResourceTemplatesResult:
        """How any record is named."""
        return types.ListResourceTemplatesResult(
            resource_templates=[
                types.ResourceTemplate(uri_template=SCHEME + form, name=form.partition("/")[0], description=about, mime_type=JSON)
                for form, about in TEMPLATES.items()
            ]
        )  # fmt: skip

    async def read_resource(self, ctx: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        """A record as JSON, without foreign text."""
        uri = str(params.uri)
        try:
            found = await anyio.to_thread.run_sync(self._resource, uri)
        except UserError as error:
            raise MCPError(NOT_FOUND, visible(str(error))) from None
        return types.ReadResourceResult(
            contents=[types.TextResourceContents(uri=uri, mime_type=JSON, text=_json(found))]
        )

    def _runs(self) -> Row:
        with self._bench.notebook() as notebook:
            return list_runs(notebook, ListRuns(limit=SHOWN_RUNS))

    def _resource(self, uri: str) -> Row:
        kind, _, rest = uri.removeprefix(SCHEME).partition("/")
        named = [unquote(part) for part in rest.split("/", 1)]
        with self._bench.notebook() as notebook:
            match kind, named:
                case (("run" | "record"), [identifier]) if uri.startswith(SCHEME):
                    found = show_record(notebook, ShowRecord.model_construct(id=identifier))
                case "unit", [model, address] if uri.startswith(SCHEME):
                    unit = Unit.parse(address)
                    found = {"unit": unit.address, "claims": claims_of(notebook, unit, limit=SHOWN_RUNS, target=model)}
                case _:
                    raise UserError(
                        f"{uri[:200]!r} names nothing here: there are {', '.join(SCHEME + form for form in TEMPLATES)}"
                    )
        return shown(found, with_text=False)


def _as_tool(offer: Offer) -> types.Tool:
    hints = types.ToolAnnotations(
        read_only_hint=offer.reads, destructive_hint=False, idempotent_hint=offer.reads, open_world_hint=False
    )
    return types.Tool(name=offer.name, description=offer.description, input_schema=offer.schema, annotations=hints)


def _found(found: Row) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=_json(found))], structured_content=found)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)

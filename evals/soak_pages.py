"""Hostile texts in every field of a notebook: its pages in a real browser run none of them; and hostile addresses are refused.

The pages are served without the policy that the guard adds, so that what is not escaped would run.
"""

import asyncio
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from neuronaut.evals import hostile_texts
from neuronaut.evals.hostile_book import Placed, fill
from neuronaut.evals.soak import Experiment, Result
from neuronaut.memory.place import File, Place
from neuronaut.tools.errors import UserError

ORIGIN = "http://pages.test"  # nothing is there: every request of the browser is answered here
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
LISTENING = "window.alert = window.confirm = window.prompt = window.print = () => { window.executed = true; };"
# What no page of ours has: code in attributes, addresses that are code, elements that load or lead elsewhere.
FOREIGN = """() => {
  const found = window.executed ? ["a text was executed"] : [];
  if (document.documentElement.localName !== "html") return found;  // a picture by itself, in its sandbox
  const own = new URL(location.href).origin;
  for (const one of document.querySelectorAll("*")) {
    const tag = one.localName;
    if (["iframe", "object", "embed", "base", "style", "template", "math", "video", "audio", "dialog", "marquee"].includes(tag)) found.push(tag);
    if (tag === "script" && !(one.src.startsWith(own + "/static/") && !one.textContent)) found.push("script");
    for (const {name, value} of one.attributes) {
      if (name.startsWith("on") || name.startsWith("hx-on") || name === "style" || name === "srcdoc") found.push(tag + " " + name);
      const bare = value.replace(/[\\u0000-\\u0020]/g, "").toLowerCase();
      if (/^(javascript|vbscript|data:text)/.test(bare) && !["value", "alt", "title", "content", "aria-label"].includes(name)) found.push(name);
      if (name === "http-equiv" && bare === "refresh") found.push("refresh");
      if (["src", "href", "action", "formaction"].includes(name) && !bare.startsWith("data:,")
          && new URL(value, location.href).origin !== own) found.push(name + " leads elsewhere");
    }
  }
  return found;
}"""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Pages:
    """The pages of a notebook, asked without a network."""

    def __init__(self, place: Place) -> None:
        from neuronaut.memory.review.app import create_app

        self._app = create_app(place, allow_review=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._cycle = self._app.router.lifespan_context(self._app)
        self._do(self._cycle.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._cycle.__aexit__(kind, error, trace))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def ask(self, target: str, method: str = "GET", body: bytes = b"") -> Answer:
        """The answer to a path with its query, already quoted; an error that the application has answered is not raised."""
        found: Answer = self._do(self._ask(target, method, body))
        return found

    async def _ask(self, target: str, method: str, body: bytes) -> Answer:
        from urllib.parse import unquote

        path, _, query = target.partition("?")
        kind = (b"content-type", b"application/x-www-form-urlencoded")
        scope = {"type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": unquote(path), "raw_path": path.encode(),
                 "root_path": "", "query_string": query.encode("ascii"), "headers": [(b"host", b"pages.test"), kind],
                 "server": ("pages.test", 80), "client": ("127.0.0.1", 1)}  # fmt: skip
        sent: list[Any] = []
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return waiting.pop() if waiting else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        try:
            await self._app(scope, receive, send)
        except Exception:  # raised on after the page that says so
            if not sent:
                raise
        headers = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, b"".join(one.get("body", b"") for one in sent[1:]))


def chromium() -> str:
    """The browser that is installed. Refuses a machine without one."""
    found = os.environ.get("NEURONAUT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        raise UserError("the pages are tested in a browser, and there is none: apt-get install chromium")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield opened
        opened.close()


class Reader:
    """A window that shows pages, and what they did that they must not."""

    def __init__(self, opened: Any) -> None:
        self._context = opened.new_context(accept_downloads=False)
        self._context.add_init_script(LISTENING)
        self._context.route("**/*", self._answer)
        self._page = self._context.new_page()
        self._page.on("dialog", lambda dialog: (self._did.append("a dialog opened"), dialog.dismiss()))
        self._did: list[str] = []
        self.pages: Pages | None = None

    def _answer(self, route: Any) -> None:
        url = route.request.url
        if not url.startswith(ORIGIN + "/") or self.pages is None:
            self._did.append(f"it asked for {url[:80]}")
            route.abort()
            return
        answer = self.pages.ask(url.removeprefix(ORIGIN))
        route.fulfill(status=answer.status, headers=answer.headers, body=answer.body)

    def faults(self, address: str) -> list[str]:
        """Shows a page; what it did or holds that no page of ours does."""
        self._did.clear()
        self._page.goto(ORIGIN + address, wait_until="load")
        found = [*self._page.evaluate(FOREIGN), *self._did]
        if not self._page.url.startswith(ORIGIN + address.partition("?")[0]):
            found.append(f"it led to {self._page.url[:80]}")
        return found

    def close(self) -> None:
        """Close the window."""
        self._context.close()


def addresses(placed: list[Placed], text: str) -> list[tuple[str, str]]:
    """Every page of a hostile notebook with the field that it is about, and pages whose own address holds the text."""
    word = quote(text, safe="")
    own = [("search words", f"/?q={word}"), ("an id", f"/r/{word}"), ("a unit", f"/u/{word}/{word}"), ("a run", f"/t/{word}"),
           ("a filter", f"{placed[0].unit}?evidence={word}"), ("a cursor", f"/queue?after={word}")]  # fmt: skip
    whole = [("all fields", "/"), ("all fields", "/queue")]
    return [*((one.field, page) for one in placed for page in one.pages), *whole, *own]


def render(seed: int, n: int) -> Result:
    """How `n` pages came out, each shown once in a browser."""
    rng, result = random.Random(seed), Result()
    texts = hostile_texts.scripts()
    rng.shuffle(texts)
    with browser() as opened, tempfile.TemporaryDirectory() as name:
        for at, text in enumerate(texts):
            file = Path(name) / f"{at}.db"
            chosen = addresses(fill(file, text), text)
            with Pages(File(file)) as pages:
                reader = Reader(opened)
                reader.pages = pages
                for field, address in chosen:
                    faults = reader.faults(address)
                    result.outcomes["executed" if faults else "shown as text"] += 1
                    if faults:
                        result.failures.append(f"{text[:60]!r} in {field} at {address[:40]}: {', '.join(faults[:3])}")
                    if sum(result.outcomes.values()) >= n:
                        reader.close()
                        return result
                reader.close()
            file.unlink()
    return result


ROUTES = ("/?q={}", "/?after={}", "/queue?after={}", "/u/{}/8.481", "/u/m/{}", "/u/m/3.0?evidence={}", "/t/{}", "/b/{}", "/r/{}", "/a/{}",
          "/a/{}.svg", "/a/{}.json", "/static/{}", "/export/{}", "/export/{}?q={}", "/jobs/{}", "/{}")  # fmt: skip
_LEAKED = (b"root:x:0", b"Traceback", b"[extensions]", b"create_app", b"CREATE TABLE", b"sqlite_master'")


def refuse(seed: int, n: int) -> Result:
    """How `n` hostile addresses came out: each is a page that finds nothing or says why not, and the notebook stays as it is."""
    rng, result = random.Random(seed), Result()
    hostile = [*hostile_texts.paths(), *hostile_texts.queries()]
    cases = [(route, text) for text in hostile for route in ROUTES]
    rng.shuffle(cases)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "notebook.db"
        fill(file, "a word")
        before = file.read_bytes()
        with Pages(File(file)) as pages:
            for route, text in cases[:n]:
                for word in {quote(text, safe=""), quote(text, safe="/%\\.;:")}:
                    _refused(pages, route.replace("{}", word), text, result)
        if file.read_bytes() != before or sorted(one.name for one in Path(name).iterdir()) != ["notebook.db"]:
            result.failures.append("the notebook or its folder was changed")
    return result


def _refused(pages: Pages, address: str, text: str, result: Result) -> None:
    answer = pages.ask(address)
    result.outcomes[str(answer.status)] += 1
    found = [word.decode() for word in _LEAKED if word in answer.body and word not in text.encode("utf-8", "replace")]
    if answer.status not in (200, 303, 307, 400, 403, 404, 405) or found:
        result.failures.append(f"{address[:80]!r}: {answer.status} {found}")


RENDERS = Experiment(
    "hostile texts in pages", 9_000, "be shown as text by a real browser, and nothing executed", render
)
ADDRESSES = Experiment(
    "hostile addresses of pages", 600 * len(ROUTES), "be refused or find nothing, without a trace", refuse
)

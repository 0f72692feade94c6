"""A window of a real browser that says what a page did, or holds, that no page of ours does.

The pages are shown without the policy that the guard adds, so that what is not escaped would run.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from neuronaut.evals.asked_pages import Answer
from neuronaut.tools.errors import UserError

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
LISTENING = "window.alert = window.confirm = window.prompt = window.print = () => { window.executed = true; };"
# What no page of ours has: code in attributes, addresses that are code, elements that load or lead elsewhere.
FOREIGN = """() => {
  const found = window.executed ? ["a text was executed"] : [];
  if (document.contentType !== "text/html") return found;  // a picture by itself, in its sandbox
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


class Asked(Protocol):
    """Something that answers addresses."""

    def ask(self, target: str) -> Answer:
        """The answer to a path with its query."""
        ...


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


class Window:
    """A window that shows pages; the same one for all, since a new one takes a second."""

    def __init__(self, opened: Any) -> None:
        self._server = _Server()
        self._own = f"http://127.0.0.1:{self._server.server_port}"
        self._context = opened.new_context(accept_downloads=False)
        self._context.add_init_script(LISTENING)
        self._context.route(lambda url: not url.startswith((f"{self._own}/", "data:,")), self._elsewhere)
        self._page = self._context.new_page()
        self._page.on("dialog", self._dismiss)
        self._did: list[str] = []

    def faults(self, pages: Asked, address: str) -> list[str]:
        """Shows a page; what it did or holds that no page of ours does."""
        self._did.clear()
        self._server.pages = pages
        self._page.goto(self._own + address, wait_until="load")
        found = [*self._page.evaluate(FOREIGN), *self._did]
        if not self._page.url.startswith(self._own + address.partition("?")[0]):
            found.append(f"it led to {self._page.url[:80]}")
        return found

    def close(self) -> None:
        """Close the window."""
        self._context.close()
        self._server.end()

    def _dismiss(self, dialog: Any) -> None:
        self._did.append("a dialog opened")
        dialog.dismiss()

    def _elsewhere(self, route: Any) -> None:
        self._did.append(f"it asked for {route.request.url[:80]}")
        route.abort()


class _Server(ThreadingHTTPServer):
    """Pages over loopback; style and scripts are kept by the browser."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: Asked | None = None
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        assert self.server.pages is not None
        answer = self.server.pages.ask(self.path)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name not in ("content-length", "connection"):
                self.send_header(name, value)
        if self.path.startswith("/static/"):
            self.send_header("cache-control", "max-age=3600")
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        pass

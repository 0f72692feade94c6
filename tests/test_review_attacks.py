"""Hostile texts, addresses, files and sites against the pages; and whether everybody can use them."""

import contextlib
import json
import os
import random
import re
import runpy
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from neuronaut.evals import hostile_texts, soak_pages
from neuronaut.evals.asked_pages import Answer, Pages
from neuronaut.evals.hostile_book import FIELDS, Placed, fill
from neuronaut.evals.page_window import Window, browser, chromium
from neuronaut.evals.soak import SHARE
from neuronaut.memory import schema
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File
from neuronaut.memory.review import serve
from neuronaut.memory.review.files import write_site
from neuronaut.tools.errors import UserError

beside = runpy.run_path(str(Path(__file__).with_name("test_review_browser.py")))
served, made, Steps = beside["served"], beside["made"], beside["Steps"]
ODD = (7, 1.5, -1, b"\xff\xfe\x00", "", "not JSON", '{"a":', "[]", "null", "[" * 3_000, "x" * 300_000,
       '{"bets": 3, "payload": 4, "rivals": 5, "measurements": 6, "figures": 7}')  # fmt: skip
HANDED_OUT = 60  # hostile files
SERIOUS = ("serious", "critical")


def needs_a_browser() -> None:
    try:
        chromium()
    except UserError as error:
        if os.environ.get("NEURONAUT_NEEDS_BROWSER"):
            raise
        pytest.skip(str(error))
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


# Texts


def test_every_field_is_shown_on_some_page(tmp_path: Path) -> None:
    """Else the renders of its hostile texts would say nothing."""
    placed = fill(tmp_path / "n.db", "KILROY")
    assert [one.field for one in placed] == list(FIELDS)
    with Pages(File(tmp_path / "n.db")) as pages:
        unseen = [one.field for one in placed if not any(b"KILROY" in pages.ask(page).body for page in one.pages)]
    assert unseen == []


def test_no_hostile_text_is_executed_by_a_browser() -> None:
    needs_a_browser()
    result = soak_pages.render(0, soak_pages.RENDERS.count // SHARE)
    assert result.failures == []
    assert result.outcomes == {"shown as text": soak_pages.RENDERS.count // SHARE}


def test_a_page_that_did_not_escape_would_be_caught() -> None:
    """The same window, over pages that show texts raw: nearly every text is found."""
    needs_a_browser()

    class Raw:
        text = ""

        def ask(self, target: str) -> Answer:
            body = f"<!doctype html><html><body><p title='{self.text}'>{self.text}</p></body></html>"
            return Answer(200, {"content-type": "text/html; charset=utf-8"}, body.encode("utf-8", "replace"))

    raw = Raw()
    texts = random.Random(0).sample([text for text in hostile_texts.scripts() if text not in hostile_texts.BARE], 60)
    with browser() as opened:
        window, caught = Window(opened), 0
        for raw.text in texts:
            with contextlib.suppress(Exception):  # a text may lead the window away
                caught += bool(window.faults(raw, "/"))
        window.close()
    assert caught >= 45


class Tags(HTMLParser):
    """What a page is made of: its elements, and attributes that hold code or lead elsewhere."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.wrong: list[tuple[str, str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        for name, value in attrs:
            leads = name in ("src", "href", "action") and re.match(r"\s*(\w+:|//)", value or "") and value != "data:,"
            if name.startswith(("on", "hx-")) or name in ("style", "srcdoc") or leads:
                self.wrong.append((tag, name, value))


def test_exported_pages_hold_hostile_texts_as_text(tmp_path: Path) -> None:
    write_site(File(_filled(tmp_path / "plain.db", "a word")), tmp_path / "plain")
    known = {
        name for page in (tmp_path / "plain").rglob("*.html") for name in Tags(page.read_text(encoding="utf-8")).names
    }
    for at, text in enumerate(random.Random(1).sample(hostile_texts.scripts(), 2)):
        write_site(File(_filled(tmp_path / f"{at}.db", text)), tmp_path / f"site{at}")
        assert {one.name for one in tmp_path.iterdir()} <= {"plain.db", "plain", "0.db", "1.db", "site0", "site1"}
        for page in (tmp_path / f"site{at}").rglob("*.html"):
            tags = Tags(page.read_text(encoding="utf-8"))
            assert tags.names <= known, (page.name, text)
            assert tags.wrong == [], (page.name, text)


def _filled(file: Path, text: str) -> Path:
    fill(file, text)
    return file


def test_nothing_in_a_notebook_steers_a_terminal(tmp_path: Path, neuronaut: Callable[..., Any]) -> None:
    text = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u2028\r\x00\b\x7f\U000e0041"
    placed = fill(tmp_path / "n.db", text)
    runs = [("show", one.run) for one in placed[::5]] + [("search",), ("search", "fires"), ("search", "unit:3.4")]
    rows = [("show", one.row.rpartition("/")[2]) for one in placed[::7] if one.row.startswith("/r/")]
    for command in runs + rows:
        for options in ((), ("--json",)):
            said = neuronaut(*command, "--notebook", tmp_path / "n.db", *options)
            for stream in (said.out, said.err):
                steering = {
                    c
                    for c in stream
                    if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")
                }
                assert steering == set(), (command, steering)


# Addresses


def test_hostile_addresses_find_nothing_and_change_nothing() -> None:
    n = soak_pages.ADDRESSES.count // SHARE
    result = soak_pages.refuse(0, n)
    assert result.failures == []
    assert sum(result.outcomes.values()) >= n
    assert "500" not in result.outcomes


@pytest.mark.parametrize("route", ["/review", "/ask", "/rerun", "/jobs/x/stop"])
def test_hostile_fields_of_a_form_are_refused(route: str, tmp_path: Path) -> None:
    from urllib.parse import urlencode

    fill(tmp_path / "n.db", "a word")
    before = (tmp_path / "n.db").read_bytes()
    rng = random.Random(0)
    texts = rng.sample([*hostile_texts.paths(), *hostile_texts.queries()], 60)
    with Pages(File(tmp_path / "n.db")) as pages:
        for text in texts:
            fields = dict.fromkeys(("target", "id", "run", "question", "verb", "author", "reason", "back"), text)
            answer = pages.ask(route, "POST", urlencode(fields).encode())
            assert answer.status in (400, 403, 404)
            assert b"Traceback" not in answer.body
        assert pages.ask(route, "POST", b"&".join(b"a=1" for _ in range(9_000))).status in (400, 403, 404)
        assert pages.ask(route, "POST", b"\xff\xfe=\x00%").status in (400, 403, 404)
    assert (tmp_path / "n.db").read_bytes() == before


# Files


def test_a_notebook_with_any_value_in_any_column_is_shown_or_refused(tmp_path: Path) -> None:
    placed = fill(tmp_path / "n.db", "a word")
    whole = (tmp_path / "n.db").read_bytes()
    columns = [
        (table.name, column.name)
        for table in schema.metadata.sorted_tables
        if table.name not in _OTHERS
        for column in table.columns
    ]
    cases = [(table, column, value) for table, column in columns for value in ODD]
    rows = next(one for one in placed if one.field == "item reason")
    seen: dict[int, int] = {}
    for at, (table, column, value) in enumerate(random.Random(0).sample(cases, HANDED_OUT)):
        file = tmp_path / f"{at}.db"
        file.write_bytes(whole)
        _alter(file, table, column, value)
        altered = file.read_bytes()
        for status, body in _answers(file, rows):
            seen[status] = seen.get(status, 0) + 1
            assert b"Traceback" not in body, (table, column, value)
            assert status in (200, 400, 404) or (status == 500 and b"neuronaut verify" in body), (table, column, value)
        assert file.read_bytes() == altered
        file.unlink()
    assert seen[200] > 4 * (sum(seen.values()) - seen[200]), "most pages show what they can"


_OTHERS = ("ledger", "schema_migration", "allowed_transition")


def _alter(file: Path, table: str, column: str, value: Any) -> None:
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("pragma ignore_check_constraints = on")
        try:
            db.execute(f'update "{table}" set "{column}" = ?', (value,))
        except sqlite3.IntegrityError:  # where it must be unique, one row will do
            db.execute(
                f'update "{table}" set "{column}" = ? where rowid = (select min(rowid) from "{table}")', (value,)
            )


def _answers(file: Path, rows: Placed) -> Iterator[tuple[int, bytes]]:
    try:
        with Pages(File(file)) as pages:
            for address in ("/", "/queue", "/?q=status:supported", *rows.pages):
                answer = pages.ask(address)
                yield answer.status, answer.body
    except UserError as error:
        yield 400, str(error).encode()


@pytest.mark.parametrize(
    "trap",
    [
        "create view spy as select * from run",
        "create trigger steal after insert on review begin update verdict set outcome = 'SUPPORTED'; end",
        "create table x (y text default (load_extension('evil')))",
        "create index evil on run (abs(id))",
    ],
)
def test_what_a_foreign_notebook_brings_along_is_not_run(trap: str, tmp_path: Path) -> None:
    placed = fill(tmp_path / "n.db", "a word")
    with contextlib.closing(sqlite3.connect(tmp_path / "n.db")) as db, db:
        db.execute(trap)
    before = (tmp_path / "n.db").read_bytes()
    assert all(status in (200, 400) for status, _ in _answers(tmp_path / "n.db", placed[0]))
    assert (tmp_path / "n.db").read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"SQLite format 3\x00" + b"\xff" * 4_000, b"PK\x03\x04" * 100, b"<script>alert(1)</script>"]
)
def test_a_file_that_is_no_notebook_is_refused_in_a_sentence(
    content: bytes, tmp_path: Path, neuronaut: Callable[..., Any]
) -> None:
    file = tmp_path / "n.db"
    file.write_bytes(content)
    said = neuronaut("review", "--no-browser", "--notebook", file)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert len(said.err) < 600
    assert file.read_bytes() == content


# Other sites


EVIL = """<!doctype html><title>evil</title><body><script>
const own = "OWN", fields = {target: "CLAIM", verb: "invalidate", author: "evil", reason: "because", back: "/"};
const form = document.createElement("form");
form.method = "post"; form.action = own + "review"; form.target = "hidden";
for (const [name, value] of Object.entries(fields)) {
  const one = document.createElement("input"); one.name = name; one.value = value; form.append(one);
}
const hidden = document.createElement("iframe"); hidden.name = "hidden"; document.body.append(hidden, form);
const framed = document.createElement("iframe"); framed.src = own; document.body.append(framed);
const picture = new Image(); picture.src = own + "t/RUN";
window.read = [];
const tries = [
  fetch(own, {credentials: "include"}).then(r => r.text()),
  fetch(own + "review", {method: "POST", credentials: "include", body: new URLSearchParams(fields)}).then(r => r.text()),
  fetch(own + "review", {method: "POST", mode: "no-cors", credentials: "include", body: new URLSearchParams(fields)}).then(r => r.text()),
  fetch(own + "export/claims.csv", {credentials: "include"}).then(r => r.text()),
];
Promise.allSettled(tries).then(all => {
  window.read = all.map(one => one.status === "fulfilled" ? one.value : "");
  form.submit(); setTimeout(() => { window.over = true; }, 500);
});
</script>"""


@contextlib.contextmanager
def evil_server(html: str) -> Iterator[int]:
    """The port of a server of somebody else's on this machine."""

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_of_another_server_reads_nothing_and_changes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another port of this machine is the same site to a browser, so that the cookie goes along; another name is another site."""
    needs_a_browser()
    book = made["filled"](tmp_path / "n.db")
    with Notebook(book.path, read_only=True) as notebook:
        head = notebook.head()
    answered: list[tuple[str, int]] = []

    class Watched(serve.Guard):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                if message["type"] == "http.response.start":
                    answered.append((scope["method"], message["status"]))
                await send(message)

            await super().__call__(scope, receive, note)

    monkeypatch.setattr(serve, "Guard", Watched)
    with contextlib.ExitStack() as opened_here:
        address = opened_here.enter_context(served(book, Steps(book.run)))
        own = address.partition("?")[0]
        html = EVIL.replace("OWN", own).replace("CLAIM", book.claim).replace("RUN", book.run)
        port = opened_here.enter_context(evil_server(html))
        context = opened_here.enter_context(browser()).new_context()
        page = context.new_page()
        page.goto(address)
        assert "fires on names" in page.content(), "the person's own window is answered"
        answered.clear()
        page.goto(f"http://{name}:{port}/")
        page.wait_for_function("window.over")
        assert "".join(page.evaluate("window.read")).strip() == ""
        assert {status for _, status in answered} == {403}, answered
        assert [method for method, _ in answered].count("POST") >= 3, "the requests reached the server"
        assert len(answered) >= 7
        page.goto(own)
        assert "fires on names" in page.content(), "and the person is still answered"
        context.close()
    with Notebook(book.path, read_only=True) as notebook:
        assert notebook.head() == head


def test_every_answer_of_the_server_carries_the_headers_of_the_guard(tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    book = made["filled"](tmp_path / "n.db")
    with served(book, None) as address, httpx.Client(base_url=address.partition("?")[0]) as client:
        assert client.get("/").status_code == 403
        assert client.get("/?token=guess").status_code == 403
        exchanged = client.get("/?" + address.partition("?")[2])
        assert exchanged.status_code == 303
        places = [
            "/",
            f"/t/{book.run}",
            "/nowhere",
            "/static/review.css",
            "/export/claims.csv",
            f"/a/{book.picture.removeprefix('sha256:')}.svg",
        ]
        for place in places:
            answer = client.get(place)
            assert answer.status_code in (200, 404)
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "'unsafe-inline'" not in answer.headers["content-security-policy"] or answer.headers[
                "content-security-policy"
            ].startswith("sandbox;")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in answer.headers
            assert "server" not in answer.headers
        assert client.get("/", headers={"host": "evil.example"}).status_code == 403
        assert client.post("/review", data={"target": book.claim}).status_code == 403
        assert client.request("PUT", "/").status_code == 405


# Everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_fault_of_accessibility(scheme: str, tmp_path: Path) -> None:
    needs_a_browser()
    bundled = pytest.importorskip(
        "axe_playwright_python", reason="axe is not installed: pip install axe-playwright-python"
    )
    axe = files(bundled).joinpath("axe.min.js").read_text(encoding="utf-8")
    book = made["filled"](tmp_path / "n.db")
    with served(book, Steps(book.run)) as address, browser() as opened:
        context = opened.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(address)
        own = address.partition("?")[0]
        faults = []
        for place in (
            "",
            "?q=nothing+at+all",
            "queue",
            "u/m/8.481",
            f"t/{book.run}",
            f"b/{book.batch}",
            f"r/{book.claim}",
            "jobs",
            "nowhere",
        ):
            page.goto(own + place)
            page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true;")
            page.evaluate(axe)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            faults += [
                (place, one["id"], one["nodes"][0]["html"][:120], one["nodes"][0]["failureSummary"][:200])
                for one in found["violations"]
                if one["impact"] in SERIOUS
            ]
        context.close()
    assert faults == [], json.dumps(faults, indent=1)

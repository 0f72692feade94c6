"""The pages in a real browser, which may reach nothing but them: a walk through all of them, with scripts and without."""

import os
import runpy
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from neuronaut.memory.place import File
from neuronaut.memory.review import serve
from neuronaut.memory.review.runner import Job

made = runpy.run_path(str(Path(__file__).with_name("review_notebook.py")))
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 30_000  # milliseconds
PAGES = ("index", "unit", "trail", "batch")


def _chromium() -> str:
    found = os.environ.get("NEURONAUT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        if os.environ.get("NEURONAUT_NEEDS_BROWSER"):
            pytest.fail("no chromium is installed, and NEURONAUT_NEEDS_BROWSER asks for one: apt-get install chromium")
        pytest.skip("no chromium is installed: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = _chromium()
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=path, args=list(FLAGS))
        yield found
        found.close()


class Steps:
    """A runner whose work says a line each time somebody looks, three in all, and makes a run."""

    def __init__(self, run: str) -> None:
        self.run, self.begun, self.looks = run, list[str](), 0

    def ask(self, question: str, like_run: str) -> Job:
        self.begun.append(question)
        return self._job()

    def rerun(self, identifier: str) -> Job:
        self.begun.append(identifier)
        return self._job()

    def _job(self) -> Job:
        lines = tuple(f"look  step {n}" for n in range(1, min(self.looks, 3) + 1))
        done = self.looks >= 3
        return Job("J1", self.begun[-1], "done" if done else "working", lines, self.run if done else "")

    def jobs(self) -> list[Job]:
        return [self._job()] if self.begun else []

    def job(self, identifier: str) -> Job | None:
        self.looks += 1
        return self._job() if self.begun else None

    def stop(self, identifier: str) -> None:
        self.looks = 99

    def close(self) -> None:
        pass


@contextmanager
def served(book: Any, runner: Any) -> Iterator[str]:
    """The address of the pages of a notebook, served by a thread; what `neuronaut review` itself serves."""
    listening = threading.Event()
    found: list[str] = []
    stop: list[Callable[[], None]] = []

    def ready(address: str, end: Callable[[], None]) -> None:
        found.append(address)
        stop.append(end)
        listening.set()

    thread = threading.Thread(
        target=serve.serve, args=(File(book.path), 0),
        kwargs={"allow_review": True, "runner": runner, "ready": ready}, daemon=True,
    )  # fmt: skip
    thread.start()
    assert listening.wait(30)
    yield found[0]
    stop[0]()
    thread.join(30)
    assert not thread.is_alive()


@contextmanager
def page_of(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """A page whose console stays empty and which reaches nothing but the pages."""
    context = browser.new_context(accept_downloads=True, **options)
    context.set_default_timeout(PATIENCE)
    own = address.partition("?")[0]
    outside: list[str] = []
    said: list[str] = []

    def only_own(route: Any) -> None:
        if route.request.url.startswith((own, "data:", "file:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context.route("**/*", only_own)
    page = context.new_page()
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    yield page
    context.close()
    assert outside == []
    assert said == []


@pytest.fixture
def book(tmp_path: Path) -> Any:
    return made["filled"](tmp_path / "n.db")


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_reader_walks_from_the_index_to_an_opinion(browser: Any, book: Any, scripts: bool) -> None:
    """index → search → unit → evidence → experiment → rerun → review → export."""
    with served(book, Steps(book.run)) as address, page_of(browser, address, java_script_enabled=scripts) as page:
        page.goto(address)
        page.get_by_role("searchbox").fill("names status:supported")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="8.481", exact=True).first.click()
        page.get_by_role("heading", name="neuron 8.481").wait_for()
        page.get_by_role("link", name="refutes 1").click()
        page.locator(
            "#evidence-" + page.locator("tr[id^=evidence-]").get_attribute("id").removeprefix("evidence-")
        ).wait_for()
        page.get_by_role("link", name="test_reads").click()
        page.wait_for_url(f"**/t/{book.run}#*")
        step = page.locator(":target")
        assert "test_reads" in step.inner_text()
        step.get_by_role("button", name="Measure it again").click()
        page.wait_for_url("**/jobs/J1")
        page.get_by_text("step 3").wait_for()
        page.get_by_role("link", name="the trail of run").click()
        page.wait_for_url(f"**/t/{book.run}")
        page.get_by_role("link", name="8.481", exact=True).click()
        card = page.locator(f"#claim-{book.claim}")
        card.get_by_text("Say what you think of it").click()
        card.get_by_label("dispute").check()
        card.get_by_label("Your name").fill("Ada Example")
        card.get_by_label("Reason").fill("it fires on towns too")
        card.get_by_role("button", name="Add to the notebook").click()
        page.wait_for_url(f"**#claim-{book.claim}")
        assert "it fires on towns too" in card.inner_text()
        page.goto(address)
        with page.expect_download() as download:
            page.get_by_role("link", name="JSON lines").click()
        assert "fires on names" in download.value.path().read_text(encoding="utf-8")


def test_the_review_queue_is_worked_through_with_keys(browser: Any, book: Any) -> None:
    with served(book, Steps(book.run)) as address, page_of(browser, address) as page:
        page.goto(address)
        page.goto(address.partition("?")[0] + "queue")
        before = page.locator("[data-claim]").count()
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        chosen = page.locator(".chosen")
        claim = chosen.get_attribute("data-claim")
        page.keyboard.press("a")
        chosen.get_by_label("Your name").fill("Ada Example")
        page.keyboard.press("Tab")
        page.keyboard.type("as the examples say")
        page.keyboard.press("Tab")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert page.locator("[data-claim]").count() == before - 1
        assert page.locator(f"[data-claim='{claim}']").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_fits_its_window(browser: Any, book: Any, scheme: str, width: int) -> None:
    with (
        served(book, Steps(book.run)) as address,
        page_of(browser, address, color_scheme=scheme, viewport={"width": width, "height": 800}) as page,
    ):
        page.goto(address)
        base = address.partition("?")[0]
        for place in ("", "queue", "u/m/8.481", f"t/{book.run}", f"b/{book.batch}", f"r/{book.claim}", "jobs"):
            page.goto(base + place)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, place
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(11, 14, 19)") == (scheme == "dark")  # the style sheet was taken
            drawn = page.evaluate("[...document.images].filter(i => i.loading !== 'lazy' && !i.naturalWidth).length")
            assert drawn == 0, place


def test_a_batch_page_shows_what_happened_since(browser: Any, book: Any) -> None:
    from neuronaut.memory.notebook import Notebook

    with served(book, Steps(book.run)) as address, page_of(browser, address) as page:
        page.goto(address)
        page.goto(f"{address.partition('?')[0]}b/{book.batch}")
        with Notebook(book.path) as notebook:
            (item,) = notebook.lease(book.batch, "you", now=time.time(), until=1e12, limit=1, alive=lambda _: True)
            notebook.end_item(item, "skipped", "too rare here")
        page.get_by_text("too rare here").wait_for()


def test_exported_pages_open_from_a_folder(browser: Any, book: Any, tmp_path: Path) -> None:
    from neuronaut.memory.review.files import write_site

    write_site(File(book.path), tmp_path / "site")
    start = (tmp_path / "site" / "index.html").as_uri()
    with page_of(browser, start) as page:
        page.goto(start)
        page.get_by_role("link", name="fires on names").first.click()
        page.wait_for_url("**/t/*.html#*")
        assert "fires on names" in page.locator(":target").inner_text()
        page.get_by_role("link", name="8.481", exact=True).first.click()
        page.get_by_role("heading", name="neuron 8.481").wait_for()
        assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderLeftWidth") == "5px"

"""Hostile texts in every field of a notebook: its pages in a real browser run none of them; and hostile addresses are refused."""

import random
import tempfile
from pathlib import Path
from urllib.parse import quote

from neuronaut.evals import hostile_texts
from neuronaut.evals.asked_pages import Pages
from neuronaut.evals.hostile_book import Placed, fill
from neuronaut.evals.page_window import Window, browser
from neuronaut.evals.soak import Experiment, Result
from neuronaut.memory.place import File


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
        window = Window(opened)
        for at, text in enumerate(texts):
            file = Path(name) / f"{at}.db"
            chosen = addresses(fill(file, text), text)
            with Pages(File(file)) as pages:
                for field, address in chosen[: n - sum(result.outcomes.values())]:
                    faults = window.faults(pages, address)
                    result.outcomes["executed" if faults else "shown as text"] += 1
                    if faults:
                        result.failures.append(f"{text[:60]!r} in {field} at {address[:40]}: {', '.join(faults[:3])}")
            file.unlink()
            if sum(result.outcomes.values()) >= n:
                break
        window.close()
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

"""The pages of a notebook: what they say, what they refuse, and that nothing in a notebook can speak through them."""

import errno
import json
import re
import runpy
import time
from collections.abc import Callable, Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, Place
from neuronaut.memory.review.app import create_app
from neuronaut.memory.review.leaks import leak
from neuronaut.memory.review.runner import Job
from neuronaut.memory.review.strips import shade
from neuronaut.memory.verify import verify
from neuronaut.tools.units import Unit

made = runpy.run_path(str(Path(__file__).with_name("review_notebook.py")))
HOSTILE: str = made["HOSTILE"]
MOST_BYTES = 300_000
Neuronaut = Callable[..., Any]


class Fake:
    """A runner that remembers what it was asked to start."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.closed = False

    def ask(self, question: str, like_run: str) -> Job:
        self.asked.append(("ask", question, like_run))
        return self._job()

    def rerun(self, identifier: str) -> Job:
        self.asked.append(("rerun", identifier))
        return self._job()

    def _job(self) -> Job:
        return Job("J1", "a question", "working", ("look  8.481 fires",), "")

    def jobs(self) -> list[Job]:
        return [self._job()] if self.asked else []

    def job(self, identifier: str) -> Job | None:
        return self._job() if self.asked and identifier == "J1" else None

    def stop(self, identifier: str) -> None:
        self.asked.append(("stop", identifier))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made["filled"](tmp_path_factory.mktemp("book") / "n.db")


@pytest.fixture(scope="module")
def pages(book: Any) -> Iterator[TestClient]:
    with TestClient(create_app(File(book.path))) as client:
        yield client


def text_of(html: str) -> str:
    """What a reader sees, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def every_page(book: Any) -> list[str]:
    return ["/", "/?q=names", "/queue", "/u/m/8.481", "/u/m/8.481?evidence=refutes", f"/t/{book.run}", f"/b/{book.batch}",
            f"/t/{book.batch}", f"/t/{book.asked}", f"/r/{book.claim}", f"/r/{book.call}", f"/r/{book.picture}"]  # fmt: skip


def test_every_page_is_there_and_its_links_lead_somewhere(pages: TestClient, book: Any) -> None:
    seen: set[str] = set()
    for address in every_page(book):
        answer = pages.get(address)
        assert answer.status_code == 200, (address, answer.text[:500])
        assert len(answer.content) < MOST_BYTES
        ids = set(re.findall(r'\bid="([^"]+)"', answer.text))
        for link in map(unescape, re.findall(r'(?:href|src)="([^"]+)"', answer.text)):
            if link.startswith("#"):
                assert link[1:] in ids, (address, link)
            elif link.startswith(("/", "?")):
                seen.add(link if link.startswith("/") else address.partition("?")[0] + link)
    assert len(seen) > 30
    for link in seen:
        page, _, anchor = link.partition("#")
        answer = pages.get(page)
        assert answer.status_code == 200, link
        assert not anchor or f'id="{anchor}"' in answer.text, link


def test_the_page_of_a_unit_tells_the_claim_with_its_number_null_and_rivals(pages: TestClient, book: Any) -> None:
    said = text_of(pages.get("/u/m/8.481").text)
    assert "fires on names" in said
    assert "0.9 [0.8, 0.95]" in said  # f1 with its interval
    assert "above 97 % of nulls" in said
    assert "as good" in said  # the best rival is not beaten
    assert "edits from 17 documents could have refuted it" in said
    assert "by grammar" in said.lower()
    assert "ABSTAINED".lower() in said
    assert said.index("fires on names") < said.index("fires on verbs")  # SUPPORTED before REFUTED


def test_contexts_stand_in_four_bands_with_what_was_measured_and_what_is_claimed(pages: TestClient) -> None:
    html = pages.get("/u/m/8.481").text
    for band in ("top", "quantiles", "random", "near_miss"):
        assert f'id="band-{band}"' in html
        assert f"band {band}" in html  # the sampling rule
    assert re.search(r'<span class="t p4 c y" title="2.07; the claim says 1"> Mary</span>', html)
    near = html[html.index('id="band-near_miss"') :]
    assert "the claim holds, and it does not fire" in near[: near.index("<h2")]
    assert "fires above 0.9" in html


def test_a_unit_nobody_looked_at_says_so_and_names_the_command(tmp_path: Path) -> None:
    book = made["Book"](tmp_path / "n.db")
    book.claim(book.run(), "1.5", "fires on a")
    book.notebook.close()
    with TestClient(create_app(File(book.path))) as client:
        said = text_of(client.get("/u/m/1.5").text)
    assert "Nobody has looked at: strongest; from strongest to weakest; random places; near misses" in said
    assert "neuronaut ask 'tool contexts_of_claim" in said
    assert "The histogram of its activations: not measured" in said


@pytest.mark.parametrize(("kind", "n"), [("supports", 1), ("refutes", 1), ("inconclusive", 0), ("failed", 1)])
def test_evidence_is_filtered_by_what_it_says(pages: TestClient, kind: str, n: int) -> None:
    html = pages.get(f"/u/m/8.481?evidence={kind}").text
    assert html.count('<tr id="evidence-') == n
    assert f"{kind} {n}" in text_of(html)


def test_a_trail_tells_every_step_in_the_order_of_time(pages: TestClient, book: Any) -> None:
    html = pages.get(f"/t/{book.run}").text
    said = text_of(html)
    names = re.findall(r'<span class="no">([A-Z]\d+)</span>', html)
    assert sorted(names, key=lambda one: (one[0], int(one[1:]))) == [
        "C1", "C2", "H1", "H2", "H3", "P1", "P2", "V1", "V2", "X1", "X2", "X3", "X4", "X5"
    ]  # fmt: skip
    assert names.index("H1") < names.index("P1") < names.index("X1") < names.index("V1")
    assert "Computed by code (rule 1) from E1 f1 , E2 precision" in said
    assert f"neuronaut rerun {book.experiment} --notebook" in said
    assert "12 min" not in said
    assert "62 s" in said  # of 61.5
    assert "$0.1234" in said
    assert "THE PROMPT" in said
    assert "THE REPLY" in said
    assert "tokens 300 in (not measured cached), 21 out" in said
    assert "never ended" in said
    assert "may be billed twice" in said
    assert "not finite" in said  # failures are rows
    assert f'src="/a/{book.picture.removeprefix("sha256:")}.svg"' in html


def test_an_unfinished_run_has_no_cost_of_zero(tmp_path: Path) -> None:
    book = made["Book"](tmp_path / "n.db")
    run = book.run(ended=False)
    book.notebook.close()
    with TestClient(create_app(File(book.path))) as client:
        said = text_of(client.get(f"/t/{run}").text)
        assert "Not known: the run has not ended" in said
        assert "$0" not in said
        assert "$0" not in text_of(client.get("/").text)


def test_a_batch_tells_how_far_it_is_and_why_items_failed(pages: TestClient, book: Any) -> None:
    html = pages.get(f"/b/{book.batch}").text
    said = text_of(html)
    assert "done 2 at work 0 waiting 1 failed 1" in said
    assert "0 of 1 planted null units got a SUPPORTED claim: 0 % (95 %: 0 % to 97.5 %)" in said
    assert "the budget of the unit was spent" in said
    assert "1 out of budget" in said
    assert 'hx-trigger="every 5s"' in html  # it goes on
    assert '<noscript><meta http-equiv="refresh"' in html


def test_three_clicks_from_the_index_lead_to_what_people_look_for(pages: TestClient, book: Any) -> None:
    """Each target as text of a page, with the most links that are followed to it."""
    wanted = {
        "the experiment that refuted a rival": (f'id="{book.experiment}"', 2),
        "the prompt of a language-model call": ("THE PROMPT", 2),
        "the cost of a run": ("$0.1234", 1),
        "the exact text of a near miss": ("Alicia", 1),
        "why an item failed": ("the budget of the unit was spent", 1),
    }
    reached = dict.fromkeys(("/",), 0)
    order, texts = ["/"], dict[str, str]()
    for address in order:
        texts[address] = unescape(pages.get(address).text)
        if reached[address] == 3:
            continue
        for link in re.findall(r'href="(/[utbr]?[^"#]*)', pages.get(address).text):
            if link not in reached and not link.startswith(("/static", "/export", "/a/")):
                reached[link] = reached[address] + 1
                order.append(link)
    for what, (text, most) in wanted.items():
        assert min(reached[address] for address, page in texts.items() if text in page) <= most, what


def test_any_id_leads_to_its_row_and_its_place_in_a_trail(pages: TestClient, book: Any) -> None:
    for identifier in (book.claim, book.experiment, book.call, book.failed):
        html = pages.get(f"/r/{identifier}").text
        assert f'href="/t/{book.run}#{identifier}"' in html
    assert "names of people" in text_of(pages.get(f"/r/{book.claim}").text)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/t/NOPE", "there is no run 'NOPE'"),
        ("/b/NOPE", "there is no run 'NOPE'"),
        ("/r/NOPE", "there is no record 'NOPE'"),
        ("/u/m/9.9", "nobody asked about 9.9"),
        ("/u/other/8.481", "holds no model 'other': it has m"),
        ("/u/m/what", "names no unit"),
        ("/a/0123.svg", "there is no record 'sha256:0123'"),
        ("/static/..%2Fapp.py", "/r/ID"),
        ("/static/app.py", "there is no file 'app.py'"),
        ("/export/claims.exe", "There is no file 'claims.exe'"),
        ("/nowhere", "/r/ID"),
    ],
)
def test_what_is_not_there_gives_a_page_that_helps(pages: TestClient, address: str, said: str) -> None:
    answer = pages.get(address)
    assert answer.status_code == 404
    assert said in text_of(answer.text)
    assert 'href="/"' in answer.text


def test_a_wrong_address_names_what_was_meant(pages: TestClient, book: Any) -> None:
    assert f'href="/t/{book.run}"' in pages.get(f"/t/{book.run[:14]}").text
    assert 'href="/u/m/8.481"' in pages.get("/u/pocket/8.481").text
    assert 'href="/u/m/8.481"' in pages.get("/r/8.481").text


def test_a_wrong_facet_is_refused_in_a_sentence(pages: TestClient) -> None:
    answer = pages.get("/", params={"q": "status:wonderful"})
    assert answer.status_code == 400
    assert "status:wonderful" in text_of(answer.text)


class Tags(HTMLParser):
    """The elements of a page, with the attributes that could run something."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str | None] = []
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script":
            self.scripts.append(given.get("src"))
        self.bad += [f"{tag} {name}" for name in given if name.startswith("on") or name == "style"]
        self.bad += [f"{tag} {value}" for value in given.values() if value and value.lower().startswith("javascript:")]
        if tag in ("style", "iframe", "object", "embed", "base"):
            self.bad.append(tag)
        if tag == "img" and not str(given.get("src")).startswith("/a/"):
            self.bad.append(f"img {given.get('src')}")


def test_no_text_of_a_notebook_becomes_markup_code_or_an_order_to_the_screen(tmp_path: Path) -> None:
    book = made["filled"](tmp_path / "n.db", HOSTILE)
    with TestClient(create_app(File(book.path), allow_review=True, runner=Fake())) as client:
        for address in [
            *every_page(book),
            "/t/<script>alert(1)</script>",
            "/u/m/<img src=x onerror=alert(1)>",
            f"/?q={HOSTILE[:30]}",
        ]:
            html = client.get(address).text
            tags = Tags()
            tags.feed(html)
            assert tags.bad == [], address
            assert set(tags.scripts) <= {"/static/htmx.min.js", "/static/review.js"}, address
            assert "\x1b" not in html
            assert "\u202e" not in html


def test_a_picture_is_sent_so_that_nothing_in_it_can_run(pages: TestClient, book: Any) -> None:
    answer = pages.get(f"/a/{book.picture.removeprefix('sha256:')}.svg")
    assert answer.content.decode() == made["PICTURE"]
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert pages.get(f"/a/{book.picture.removeprefix('sha256:')}.json").status_code == 404  # it is no data


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_all_claims_can_be_taken_away(pages: TestClient, suffix: str) -> None:
    answer = pages.get(f"/export/claims.{suffix}")
    assert answer.status_code == 200
    assert f"claims.{suffix}" in answer.headers["content-disposition"]
    if suffix == "jsonl":
        assert {"fires on names ", "fires on verbs "} <= {
            json.loads(line)["claim"] for line in answer.text.splitlines()
        }


def test_pages_for_reading_offer_no_form_and_take_nothing(pages: TestClient, book: Any) -> None:
    with Notebook(book.path, read_only=True) as notebook:
        head = notebook.head()
    for address in every_page(book):
        assert 'method="post"' not in pages.get(address).text
    fields = {
        "target": book.claim,
        "verb": "agree",
        "author": "Ada",
        "reason": "seen it",
        "question": "q",
        "id": book.run,
    }
    for address, named in (
        ("/review", "--allow-review"),
        ("/ask", "--allow-run"),
        ("/rerun", "--allow-run"),
        ("/jobs/x/stop", "--allow-run"),
    ):
        answer = pages.post(address, data=fields | {"run": book.run}, follow_redirects=False)
        assert answer.status_code == 403
        assert named in answer.text
    with Notebook(book.path, read_only=True) as notebook:
        assert notebook.head() == head


def test_no_address_that_changes_something_answers_a_get(book: Any) -> None:
    with TestClient(create_app(File(book.path), allow_review=True, runner=Fake())) as client:
        for address in ("/review", "/ask", "/rerun", "/jobs/x/stop"):
            assert client.get(address).status_code in (404, 405)


def test_an_opinion_is_a_new_row_with_author_and_reason_and_the_notebook_stays_whole(
    place: Place, tmp_path: Path
) -> None:
    notebook = Notebook(place)
    book = made["Book"].__new__(made["Book"])
    book.path, book.notebook = place, notebook
    claim = book.claim(book.run(), "8.481", "fires on names")
    before = verify(notebook)  # its verdicts are written by hand
    notebook.close()
    with TestClient(create_app(place, allow_review=True)) as client:
        assert "Nothing waits" not in client.get("/queue").text
        fields = {
            "target": claim,
            "verb": "dispute",
            "author": "Ada Example",
            "reason": "line one\nline two",
            "back": "/u/m/8.481",
        }
        answer = client.post("/review", data=fields, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/u/m/8.481")
        html = client.get("/u/m/8.481").text
        assert "line one⏎line two" in html
        assert 'value="Ada Example"' in html  # asked once
        assert "Nothing waits" in client.get("/queue").text
    with Notebook(place, read_only=True) as opened:
        assert verify(opened) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reason": "  "}, "Give a reason"),
        ({"author": ""}, "Say who you are"),
        ({"verb": "delete"}, "Choose one of agree, dispute, invalidate, comment"),
        ({"target": "NOPE"}, "there is no record"),
        ({"author": "a" * 101}, "at most 100 characters"),
    ],
)
def test_an_opinion_without_what_it_needs_is_refused(book: Any, change: dict[str, str], said: str) -> None:
    fields = {"target": book.claim, "verb": "agree", "author": "Ada", "reason": "seen it"}
    with TestClient(create_app(File(book.path), allow_review=True)) as client:
        answer = client.post("/review", data=fields | change, follow_redirects=False)
        assert answer.status_code == 400
        assert said in text_of(answer.text)


@pytest.mark.parametrize("back", ["https://example.org/", "//example.org/", "/\\example.org", "javascript:alert(1)"])
def test_nobody_is_sent_to_another_site(tmp_path: Path, back: str) -> None:
    book = made["filled"](tmp_path / "n.db")
    fields = {"target": book.claim, "verb": "agree", "author": "Ada", "reason": "seen it", "back": back}
    with TestClient(create_app(File(book.path), allow_review=True)) as client:
        assert client.post("/review", data=fields, follow_redirects=False).headers["location"] == "/"


def test_experiments_are_started_from_pages_only_where_that_is_allowed(book: Any) -> None:
    runner = Fake()
    with TestClient(create_app(File(book.path), runner=runner)) as client:
        assert 'action="/ask"' in client.get("/u/m/8.481").text
        assert 'action="/rerun"' in client.get(f"/t/{book.run}").text
        first = client.post(
            "/ask", data={"question": "what does neuron 8.481 do", "run": book.run}, follow_redirects=False
        )
        assert (first.status_code, first.headers["location"]) == (303, "/jobs/J1")
        client.post("/rerun", data={"id": book.experiment})
        page = client.get("/jobs/J1").text
        assert "look  8.481 fires" in page
        assert 'hx-trigger="every 1s"' in page
        assert "<noscript><meta" in page
        client.post("/jobs/J1/stop")
        assert client.post("/rerun", data={"id": book.claim}).status_code == 400
        assert client.post("/ask", data={"question": "", "run": book.run}).status_code == 400
        assert client.post("/ask", data={"question": "q", "run": "NOPE"}).status_code == 400
        assert client.get("/jobs/J2").status_code == 404
    assert runner.asked == [("ask", "what does neuron 8.481 do", book.run), ("rerun", book.experiment), ("stop", "J1")]
    assert runner.closed


def test_the_pages_of_a_unit_and_a_trail_are_served_in_a_fifth_of_a_second(pages: TestClient, book: Any) -> None:
    """Processor time, best of three: the wall clock of a shared machine measures its other work."""
    for address in ("/u/m/8.481", f"/t/{book.run}", "/"):
        took = []
        for _ in range(3):
            before = time.process_time()
            pages.get(address)
            took.append(time.process_time() - before)
        assert min(took) < 0.2


@pytest.mark.parametrize(("value", "most", "expected"), [(0.0, 1.0, "z0"), (1.0, 1.0, "p4"), (-1.0, 1.0, "m4"), (0.5, 1.0, "p2"),
                                                        (0.1, 1.0, "z0"), (None, 1.0, "z0"), (-9.0, 1.0, "m4"), (0.3, 0.0, "z0")])  # fmt: skip
def test_a_shade_says_how_far_from_zero_an_activation_is(value: float | None, most: float, expected: str) -> None:
    assert shade(value, most) == expected


# Files


def test_the_exported_pages_lead_to_each_other_without_a_server(
    book: Any, tmp_path: Path, neuronaut: Neuronaut
) -> None:
    folder = tmp_path / "site"
    said = neuronaut("review", "--export", folder, "--notebook", book.path)
    assert said.code == 0, said.err
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.html"))
    assert {"index.html", f"t/{book.run}.html", f"b/{book.batch}.html", "u/m/8.481.html"} <= set(files)
    for file in folder.rglob("*.html"):
        html = file.read_text(encoding="utf-8")
        assert "<script" not in html
        assert "<form" not in html
        for link in map(unescape, re.findall(r'(?:href|src)="([^"]+)"', html)):
            if link == "data:,":
                continue
            name, _, anchor = link.partition("#")
            target = (file.parent / name).resolve() if name else file
            assert target.is_file(), (file.name, link)
            assert target.is_relative_to(folder.resolve())
            assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), (file.name, link)
    assert neuronaut("review", "--export", folder, "--notebook", book.path).code == 2  # nothing is overwritten


def test_a_trail_can_be_sent_as_one_file(book: Any, tmp_path: Path, neuronaut: Neuronaut) -> None:
    file = tmp_path / "trail.html"
    assert neuronaut("review", "--export", file, "--run", book.run, "--notebook", book.path).code == 0
    html = file.read_text(encoding="utf-8")
    assert "fires on names" in html
    assert 'src="data:image/svg+xml;base64,' in html
    ids = set(re.findall(r'\bid="([^"]+)"', html))
    for link in re.findall(r'(?:href|src)="([^"]+)"', html):
        assert link.startswith("data:") or link[1:] in ids, link
    assert neuronaut("review", "--export", tmp_path / "x.html", "--notebook", book.path).code == 2
    assert neuronaut("review", "--run", book.run, "--notebook", book.path).code == 2


def test_the_front_page_shows_what_was_measured_and_links_to_what_was_only_proposed(
    tmp_path: Path, neuronaut: Neuronaut
) -> None:
    book = made["Book"](tmp_path / "n.db")
    run = book.run()
    judged = [book.claim(run, f"1.{at}", f"fires on judged {at}") for at in range(60)]
    later = [
        book.claim(run, f"2.{at}", f"fires on proposed {at}", status=None, predicate=f"token(' {at}')")
        for at in range(70)
    ]
    with TestClient(create_app(File(book.path))) as client:
        first = client.get("/").text
        assert re.findall(r"#(\w{26})", first) == judged[:9:-1]
        (older,) = re.findall(r'rel="next" href="([^"]*)"', first)
        assert re.findall(r"#(\w{26})", client.get(unescape(older)).text) == judged[9::-1]
        assert "70 claims that were proposed and not tested" in text_of(first)
        (link,) = re.findall(r'Left out: <a href="([^"]*)"', first)
        assert re.findall(r"#(\w{26})", client.get(unescape(link)).text) == later[:19:-1]
        assert "Left out" not in client.get("/?q=fires").text
    assert neuronaut("review", "--export", tmp_path / "site", "--notebook", book.path).code == 0
    assert re.findall(r"#(\w{26})", (tmp_path / "site" / "index.html").read_text()) == judged[::-1] + later[::-1]


def test_a_notebook_of_proposals_alone_shows_them(tmp_path: Path) -> None:
    book = made["Book"](tmp_path / "n.db")
    book.claim(book.run(), "1.1", "fires on something", status=None)
    with TestClient(create_app(File(book.path))) as client:
        assert "fires on something" in client.get("/").text


def test_the_claim_that_holds_a_key_is_named(tmp_path: Path, neuronaut: Neuronaut) -> None:
    book = made["filled"](tmp_path / "n.db")
    with Notebook(File(book.path)) as notebook:
        row = {
            "side": "reads",
            "claim": "fires on sk-ant-api03-0123456789abcdef",
            "predicate": '{"kind":"any"}',
            "complexity": 1,
        }
        claim = notebook.add_hypothesis(book.run, Unit.parse("8.481"), {**row, "author": "a paper"})
    said = neuronaut("review", "--export", tmp_path / "site", "--notebook", book.path)
    assert said.code == 2
    assert f"index.html would hold an Anthropic key at {claim}, which `neuronaut show` shows" in said.err
    assert sorted(file.name for file in tmp_path.iterdir() if "n.db" not in file.name) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_no_part_of_the_pages(
    there: bool, book: Any, tmp_path: Path, neuronaut: Neuronaut, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = Path.write_bytes, [3]

    def full(file: Path, content: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content)

    if there:
        (tmp_path / "site").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        said = neuronaut("review", "--export", tmp_path / "site", "--notebook", book.path)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "No space left on device): nothing was kept there" in said.err
    assert [file.name for file in tmp_path.rglob("*")] == ["site"] * there
    assert neuronaut("review", "--export", tmp_path / "site", "--notebook", book.path).code == 0
    assert (tmp_path / "site" / "index.html").is_file()
    assert [file.name for file in tmp_path.iterdir()] == ["site"]


def test_a_batch_can_be_sent_as_one_file(book: Any, tmp_path: Path, neuronaut: Neuronaut) -> None:
    file = tmp_path / "batch.html"
    assert neuronaut("review", "--export", file, "--run", book.batch, "--notebook", book.path).code == 0
    html = file.read_text()
    for part in (
        "fires on 3.1",
        "the budget of the unit was spent",
        "0 of 1 planted null units",
        "This file holds one page",
    ):
        assert part in text_of(html), part
    assert "neuronaut rerun" not in html
    for link in re.findall(r'(?:href|src)="([^"]*)"', html):
        assert link.startswith(("#", "data:")), link
    assert all(f'id="{link[1:]}"' in html for link in re.findall(r'href="(#[^"]*)"', html))


def test_the_trail_of_a_batch_offers_no_repeat_that_cannot_be_made(pages: TestClient, book: Any) -> None:
    assert f"neuronaut rerun {book.batch}" not in pages.get(f"/t/{book.batch}").text
    assert f"neuronaut rerun {book.run}" in pages.get(f"/t/{book.run}").text


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-api03-0123456789abcdefghij",
        "hf_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh",
        "Bearer abcdef0123456789abcdef",
        "THE-VALUE-OF-A-KEY",
    ],
)
def test_nothing_is_exported_with_a_key_in_it(
    secret: str, tmp_path: Path, neuronaut: Neuronaut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "THE-VALUE-OF-A-KEY")
    book = made["filled"](tmp_path / "n.db", f"please use {secret} for it")
    for options in (("--export", tmp_path / "site"), ("--export", tmp_path / "one.html", "--run", book.run)):
        said = neuronaut("review", *options, "--notebook", book.path)
        assert said.code == 2
        assert secret not in said.err
        assert "would hold" in said.err
        assert ".html" in said.err
    assert not (tmp_path / "site").exists()
    assert not (tmp_path / "one.html").exists()


@pytest.mark.parametrize(
    "text", ["a risk-averse-and-long-hyphenated-word", "task-0123456789abcdef0", "the bearer of a very long message"]
)
def test_ordinary_text_is_no_key(text: str) -> None:
    assert leak(text) is None


def test_a_missing_notebook_is_refused_in_a_sentence(tmp_path: Path, neuronaut: Neuronaut) -> None:
    said = neuronaut("review", "--no-browser", "--notebook", tmp_path / "none.db")
    assert said.code == 2
    assert "Traceback" not in said.err
    assert not (tmp_path / "none.db").exists()

"""The server of the pages: which address shows what. Whom it answers is for the guard around it to say."""

import contextlib
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place
from neuronaut.memory.review.downloads import download
from neuronaut.memory.review.links import Served
from neuronaut.memory.review.near import near
from neuronaut.memory.review.opinions import REVIEWED, VERBS
from neuronaut.memory.review.rendering import PICTURE, SCRIPTS, STATIC, STYLE, TYPES
from neuronaut.memory.review.runner import Runner
from neuronaut.memory.review.site import Site
from neuronaut.tools.errors import Altered, UserError

ALONE = "sandbox; default-src 'none'; style-src 'unsafe-inline'"  # of a picture that is opened by itself
LONGEST_NAME, LONGEST_REASON, LONGEST_WORDS = 100, 4000, 2000
AUTHOR = "neuronaut-author"
BROKEN = (
    "This page cannot be made from what the notebook holds: it was altered, or neuronaut is at fault. `neuronaut verify` says which; "
    "what the server printed helps to mend it."
)
_TITLES = {404: "Nothing is here", 500: "This page cannot be made"}
YEAR = 365 * 24 * 3600


def create_app(place: Place, *, allow_review: bool = False, runner: Runner | None = None) -> Starlette:
    """The pages of a notebook, without whatever keeps other people out. allow_review: opinions may be added; runner: starts
    experiments. Refuses a notebook that cannot be read."""
    notebook = Notebook(place, read_only=True)
    pages = _Pages(Site(notebook, allow_review, runner is not None), place, runner)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if runner is not None:
                runner.close()
            notebook.close()

    routes = [
        Route("/", pages.index), Route("/queue", pages.queue),
        Route("/u/{model}/{address:path}", pages.unit), Route("/t/{run}", pages.trail), Route("/b/{run}", pages.batch),
        Route("/r/{identifier:path}", pages.record), Route("/a/{name}", pages.artifact), Route("/static/{name}", static),
        Route("/export/{name}", pages.export), Route("/review", pages.review, methods=["POST"]),
        Route("/jobs", pages.jobs), Route("/jobs/{job}", pages.job), Route("/jobs/{job}/stop", pages.stop, methods=["POST"]),
        Route("/ask", pages.ask, methods=["POST"]), Route("/rerun", pages.rerun, methods=["POST"]),
    ]  # fmt: skip
    refused = {HTTPException: pages.refuse, Altered: pages.altered, UserError: pages.refuse, Exception: pages.fail}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=refused)


def static(request: Request) -> Response:
    """A style sheet or a script; no other file."""
    name = request.path_params["name"]
    if name not in (*SCRIPTS, STYLE):
        raise HTTPException(404, f"there is no file {name!r} here")
    kind = "text/css" if name == STYLE else "text/javascript"
    return FileResponse(STATIC / name, media_type=kind)


class _Pages:
    """What answers each address."""

    def __init__(self, site: Site, place: Place, runner: Runner | None) -> None:
        self.site, self.place, self.runner, self.link = site, place, runner, Served()

    # Reading

    def index(self, request: Request) -> Response:
        query = request.query_params
        try:
            return HTMLResponse(self.site.index(self.link, query.get("q", "")[:LONGEST_WORDS], query.get("after")))
        except Altered:
            raise
        except UserError as error:
            return self._refusal(400, str(error), query.get("q", ""))

    def queue(self, request: Request) -> Response:
        return HTMLResponse(self.site.queue(self.link, request.query_params.get("after"), _author(request)))

    def unit(self, request: Request) -> Response:
        named, chosen = request.path_params, request.query_params.get("evidence", "")
        return HTMLResponse(self.site.unit(self.link, named["model"], named["address"], chosen, _author(request)))

    def trail(self, request: Request) -> Response:
        return HTMLResponse(self.site.trail(self.link, request.path_params["run"], _author(request)))

    def batch(self, request: Request) -> Response:
        return HTMLResponse(self.site.batch(self.link, request.path_params["run"]))

    def record(self, request: Request) -> Response:
        return HTMLResponse(self.site.record(self.link, request.path_params["identifier"]))

    def artifact(self, request: Request) -> Response:
        """The bytes of a picture or of data; of nothing else, whatever a notebook says that it is."""
        digest, _, suffix = request.path_params["name"].rpartition(".")
        table, row = queries.find(self.site.notebook, f"sha256:{digest}")
        if table != "artifact" or row["media_type"] not in TYPES.get(suffix, ()):
            raise HTTPException(404, f"there is no {suffix or 'such'} artifact {digest!r}")
        kind = PICTURE if suffix == "svg" else "application/json"
        headers = {"content-security-policy": ALONE, "x-content-type-options": "nosniff"}
        return Response(bytes(row["content"]), media_type=kind, headers=headers)

    def export(self, request: Request) -> Response:
        return download(self.place, request.path_params["name"])

    # Opinions

    async def review(self, request: Request) -> Response:
        """A new row with somebody's opinion."""
        if not self.site.may_review:
            raise HTTPException(
                403, "These pages are for reading only: start them with `neuronaut review --allow-review`."
            )
        form = await _form(request)
        author = await run_in_threadpool(self._opine, form)
        answer = RedirectResponse(_own(form.get("back", "")), status_code=303)
        answer.set_cookie(AUTHOR, quote(author), max_age=YEAR, httponly=True, samesite="strict", path="/")
        return answer

    def _opine(self, form: dict[str, str]) -> str:
        target, verb = form.get("target", ""), form.get("verb", "")
        author, reason = form.get("author", "").strip(), form.get("reason", "").strip()
        if verb not in VERBS:
            raise HTTPException(400, f"Choose one of {', '.join(VERBS)}.")
        if not 0 < len(author) <= LONGEST_NAME:
            raise HTTPException(
                400, f"Say who you are, in at most {LONGEST_NAME} characters: an opinion has an author."
            )
        if not 0 < len(reason) <= LONGEST_REASON:
            raise HTTPException(
                400, f"Give a reason, in at most {LONGEST_REASON} characters: an opinion without one helps nobody."
            )
        table, _ = queries.find(self.site.notebook, target)
        if table not in REVIEWED:
            raise HTTPException(400, f"{target} is a {table}: opinions are about {', '.join(REVIEWED)}.")
        with Notebook(self.place) as notebook:
            notebook.review(table, target, author, verb, reason)
        return author

    # Work

    async def ask(self, request: Request) -> Response:
        form = await _form(request)
        question, like = form.get("question", "").strip(), form.get("run", "")
        if not 0 < len(question) <= LONGEST_WORDS:
            raise HTTPException(400, f"Ask a question of at most {LONGEST_WORDS} characters.")
        queries.find_run(self.site.notebook, like)
        return await self._begin(lambda runner: runner.ask(question, like).id)

    async def rerun(self, request: Request) -> Response:
        identifier = (await _form(request)).get("id", "")
        table, _ = queries.find(self.site.notebook, identifier)
        if table not in ("run", "experiment"):
            raise HTTPException(400, f"{identifier} is a {table}: only runs and experiments can be measured again.")
        return await self._begin(lambda runner: runner.rerun(identifier).id)

    async def stop(self, request: Request) -> Response:
        job = request.path_params["job"]
        await run_in_threadpool(self._runner().stop, job)
        return RedirectResponse(f"/jobs/{quote(job, safe='')}", status_code=303)

    def jobs(self, request: Request) -> Response:
        return HTMLResponse(self.site.html("jobs.html", self.link, jobs=self._runner().jobs()))

    def job(self, request: Request) -> Response:
        job = self._runner().job(request.path_params["job"])
        if job is None:
            raise HTTPException(
                404, "There is no such piece of work: it was begun before these pages were started, or never."
            )
        return HTMLResponse(self.site.html("job.html", self.link, job=job))

    async def _begin(self, start: Callable[[Runner], str]) -> Response:
        return RedirectResponse(f"/jobs/{await run_in_threadpool(start, self._runner())}", status_code=303)

    def _runner(self) -> Runner:
        if self.runner is None:
            raise HTTPException(
                403, "These pages start no experiments: start them with `neuronaut review --allow-run`."
            )
        return self.runner

    # Refusals

    def refuse(self, request: Request, error: Exception) -> Response:
        """The page that says why not, and where to go on."""
        status = (
            error.status_code if isinstance(error, HTTPException) else 404 if request.method in ("GET", "HEAD") else 400
        )
        sentence = error.detail if isinstance(error, HTTPException) else str(error)
        return self._refusal(status, sentence, request.url.path)

    def altered(self, request: Request, error: Exception) -> Response:
        """The page that says which record is not as it was written."""
        return self._refusal(500, str(error), request.url.path)

    def fail(self, request: Request, error: Exception) -> Response:
        """The page in place of one that could not be made; what went wrong is raised on, for whoever watches the server."""
        return self._refusal(500, BROKEN, request.url.path)

    def _refusal(self, status: int, sentence: str, asked: str) -> Response:
        title = _TITLES.get(status) or HTTPStatus(status).phrase
        found = near(self.site.notebook, self.link, asked) if status == 404 else []
        html = self.site.html("refused.html", self.link, title=title, sentence=sentence, near=found)
        return HTMLResponse(html, status_code=status)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, the first of each name."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise HTTPException(400, "The form has too many fields.") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def _own(back: str) -> str:
    """An address of these pages to go back to; the index for any other."""
    mine = back.startswith("/") and not back.startswith("//") and "\\" not in back and back.isprintable()
    return back if mine else "/"


def _author(request: Request) -> str:
    return unquote(request.cookies.get(AUTHOR, ""))[:LONGEST_NAME]

"""The same pages as files of a folder, or the trail of one run as a single file: readable without this program."""

import base64
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa
from markupsafe import Markup

from neuronaut.memory import queries, schema
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place
from neuronaut.memory.review.leaks import leak
from neuronaut.memory.review.links import Files, file_name, unit_file
from neuronaut.memory.review.models import Models
from neuronaut.memory.review.rendering import STATIC, STYLE, TYPES
from neuronaut.memory.review.site import Site
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

ELSEWHERE = "#elsewhere"
Written = tuple[str, bytes]


def write_site(place: Place, folder: Path) -> int:
    """Writes the pages of a notebook into a new or empty folder; how many files. Refuses a text that holds a key."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{str(folder)!r} is there already, and nothing is overwritten: name a new folder")
    with Notebook(place, read_only=True) as notebook, notebook.snapshot():
        return _write(folder, _site(Site(notebook)))


def write_trail(place: Place, run: str, file: Path) -> None:
    """Writes the trail of one run, or the page of one batch, as a file that needs no other. Refuses a text that holds a key."""
    if file.exists():
        raise UserError(f"{str(file)!r} is there already, and nothing is overwritten: name another file")
    with Notebook(place, read_only=True) as notebook, notebook.snapshot():
        site, alone = Site(notebook), OneFile(notebook, run)
        html = site.batch(alone, run) if notebook.wanted(run) else site.trail(alone, run)
    _write(file.parent, [(file.name, html.encode("utf-8", "replace"))])


def _site(site: Site) -> Iterator[Written]:
    """Every file of the site: its path in the folder, and its bytes."""
    notebook = site.notebook
    yield "index.html", _bytes(site.index(Files(0)))
    yield f"static/{STYLE}", (STATIC / STYLE).read_bytes()
    for run in _ids(notebook, sa.select(schema.run.c.id)):
        yield f"t/{file_name(run)}.html", _bytes(site.trail(Files(1), run))
    for run in _ids(notebook, sa.select(schema.batch.c.run)):
        yield f"b/{file_name(run)}.html", _bytes(site.batch(Files(1), run))
    for model, address in _units(notebook):
        yield unit_file(model, address), _bytes(site.unit(Files(2), model, address))
    for identifier, suffix in _drawn(notebook):
        yield f"a/{file_name(identifier.removeprefix('sha256:'))}.{suffix}", queries.artifact(notebook, identifier)


def _bytes(html: str) -> bytes:
    return html.encode("utf-8", "replace")


def _ids(notebook: Notebook, statement: sa.Select[tuple[str]]) -> list[str]:
    return [str(next(iter(row.values()))) for row in notebook.rows(statement)]


def _units(notebook: Notebook) -> list[tuple[str, str]]:
    """The units that have a page: model and address, of each pair of signs one."""
    models, u = Models.read(notebook), schema.unit.c
    rows = notebook.rows(sa.select(u.target, u.address).order_by(u.id))
    return sorted({(models.slug(row["target"]), Unit.parse(row["address"]).with_sign(1).address) for row in rows})


def _drawn(notebook: Notebook) -> Iterator[tuple[str, str]]:
    """The artifacts that pages link to: pictures and their data."""
    a = schema.artifact.c
    for row in notebook.rows(
        sa.select(a.id, a.media_type).where(a.media_type.in_([TYPES["svg"][0], TYPES["json"][1]]))
    ):
        yield row["id"], "svg" if row["media_type"] in TYPES["svg"] else "json"


def _write(folder: Path, files: Iterable[Written]) -> int:
    """Writes files that hold no key; none where one of them does."""
    checked = []
    for name, content in files:
        if found := leak(content.decode("utf-8", "replace")):
            raise UserError(
                f"nothing was written: {name} would hold {found}; take it out of what leaves this machine "
                "(export another run, or ask again without it)"
            )
        checked.append((name, content))
    try:
        _put(folder, checked)
    except OSError as error:
        raise UserError(
            f"the pages cannot be written to {str(folder)!r} ({error.strerror}): nothing was kept there"
        ) from error
    return len(checked)


def _put(folder: Path, files: Sequence[Written]) -> None:
    """All the files, or none: they are written beside their place, and moved there at the end."""
    there = folder.is_dir()
    beside = folder if there else folder.parent
    beside.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=beside, prefix=f".{folder.name}.", suffix=".part"))
    try:
        for name, content in files:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        place.chmod(0o755)
        if not there:
            place.rename(folder)
            return
        for one in place.iterdir():
            one.rename(folder / one.name)
    finally:
        shutil.rmtree(place, ignore_errors=True)


class OneFile(Files):
    """A page that needs no other file: what is not on it has no address."""

    alone = True

    def __init__(self, notebook: Notebook, run: str) -> None:
        super().__init__(0)
        self._notebook, self._run = notebook, run

    @property
    def style(self) -> Markup:
        """The style sheet, as its own text."""
        return Markup((STATIC / STYLE).read_text(encoding="utf-8"))

    def home(self) -> str:
        """Not on this page."""
        return ELSEWHERE

    def unit(self, model: str, address: str, anchor: str = "") -> str:
        """Not on this page."""
        return ELSEWHERE

    def run(self, run: str, anchor: str = "") -> str:
        """A place on this page, where it is of its run."""
        return f"#{anchor or 'main'}" if run == self._run else ELSEWHERE

    def batch(self, run: str) -> str:
        """Not on this page."""
        return ELSEWHERE

    def artifact(self, identifier: str, suffix: str) -> str:
        """The picture itself."""
        content = queries.artifact(self._notebook, identifier)
        return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}" if suffix == "svg" else ELSEWHERE

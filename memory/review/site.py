"""One notebook as pages: the HTML of each, for the server and for files."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import neuronaut
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, default_place
from neuronaut.memory.review.batch import Known, batch_page
from neuronaut.memory.review.index import EXAMPLES, index, queue
from neuronaut.memory.review.links import Links
from neuronaut.memory.review.record import record
from neuronaut.memory.review.rendering import rendered
from neuronaut.memory.review.trail import trail
from neuronaut.memory.review.unit import unit_page


@dataclass(frozen=True)
class Site:
    """A notebook, and what its pages may do. may_review: forms for opinions; can_run: forms that start experiments."""

    notebook: Notebook
    may_review: bool = False
    can_run: bool = False
    known: dict[str, Known] = field(default_factory=dict)

    def index(self, link: Links, words: str = "", after: str | None = None) -> str:
        """The index."""
        with self.notebook.snapshot():
            page = index(self.notebook, words, after, whole=not link.live)
            return self.html("index.html", link, page=page, words=words, examples=EXAMPLES)

    def queue(self, link: Links, after: str | None, author: str) -> str:
        """The review queue."""
        with self.notebook.snapshot():
            return self.html("queue.html", link, page=queue(self.notebook, after), author=author)

    def unit(self, link: Links, model: str, address: str, chosen: str = "", author: str = "") -> str:
        """The page of a unit."""
        with self.notebook.snapshot():
            return self.html("unit.html", link, page=unit_page(self.notebook, model, address, chosen), author=author)

    def trail(self, link: Links, run: str, author: str = "") -> str:
        """The trail of a run."""
        with self.notebook.snapshot():
            return self.html("trail.html", link, page=trail(self.notebook, run), author=author)

    def batch(self, link: Links, run: str) -> str:
        """The page of a batch."""
        with self.notebook.snapshot():
            page = batch_page(self.notebook, run, self.known.setdefault(run, Known()))
            return self.html("batch.html", link, page=page)

    def record(self, link: Links, identifier: str) -> str:
        """The row of any id."""
        with self.notebook.snapshot():
            return self.html("record.html", link, page=record(self.notebook, identifier))

    def html(self, name: str, link: Links, **variables: Any) -> str:
        """A page with what all pages show."""
        common: dict[str, Any] = {
            "about": self._about(link),
            "may_review": self.may_review,
            "can_run": self.can_run,
            "author": "",
        }
        return rendered(name, link, **(common | variables))

    def _about(self, link: Links) -> Mapping[str, str]:
        place = self.notebook.place
        shown = str(place) if link.live or not isinstance(place, File) else place.path.name
        option = "" if place == default_place() else f" --notebook {shlex.quote(shown)}"
        mode = (
            "files that were written from it"
            if not link.live
            else "for reading" + (" and opinions" if self.may_review else " only")
        )
        return {
            "place": shown, "option": option, "head": self.notebook.head(), "version": neuronaut.__version__, "mode": mode
        }  # fmt: skip

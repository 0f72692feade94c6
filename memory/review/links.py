"""Where each thing has its page: as an address of the server, or as a file beside the others."""

import re
from typing import Protocol
from urllib.parse import quote

from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit


class Links(Protocol):
    """The addresses that a page links to. live: of a server, which also has search, raw rows and forms; alone: the page is
    the only file there is."""

    @property
    def live(self) -> bool: ...
    def home(self) -> str: ...
    def unit(self, model: str, address: str, anchor: str = "") -> str: ...
    def run(self, run: str, anchor: str = "") -> str: ...
    def batch(self, run: str) -> str: ...
    def record(self, identifier: str) -> str: ...
    def artifact(self, identifier: str, suffix: str) -> str: ...
    def static(self, name: str) -> str: ...


class Served:
    """Addresses of the server."""

    live, alone = True, False

    def home(self) -> str:
        """The index."""
        return "/"

    def unit(self, model: str, address: str, anchor: str = "") -> str:
        """The page of a unit."""
        return f"/u/{quote(model, safe='')}/{quote(both_signs(address), safe='')}{_at(anchor)}"

    def run(self, run: str, anchor: str = "") -> str:
        """The trail of a run."""
        return f"/t/{quote(run, safe='')}{_at(anchor)}"

    def batch(self, run: str) -> str:
        """The page of a batch."""
        return f"/b/{quote(run, safe='')}"

    def record(self, identifier: str) -> str:
        """The row of any id."""
        return f"/r/{quote(identifier, safe='')}"

    def artifact(self, identifier: str, suffix: str) -> str:
        """The bytes of an artifact."""
        return f"/a/{quote(identifier.removeprefix('sha256:'), safe='')}.{suffix}"

    def static(self, name: str) -> str:
        """A style sheet or a script."""
        return f"/static/{name}"


class Files:
    """Files of a folder, relative to one that lies `depth` folders deep in it."""

    live, alone = False, False

    def __init__(self, depth: int) -> None:
        self.up = "../" * depth

    def home(self) -> str:
        """The index."""
        return f"{self.up}index.html"

    def unit(self, model: str, address: str, anchor: str = "") -> str:
        """The page of a unit."""
        return f"{self.up}{unit_file(model, address)}{_at(anchor)}"

    def run(self, run: str, anchor: str = "") -> str:
        """The trail of a run."""
        return f"{self.up}t/{file_name(run)}.html{_at(anchor)}"

    def batch(self, run: str) -> str:
        """The page of a batch."""
        return f"{self.up}b/{file_name(run)}.html"

    def record(self, identifier: str) -> str:
        """Files hold no raw rows."""
        return f"#{quote(identifier, safe=':')}"

    def artifact(self, identifier: str, suffix: str) -> str:
        """The bytes of an artifact."""
        return f"{self.up}a/{file_name(identifier.removeprefix('sha256:'))}.{suffix}"

    def static(self, name: str) -> str:
        """A style sheet or a script."""
        return f"{self.up}static/{name}"


def _at(anchor: str) -> str:
    return f"#{quote(anchor, safe=':')}" if anchor else ""


def file_name(text: str) -> str:
    """The text with nothing in it that leads to another folder: a notebook may be anybody's."""
    return re.sub(r"[^\w.-]", "_", text, flags=re.ASCII).lstrip(".") or "_"


def unit_file(model: str, address: str) -> str:
    """The file of a unit's page."""
    return f"u/{file_name(model)}/{file_name(both_signs(address))}.html"


def both_signs(address: str) -> str:
    """The address under which a unit has its page, which is of both its signs."""
    try:
        return Unit.parse(address).with_sign(1).address
    except UserError:
        return address

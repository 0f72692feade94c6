"""What somebody may have meant who asked for an address that is not there."""

import re
from urllib.parse import unquote

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.review.links import Links
from neuronaut.memory.review.models import Models
from neuronaut.memory.store import Store
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

MOST = 6
LEAST = 6  # characters of an id that are enough to look for others like it
_ID = re.compile(r"[0-9A-Z]{6,26}")


def near(notebook: Store, link: Links, asked: str) -> list[tuple[str, str]]:
    """Addresses and names of runs whose ids begin alike, or of units of the same layer."""
    parts = [unquote(part) for part in asked.split("/") if part]
    if len(parts) < 2:
        return []
    if parts[0] == "u":
        return _units(notebook, link, "/".join(parts[2:]) or parts[1])
    return _runs(notebook, link, parts[1].upper())


def _runs(notebook: Store, link: Links, identifier: str) -> list[tuple[str, str]]:
    if not _ID.fullmatch(identifier):
        try:
            return _units(notebook, link, Unit.parse(identifier).address)
        except UserError:
            return []
    r = schema.run.c
    for length in (len(identifier), 10, 8, LEAST):
        head = identifier[:length]
        rows = notebook.rows(
            sa.select(r.id, r.question).where(r.id >= head, r.id < head + "~").order_by(r.id).limit(MOST)
        )
        if rows:
            return [(link.run(row["id"]), f"{row['id']} ({row['question'][:60]})") for row in rows]
    return []


def _units(notebook: Store, link: Links, address: str) -> list[tuple[str, str]]:
    try:
        unit = Unit.parse(address)
    except UserError:
        return []
    models, u = Models.read(notebook), schema.unit.c
    same = sa.select(u.target, u.address).where(u.kind == unit.kind, u.layer == unit.layer, u.sign == 1).limit(MOST)
    exact = sa.select(u.target, u.address).where(u.address == unit.with_sign(1).address).limit(MOST)
    rows = notebook.rows(exact) or notebook.rows(same)
    return [
        (link.unit(models.slug(row["target"]), row["address"]), f"{row['address']} of {models.slug(row['target'])}")
        for row in rows
    ]

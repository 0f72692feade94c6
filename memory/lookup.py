"""Any id, the beginning of one, or a unit's address, as the record that is meant; and what is near an id that is none."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.store import Store
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

Row = dict[str, Any]
SHORTEST = 4  # characters of the beginning of an id
_NAMED = tuple(table for table in (*schema.RECORDS, schema.item) if "id" in table.c)


@dataclass(frozen=True)
class Found:
    """A record. more: the other rows of a unit that several targets have under one address."""

    table: str
    row: Row
    more: tuple[Row, ...] = ()


def look_up(notebook: Store, text: str) -> Found:
    """The record that an id names, or the beginning of one id alone, or the address of a unit: `8.481`, `pocket/8.481`.

    Refuses: an id that is not there, with those nearest to it; a beginning that several ids have; a unit without a record.
    """
    name = text.strip()
    with notebook.snapshot():
        if found := _exact(notebook, name) or _exact(notebook, name.upper()):
            return found
        if units := _units(notebook, name):
            return Found("unit", units[-1], tuple(units[:-1]))
        begun = _begun(notebook, name) or _begun(notebook, name.upper())
        if len(begun) == 1:
            return begun[0]
        if begun:
            raise UserError(f"{name!r} begins {_several(begun)}: write more of it")
        raise UserError(_unknown(notebook, name))


def _exact(notebook: Store, name: str) -> Found | None:
    for table in _NAMED:
        if rows := notebook.rows(sa.select(table).where(table.c.id == name)):
            return Found(table.name, rows[0])
    return None


def _begun(notebook: Store, name: str) -> list[Found]:
    """The records whose id begins so, at most two of each table; none for a very short beginning."""
    if len(name) < SHORTEST or not name.isascii():
        return []
    found: list[Found] = []
    for table in _NAMED:
        after = table.c.id.between(name, name + "\x7f")
        found += [
            Found(table.name, row) for row in notebook.rows(sa.select(table).where(after).order_by(table.c.id).limit(2))
        ]
    return found


def _several(begun: list[Found]) -> str:
    listed = [f"{one.row['id']} ({one.table})" for one in begun[:3]]
    return ", ".join(listed) + (" and others" if len(begun) > len(listed) else "")


def _units(notebook: Store, name: str) -> list[Row]:
    """The rows of a unit in all targets, or in those of the name before the last slash; each with `target_name`."""
    u, t = schema.unit, schema.target_model
    joined = sa.select(u, t.c.name.label("target_name")).join(t, t.c.id == u.c.target).order_by(u.c.id)
    for model, address in _readings(name):
        where = u.c.address == address if model is None else sa.and_(u.c.address == address, t.c.name == model)
        if rows := notebook.rows(joined.where(where)):
            return rows
    return []


def _readings(name: str) -> list[tuple[str | None, str]]:
    """What a text can mean: an address, or a model and an address, of which both can hold slashes."""
    parts = name.split("/")
    splits = [("/".join(parts[:at]) or None, "/".join(parts[at:])) for at in range(len(parts))]
    return [(model, _address(rest)) for model, rest in splits]


def _address(text: str) -> str:
    try:
        return Unit.parse(text).address
    except UserError:
        return text


def _unknown(notebook: Store, name: str) -> str:
    place = f"in {str(notebook.place)!r}"
    listed = "`neuronaut search` lists what there is"
    for model, address in reversed(_readings(name)):
        try:
            unit = Unit.parse(address)
        except UserError:
            continue
        if near := _near_units(notebook, unit):
            return f"there is no claim about {name} {place}; beside it: {', '.join(near)}; {listed}"
        asked = f'`neuronaut ask "what does {unit.kind} {unit.address} do"` asks about it' if model is None else listed
        return f"there is no claim about {name} {place}: {asked}"
    near = _near_ids(notebook, name)
    nearest = f" (nearest: {', '.join(near)})" if near else ""
    return f"there is no record {name!r} {place}{nearest}: {listed}"


def _near_units(notebook: Store, unit: Unit) -> list[str]:
    """Up to three units of the same kind and layer with the nearest numbers."""
    u = schema.unit
    same = sa.select(u.c.address).where(u.c.kind == unit.kind, u.c.layer == unit.layer)
    same = same.where(u.c.address.like(f"%{unit.name}%")) if unit.name else same
    rows = notebook.rows(same.order_by(sa.func.abs(u.c.index - unit.index)).limit(3))
    return list(dict.fromkeys(row["address"] for row in rows))


def _near_ids(notebook: Store, name: str) -> list[str]:
    """Ids that share the longest beginning with what was written, which is likely cut or mistyped; None share less than half."""
    wanted, found = name.upper(), set[tuple[int, str]]()
    for table in (schema.run, schema.hypothesis, schema.experiment, schema.evidence, schema.verdict, schema.llm_call):
        before = sa.select(table.c.id).where(table.c.id <= wanted).order_by(table.c.id.desc()).limit(1)
        after = sa.select(table.c.id).where(table.c.id > wanted).order_by(table.c.id).limit(1)
        for row in (*notebook.rows(before), *notebook.rows(after)):
            found.add((_common(row["id"], wanted), f"{table.name} {row['id']}"))
    best = max((shared for shared, _ in found), default=0)
    return [named for shared, named in sorted(found) if shared == best][:2] if 2 * best >= max(len(name), 8) else []


def _common(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

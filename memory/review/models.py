"""The models of a notebook, each by a short name that an address can hold."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from neuronaut.memory import schema
from neuronaut.memory.store import Store

DIGITS = 8  # of the hash of the weights, where two models bear one name


@dataclass(frozen=True)
class Models:
    """The short name of each target, by its id: the name of its folder, with a part of the hash where several share it."""

    of: Mapping[str, str]
    names: Mapping[str, str]

    @classmethod
    def read(cls, notebook: Store) -> "Models":
        """Those of a notebook."""
        t = schema.target_model.c
        rows = notebook.rows(sa.select(t.id, t.name, t.weights_sha256).order_by(t.id))
        weights: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            weights[_short(row["name"])].add(row["weights_sha256"])
        slugs = {}
        for row in rows:
            short = _short(row["name"])
            slugs[row["id"]] = f"{short}@{row['weights_sha256'][:DIGITS]}" if len(weights[short]) > 1 else short
        return cls(slugs, {row["id"]: row["name"] for row in rows})

    def slug(self, target: str) -> str:
        """The short name of a target."""
        return self.of.get(target, "model")

    def targets(self, slug: str) -> list[str]:
        """The targets of a short name; also of one to which another model of its name came later."""
        exact = [target for target, one in self.of.items() if one == slug]
        return exact or [target for target, one in self.of.items() if one.partition("@")[0] == slug]


def _short(name: str) -> str:
    last = name.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", last).strip(".") or "model"

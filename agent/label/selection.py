"""Which units a batch labels, in which order, with planted null units among them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from neuronaut.agent.config import Budget, RunConfig
from neuronaut.agent.label.where import Columns, holds_where
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import check_unit, dictionary_named
from neuronaut.tools.targets.sites import neuron_sites, unit_at, width_of
from neuronaut.tools.trials.null_units import NULL_KINDS, NullKind
from neuronaut.tools.units import Unit

LabelKind = Literal["neuron", "head", "feature"]
Signs = Literal["+", "-", "both"]
NULL_BLOCK = 32  # null units that are planted in one model together
MOST_UNITS = 10_000_000
_ADDRESSES = re.compile(r"(.*\d)\s*(?:-|\.\.)\s*(\S*\d)")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


class Labelling(BaseModel):
    """What a batch labels, as data.

    units: addresses and ranges, none for whole sites. layers: `0-3,7` or `all`. limit: so many, equally many of each layer.
    nulls: planted null units as a share of the real ones. unit_budget: of each unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: LabelKind = "neuron"
    layers: str = "all"
    units: tuple[str, ...] = ()
    signs: Signs = "+"
    where: str | None = None
    limit: int | None = Field(default=None, ge=1, le=MOST_UNITS)
    nulls: float = Field(default=0.05, ge=0, le=1)
    dictionary: str | None = None
    unit_budget: Budget = Budget()
    eligible: int = 0

    def configured(self, config: RunConfig, *, fast: bool) -> RunConfig:
        """The configuration of a batch that labels this; its question is the command that would begin it."""
        more = {"fast": fast, "loop": "fast" if fast else "full", "labelling": self.model_dump(mode="json")}
        return config.model_copy(
            update={"question": " ".join(("neuronaut label", *self._words, *["--fast"] * fast)), **more}
        )

    @property
    def _words(self) -> list[str]:
        words = [*self.units[:5], *(["…"] if len(self.units) > 5 else [])]
        words += [f"--kind {self.kind}"] if self.kind != "neuron" else []
        words += [] if self.units else [f"--layers {self.layers}"]
        words += [f'--where "{self.where}"'] if self.where else []
        return [*words, f"--limit {self.limit}"] if self.limit else words


@dataclass(frozen=True)
class Chosen:
    """One item to be: null_kind of a planted null unit; items of one `beside` are read in one pass."""

    unit: Unit
    null_kind: NullKind | None
    beside: str


def layers_named(text: str, n_layers: int) -> list[int]:
    """The layers that `0-3,7` or `all` names, in rising order. Refuses what names none, or one that is not there."""
    if text.strip() == "all":
        return list(range(n_layers))
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise UserError(f"--layers {text!r} names no layers: write them as 0-3,7 or all")
        first = int(match[1])
        found.update(range(first, int(match[2] or first) + 1) if int(match[2] or first) < n_layers else [n_layers])
    if max(found, default=n_layers) >= n_layers:
        raise UserError(f"--layers {text!r} names layers that are not there: the model has layers 0 to {n_layers - 1}")
    return sorted(found)


def all_units(target: TargetModel, kind: LabelKind, layers: Sequence[int], dictionary: str | None) -> list[Unit]:
    """The units of a kind in some layers; of features those of one dictionary, or of all that are registered."""
    sites = [Site("heads", layer) for layer in layers]
    if kind == "neuron":
        sites = [site for layer in layers for site in neuron_sites(target.spec, layer)]
    if kind == "feature":
        known = target.dictionaries
        named = [dictionary_named(known, dictionary)] if dictionary else list(known.values())
        sites = [Site("features", one.layer, one.name) for one in named if one.layer in layers]
    return [unit_at(site, index) for site in sites for index in range(width_of(target, site))]


def units_named(texts: Sequence[str], target: TargetModel, kind: LabelKind) -> list[Unit]:
    """The units that addresses and ranges (`8.0-8.99`) name, each once. Refuses what names none, and one that is not there."""
    found: dict[Unit, None] = {}
    for text in texts:
        if match := _ADDRESSES.fullmatch(text.strip()):
            a, b = Unit.parse(match[1]), Unit.parse(match[2])
            if replace(a, index=b.index) != b or b.index < a.index:
                raise UserError(f"{text!r} is no range: write one of a layer in rising order, such as 8.0-8.99")
            check_unit(target.spec, b, target.dictionaries)
            named = [replace(a, index=index) for index in range(a.index, b.index + 1)]
        else:
            named = [Unit.parse(text)]
        for unit in named:
            check_unit(target.spec, unit, target.dictionaries)
            if unit.kind != kind:
                raise UserError(f"{unit.address} is a {unit.kind}: a batch labels one kind; give --kind {unit.kind}")
            found[unit] = None
    return list(found)


def in_order(units: Sequence[Unit], limit: int | None, seed: int) -> list[Unit]:
    """The units drawn layer by layer in turn, at random within a layer: a smaller limit of a seed is the beginning of a
    larger one, and any beginning is a fair sample."""
    by_layer: dict[tuple[int, str], list[Unit]] = {}
    for unit in units:
        by_layer.setdefault((unit.layer, unit.name), []).append(unit)
    turns = []
    for (layer, _), some in sorted(by_layer.items()):
        for turn, at in enumerate(np.random.default_rng([seed, layer]).permutation(len(some)).tolist()):
            turns.append((turn, layer, some[at]))
    turns.sort(key=lambda one: one[:2])
    return [unit for _, _, unit in turns[:limit]]


def with_nulls(units: Sequence[Unit], share: float, seed: int) -> list[Chosen]:
    """The units with null units among them, at random: each has the values of a unit of the batch. Heads have no such nulls."""
    real = [Chosen(unit, None, f"{unit.kind} {unit.name or unit.layer}") for unit in units]
    values = list(dict.fromkeys(unit.with_sign(1) for unit in units if unit.kind != "head"))
    n = min(math.ceil(share * len(units)), len(values))
    if n == 0:
        return real
    rng = np.random.default_rng([seed, 1])
    drawn = [values[i] for i in rng.permutation(len(values))[:n].tolist()]
    nulls = [
        Chosen(unit, NULL_KINDS[number % len(NULL_KINDS)], f"null {number // NULL_BLOCK}")
        for number, unit in enumerate(drawn)
    ]
    at = np.sort(rng.integers(0, len(real) + 1, n))
    mixed: list[Chosen] = []
    for number, one in enumerate(real):
        mixed += [nulls[i] for i in np.flatnonzero(at == number).tolist()]
        mixed.append(one)
    return [*mixed, *(nulls[i] for i in np.flatnonzero(at == len(real)).tolist())]


def meeting(units: Sequence[Unit], where: str, columns: Columns, addresses: Sequence[str]) -> list[Unit]:
    """The units at which the condition holds. addresses: (n,) of the rows of the columns."""
    kept = {address for address, holds in zip(addresses, holds_where(where, columns), strict=True) if holds}
    return [unit for unit in units if unit.with_sign(1).address in kept]

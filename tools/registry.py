"""The closed list of tools: the command line, the loop and the Python API all call them here, by name."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from neuronaut.tools.corpus import MOST_TOKENS, Corpus, Split
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Figure
from neuronaut.tools.look.activations import activations_of, site_activations
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.opened import OpenedText
from neuronaut.tools.registered import Registered
from neuronaut.tools.stored import StoredActivations
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.targets.sites import site_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

Array = np.ndarray[Any, np.dtype[Any]]
P = ParamSpec("P")
T = TypeVar("T")


class ToolArgs(BaseModel):
    """Arguments of a tool: typed, bounded, without extras. example: a call on the embedded model that works."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    example: ClassVar[dict[str, Any]] = {}


@dataclass(frozen=True)
class ToolResult:
    """What a tool found: measurements with their n and null, a JSON payload, arrays to keep as artifacts, figures."""

    measurements: tuple[Measurement, ...] = ()
    payload: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()


def continued(first: Array, rest: Array, tokens: Tokens) -> Array:
    """(…, n_windows, n_pos) activations on `tokens`, from those on its first windows and on all others."""
    width = tokens.ids.shape[1]
    parts = [np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])]) for part in (first, rest)]
    return np.concatenate(parts, axis=-2)


@dataclass
class ToolContext:
    """What tools work on. Text and activations are read once and kept for the tools that follow.

    stored: activations on explore text that need not be read from the model. registered: what else has a name.
    """

    target: TargetModel
    corpus: Corpus
    stored: StoredActivations | None = None
    registered: Registered = field(default_factory=Registered, repr=False)
    _opened: dict[tuple[Split, int | None], OpenedText] = field(default_factory=dict, repr=False)
    _tokens: dict[tuple[Split, int | None, int], Tokens] = field(default_factory=dict, repr=False)
    _activations: dict[tuple[Unit, Split, int | None, int | None], Array] = field(default_factory=dict, repr=False)
    _others: dict[str, "ToolContext"] = field(default_factory=dict, repr=False)

    @property
    def forwards(self) -> float:
        """Sequences sent through all layers so far, those of `of_other` included."""
        return self.target.forwards + sum(other.target.forwards for other in self._others.values())

    def of_other(self, name: str) -> "ToolContext":
        """The same text, opened once, for a registered model with the same tokens; kept for the tools that follow."""
        if name not in self._others:
            self._others[name] = self.under(self.registered.other(name).target)
        return self._others[name]

    def under(self, target: TargetModel) -> "ToolContext":
        """The same text, opened once, for another target with the same tokens."""
        return ToolContext(target, self.corpus, _opened=self._opened, _tokens=self._tokens)

    def compute(self, work: Callable[Concatenate["ToolContext", P], T], /, *args: P.args, **options: P.kwargs) -> T:
        """What `work(context, …)` gives, done where the model is. work: a function of a module, which has a name elsewhere too."""
        return work(self, *args, **options)

    def tokens(self, split: Split, block: int | None = None) -> Tokens:
        """The windows of a split (confirm: of one block); of a long text the first, up to MOST_TOKENS[split] tokens."""
        return self._first(split, block, MOST_TOKENS[split])

    def sample(self, split: Split, n_tokens: int) -> Tokens:
        """The first windows of a split, in its own order, that hold at least `n_tokens` tokens together."""
        return self._first(split, None, min(n_tokens, MOST_TOKENS[split]))

    def _first(self, split: Split, block: int | None, n_tokens: int) -> Tokens:
        if (split, block, n_tokens) not in self._tokens:
            opened = self._opened.setdefault((split, block), OpenedText(self.target, self.corpus.of(split, block)))
            self._tokens[split, block, n_tokens] = opened.first(n_tokens)
        return self._tokens[split, block, n_tokens]

    def activations(self, unit: Unit, split: Split, *, block: int | None = None, n_tokens: int | None = None) -> Array:
        """(n_windows, n_pos) of `tokens(split, block)`, or of `sample(split, n_tokens)`; the sign is applied."""
        key = (unit, split, block, n_tokens)
        if key not in self._activations:
            tokens = self.tokens(split, block) if n_tokens is None else self.sample(split, n_tokens)
            other = self._activations.get((unit.with_sign(-1 if unit.sign > 0 else 1), split, block, n_tokens))
            if other is None and unit.kind == "neuron":
                check_unit(self.target.spec, unit)
                kept = self._kept(site_of(self.target, unit), np.array([unit.index]), split, n_tokens)
                other = None if kept is None else -unit.sign * kept[0]
            self._activations[key] = -other if other is not None else self._read(unit, split, block, tokens)
        return self._activations[key]

    def _read(self, unit: Unit, split: Split, block: int | None, tokens: Tokens) -> Array:
        """The activations on `tokens`; what a smaller sample of the same text has told is not read again."""
        smaller = [
            values
            for (one, *text, _), values in self._activations.items()
            if one == unit and text == [split, block] and len(values) < len(tokens)
        ]
        known = max(smaller, key=len, default=None)
        if known is None:
            return activations_of(self.target, unit, tokens)
        return continued(
            known, activations_of(self.target, unit, tokens.select(range(len(known), len(tokens)))), tokens
        )

    def _kept(self, site: Site, indices: Array, split: Split, n_tokens: int | None) -> Array | None:
        if self.stored is None or split != "explore" or n_tokens != self.stored.n_tokens or site.name != "neurons":
            return None
        if site.expert is not None:  # the layers that are kept are those of models without experts
            return None
        return self.stored.layer(site.layer, indices)

    def activations_beside(
        self, unit: Unit, indices: Array, split: Split, *, block: int | None = None, n_tokens: int | None = None
    ) -> Array:
        """(n_indices, n_windows, n_pos) of other neurons of the unit's layer, or features of its dictionary, its sign applied,
        read in one pass with the unit, whose own are kept for `activations`."""
        tokens = self.tokens(split, block) if n_tokens is None else self.sample(split, n_tokens)
        together, site = np.append(indices, unit.index), site_of(self.target, unit)
        kept = self._kept(site, together, split, n_tokens)
        values = unit.sign * (site_activations(self.target, site, together, tokens) if kept is None else kept)
        self._activations.setdefault((unit, split, block, n_tokens), values[-1].copy())
        return values[:-1]

    def forget_above(self, n_bytes: int) -> None:
        """Forget the activations that were read first, until the others take at most so many bytes."""
        kept = sum(values.nbytes for values in self._activations.values())
        while kept > n_bytes:
            kept -= self._activations.pop(next(iter(self._activations))).nbytes


A = TypeVar("A", bound=ToolArgs)


@dataclass(frozen=True)
class Tool:
    """One registered tool. `opens_test_text`: it reads design or confirm text, so that no proposer may call it."""

    name: str
    args: type[ToolArgs]
    run: Callable[[ToolContext, Any], ToolResult]
    opens_test_text: bool

    @property
    def doc(self) -> str:
        """The docstring of the tool: what it answers, in which unit, against which null."""
        return (self.run.__doc__ or "").strip()

    @property
    def summary(self) -> str:
        """The first sentence of the docstring, on one line."""
        return " ".join(self.doc.partition("\n\n")[0].split()).partition(". ")[0].removesuffix(".") + "."

    def schema(self) -> dict[str, Any]:
        """Name, description and JSON schema of the arguments, as language models and the tool server want them."""
        return {"name": self.name, "description": self.doc, "parameters": self.args.model_json_schema()}

    def parse(self, args: str | dict[str, Any]) -> ToolArgs:
        """The arguments, checked. Refuses in one sentence what does not fit."""
        try:
            return self.args.model_validate(json.loads(args) if isinstance(args, str) else args)
        except (ValidationError, json.JSONDecodeError) as error:
            raise ToolRefused(
                f"{self.name}: {_first_reason(error)}; see `neuronaut tool {self.name} --help`"
            ) from error


def _first_reason(error: ValidationError | json.JSONDecodeError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"the arguments are not JSON ({error.msg} at character {error.pos})"
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"argument {where}: {first['msg']}" if where else str(first["msg"])


_TOOLS: dict[str, Tool] = {}


def tool(
    name: str, *, opens_test_text: bool = False
) -> Callable[[Callable[[ToolContext, A], ToolResult]], Callable[[ToolContext, A], ToolResult]]:
    """Registers a function (context, args) -> ToolResult under `name`; a second one of that name is a bug."""

    def register(run: Callable[[ToolContext, A], ToolResult]) -> Callable[[ToolContext, A], ToolResult]:
        if name in _TOOLS:
            raise ValueError(f"two tools are called {name!r}")
        args = run.__annotations__["args"]
        if not run.__doc__:
            raise ValueError(f"tool {name!r} has no docstring")
        _TOOLS[name] = Tool(name, args, run, opens_test_text)
        return run

    return register


@cache
def registry() -> dict[str, Tool]:
    """All tools by name."""
    from neuronaut.tools.changes import diff  # noqa: F401
    from neuronaut.tools.changes import held as held_change  # noqa: F401
    from neuronaut.tools.circuits import backups, compare, find, shared, trial  # noqa: F401
    from neuronaut.tools.concepts import find as find_concepts  # noqa: F401
    from neuronaut.tools.concepts import held  # noqa: F401
    from neuronaut.tools.concepts import steer as steer_concepts  # noqa: F401
    from neuronaut.tools.dreams import dream  # noqa: F401
    from neuronaut.tools.intervene import ablate, attribution, effects, importance, patch, path, steer, swap  # noqa: F401  the tools register themselves
    from neuronaut.tools.look import (  # noqa: F401
        beside,
        capture,
        card,
        chat_tokens,
        decompose,
        examples,
        head_dictionary,
        head_tokens,
        heads,
        in_generation,
        lens,
        mistakes,
        story,
        successors,
        tuned_lens,
        weights,
    )
    from neuronaut.tools.matching import held as held_matches  # noqa: F401
    from neuronaut.tools.matching import match  # noqa: F401
    from neuronaut.tools.programs import tools as programs  # noqa: F401
    from neuronaut.tools.readouts import read_out, shift  # noqa: F401
    from neuronaut.tools.tasks import listed  # noqa: F401
    from neuronaut.tools.trials import attends, design, other, reads, role, writes  # noqa: F401

    return dict(sorted(_TOOLS.items()))


def find_tool(name: str) -> Tool:
    """The tool of that name. Refuses an unknown name, and says which there are."""
    tools = registry()
    if name not in tools:
        raise ToolRefused(f"there is no tool {name!r}: choose from {', '.join(tools)}")
    return tools[name]


def run_tool(context: ToolContext, name: str, args: ToolArgs) -> ToolResult:
    """What a tool finds in a context."""
    return find_tool(name).run(context, args)

"""What the assistant's claims about a unit stand beside: lookup tables, a trie, the search's first hypothesis; all on
unseen text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np

from neuronaut.agent.proposers.base import Explored, Proposal, Proposer
from neuronaut.evals.heldout import Bools, Places, qualities
from neuronaut.evals.lookup import WIDTHS, Keys, fit_tables
from neuronaut.evals.trie import Probe, Windows, cut, find_patterns, trie_items
from neuronaut.tools.corpus import CONFIRM_BLOCKS
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import complexity
from neuronaut.tools.registry import Array, ToolContext
from neuronaut.tools.trials.reads import needed_rule
from neuronaut.tools.units import Unit

GRID = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)  # budgets of items


@dataclass
class First:
    """A proposer that keeps the first hypothesis it hands out: what the search would say if nothing were tested."""

    inner: Proposer
    first: Proposal | None = None

    @property
    def name(self) -> str:
        """The inner one's."""
        return self.inner.name

    def propose(self, explored: Explored) -> list[Proposal]:
        """The inner one's hypotheses."""
        found = self.inner.propose(explored)
        self.first = found[0] if found else None
        return found


@dataclass
class Bench:
    """A batch's context with what the baselines share: places and keys of the fitting text and of the unseen text."""

    context: ToolContext
    fit: Places = field(init=False)
    unseen: Places = field(init=False)
    keys: dict[str, Keys] = field(init=False)

    def __post_init__(self) -> None:
        tokens = self.context.tokens
        self.fit = Places((tokens("explore"), tokens("design")))
        self.unseen = Places(tuple(tokens("confirm", block) for block in range(CONFIRM_BLOCKS)))
        self.keys = {kind: Keys.of(width, self.fit, self.unseen) for kind, width in WIDTHS.items()}
        d_vocab = self.context.target.spec.d_vocab
        self._windows = [Windows.of(places, d_vocab) for places in (self.fit, self.unseen)]

    def read(self, unit: Unit) -> None:
        """Read the activations of the unit, and of those that share its passes, on all text that is used."""
        self.context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
        self._activations(unit)

    def _activations(self, unit: Unit) -> tuple[list[Array], list[Array]]:
        read = self.context.activations
        fitted = [read(unit, "explore"), read(unit, "design")]
        return fitted, [read(unit, "confirm", block=block) for block in range(CONFIRM_BLOCKS)]

    def held(self, predicate: Predicate) -> Bools:
        """(n_places,) of the unseen text where a predicate holds."""
        return np.concatenate([holds(predicate, text)[text.scored] for text in self.unseen.texts])

    def measured(self, unit: Unit, claims: Sequence[Predicate], *, seed: int) -> dict[str, Any]:
        """Tables and trie of the unit at each size of GRID, and the qualities of some claims; all on the unseen text."""
        target, rule = self.context.target, needed_rule(self.context, unit)
        explore = self.context.sample("explore", EXPLORE_TOKENS)
        seen, other = self._activations(unit)
        fit, unseen = self.fit.firing(seen, rule), self.unseen.firing(other, rule)
        began, before = monotonic(), target.forwards
        chosen = {kind: fit_tables(keys, fit, self.fit, GRID) for kind, keys in self.keys.items()}
        tables_done = monotonic()
        activations = self.context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
        patterns = find_patterns(Probe(target, unit, rule.median), explore, activations, rule)
        tries = [*cut(patterns, self._windows[0], fit, GRID), patterns]
        trie_done = monotonic()
        held = [self.keys[kind].held(table) for kind, tables in chosen.items() for table in tables]
        held += [self._windows[1].held(trie) for trie in tries]
        held += [self.held(claim) for claim in claims]
        scored = iter(qualities(held, unseen, self.unseen, seed=seed))
        tables = {
            kind: [next(scored).as_json(items=len(table) * WIDTHS[kind]) for table in found]
            for kind, found in chosen.items()
        }
        *cuts, whole = [next(scored).as_json(items=trie_items(trie)) for trie in tries]
        return {
            "tables": tables,
            "trie": {"cuts": cuts, "whole": whole, "forwards": target.forwards - before},
            "claims": [quality.as_json(items=complexity(claim)) for claim, quality in zip(claims, scored, strict=True)],
            "baseline_seconds": {
                "tables": tables_done - began, "trie": trie_done - tables_done, "scores": monotonic() - trie_done,
            },
        }  # fmt: skip

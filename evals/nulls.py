"""How often is something claimed where there is nothing? Null units that answer edits, through the real loop."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

import numpy as np

from neuronaut.agent.proposers.base import Explored, Proposal
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.evals.batch import cached_corpus, cached_target
from neuronaut.evals.draws import draw_truths
from neuronaut.evals.loop import Proposers, ask_batch, supported
from neuronaut.evals.planted import planted
from neuronaut.evals.sample import live_sample
from neuronaut.evals.shifted import by_metrics
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size, share
from neuronaut.evals.truths import SIMPLE, Truth, truth_f1
from neuronaut.tools.look.examples import EXPLORE_TOKENS, LIST_TOKENS
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.together import BatchContext
from neuronaut.tools.trials.null_units import NULL_KINDS, NullKind, null_of
from neuronaut.tools.trials.reads import needed_rule
from neuronaut.tools.units import Unit

Kind = NullKind | Literal["swapped"]
KINDS: tuple[Kind, ...] = (*NULL_KINDS, "swapped")

METRICS = "metrics only"
BATCH = 40  # units that share the passes over natural text
UNLIKE = 0.2  # largest F1 of two planted rules whose claims are swapped


@dataclass(frozen=True)
class SwappedLabels:
    """Proposes for every unit what the search finds for another one."""

    context: ToolContext
    other: Unit
    seed: int
    name: str = "swapped labels"

    def propose(self, explored: Explored) -> list[Proposal]:
        """The other unit's hypotheses."""
        read, rule = self.context.activations, needed_rule(self.context, self.other)
        activations = read(self.other, "explore", n_tokens=EXPLORE_TOKENS)
        wide = (self.context.sample("explore", LIST_TOKENS), read(self.other, "explore", n_tokens=LIST_TOKENS))
        shown = Explored(self.other, explored.tokens, activations, rule, wide=wide)
        return GrammarProposer(seed=self.seed).propose(shown)


def swapped_with(truths: Sequence[Truth], context: ToolContext) -> list[int]:
    """For each rule the next one that holds at other places."""
    return [_unlike(truths, number, context) for number in range(len(truths))]


def _unlike(truths: Sequence[Truth], number: int, context: ToolContext) -> int:
    """The next rule after `number` that holds at other places."""
    tokens = context.tokens("design")
    own = holds(truths[number].predicate, tokens)
    order = [(number + step) % len(truths) for step in range(1, len(truths))]
    return next(i for i in order if truth_f1(holds(truths[i].predicate, tokens), own) < UNLIKE)


def _rules(n: int, seed: int) -> list[Truth]:
    """`n` admissible rules of one mode."""
    context = ToolContext(cached_target(), cached_corpus())
    drawn = draw_truths(context, [SIMPLE[i % len(SIMPLE)] for i in range(n)], seed)
    return [one for one in drawn if isinstance(one, Truth)]


def _context(batch: Batch, seed: int) -> tuple[BatchContext, list[Unit], Proposers | None]:
    """The target with the null units of a batch in it, those units in order, and who proposes."""
    plain, kind = ToolContext(cached_target(), cached_corpus()), batch.settings["kind"]
    if kind != "swapped":
        units = [Unit.parse(case.truth["unit"]) for case in batch.cases]
        real = BatchContext(plain.target, plain.corpus, units=tuple(units))
        nulls = {unit: null_of(real, unit, kind, seed * 10_000 + i) for i, unit in enumerate(units)}
        return BatchContext(Overlay(plain.target, nulls), plain.corpus, units=tuple(units)), units, None
    truths = [Truth.from_json(case.truth) for case in batch.cases]
    truths += _rules(2, seed) if len(truths) == 1 else []
    overlay, units = planted(plain.target, truths, seed)
    over = BatchContext(overlay, plain.corpus, units=tuple(units))
    other = dict(zip(units, [units[i] for i in swapped_with(truths, plain)], strict=True))
    return over, units, lambda unit: [SwappedLabels(over, other[unit], seed)]


def _measured(batch: Batch, wanted: Collection[str], seed: int) -> Iterator[Row]:
    """The rows of shifted units, every tenth of them dead."""
    units = [Unit.parse(case.truth["unit"]) for case in batch.cases]
    context = BatchContext(cached_target(), cached_corpus(), units=tuple(units))
    for number, (case, unit) in enumerate(zip(batch.cases, units, strict=True)):
        if case.key in wanted:
            began = monotonic()
            found = by_metrics(context, unit, seed + number, dead=number % 10 == 9)
            cost = {"seconds": monotonic() - began, "forwards": 0.0}
            yield {"case": case.key, "family": METRICS, "outcome": "ok", "unit": unit.address, **found, **cost}


@dataclass(frozen=True)
class Nulls:
    """Units with nothing to find by construction; all of them answer edits."""

    name: str = "nulls"
    about: str = (
        "units with nothing to find, through the full proposer and loop: activations dealt out by a hash of the last "
        "tokens, the same smoothed, the same silent on edited text, and planted units under another unit's claims"
    )
    sizes: Mapping[Size, int] = field(default_factory=lambda: {"smoke": 4, "standard": 400, "full": 1200})

    def batches(self, n: int, seed: int) -> list[Batch]:
        """Live neurons whose values are dealt out, and planted rules, the kinds in turn; beside every ten of them one for
        the metrics alone."""
        units = live_sample(cached_target(), cached_corpus(), n, seed)
        in_turn: dict[str, list[Case]] = {kind: [] for kind in KINDS}
        for number, unit in enumerate(units):
            kind = KINDS[number % len(KINDS)]
            in_turn[kind].append(Case(f"{number:04}", kind, {"unit": unit.address}))
        in_turn["swapped"] = [
            Case(case.key, "swapped", truth.to_json())
            for case, truth in zip(in_turn["swapped"], _rules(max(len(in_turn["swapped"]), 2), seed), strict=False)
        ]
        metrics = [Case(f"{METRICS} {unit.address}", METRICS, {"unit": unit.address}) for unit in units[::10]]
        found = []
        for of, (name, cases) in enumerate([*in_turn.items(), (METRICS, metrics)]):
            for at in range(0, len(cases), BATCH):
                settings = {"kind": name, "seed": seed * 1000 + at // BATCH * 10 + of}
                found.append(Batch(f"{name}-{seed}-{at // BATCH}", tuple(cases[at : at + BATCH]), settings))
        return sorted(found, key=lambda batch: batch.settings["seed"])

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """A row a unit: what the loop said of it; of a unit for the metrics alone, what they said."""
        seed = int(batch.settings["seed"])
        if batch.settings["kind"] == METRICS:
            yield from _measured(batch, wanted, seed)
            return
        over, units, proposers = _context(batch, seed)
        asked = [(case, unit) for case, unit in zip(batch.cases, units, strict=False) if case.key in wanted]
        rows = ask_batch(over, [unit for _, unit in asked], batch, asking, proposers=proposers)
        for (case, _), row in zip(asked, rows, strict=True):
            yield {"case": case.key, "family": case.family, **row}

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """The share of units with a SUPPORTED claim, of each kind and in all, and how many claims were tested."""
        asked = [row for row in rows if row["outcome"] == "ok"]
        done = [row for row in asked if row["family"] != METRICS]
        apart = [row for row in asked if row["family"] == METRICS]
        if not done:
            return []
        found = [share("false claims", sum(bool(supported(row)) for row in done), len(done), at_most=0.01)]
        found.append(Score("false claims, upper 95 % bound", found[0].high, len(done), at_most=0.02))
        for family in dict.fromkeys(str(row["family"]) for row in done):
            part = [row for row in done if row["family"] == family]
            hits = sum(bool(supported(row)) for row in part)
            found.append(share(f"family: {family}, false claims", hits, len(part), at_most=0.02))
        tested = sum(bool(row["claims"]) for row in done)
        whole = np.array([row["forwards"] + row["shared_forwards"] for row in done])
        return [
            *found,
            share("units of which a claim was tested", tested, len(done)),
            share("shifted and dead units that pass by metrics alone", sum(row["passes"] for row in apart), len(apart)),
            Score("forwards a unit, median", float(np.median(whole)), len(done)),
            Score("seconds a unit, median", float(np.median([row["seconds"] for row in done])), len(done)),
        ]


SUITE = Nulls()

"""How often is something claimed where there is nothing? Null units that answer edits, through the real loop."""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from neuronaut.agent.proposers.base import Explored, Proposal, Proposer
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.agent.view import visible
from neuronaut.evals.loop import BatchContext, ask_each, supported
from neuronaut.evals.overlay import Floats, Function, Overlay
from neuronaut.evals.planted import planted
from neuronaut.evals.readable import sample_units
from neuronaut.evals.truths import Truth, draw_truths, truth_f1
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.stats import clopper_pearson
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.dealt import LAST, SMOOTH, Keys, dealt, prefix_keys, recent_keys
from neuronaut.tools.trials.reads import needed_rule
from neuronaut.tools.units import Unit

Kind = Literal["hash", "smoothed", "fragile", "swapped"]
KINDS: tuple[Kind, ...] = get_args(Kind)

OFTEN = 3  # times that a context occurs from which it is a pattern that could be named
MAX_NAMED = 0.25  # of the firing mass; a claim needs half of it, so that none can be true
UNLIKE = 0.2  # largest F1 of two planted rules whose claims are swapped


@dataclass(frozen=True)
class Null:
    """The values of a real unit, dealt to the places of the text by a keyed hash of the last tokens.

    marginal: the real unit's activations on explore text, in rising order. smooth: tokens over which the hash is
    averaged. natural: keys of all prefixes of the corpus, sorted, on other text the unit is silent; None: it is not.
    """

    marginal: Floats = field(repr=False)
    unit: Unit
    seed: int
    smooth: int = 1
    natural: Keys | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What was dealt, and how."""
        return f"null of {self.unit.address} {self.seed} {self.smooth} {self.natural is None}"

    def __call__(self, tokens: Tokens) -> Floats:
        """(n_windows, n_pos)."""
        values = dealt(self.marginal, tokens.ids, self.seed, smooth=self.smooth)
        if self.natural is None:
            return values
        keys = prefix_keys(tokens.ids)
        at = np.minimum(np.searchsorted(self.natural, keys), len(self.natural) - 1)
        return np.where(self.natural[at] == keys, values, self.marginal[0])


@dataclass(frozen=True)
class SwappedLabels:
    """Proposes for every unit what the search finds for another one."""

    context: ToolContext
    other: Unit
    seed: int
    name: str = "swapped labels"

    def propose(self, explored: Explored) -> list[Proposal]:
        """The other unit's hypotheses."""
        activations = self.context.activations(self.other, "explore", n_tokens=EXPLORE_TOKENS)
        rule = needed_rule(self.context, self.other)
        return GrammarProposer(seed=self.seed).propose(Explored(self.other, explored.tokens, activations, rule))


def null_of(context: ToolContext, unit: Unit, kind: Kind, seed: int) -> Null:
    """A null unit with the marginal of a real one, the first of a row of seeds that has no pattern that could be named.

    The text repeats itself: where a hash happens to fire on a common opening, a claim of that opening would be true.
    """
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    null = Null(
        np.sort(activations[tokens.scored]),
        unit,
        seed,
        smooth=SMOOTH if kind == "smoothed" else 1,
        natural=natural_keys(context) if kind == "fragile" else None,
    )
    while named_share(null, tokens) > MAX_NAMED:
        null = replace(null, seed=null.seed + 1_000_003)
    return null


def natural_keys(context: ToolContext) -> Keys:
    """The keys of all prefixes of the corpus, sorted."""
    memo: dict[str, Keys] = context.__dict__.setdefault("_natural", {})
    if "keys" not in memo:
        texts = [context.tokens(split) for split in ("explore", "design", "confirm", "audit")]
        memo["keys"] = np.unique(np.concatenate([prefix_keys(tokens.ids)[tokens.scored] for tokens in texts]))
    return memo["keys"]


def named_share(null: Null, tokens: Tokens) -> float:
    """Share of the firing mass at places whose context occurs at least three times in the text; 0 if it never fires."""
    values = null(tokens)
    rule = firing_rule(values, tokens)
    if isinstance(rule, str):
        return 0.0
    keys = recent_keys(tokens.ids, LAST + null.smooth - 1)[tokens.scored]
    _, inverse, times = np.unique(keys, return_inverse=True, return_counts=True)
    flat = values[tokens.scored]
    mass = np.where(flat > rule.threshold, flat - rule.median, 0.0)
    return float(mass[times[inverse] >= OFTEN].sum() / max(float(mass.sum()), 1e-12))


def ask_nulls(context: ToolContext, kind: Kind, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each of `n` null units of one kind: what the loop said of it."""
    if kind == "swapped":
        yield from _ask_swapped(context, n, seed)
        return
    units, _ = sample_units(context, n, seed)
    nulls: dict[Unit, Function] = {
        unit: null_of(context, unit, kind, seed * 10_000 + number) for number, unit in enumerate(units)
    }
    over = BatchContext(Overlay(context.target, nulls), context.corpus, units=tuple(units))
    with tempfile.TemporaryDirectory() as folder:
        for row in ask_each(over, units, seed, Path(folder) / "notebook.db"):
            yield {"kind": kind, **row}


def _ask_swapped(context: ToolContext, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Planted units, each with the claims that the search makes for another one whose rule is different."""
    truths = [one for one in draw_truths(context, n, seed) if isinstance(one, Truth)]
    overlay, units = planted(context.target, truths, seed)
    over = BatchContext(overlay, context.corpus, units=tuple(units))
    other = {unit: units[_unlike(truths, i, context)] for i, unit in enumerate(units)}

    def proposers(unit: Unit) -> list[Proposer]:
        return [SwappedLabels(over, other[unit], seed)]

    with tempfile.TemporaryDirectory() as folder:
        rows = ask_each(over, units, seed, Path(folder) / "notebook.db", proposers=proposers)
        for row, truth in zip(rows, truths, strict=True):
            yield {"kind": "swapped", "truth": str(truth.predicate), **row}


def _unlike(truths: Sequence[Truth], number: int, context: ToolContext) -> int:
    """The next rule after `number` that holds at other places."""
    tokens = context.tokens("design")
    own = holds(truths[number].predicate, tokens)
    order = [(number + step) % len(truths) for step in range(1, len(truths))]
    return next(i for i in order if truth_f1(holds(truths[i].predicate, tokens), own) < UNLIKE)


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per kind and in all: units, those with a SUPPORTED claim and its 95 % interval, verdicts on all tested claims."""
    named: list[tuple[str, list[dict[str, Any]]]] = [(kind, [r for r in rows if r["kind"] == kind]) for kind in KINDS]
    found = []
    for name, part in [*named, ("all", list(rows))]:
        if not part:
            continue
        hits = sum(bool(supported(row)) for row in part)
        verdicts = Counter(claim["status"] for row in part for claim in row["claims"])
        silent = sum(not row["claims"] for row in part)
        found.append(
            {"kind": name, "units": len(part), "supported": hits, "ci": clopper_pearson(hits, len(part)),
             "nothing tested": silent, **verdicts}
        )  # fmt: skip
    return found


def main() -> None:
    """Command line: ask about null units, print each SUPPORTED claim and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50, help="units of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write one JSON line a unit here")
    args = parser.parse_args()
    context = ToolContext(load_target("pocket"), pocket_corpus())
    rows = []
    for kind in args.kinds:
        for row in ask_nulls(context, kind, args.n, args.seed):
            rows.append(row)
            said = [f"{claim['status']} {claim['claim'][:90]}; {claim['reason'][:90]}" for claim in row["claims"]]
            print(f"{kind:<9} {row['unit']:<7} {row['seconds']:5.1f} s  {visible(' / '.join(said))}", flush=True)
            if args.out:
                with args.out.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
    for line in table(rows):
        print(json.dumps(line))


if __name__ == "__main__":
    main()

"""Is the assistant right about the output? Planted output neurons, and twins that lack the input rule, the output, or both."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import torch

from neuronaut.evals.draws import draw_truths
from neuronaut.evals.loop import ask_each, supported
from neuronaut.evals.outputs import Output, draw_output
from neuronaut.evals.overlay import FromPredicate
from neuronaut.evals.sample import live_units
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size, share
from neuronaut.evals.truths import SIMPLE, Truth, truth_f1
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import firing_rule
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.tree import canonical_json, predicate_from_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.overlay import Function, Overlay
from neuronaut.tools.together import BatchContext
from neuronaut.tools.trials.null_units import null_of
from neuronaut.tools.trials.writes import Direction
from neuronaut.tools.units import Unit

Kind = Literal["promote", "inert", "suppress", "read-only", "write-only"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LAYERS = 4  # the last ones: further from the output, later layers turn a direction into other tokens
TOGETHER = 20  # cases in a batch
RIGHT = 0.8  # F1 of a claim with the truth from which it counts as right, for places and for tokens


@dataclass(frozen=True)
class Planted:
    """One case: a neuron, its input rule (JSON) or the seed of the null unit that it is, and what it writes.

    vector: (d_model,), of zeros for what writes nothing; empty where the neuron keeps its own. nats: at its own dose.
    """

    unit: str
    seed: int
    rule: str | None
    direction: Direction | None = None
    tokens: tuple[str, ...] = ()
    vector: tuple[float, ...] = ()
    nats: float = 0.0

    def told(self) -> dict[str, Any]:
        """As JSON, without the numbers of the vector."""
        told = asdict(self)
        del told["vector"]
        return told


@lru_cache(maxsize=1)
def pocket_context() -> ToolContext:
    """The embedded model on its own text, read once."""
    return ToolContext(load_target("pocket"), pocket_corpus())


def function_of(case: Planted, context: ToolContext) -> Function:
    """When the neuron of a case fires."""
    if case.rule is None:
        return null_of(context, Unit.parse(case.unit), "hash", case.seed)
    return FromPredicate(predicate_from_json(case.rule), case.seed)


def fires(function: Function, context: ToolContext) -> bool:
    """Whether there is a firing rule on explore text: a rare unit's values may be dealt out to too few documents."""
    tokens = context.sample("explore", EXPLORE_TOKENS)
    return not isinstance(firing_rule(function(tokens), tokens), str)


def drawn(context: ToolContext, kinds: Sequence[Kind], seed: int) -> list[Planted]:
    """The cases of a batch; those with an input rule share it within each five."""
    groups = -(-len(kinds) // len(KINDS))
    rules = [
        one
        for one in draw_truths(context, [SIMPLE[i % len(SIMPLE)] for i in range(groups)], seed)
        if isinstance(one, Truth)
    ]
    rng, last = np.random.default_rng(seed), context.target.spec.n_layers
    free: dict[int, list[Unit]] = {}
    found = []
    for number, kind in enumerate(kinds):
        layer = last - 1 - number % LAYERS
        if layer not in free:
            units = live_units(context, layer)
            free[layer] = [units[i] for i in rng.permutation(len(units))]
        rule = (
            canonical_json(rules[number // len(KINDS)].predicate)
            if kind in ("promote", "suppress", "read-only")
            else None
        )
        found.append(planted_case(context, kind, free[layer], rule, seed * 10_000 + number))
    return found


def planted_case(context: ToolContext, kind: Kind, units: list[Unit], rule: str | None, seed: int) -> Planted:
    """A case of a kind on the next of `units` that fires often enough, which are used up; its output is drawn where it
    has one, else it writes nothing."""
    silence = (0.0,) * context.target.spec.d_model
    silent = Planted(units.pop().address, seed, rule, vector=silence)
    while not fires(function_of(silent, context), context):
        silent = Planted(units.pop().address, seed, rule, vector=silence)
    unit = Unit.parse(silent.unit)
    if kind in ("read-only", "inert"):
        return silent
    direction: Direction = "suppresses" if kind == "suppress" or (kind == "write-only" and seed % 2) else "promotes"
    drawn = draw_output(context, unit, function_of(silent, context), direction, seed)
    output = next(one for one in drawn if isinstance(one, Output))
    return Planted(unit.address, seed, rule, direction, output.tokens, tuple(output.vector.tolist()), output.nats)


def planted_context(context: ToolContext, cases: Sequence[Planted]) -> BatchContext:
    """The text and the target with all the cases' neurons in it."""
    units = [Unit.parse(case.unit) for case in cases]
    functions = {unit: function_of(case, context) for unit, case in zip(units, cases, strict=True)}
    vectors = {unit: torch.tensor(case.vector) for unit, case in zip(units, cases, strict=True) if case.vector}
    return BatchContext(Overlay(context.target, functions, vectors), context.corpus, units=tuple(units))


def kind_of(case: Case) -> Kind:
    """The kind that a case's family names."""
    return next(kind for kind in KINDS if kind == case.family)


def judged(row: Row, truth: Planted, context: ToolContext) -> Row:
    """What is right in the answer of the loop: both sides against the truth, the claimed tokens against the planted ones.

    right_reads: a SUPPORTED claim with F1 of at least 0.8 on audit text where there is a rule, none SUPPORTED where there
    is none. right_writes: the same with the tokens, in the right direction.
    """
    audit = context.tokens("audit")
    reads, writes = supported(row), supported(row, "writes")
    found = [0.0]
    if truth.rule is not None:
        true = holds(predicate_from_json(truth.rule), audit)
        found += [truth_f1(holds(predicate_from_json(claim["predicate"]), audit), true) for claim in reads]
    claimed = [(one.kind, set(one.tokens)) for one in (predicate_from_json(c["predicate"]) for c in row["writes"])]  # type: ignore[union-attr]
    tested = claimed[0][1] if claimed else set()
    both = len(tested & set(truth.tokens))
    scores = [
        2 * len(tokens & set(truth.tokens)) / (len(tokens) + len(truth.tokens)) if kind == truth.direction else 0.0
        for (kind, tokens), claim in zip(claimed, row["writes"], strict=True)
        if claim["status"] == "SUPPORTED"
    ]
    return {
        "reads_supported": bool(reads),
        "reads_f1": max(found),
        "right_reads": max(found) >= RIGHT if truth.rule is not None else not reads,
        "writes_supported": bool(writes),
        "right_writes": max(scores, default=0.0) >= RIGHT if truth.direction else not writes,
        "status": row["writes"][0]["status"] if row["writes"] else "none",
        "claimed": sorted(tested),
        "planted": list(truth.tokens),
        "right_direction": bool(claimed) and claimed[0][0] == truth.direction if truth.direction else None,
        "precision": both / len(tested) if tested and truth.direction else None,
        "recall": both / len(truth.tokens) if truth.direction else None,
    }


def share_of(name: str, hits: Sequence[bool], *, goal: float | None = None, at_most: float | None = None) -> Score:
    """The share of yeses."""
    return share(name, sum(hits), len(hits), goal=goal, at_most=at_most)


def mean(name: str, values: Sequence[float]) -> Score:
    """A mean without an interval."""
    return Score(name, float(np.mean(values)) if values else None, len(values))


class Writes:
    """The suite."""

    name = "writes"
    about = (
        "Neurons of the embedded model that are made to promote or suppress chosen tokens, and twins that only read, "
        "only write, or do neither: is the loop right about both sides?"
    )

    @property
    def sizes(self) -> dict[Size, int]:
        """Cases."""
        return {"smoke": 2, "standard": 60, "full": 400}

    def batches(self, n: int, seed: int) -> list[Batch]:
        """Batches of at most 20 cases, the kinds in turn."""
        kinds = [KINDS[number % len(KINDS)] for number in range(n)]
        found = []
        for at in range(0, n, TOGETHER):
            cases = (Case(f"{at + i:04d} {kind}", kind) for i, kind in enumerate(kinds[at : at + TOGETHER]))
            number = at // TOGETHER
            found.append(Batch(f"writes-{seed}-{number}", tuple(cases), {"seed": seed * 1000 + number}))
        return found

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """A row a case: `truth`, `reads_*`, `writes_*`, tokens claimed and planted, and the claims as the loop judged them."""
        context = pocket_context()
        truths = drawn(context, [kind_of(case) for case in batch.cases], int(batch.settings["seed"]))
        over = planted_context(context, truths)
        asked = [(case, truth) for case, truth in zip(batch.cases, truths, strict=True) if case.key in wanted]
        units = [Unit.parse(truth.unit) for _, truth in asked]
        path = asking.folder / f"{batch.name}.db"
        rows = ask_each(over, units, asking.seed, path, loop=asking.loop, sides=("reads", "writes"))
        for (case, truth), row in zip(asked, rows, strict=True):
            told = judged(row, truth, context) if row["outcome"] == "ok" else {}
            yield {"case": case.key, "family": case.family, "truth": truth.told(), **row, **told}

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """The share of right answers over (case, side), false writes of those that write nothing, and the tokens."""
        done = [row for row in rows if row["outcome"] == "ok"]
        right = [row[side] for row in done for side in ("right_reads", "right_writes")]
        silent = [row["writes_supported"] for row in done if row["family"] in ("read-only", "inert")]
        senseless = [row["reads_supported"] for row in done if row["family"] in ("write-only", "inert")]
        writers = [row for row in done if row["right_direction"] is not None]
        return [
            share_of("reads/writes right", right, goal=0.97),
            share_of("false writes of read-only and inert twins", silent, at_most=0.01),
            share_of("false reads of write-only and inert twins", senseless),
            share_of("direction right", [row["right_direction"] for row in writers]),
            mean("precision of the claimed tokens", [r["precision"] for r in writers if r["precision"] is not None]),
            mean("recall of the planted tokens", [row["recall"] for row in writers]),
            *(
                share_of(f"{kind}: both sides right", [r["right_reads"] and r["right_writes"] for r in done if r["family"] == kind])
                for kind in KINDS
            ),
        ]  # fmt: skip


SUITE = Writes()

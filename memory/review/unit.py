"""What the page of a unit shows: claims first, facts without a language model, contexts in bands, evidence, provenance."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from neuronaut.memory import queries, schema
from neuronaut.memory.review.claims import SIDES, Claim, best_first, claims_where
from neuronaut.memory.review.experiments import Experiment, Row, experiments_of
from neuronaut.memory.review.models import Models
from neuronaut.memory.review.strips import BANDS, Band
from neuronaut.memory.store import Store
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

RUNS = 30  # of which experiments are shown, the newest first
CLAIMS = 60
NEEDS_CLAIM = ("test_", "compare_", "score_")  # tools whose results are shown as evidence, not as facts
BESIDE = "contexts_of_claim"  # the tool that shows all bands beside a claim
IN_BANDS = ("top_examples", "mistakes", BESIDE)
KINDS = ("supports", "refutes", "inconclusive", "failed")
_KIND = {"supported": "supports", "refuted": "refutes"}


@dataclass(frozen=True)
class Evidence:
    """An experiment that a claim was tested with. kind: supports, refutes, inconclusive or failed."""

    kind: str
    claim: Claim | None
    experiment: Experiment


@dataclass(frozen=True)
class Histogram:
    """How many tokens have which activation. low, high: of all bins; heights: of each bin, logarithmic, from 0 to 1."""

    low: float
    high: float
    threshold: float
    counts: tuple[int, ...]
    heights: tuple[float, ...]
    run: str
    experiment: str

    @property
    def firing(self) -> float:
        """Where the threshold of firing lies, from 0 to 1."""
        return min(max((self.threshold - self.low) / ((self.high - self.low) or 1.0), 0.0), 1.0)


@dataclass(frozen=True)
class UnitPage:
    """A unit of a model. sides: its claims by side and sign, the best of each first."""

    model: str
    model_name: str
    address: str
    unit: Unit
    layer: int
    sides: tuple[tuple[str, tuple[Claim, ...]], ...]
    outcomes: tuple[Row, ...]
    bands: tuple[Band, ...]
    histogram: Histogram | None
    facts: tuple[Experiment, ...]
    evidence: tuple[Evidence, ...]
    counts: dict[str, int]
    chosen: str
    runs: tuple[Row, ...]
    more_runs: int
    more_claims: bool
    others: tuple[str, ...]


def unit_page(notebook: Store, model: str, address: str, chosen: str = "") -> UnitPage:
    """The page of a unit. chosen: the kind of evidence that is shown, all for none. Refuses a unit that nobody asked about."""
    unit = Unit.parse(address).with_sign(1)
    models = Models.read(notebook)
    targets = models.targets(model)
    if not targets:
        known = ", ".join(sorted(set(models.of.values()))) or "none yet"
        raise UserError(f"this notebook holds no model {model!r}: it has {known}")
    rows = _unit_rows(notebook, targets, unit)
    if not rows:
        raise UserError(
            f'nobody asked about {unit.address} of {model!r} yet: `neuronaut ask "what does {_said(unit)} do"` does'
        )
    ids = [row["id"] for row in rows]
    claims = claims_where(notebook, models, schema.hypothesis.c.unit.in_(ids), limit=CLAIMS)
    outcomes = _outcomes(notebook, ids)
    runs = sorted({claim.run for claim in claims} | {row["run"] for row in outcomes}, reverse=True)
    about = _experiments(notebook, runs[:RUNS], unit)
    evidence = _evidence(about, claims)
    counts = {kind: sum(one.kind == kind for one in evidence) for kind in KINDS}
    shown = [one for one in evidence if chosen not in KINDS or one.kind == chosen]
    addresses = {target: models.slug(target) for target in targets}
    return UnitPage(
        model, models.names[rows[-1]["target"]], unit.address, unit, int(rows[0]["layer"]), _sides(claims), tuple(outcomes),
        tuple(_bands(about, unit, claims)), _histogram(about, unit), tuple(_facts(about)), tuple(shown), counts, chosen if chosen in KINDS else "",
        tuple(_runs(notebook, runs[:RUNS])), max(0, len(runs) - RUNS), len(claims) == CLAIMS,
        tuple(sorted(set(addresses.values()) - {model})),
    )  # fmt: skip


def _said(unit: Unit) -> str:
    """The unit as a question names it."""
    return {"neuron": "neuron ", "head": "head ", "feature": "feature "}.get(unit.kind, "") + unit.address


def _unit_rows(notebook: Store, targets: Sequence[str], unit: Unit) -> list[dict[str, Any]]:
    """Both signs of a unit, on all targets of a name."""
    u = schema.unit.c
    both = {unit.address} if unit.kind in ("task", "head") else {unit.address, unit.with_sign(-1).address}
    statement = sa.select(schema.unit).where(u.target.in_(targets), u.address.in_(sorted(both)))
    return notebook.rows(statement.order_by(u.id))


def _sides(claims: Sequence[Claim]) -> tuple[tuple[str, tuple[Claim, ...]], ...]:
    found: dict[str, list[Claim]] = {}
    for claim in sorted(best_first(claims), key=lambda one: (one.address.endswith("-"), SIDES.index(one.side))):
        found.setdefault(f"{claim.side}{' of ' + claim.address if claim.address.endswith('-') else ''}", []).append(
            claim
        )
    return tuple((side, tuple(some)) for side, some in found.items())


def _outcomes(notebook: Store, units: Sequence[str]) -> list[dict[str, Any]]:
    o, u = schema.outcome.c, schema.unit
    joined = sa.select(o.id, o.run, o.side, o.status, o.reason, u.c.address).join(u, u.c.id == o.unit)
    return notebook.rows(joined.where(o.unit.in_(units)).order_by(o.id.desc()).limit(CLAIMS))


def _experiments(notebook: Store, runs: Sequence[str], unit: Unit) -> list[Experiment]:
    """What some runs did with the unit, the newest first."""
    rows = queries.grouped(notebook, schema.experiment, "run", runs)
    mine = []
    for row in (row for run in runs for row in rows[run]):
        args = queries.parsed(row["args"], f"experiment {row['id']}")
        if isinstance(args, dict) and _same(args.get("unit"), unit):
            mine.append({**row, "args": args})
    return sorted(experiments_of(notebook, mine), key=lambda one: one.id, reverse=True)


def _same(address: Any, unit: Unit) -> bool:
    if not isinstance(address, str):
        return False
    if unit.kind in ("task", "head"):
        return address == unit.address
    return address in (unit.address, unit.with_sign(-1).address)


def _evidence(about: Sequence[Experiment], claims: Sequence[Claim]) -> list[Evidence]:
    by_prediction = {claim.prediction["id"]: claim for claim in claims if claim.prediction}
    cited = {number.experiment: claim for claim in claims for number in claim.numbers}
    found = []
    for one in about:
        claim = cited.get(one.id) or by_prediction.get(one.prediction)
        if one.outcome in ("failed", "refused"):
            found.append(Evidence("failed", claim, one))
        elif claim is not None and claim.verdict:
            found.append(Evidence(_KIND.get(claim.status, "inconclusive"), claim, one))
    return found


def _facts(about: Sequence[Experiment]) -> list[Experiment]:
    """What was measured without a claim, of each tool and arguments the newest."""
    found: dict[tuple[str, str], Experiment] = {}
    for one in about:
        if one.outcome == "ok" and one.tool not in IN_BANDS and not one.tool.startswith(NEEDS_CLAIM):
            found.setdefault((one.tool, json.dumps(one.args, sort_keys=True)), one)
    return sorted(found.values(), key=lambda one: (one.unit.endswith("-"), one.tool))


def _bands(about: Sequence[Experiment], unit: Unit, claims: Sequence[Claim]) -> list[Band]:
    """The four bands in their order: of each the newest, or the command that would look."""
    found: dict[str, Band] = {}
    for one in (one for one in about if one.outcome == "ok" and one.unit == unit.address):
        for band in _of_experiment(one, claims):
            known = found.get(band.name)
            if known is None or (band.claim and not known.claim):
                found[band.name] = band
    return [found.get(name) or Band(name, title, "", (), command=_look(unit, claims)) for name, title in BANDS.items()]


def _histogram(about: Sequence[Experiment], unit: Unit) -> Histogram | None:
    """The newest histogram of its activations."""
    for one in about:
        found = one.payload.get("histogram") if one.tool == BESIDE and one.unit == unit.address else None
        if found:
            edges, counts = found["edges"], found["counts"]
            most = max(1.0, *(math.log1p(n) for n in counts))
            heights = tuple(math.log1p(n) / most for n in counts)
            return Histogram(edges[0], edges[-1], one.payload["threshold"], tuple(counts), heights, one.run, one.id)
    return None


def _of_experiment(one: Experiment, claims: Sequence[Claim]) -> list[Band]:
    sentence = next((claim.sentence for claim in claims if claim.predicate == one.args.get("claim")), "")
    told = sentence or ("a claim" if one.args.get("claim") else "")
    return [replace(band, claim=told, experiment=one.id, run=one.run) for band in one.bands if band.name in BANDS]


def _look(unit: Unit, claims: Sequence[Claim]) -> str:
    """The question that would fill the bands; "" where no tool does."""
    if unit.kind in ("task", "head"):
        return ""
    best = next((claim for claim in best_first(claims) if claim.side == "reads" and claim.verdict), None)
    asked = {"unit": unit.address} | ({"claim": best.predicate} if best else {})
    return f"tool {BESIDE} {json.dumps(asked)}"


def _runs(notebook: Store, runs: Sequence[str]) -> list[dict[str, Any]]:
    """Provenance of each run: question, model, text, code, how it ended."""
    r, t, c = schema.run, schema.target_model, schema.corpus
    joined = sa.join(r, t, t.c.id == r.c.target).join(c, c.c.id == r.c.corpus)
    columns = (r.c.id, r.c.question, r.c.code_version, r.c.code_commit, r.c.seed, t.c.name.label("target"),
               t.c.weights_sha256, c.c.name.label("corpus"), c.c.sha256.label("corpus_sha256"))  # fmt: skip
    rows = notebook.rows(sa.select(*columns).select_from(joined).where(r.c.id.in_(runs)).order_by(r.c.id.desc()))
    ends = queries.grouped(notebook, schema.run_end, "run", runs)
    return [{**row, "outcome": ends[row["id"]][-1]["outcome"] if ends[row["id"]] else "unfinished"} for row in rows]

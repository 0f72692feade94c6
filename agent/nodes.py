"""The steps of an answer. Each reads and writes the notebook; what passes between them is ids."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuronaut.agent.proposers.base import Explored, Proposal, Side
from neuronaut.agent.proposers.pool import gathered
from neuronaut.agent.session import Done, Session
from neuronaut.memory import queries
from neuronaut.memory.judge import (
    MIN_COVERAGE,
    MIN_PRECISION,
    Decision,
    ModeCase,
    ReadsCase,
    Rival,
    WritesCase,
    case_from_json,
    decide,
    wanting,
)
from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.look.activations import activations_of
from neuronaut.tools.look.damage import damaged
from neuronaut.tools.look.examples import EXPLORE_TOKENS, LIST_TOKENS
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.look.weights import promoted_pieces
from neuronaut.tools.predicates.nodes import Promotes, Suppresses, canonical_json, complexity, predicate_from_json, walk
from neuronaut.tools.predicates.words import claim_text, told_from
from neuronaut.tools.trials.design import without
from neuronaut.tools.trials.reads import MOST_RIVALS
from neuronaut.tools.units import Unit

EXAMPLES = 3
PROMOTED = 10  # tokens shown to proposers
MAX_ROUNDS = 3  # one for each confirm block
ITEM_COST = 0.002
WORTH_TESTING = 0.5  # of the best prospect; the rest stay rivals
MODES_WORTH = 0.1  # F1
IDLE_COST = 0.3  # of a claim all of whose leaves can be edited without moving the unit
SIZES = (5, 20)  # items: a claim of at most so many is worth a test where only a longer one is proved
ENOUGH = 1.0  # margin on design text of a claim that may hold by itself
SHORTFALL = 0.5  # F1 for each part of the margin that is missing
REVISION = "revision"  # author of what is left of a tested claim
NOTHING_PROPOSED = "nothing was proposed that a test could carry"


@dataclass(frozen=True)
class Prospect:
    """How a predicate of `compare_on_design` may fare in its test.

    worth: F1 less the price of its items and idle leaves. margin: the smaller of the lower bounds of precision and coverage,
    each in parts of what a SUPPORTED claim needs.
    """

    worth: float
    margin: float
    items: int

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Prospect":
        """A claim of modes is scored at the threshold of its weakest, which is the harder test: it gets something for it."""
        modes = MODES_WORTH if json.loads(row["predicate"])["kind"] == "modes" else 0.0
        worth = row["f1"] + modes - ITEM_COST * row["complexity"] - IDLE_COST * (row["idle"] or 0.0)
        margin = min(row["precision_low"] / MIN_PRECISION, row["coverage_low"] / MIN_COVERAGE)
        return cls(worth, margin, row["complexity"])

    @property
    def promise(self) -> float:
        """What tests are given out by: worth, less what speaks against a claim that will hardly be SUPPORTED."""
        return self.worth - SHORTFALL * max(0.0, ENOUGH - self.margin)


def look(session: Session, unit: Unit) -> FiringRule | None:
    """The firing rule of a unit, None with an ABSTAINED outcome where it has none."""
    done = session.experiment("firing", {"unit": unit.address})
    if reason := done.payload.get("abstained"):
        session.notebook.outcome(session.run, unit, "reads", "ABSTAINED", reason)
        session.say("look", f"{unit.address}: {reason}")
        return None
    rule = FiringRule(**done.payload["rule"])
    note = "; larger on a special token, which is left out" if done.payload["special_token"] else ""
    rate = done.measurements["base_rate"].value
    session.experiment("top_examples", {"unit": unit.address, "k": EXAMPLES})
    session.say("look", f"{unit.address} fires above {rule.threshold:.3g} on {rate:.2%} of explore tokens{note}")
    return rule


def propose(session: Session, unit: Unit, rule: FiringRule) -> dict[str, Prospect]:
    """Hypotheses of all proposers for the reads side, compared on design text: id to prospect, the best first.

    What they say of the output is kept for the writes side.
    """
    context = session.context
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    apart = damaged(tokens, activations, rule, seed=session.config.seed)
    earlier = [finding for finding in session.earlier_findings(unit) if finding.side == "reads"]
    explored = Explored(
        unit,
        tokens,
        activations,
        rule,
        damaged=(apart, activations_of(context.target, unit, apart)),
        wide=(
            context.sample("explore", LIST_TOKENS),
            context.activations(unit, "explore", n_tokens=LIST_TOKENS),
        ),
        promoted=tuple(promoted_pieces(context.target, unit, PROMOTED)),
        refuted=tuple(one.predicate for one in earlier if one.status == "REFUTED" and one.same_inputs),
        recalled=tuple(f"{one.status}: {one.claim}" for one in earlier),
    )
    pool = gathered(session.proposers, explored)
    for reason in pool.left_out:
        session.say("left out", reason)
    for story in pool.writes:
        _add(session, unit, "writes", canonical_json(story.predicate), story.author)
    if not pool.reads:
        return {}
    authors = _authors(pool.reads)
    done = session.experiment("compare_on_design", {"unit": unit.address, "predicates": list(authors)})
    by = list(authors.values())
    prospects: dict[str, Prospect] = {}
    compared = done.payload["predicates"][: 1 if session.config.loop == "one-shot" else None]
    for row in sorted(compared, key=lambda row: -Prospect.of(row).promise):
        identifier, claim = _add(session, unit, "reads", row["predicate"], by[row["origin"]])
        prospects.setdefault(identifier, Prospect.of(row))
        session.say("propose", f"{claim} (F1 {row['f1']:.2f} on design)")
    return prospects


def _add(session: Session, unit: Unit, side: Side, source: str, author: str) -> tuple[str, str]:
    """The id of a hypothesis in the notebook, and its sentence. source: its predicate as JSON."""
    predicate = predicate_from_json(source)
    claim = claim_text(predicate) if side == "writes" else claim_text(predicate, sign=unit.sign)
    for row in queries.hypotheses(session.notebook, session.run):
        if row["claim"] == claim and row["address"] == unit.address and row["predicate"] != source:
            claim = told_from(claim, predicate, predicate_from_json(row["predicate"]))
    fields = {"side": side, "claim": claim, "predicate": source, "complexity": complexity(predicate), "author": author}
    return session.notebook.add_hypothesis(session.run, unit, fields), claim


def _authors(pool: list[Proposal]) -> dict[str, str]:
    """Predicate (JSON) to all who brought it, the first one first."""
    found: dict[str, dict[str, None]] = {}
    for proposal in pool:
        found.setdefault(canonical_json(proposal.predicate), {})[proposal.author] = None
    return {predicate: ", ".join(authors) for predicate, authors in found.items()}


def test_reads(session: Session, unit: Unit, chosen: str, ids: list[str]) -> Decision | None:
    """Register a hypothesis with the first others of `ids` as rivals, test it on a fresh block and judge it.

    ids: the most promising first. None when no fresh text is left (an UNRESOLVED outcome) or the experiment failed.
    """
    rows = {row["id"]: row for row in queries.hypotheses(session.notebook, session.run)}
    claim, others = rows[chosen], [rows[i] for i in ids if i != chosen]
    rivals = others[:MOST_RIVALS]
    if claim["verdicts"]:
        return decide(case_from_json(claim["verdicts"][-1]["case"]))
    block = _block(session, unit, "reads", list(rows.values()))
    if block is None:
        return None
    n_claims = queries.n_claims(list(rows.values()), chosen)
    payload = {
        "predicate": claim["predicate"],
        "rivals": [row["predicate"] for row in rivals],
        "tried": [row["predicate"] for row in others[MOST_RIVALS:]],
        "unit": unit.address,
        "n_claims": n_claims,
    }
    prediction = session.notebook.register(
        chosen,
        {"metric": "f1", "comparator": ">", "threshold": 0.0, "baseline": "rivals, random units, null units",
         "split": f"confirm/{block}", "payload": payload},
    )  # fmt: skip
    session.say("register", f"{claim['claim']} against {len(rivals)} rivals, confirm block {block}")
    args = {
        "unit": unit.address,
        "claim": claim["predicate"],
        "rivals": payload["rivals"],
        "tried": payload["tried"],
        "block": block,
        "seed": session.config.seed,
    }
    try:
        done = session.experiment("test_reads", args, prediction=prediction, subject=claim["claim"])
    except (ToolRefused, ToolFailed) as error:
        session.notebook.outcome(session.run, unit, "reads", "UNRESOLVED", f"the test failed: {error}")
        return None
    case = reads_case(claim, rivals, done, n_claims)
    decision = decide(case)
    session.notebook.verdict(prediction, case, decision, done.evidence)
    session.say("verdict", f"{decision.status}: {claim['claim']} (F1 {case.f1:.2f}); {decision.reason}")
    return decision


def _block(session: Session, unit: Unit, side: str, rows: list[dict[str, Any]]) -> int | None:
    """The confirm block for the next test: one that this run opened and did not use (it was killed), else a fresh one."""
    mine = [row for row in rows if row["address"] == unit.address and row["side"] == side]
    judged = {p["split"] for row in mine if row["verdicts"] for p in row["predictions"]}
    opened = queries.opened_blocks(session.notebook, session.run, unit.address, side)
    waiting = [block for block in opened if f"confirm/{block}" not in judged]
    block = waiting[0] if waiting else session.notebook.open_block(session.run, unit, side)
    if block is None:
        session.notebook.outcome(session.run, unit, side, "UNRESOLVED", "no fresh text")
        session.say("test", f"{unit.address}: no fresh text is left for another test")
    return block


def reads_case(claim: dict[str, Any], rivals: list[dict[str, Any]], done: Done, n_claims: int) -> ReadsCase:
    """The case of a reads claim from its experiment."""
    found, payload = done.measurements, done.payload
    sentences = {row["predicate"]: row["claim"] for row in rivals}
    return ReadsCase(
        complexity=claim["complexity"],
        n_claims=n_claims,
        places=payload["places"],
        precision=found["precision"].value,
        precision_low=payload["precision_low"],
        coverage=found["coverage"].value,
        coverage_low=payload["coverage_low"],
        f1=found["f1"].value,
        base_rate=found["base_rate"].value,
        ap=found["ap"].value,
        ap_null=payload["ap_null"],
        r_low=payload["r_low"],
        dense=payload["dense"],
        graded=json.loads(claim["predicate"])["kind"] == "graded",
        bets=tuple(payload["pairs"]["bets"]),
        leaf_e=payload["leaf_e"],
        rarer_half_precision=payload["rarer_half_precision"],
        modes=tuple(ModeCase(**row) for row in payload["modes"]),
        rivals=tuple(
            Rival(claim=sentences[row["predicate"]], **{k: v for k, v in row.items() if k != "predicate"})
            for row in payload["rivals"]
        ),
    )


def reads(session: Session, unit: Unit) -> None:
    """The reads side of a unit: look, propose, test; on fresh text what is left of the claim is tested next, then a rival
    that does as well. Where a claim is proved, only claims of several modes go on, and shorter claims that may be enough."""
    rule = look(session, unit)
    if rule is None:
        return
    prospects = propose(session, unit, rule)
    ids = waiting = list(prospects)
    if not any(prospect.worth > 0 for prospect in prospects.values()):
        session.notebook.outcome(session.run, unit, "reads", "ABSTAINED", NOTHING_PROPOSED)
        session.say("propose", f"{unit.address}: {NOTHING_PROPOSED}")
        return
    if session.config.loop == "random":
        waiting = [ids[int(i)] for i in np.random.default_rng(session.config.seed).permutation(len(ids))]
    if session.config.loop == "no-rivals":
        ids = []
    best, proved = max(prospect.worth for prospect in prospects.values()), list[str]()
    for _ in range(MAX_ROUNDS):
        if not waiting:
            return
        chosen, *waiting = waiting
        decision = test_reads(session, unit, chosen, ids)
        if decision is None:
            return
        waiting.sort(key=lambda one: one not in _as_good(session, ids, chosen))
        if session.config.loop != "one-shot" and (revised := _revised(session, unit, chosen)) is not None:
            identifier, prospects[identifier] = revised
            waiting = [identifier, *(one for one in waiting if one != identifier)]
        proved += [chosen] if decision.status == "SUPPORTED" else []
        if proved:
            modes = _with_modes(session)
            if modes & set(proved):
                return
            named = [one for one in waiting if one in modes]
            waiting = list(dict.fromkeys([*named, *shorter(prospects, proved, waiting)]))
        elif waiting and prospects[waiting[0]].worth < WORTH_TESTING * best:
            return


def shorter(prospects: dict[str, Prospect], proved: list[str], waiting: list[str]) -> list[str]:
    """Of what waits the claims of a smaller size than all that is proved that may be enough by themselves, the best first."""
    least = min(prospects[one].items for one in proved)
    sizes = [size for size in SIZES if size < least]
    return sorted(
        (one for one in waiting if sizes and prospects[one].items <= sizes[-1] and prospects[one].margin >= ENOUGH),
        key=lambda one: -prospects[one].margin,
    )


def _with_modes(session: Session) -> set[str]:
    """The hypotheses that name several modes: where a rule is proved, they may say what else the unit does."""
    rows = queries.hypotheses(session.notebook, session.run)
    return {row["id"] for row in rows if json.loads(row["predicate"])["kind"] == "modes"}


def _revised(session: Session, unit: Unit, tested: str) -> tuple[str, Prospect] | None:
    """A hypothesis without the parts that a test found wanting, with its prospect on design text; None where none is,
    or nothing is left of it."""
    rows = {row["id"]: row for row in queries.hypotheses(session.notebook, session.run)}
    case = case_from_json(rows[tested]["verdicts"][-1]["case"])
    assert isinstance(case, ReadsCase)
    predicate, weak = predicate_from_json(rows[tested]["predicate"]), set(wanting(case))
    smaller = without(predicate, [part for part in walk(predicate) if str(part) in weak])
    if (
        smaller is None
        or smaller == predicate
        or any(row["predicate"] == canonical_json(smaller) for row in rows.values())
    ):
        return None
    args = {"unit": unit.address, "predicates": [canonical_json(smaller)]}
    row = session.experiment("compare_on_design", args).payload["predicates"][0]
    identifier, claim = _add(session, unit, "reads", row["predicate"], REVISION)
    session.say("propose", f"{claim} (F1 {row['f1']:.2f} on design): the last one without what told too little")
    return identifier, Prospect.of(row)


def _as_good(session: Session, ids: list[str], chosen: str) -> list[str]:
    """The rivals that did as well as a tested claim: a fresh block is theirs first."""
    rows = {row["id"]: row for row in queries.hypotheses(session.notebook, session.run)}
    case = case_from_json(rows[chosen]["verdicts"][-1]["case"])
    assert isinstance(case, ReadsCase)
    better = {rival.claim for rival in case.rivals if rival.complexity < case.complexity and rival.difference_low <= 0}
    return [one for one in ids if rows[one]["claim"] in better]


def writes(session: Session, unit: Unit) -> None:
    """The writes side of a unit: the tokens found on design text, then what proposers said, each on its own confirm block."""
    done = session.experiment("firing", {"unit": unit.address})
    if reason := done.payload.get("abstained"):
        session.notebook.outcome(session.run, unit, "writes", "ABSTAINED", reason)
        return
    try:
        effects = session.experiment("output_effects", {"unit": unit.address, "seed": session.config.seed}).payload
    except ToolRefused as error:
        session.notebook.outcome(session.run, unit, "writes", "ABSTAINED", str(error))
        return
    found = effects["claim"]
    tokens = tuple(found["tokens"])
    predicate = Promotes(tokens=tokens) if found["direction"] == "promotes" else Suppresses(tokens=tokens)
    own, claim = _add(session, unit, "writes", canonical_json(predicate), "design effects")
    session.say("propose", f"{claim} (by {found['nats']:+.2f} nats on design)")
    _test_writes(session, unit, own, predicate)
    for row in queries.hypotheses(session.notebook, session.run):
        mine = row["address"] == unit.address and row["side"] == "writes" and row["id"] != own
        if mine and (story := predicate_from_json(row["predicate"])) != predicate:
            assert isinstance(story, Promotes | Suppresses)
            _test_writes(session, unit, row["id"], story)


def _test_writes(session: Session, unit: Unit, hypothesis: str, predicate: Promotes | Suppresses) -> None:
    rows = queries.hypotheses(session.notebook, session.run)
    if any(row["verdicts"] for row in rows if row["id"] == hypothesis):
        return
    block = _block(session, unit, "writes", rows)
    if block is None:
        return
    args = {
        "unit": unit.address,
        "direction": predicate.kind,
        "tokens": predicate.tokens,
        "block": block,
        "seed": session.config.seed,
    }
    prediction = session.notebook.register(
        hypothesis,
        {"metric": "delta", "comparator": ">=", "threshold": 0.05, "baseline": "40 neurons of the layer, each with its own tokens",
         "split": f"confirm/{block}", "payload": args},
    )  # fmt: skip
    claim = claim_text(predicate)
    session.say("register", f"{claim}, confirm block {block}")
    try:
        done = session.experiment("test_writes", args, prediction=prediction, subject=claim)
    except (ToolRefused, ToolFailed) as error:
        session.notebook.outcome(session.run, unit, "writes", "UNRESOLVED", f"the test failed: {error}")
        return
    delta = done.measurements["delta"]
    interval = tuple(done.payload["interval_90"])
    case = WritesCase(
        n_claims=queries.n_claims(rows, hypothesis),
        delta=delta.value,
        delta_low=interval[0],
        delta_interval_90=(interval[0], interval[1]),
        percentile=delta.null_percentile or 0.0,
        bets=tuple(done.payload["bets"]),
    )
    decision = decide(case)
    session.notebook.verdict(prediction, case, decision, done.evidence)
    session.say("verdict", f"{decision.status}: {claim} ({delta.value:+.2f} nats); {decision.reason}")

"""The writes side of a unit: which tokens its output makes likelier or less likely."""

from neuronaut.agent.proposers.given import Given
from neuronaut.agent.session import Done, Session
from neuronaut.agent.steps import add_hypothesis, fresh_block, judge, run_test
from neuronaut.memory import queries
from neuronaut.memory.judge import WritesCase
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.nodes import Promotes, Suppresses
from neuronaut.tools.predicates.tree import canonical_json, predicate_from_json
from neuronaut.tools.predicates.words import claim_text
from neuronaut.tools.units import Unit


def answer(session: Session, unit: Unit) -> None:
    """The writes side of a unit: the tokens found on design text, then what proposers said, each on its own confirm block."""
    if not fires(session, unit):
        return
    try:
        effects = session.experiment("output_effects", {"unit": unit.address, "seed": session.config.seed}).payload
    except ToolRefused as error:
        session.notebook.outcome(session.run, unit, "writes", "ABSTAINED", str(error))
        return
    found = effects["claim"]
    tokens = tuple(found["tokens"])
    predicate = Promotes(tokens=tokens) if found["direction"] == "promotes" else Suppresses(tokens=tokens)
    own, claim = add_hypothesis(session, unit, "writes", canonical_json(predicate), "design effects")
    session.say("propose", f"{claim} (by {found['nats']:+.2f} nats on design)")
    test_claim(session, unit, own, predicate)
    for asker in session.proposers:
        if isinstance(asker, Given) and asker.about_output:
            add_hypothesis(session, unit, "writes", canonical_json(asker.predicate), asker.name)
    for row in queries.hypotheses(session.notebook, session.run):
        mine = row["address"] == unit.address and row["side"] == "writes" and row["id"] != own
        if mine and (story := predicate_from_json(row["predicate"])) != predicate:
            assert isinstance(story, Promotes | Suppresses)
            test_claim(session, unit, row["id"], story)


def fires(session: Session, unit: Unit) -> bool:
    """Whether a unit fires often enough for a claim about what it then writes; else it is noted why not."""
    reason = session.experiment("firing", {"unit": unit.address}).payload.get("abstained")
    if reason:
        session.notebook.outcome(session.run, unit, "writes", "ABSTAINED", reason)
    return not reason


def test_claim(session: Session, unit: Unit, hypothesis: str, predicate: Promotes | Suppresses) -> None:
    """Register a claim about the output and test it on a fresh block, once in a run."""
    rows = queries.hypotheses(session.notebook, session.run)
    if any(row["verdicts"] for row in rows if row["id"] == hypothesis):
        return
    block = fresh_block(session, unit, "writes", rows)
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
    done = run_test(session, unit, "writes", args, prediction=prediction, claim=claim)
    if done is None:
        return
    case = writes_case(done, queries.n_claims(rows, hypothesis))
    judge(session, prediction, case, done.evidence, f"{claim} ({case.delta:+.2f} nats)")


def writes_case(done: Done, n_claims: int) -> WritesCase:
    """The case of a writes claim from its experiment."""
    delta, (low, high) = done.measurements["delta"], done.payload["interval_90"]
    return WritesCase(
        n_claims=n_claims,
        delta=delta.value,
        delta_low=low,
        delta_interval_90=(low, high),
        percentile=delta.null_percentile or 0.0,
        bets=tuple(done.payload["bets"]),
    )

"""Does a read-out use a unit? Measured on explore text, then three relations registered, tested on one fresh block, judged."""

from typing import Any

from neuronaut.agent.questions import Question
from neuronaut.agent.questions.readouts import ReadoutAsked
from neuronaut.agent.session import Done, Session
from neuronaut.agent.steps import fresh_block, judge, run_test
from neuronaut.memory import queries
from neuronaut.memory.judge import ReadoutCase
from neuronaut.memory.ledger import canonical
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.readouts.heads import check_head
from neuronaut.tools.readouts.rule import MIN_EFFECT, MIN_SHARE, MIN_Z
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.checks import check_layer
from neuronaut.tools.units import Unit

AUTHOR = "the question"
SIDE = "role"  # what breaks without the unit: here a read-out instead of a kind of text
SENTENCES = {
    "unit": "is read by {}",
    "inputs": "is bypassed by {}, which reads what it reads",
    "neither": "is not read by {}, and neither is what it reads",
}
ASKED: dict[str, dict[str, Any]] = {
    "unit": {"metric": "share_low", "comparator": ">=", "threshold": MIN_SHARE},
    "inputs": {"metric": "delta_low", "comparator": ">=", "threshold": MIN_EFFECT},
    "neither": {"metric": "z", "comparator": "<", "threshold": MIN_Z},
}


def check_readout(question: Question, context: ToolContext) -> None:
    """Refuses a read-out that is not there, of another model, or that cannot be asked about. Reads nothing."""
    if question.readout is None:
        return
    unit, asked, spec = question.unit, question.readout, context.target.spec
    if unit is None or unit.kind != "neuron":
        raise UserError(f"{unit} is no neuron: whether a read-out uses it can be asked of neurons, such as 8.481")
    if asked.head:
        check_head(context.registered.head(asked.head), spec, context.target.fingerprint())
    if asked.since:
        context.registered.other(asked.since)
    if asked.layer is not None:
        check_layer(spec, asked.layer)


def answer(session: Session, question: Question) -> None:
    """What explore text tells of a read-out and a unit, what training moved where that is asked, and the verdicts."""
    unit, asked = question.unit, question.readout
    assert unit is not None
    assert asked is not None
    check_readout(question, session.context)
    args = arguments(unit, asked, session.config.seed)
    try:
        told = session.experiment("read_out", args, own=True).payload
    except ToolRefused as error:
        session.notebook.outcome(session.run, unit, SIDE, "ABSTAINED", str(error))
        session.say("look", str(error))
        return
    about = told["readout"]
    write, read = (told["cosines"][name]["cosine"] for name in ("write", "read"))
    session.say(
        "measure", f"{about}: cosine {write:.2f} with what {unit.address} writes, {read:.2f} with what it reads"
    )
    if asked.since:
        shift = {"unit": unit.address, "head": asked.head, "other": asked.since, "seed": session.config.seed}
        session.experiment("readout_shift", shift, own=True)
    ids = {relation: _registered(session, unit, args, relation, about) for relation in SENTENCES}
    rows = queries.hypotheses(session.notebook, session.run)
    if all(row["verdicts"] for row in rows if row["id"] in ids.values()):
        return
    block = fresh_block(session, unit, SIDE, [row for row in rows if row["id"] not in ids.values() or row["verdicts"]])
    if block is not None:
        _test(session, unit, ids, args | {"block": block}, about)


def arguments(unit: Unit, asked: ReadoutAsked, seed: int) -> dict[str, Any]:
    """The arguments of `read_out`."""
    if asked.head:
        return {"unit": unit.address, "head": asked.head, "seed": seed}
    layer = unit.layer if asked.layer is None else asked.layer
    return {"unit": unit.address, "site": asked.site, "layer": layer, "output": asked.output, "seed": seed}


def _registered(session: Session, unit: Unit, args: dict[str, Any], relation: str, about: str) -> str:
    """The id of a hypothesis in the notebook."""
    claim = SENTENCES[relation].format(about)
    shown = {name: value for name, value in args.items() if name not in ("unit", "seed")}
    predicate = canonical({"kind": "readout", "relation": relation, **shown})
    fields = {"side": SIDE, "claim": claim, "predicate": predicate, "complexity": 1, "author": AUTHOR}
    return session.notebook.add_hypothesis(session.run, unit, fields)


def _test(session: Session, unit: Unit, ids: dict[str, str], args: dict[str, Any], about: str) -> None:
    """All three predictions are registered before the block is read."""
    predictions = {}
    for relation, hypothesis in ids.items():
        row = ASKED[relation] | {
            "baseline": "random directions of equal length, other neurons of the layer",
            "split": f"confirm/{args['block']}",
            "payload": args | {"relation": relation},
        }
        predictions[relation] = session.notebook.register(hypothesis, row)
        session.say("register", f"{unit.address} {SENTENCES[relation].format(about)}, confirm block {args['block']}")
    rows = queries.hypotheses(session.notebook, session.run)
    judged = {row["id"] for row in rows if row["verdicts"]}
    for relation, prediction in predictions.items():
        if ids[relation] in judged:
            continue
        claim = SENTENCES[relation].format(about)
        done = run_test(session, unit, "readout", args | {"relation": relation}, prediction=prediction, claim=claim)
        if done is not None:
            case = readout_case(done, len(ids))
            judge(session, prediction, case, done.evidence, f"{unit.address} {claim}")


def readout_case(done: Done, n_claims: int) -> ReadoutCase:
    """The case of a relation from its experiment."""
    held = ("relation", "by_unit", "by_inputs", "line", "bets")
    return ReadoutCase.model_validate({"n_claims": n_claims} | {name: done.payload.get(name) for name in held})

"""The control of a finding that is no longer shown: the weights in which it was found, tested on the same text."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from neuronaut.agent import circuits, heads, reads, writes
from neuronaut.agent.session import Done, Session, done_of
from neuronaut.memory import queries
from neuronaut.memory.judge import Case, decide
from neuronaut.memory.ledger import canonical
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.stale import Stale, done_elsewhere, places_of
from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.predicates.words import claim_text
from neuronaut.tools.targets.load import open_folder

TOOL = "test_other"
FIRING = "firing"
AWAY = "the earlier weights are not at hand (--other NAME=FOLDER says where they are)"
OTHER_TEXT = "it was tested on other text, by run {}"


class Tested(NamedTuple):
    """A test that a finding failed: the tool, its arguments as JSON, and the id of the corpus."""

    test: str
    args: str
    corpus: str


def fired(one: Stale, corpus: str) -> Tested:
    """The look that found a unit silent."""
    return Tested(FIRING, canonical({"unit": one.address}), corpus)


def tested(notebook: Notebook, verdict: Mapping[str, Any]) -> Tested | None:
    """The test of a verdict; None where the notebook has none of its own."""
    row = queries.test_of(notebook, verdict["prediction"])
    return None if row is None else Tested(row["tool"], row["args"], verdict["corpus"])


def places_at_hand(notebook: Notebook, models: Iterable[str]) -> dict[str, str]:
    """Name and place of earlier weights that are still where a run found them, on this machine."""
    found: dict[str, str] = {}
    for weights, place in places_of(notebook, models):
        name = f"weights-{weights[:12]}"
        if name not in found and _holds(place, weights):
            found[name] = place
    return found


def _holds(place: str, weights: str) -> bool:
    if place != "pocket" and not Path(place).is_dir():
        return False
    try:
        return open_folder(place).weights_sha256 == weights
    except UserError:
        return False


def control(session: Session, one: Stale, failed: Tested) -> None:
    """The test that a finding failed, done with the weights in which it was found, where they are at hand."""
    others = session.context.registered.others
    name = next((name for name, other in others.items() if other.folder.weights_sha256 == one.weights), None)
    own = queries.find_run(session.notebook, session.run)["corpus"]["id"]
    if name is None or failed.corpus != own:
        session.say("control", f"{one.address}: none, {AWAY if name is None else 'it was tested on other text'}")
        return
    try:
        session.experiment(TOOL, {"other": name, "test": failed.test, "args": failed.args})
    except (UserError, ToolFailed) as error:
        session.say("control", f"{one.address}: none, {error}")


class Controls:
    """The controls about the weights of a run that the notebook has."""

    def __init__(self, notebook: Notebook, run: str) -> None:
        self._corpus = queries.find_run(notebook, run)["corpus"]["id"]
        self._rows: dict[tuple[str | None, Tested], dict[str, Any]] = {}
        for row in done_elsewhere(notebook, run, TOOL):
            of = Tested(row["args"]["test"], row["args"]["args"], row["corpus"])
            weights = None if row["result"] is None else row["result"]["payload"]["weights_sha256"]
            self._rows[weights, of] = row

    def of(self, one: Stale, failed: Tested | None, verdict: Mapping[str, Any] | None) -> dict[str, Any]:
        """What the weights of a finding got in the test that those of now failed: `outcome` (None: no control, and `reason`
        says why), the run and experiment, seconds and forward passes."""
        row = None if failed is None else self._rows.get((one.weights, failed))
        if failed is None or row is None:
            return self._none(failed, verdict)
        payload = row["result"]["payload"]["found"]
        if silent := payload.get("abstained"):
            outcome, reason = "ABSTAINED", str(silent)
        elif failed.test == FIRING:
            outcome, reason = "SUPPORTED", "it fires"
        else:
            assert verdict is not None
            done = done_of(row["id"], row["result"] | {"payload": payload}, ())
            decision = decide(_case(one, failed.test, done, queries.parsed(verdict["case"], "a verdict")["n_claims"]))
            outcome, reason = decision.status, decision.reason
        same = {name: row[name] for name in ("run", "seconds", "forwards")}
        return {"outcome": outcome, "reason": reason, "experiment": row["id"], **same}

    def _none(self, failed: Tested | None, verdict: Mapping[str, Any] | None) -> dict[str, Any]:
        broken = self._rows.get((None, failed)) if failed is not None else None
        reason = AWAY if broken is None else str(broken["error"])
        if verdict is not None and verdict["corpus"] != self._corpus:
            reason = OTHER_TEXT.format(verdict["run"])
        return {"outcome": None, "reason": reason}


def _case(one: Stale, test: str, done: Done, n_claims: int) -> Case:
    match test:
        case "test_reads":
            named = [row["predicate"] for row in done.payload["rivals"]]
            rivals = [{"predicate": source, "claim": claim_text(predicate_from_json(source))} for source in named]
            claim = {"complexity": one.complexity, "predicate": one.predicate}
            return reads.reads_case(claim, rivals, done, n_claims)
        case "test_writes":
            return writes.writes_case(done, n_claims)
        case "test_attends":
            return heads.attends_case(done, n_claims)
        case "test_role":
            return heads.role_case(done, n_claims)
        case "test_circuit":
            return circuits.circuit_case(done, n_claims)
    raise ValueError(f"a test {test!r} has no case")

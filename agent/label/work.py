"""The work on one item: its run, what is asked there, and how it ended; nothing that was finished is done again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic

from neuronaut.agent.config import RunConfig
from neuronaut.agent.cost import Cost
from neuronaut.agent.label.cap import Cap
from neuronaut.agent.label.turns import Patient, Turn
from neuronaut.agent.llm.base import KeyRefused
from neuronaut.agent.llm.gateway import Gateway
from neuronaut.agent.llm.log import NotebookLog
from neuronaut.agent.plan import steps_of
from neuronaut.agent.proposers.base import Proposer
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.agent.questions import parse_question
from neuronaut.agent.session import BudgetSpent, Session
from neuronaut.memory.item_labels import Label, label_of
from neuronaut.memory.items import TRIES, Item
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.errors import ToolFailed, ToolRefused, UserError
from neuronaut.tools.look.reads import NO_SIDE, TOO_RARE
from neuronaut.tools.together import BatchContext
from neuronaut.tools.units import Unit

Said = Callable[[str, str], None]


@dataclass(frozen=True)
class Bench:
    """What items of a batch are worked on with. config: of the batch's run; cap: what its language model may cost, if it has
    one; turn: where several units are in work at once."""

    notebook: Notebook
    config: RunConfig
    cap: Cap | None
    turn: Turn | None
    say: Said

    @property
    def dollars(self) -> float | None:
        """Spent on the language model so far; None where a price is unknown."""
        if self.cap is None:
            return 0.0
        spent = self.cap.gateway.budget.total
        return None if spent.unpriced else spent.micro_dollars / 1e6


def work_on(bench: Bench, item: Item, unit: Unit, context: BatchContext) -> Label:
    """Label one leased item and end it. unit: what is asked about, in the model of the context (of a null unit the place
    where it is planted).

    A tool that fails or refuses counts as a try. Raises LeaseLost where another worker has the item now, and what ends the
    whole batch: KeyRefused, KeyboardInterrupt.
    """
    if bench.cap is not None:
        bench.cap.begin()
    notebook = bench.notebook
    config = _config_of(bench.config, item, unit)
    with notebook.together():
        corpus = (context.corpus.name, context.corpus.sha256, context.corpus.n_characters)
        begin = config.model_dump(mode="json"), context.target.fingerprint(), corpus
        asked = item.asked or notebook.start_run(*begin)
        tries = notebook.begin_item(item, asked)
        if tries > TRIES:
            reason = f"given up: {TRIES} workers in a row died over it"
            notebook.end_run(asked, "gave_up", reason, {"forwards": 0.0})
            notebook.end_item(item, "failed", reason)
            return label_of(notebook, item, asked)
    session = Session(asked, config, notebook, context, [], bench.say)
    before = _Spent.now(context)
    try:
        _answer(session, unit, bench)
    except BudgetSpent as error:
        return _ended(session, item, before.since(context), "out_of_budget", str(error))
    except KeyRefused:
        raise
    except (ToolFailed, ToolRefused, UserError) as error:
        if tries < TRIES:
            notebook.end_item(item, "waiting")
            return label_of(notebook, item, asked)
        return _ended(session, item, before.since(context), "error", str(error))
    return _ended(session, item, before.since(context), "answered", "")


def _config_of(batch: RunConfig, item: Item, unit: Unit) -> RunConfig:
    budget = RunConfig.model_validate({"question": "", "budget": (batch.labelling or {}).get("unit_budget", {})}).budget
    question = f"what does {unit.kind} {unit.address} do"
    more = {"question": question, "batch": f"{item.run}/{item.rank}", "labelling": None, "budget": budget}
    return batch.model_copy(update=more)


def _answer(session: Session, unit: Unit, bench: Bench) -> None:
    proposers: list[Proposer] = [GrammarProposer(seed=session.config.seed)]
    if bench.cap is not None:
        from neuronaut.agent.proposers.model import model_proposer

        outer = bench.cap.gateway
        model = outer.model if bench.turn is None else Patient(outer.model, bench.turn)
        session.gateway = Gateway(model, NotebookLog(session), outer.budget, outer.pace)
        proposers.append(model_proposer(session))
    session.proposers = proposers
    question = replace(parse_question(session.config.question), signs=(unit.sign,))
    for step in steps_of(question, fast=session.config.fast).values():
        step(session)
    if bench.cap is not None:
        bench.cap.gateway.budget.done_with(unit.with_sign(1).address)
    if session.unasked:
        raise BudgetSpent(session.unasked)


@dataclass(frozen=True)
class _Spent:
    """What had been spent when the work on an item began; passes that units share are divided among them."""

    began: float
    forwards: float
    shared_seconds: float
    shared_forwards: float

    @classmethod
    def now(cls, context: BatchContext) -> "_Spent":
        return cls(monotonic(), context.target.forwards, context.shared_seconds, context.shared_forwards)

    def since(self, context: BatchContext) -> tuple[float, float]:
        """Seconds and forwards of the item, with its part of the passes over the text."""
        now = self.now(context)
        seconds = now.began - self.began - (now.shared_seconds - self.shared_seconds)
        forwards = now.forwards - self.forwards - (now.shared_forwards - self.shared_forwards)
        n = max(len(context.units), 1)
        return seconds + now.shared_seconds / n, forwards + now.shared_forwards / n


def _ended(session: Session, item: Item, spent: tuple[float, float], outcome: str, reason: str) -> Label:
    """The end of the item's run and of the item, in one transaction. spent: seconds and forwards."""
    notebook, (seconds, forwards) = session.notebook, spent
    priced = session.gateway is None or session.gateway.priced
    cost = Cost.of(notebook, session.run, seconds=seconds, forwards=forwards, priced=priced)
    with notebook.together():
        notebook.end_run(session.run, outcome, reason, cost.fields)
        label = label_of(notebook, item, session.run)
        if outcome != "answered":
            notebook.end_item(item, "failed", reason)
        elif label.reason in (TOO_RARE, NO_SIDE):
            notebook.end_item(item, "skipped", label.reason)
        else:
            notebook.end_item(item, "done")
    return label_of(notebook, item, session.run)

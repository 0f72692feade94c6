"""From any words to a question: the parser reads them; what it cannot, a language model puts into words that it can."""

from dataclasses import replace

from pydantic import BaseModel, ConfigDict, ValidationError

from neuronaut.agent.llm.base import OutOfBudget, Request, plain
from neuronaut.agent.llm.gateway import Malformed, NoReply
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.meant import task_meant
from neuronaut.agent.questions import Question, parse_question
from neuronaut.agent.readouts import check_readout
from neuronaut.agent.registered import named
from neuronaut.agent.session import BudgetSpent, Session
from neuronaut.prompts import render
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.registered import Registered
from neuronaut.tools.registry import ToolContext, find_tool, registry
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.tasks.catalogue import tasks
from neuronaut.tools.units import SAE

OWN_WORDS = 'ask in the words of the program, for example "what does neuron 8.481 do"'
MAX_QUESTION = 4_000  # characters that a language model is asked to understand


class Understood(BaseModel):
    """The question in one of the forms that the program understands; or none, and a sentence to the person."""

    model_config = ConfigDict(extra="forbid")
    question: str
    say: str


class NotUnderstood(UserError):
    """Neither the parser nor a language model made a question of the words."""


def read_question(text: str, target: TargetModel) -> Question:
    """The question about a target that the parser finds in the words. Refuses, in one sentence, what it cannot read."""
    question = parse_question(text, n_heads=target.spec.n_heads, d_mlp=target.spec.d_mlp)
    if question.unit is not None:
        check_unit(target.spec, question.unit, target.dictionaries)
    if question.tool:
        find_tool(question.tool).parse(question.arguments)
    names = tuple(task_meant(task) for task in question.tasks)
    if len(set(names)) < len(names):
        raise UserError(
            f"{question.text!r} names the task {names[0]!r} twice: compare the circuits of two different ones"
        )
    return replace(question, tasks=names)


def check_registered(question: Question, context: ToolContext) -> None:
    """Refuses labels, other models and heads that are not registered, a label that no row has, and a read-out that is not there."""
    for name in question.others:
        context.registered.other(name)
    if question.labels:
        context.registered.labelled(question.labels).positive(question.answer)
    if question.intent == "changed":
        checkpoint_meant(question, context.registered)
    check_readout(question, context)


def checkpoint_meant(question: Question, registered: Registered) -> tuple[str]:
    """The name of the checkpoint that is compared. Refuses to guess it."""
    if question.others:
        return (question.others[0],)
    if len(registered.others) != 1:
        known = f"there are {', '.join(sorted(registered.others))}" if registered.others else "none is registered"
        raise ToolRefused(
            f"{question.text!r} names no other checkpoint ({known}): register one with --other NAME=FOLDER and ask "
            '"what changed in NAME"'
        )
    return (next(iter(registered.others)),)


def understood(session: Session) -> Question:
    """The question of a run: as the parser reads it, else as the language model of the run rewords it for the parser.

    Raises UserError with the parser's reason where there is no language model, NotUnderstood where that fails too, and BudgetSpent
    where it may not be asked.
    """
    text, target = session.config.question, session.context.target
    registered = session.context.registered
    try:
        return _with_other(read_question(text, target), registered)
    except UserError as error:
        if isinstance(error, ToolRefused) or session.config.llm is None or not text.strip():
            raise
    gateway = gateway_of(session)
    try:
        question = gateway.ask(_request(session, text), lambda reply: _read(reply, target), about=session.run)
    except OutOfBudget as error:
        raise BudgetSpent(f"{error}, so that the question is not understood") from None
    except NoReply as error:
        raise NotUnderstood(f"the question is not understood: {error}; {OWN_WORDS}") from None
    session.say("asked", f"taken as: {question.text}")
    gateway.budget.turned_out(session.run, about_of(session, question))
    return _with_other(replace(question, text=text), registered)


def _with_other(question: Question, registered: Registered) -> Question:
    return (
        replace(question, others=checkpoint_meant(question, registered)) if question.intent == "changed" else question
    )


def about_of(session: Session, question: Question) -> str:
    """Whose own limits the calls of a question are counted under: its unit, its run where it has none."""
    return session.run if question.unit is None else question.unit.with_sign(1).address


def _request(session: Session, text: str) -> Request:
    if len(text) > MAX_QUESTION:
        raise NotUnderstood(f"the question has {len(text):,} characters, at most {MAX_QUESTION:,} can be understood")
    spec, model = session.context.target.spec, gateway_of(session).model
    target = (
        f"The model is {spec.name}: layers 0 to {spec.n_layers - 1}, in each heads 0 to {spec.n_heads - 1} and neurons 0 to "
        f"{spec.d_mlp - 1}{_experts(spec.n_experts)}."
        + _features(session.context.target)
        + f" {named(session.config)}".rstrip()
    )
    listed = [{"name": tool.name, "summary": tool.summary} for tool in registry().values() if not tool.opens_test_text]
    prompt = render("route", text=text, target=target, tasks=[task.name for task in tasks()], tools=listed)
    return Request("route", render("route_system"), prompt, Understood, min(1_000, model.max_tokens))


def _experts(n: int) -> str:
    return (
        f" in each of the experts 0 to {n - 1} (neuron 5 of expert 7 of layer 2 is 2.e7.5, its router's share 2.r7)"
        if n
        else ""
    )


def _features(target: TargetModel) -> str:
    """The features that can be asked about, in words."""
    return "".join(
        f" Dictionary {name} of layer {dictionary.layer} has features {SAE}{name}/0 to {dictionary.width - 1}."
        for name, dictionary in sorted(target.dictionaries.items())
    )


def _read(reply: str, target: TargetModel) -> Question:
    try:
        found = Understood.model_validate_json(reply, strict=True)
    except ValidationError:
        raise Malformed('it is not an object {"question": "...", "say": "..."}.') from None
    if not found.question.strip():
        raise NotUnderstood(plain(found.say, 300) or "the language model finds no question in this")
    try:
        return read_question(found.question, target)
    except UserError as error:
        raise Malformed(f"the program does not take {plain(found.question, 200)!r}: {plain(str(error), 300)}") from None

"""What a conversation can do: ask whole questions, test a hypothesis, look with a tool, read the notebook. Nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuronaut.agent.answer import answer_of
from neuronaut.agent.llm.base import Call, Offered, plain
from neuronaut.agent.llm.offer import arguments_of, called, offered
from neuronaut.agent.questions import parse_question
from neuronaut.agent.session import BudgetSpent, Session
from neuronaut.agent.tool_output import result_lines
from neuronaut.agent.words import results_of
from neuronaut.memory import queries
from neuronaut.memory.search import search
from neuronaut.prompts import fenced
from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.registry import Tool, ToolResult, registry

DEAR = frozenset(
    {"ask_question", "test_hypothesis", "find_circuit", "compare_circuits", "shared_circuits", "backup_heads",
     "describe_program", "dream", "tune_lens"}
)  # fmt: skip  # thousands of forward passes
LONGEST = 3_000  # characters of a result that go to the language model
MOST_FINDINGS = 20
Answer = Callable[[str], str]  # a question to the id of the run that answers it


class AskQuestion(BaseModel):
    """Answer one question by registered, tested hypotheses: what does neuron L.I do, what does head L.I do, which heads are KIND
    heads, which PARTS matter for 'PROMPT', why does the model say 'ANSWER' after 'PROMPT', find the circuit for TASK, compare the
    circuits of TASK and TASK, which parts do TASK and TASK share, what remains of TASK without its most important head, does the
    read-out of L.I at resid_post L use it, dream of L.I; with what is known by name: what changed in MODEL, match the units with MODEL,
    find units for the concept CONCEPT in LABELS, does head HEAD use neuron L.I. Dear: the person is asked first."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(max_length=1_000, description="in one of these forms")


class TestHypothesis(BaseModel):
    """Test a hypothesis of the person about one neuron against rivals on unseen text. Dear: the person is asked first."""

    model_config = ConfigDict(extra="forbid")
    unit: str = Field(max_length=40, description="a neuron, such as 8.481, or 8.481- for its downward side")
    predicate: str = Field(max_length=5_000, description='in the predicate language, such as at(1, token(" in"))')


class SearchFindings(BaseModel):
    """Claims in the notebook that hold all the words and facets (unit:8.481 status:supported side:reads author:…), newest first."""

    model_config = ConfigDict(extra="forbid")
    words: str = Field(max_length=200, description="words and facets; empty for all")


class ShowRecord(BaseModel):
    """One record of the notebook by its id; of a run, its answer."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(max_length=40, description="as it stands in a result")


OWN: dict[str, type[BaseModel]] = {
    "ask_question": AskQuestion,
    "test_hypothesis": TestHypothesis,
    "search_findings": SearchFindings,
    "show_record": ShowRecord,
}


@dataclass(frozen=True)
class Found:
    """What an action gave. text: for the language model; shown: for the person, "" where `answer` says it; failed: refused."""

    text: str
    shown: str = ""
    answer: dict[str, Any] | None = None
    failed: bool = False


TAKING_OBJECTS = ("activations_in_generation", "chat_tokens", "intervene")


def looks() -> list[Tool]:
    """The registered tools that a conversation may call: those that open no text on which claims are tested, and take no
    objects."""
    return [tool for tool in registry().values() if not tool.opens_test_text and tool.name not in TAKING_OBJECTS]


def all_offered() -> tuple[Offered, ...]:
    """All that the language model may call, always in the same order."""
    own = [
        Offered(
            name,
            " ".join((form.__doc__ or "").split()),
            {
                "type": "object",
                "properties": {
                    field: {"type": "string", "description": about.description}
                    for field, about in form.model_fields.items()
                },
                "required": list(form.model_fields),
                "additionalProperties": False,
            },
        )
        for name, form in OWN.items()
    ]
    return (*own, *map(offered, looks()))


def act(session: Session, call: Call, answer: Answer) -> Found:
    """Do what a call asks for. A call that cannot be done is a sentence, never an exception, and costs no forward pass."""
    try:
        if call.name in OWN:
            return _own(session, call, answer)
        tool, args = called(call, looks(), OWN)
        done = session.experiment(tool.name, args.model_dump(mode="json"))
        shown = "\n".join(result_lines(ToolResult(tuple(done.measurements.values()), done.payload)))
        return Found(_for_model(f"experiment [{done.id}]\n{shown}"), shown)
    except (UserError, ToolFailed, BudgetSpent) as error:
        return Found(f"refused: {plain(str(error), 1_000)}", f"refused: {error}", failed=True)


def _own(session: Session, call: Call, answer: Answer) -> Found:
    try:
        args: Any = OWN[call.name].model_validate(arguments_of(call), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{call.name}: argument {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    match args:
        case AskQuestion():
            return _answered(session, args.question, answer)
        case TestHypothesis():
            question = f"test {args.unit}: {args.predicate}"
            if parse_question(question).given is None:
                raise UserError(f"{args.unit!r} is no neuron: write it as LAYER.INDEX")
            return _answered(session, question, answer)
        case SearchFindings():
            rows = search(session.notebook, args.words, limit=MOST_FINDINGS)
            lines = [f"{row['status']} {row['address']} {row['side']}: {row['claim']} [{row['id']}]" for row in rows]
            return Found(_for_model("\n".join(lines) or "nothing found"), "\n".join(lines) or "nothing found")
        case _:
            return _record(session, args.id)


def _answered(session: Session, question: str, answer: Answer) -> Found:
    found = answer_of(session.notebook, answer(question))
    return Found(_for_model("\n".join(_told(found))), answer=found)


def _told(answer: dict[str, Any]) -> list[str]:
    lines = [f"{one.line} [{one.evidence[0]}]" for one in results_of(answer).values()]
    return [f"run [{answer['run']}], {answer['outcome']}", *lines]


def _record(session: Session, identifier: str) -> Found:
    table, row = queries.find(session.notebook, identifier)
    if table == "run":
        return Found(_for_model("\n".join(_told(answer_of(session.notebook, identifier)))), f"run {identifier}")
    text = "\n".join(f"{name}: {plain(str(value), 600)}" for name, value in row.items() if value is not None)
    return Found(_for_model(f"{table}\n{text}"), text)


def _for_model(text: str) -> str:
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST]}\n… cut; {len(text) - LONGEST:,} more characters"
    return fenced("result", cut)

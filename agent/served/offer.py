"""All that another program can call: a closed list of names, each with the schema of its arguments and what it does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from neuronaut.agent.questions import parse_question
from neuronaut.agent.served import findings
from neuronaut.agent.served.bench import Bench, Row
from neuronaut.agent.served.findings import ID, ClaimsAbout, ListRuns, SearchClaims, ShowRecord, Verdict, Wanted
from neuronaut.agent.served.shown import shown
from neuronaut.agent.session import Say
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.registry import Tool, registry
from neuronaut.tools.units import Unit

# Tools that change nothing in the model and keep nothing: what is not named here needs leave.
_LOOKS = """
    activations_on attention_on capture decompose describe_heads head_scores head_tokens logit_lens mistakes model_card
    prediction_story promoted_tokens tasks token_table top_examples weights_of
"""
LOOKS = frozenset(_LOOKS.split())
WITH_TEXT = {
    "type": "boolean",
    "default": False,
    "description": "also texts of corpus and model, apart and marked as data",
}


class Ask(Wanted):
    """Answer one question by registered hypotheses that are tested on unseen text and judged by code. Takes from seconds to
    minutes.

    what does neuron L.I do, what does head L.I do, what does feature sae:NAME/I do, which heads are KIND heads, describe every head,
    which PARTS matter for 'PROMPT', why does the model say 'ANSWER' after 'PROMPT', how does the model come to 'ANSWER' after 'PROMPT',
    find the circuit for TASK, compare the circuits of TASK and TASK, which parts do TASK, TASK and TASK share, what remains of TASK
    without its most important head, does the read-out of L.I at resid_post L use it, dream of L.I; with what is known by name:
    what changed in MODEL, match the units with MODEL, find units for the concept CONCEPT in LABELS, does head HEAD use neuron L.I."""

    question: str = Field(min_length=1, max_length=1_000, description="in one of these forms")
    fast: bool = Field(default=False, description="one side only: of a neuron when it fires, of a head where it looks")
    again: bool = Field(default=False, description="measure anew what the notebook knows already")


class ProposeClaim(Wanted):
    """Put a hypothesis of your own about a neuron or feature to the test: it is registered, tested against rivals on unseen text
    and judged by code like any other. The predicate, not its words, is what is tested: at(1, token(" in")) is "just after ' in'"."""

    unit: str = Field(
        min_length=1, max_length=100, description="a neuron, 8.481 or 8.481- for its downward side, or a feature"
    )
    predicate: str = Field(min_length=1, max_length=5_000, description="in the predicate language")


class Rerun(Wanted):
    """Measure a run or an experiment again beside the old one: identical, within tolerance, or different, and which input differs."""

    id: str = ID


@dataclass(frozen=True)
class Offer:
    """One thing that can be called. reads: it records nothing; needs_model: only one such call is worked on at a time."""

    name: str
    description: str
    schema: dict[str, Any]
    reads: bool
    needs_model: bool
    work: Callable[[Bench, Mapping[str, Any]], Callable[[Say], Row]]

    def prepared(self, bench: Bench, arguments: Mapping[str, Any]) -> Callable[[Say], Row]:
        """The work that a call asks for. Refuses arguments that do not fit, before anything is opened."""
        return self.work(bench, arguments)


@cache
def offers(*, allow_run: bool) -> dict[str, Offer]:
    """All that is offered, by name, always in the same order."""
    listed = [
        _about_notebook("search_claims", SearchClaims, findings.search_claims),
        _about_notebook("claims_about", ClaimsAbout, findings.claims_about),
        _about_notebook("verdict", Verdict, findings.verdict),
        _about_notebook("show_record", ShowRecord, findings.show_record),
        _about_notebook("list_runs", ListRuns, findings.list_runs),
        *(_tool(tool, reads=True) for tool in registry().values() if tool.name in LOOKS),
    ]
    if allow_run:
        listed += [
            _run(
                "ask",
                Ask,
                lambda bench, args, say: bench.answered(args.question, say, fast=args.fast, again=args.again),
            ),
            _run("propose_claim", ProposeClaim, _proposed),
            _run("rerun", Rerun, lambda bench, args, say: bench.repeated(args.id, say)),
            *(
                _tool(tool, reads=False)
                for tool in registry().values()
                if tool.name not in LOOKS and not tool.opens_test_text
            ),
        ]
    return {offer.name: offer for offer in listed}


def offered(name: str, *, allow_run: bool) -> Offer:
    """What is offered under a name. Refuses an unknown one, and one that needs leave."""
    known = offers(allow_run=allow_run)
    if name in known:
        return known[name]
    if name in offers(allow_run=True):
        raise ToolRefused(
            f"{name} does experiments, and this server only reads: start it as `neuronaut mcp --allow-run`"
        )
    raise ToolRefused(f"there is no tool {name[:60]!r} here: choose from {', '.join(known)}")


def _proposed(bench: Bench, args: ProposeClaim, say: Say) -> Row:
    return bench.answered(_hypothesis(args), say, fast=False, again=False)


def _hypothesis(args: ProposeClaim) -> str:
    """The question that puts a hypothesis to the test. Refuses what is none."""
    unit = Unit.parse(args.unit)
    if unit.kind not in ("neuron", "feature"):
        raise ToolRefused(f"{unit.address} is a {unit.kind}: claims of your own can be about a neuron or a feature")
    question = f"test {unit.address}: {args.predicate}"
    parse_question(question)
    return question


def _about_notebook(name: str, form: type[Any], read: Callable[[Notebook, Any], Row]) -> Offer:
    def work(bench: Bench, arguments: Mapping[str, Any]) -> Callable[[Say], Row]:
        args = _parsed(name, form, arguments)

        def found(say: Say) -> Row:
            with bench.notebook() as notebook:
                return shown(read(notebook, args), with_text=args.with_text)

        return found

    return Offer(name, _words(form), form.model_json_schema(), reads=True, needs_model=False, work=work)


def _run(name: str, form: type[Any], do: Callable[[Bench, Any, Say], Row]) -> Offer:
    def work(bench: Bench, arguments: Mapping[str, Any]) -> Callable[[Say], Row]:
        args = _parsed(name, form, arguments)
        if isinstance(args, Ask):
            parse_question(args.question)
        elif isinstance(args, ProposeClaim):
            _hypothesis(args)
        return lambda say: shown(do(bench, args, say), with_text=args.with_text)

    return Offer(name, _words(form), form.model_json_schema(), reads=False, needs_model=True, work=work)


def _tool(tool: Tool, *, reads: bool) -> Offer:
    schema = tool.args.model_json_schema()
    schema = {**schema, "properties": {**schema.get("properties", {}), "with_text": WITH_TEXT}}

    def work(bench: Bench, arguments: Mapping[str, Any]) -> Callable[[Say], Row]:
        given = dict(arguments)
        with_text = given.pop("with_text", False)
        if not isinstance(with_text, bool):
            raise ToolRefused(f"{tool.name}: argument with_text: it is true or false")
        args = tool.parse(given)
        do = bench.look if reads else bench.record
        return lambda say: shown(do(tool, args, say), with_text=with_text)

    description = tool.doc if reads else f"{tool.doc}\n\nRecorded as an experiment."
    return Offer(tool.name, description, schema, reads=reads, needs_model=True, work=work)


def _parsed(name: str, form: type[BaseModel], arguments: Mapping[str, Any]) -> Any:
    try:
        return form.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{name}: argument {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _words(form: type[BaseModel]) -> str:
    return " ".join((form.__doc__ or "").split())

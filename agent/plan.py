"""The steps that answer a question, by name: what a run works through, and goes on with after it was stopped."""

from collections.abc import Callable
from functools import partial
from typing import assert_never

from neuronaut.agent import causes, circuits, concepts, heads, matching, readouts, reads, writes
from neuronaut.agent.questions import Question
from neuronaut.agent.session import Session
from neuronaut.tools.units import Unit

Step = Callable[[Session], None]


def steps_of(question: Question, *, fast: bool) -> dict[str, Step]:
    """The steps of a question in order. fast: of a unit one side only, the reads side or where a head looks."""
    match question.intent:
        case "explain":
            assert question.unit is not None
            return _unit_steps(question.unit, question, fast=fast)
        case "look":
            return {question.tool: partial(causes.look, question=question)}
        case "kind":
            return {f"{question.kind} heads": partial(causes.heads_of_kind, question=question)}
        case "matter":
            return {"prompt": partial(causes.what_matters, question=question)}
        case "why":
            return {"prompt": partial(causes.why, question=question)}
        case "readout":
            return {"read-out": partial(readouts.answer, question=question)}
        case "circuit" | "compare":
            steps: dict[str, Step] = {
                Unit.of_task(task).address: partial(circuits.circuit, task=task, positions=question.by_position)
                for task in question.tasks
            }
            if question.intent == "compare":
                steps["comparison"] = partial(circuits.compare, tasks=question.tasks)
            return steps
        case "concept":
            return {f"concept {question.labels}": partial(concepts.find, question=question)}
        case "match":
            return {"matches": partial(matching.match, question=question)}
        case _ as never:
            assert_never(never)


def _unit_steps(unit: Unit, question: Question, *, fast: bool) -> dict[str, Step]:
    if question.role:
        return {f"{unit.address} role": partial(heads.role, unit=unit)}
    if unit.kind == "head":
        sides: dict[str, Step] = {
            f"{unit.address} look": partial(heads.look, unit=unit),
            f"{unit.address} attends": partial(heads.attends, unit=unit),
        }
        return sides if fast else sides | {f"{unit.address} role": partial(heads.role, unit=unit)}
    signed = [unit.with_sign(sign) for sign in question.signs]
    read: dict[str, Step] = {f"{one.address} reads": partial(reads.answer, unit=one) for one in signed}
    written: dict[str, Step] = {f"{signed[0].address} writes": partial(writes.answer, unit=signed[0])}
    if unit.kind == "router":  # which weighs what others write
        return read
    if question.given is not None:
        return written if question.given.kind in ("promotes", "suppresses") else read
    return read if fast else read | written

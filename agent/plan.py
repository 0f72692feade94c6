"""The steps that answer a question, by name: what a run works through, and goes on with after it was stopped."""

from collections.abc import Callable
from functools import partial
from typing import assert_never

from neuronaut.agent import (
    causes,
    changes,
    circuits,
    concepts,
    dreams,
    heads,
    matching,
    readouts,
    reads,
    stories,
    watching,
    writes,
)
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
        case "every":
            return {"heads": causes.every_head}
        case "matter":
            return {"prompt": partial(causes.what_matters, question=question)}
        case "why":
            return {"prompt": partial(causes.why, question=question)}
        case "story":
            return {"lens": stories.lens, "story": partial(stories.story, question=question)}
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
        case "changed":
            return {
                "what changed": partial(changes.what_changed, question=question, explain=partial(_explain, fast=fast))
            }
        case "survived":
            return {"what survived": partial(watching.ask_again, question=question)}
        case "dream":
            step: dict[str, Step] = {"dream": partial(dreams.dream, question=question)}
            unit = question.unit
            return step if unit is None else step | {f"{unit.address} reads": partial(reads.answer, unit=unit)}
        case "share":
            steps = {"shared parts": partial(circuits.shared, tasks=question.tasks)}
            return steps | {
                Unit.of_task(task).address: partial(circuits.shared_circuit, task=task, tasks=question.tasks)
                for task in question.tasks
            }
        case "backup":
            return {"backups": partial(circuits.backups, question=question)}
        case _ as never:
            assert_never(never)


def _explain(session: Session, unit: Unit, *, fast: bool) -> None:
    """What is done for the question what a unit does, in one go."""
    for step in _unit_steps(
        unit, Question("", "explain", unit, (1, -1) if unit.kind == "neuron" else (1,)), fast=fast
    ).values():
        step(session)


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

"""Tool calls that no tool can take, made in a conversation: each is refused in one sentence, before any forward pass."""

import contextlib
import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from neuronaut.agent import opening, runs
from neuronaut.agent.chat.actions import OWN, act, looks
from neuronaut.agent.config import CONVERSATION
from neuronaut.agent.llm.base import Call
from neuronaut.agent.session import Session
from neuronaut.evals.injection import ground
from neuronaut.evals.soak import Experiment, Result
from neuronaut.memory.notebook import Notebook

UNITS: tuple[Any, ...] = (
    None,
    8,
    [],
    {},
    "x",
    "9999.1",
    "0.99999",
    "0.3; DROP TABLE run",
    "L0H9",
    "task:months",
    "\u202e0.3",
    "0.3\x00",
    "-1.2",
)
BROKEN = ("{", "[1]", "null", "3", '"a"', "{" * 50_000, "\ud800", '{"a": NaN', '{"unit": "\ud800"}', "\x00", "'unit'")


def wrong_call(rng: random.Random) -> Call:
    """A call that no tool can take: its name, its JSON, its fields, or their values."""
    tool = rng.choice(looks())
    name, example = tool.name, json.dumps(tool.args.example)
    extra = {**tool.args.example, rng.choice(["path", "url", "__class__", "sql", "code", "split", "block"]): "confirm"}
    wrong: list[tuple[str, str]] = [
        (rng.choice(["", "bash", "sql", f"{name} ", f"../{name}", "test_reads", "compare_on_design", "x" * 10_000, "__import__"]), example),
        (name, rng.choice(BROKEN)),
        (name, json.dumps(extra)),
        (rng.choice(["top_examples", "firing", "weights_of", "promoted_tokens"]), json.dumps({"unit": rng.choice(UNITS)})),
        ("top_examples", json.dumps({"unit": "0.3", "k": rng.choice([-1, 0, 10**9, 1.5, "many", [1]])})),
        (rng.choice(list(OWN)), rng.choice([*BROKEN, "{}", '{"question": 3}', '{"id": "../x"}', '{"words": 7}', '{"unit": "0.3"}'])),
        ("test_hypothesis", json.dumps({"unit": rng.choice(["0.3", "x"]), "predicate": rng.choice(["import os", "", "token(", "exec('x')"])})),
        ("ask_question", json.dumps({"question": rng.choice(["", "what is love", "1; DROP TABLE run", "what does neuron 99.1 do"])})),
    ]  # fmt: skip
    return Call("1", *rng.choice(wrong))


def run(seed: int, n: int) -> Result:
    """How `n` wrong calls came out, and a sentence for each that was not refused as it must be."""
    rng, result = random.Random(seed), Result()
    with tempfile.TemporaryDirectory() as name, Notebook(Path(name) / "n.db") as notebook:
        session = _session(Path(name), notebook, seed)
        for _ in range(n):
            call = wrong_call(rng)
            with contextlib.redirect_stderr(io.StringIO()):
                found = act(session, call, lambda question: _asked(session, question))
            told = f"{call.name[:40]} {call.arguments[:60]!r}"
            result.outcomes["refused" if found.failed else "done"] += 1
            if not found.failed:
                result.failures.append(f"{told} was not refused")
            if "\n" in found.text or not 20 < len(found.text) <= 1_100:
                result.failures.append(f"{told} was not refused in one sentence: {found.text[:80]!r}")
        if session.context.target.forwards:
            result.failures.append(f"{session.context.target.forwards:g} forward passes were spent")
    return result


def _asked(session: Session, question: str) -> str:
    config: Any = session.config.model_copy(update={"question": question, "conversation": f"{session.run}/0"})
    return runs.answer_in(session, config)


def _session(folder: Path, notebook: Notebook, seed: int) -> Session:
    config = ground(folder, seed).config.model_copy(update={"question": CONVERSATION})
    with contextlib.redirect_stderr(io.StringIO()):
        target, corpus = opening.open_inputs(config, lambda label, line: None)
        size = (corpus.name, corpus.sha256, corpus.n_characters)
        run_id = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
        context = opening.context_of(target, corpus, lambda label, line: None)
    return Session(run_id, config, notebook, context, [], lambda label, line: None)


CALLS = Experiment("wrong tool calls", 500, "be refused in one sentence, before any forward pass", run)

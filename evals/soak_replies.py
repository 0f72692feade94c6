"""Malformed structured replies: no crash, nothing guessed, one repair."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from neuronaut.agent.llm.base import Request
from neuronaut.agent.llm.budget import Budget
from neuronaut.agent.llm.gateway import Gateway, NoReply
from neuronaut.agent.llm.prices import Prices
from neuronaut.agent.llm.scripted import ScriptedModel
from neuronaut.agent.proposers.replies import KEPT, MAX_PREDICATE, READ, Hypotheses, Reading, read_hypotheses
from neuronaut.evals.soak import Experiment, Result
from neuronaut.evals.soak_http import Log
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import simplify

REQUEST = Request("propose", "the system prompt", "the prompt", Hypotheses)
GOOD = [
    "digit",
    'token(" and", " or")',
    "at(1, digit)",
    "all_of(starts_word, at(1, digit))",
    'word("Monday", ignore_case=True)',
]
BAD = [
    "", " ", "digits", "digit(", "at(digit)", "at(1)", "at(-1, digit)", "at(1e9, digit)", "not", "all_of()", "token()", "token(3)",
    'word_matches("(")', 'word_matches("(?=a)")', "__import__('os')", "digit; digit", "promotes(' a')", "digit\0", "\ud800", "⟦digit⟧",
    "within(0, digit)", "repeated(0)", "position(3, 1)", "true", "None", "lambda: digit", "graded(part(digit, 2))", "(" * 5_000,
    "digit " * 3_000, "not(" * 40 + "digit" + ")" * 40,
]  # fmt: skip
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    "",
    "x",
    [],
    {},
    [[]],
    {"a": {}},
    "digit",
    ["digit"],
    {"predicate": "digit"},
    "\udfff",
]


def run_replies(seed: int, n: int) -> Result:
    """Two replies for each case, so that what the repair brings may be malformed as well."""
    result, drawn = Result(), random.Random(seed)
    for case in range(n):
        texts = [reply(drawn), reply(drawn)]
        model, log = ScriptedModel(texts), Log()
        try:
            reading = Gateway(model, log, Budget(Prices("none", {}))).ask(REQUEST, read_hypotheses)
        except NoReply:
            outcome, wrong = "no reply", [] if model.given == 2 else [f"given up after {model.given} replies"]
        else:
            outcome = "read" if model.given == 1 else "read after a repair"
            wrong = list(_coerced(reading, texts[model.given - 1]))
        wrong += [f"{model.given} calls"] if model.given > 2 or len(log.ends) != model.given else []
        result.outcomes[outcome] += 1
        result.failures += [f"case {case} of seed {seed}: {one}" for one in wrong]
    return result


def reply(drawn: random.Random) -> str:
    """A malformed reply: valid JSON of a wrong shape, wrong predicates in a right one, or a right one as broken text."""
    body = _body(drawn)
    text = json.dumps(body, ensure_ascii=drawn.random() < 0.5)
    return drawn.choice(BREAKS)(text, drawn) if drawn.random() < 0.5 else text


def _body(drawn: random.Random) -> Any:
    entries: Any = [_entry(drawn) for _ in range(drawn.choice([0, 1, 2, 3, 6, 12, READ + 5]))]
    body: Any = {"hypotheses": entries, "against": drawn.choice([[], ["null"], _odd(drawn)])}
    for _ in range(drawn.randint(0, 2)):
        match drawn.randint(0, 5):
            case 0:
                body = _odd(drawn)
            case 1 if isinstance(body, dict):
                body["hypotheses"] = _odd(drawn)
            case 2 if isinstance(body, dict):
                body = {drawn.choice(["hypothesis", "Hypotheses", "", "hypotheses "]): entries}
            case 3:
                body = [body]
            case 4 if isinstance(body, dict):
                body["more"] = _odd(drawn)
    return body


def _odd(drawn: random.Random) -> Any:
    return copy.deepcopy(drawn.choice(ODD))


def _entry(drawn: random.Random) -> Any:
    entry: dict[str, Any] = {
        "claim": "It fires there.",
        "predicate": drawn.choice(GOOD if drawn.random() < 0.3 else BAD),
    }
    for _ in range(drawn.choice([0, 0, 1, 2])):
        match drawn.randint(0, 4):
            case 0:
                return _odd(drawn)
            case 1:
                entry[drawn.choice(["claim", "predicate"])] = _odd(drawn)
            case 2:
                entry.pop(drawn.choice(["claim", "predicate"]), None)
            case 3:
                entry[drawn.choice(["score", "", "Claim"])] = _odd(drawn)
    return entry


BREAKS: list[Callable[[str, random.Random], str]] = [
    lambda text, drawn: text[: drawn.randint(0, len(text))],
    lambda text, drawn: text[drawn.randint(0, len(text)) :],
    lambda text, _: f"```json\n{text}\n```",
    lambda text, _: f"Here you are: {text}",
    lambda text, _: text + text,
    lambda text, _: text.replace('"', "'"),
    lambda text, _: text.replace("}", ",}"),
    lambda text, drawn: _swapped(text, drawn),
    lambda text, _: text.replace(":", "=", 1),
    lambda _, __: "",
    lambda _, drawn: drawn.choice("[{") * 100_000,
    lambda text, _: "\ufeff" + text,
    lambda text, _: text.replace("digit", "NaN").replace('"NaN"', "NaN"),
    lambda _, drawn: "".join(
        chr(drawn.choice([0, 10, 34, 92, 123, 125, 8238, 0x1F642])) for _ in range(drawn.randint(1, 99))
    ),
]


def _swapped(text: str, drawn: random.Random) -> str:
    at = drawn.randrange(len(text))
    return text[:at] + drawn.choice('{}[]",:\\x0') + text[at + 1 :]


def _coerced(reading: Reading, text: str) -> Iterator[str]:
    """What was read that the reply does not say: each predicate must stand in an entry that is exactly a claim and a predicate."""
    said = json.loads(text)["hypotheses"][:READ]
    exact = [
        entry for entry in said
        if isinstance(entry, dict) and set(entry) == {"claim", "predicate"} and all(isinstance(v, str) for v in entry.values())
    ]  # fmt: skip
    stated = set()
    for entry in exact:
        if entry["predicate"] in GOOD and len(entry["predicate"]) <= MAX_PREDICATE:
            stated.add(simplify(parse_text(entry["predicate"])))
    for predicate in reading.predicates:
        if predicate not in stated:
            yield f"{predicate} stands in no entry"
    if len(reading.predicates) != min(KEPT, len(stated)):
        yield f"{len(reading.predicates)} predicates are read, {len(stated)} stated"
    if len(reading.predicates) + len(reading.left_out) != len(said):
        yield "an entry is neither read nor left out"


REPLIES = Experiment(
    "replies",
    3_000,
    "be read as they stand, or be asked for once more and given up; nothing crashes or is guessed",
    run_replies,
)

"""An answer in a language model's words: each sentence names the results that it rests on, or code drops it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from neuronaut.agent.llm.base import COMPLETE, plain
from neuronaut.memory import queries
from neuronaut.memory.store import Store

PURPOSE = "tell"
MOST_SENTENCES = 8
LONGEST = 400  # characters of a sentence
STATUS_WORDS = {
    "SUPPORTED": r"supported|proved|proven|confirmed|established|verified",
    "PARTIAL": r"partial|partly|partially",
    "UNRESOLVED": r"unresolved|undecided|inconclusive",
    "REFUTED": r"refuted|rejected|disproved|disproven|failed",
    "ABSTAINED": r"abstained",
}
_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?:\s*%)?(?![\w])", re.IGNORECASE
)
_UNIT = re.compile(r"\bL\d+H\d+\b|\bmlp\d+\b|\b(?:neuron|head)s?\s+\d+\.\d+-?|(?<![\w.])\d+\.\d+-", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|‘[^’]*’|`[^`]*`")


class Sentence(BaseModel):
    """One sentence, and the keys of the results that it rests on."""

    model_config = ConfigDict(extra="forbid")
    text: str
    evidence: list[str]


class Telling(BaseModel):
    """What was found, in a few sentences."""

    model_config = ConfigDict(extra="forbid")
    sentences: list[Sentence]


@dataclass(frozen=True)
class Result:
    """One result that a sentence may rest on: a claim with its verdict, an experiment, an outcome, or what is left over.

    line: as the language model is shown it. evidence: ids in the notebook. numbers: all that a sentence may quote.
    """

    line: str
    evidence: tuple[str, ...]
    numbers: tuple[float, ...]
    names: str
    status: str | None = None


def results_of(answer: Mapping[str, Any]) -> dict[str, Result]:
    """The results of an answer by their keys, in its own order: c1, c2, … claims, m… experiments, o… outcomes, u… left over."""
    found = {f"c{at}": _claim(claim) for at, claim in enumerate(answer["claims"], 1)}
    for at, one in enumerate(answer["measured"], 1):
        line = "; ".join([one["title"], *one["lines"]])
        found[f"m{at}"] = Result(f"measured: {line}", (one["experiment"],), _numbers_in(line), line)
    for at, one in enumerate(answer["outcomes"], 1):
        line = f"{one['status']} {one['unit']} {one['side']}: {one['reason']}"
        found[f"o{at}"] = Result(line, (answer["run"],), _numbers_in(line), line, one["status"])
    for at, one in enumerate(answer["unexplained"]["units"], 1):
        line = f"no tested claim covers {one['share']:.0%} of the firing of {one['unit']}"
        found[f"u{at}"] = Result(line, (answer["run"],), (one["share"], *_numbers_in(line)), line)
    return found


def _claim(claim: Mapping[str, Any]) -> Result:
    numbers = [*_all_numbers(claim["scores"]), *_all_numbers(claim["numbers"]), *_all_numbers(claim["pairs"])]
    rivals = [f"rival {one['claim']} ({one['status']}, {one['f1']:.2f})" for one in claim["rivals"][:2]]
    shown = {name: one["value"] for name, one in claim["scores"].items() if isinstance(one["value"], float)}
    scores = ", ".join(f"{name} {value:.3g}" for name, value in list(shown.items())[:6])
    line = f"{claim['status']} {claim['unit']} {claim['side']}: {claim['claim']} ({scores}; {claim['reason']})"
    line = "; ".join([line, *rivals])
    evidence = (claim["id"], *claim["evidence"])
    return Result(line, evidence, (*numbers, *_numbers_in(line)), f"{claim['unit']} {line}", claim["status"])


def _all_numbers(value: Any) -> Iterator[float]:
    """Every number inside a JSON value."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _all_numbers(one)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


def _numbers_in(text: str) -> tuple[float, ...]:
    return tuple(value for found in _NUMBER.findall(text) for value in [_value(found)[0]])


def _value(written: str) -> tuple[float, float]:
    """A number as written, per cent as a share, and half of its last digit."""
    share = 0.01 if written.rstrip().endswith("%") else 1.0
    digits = written.replace("%", "").replace(",", "").replace("−", "-").strip().lower()
    mantissa, _, exponent = digits.partition("e")
    step = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return float(digits) * share, step * share / 2


def fault_of(sentence: Sentence, results: Mapping[str, Result]) -> str:
    """Why a sentence may not stand in an answer; "" where it may."""
    text = sentence.text.strip()
    if not text or len(text) > LONGEST:
        return f"it is no sentence of at most {LONGEST} characters"
    if not sentence.evidence:
        return "it names no evidence"
    if unknown := [key for key in sentence.evidence if key not in results]:
        return f"there is no result {plain(unknown[0], 40)!r}"
    named = [results[key] for key in sentence.evidence]
    bare = _QUOTED.sub(" ", text)
    about = " ".join(one.names for one in named)
    for unit in _UNIT.findall(bare):
        if _address(unit) not in about:
            return f"its results are not about {plain(unit, 40)}"
    for written in _NUMBER.findall(_UNIT.sub(" ", bare)):
        value, half = _value(written)
        if not any(abs(abs(number) - abs(value)) <= half * 1.0001 for one in named for number in one.numbers):
            return f"{plain(written, 40)} is no number of its results"
    statuses = {one.status for one in named if one.status is not None}
    open_ = statuses - {"SUPPORTED"}
    if open_ and "SUPPORTED" not in statuses and not any(_says(status, bare) for status in open_):
        return f"it does not say that its claim is {' or '.join(sorted(open_))}"
    for status in STATUS_WORDS:
        if status not in statuses and _says(status, bare):
            return f"none of its results is {status}"
    return ""


def _says(status: str, text: str) -> bool:
    return re.search(rf"\b(?:{STATUS_WORDS[status]})\b", text, re.IGNORECASE) is not None


def _address(unit: str) -> str:
    return unit.split()[-1]


def read_telling(reply: str) -> Telling:
    """The sentences of a reply. Raises ValidationError where it holds none."""
    return Telling.model_validate_json(reply, strict=True)


def words_of(notebook: Store, answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sentences of the run's language model that stand, each with ids of the notebook, and how many were dropped and why;
    None where it told nothing."""
    told = [call for call in queries.calls(notebook, answer["run"]) if call["purpose"] == PURPOSE and call["end"]]
    whole = [call for call in told if call["end"]["response"] and call["end"]["stop_reason"] in COMPLETE]
    for call in reversed(whole):
        try:
            found = read_telling(call["end"]["response"])
        except ValidationError:
            continue
        results = results_of(answer)
        judged = [(one, fault_of(one, results)) for one in found.sentences[:MOST_SENTENCES]]
        return {
            "author": f"{call['provider']}:{call['model']}",
            "sentences": [
                {
                    "text": one.text.strip(),
                    "evidence": sorted({i for key in one.evidence for i in results[key].evidence}),
                }
                for one, fault in judged
                if not fault
            ],
            "left_out": [fault for _, fault in judged if fault],
        }
    return None

"""Which read-out a question is about, and which unit it may use."""

import re
from dataclasses import dataclass
from typing import Literal

from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit

ResidualName = Literal["resid_pre", "resid_post"]
OutputName = Literal["linear", "bins", "digits"]
_READOUT = re.compile(
    r"\b(?:read-?\s?out|probe|predictor)\b.*?\b(?:of|for)\s+(?:neuron\s+|unit\s+)?(?P<unit>\S+)(?P<rest>.*?)\b(?:use|read|see)s?\b",
    re.IGNORECASE | re.DOTALL,
)
_OF_HEAD = re.compile(
    r"\b(?:head|probe|read-?\s?out)\s+(?P<head>[A-Za-z][\w-]*)\s+(?:really\s+)?(?:use|read|see)s?\s+(?:the\s+)?"
    r"(?:neuron\s+|unit\s+)?(?P<unit>[\w:/-]+(?:\.[\w-]+)*)(?:\s+since\s+(?:the\s+)?(?P<since>[\w-]+(?:\.[\w-]+)*))?",
    re.IGNORECASE,
)
_SOME_READOUT = re.compile(
    r"\b(?:this|that|my|our|a|the)\s+(?:probe|read-?\s?out|predictor)\s+(?:use|read|see)s?\b", re.IGNORECASE
)
_AT = re.compile(r"\b(resid_pre|resid_post)\s*(?:of\s+)?(?:layer\s+)?(\d{1,4})\b", re.IGNORECASE)
_A_HEAD = re.compile(r"L?\d+[.H]{1,2}\d+", re.IGNORECASE)
_AT_OTHER = re.compile(r"\bat\s+(\w+(?:\s+\d{1,4})?)", re.IGNORECASE)
_BY = re.compile(
    r"\b(?:by|with|as|into)\s+(?!lin\w*\b|(?:the\s+)?(?:\d+\s+)?(?:bins?|class\w*|digits?)\b)(\w+)", re.IGNORECASE
)
_A_NEURON = re.compile(r"(?<![\w.-])\d+\.\d+(?![\w]|\.\d)")


@dataclass(frozen=True)
class ReadoutAsked:
    """Which read-out: a saved head by its name (with the model before its training, where that is asked), or one to be trained
    at a site; layer None is that of the unit."""

    head: str = ""
    since: str = ""
    site: ResidualName = "resid_post"
    layer: int | None = None
    output: OutputName = "linear"


def readout_asked(whole: str, text: str) -> tuple[Unit, ReadoutAsked] | None:
    """The unit and the read-out of a question; None for one about something else. text: the question without what is quoted.

    Refuses a read-out that is not named, one without a site after "at", and one of another unit than is asked about.
    """
    saved = _OF_HEAD.search(text)
    if saved is not None and not _A_HEAD.fullmatch(saved["head"]):
        return Unit.parse(saved["unit"]), ReadoutAsked(head=saved["head"], since=saved["since"] or "")
    match = _READOUT.search(text)
    if match is None:
        if _SOME_READOUT.search(text):
            raise UserError(
                f'{whole!r} names no read-out: register it with --head NAME=FOLDER and ask "does head NAME use neuron 8.481"'
            )
        return None
    unit = Unit.parse(match["unit"].strip("?,.!"))
    if any(Unit.parse(other) != unit for other in _A_NEURON.findall(text[match.end() :])):
        raise UserError(
            f"{whole!r} asks about another unit than the read-out is of: save it, register it with --head NAME=FOLDER and ask "
            '"does head NAME use neuron 8.480"'
        )
    return unit, _trained(whole, text, match["rest"], unit)


def _trained(whole: str, text: str, rest: str, unit: Unit) -> ReadoutAsked:
    """The read-out that is to be trained."""
    bins, digits = (re.search(words, text, re.IGNORECASE) for words in (r"\b(?:bins?|class(?:es)?)\b", r"\bdigits?\b"))
    output: OutputName = "bins" if bins else "digits" if digits else "linear"
    site = _AT.search(text)
    if (other := _BY.search(rest)) is not None:
        raise UserError(
            f"{whole!r} wants a read-out by {other[1]!r}: there are linear ones, by bins and by digits (or your own, with --head NAME=FOLDER)"
        )
    if site is None and (other := _AT_OTHER.search(rest)) is not None:
        raise UserError(
            f'{whole!r} names no site ({other[1]!r} is none): write "does the read-out of {unit.address} at resid_post {unit.layer} use it"'
        )
    if site is None:
        return ReadoutAsked(output=output)
    name: ResidualName = "resid_pre" if site[1].lower() == "resid_pre" else "resid_post"
    return ReadoutAsked(site=name, layer=int(site[2]), output=output)

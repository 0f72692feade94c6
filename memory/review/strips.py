"""Contexts as strips of tokens: each with what the unit did there, and what a claim says that it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
SHOWN = 8  # contexts of a band
STEPS = 4  # shades to each side of zero
BANDS = {
    "top": "strongest",
    "quantiles": "from strongest to weakest",
    "random": "random places",
    "near_miss": "near misses",
}


@dataclass(frozen=True)
class Token:
    """One token. shade: m4 … m1, z0, p1 … p4; predicted: whether the claim is true here, None where no claim was asked."""

    piece: str
    activation: float | None
    shade: str
    centre: bool = False
    predicted: float | None = None


@dataclass(frozen=True)
class Strip:
    """One context: its tokens, the activation at its centre, the document it comes from, and what is special about it."""

    tokens: tuple[Token, ...]
    activation: float | None
    document: int | None
    note: str = ""
    predicted: float | None = None


@dataclass(frozen=True)
class Band:
    """Contexts that were chosen by one rule. command: what would look, where nobody did; then there are no strips."""

    name: str
    title: str
    rule: str
    strips: tuple[Strip, ...]
    experiment: str = ""
    run: str = ""
    claim: str = ""
    command: str = ""


def bands_of(args: Row, payload: Row) -> list[Band]:
    """The contexts that a tool found, in bands; none where it found no contexts."""
    if "bands" in payload:
        rows = payload["bands"].items()
        return [Band(name, BANDS.get(name, name), str(row["rule"]), strips_of(row["examples"])) for name, row in rows]
    if "missed" in payload and "silent" in payload:
        wrong = [{**row, "note": "it fires, and the claim does not hold"} for row in payload["missed"]]
        wrong += [{**row, "note": "the claim holds, and it does not fire"} for row in payload["silent"]]
        return [Band("near_miss", BANDS["near_miss"], str(payload.get("text", "")), strips_of(wrong))]
    contexts = payload.get("examples") or payload.get("texts") or []
    if not contexts or not all(isinstance(one, dict) and {"pieces", "activations"} <= one.keys() for one in contexts):
        return []
    name = str(args.get("band", "texts"))
    return [Band(name, BANDS.get(name, "the given texts"), str(payload.get("rule", "")), strips_of(contexts))]


def strips_of(examples: Sequence[Row]) -> tuple[Strip, ...]:
    """Strips of the contexts of a tool, on one scale of colours."""
    examples = examples[:SHOWN]
    most = max((abs(a) for one in examples for a in one["activations"] if a is not None), default=0.0)
    return tuple(_strip(one, most) for one in examples)


def _strip(example: Row, most: float) -> Strip:
    pieces, activations = example["pieces"], example["activations"]
    predicted = example.get("predicted") or [None] * len(pieces)
    centre = example.get("centre")
    tokens = tuple(
        Token(str(piece), value, shade(value, most), at == centre, told)
        for at, (piece, value, told) in enumerate(zip(pieces, activations, predicted, strict=False))
    )
    document = example.get("document")
    note = f"from “{example['query']}” to “{example['key']}”" if "key" in example else str(example.get("note", ""))
    told = predicted[centre] if centre is not None and centre < len(predicted) else None
    return Strip(tokens, example.get("activation"), document, note, told)


def shade(value: float | None, most: float) -> str:
    """The class of a colour: how far a value lies from zero, on a scale that ends at `most`."""
    if value is None or most <= 0:
        return "z0"
    step = round(STEPS * min(abs(value) / most, 1.0))
    return "z0" if step == 0 else f"{'p' if value > 0 else 'm'}{step}"

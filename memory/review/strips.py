"""Contexts as strips of tokens: each with what the unit did there, and what a claim says that it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
STEPS = 4  # shades to each side of zero
BANDS = {
    "top": "strongest",
    "quantiles": "from strongest to weakest",
    "random": "random places",
    "near_miss": "near misses: the claim is wrong here",
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


def strips_of(examples: Sequence[Row]) -> tuple[Strip, ...]:
    """Strips of the contexts of a tool, on one scale of colours."""
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

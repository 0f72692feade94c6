"""Other models, labelled texts and saved heads that a run works with: named on the command line, fingerprinted, kept with the run."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from neuronaut.agent.config import Beside, RunConfig
from neuronaut.tools.errors import UserError
from neuronaut.tools.registered import Registered

if TYPE_CHECKING:
    from neuronaut.tools.readouts.heads import Head

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Kind(NamedTuple):
    """How one kind is named on the command line, and what it is called in words."""

    option: str
    place: str
    words: str


KINDS = {
    "others": Kind("--other", "FOLDER", "other model"),
    "labels": Kind("--labels", "FILE.jsonl", "labels"),
    "heads": Kind("--head", "FOLDER", "head"),
}  # by the field of a RunConfig


def registered_config(
    others: Sequence[str] | None, labels: Sequence[str] | None, heads: Sequence[str] | None
) -> dict[str, dict[str, Beside]]:
    """The fields of a RunConfig for what `--other NAME=FOLDER`, `--labels NAME=FILE` and `--head NAME=FOLDER` name, each with
    its hash.

    Refuses what has no name, or one twice, and what cannot be opened.
    """
    named = {"others": others, "labels": labels, "heads": heads}
    places = {kind: _places(kind, texts or ()) for kind, texts in named.items()}
    return {kind: _hashed(kind, found) for kind, found in places.items()}


def named(config: RunConfig) -> str:
    """What a run may use by name, in a sentence; "" for nothing."""
    found = [f"{KINDS[kind].words} {name}" for kind in KINDS for name in getattr(config, kind)]
    return f"Known by name: {', '.join(found)}." if found else ""


def opened(config: RunConfig) -> Registered:
    """What a run may use by name; a model is loaded no earlier than it is needed, and run as that of the run is."""
    from neuronaut.tools.labels import read_labels
    from neuronaut.tools.targets.others import OtherModel

    run_as = (config.backend, config.dtype, config.device)
    return Registered(
        {name: OtherModel(name, one.place, *run_as) for name, one in config.others.items()},
        {name: read_labels(name, Path(one.place)) for name, one in config.labels.items()},
        {name: _head(name, one.place) for name, one in config.heads.items()},
    )


def hashes_used(args: Mapping[str, Any], registered: Registered) -> dict[str, str]:
    """Name and hash of what the arguments of a tool name: its result depends on them."""
    text = json.dumps(args)
    return {
        f"{KINDS[kind].words} {name}": one.sha256
        for kind in KINDS
        for name, one in getattr(registered, kind).items()
        if json.dumps(name) in text
    }


def changed_registered(config: RunConfig) -> list[str]:
    """What of that which a run names holds something else than when it began. Refuses what is gone."""
    return [
        f"{KINDS[kind].words} {name}"
        for kind in KINDS
        for name, one in _hashed(kind, getattr(config, kind)).items()
        if one.sha256 != getattr(config, kind)[name].sha256
    ]


def _places(kind: str, texts: Sequence[str]) -> dict[str, Beside]:
    from neuronaut.agent.options import absolute

    found: dict[str, Beside] = {}
    for text in texts:
        name, place = _named(text, KINDS[kind])
        if name in found:
            raise UserError(f"{KINDS[kind].option} names two things {name!r}: give one of them another name")
        whole = absolute(place) if kind == "others" else str(Path(place).expanduser().resolve())
        found[name] = Beside(place=whole)
    return found


def _named(text: str, kind: Kind) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not equals or not place or not _NAME.fullmatch(name):
        raise UserError(
            f"{kind.option} {text!r} has no name: write {kind.option} NAME={kind.place}, the name of letters, digits, _ . and -"
        )
    return name, place


def _hashed(kind: str, found: Mapping[str, Beside]) -> dict[str, Beside]:
    return {name: Beside(place=one.place, sha256=_sha256(kind, name, one.place)) for name, one in found.items()}


def _sha256(kind: str, name: str, place: str) -> str:
    from neuronaut.tools.labels import read_labels
    from neuronaut.tools.targets.others import OtherModel

    match kind:
        case "others":
            return OtherModel(name, place).sha256
        case "labels":
            return read_labels(name, Path(place)).sha256
    return _head(name, place).sha256


def _head(name: str, place: str) -> "Head":
    from neuronaut.tools.readouts.heads import read_head  # torch, which takes seconds

    return read_head(place, name)

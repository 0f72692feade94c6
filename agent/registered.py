"""Other models and labelled texts that a run works with: named on the command line, fingerprinted, kept with the run."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuronaut.agent.config import Beside, RunConfig
from neuronaut.tools.errors import UserError
from neuronaut.tools.registered import Registered

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def registered_config(others: Sequence[str] | None, labels: Sequence[str] | None) -> dict[str, dict[str, Beside]]:
    """The fields of a RunConfig for what `--other NAME=FOLDER` and `--labels NAME=FILE` name, each with its hash.

    Refuses what has no name, or one twice, and what cannot be opened.
    """
    from neuronaut.agent.options import absolute

    named = [_named(text, "--other", "FOLDER") for text in others or ()]
    files = [_named(text, "--labels", "FILE.jsonl") for text in labels or ()]
    for some, option in ((named, "--other"), (files, "--labels")):
        if twice := [name for name, _ in some if [one for one, _ in some].count(name) > 1]:
            raise UserError(f"{option} names two things {twice[0]!r}: give one of them another name")
    places = {
        "others": {name: Beside(place=absolute(place)) for name, place in named},
        "labels": {name: Beside(place=str(Path(place).expanduser().resolve())) for name, place in files},
    }
    return {kind: _hashed(found, kind) for kind, found in places.items()}


def opened(config: RunConfig) -> Registered:
    """What a run may use by name; a model is loaded no earlier than it is needed."""
    from neuronaut.tools.labels import read_labels
    from neuronaut.tools.targets.others import OtherModel

    return Registered(
        {name: OtherModel(name, one.place) for name, one in config.others.items()},
        {name: read_labels(name, Path(one.place)) for name, one in config.labels.items()},
    )


def hashes_used(args: Mapping[str, Any], registered: Registered) -> dict[str, str]:
    """Name and hash of what the arguments of a tool name: its result depends on them."""
    text = json.dumps(args)
    known = {f"other {name}": one for name, one in registered.others.items() if json.dumps(name) in text}
    known |= {f"labels {name}": one for name, one in registered.labels.items() if json.dumps(name) in text}  # type: ignore[misc]
    return {name: one.sha256 for name, one in known.items()}


def changed_registered(config: RunConfig) -> list[str]:
    """What of a run's other models and labels holds something else than when it began. Refuses what is gone."""
    now = {kind: _hashed(getattr(config, kind), kind) for kind in ("others", "labels")}
    words = {"others": "other model", "labels": "labels"}
    return [
        f"{words[kind]} {name}"
        for kind, some in now.items()
        for name, one in some.items()
        if one.sha256 != getattr(config, kind)[name].sha256
    ]


def _named(text: str, option: str, what: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not equals or not place or not _NAME.fullmatch(name):
        raise UserError(
            f"{option} {text!r} has no name: write {option} NAME={what}, the name of letters, digits, _ . and -"
        )
    return name, place


def _hashed(found: Mapping[str, Beside], kind: str) -> dict[str, Beside]:
    if not found:
        return {}
    from neuronaut.tools.labels import read_labels
    from neuronaut.tools.targets.others import OtherModel

    if kind == "others":
        return {n: Beside(place=one.place, sha256=OtherModel(n, one.place).sha256) for n, one in found.items()}
    return {n: Beside(place=one.place, sha256=read_labels(n, Path(one.place)).sha256) for n, one in found.items()}

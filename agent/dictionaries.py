"""The dictionaries of features that a run works with: which they are, and whether they are still the same."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuronaut.agent.config import DictionaryUsed, RunConfig
from neuronaut.tools.errors import UserError
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.drift import kept_drift
from neuronaut.tools.units import SAE


def known_dictionaries(config: RunConfig, target: TargetModel) -> RunConfig:
    """The configuration with what its dictionaries hold: those that it names, and those shipped with the model that its
    question or its batch speaks of. How far the number format of the target is from float32 is noted as well."""
    said = mentioned(f"{config.question} {json.dumps(config.labelling)}", target)
    of_features = (config.labelling or {}).get("kind") == "feature"
    named = [name for name in target.dictionaries if of_features or name in config.dictionaries or name in said]
    used = {name: _used(target.dictionaries[name], config.dictionaries.get(name)) for name in named}
    drift = None if config.dtype == "float32" else kept_drift(target.fingerprint())
    return config.model_copy(update={"dictionaries": used, "drift": None if drift is None else asdict(drift)})


def mentioned(text: str, target: TargetModel) -> list[str]:
    """The dictionaries of which a text names a feature or, quoted, the name."""
    return [name for name in target.dictionaries if f"{SAE}{name}/" in text or f'"{name}"' in text]


def weights_used(args: Mapping[str, Any], target: TargetModel) -> dict[str, str]:
    """Name and hash of each dictionary that the arguments of a tool name: its result depends on them."""
    return {name: target.dictionaries[name].sha256 for name in mentioned(json.dumps(args), target)}


def changed_dictionaries(config: RunConfig, target: TargetModel) -> list[str]:
    """Those of a run's dictionaries that hold something else than when it began, or are gone."""
    now = {name: dictionary.sha256 for name, dictionary in target.dictionaries.items()}
    return [f"dictionary {name}" for name, was in config.dictionaries.items() if was.sha256 != now.get(name)]


def dictionaries_named(texts: Sequence[str]) -> dict[str, DictionaryUsed]:
    """Name and whole path of each `NAME=FOLDER` or `FOLDER`. Refuses a name that is given twice."""
    from neuronaut.tools.targets.load import named_folder

    found: dict[str, DictionaryUsed] = {}
    for text in texts:
        called, folder = named_folder(text)
        place = Path(folder).expanduser().resolve()
        name = called or place.name
        if name in found:
            raise UserError(f"two dictionaries are called {name!r}: give one of them as --dictionary OTHER={place}")
        found[name] = DictionaryUsed(folder=str(place))
    return found


def _used(dictionary: Dictionary, given: DictionaryUsed | None) -> DictionaryUsed:
    layout = dictionary.layout
    return DictionaryUsed(
        folder=None if given is None else given.folder,
        sha256=dictionary.sha256,
        architecture=layout.architecture,
        site=layout.reads.name,
        layer=layout.reads.layer,
        width=layout.width,
    )

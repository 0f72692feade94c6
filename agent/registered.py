"""The saved heads and other models that a run works with: which they are, and whether they are still the same."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronaut.agent.config import FolderUsed, RunConfig
from neuronaut.tools.errors import UserError
from neuronaut.tools.registered import Registered

if TYPE_CHECKING:
    from neuronaut.tools.targets.base import TargetModel


def with_registered(config: RunConfig, heads: Sequence[str] | None, others: Sequence[str] | None) -> RunConfig:
    """The configuration with the heads and other models of each NAME=FOLDER. Refuses what has no name, and one name twice."""
    update = {"heads": _named("head", heads or ()), "others": _named("other", others or ())}
    return config.model_copy(update=update) if heads or others else config


def _named(option: str, texts: Sequence[str]) -> dict[str, FolderUsed]:
    found: dict[str, FolderUsed] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--{option} {text!r} has no name: write it as --{option} NAME=FOLDER")
        if name in found:
            raise UserError(f"two are called {name!r}: give one of them as --{option} OTHER={folder}")
        path = Path(folder).expanduser()
        place = str(path.resolve()) if option == "head" or path.exists() else folder  # a model may have a name on a hub
        found[name] = FolderUsed(folder=place)
    return found


def registered_in(config: RunConfig, target: "TargetModel") -> Registered:
    """What a configuration names, read. Refuses a head that was trained on another model, and what cannot be read."""
    if not (config.heads or config.others):
        return Registered()
    from neuronaut.tools.readouts.heads import check_head, read_head
    from neuronaut.tools.targets.load import load_target

    heads = {name: read_head(used.folder, name) for name, used in config.heads.items()}
    for head in heads.values():
        check_head(head, target.spec, target.fingerprint())
    others = {name: load_target(used.folder, backend=config.backend) for name, used in config.others.items()}
    hashes = {f"head:{name}": head.sha256 for name, head in heads.items()}
    return Registered(heads, others, hashes | {f"other:{name}": _sha256(one) for name, one in others.items()})


def _sha256(target: "TargetModel") -> str:
    own = target.fingerprint()
    return f"{own.weights_sha256}:{own.tokenizer_sha256}"


def hashed(config: RunConfig, registered: Registered) -> RunConfig:
    """The configuration with the hash of each head and other model."""

    def of(kind: str, used: Mapping[str, FolderUsed]) -> dict[str, FolderUsed]:
        return {
            name: one.model_copy(update={"sha256": registered.hashes.get(f"{kind}:{name}", "")})
            for name, one in used.items()
        }

    return config.model_copy(update={"heads": of("head", config.heads), "others": of("other", config.others)})


def unchanged(config: RunConfig, target: "TargetModel") -> Registered:
    """What a run names, read again. Refuses what holds something else than when the run began."""
    found = registered_in(config, target)
    for kind, used in (("head", config.heads), ("other", config.others)):
        for name, was in used.items():
            if was.sha256 != found.hashes[f"{kind}:{name}"]:
                raise UserError(
                    f"--{kind} {name}={was.folder} holds something else than when the run began: ask the question again"
                )
    return found


def registered_used(args: Mapping[str, Any], registered: Registered) -> dict[str, str]:
    """The hash of each head and other model that the arguments of a tool name: its result depends on them."""
    text = json.dumps(args)
    return {key: sha256 for key, sha256 in registered.hashes.items() if json.dumps(key.partition(":")[2]) in text}

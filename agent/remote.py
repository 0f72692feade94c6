"""What is done in a worker of a cluster: model and text are opened there once in a process, and computed with.

Nothing here knows how a worker is reached. What cannot be done is a value, `Refused`, since a worker has nobody to tell.
"""

import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import neuronaut
from neuronaut.agent import proposers
from neuronaut.agent.config import RunConfig
from neuronaut.agent.opening import context_of, open_inputs
from neuronaut.agent.session import tools_sha256
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import Fingerprint, ModelSpec, TargetModel

R = TypeVar("R")


class Code(NamedTuple):
    """Which code computes: the version of the package, and a hash of its tools and proposers."""

    version: str
    sha256: str


class Refused(NamedTuple):
    """Why a worker does not do what it was asked: it has other code, or cannot open model or text."""

    host: str
    reason: str
    code: Code


@dataclass(frozen=True)
class Order:
    """What a worker should open, and the code that it should have. inputs: model, corpus and dictionaries, as JSON."""

    inputs: str
    code: Code

    @classmethod
    def of(cls, config: RunConfig) -> "Order":
        """For the inputs of a run."""
        named = {"model", "backend", "dtype", "device", "corpus", "dictionaries", "others", "labels"}
        kept = config.model_dump(mode="json", include=named)
        return cls(json.dumps(kept, sort_keys=True), own_code())


@dataclass
class Described:
    """A target as far as it is known where its weights are not: it stands in for it where nothing is computed.

    forwards: of all that was computed for this one elsewhere. corpus: the hash of the text that was opened beside it.
    """

    spec: ModelSpec
    dictionaries: Mapping[str, Dictionary]
    own: Fingerprint
    corpus: str
    host: str
    forwards: float = field(default=0.0)

    def fingerprint(self) -> Fingerprint:
        """The target's."""
        return self.own

    def check_corpus(self, corpus: Corpus) -> None:
        """Refuses other text than what was opened there."""
        if self.corpus != corpus.sha256:
            raise UserError(
                f"the corpus {corpus.name!r} holds other text on {self.host} than here: bring all machines to one state of it"
            )

    @property
    def as_target(self) -> TargetModel:
        """Itself; whatever else is asked of it is a bug that an AttributeError shows."""
        return cast(TargetModel, self)


@cache
def own_code() -> Code:
    """The code of this process."""
    digest = hashlib.sha256(tools_sha256().encode())
    folder = Path(str(proposers.__file__)).parent
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return Code(neuronaut.__version__, digest.hexdigest())


@lru_cache(maxsize=1)
def opened(inputs: str) -> ToolContext:
    """Model and text, opened once in a process. Refuses what cannot be opened here."""
    config = RunConfig.model_validate({"question": "", **json.loads(inputs)})
    target, corpus = open_inputs(config, _silent)
    return context_of(target, corpus, _silent, config)


def _silent(_label: str, _line: str) -> None:
    pass


def with_inputs(order: Order, work: Callable[[ToolContext], R]) -> R | Refused:
    """What some work on the inputs gives, or why they cannot be opened here."""
    if own_code() != order.code:
        return Refused(socket.gethostname(), "", own_code())
    try:
        context = opened(order.inputs)
    except (UserError, OSError) as error:
        return Refused(socket.gethostname(), str(error), own_code())
    return work(context)


def describe(order: Order) -> Described | Refused:
    """The target that a worker opens, without its weights."""
    return with_inputs(order, described)


def described(context: ToolContext) -> Described:
    """A target without its weights."""
    target = context.target
    light = {name: replace(dictionary, weights={}) for name, dictionary in target.dictionaries.items()}
    host = f"{socket.gethostname()}/{os.getpid()}"
    return Described(target.spec, light, target.fingerprint(), context.corpus.sha256, host)


def accepted(answer: R | Refused, order: Order) -> R:
    """The answer of a worker. Refuses, in one sentence, where it could not open the inputs."""
    if not isinstance(answer, Refused):
        return answer
    if answer.code != order.code:
        raise UserError(
            f"the workers on {answer.host} have another version of the code ({answer.code.version}, {answer.code.sha256[:12]}) than "
            f"this process ({order.code.version}, {order.code.sha256[:12]}), so that their results would not be its own: install "
            "the same neuronaut on all machines of the cluster"
        )
    raise UserError(
        f"a worker on {answer.host} cannot open what it should work on ({answer.reason}): the paths of model, corpus and "
        "dictionaries must be on storage that all machines of the cluster share, or the corpus at a URL"
    )

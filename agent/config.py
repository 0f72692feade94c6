"""What a run was asked to do: everything needed to start it again is one value, stored with the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.load import Backend
from neuronaut.tools.targets.placement import DeviceName, DtypeName

CONVERSATION = "a conversation"  # the question of a run that holds one
Loop = Literal["full", "one-shot", "no-rivals", "random", "fast"]
Provider = Literal["openai", "anthropic", "compatible", "scripted", "recorded"]


class Budget(BaseModel):
    """Limits that stop a run before the next step; None is no limit. Money is in US dollars."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seconds: float | None = Field(default=None, gt=0)
    forwards: float | None = Field(default=None, gt=0)
    calls: int | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, ge=0)


class DictionaryUsed(BaseModel):
    """A dictionary of features; folder None is one that is shipped with the model. The rest is known once it was read: the
    hash of its files, its architecture, and the site and layer that it reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    folder: str | None = None
    sha256: str = ""
    architecture: str = ""
    site: str = ""
    layer: int = 0
    width: int = 0


class Beside(BaseModel):
    """An other model, a file of labels or a saved head: where it is, and the hash of what it held when the run began."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    place: str
    sha256: str = ""


class RunConfig(BaseModel):
    """One `ask`, as data. `model` and `corpus` are 'pocket' or paths; `llm` is provider:model or None.

    loop: the whole one, or one with a part taken out, to measure what the part is worth: the first hypothesis alone is
    tested, none has rivals, or they are tested in random order instead of the most promising first; fast: one hypothesis of
    a shorter search. conversation: the run and the place in it where the question was asked, None where it stands alone.
    batch: the same of a unit of a batch, whose own run has what it labels in `labelling`. drift: how far the number format
    moves activations from float32 (see tools.targets.drift), None where that is float32, or was not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    question: str
    model: str = "pocket"
    backend: Backend = "torch"
    dtype: DtypeName = "float32"
    device: DeviceName = "cpu"
    corpus: str | None = None
    llm: str | None = None
    base_url: str | None = None
    seed: int = 0
    fast: bool = False
    again: bool = False
    loop: Loop = "full"
    conversation: str | None = None
    batch: str | None = None
    labelling: dict[str, Any] | None = None
    budget: Budget = Budget()
    dictionaries: dict[str, DictionaryUsed] = {}
    drift: dict[str, float] | None = None
    others: dict[str, Beside] = {}
    labels: dict[str, Beside] = {}
    heads: dict[str, Beside] = {}


@dataclass(frozen=True)
class EngineOptions:
    """Where the work is done: in this process, or by `jobs` workers of `threads` processors on a Ray cluster at an address."""

    name: Literal["local", "ray"] = "local"
    jobs: int = 1
    threads: int = 1
    address: str = "local"


@dataclass(frozen=True)
class ModelName:
    """A language model as written on the command line: `anthropic:NAME`, `openai:NAME`, `compatible:NAME`, `scripted:FILE`,
    `recorded:NOTEBOOK`."""

    provider: Provider
    name: str


def parse_llm(text: str) -> ModelName:
    """The provider and model that `--llm` names. Refuses anything that is not provider:model."""
    provider, _, name = text.partition(":")
    if not name:
        raise UserError(f"--llm {text!r} names no model: write it as provider:model, for example openai:MODEL")
    match provider:
        case "openai" | "anthropic" | "compatible" | "scripted" | "recorded":
            return ModelName(provider, name)
    raise UserError(f"--llm {text!r}: the provider must be openai, anthropic, compatible, scripted or recorded")


def placed_llm(text: str | None) -> str | None:
    """The language model, where it is a file so that it means the same from any folder later."""
    provider, _, name = (text or "").partition(":")
    return f"{provider}:{Path(name).expanduser().resolve()}" if provider in ("scripted", "recorded") and name else text


def corpus_place(config: RunConfig) -> str | None:
    """The corpus file, folder or URL; None is the embedded one. Refuses to guess a corpus for another model than pocket."""
    if config.corpus in (None, "pocket"):
        if config.model != "pocket" and config.corpus is None:
            raise UserError(
                f"model {config.model!r} needs text to be studied on: give --corpus FILE (.txt, .jsonl, .parquet or a folder)"
            )
        return None
    return config.corpus

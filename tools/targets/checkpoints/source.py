"""A checkpoint as it was saved: its tensors by name, and its configuration."""

import json
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.folder import PICKLES
from neuronaut.tools.targets.weight_files import tensors_of

CONFIGURATIONS = ("config.json", "cfg.json", "model_args.json")
STATES, SETTINGS = ("model", "state_dict", "model_state_dict"), ("model_args", "cfg", "config")
FORMS = "a nanoGPT checkpoint (transformer.wte.weight …) or a TransformerLens state dict (embed.W_E …)"

LARGEST = 1_000_000  # number of a configuration: no size of a model is larger


@dataclass
class Source:
    """A checkpoint. name: of the file. tensors: in float32. taken: names of those that were asked for. version_4: see `native`."""

    name: str
    config: Mapping[str, Any]
    tensors: dict[str, Tensor]
    taken: set[str] = field(default_factory=set)
    version_4: bool = False

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor. Refuses one that is missing or of another shape."""
        if name not in self.tensors:
            raise UserError(
                f"{self.name!r} lacks {name!r}: the checkpoint is not whole, or not of the model in its configuration"
            )
        self.taken.add(name)
        found = self.tensors[name]
        if tuple(found.shape) != shape:
            raise UserError(
                f"{name!r} in {self.name!r} has shape {list(found.shape)} where its configuration says {list(shape)}: they do not "
                "belong together"
            )
        return found

    def take_or(self, name: str, fill: float, *shape: int) -> Tensor:
        """A tensor, or one filled with a number where there is none."""
        return self.take(name, *shape) if name in self.tensors else torch.full(shape, fill)

    def number(self, *names: str) -> int:
        """A whole number of the configuration, under the first of its names that is there. Refuses where none is."""
        for name in names:
            value = self.config.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST:
                return value
            if value is not None:
                raise UserError(
                    f"the configuration of {self.name!r} says {name} {str(value)[:40]!r}: it is a whole number from 1 to {LARGEST:,}"
                )
        raise UserError(
            f"the configuration of {self.name!r} does not say {names[0]!r}, which the weights alone do not show"
        )

    def decimal(self, name: str, otherwise: float) -> float:
        """A number of the configuration, `otherwise` where it says none. Refuses what is no number."""
        value = self.config.get(name)
        if value is None:
            return otherwise
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"{name!r} in the configuration of {self.name!r} is {value!r}, which is no number")
        return float(value)

    @property
    def native(self) -> bool:
        """Whether it is of version 4 of TransformerLens, before its names were made those of earlier ones or after."""
        return self.version_4 or "embed.weight" in self.tensors

    @property
    def pairs(self) -> bool:
        """Whether its rotary places turn neighbouring dimensions, as version 4 of TransformerLens always does."""
        return self.native or bool(self.config.get("rotary_adjacent_pairs"))

    def check_all_taken(self, unused: tuple[str, ...]) -> None:
        """Refuses tensors that nothing was made of. unused: endings of names that hold no weights, such as masks."""
        left = sorted(name for name in self.tensors.keys() - self.taken if not name.endswith(unused))
        if left:
            raise UserError(
                f"{self.name!r} holds {left[0]!r} ({len(left)} tensors in all), which has no place in the converted model: it "
                "would be another model without it"
            )


def read_source(place: Path, *, unsafe_pickle: bool, say: Callable[[str], None]) -> Source:
    """The checkpoint in a file, or the only one in a folder. say: is told what else happened.

    Refuses a pickle unless `unsafe_pickle`, files that are not whole, and what is neither of the forms that are known.
    """
    file = _file_of(place)
    if file.suffix in PICKLES:
        state, config = _unpickled(file, unsafe_pickle=unsafe_pickle, say=say)
    else:
        tensors_of(file)  # refuses a file that is not whole
        try:
            state, config = load_file(file), None
        except (SafetensorError, ValueError) as error:
            raise UserError(f"{file.name} in {str(file.parent)!r} cannot be read: {error}") from None
    for name, value in state.items():
        if value.is_complex() or value.layout != torch.strided or value.is_meta:
            raise UserError(
                f"{name!r} of the checkpoint holds no plain real numbers ({value.dtype}, {value.layout}): it is no weight"
            )
    state = {name.removeprefix("_orig_mod."): value.float() for name, value in state.items()}
    return Source(file.name, _beside(file) if config is None else config, state)


def _file_of(place: Path) -> Path:
    if place.is_file():
        if place.suffix not in (".safetensors", *PICKLES):
            raise UserError(
                f"{str(place)!r} is no checkpoint: give a .safetensors or, with --unsafe-pickle, a .pt file"
            )
        return place
    if not place.is_dir():
        raise UserError(f"there is no checkpoint {str(place)!r}: give the file or the folder that it lies in")
    safe = sorted(place.glob("*.safetensors"))
    found = safe or sorted(file for file in place.iterdir() if file.suffix in PICKLES)
    if len(found) != 1:
        which = f"{len(found)} checkpoints, {found[0].name} and others: name one" if found else "no checkpoint"
        raise UserError(f"the folder {str(place)!r} holds {which}")
    return found[0]


def _unpickled(
    file: Path, *, unsafe_pickle: bool, say: Callable[[str], None]
) -> tuple[dict[str, Tensor], Mapping[str, Any] | None]:
    if not unsafe_pickle:
        raise UserError(
            f"{str(file)!r} is a pickle, which can run code when it is opened: give --unsafe-pickle if you trust where it comes from, "
            "or the weights as .safetensors with a config.json beside them"
        )
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        say(
            f"{file.name} holds more than tensors and plain values, and is opened as a program would be: {_short(error)}"
        )
        try:
            found = torch.load(file, map_location="cpu", weights_only=False)
        except (pickle.UnpicklingError, ImportError, AttributeError, EOFError, RuntimeError, TypeError) as second:
            raise UserError(f"{file.name} cannot be opened ({type(second).__name__}): {_short(second)}") from None
    except (EOFError, RuntimeError, OSError) as error:
        raise UserError(f"{file.name} cannot be opened ({type(error).__name__}): {_short(error)}") from None
    if not isinstance(found, Mapping):
        raise UserError(f"{file.name} holds {type(found).__name__} and no state dict: {FORMS} is read")
    state = next((found[name] for name in STATES if isinstance(found.get(name), Mapping)), found)
    settings = next((found[name] for name in SETTINGS if name in found), None)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if settings is not None and not isinstance(settings, Mapping):
        settings = vars(settings) if hasattr(settings, "__dict__") else None
    return tensors, settings


def _short(error: BaseException) -> str:
    """The part of torch's page-long explanations that says what was found."""
    said = " ".join(str(error).split())
    named = re.search(r"Unsupported [a-z]+: [A-Z]* ?[\w.]+", said)
    return named[0] if named else said[:200]


def _beside(file: Path) -> Mapping[str, Any]:
    """The configuration that lies beside a file of weights."""
    names = (f"{file.stem}.json", *CONFIGURATIONS)
    for name in names:
        beside = file.with_name(name)
        if beside.is_file():
            try:
                found = json.loads(beside.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise UserError(f"{name} in {str(file.parent)!r} is not a JSON object")
            return found
    raise UserError(f"no configuration lies beside {file.name}: one of {', '.join(names)} must say its shape")

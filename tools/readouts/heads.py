"""A read-out as weights: one number for each place of the residual stream; kept in head.safetensors and config.json."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.files import write_whole
from neuronaut.tools.targets.base import ModelSpec, Site, TargetModel
from neuronaut.tools.targets.fingerprint import Fingerprint

Residual = Literal["resid_pre", "resid_post"]
Output = Literal["linear", "bins", "digits"]
WEIGHTS, CONFIG = "head.safetensors", "config.json"
MOST_BYTES = 1 << 30
MOST_CONFIG_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TAKEN = re.compile(r"L\d+(?:H\d+|N\d+)?", re.IGNORECASE)  # which name parts of a model


class HeadConfig(BaseModel):
    """What config.json says. centres: the value that each class stands for, of bins and digits. norm: `final` reads what
    the last norm of the model makes of the residual. weights_sha256: of the model that it was trained on."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    site: Residual
    layer: int = Field(ge=0)
    output: Output = "linear"
    norm: Literal["none", "final"] = "none"
    centres: tuple[FiniteFloat, ...] = ()


@dataclass(frozen=True, eq=False)
class Head:
    """A read-out. weight: (n, d_model), bias: (n,), centres: (n,) of classes; a linear one has n = 1 and no centres.

    sha256: of the files that it was read from, "" where it was made here. about: how it is spoken of.
    """

    about: str
    sha256: str
    config: HeadConfig
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)

    @property
    def site(self) -> Site:
        """Where it reads."""
        return Site(self.config.site, self.config.layer)

    def values(self, target: TargetModel, residual: Tensor) -> Tensor:
        """(…,) what it reads off a residual (…, d_model): of classes, their values weighted by their probabilities."""
        return self._of(target.final_norm(residual) if self.config.norm == "final" else residual)

    def _of(self, x: Tensor) -> Tensor:
        scores = x.float() @ self.weight.T + self.bias
        if self.config.output == "linear":
            return scores[..., 0]
        return scores.softmax(dim=-1) @ torch.tensor(self.config.centres)

    def direction(self, target: TargetModel, residual: Tensor) -> Tensor:
        """(d_model,) along which the residual moves it: its weights, of classes their mean over places (n, d_model); the
        gain of the last norm folded in, and its mean taken out, where that comes between."""
        folded = self.config.norm == "final"
        if self.config.output == "linear":
            found = self.weight[0]
        else:
            x = target.final_norm(residual).float() if folded else residual.float()
            chances, centres = (x @ self.weight.T + self.bias).softmax(dim=-1), torch.tensor(self.config.centres)
            pulls = chances * (centres - (chances @ centres)[:, None])
            found = pulls.mean(dim=0) @ self.weight
        if folded:
            found = found * target.final_norm_gain()
            found = found - found.mean() if target.spec.norm == "layernorm" else found
        return found


def read_head(folder: str | Path, name: str) -> Head:
    """The read-out in a folder. Refuses a folder without the two files, other tensors than `weight` and `bias` of one
    number of outputs, classes without their values, weights that are not finite, and a name that a part of a model has."""
    path = Path(folder).expanduser()
    if not _NAME.fullmatch(name) or _TAKEN.fullmatch(name):
        raise UserError(
            f"{name!r} cannot name a head: give --head NAME=FOLDER with letters, digits, '_' and '-', a letter first, "
            "and nothing that names a part of a model, such as L8H3"
        )
    files = {file: _bytes(path, file) for file in (WEIGHTS, CONFIG)}
    try:
        config = HeadConfig.model_validate_json(files[CONFIG])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise UserError(f"{CONFIG} of the head {str(path)!r} cannot be used: {where}: {first['msg']}") from None
    try:
        tensors = load(files[WEIGHTS])
    except SafetensorError as error:
        raise UserError(f"{WEIGHTS} of the head {str(path)!r} cannot be read: {error}") from None
    weight, bias = _checked(path, config, tensors)
    digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in files.values()))
    return Head(f"head {name}", digest.hexdigest(), config, weight, bias)


def _bytes(path: Path, file: str) -> bytes:
    try:
        size = (path / file).stat().st_size
        if size > (MOST_CONFIG_BYTES if file == CONFIG else MOST_BYTES):
            raise UserError(f"{file} of the head {str(path)!r} has {size:,} bytes, which is no read-out of one unit")
        return (path / file).read_bytes()
    except OSError as error:
        raise UserError(
            f"the head {str(path)!r} cannot be read ({file}: {error.strerror}): give a folder with {WEIGHTS} and {CONFIG}"
        ) from None


def _checked(path: Path, config: HeadConfig, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """weight (n, d_model) and bias (n,), zeros where the file has none."""
    weight = tensors.get("weight")
    if weight is None or weight.dim() not in (1, 2):
        raise UserError(f"{WEIGHTS} of the head {str(path)!r} holds no tensor `weight` (outputs, d_model)")
    weight = weight.float().reshape(-1, weight.shape[-1])
    bias = tensors.get("bias", torch.zeros(len(weight))).float().reshape(-1)
    n = 1 if config.output == "linear" else len(config.centres)
    if len(weight) != n or len(bias) != n or (config.output != "linear" and n < 2):
        raise UserError(
            f"the head {str(path)!r} has {len(weight)} outputs and {len(bias)} biases, and its {config.output} output needs "
            + (
                "one of each"
                if config.output == "linear"
                else f"as many as its {len(config.centres)} centres, at least 2"
            )
        )
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise UserError(f"the head {str(path)!r} has weights that are not finite: train it again")
    if _says_one_thing(config, weight):
        raise UserError(
            f"the head {str(path)!r} reads the same off every residual, or all numbers of it alike: train it again"
        )
    return weight, bias


def _says_one_thing(config: HeadConfig, weight: Tensor) -> bool:
    """Whether no direction tells residuals apart: equal weights, or classes with equal rows or values."""
    if config.output == "linear":
        return bool((weight == weight[0, 0]).all())
    return len(set(config.centres)) == 1 or bool((weight == weight[0]).all())


def save_head(head: Head, folder: str | Path) -> Path:
    """Writes head.safetensors and config.json. Refuses a folder that has a head."""
    path = Path(folder).expanduser()
    if (path / WEIGHTS).exists():
        raise UserError(f"{str(path)!r} holds a head already: name another folder")
    tensors = {"weight": head.weight.contiguous(), "bias": head.bias.contiguous()}
    write_whole(path / WEIGHTS, save(tensors))
    write_whole(path / CONFIG, (json.dumps(head.config.model_dump(mode="json"), indent=2) + "\n").encode())
    return path


def check_head(head: Head, spec: ModelSpec, own: Fingerprint) -> None:
    """Refuses a head that was trained on another model, for another width, or at a layer that the model does not have."""
    if head.weight.shape[1] != spec.d_model:
        raise UserError(
            f"{head.about} reads {head.weight.shape[1]} numbers, and the residual stream of {spec.name} has {spec.d_model}: "
            "it was trained on another model"
        )
    if head.config.weights_sha256 != own.weights_sha256:
        raise UserError(
            f"{head.about} was trained on a model with the weights {head.config.weights_sha256[:12]}…, and {spec.name} has "
            f"{own.weights_sha256[:12]}…: what it reads there is not known; give the model that it was trained on"
        )
    if head.config.layer >= spec.n_layers:
        raise UserError(
            f"{head.about} reads layer {head.config.layer}, which does not exist: {spec.name} has layers 0 to {spec.n_layers - 1}"
        )

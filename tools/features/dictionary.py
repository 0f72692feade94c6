"""A dictionary of features: what a sparse autoencoder or a transcoder makes of an activation, and what a feature adds to it.

The arithmetic is that of SAELens (github.com/jbloomAus/SAELens, its `encode` and `decode` at inference), in float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, assert_never

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.features.places import Place

Architecture = Literal[
    "standard",
    "gated",
    "jumprelu",
    "topk",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
]
Normalization = Literal["none", "constant_norm_rescale", "layer_norm"]
LAYER_NORM_EPS = 1e-5  # of SAELens, added to the standard deviation
MOST_VALUES = 2**24  # pre-activations held at once where all are needed to know some


class Normed(NamedTuple):
    """An input as the encoder takes it, and how to undo it: x = normed * scale + shift, both (…, 1)."""

    value: Tensor
    scale: Tensor | None
    shift: Tensor | None


@dataclass(frozen=True)
class Layout:
    """What a dictionary is, beside its weights.

    reads, writes: where its input is taken and its output stands; the same for an autoencoder. width: features. k: of topk.
    rescales: topk picks by pre-activation times the norm of the decoder row. centred: the input is taken less its mean, as in
    a model whose writing weights were centred. model_name, weights_sha256: of the model, where the file says.
    """

    architecture: Architecture
    reads: Place
    writes: Place
    d_in: int
    d_out: int
    width: int
    k: int | None = None
    subtracts_b_dec: bool = True
    normalization: Normalization = "none"
    rescales: bool = False
    centred: bool = False
    model_name: str | None = None
    weights_sha256: str | None = None


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Features by number. weights, float32: W_enc (d_in, width), W_dec (width, d_out), b_dec (d_out,; beside b_dec_out: d_in,),
    b_enc (width,) or, gated, b_gate, b_mag and r_mag (width,), threshold (width,) of jumprelu, W_skip (d_out, d_in).

    sha256: of the files it was read from, "" where it was made here.
    """

    name: str
    sha256: str
    layout: Layout
    weights: Mapping[str, Tensor] = field(repr=False)

    @property
    def architecture(self) -> Architecture:
        """Which encoder it has, and whether it is a transcoder."""
        return self.layout.architecture

    @property
    def layer(self) -> int:
        """The layer that is read."""
        return self.layout.reads.layer

    @property
    def width(self) -> int:
        """How many features there are."""
        return self.layout.width

    @property
    def d_in(self) -> int:
        """Length of the activation that is read."""
        return self.layout.d_in

    @property
    def d_out(self) -> int:
        """Length of what is written."""
        return self.layout.d_out

    @property
    def is_transcoder(self) -> bool:
        """Whether it writes elsewhere than it reads."""
        return "transcoder" in self.layout.architecture

    def normed(self, x: Tensor) -> Normed:
        """The input as the encoder takes it; x (…, d_in)."""
        x = x.float()
        mean = x.mean(-1, keepdim=True) if self.layout.centred else None
        x = x if mean is None else x - mean
        match self.layout.normalization:
            case "none":
                return Normed(x, None, mean)
            case "constant_norm_rescale":
                scale = x.norm(dim=-1, keepdim=True) / self.layout.d_in**0.5
                return Normed(x / scale, scale, mean)
            case "layer_norm":
                middle = x.mean(-1, keepdim=True)
                spread = (x - middle).std(-1, keepdim=True)
                return Normed(
                    (x - middle) / (spread + LAYER_NORM_EPS), spread, middle if mean is None else middle + mean
                )
            case _ as never:
                assert_never(never)

    @property
    def _subtracted(self) -> Tensor | None:
        held = not self.is_transcoder or "b_dec_out" in self.weights
        return self.weights["b_dec"] if self.layout.subtracts_b_dec and held else None

    def encode(self, x: Tensor, columns: Sequence[int] | None = None) -> Tensor:
        """(…, width) activations of an input (…, d_in), or (…, n_columns) of some features alone."""
        value = self.normed(x).value
        value = value if self._subtracted is None else value - self._subtracted
        chosen = None if columns is None else torch.as_tensor(columns, dtype=torch.long, device=value.device)
        if self.layout.architecture != "topk":
            return self._each(value, chosen)
        rows = value.reshape(-1, self.layout.d_in)
        parts = torch.split(rows, max(1, MOST_VALUES // self.layout.width))
        found = (
            torch.cat([self._largest(part, chosen) for part in parts]) if len(rows) else rows.new_zeros(0, self.width)
        )
        return found.reshape(*value.shape[:-1], found.shape[-1])

    def _each(self, value: Tensor, chosen: Tensor | None) -> Tensor:
        """The encoders in which each feature is known by itself."""
        w = {name: _columns_of(self.weights.get(name), chosen) for name in _PER_FEATURE}
        drive = value @ w["W_enc"]
        if self.layout.architecture == "gated":
            return F.relu(drive * w["r_mag"].exp() + w["b_mag"]) * (drive + w["b_gate"] > 0)
        drive = drive + w["b_enc"]
        if "threshold" in self.weights:
            return F.relu(drive) * (drive > w["threshold"])
        return F.relu(drive)

    def _largest(self, rows: Tensor, chosen: Tensor | None) -> Tensor:
        assert self.layout.k is not None
        drive = rows @ self.weights["W_enc"] + self.weights["b_enc"]
        drive = drive * self._row_norms if self.layout.rescales else drive
        top = drive.topk(self.layout.k, dim=-1)
        found = torch.zeros_like(drive).scatter_(-1, top.indices, F.relu(top.values))
        return found if chosen is None else found[:, chosen]

    @cached_property
    def _row_norms(self) -> Tensor:
        with torch.inference_mode(False):  # so that gradients may go through what is kept
            return self.weights["W_dec"].norm(dim=-1)

    @cached_property
    def directions(self) -> Tensor:
        """(width, d_out) what a feature adds to the output per unit of activation, up to the scale of its input where the
        input is normalized."""
        rows = self.weights["W_dec"]
        with torch.inference_mode(False):
            return rows / self._row_norms[:, None] if self.layout.rescales else rows

    def decode(self, features: Tensor, x: Tensor | None = None) -> Tensor:
        """(…, d_out) the output of features (…, width). x (…, d_in): their input, needed where it is normalized, centred or
        skips to the output."""
        out = features.float() @ self.directions + self.weights.get("b_dec_out", self.weights["b_dec"])
        if self.is_transcoder:
            return out + self._given(x).float() @ self.weights["W_skip"].T if "W_skip" in self.weights else out
        if self.layout.normalization == "none" and not self.layout.centred:
            return out
        _, scale, shift = self.normed(self._given(x))
        out = out if scale is None else out * scale
        return out if shift is None else out + shift

    def _given(self, x: Tensor | None) -> Tensor:
        if x is None:
            raise ToolRefused(f"the output of {self.name!r} depends on its input too: give x")
        return x

    def change(self, x: Tensor, difference: Tensor, columns: Sequence[int] | None = None) -> Tensor:
        """(…, d_out) what changes at the output when features change by (…, width or n_columns) on the input x (…, d_in);
        what the dictionary does not explain of the activation stays as it is."""
        rows = self.directions if columns is None else self.directions[torch.as_tensor(columns, dtype=torch.long)]
        change = difference.float() @ rows
        scale = None if self.is_transcoder or self.layout.normalization == "none" else self.normed(x).scale
        return change if scale is None else change * scale


_PER_FEATURE = ("W_enc", "b_enc", "b_gate", "b_mag", "r_mag", "threshold")


def _columns_of(weight: Tensor | None, chosen: Tensor | None) -> Tensor:
    if weight is None:
        return torch.empty(0)
    return weight if chosen is None else weight[..., chosen]

"""Runs in which single edges carry another run, and the weights behind them, against a second reading of the models."""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import POCKET, load_target

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
make_model, FAMILIES = _made["make_model"], tuple(_made["CONFIGS"])
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]


@dataclass(frozen=True)
class Case:
    """One model through the seam and from its weights alone."""

    target: TargetModel
    plain: Any

    @property
    def gemma(self) -> bool:
        return str(self.plain.family).startswith("gemma")

    def ids(self, batch: int = 3, seed: int = 0) -> Tensor:
        """(batch, 11) random tokens, more than the sliding windows of the tiny models see."""
        made = torch.Generator().manual_seed(seed)
        return torch.randint(0, self.target.spec.d_vocab, (batch, 11), generator=made)


@pytest.fixture(scope="module")
def open_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    @cache
    def opened(name: str) -> Case:
        folder = POCKET if name == "pocket" else make_model(name, tmp_path_factory.mktemp("models") / name)
        defaults = transformers.AutoConfig.from_pretrained(folder).to_dict()
        return Case(load_target("pocket" if name == "pocket" else folder), PlainModel(folder, defaults))

    return opened


@pytest.fixture(scope="module", params=["pocket", *FAMILIES])
def case(request: pytest.FixtureRequest, open_case: Callable[[str], Case]) -> Case:
    return open_case(str(request.param))


def _near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < tolerance


def test_what_the_heads_write_adds_up_to_what_attention_writes(case: Case) -> None:
    ids = case.ids()
    case.plain.run(ids)
    for layer in range(case.target.spec.n_layers):
        weights, site = case.target.attention_weights(layer), Site("heads", layer)
        z = case.target.run(ids, read=[site]).read[site]
        written = torch.einsum("bphe,hed->bphd", z, weights.W_O)
        _near(written.sum(dim=2) + weights.b_O, case.plain.seen["raw_attn_out", layer])


def test_the_weights_of_attention_read_what_a_computation_by_hand_reads(case: Case) -> None:
    """Queries, keys and values of the normed residual, and the gain of the norm before them."""
    ids, layer = case.ids(), case.target.spec.n_layers - 1
    gpt2 = case.plain.family == "gpt2"
    case.plain.run(ids)
    norm = f"h.{layer}.ln_1" if gpt2 else f"layers.{layer}.input_layernorm"
    normed = case.plain.normed(case.plain.seen["resid_pre", layer], norm)
    gain = case.plain[norm + ".weight"] if gpt2 else case.plain.gain(norm)
    _near(case.target.attention_norm_gain(layer), gain, 1e-3)
    weights = case.target.attention_weights(layer)
    for part, weight, bias in zip("qkv", weights[:3], weights[4:7], strict=True):
        found = torch.einsum("bpd,hde->bphe", normed, weight) + bias
        _near(found, case.plain.seen[part, layer])


def test_the_weights_of_a_layer_that_does_not_exist_are_refused(case: Case) -> None:
    last = case.target.spec.n_layers - 1
    for refused in (case.target.attention_weights, case.target.attention_norm_gain):
        for layer in (-1, last + 1):
            with pytest.raises(ToolRefused, match=f"has layers 0 to {last}"):
                refused(layer)

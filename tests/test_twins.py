"""Untrained twins keep what they should of the trained model and nothing else; shifted units lose the text."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from neuronaut.evals.sample import small_claims
from neuronaut.evals.shifted import by_metrics, shifted
from neuronaut.evals.twins import Kind, more, twin
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.load import POCKET, load_target
from neuronaut.tools.targets.twins import twin_weights
from neuronaut.tools.units import Unit


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return dict(load_file(POCKET / "model.safetensors"))


def test_a_row_shuffled_twin_has_the_same_rows_in_another_order(weights: dict[str, torch.Tensor]) -> None:
    made = twin_weights(weights, "row-shuffled", 0)
    for name, tensor in weights.items():
        assert made[name].shape == tensor.shape
        if tensor.dim() < 2:
            assert torch.equal(made[name], tensor)
        else:
            assert not torch.equal(made[name], tensor)
            assert sorted(map(tuple, made[name].tolist())) == sorted(map(tuple, tensor.tolist()))


def test_a_random_twin_has_the_scale_of_each_matrix_and_nothing_of_its_entries(
    weights: dict[str, torch.Tensor],
) -> None:
    made = twin_weights(weights, "random-init", 0)
    for name, tensor in weights.items():
        if tensor.dim() < 2:
            assert torch.equal(made[name], tensor)
        else:
            new, old = made[name].float(), tensor.float()
            assert float(new.std()) == pytest.approx(float(old.std()), rel=0.05)
            assert abs(float(torch.corrcoef(torch.stack([new.flatten(), old.flatten()]))[0, 1])) < 0.05
    again, other = (twin_weights(weights, "random-init", seed) for seed in (0, 1))
    name = next(name for name, tensor in weights.items() if tensor.dim() > 1)
    assert torch.equal(again[name], made[name])
    assert not torch.equal(other[name], made[name])


@pytest.mark.parametrize("kind", ["random-init", "row-shuffled"])
def test_a_twin_is_a_model_of_its_own(
    kind: Kind, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path_factory.mktemp("cache")))
    twin.cache_clear()
    made, trained = twin(kind, 0), load_target("pocket")
    assert made.spec.n_layers == trained.spec.n_layers
    assert made.fingerprint().weights_sha256 != trained.fingerprint().weights_sha256
    assert made.vocabulary.pieces == trained.vocabulary.pieces
    twin.cache_clear()


def test_the_difference_of_two_shares_has_the_interval_of_two_samples() -> None:
    """Against the normal approximation for shares of 0.7 and 0.4 of 100 each."""
    these, those = np.arange(100) < 70, np.arange(100) < 40
    found = more("x", these, those)
    deviation = 1.96 * np.sqrt(0.7 * 0.3 / 100 + 0.4 * 0.6 / 100)
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - deviation, abs=0.03)
    assert found.high == pytest.approx(0.3 + deviation, abs=0.03)
    assert more("x", these[:1], those).value is None


def test_small_claims_are_counted_by_their_items() -> None:
    def row(*claims: tuple[str, int]) -> dict[str, object]:
        return {"claims": [{"status": status, "items": items} for status, items in claims]}

    rows = [row(("SUPPORTED", 4)), row(("PARTIAL", 1), ("SUPPORTED", 20)), row(("PARTIAL", 2)), row()]
    assert [score.value for score in small_claims(rows)] == [0.25, 0.5, 0.5]


def test_shifted_units_keep_their_values_and_nothing_passes() -> None:
    context = ToolContext(load_target("pocket"), pocket_corpus())
    unit = Unit("neuron", 0, 3)
    tokens = context.tokens("confirm", 0)
    values = context.activations(unit, "confirm", block=0)
    moved = shifted(values, tokens, 1)
    assert (np.sort(moved[tokens.scored]) == np.sort(values[tokens.scored])).all()
    assert not (moved == values)[tokens.scored].all()
    assert abs(np.corrcoef(moved[tokens.scored], values[tokens.scored])[0, 1]) < 0.1
    assert by_metrics(context, unit, 1)["passes"] is False
    assert by_metrics(context, unit, 1, dead=True)["rule"] == "this side does not exist"

"""Runs in which single edges carry another run, and the weights behind them, against a second reading of the models."""

import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuronaut.evals.overlay import FromPredicate
from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.targets.base import EdgeStart, Edit, Site
from neuronaut.tools.targets.load import POCKET, Backend, load_target
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.units import Unit

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
make_model, FAMILIES = _made["make_model"], tuple(_made["CONFIGS"])
_plain = runpy.run_path(str(Path(__file__).with_name("plain_edges.py")))
Case, all_written, by_hand, open_plain = (_plain[name] for name in ("Case", "all_written", "by_hand", "open_plain"))


@pytest.fixture(scope="module")
def open_case(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Callable[[str], Any]:
    @cache
    def opened(name: str) -> Any:
        folder = POCKET if name == "pocket" else make_model(name, tmp_path_factory.mktemp("models") / name)
        return open_plain(load_target("pocket" if name == "pocket" else folder, backend=backend), folder)

    return opened


@pytest.fixture(scope="module", params=["pocket", *FAMILIES])
def case(request: pytest.FixtureRequest, open_case: Callable[[str], Any]) -> Any:
    return open_case(str(request.param))


def _near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < tolerance


def test_what_the_heads_write_adds_up_to_what_attention_writes(case: Any) -> None:
    ids = case.ids()
    case.plain.run(ids)
    for layer in range(case.target.spec.n_layers):
        weights, site = case.target.attention_weights(layer), Site("heads", layer)
        z = case.target.run(ids, read=[site]).read[site]
        written = torch.einsum("bphe,hed->bphd", z, weights.W_O)
        _near(written.sum(dim=2) + weights.b_O, case.plain.seen["raw_attn_out", layer])


def test_the_weights_of_attention_read_what_a_computation_by_hand_reads(case: Any) -> None:
    """Queries, keys and values of the normed residual, and the gain of the norm before them."""
    ids, layer = case.ids(), case.target.spec.n_layers - 1
    case.plain.run(ids)
    norm = case.plain.attention_norm(layer)
    normed = case.plain.normed(case.plain.seen["resid_pre", layer], norm)
    gain = torch.ones(normed.shape[-1]) if norm is None else case.plain.gain(norm)
    _near(case.target.attention_norm_gain(layer), gain, 1e-3)
    weights = case.target.attention_weights(layer)
    for part, weight, bias in zip("qkv", weights[:3], weights[4:7], strict=True):
        found = torch.einsum("bpd,hde->bphe", normed, weight) + bias
        _near(found, case.plain.seen[part, layer])


def test_the_weights_of_a_layer_that_does_not_exist_are_refused(case: Any) -> None:
    last = case.target.spec.n_layers - 1
    for refused in (case.target.attention_weights, case.target.attention_norm_gain):
        for layer in (-1, last + 1):
            with pytest.raises(ToolRefused, match=f"has layers 0 to {last}"):
                refused(layer)


def _other(case: Any, ids: Tensor, seed: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Ids of another run, what its senders write, and the edges that exist."""
    ids = case.ids(len(ids), seed)
    return ids, case.target.senders(ids), Wires.of(case.target.spec).possible


def test_senders_write_what_a_computation_by_hand_gives(case: Any) -> None:
    ids = case.ids()
    _near(case.target.senders(ids), all_written(case, ids))


def test_what_senders_write_adds_up_to_the_last_residual(case: Any) -> None:
    ids, last = case.ids(), case.target.spec.n_layers - 1
    biases = sum(case.target.attention_weights(layer).b_O for layer in range(last + 1))
    read = case.target.run(ids, read=[Site("resid_post", last)]).read[Site("resid_post", last)]
    _near(case.target.senders(ids).sum(dim=1) + biases, read)


def test_with_every_edge_cut_the_run_is_the_other_run(case: Any) -> None:
    ids = case.ids()
    there, other, possible = _other(case, ids)
    expected = case.plain.run(there)[:, -1:]
    assert float((expected - case.plain.run(ids)[:, -1:]).abs().max()) > 0.01
    _near(case.target.run_edges(ids, other, possible[None]), expected)


def test_with_no_edge_cut_the_run_is_plain(case: Any) -> None:
    ids = case.ids()
    _, other, possible = _other(case, ids)
    _near(case.target.run_edges(ids, other, torch.zeros_like(possible)[None], keep=3), case.plain.run(ids)[:, -3:])


def test_each_single_edge_is_the_same_edge_cutby_hand(case: Any) -> None:
    """Every kind of sender and receiver, other edges in each row."""
    ids = case.ids(batch=1)
    _, other, possible = _other(case, ids)
    at = possible.nonzero()
    chosen = at[torch.randperm(len(at), generator=torch.Generator().manual_seed(1))[:60]]
    if case.target.spec.n_layers <= 3:
        chosen = at
    cut = torch.zeros(len(chosen), *possible.shape, dtype=torch.bool)
    cut[torch.arange(len(chosen)), chosen[:, 0], chosen[:, 1]] = True
    rows = ids.expand(len(chosen), -1)
    found = case.target.run_edges(rows, other, cut)
    plain = case.plain.run(ids)[:, -1:]
    _near(found, by_hand(case, rows, other.expand(len(chosen), -1, -1, -1), cut)[:, -1:])
    moved = (found - plain).abs().amax(dim=(1, 2))
    assert float((moved > 1e-4).float().mean()) > 0.5, "most edges must matter, else anything would pass"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_many_edges_cut_at_some_positions_are_the_sameby_hand(case: Any, share: float) -> None:
    ids = case.ids()
    _, other, possible = _other(case, ids)
    made = torch.Generator().manual_seed(int(share * 10))
    cut = (torch.rand(len(ids), *possible.shape, generator=made) < share) & possible
    _near(case.target.run_edges(ids, other, cut)[:, 0], by_hand(case, ids, other, cut)[:, -1])
    _near(case.target.run_edges(ids, other, cut[:1])[:, 0], by_hand(case, ids, other, cut[:1].expand_as(cut))[:, -1])
    places = torch.rand(ids.shape, generator=made) < 0.5
    found = case.target.run_edges(ids, other, cut, positions=places, keep=2)
    _near(found, by_hand(case, ids, other, cut, places)[:, -2:])


def test_a_run_with_edges_cut_can_be_resumed_before_them(case: Any) -> None:
    ids, wires = case.ids(), Wires.of(case.target.spec)
    _, other, possible = _other(case, ids)
    plain, n_layers = case.target.senders(ids), case.target.spec.n_layers
    sites = [Site("resid_pre", layer) for layer in range(n_layers)] + [Site("resid_post", n_layers - 1)]
    residuals = list(case.target.run(ids, read=sites).read.values())
    for layer, residual in enumerate(residuals):
        late = torch.tensor(wires.layers) >= layer
        cut = (possible & late[:, None])[None]
        n_senders = wires.heads(layer).start
        before = case.target.forwards
        start = EdgeStart(layer, residual, plain[:, :n_senders])
        _near(case.target.run_edges(ids, other, cut, start=start), case.target.run_edges(ids, other, cut), 1e-5)
        assert case.target.forwards - before == pytest.approx(len(ids) * (1 + (n_layers - layer) / n_layers))


def test_an_edit_is_made_in_a_run_with_edges_cut(case: Any) -> None:
    """What an edited part writes is what is carried away from, and the edit is made by hand as well."""
    ids, layer = case.ids(), case.target.spec.n_layers // 2
    _, other, possible = _other(case, ids)
    edit = Edit(Site("heads", layer), "set", 0.3, index=1)
    wires = Wires.of(case.target.spec)
    late = torch.tensor(wires.layers) > layer
    everything = (possible & late[:, None])[None]
    everything[..., wires.heads(layer)[1]] = False
    found = case.target.run_edges(ids, other, everything, edits=[edit])
    assert not torch.allclose(found, case.target.run_edges(ids, other, everything), atol=1e-4)
    rows = case.target.senders(ids, edits=[edit])[:, wires.heads(layer)[1]]
    if not case.plain.post_norm:
        weights = case.target.attention_weights(layer)
        _near(rows, (torch.full((weights.W_O.shape[1],), 0.3) @ weights.W_O[1]).expand_as(rows))
    cut_too = everything.clone()
    cut_too[..., wires.heads(layer)[1]] = (possible & late[:, None])[:, wires.heads(layer)[1]]
    _near(case.target.run_edges(ids, other, cut_too, edits=[edit]), case.target.run_edges(ids, other, cut_too), 1e-4)


def test_the_gradient_at_a_receiver_is_the_slope_of_the_score_there(case: Any) -> None:
    """Central differences of the second reading, in double precision, along what one edge carries."""
    ids = case.ids(batch=2)
    _, other, possible = _other(case, ids)
    wires, step = Wires.of(case.target.spec), 1e-3
    right = torch.tensor([3, 7])

    def score(logits: Tensor) -> Tensor:
        return logits[:, -1].log_softmax(-1)[torch.arange(2), right]

    found = case.target.edge_gradients(ids, score)
    _near(found.senders, case.target.senders(ids))
    estimates = torch.einsum("bspd,brpd->brs", other - found.senders, found.gradients)
    assert found.gradients.shape == (2, len(wires.receivers), ids.shape[1], case.target.spec.d_model)
    at = possible.nonzero()
    for receiver, sender in at[torch.randperm(len(at), generator=torch.Generator().manual_seed(2))[:25]].tolist():
        cut = torch.zeros(2, *possible.shape, dtype=torch.bool)
        cut[:, receiver, sender] = True
        here = found.senders
        ahead, behind = (
            score(by_hand(case, ids, here + sign * step * (other - here), cut).double()) for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step)
        _near(estimates[:, receiver, sender].double(), slope, 5e-3 + 0.02 * float(slope.abs().max()))


def test_what_cannot_be_cut_is_refused_in_a_sentence(case: Any) -> None:
    ids, wires = case.ids(), Wires.of(case.target.spec)
    _, other, possible = _other(case, ids)
    residual = torch.zeros(*ids.shape, case.target.spec.d_model)
    refused: list[tuple[str, Tensor, Tensor, dict[str, Any]]] = [
        ("L0H0.q reads before L0H0 writes", other, ~possible[None], {}),
        ("what each sender writes", other[:, 1:], possible[None], {}),
        ("of bool", other, possible[None].float(), {}),
        ("of bool", other, possible[None, 1:], {}),
        ("do not mark", other, possible[None], {"positions": torch.ones(1, 4, dtype=torch.bool)}),
        ("is not run", other, possible[None], {"start": EdgeStart(1, residual, other[:, : wires.heads(1).start])}),
    ]
    for message, carried, cut, options in refused:
        with pytest.raises(ToolRefused, match=message):
            case.target.run_edges(ids, carried, cut, **options)


def test_edges_of_a_target_with_planted_neurons_are_those_of_what_it_runs(open_case: Callable[[str], Any]) -> None:
    target = open_case("gpt2").target
    plant = FromPredicate(parse_text("position(0, 30)"), seed=0)
    planted = Overlay(target, {Unit.parse("1.3"): plant})
    ids, last = open_case("gpt2").ids(), Site("resid_post", target.spec.n_layers - 1)
    run = planted.run(ids, read=[last], logits=True)
    assert float((run.read[last] - target.run(ids, read=[last]).read[last]).abs().max()) > 0.1, (
        "the plant must do something"
    )
    written = planted.senders(ids)
    biases = sum(planted.attention_weights(layer).b_O for layer in range(target.spec.n_layers))
    _near(written.sum(dim=1) + biases, run.read[last])
    possible = Wires.of(target.spec).possible[None]
    assert run.logits is not None
    _near(planted.run_edges(ids, written, possible & False), run.logits[:, -1:])
    _near(planted.edge_gradients(ids, lambda logits: logits[:, -1, 5]).senders, written)

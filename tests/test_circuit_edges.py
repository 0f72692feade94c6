"""Scores of edges, circuits of edges and automatic circuit discovery, against a second reading of the models."""

import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from neuronaut.tools.circuits import bench
from neuronaut.tools.circuits.acdc import acdc
from neuronaut.tools.circuits.edges import circuit_logits, circuit_scores, edge_scores, exact_edge_scores, top_edges
from neuronaut.tools.circuits.wires import Edge, Wires
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tasks.base import TaskPrompts
from neuronaut.tools.tasks.catalogue import task_named

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
BEHIND_A_NORM = ("gemma2", "gemma3", "olmo2")  # where what a head writes depends on the others of its layer
make_model, FAMILIES = _made["make_model"], tuple(_made["CONFIGS"])
_plain = runpy.run_path(str(Path(__file__).with_name("plain_edges.py")))
all_written, by_hand, open_plain = (_plain[name] for name in ("all_written", "by_hand", "open_plain"))


@pytest.fixture(scope="module")
def open_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    @cache
    def opened(name: str) -> Any:
        folder = make_model(name, tmp_path_factory.mktemp("models") / name)
        return open_plain(load_target(folder), folder)

    return opened


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, open_case: Callable[[str], Any]) -> Any:
    return open_case(str(request.param))


@pytest.fixture(scope="module")
def pocket() -> TargetModel:
    return load_target("pocket")


def _prompts(target: TargetModel, n: int = 3, seed: int = 0) -> TaskPrompts:
    """Random tokens with random answers; the twin differs in two places, as that of a task does."""
    made = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, target.spec.d_vocab, (n, 11), generator=made)
    corrupted = clean.clone()
    corrupted[:, [2, 6]] = torch.randint(0, target.spec.d_vocab, (n, 2), generator=made)
    answers = torch.randint(0, target.spec.d_vocab, (n, 3), generator=made)
    right = torch.cat([answers[:, :1], torch.full((n, 1), -1)], dim=1)
    texts = tuple("" for _ in range(n))
    labels = ("random", "two tokens", "search", texts, texts)
    return TaskPrompts(*labels, clean, corrupted, right, answers[:, 1:], np.arange(n), ("",) * 11, False)  # type: ignore[arg-type]


def _some(mask: Tensor, share: float, seed: int = 0) -> Tensor:
    return (torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < share) & mask


def _near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < tolerance


def _cut_by_hand(case: Any, prompts: TaskPrompts, cut: Tensor) -> Tensor:
    """(n, d_vocab) logits at the last position."""
    other = all_written(case, prompts.corrupted)
    logits: Tensor = by_hand(case, prompts.clean, other, cut.expand(len(prompts), -1, -1))[:, -1]
    return logits


def test_the_names_of_wires_say_who_writes_before_whom() -> None:
    wires = Wires(2, 2, 1, True)
    assert wires.senders == ("embed", "L0H0", "L0H1", "mlp0", "L1H0", "L1H1", "mlp1")
    layers = [f"L{n}H0.q L{n}H1.q L{n}KV0.k L{n}KV0.v mlp{n}".split() for n in range(2)]
    assert wires.receivers == (*layers[0], *layers[1], "logits")
    read = {
        name: {edge.sender for edge in wires.edges(wires.possible) if edge.receiver == name} for name in wires.receivers
    }
    assert read["L0KV0.k"] == {"embed"}
    assert read["mlp0"] == {"embed", "L0H0", "L0H1"}
    assert read["L1H0.q"] == {"embed", "L0H0", "L0H1", "mlp0"}
    assert read["logits"] == set(wires.senders)
    assert wires.mask([Edge("L0H1", "L1H0.q")]).nonzero().tolist() == [[wires.receiver("L1H0.q"), wires.sender("L0H1")]]
    fed = {wires.receivers[at] for at in wires.carried_on[wires.sender("L1H1")].nonzero()[:, 0].tolist()}
    assert fed == {"L1H1.q", "L1KV0.k", "L1KV0.v"}
    attention_only = Wires(2, 2, 2, False)
    assert attention_only.senders == ("embed", "L0H0", "L0H1", "L1H0", "L1H1")
    assert attention_only.receivers[2:6] == ("L0H0.k", "L0H1.k", "L0H0.v", "L0H1.v")
    assert int(attention_only.possible.sum()) == 6 * 1 + 6 * 3 + 5


def test_an_unknown_name_is_refused_in_a_sentence() -> None:
    wires = Wires(2, 2, 2, True)
    for message, edge in (
        ("'L2H0' is no part that writes", Edge("L2H0", "logits")),
        ("'L0H0' is no part that reads", Edge("embed", "L0H0")),
        ("mlp0->L0H0.q is no edge", Edge("mlp0", "L0H0.q")),
    ):
        with pytest.raises(ToolRefused, match=message):
            wires.mask([edge])


@pytest.mark.parametrize("share", [0.05, 0.15, 0.4])
def test_connected_edges_are_those_on_some_path(share: float) -> None:
    """Against all paths, walked one by one."""
    wires = Wires(2, 2, 1, True)
    mask = _some(wires.possible, share, int(share * 100))
    found: set[tuple[int, int]] = set()

    def walk(receiver: int, path: list[tuple[int, int]]) -> None:
        for sender in mask[receiver].nonzero()[:, 0].tolist():
            here = [*path, (receiver, sender)]
            if sender == 0:
                found.update(here)
            for read in wires.carried_on[sender].nonzero()[:, 0].tolist():
                walk(read, here)

    walk(wires.logits, [])
    assert {(r, s) for r, s in wires.connected(mask).nonzero().tolist()} == found


def test_with_all_edges_a_circuit_is_the_model_and_with_none_the_corrupted_prompt(case: Any) -> None:
    prompts, possible = _prompts(case.target), Wires.of(case.target.spec).possible
    clean, corrupted = (prompts.score(case.plain.run(ids)[:, -1]) for ids in (prompts.clean, prompts.corrupted))
    assert float((clean - corrupted).abs().min()) > 1e-3
    _near(circuit_scores(case.target, prompts, possible), clean)
    _near(circuit_scores(case.target, prompts, torch.zeros_like(possible)), corrupted)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_circuit_scores_what_edges_cut_by_hand_give(case: Any, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, possible = _prompts(case.target), Wires.of(case.target.spec).possible
    kept = _some(possible, share)
    monkeypatch.setattr(bench, "BYTES", 1)  # one prompt at a time
    _near(circuit_logits(case.target, prompts, kept), _cut_by_hand(case, prompts, possible & ~kept))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in BEHIND_A_NORM])
def test_edges_off_every_path_do_not_matter(open_case: Callable[[str], Any], family: str) -> None:
    case = open_case(family)
    prompts, wires = _prompts(case.target), Wires.of(case.target.spec)
    for seed in range(3):
        kept = _some(wires.possible, 0.12, seed)
        fewer = wires.connected(kept)
        assert int(fewer.sum()) < int(kept.sum())
        _near(circuit_logits(case.target, prompts, fewer), circuit_logits(case.target, prompts, kept), 1e-5)


def test_edges_can_carry_the_mean_or_nothing_instead(case: Any) -> None:
    prompts, possible = _prompts(case.target), Wires.of(case.target.spec).possible
    kept = _some(possible, 0.5)
    written = all_written(case, prompts.corrupted)
    cut = (possible & ~kept).expand(len(prompts), -1, -1)
    for instead, other in (
        ("mean", written.mean(0, keepdim=True).expand_as(written)),
        ("zero", torch.zeros_like(written)),
    ):
        expected = prompts.score(by_hand(case, prompts.clean, other, cut)[:, -1])
        _near(circuit_scores(case.target, prompts, kept, instead=instead), expected)  # type: ignore[arg-type]


def test_exact_scores_are_those_of_each_edge_cut_alone_by_hand(case: Any) -> None:
    prompts, wires = _prompts(case.target), Wires.of(case.target.spec)
    edges = _some(wires.possible, 0.1)
    found = exact_edge_scores(case.target, prompts, edges)
    clean = prompts.score(case.plain.run(prompts.clean)[:, -1]).mean()
    assert bool((found[~edges] == 0).all())
    for receiver, sender in edges.nonzero().tolist():
        cut = torch.zeros_like(edges)
        cut[receiver, sender] = True
        expected = prompts.score(_cut_by_hand(case, prompts, cut)).mean() - clean
        _near(found[receiver, sender], expected)


def test_scores_of_the_edges_from_the_embedding_add_up_to_the_whole_effect(case: Any) -> None:
    """Integrated gradients are complete: with many steps the edges from the embedding account for all of the difference
    between corrupted and clean, whatever later parts do."""
    if case.target.spec.n_experts:
        pytest.skip("no gradient sees that another expert is chosen")
    prompts = _prompts(case.target)
    clean, corrupted = (prompts.score(case.plain.run(ids)[:, -1]).mean() for ids in (prompts.clean, prompts.corrupted))
    found = edge_scores(case.target, prompts, method="eap_ig", steps=100)
    assert float(found[:, 0].sum()) == pytest.approx(float(corrupted - clean), rel=0.02, abs=0.01)


def test_first_order_scores_are_slopes_by_hand(case: Any) -> None:
    prompts, wires, step = _prompts(case.target), Wires.of(case.target.spec), 1e-3
    found = edge_scores(case.target, prompts, method="eap")
    here, other = (all_written(case, ids) for ids in (prompts.clean, prompts.corrupted))
    assert bool((found[~wires.possible] == 0).all())
    for receiver, sender in _some(wires.possible, 0.05).nonzero().tolist():
        cut = torch.zeros(len(prompts), *wires.possible.shape, dtype=torch.bool)
        cut[:, receiver, sender] = True
        ahead, behind = (
            prompts.score(by_hand(case, prompts.clean, here + sign * step * (other - here), cut)[:, -1]).mean()
            for sign in (1, -1)
        )
        slope = float(ahead - behind) / (2 * step)
        assert float(found[receiver, sender]) == pytest.approx(slope, rel=0.02, abs=5e-3)


def test_integrated_gradients_order_edges_as_exact_patching_does(case: Any) -> None:
    if case.target.spec.n_experts:
        pytest.skip("no gradient sees that another expert is chosen")
    prompts, possible = _prompts(case.target, n=8), Wires.of(case.target.spec).possible
    exact = exact_edge_scores(case.target, prompts, possible)[possible]
    found = edge_scores(case.target, prompts, steps=5)[possible]
    shuffled = found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]
    assert stats.spearmanr(found, exact).statistic > 0.55
    assert abs(stats.spearmanr(shuffled, exact).statistic) < 0.3


def test_top_edges_are_the_largest_that_make_whole_paths(case: Any) -> None:
    wires = Wires.of(case.target.spec)
    scores = torch.randn(wires.possible.shape, generator=torch.Generator().manual_seed(3))
    before = torch.zeros_like(wires.possible)
    falling = scores.abs()[wires.possible].sort(descending=True).values
    prefixes = [before] + [wires.connected((scores.abs() >= least) & wires.possible) for least in falling]
    for n in (0, 1, 5, 20, 60, int(wires.possible.sum())):
        mask = top_edges(wires, scores, n)
        assert int(mask.sum()) <= n
        assert torch.equal(wires.connected(mask), mask)
        assert not bool((before & ~mask).any()), "more edges hold the fewer"
        by_size = [connected for connected in prefixes if int(connected.sum()) <= n]
        assert torch.equal(mask, by_size[-1])
        before = mask
    assert torch.equal(before, wires.connected(wires.possible))


def _literal_acdc(case: Any, prompts: TaskPrompts, threshold: float) -> Tensor:
    """Algorithm 1 of Conmy et al. as written: one edge, one run."""
    wires = Wires.of(case.target.spec)
    cut, now = torch.zeros_like(wires.possible), 0.0
    model = _cut_by_hand(case, prompts, cut).double().log_softmax(-1)
    for receiver in reversed(range(len(wires.receivers))):
        for sender in reversed(range(wires.earlier[receiver])):
            without = cut.clone()
            without[receiver, sender] = True
            found = _cut_by_hand(case, prompts, without).double().log_softmax(-1)
            divergence = float((model.exp() * (model - found)).sum(-1).mean())
            if divergence - now < threshold:
                cut, now = without, divergence
    return wires.possible & ~cut


@pytest.mark.parametrize(("family", "threshold"), [("gpt2", 1e-4), ("gpt2", 1e-3), ("qwen3", 3e-3)])
def test_automatic_discovery_ends_where_trying_one_edge_at_a_time_does(
    open_case: Callable[[str], Any], family: str, threshold: float
) -> None:
    case, prompts = open_case(family), _prompts(open_case(family).target)
    wires = Wires.of(case.target.spec)
    found = acdc(case.target, prompts, threshold=threshold, budget=1e6)
    expected = wires.connected(_literal_acdc(case, prompts, threshold))
    assert 0 < int(expected.sum()) < int(wires.possible.sum())
    assert torch.equal(found.kept, expected)
    assert found.complete
    assert found.tried == int(wires.possible.sum())
    logits = _cut_by_hand(case, prompts, wires.possible & ~found.kept).double().log_softmax(-1)
    model = case.plain.run(prompts.clean)[:, -1].double().log_softmax(-1)
    divergence = float((model.exp() * (model - logits)).sum(-1).mean())
    assert found.divergence == pytest.approx(divergence, abs=1e-5)


def test_discovery_that_runs_out_of_budget_keeps_what_it_did_not_try(open_case: Callable[[str], Any]) -> None:
    target = open_case("gpt2").target
    prompts, wires = _prompts(target), Wires.of(target.spec)
    whole = acdc(target, prompts, threshold=0.0001, budget=1e6)
    part = acdc(target, prompts, threshold=0.0001, budget=whole.forwards / 3)
    assert not part.complete
    assert 0 < part.tried < whole.tried
    assert part.forwards <= whole.forwards / 3 + len(prompts)
    first_layers = torch.tensor(wires.layers) == 0
    assert bool(part.kept[first_layers].sum() >= whole.kept[first_layers].sum())
    for message, options in (
        ("must be above 0", {"threshold": 0.0, "budget": 9.0}),
        ("must be", {"threshold": 1.0, "budget": 0.0}),
    ):
        with pytest.raises(ToolRefused, match=message):
            acdc(target, prompts, **options)


def test_parts_that_write_nothing_score_nothing(tmp_path: Path) -> None:
    """A model of attention alone, whose MLPs have no output."""
    import transformers

    folder = make_model("gpt2", tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for block in model.transformer.h:
        block.mlp.c_proj.weight.data.zero_()
        block.mlp.c_proj.bias.data.zero_()
    model.save_pretrained(folder)
    target = load_target(folder)
    prompts, wires = _prompts(target), Wires.of(target.spec)
    mlps = torch.tensor(["mlp" in name for name in wires.senders])
    at_mlps = torch.tensor(["mlp" in name for name in wires.receivers])
    scores = edge_scores(target, prompts)
    assert bool((scores[:, mlps] == 0).all())
    assert bool((scores[at_mlps] == 0).all())
    assert float(scores.abs().max()) > 0.01
    kept = acdc(target, prompts, threshold=1e-9, budget=1e6).kept
    assert not bool(kept[:, mlps].any() or kept[at_mlps].any())
    without_mlps = wires.possible & ~mlps & ~at_mlps[:, None]
    full = circuit_scores(target, prompts, wires.possible)
    _near(circuit_scores(target, prompts, without_mlps), full, 1e-5)


def test_masks_that_do_not_fit_are_refused(open_case: Callable[[str], Any]) -> None:
    target = open_case("gpt2").target
    prompts, wires = _prompts(target), Wires.of(target.spec)
    with pytest.raises(ToolRefused, match="of bool"):
        circuit_scores(target, prompts, wires.possible.float())
    with pytest.raises(ToolRefused, match="is no edge"):
        exact_edge_scores(target, prompts, ~wires.possible)
    with pytest.raises(ToolRefused, match="at least 1"):
        edge_scores(target, prompts, steps=0)


def test_edges_of_the_embedded_model_are_ordered_as_exact_patching_orders_them(pocket: TargetModel) -> None:
    """On a task that it can do, over edges drawn at random; integrated gradients are not behind plain ones."""
    prompts, wires = task_named("indirect object").prompts(pocket, 8, seed=0), Wires.of(pocket.spec)
    edges = _some(wires.possible, 0.15)
    exact = exact_edge_scores(pocket, prompts, edges)[edges]
    for method, least in (("eap_ig", 0.7), ("eap", 0.4)):
        found = edge_scores(pocket, prompts, method=method)[edges]  # type: ignore[arg-type]
        assert stats.spearmanr(found, exact).statistic > least, method
    scores = edge_scores(pocket, prompts)
    few = circuit_scores(pocket, prompts, top_edges(wires, scores, 400)).mean()
    at_random = circuit_scores(
        pocket, prompts, top_edges(wires, torch.rand(scores.shape, generator=torch.Generator().manual_seed(0)), 400)
    ).mean()
    clean, corrupted = (
        circuit_scores(pocket, prompts, mask).mean() for mask in (wires.possible, torch.zeros_like(edges))
    )
    assert float((few - corrupted) / (clean - corrupted)) > 0.5
    assert float((at_random - corrupted) / (clean - corrupted)) < 0.3

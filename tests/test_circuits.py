"""Circuits of nodes: planted ones are found whole, and each measure is that of the model read by hand."""

import itertools
import json
import random
import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from torch import Tensor

from neuronaut.evals.compiled import build, opened
from neuronaut.evals.compiler.program import interpret
from neuronaut.evals.compiler.verify import encode
from neuronaut.evals.compiler.weights import Compiled, piece_of
from neuronaut.evals.head_models.constructed import construct
from neuronaut.tools.circuits.find import jaccard
from neuronaut.tools.circuits.measures import (
    beside_random,
    curve,
    harm,
    minimality,
    random_circuits,
    share_of,
)
from neuronaut.tools.circuits.nodes import Ablation, Mask, NodeRuns, mask_of, members_of, nodes_of
from neuronaut.tools.circuits.pruning import PruneOrder, prune
from neuronaut.tools.circuits.trial import TestCircuitArgs, unseen
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene import next_token
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.stats import holm
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import POCKET, load_target
from neuronaut.tools.tasks.base import TaskPrompts
from neuronaut.tools.tasks.catalogue import task_named

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
GIVING = ["L0H0", "L0H3", "L2H1", "L4H2", "L4H3", "L5H0"]
N, N_POS = 6, 9


@pytest.fixture(scope="module")
def pocket() -> TargetModel:
    return load_target("pocket")


@pytest.fixture(scope="module")
def opened_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[TargetModel, Any]]:
    @cache
    def both(name: str) -> tuple[TargetModel, Any]:
        import transformers

        folder = POCKET if name == "pocket" else make_model(name, tmp_path_factory.mktemp("models") / name)
        return load_target(folder), PlainModel(folder, transformers.AutoConfig.from_pretrained(folder).to_dict())

    return both


def prompts_of(clean: Tensor, corrupted: Tensor, right: Tensor, wrong: Tensor, groups: Any = None) -> TaskPrompts:
    """Prompts by their tokens."""
    texts = tuple(str(row.tolist()) for row in clean)
    number = np.arange(len(clean)) if groups is None else np.asarray(groups)
    roles = ("",) * clean.shape[1]
    return TaskPrompts("made", "made", "search", texts, texts, clean, corrupted, right, wrong, number, roles, False)


def random_prompts(target: TargetModel) -> TaskPrompts:
    """Random tokens; the last one is the same in both."""
    made = torch.Generator().manual_seed(0)
    clean, corrupted = (torch.randint(5, target.spec.d_vocab, (N, N_POS), generator=made) for _ in range(2))
    corrupted[:, -1] = clean[:, -1]
    answers = torch.randint(5, target.spec.d_vocab, (N, 2, 2), generator=made)
    answers[::2, :, 1] = -1
    return prompts_of(clean, corrupted, answers[:, 0], answers[:, 1], groups=[0, 0, 1, 1, 2, 2])


def by_hand(target: TargetModel, plain: Any, prompts: TaskPrompts, mask: Mask, how: str) -> list[float]:
    """Scores, prompt by prompt, on the second reading of the weights."""
    nodes, seen = nodes_of(target.spec), []
    for row in prompts.corrupted:
        plain.run(row[None])
        seen.append(dict(plain.seen))
    kept = {(node.layer, node.head) for node, member in zip(nodes, mask, strict=True) if member}
    found = []
    for at in range(len(prompts)):
        donors = [seen[at]] if how == "resample" else seen

        def change(name: str, layer: int, x: Tensor, donors: list[Any] = donors) -> Tensor:
            if name not in ("heads", "mlp_out"):
                return x
            other, x = torch.stack([one[name, layer] for one in donors]).mean(0), x.clone()
            if name == "mlp_out":
                return x if (layer, None) in kept else other
            for head in range(target.spec.n_heads):
                if (layer, head) not in kept:
                    x[:, :, head] = other[:, :, head]
            return x

        last = plain.run(prompts.clean[at : at + 1], change)[0, -1].double()
        sides = [[float(last[int(i)]) for i in side[at] if i >= 0] for side in (prompts.right, prompts.wrong)]
        found.append(float(np.logaddexp.reduce(sides[0]) - np.logaddexp.reduce(sides[1])))
    return found


def some_masks(target: TargetModel) -> list[Mask]:
    rng, n = np.random.default_rng(1), len(nodes_of(target.spec))
    return [np.ones(n, dtype=bool), np.zeros(n, dtype=bool), *(rng.random(n) < share for share in (0.3, 0.5, 0.8))]


@pytest.mark.parametrize("how", ["resample", "mean"])
@pytest.mark.parametrize("name", ["pocket", "gpt2", "llama", "qwen3", "gemma2", "gemma3"])
def test_the_score_of_a_circuit_is_that_of_the_model_taken_apart_by_hand(
    name: str, how: Ablation, opened_pair: Callable[[str], tuple[TargetModel, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, plain = opened_pair(name)
    prompts, masks = random_prompts(target), some_masks(target)
    with torch.no_grad():
        expected = [by_hand(target, plain, prompts, mask, how) for mask in masks]
    for tokens in (4096, 2 * N * N_POS, 20):  # all circuits in one batch, two in each, less than one in each
        monkeypatch.setattr(next_token, "BATCH_TOKENS", tokens)
        np.testing.assert_allclose(NodeRuns(target, prompts, how).scores(masks), expected, atol=2e-3)


@pytest.mark.parametrize("name", ["pocket", "gemma2"])
def test_a_resumed_circuit_is_that_run_from_the_start(
    name: str, opened_pair: Callable[[str], tuple[TargetModel, Any]]
) -> None:
    target, _ = opened_pair(name)
    runs, rng = NodeRuns(target, random_prompts(target)), np.random.default_rng(0)
    runs.scores([~runs.whole])
    now = runs.trail(runs.whole)
    for node in rng.permutation(len(runs.whole))[:12]:
        mask = now.circuit.copy()
        mask[node] = False
        before = target.forwards
        now = runs.trail(mask, now)
        assert target.forwards - before <= N
        np.testing.assert_allclose(now.scores, runs.scores([mask])[0], atol=1e-4)


def test_the_share_is_one_for_the_model_and_zero_for_the_corrupted_prompts(pocket: TargetModel) -> None:
    runs = NodeRuns(pocket, task_named("indirect object").prompts(pocket, 12, seed=0))
    assert runs.share(runs.clean) == pytest.approx(1.0)
    assert runs.share(runs.corrupted) == 0.0
    assert runs.share((runs.clean + runs.corrupted) / 2) == pytest.approx(0.5)
    nothing = runs.scores([~runs.whole])[0]
    np.testing.assert_allclose(nothing, runs.corrupted, atol=1e-4)  # clean and corrupted end with the same token
    assert runs.prompts.clean[:, -1].equal(runs.prompts.corrupted[:, -1])


# Planted circuits.


def planted(compiled: Compiled) -> set[str]:
    """The nodes that a compiled program needs."""
    parts = [part for part in compiled.components if part.role != "none"]
    return {f"L{part.layer}H{part.indices[0]}" if part.kind == "head" else f"mlp{part.layer}" for part in parts}


def asked(compiled: Compiled, n: int) -> TaskPrompts:
    """Random texts, and others of which the program says something else."""
    rng, alphabet = random.Random(0), [str(token) for token in compiled.program.tokens.domain]
    number, rows = {piece: i for i, piece in enumerate(compiled.pieces)}, []
    while len(rows) < n:
        texts = [tuple(rng.choices(alphabet, k=12)) for _ in range(2)]
        said = [number[piece_of(interpret(compiled.program, text)[-1])] for text in texts]
        if said[0] != said[1]:
            rows.append((texts, said))
    ids = [encode(compiled, [texts[side] for texts, _ in rows]) for side in (0, 1)]
    answers = [torch.tensor([[said[side]] for _, said in rows]) for side in (0, 1)]
    return prompts_of(ids[0], ids[1], answers[0], answers[1])


MODELS: dict[str, Callable[[], Compiled]] = {
    **{f"constructed {seed}": lambda seed=seed: construct(seed)[0] for seed in range(4)},  # type: ignore[misc]
    **{
        name: lambda name=name: build(name, 1)  # type: ignore[misc]
        for name in ("induction", "well_formed", "double_histogram", "fraction_a")
    },
}


@pytest.mark.parametrize("order", ["effect", "backward", "forward", "random"])
@pytest.mark.parametrize("name", MODELS)
def test_pruning_finds_the_planted_circuit(name: str, order: PruneOrder) -> None:
    compiled = MODELS[name]()
    with opened(compiled) as target:
        left = prune(NodeRuns(target, asked(compiled, 48)), order=order, threshold=0.99, seed=0, budget=1e9)
        assert set(members_of(target.spec, left.mask)) == planted(compiled)
        assert len(left.mask) > left.mask.sum()
    assert left.complete
    assert left.share == pytest.approx(1.0, abs=0.02)
    assert [step.size for step in left.steps] == list(range(len(left.mask), int(left.mask.sum()) - 1, -1))


@pytest.fixture(scope="module")
def induction() -> Iterator[tuple[NodeRuns, Mask]]:
    compiled = build("induction", 1)
    with opened(compiled) as target:
        yield NodeRuns(target, asked(compiled, 40)), mask_of(target.spec, planted(compiled))


def test_a_planted_circuit_is_sufficient_necessary_minimal_and_better_than_random(
    induction: tuple[NodeRuns, Mask],
) -> None:
    runs, circuit = induction
    alone, without = runs.scores([circuit, ~circuit])
    assert share_of(runs, alone, 0) == pytest.approx((1.0, 1.0, 1.0), abs=0.02)
    assert share_of(runs, without, 0).high < 0.3
    found = minimality(runs, circuit, alone)
    assert set(found.p_values) == set(members_of(runs.target.spec, circuit))
    assert max(found.p_values.values()) < 1e-6
    assert max(abs(cost) for cost in found.others.values()) < 1e-3
    others = random_circuits(runs.target.spec, circuit, 200, 0)
    beside = beside_random(runs, alone, others)
    assert beside.percentile == 100
    assert len(beside.bets) == 40
    assert np.mean(beside.bets) > 0.5


def test_an_idle_member_is_found_by_minimality_and_a_missing_one_by_sufficiency(
    induction: tuple[NodeRuns, Mask],
) -> None:
    runs, circuit = induction
    idle, needed = int(np.flatnonzero(~circuit)[0]), int(np.flatnonzero(circuit)[0])
    more, less = circuit.copy(), circuit.copy()
    more[idle], less[needed] = True, False
    found = minimality(runs, more, runs.scores([more])[0])
    name = str(nodes_of(runs.target.spec)[idle])
    assert found.p_values[name] > 0.05
    assert {member for member, p in found.p_values.items() if p < 0.05} == set(members_of(runs.target.spec, circuit))
    assert share_of(runs, runs.scores([less])[0], 0).high < 0.8


def test_the_curve_begins_with_nothing_and_ends_with_the_model(induction: tuple[NodeRuns, Mask]) -> None:
    runs, circuit = induction
    line = dict(curve(runs, circuit, minimality(runs, circuit, runs.scores([circuit])[0])))
    assert line[len(runs.whole)] == pytest.approx(1.0)
    assert line[int(circuit.sum())] == pytest.approx(1.0, abs=0.02)
    assert line[0] == pytest.approx(runs.share(runs.scores([~runs.whole])[0]))


def test_random_circuits_have_as_many_of_each_type_and_are_others() -> None:
    with opened(build("well_formed", 0)) as target:
        circuit = mask_of(target.spec, ["L0H1", "mlp0", "mlp2"])
        drawn = random_circuits(target.spec, circuit, 50, 0)
        again = random_circuits(target.spec, circuit, 50, 0)
        n_heads, n_layers = target.spec.n_layers * target.spec.n_heads, target.spec.n_layers
    is_head = np.array([node.head is not None for node in nodes_of(target.spec)])
    assert all(one[is_head].sum() == 1 and one[~is_head].sum() == 2 for one in drawn)
    assert not any(np.array_equal(one, circuit) for one in drawn)
    most = n_heads * n_layers * (n_layers - 1) // 2 - 1
    assert len({one.tobytes() for one in drawn}) == len(drawn) == min(50, most)
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))


# Statistics.


def test_holm_is_the_stepwise_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_bounds_of_a_share_draw_whole_groups(pocket: TargetModel) -> None:
    prompts = task_named("days").prompts(pocket, 24, seed=0)
    runs = NodeRuns(pocket, prompts)
    scores = runs.scores([mask_of(pocket.spec, ["L0H0", "mlp1", "mlp4"])])[0]
    found, rng, drawn = share_of(runs, scores, 0), np.random.default_rng(7), []
    rows = [np.flatnonzero(prompts.groups == group) for group in range(prompts.groups.max() + 1)]
    for _ in range(4000):
        chosen = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        drawn.append((scores - runs.corrupted)[chosen].sum() / (runs.clean - runs.corrupted)[chosen].sum())
    assert found.share == pytest.approx((scores - runs.corrupted).sum() / (runs.clean - runs.corrupted).sum())
    np.testing.assert_allclose([found.low, found.high], np.quantile(drawn, [0.05, 0.95]), atol=0.01)
    assert found.high - found.low > 0.02


def test_minimality_is_a_signed_rank_test_beside_the_non_member_at_the_bar(pocket: TargetModel) -> None:
    prompts = task_named("indirect object").prompts(pocket, 16, seed=0)
    runs, circuit = NodeRuns(pocket, prompts), mask_of(pocket.spec, GIVING)
    alone = runs.scores([circuit])[0]
    found, costs = minimality(runs, circuit, alone), {}
    for at, node in enumerate(nodes_of(pocket.spec)):
        turned = circuit.copy()
        turned[at] = not circuit[at]
        costs[str(node)] = (alone - runs.scores([turned])[0]) * (1 if circuit[at] else -1)
    others = sorted((name for name in costs if name not in GIVING), key=lambda name: costs[name].mean())
    bar = costs[others[41]]  # 42 of the 44 non-members are 95 %
    assert found.bar == pytest.approx(bar.mean() / runs.gap, abs=1e-4)
    groups = [prompts.groups == group for group in range(prompts.groups.max() + 1)]
    raw = [
        scipy_stats.wilcoxon([(costs[name] - bar)[rows].sum() for rows in groups], alternative="greater").pvalue
        for name in GIVING
    ]
    assert [found.p_values[name] for name in GIVING] == pytest.approx(holm(raw))


def test_harm_is_the_loss_of_other_text_by_hand(opened_pair: Callable[[str], tuple[TargetModel, Any]]) -> None:
    target, plain = opened_pair("pocket")
    tokens = ToolContext(target, pocket_corpus()).tokens("explore").select(range(4))
    circuit = mask_of(target.spec, ["L0H3", "mlp2"])
    rows = [torch.from_numpy(tokens.ids[at, : tokens.lengths[at]])[None].long() for at in range(4)]
    values: dict[tuple[str, int], list[Tensor]] = {("heads", 0): [], ("mlp_out", 2): []}
    with torch.no_grad():
        for row in rows:
            plain.run(row)
            for site, kept in values.items():
                kept.append(plain.seen[site][0, 1:])  # the first token is special
        means = {site: torch.cat(kept).mean(0) for site, kept in values.items()}

        def change(name: str, layer: int, x: Tensor) -> Tensor:
            x = x.clone()
            if (name, layer) == ("heads", 0):
                x[:, 1:, 3] = means[name, layer][3]
            if (name, layer) == ("mlp_out", 2):
                x[:, 1:] = means[name, layer]
            return x

        expected = []
        for row in rows:
            losses = [
                -plain.run(row, one)[0, :-1].double().log_softmax(-1).gather(1, row[0, 1:, None]).mean()
                for one in (None, change)
            ]
            expected.append(float(losses[1] - losses[0]))
    np.testing.assert_allclose(harm(target, circuit, tokens), expected, atol=1e-4)
    assert min(expected) != max(expected)
    np.testing.assert_array_equal(harm(target, np.zeros_like(circuit), tokens), np.zeros(4))


# The tools.


def call(target: TargetModel, name: str, **args: Any) -> ToolResult:
    tool = find_tool(name)
    return tool.run(ToolContext(target, pocket_corpus()), tool.parse(json.dumps(args)))


def test_a_circuit_is_found_tested_and_holds_on_unseen_prompts(pocket: TargetModel) -> None:
    found = call(pocket, "find_circuit", task="indirect object", n=24, reruns=1).payload
    runs = NodeRuns(pocket, task_named("indirect object").prompts(pocket, 24, seed=0))
    circuit = mask_of(pocket.spec, found["members"])
    assert found["share"] == pytest.approx(runs.share(runs.scores([circuit])[0]), abs=1e-4)
    assert found["share"] >= 0.9
    assert found["size"] == len(found["members"]) == circuit.sum() < 10
    assert found["nodes"] == 50
    assert found["complete"]
    [other] = found["reruns"]
    assert other["share"] >= 0.9
    one, two = set(found["members"]), set(other["members"])
    assert found["jaccard"] == pytest.approx(len(one & two) / len(one | two), abs=1e-4)
    tested = call(pocket, "test_circuit", unit="task:indirect object", members=found["members"], n=20).payload
    prompts = unseen(pocket, TestCircuitArgs(unit="indirect object", members=("L0H0",), n=20))
    fresh = NodeRuns(pocket, prompts)
    alone, without = fresh.scores([circuit, ~circuit])
    assert not set(prompts.clean_texts) & set(runs.prompts.clean_texts)
    assert tested["sufficiency"] == pytest.approx(fresh.share(alone), abs=1e-4)
    assert tested["necessity"] == pytest.approx(fresh.share(without), abs=1e-4)
    assert tested["sufficiency_low"] < tested["sufficiency"]
    assert tested["sufficiency"] > 0.8 > 0.3 > tested["necessity_high"]
    assert tested["percentile"] == 100
    assert tested["n_random"] == 200
    assert set(tested["minimality"]) == set(found["members"])
    assert tested["accuracy"] == 1.0
    assert 0 < tested["gap_low"] < tested["gap"]
    assert len(tested["bets"]) == len(np.unique(prompts.groups))
    assert tested["curve"][0]["size"] == 0
    assert tested["curve"][-1] == {"size": 50, "share": 1.0}


def test_an_arbitrary_circuit_fails_its_test(pocket: TargetModel) -> None:
    tested = call(pocket, "test_circuit", unit="indirect object", members=["L1H0", "L7H2", "L9H1"], n=10).payload
    assert tested["sufficiency"] < 0.2
    assert tested["necessity"] > 0.7
    assert tested["percentile"] < 95
    assert max(tested["minimality"].values()) > 0.05


def test_blocks_of_unseen_prompts_share_no_group(pocket: TargetModel) -> None:
    args = TestCircuitArgs(unit="indirect object", members=("L0H0",), n=24)
    blocks = [unseen(pocket, args.model_copy(update={"block": block})) for block in range(3)]
    names = [{tuple(text.split()[i].strip(",") for i in (0, 1, 3)) for text in block.clean_texts} for block in blocks]
    assert all(len(block) == 24 for block in blocks), [len(block) for block in blocks]
    assert not any(set(a.clean_texts) & set(b.clean_texts) for a, b in itertools.combinations(blocks, 2))
    assert all(len(one) > 10 for one in names)
    assert not any(a & b for a, b in itertools.combinations(names, 2))
    with pytest.raises(ToolRefused, match="groups of prompts left"):
        unseen(pocket, TestCircuitArgs(unit="days", members=("L0H0",), block=2))


@pytest.mark.parametrize("method", ["eap", "eap_ig", "acdc"])
def test_edges_lead_to_much_the_same_nodes(method: str, pocket: TargetModel) -> None:
    found = call(pocket, "find_circuit", task="indirect object", method=method, n=8, nats=0.1).payload
    assert found["complete"]
    assert found["edges"]
    ends = {end.partition(".")[0] for edge in found["edges"] for end in edge.split("->")} - {"embed", "logits"}
    assert ends == set(found["members"])
    assert len(ends & set(GIVING)) >= 4
    assert method == "acdc" or found["share"] >= 0.9


def test_a_spent_budget_gives_what_there_is(pocket: TargetModel) -> None:
    before = pocket.forwards
    found = call(pocket, "find_circuit", task="days", n=8, budget=200, reruns=3).payload
    assert not found["complete"]
    assert found["order"] == "backward"
    assert 0 < found["size"] < 50
    assert found["share"] >= 0.9
    assert pocket.forwards - before < 900  # with the prompts, the null and the accuracy


def test_circuits_are_compared_by_members_and_by_what_their_removal_leaves(pocket: TargetModel) -> None:
    members = [["L0H0", "L0H3", "mlp1"], ["L0H0", "L4H2", "L4H3", "mlp1"]]
    found = call(pocket, "compare_circuits", tasks=["months", "indirect object"], members=members, n=12, n_random=20)
    payload = found.payload
    assert payload["shared"] == ["L0H0", "mlp1"]
    assert payload["only"] == [["L0H3"], ["L4H2", "L4H3"]]
    assert payload["jaccard"] == pytest.approx(2 / 5)
    for at, (task, removed) in enumerate([("months", members[1]), ("indirect object", members[0])]):
        runs = NodeRuns(pocket, task_named(task).prompts(pocket, 12, seed=0))
        left = runs.share(runs.scores([~mask_of(pocket.spec, removed)])[0])
        assert payload["crossed"][at]["left"] == pytest.approx(left, abs=1e-4)
    one, other = (mask_of(pocket.spec, names) for names in members)
    assert jaccard(one, other) == pytest.approx(0.4)
    assert jaccard(one, one) == jaccard(~one & one, ~one & one) == 1.0
    assert jaccard(one, ~one) == 0.0


def test_what_cannot_be_searched_or_tested_is_refused(pocket: TargetModel) -> None:
    with pytest.raises(ToolRefused, match="cannot do 'every second letter'"):
        call(pocket, "find_circuit", task="every second letter")
    with pytest.raises(ToolRefused, match="'L10H0' is no node of pocket, which has layers 0 to 9 of 4 heads"):
        call(pocket, "test_circuit", unit="days", members=["L10H0"])
    with pytest.raises(ToolRefused, match="write a head as L3H1"):
        call(pocket, "test_circuit", unit="days", members=["head three"])
    with pytest.raises(ToolRefused, match="no members"):
        call(pocket, "compare_circuits", tasks=["days", "months"], members=[[], ["mlp1"]])
    with pytest.raises(ToolRefused, match="n_random"):
        call(pocket, "test_circuit", unit="days", members=["mlp1"], n_random=10)


def test_a_role_of_prompts_does_not_change_what_they_score(pocket: TargetModel) -> None:
    prompts = task_named("days").prompts(pocket, 8, seed=0)
    runs = NodeRuns(pocket, prompts)
    swapped = NodeRuns(pocket, replace(prompts, clean=prompts.corrupted, corrupted=prompts.clean))
    np.testing.assert_allclose(swapped.clean, runs.corrupted, atol=1e-4)
    assert swapped.gap == pytest.approx(-runs.gap, abs=1e-4)

"""Circuits by position: a node is a head or MLP at one role of the prompt, in the model read by hand and in planted ones."""

import json
import random
import re
import runpy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats as scipy_stats
from torch import Tensor

from neuronaut.evals.compiled import opened
from neuronaut.evals.compiler.program import Map, Program, Pull, Tokens, interpret
from neuronaut.evals.compiler.programs.words import at, previous
from neuronaut.evals.compiler.verify import encode
from neuronaut.evals.compiler.weights import Compiled, compile_program, piece_of
from neuronaut.tools.circuits.edges import edge_scores
from neuronaut.tools.circuits.measures import curve, harm, minimality, random_circuits, share_of
from neuronaut.tools.circuits.nodes import Ablation, Mask, NodeRuns, mask_of, members_of, nodes_of, roles_of
from neuronaut.tools.circuits.picture import circuit_graph
from neuronaut.tools.circuits.pruning import PruneOrder, prune_by_role
from neuronaut.tools.circuits.trial import TestCircuitArgs, unseen
from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene import next_token
from neuronaut.tools.predicates.circuit import Circuit
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.stats import holm
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import POCKET, load_target
from neuronaut.tools.tasks.base import TaskPrompts
from neuronaut.tools.tasks.catalogue import task_named

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
ROLES = ("", "a", "a", "", "b", "", "c", "", "end")
N, N_POS = 6, len(ROLES)
GIVING = ("L0H0@giver", "L0H3@giver", "L2H1@end", "L4H2@end", "L4H3@end", "L5H0@end")


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


def prompts_of(ids: tuple[Tensor, Tensor], answers: tuple[Tensor, Tensor], roles: tuple[str, ...]) -> TaskPrompts:
    """Clean and corrupted prompts by their tokens, with right and wrong answers."""
    texts = tuple(str(row.tolist()) for row in ids[0])
    return TaskPrompts("made", "made", "search", texts, texts, *ids, *answers, np.arange(len(texts)), roles, False)


def random_prompts(target: TargetModel) -> TaskPrompts:
    """Random tokens; the last one is the same in both."""
    made = torch.Generator().manual_seed(0)
    clean, corrupted = (torch.randint(5, target.spec.d_vocab, (N, N_POS), generator=made) for _ in range(2))
    corrupted[:, -1] = clean[:, -1]
    answers = torch.randint(5, target.spec.d_vocab, (N, 2, 1), generator=made)
    return prompts_of((clean, corrupted), (answers[:, 0], answers[:, 1]), ROLES)


def by_hand(target: TargetModel, plain: Any, prompts: TaskPrompts, members: set[str], how: str) -> list[float]:
    """Scores, prompt by prompt and position by position, on the second reading of the weights."""
    seen = []
    for row in prompts.corrupted:
        plain.run(row[None])
        seen.append(dict(plain.seen))
    named = [role or "rest" for role in prompts.roles]
    found = []
    for number in range(len(prompts)):
        donors = [seen[number]] if how == "resample" else seen

        def change(name: str, layer: int, x: Tensor, donors: list[Any] = donors) -> Tensor:
            if name not in ("heads", "mlp_out"):
                return x
            other, x = torch.stack([one[name, layer] for one in donors]).mean(0), x.clone()
            for position, role in enumerate(named):
                if name == "mlp_out" and f"mlp{layer}@{role}" not in members:
                    x[:, position] = other[:, position]
                for head in range(target.spec.n_heads if name == "heads" else 0):
                    if f"L{layer}H{head}@{role}" not in members:
                        x[:, position, head] = other[:, position, head]
            return x

        last = plain.run(prompts.clean[number : number + 1], change)[0, -1].double()
        found.append(float(last[prompts.right[number, 0]] - last[prompts.wrong[number, 0]]))
    return found


def some_masks(runs: NodeRuns) -> list[Mask]:
    rng, n = np.random.default_rng(1), len(runs.nodes)
    return [runs.whole, ~runs.whole, *(rng.random(n) < share for share in (0.3, 0.5, 0.8))]


@pytest.mark.parametrize("how", ["resample", "mean"])
@pytest.mark.parametrize("name", ["pocket", "gpt2", "llama", "qwen3", "gemma2", "gemma3"])
def test_the_score_of_a_circuit_by_position_is_that_of_the_model_taken_apart_by_hand(
    name: str, how: Ablation, opened_pair: Callable[[str], tuple[TargetModel, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, plain = opened_pair(name)
    runs = NodeRuns(target, random_prompts(target), how, by_role=True)
    masks = some_masks(runs)
    members = [set(members_of(target.spec, mask, runs.roles)) for mask in masks]
    with torch.no_grad():
        expected = [by_hand(target, plain, runs.prompts, one, how) for one in members]
    assert np.std(expected, axis=0).min() > 1e-3  # the masks make a difference
    for tokens in (4096, 2 * N * N_POS, 20):  # all circuits in one batch, two in each, less than one in each
        monkeypatch.setattr(next_token, "BATCH_TOKENS", tokens)
        fresh = NodeRuns(target, runs.prompts, how, by_role=True)
        np.testing.assert_allclose(fresh.scores(masks), expected, atol=2e-3)


@pytest.mark.parametrize("name", ["pocket", "gemma2"])
def test_a_resumed_circuit_by_position_is_that_run_from_the_start(
    name: str, opened_pair: Callable[[str], tuple[TargetModel, Any]]
) -> None:
    target, _ = opened_pair(name)
    runs, rng = NodeRuns(target, random_prompts(target), by_role=True), np.random.default_rng(0)
    runs.scores([~runs.whole])
    now, spent = runs.trail(runs.whole), []
    for node in rng.permutation(len(runs.whole))[:16]:
        mask = now.circuit.copy()
        mask[node] = False
        before = target.forwards
        now = runs.trail(mask, now)
        spent.append((target.forwards - before) / N)
        assert spent[-1] == pytest.approx(1 - runs.nodes[node].layer / target.spec.n_layers)
        np.testing.assert_allclose(now.scores, runs.scores([mask])[0], atol=1e-4)
    assert min(spent) < 1


def test_a_component_at_every_role_is_the_whole_component(pocket: TargetModel) -> None:
    prompts = task_named("indirect object").prompts(pocket, 12, seed=0)
    whole, by_role = NodeRuns(pocket, prompts), NodeRuns(pocket, prompts, by_role=True)
    members = ["L0H0", "L0H3", "L4H2", "mlp1"]
    split = mask_of(pocket.spec, members, by_role.roles)
    assert split.sum() == 4 * len(by_role.roles)
    np.testing.assert_allclose(
        by_role.scores([split, ~split]),
        whole.scores([mask_of(pocket.spec, members), ~mask_of(pocket.spec, members)]),
        atol=1e-4,
    )
    np.testing.assert_allclose(by_role.clean, whole.clean, atol=1e-4)


def test_nodes_by_role_are_named_and_ordered_by_layer_component_and_place(pocket: TargetModel) -> None:
    prompts = task_named("facts").prompts(pocket, 8, seed=0)
    assert roles_of(prompts) == ("subject", "end", "rest")
    assert roles_of(replace(prompts, roles=("a", "b", "a", "end", "end", "end"))) == ("a", "b", "end")
    names = [str(node) for node in nodes_of(pocket.spec, ("subject", "end"))]
    assert names[:4] == ["L0H0@subject", "L0H0@end", "L0H1@subject", "L0H1@end"]
    assert names[8:12] == ["mlp0@subject", "mlp0@end", "L1H0@subject", "L1H0@end"]
    mask = mask_of(pocket.spec, ["mlp0@end", "L9H3"], ("subject", "end"))
    assert members_of(pocket.spec, mask, ("subject", "end")) == ("mlp0@end", "L9H3@subject", "L9H3@end")
    with pytest.raises(ToolRefused, match="'mlp0@giver' stands at no role of these prompts, which have subject, end"):
        mask_of(pocket.spec, ["mlp0@giver"], ("subject", "end"))
    with pytest.raises(ToolRefused, match=r"'mlp0@end' is a node at one role, .* write mlp0"):
        mask_of(pocket.spec, ["mlp0@end"])
    with pytest.raises(ToolRefused, match="'L4H7@end' is no node of pocket"):
        mask_of(pocket.spec, ["L4H7@end"], ("end",))


# Planted circuits.

TOKEN = Tokens(tuple("abcde"))
LENGTH = 12
PLACES = ("", *(f"p{place}" for place in range(LENGTH - 1)), "end")  # the start token has no role
SOME_PLACES = ("", "", "", "p2", "", "p4", "", "p6", "", "", "", "", "end")


def turned(letter: Any) -> Any:
    return None if letter is None else "abcde"[("abcde".index(letter) * 2 + 1) % 5]


def copied(place: int) -> Pull:
    """The end says the token at a place."""
    return Pull("out", at(place), TOKEN)


def mapped_there(place: int) -> Pull:
    """The MLP at a place turns its token, and the end says that."""
    return Pull("out", at(place), Map("turned", turned, (TOKEN,)))


def moved_there(place: int) -> Pull:
    """A place looks at the one before it, and the end says what it saw."""
    return Pull("out", at(place), Pull("previous", previous, TOKEN))


def moved_and_mapped_there(place: int) -> Pull:
    """The same, turned by the MLP of the place."""
    return Pull("out", at(place), Map("turned", turned, (Pull("previous", previous, TOKEN),)))


def mapped_at_the_end(place: int) -> Map:
    """The end reads the token at a place, and turns it."""
    return Map("out", turned, (Pull("seen", at(place), TOKEN),))


# program, place, the role at which each variable is made
PLANTED: list[tuple[Callable[[int], Any], int, dict[str, str]]] = [
    (copied, 3, {"out": "end"}),
    (mapped_there, 0, {"turned": "p0", "out": "end"}),
    (mapped_there, 4, {"turned": "p4", "out": "end"}),
    (moved_there, 6, {"previous": "p6", "out": "end"}),
    (moved_and_mapped_there, 2, {"previous": "p2", "turned": "p2", "out": "end"}),
    (mapped_at_the_end, 5, {"seen": "end", "out": "end"}),
]


def compiled_of(program: Callable[[int], Any], place: int) -> Compiled:
    return compile_program(Program(program.__name__, "made", "made", TOKEN, program(place)), 1)


def planted(compiled: Compiled, made_at: dict[str, str]) -> set[str]:
    """The nodes by role that a compiled program needs."""
    parts = [part for part in compiled.components if part.role != "none"]
    names = {
        part.writes: f"L{part.layer}H{part.indices[0]}" if part.kind == "head" else f"mlp{part.layer}" for part in parts
    }
    assert set(names) == set(made_at)
    return {f"{names[variable]}@{role}" for variable, role in made_at.items()}


def asked(compiled: Compiled, n: int, roles: tuple[str, ...]) -> TaskPrompts:
    """Random texts, and others of which the program says something else."""
    rng = random.Random(0)
    rows: list[tuple[list[tuple[str, ...]], list[int]]] = []
    number = {piece: i for i, piece in enumerate(compiled.pieces)}
    while len(rows) < n:
        texts = [tuple(rng.choices("abcde", k=LENGTH)) for _ in range(2)]
        said = [number[piece_of(interpret(compiled.program, text)[-1])] for text in texts]
        if said[0] != said[1]:
            rows.append((texts, said))
    ids = [encode(compiled, [texts[side] for texts, _ in rows]) for side in (0, 1)]
    answers = [torch.tensor([[said[side]] for _, said in rows]) for side in (0, 1)]
    return prompts_of((ids[0], ids[1]), (answers[0], answers[1]), roles)


@pytest.mark.parametrize("order", ["effect", "backward", "random"])
@pytest.mark.parametrize("case", range(len(PLANTED)))
def test_a_planted_circuit_is_found_at_the_position_on_which_the_output_depends(case: int, order: PruneOrder) -> None:
    program, place, made_at = PLANTED[case]
    compiled = compiled_of(program, place)
    with opened(compiled) as target:
        runs = NodeRuns(target, asked(compiled, 32, PLACES), by_role=True)
        first, left = prune_by_role(runs, order=order, threshold=0.99, seed=0, budget=1e9)
        members, expected = set(members_of(target.spec, left.mask, runs.roles)), planted(compiled, made_at)
        assert members == expected
        assert set(members_of(target.spec, first.mask)) == {name.partition("@")[0] for name in expected}
        assert left.complete
        assert left.share == pytest.approx(1.0, abs=0.02)
        assert (left.steps[0].size, left.steps[-1].size) == (len(runs.whole), len(expected))
        alone, without = runs.scores([left.mask, ~left.mask])
        assert share_of(runs, without, 0).high < 0.3
        assert max(minimality(runs, left.mask, alone).p_values.values()) < 1e-4
        for name in expected:  # at any other role the same component carries nothing
            component, role = name.split("@")
            others = [one for one in runs.roles if one != role and f"{component}@{one}" not in expected]
            moved = expected - {name} | {f"{component}@{one}" for one in others}
            assert runs.share(runs.scores([mask_of(target.spec, moved, runs.roles)])[0]) < 0.5


def test_positions_without_a_role_are_one_node() -> None:
    program, place, made_at = mapped_there, 5, {"turned": "rest", "out": "end"}
    compiled = compiled_of(program, place)
    with opened(compiled) as target:
        runs = NodeRuns(target, asked(compiled, 32, SOME_PLACES), by_role=True)
        assert runs.roles == ("p2", "p4", "p6", "end", "rest")
        left = prune_by_role(runs, order="effect", threshold=0.99, seed=0, budget=1e9)[1]
        assert set(members_of(target.spec, left.mask, runs.roles)) == planted(compiled, made_at)


def test_a_spent_budget_leaves_whole_components_at_every_role(pocket: TargetModel) -> None:
    runs = NodeRuns(pocket, task_named("facts").prompts(pocket, 8, seed=0), by_role=True)
    before = pocket.forwards
    first, left = prune_by_role(runs, order="backward", threshold=0.9, seed=0, budget=120)
    assert not left.complete
    assert pocket.forwards - before < 250
    assert left.mask.sum() == 3 * first.mask.sum()
    assert left.share == pytest.approx(first.share, abs=1e-4)


# Measures.


def test_random_circuits_by_role_have_as_many_of_each_type_and_role(pocket: TargetModel) -> None:
    roles = ("subject", "end", "rest")
    circuit = mask_of(pocket.spec, ["L0H1@end", "L2H2@end", "L3H0@subject", "mlp0@end", "mlp2@rest"], roles)
    drawn = random_circuits(pocket.spec, circuit, 50, 0, roles)
    assert len({one.tobytes() for one in drawn}) == len(drawn) == 50

    def counts(mask: Mask) -> dict[tuple[bool, str], int]:
        found: dict[tuple[bool, str], int] = {}
        for name in members_of(pocket.spec, mask, roles):
            kind = (name.startswith("mlp"), name.partition("@")[2])
            found[kind] = found.get(kind, 0) + 1
        return found

    assert all(counts(one) == counts(circuit) for one in drawn)
    assert not any(np.array_equal(one, circuit) for one in drawn)
    assert sum(int((one & circuit).sum()) for one in drawn) < 50


def test_minimality_by_role_is_a_test_beside_non_members_of_the_same_role(pocket: TargetModel) -> None:
    prompts = task_named("indirect object").prompts(pocket, 16, seed=0)
    runs = NodeRuns(pocket, prompts, by_role=True)
    circuit = mask_of(pocket.spec, GIVING, runs.roles)
    alone = runs.scores([circuit])[0]
    found, costs = minimality(runs, circuit, alone), {}
    for number, node in enumerate(nodes_of(pocket.spec, runs.roles)):
        if node.role in ("giver", "end"):
            turned = circuit.copy()
            turned[number] = not circuit[number]
            costs[str(node)] = (alone - runs.scores([turned])[0]) * (1 if circuit[number] else -1)
    bars = {}
    for role, rank in (("giver", 45), ("end", 43)):  # 46 of 48 and 44 of 46 non-members are 95 %
        others = [name for name in costs if name.endswith(f"@{role}") and name not in GIVING]
        bars[role] = costs[sorted(others, key=lambda name: costs[name].mean())[rank]]
        assert found.bars[role] == pytest.approx(bars[role].mean() / runs.gap, abs=1e-4)
    assert found.bar == max(found.bars.values())
    groups = [prompts.groups == group for group in range(prompts.groups.max() + 1)]
    differences = {name: costs[name] - bars[name.partition("@")[2]] for name in GIVING}
    raw = [
        scipy_stats.wilcoxon([differences[name][rows].sum() for rows in groups], alternative="greater").pvalue
        for name in GIVING
    ]
    assert [found.p_values[name] for name in GIVING] == pytest.approx(holm(raw))
    idle = mask_of(pocket.spec, [*GIVING, "L8H1@end"], runs.roles)
    assert minimality(runs, idle, runs.scores([idle])[0]).p_values["L8H1@end"] > 0.05
    line = dict(curve(runs, circuit, found))
    assert line[len(runs.whole)] == pytest.approx(1.0, abs=1e-4)
    assert line[6] == pytest.approx(runs.share(alone), abs=1e-4)


def test_edges_by_position_add_up_to_edges(pocket: TargetModel) -> None:
    prompts = task_named("indirect object").prompts(pocket, 4, seed=0)
    whole, parts = edge_scores(pocket, prompts), edge_scores(pocket, prompts, by_position=True)
    np.testing.assert_allclose(parts.sum(dim=2), whole, atol=1e-4)
    same = (prompts.clean == prompts.corrupted).all(dim=0).long().cumprod(dim=0).bool()
    assert float(parts[:, :, same].abs().max()) < 1e-6 < float(parts.abs().max())  # before the first difference


def test_the_picture_shows_roles_and_what_flows_at_them(pocket: TargetModel) -> None:
    runs = NodeRuns(pocket, task_named("indirect object").prompts(pocket, 16, seed=0), by_role=True)
    svg = circuit_graph(runs, [*GIVING, "L0H3@A"]).svg
    for label in ("L0H0@giver", "L0H3@giver,A", "L2H1@end", "L4H2@end", "logits"):
        assert f">{label}<" in svg
    scores = -edge_scores(pocket, runs.prompts, by_position=True) / runs.gap
    wires = Wires.of(pocket.spec)
    giver, first, end = (runs.prompts.roles.index(role) for role in ("giver", "A", "end"))
    sender = wires.senders.index("L0H3")
    parts = torch.stack([scores[wires.receivers.index(f"L4H3.{part}"), sender] for part in "kv"]).sum(dim=0)
    said = re.search(r"L0H3@giver,A to L4H3@end: ([-−\d.]+) · giver ([^<\s]+), A ([^<\s]+)<", svg)
    assert said
    numbers = [float(one.replace("−", "-")) for one in said.groups()]
    expected = [float(parts[[giver, first]].sum()), float(parts[giver]), float(parts[first])]
    assert numbers == pytest.approx(expected, abs=6e-3)
    assert numbers[0] > 0.1
    direct = re.search(r"L4H3@end to logits: ([-−\d.]+)<", svg)
    assert direct
    own = scores[wires.logits, wires.senders.index("L4H3"), end]
    assert float(direct.group(1).replace("−", "-")) == pytest.approx(float(own), abs=6e-3)


# The tools.


def call(target: TargetModel, name: str, **args: Any) -> ToolResult:
    tool = find_tool(name)
    return tool.run(ToolContext(target, pocket_corpus()), tool.parse(json.dumps(args)))


def test_a_circuit_by_position_is_found_tested_and_holds_on_unseen_prompts(pocket: TargetModel) -> None:
    result = call(pocket, "find_circuit", task="indirect object", n=16, reruns=1, positions=True)
    found = result.payload
    runs = NodeRuns(pocket, task_named("indirect object").prompts(pocket, 16, seed=0), by_role=True)
    circuit = mask_of(pocket.spec, found["members"], runs.roles)
    assert found["share"] == pytest.approx(runs.share(runs.scores([circuit])[0]), abs=1e-4)
    assert found["share"] >= 0.9
    assert found["size"] == len(found["members"]) == circuit.sum() < 12
    assert found["nodes"] == 50 * len(found["roles"])
    assert set(found["roles"]) == {"A", "B", "place", "giver", "thing", "end", "rest"}
    assert {name.partition("@")[0] for name in found["members"]} <= set(found["components"])
    assert {name.partition("@")[2] for name in found["members"]} == {"giver", "end"}
    assert all("@" in name for name in found["reruns"][0]["members"])
    assert all(name in result.figures[0].svg for name in found["members"])
    Circuit(task="indirect object", members=tuple(found["members"]))

    tested = call(pocket, "test_circuit", unit="indirect object", members=found["members"], n=16).payload
    args = TestCircuitArgs(unit="indirect object", members=("L0H0",), n=16)
    fresh = NodeRuns(pocket, unseen(pocket, args), by_role=True)
    alone, without = fresh.scores([circuit, ~circuit])
    assert tested["sufficiency"] == pytest.approx(fresh.share(alone), abs=1e-4)
    assert tested["necessity"] == pytest.approx(fresh.share(without), abs=1e-4)
    assert tested["sufficiency"] > 0.8 > 0.3 > tested["necessity_high"]
    assert tested["percentile"] > 95
    assert tested["size"] == len(found["members"])
    assert tested["nodes"] == 350
    assert set(tested["minimality"]) == set(found["members"])
    assert tested["curve"][-1] == {"size": 350, "share": 1.0}
    whole = sorted({name.partition("@")[0] for name in found["members"]})
    assert sorted(tested["harm_of"]) == whole
    tokens = ToolContext(pocket, pocket_corpus()).tokens("confirm", 0)
    lost = harm(pocket, mask_of(pocket.spec, whole), tokens.select(range(24)))
    assert tested["harm"] == pytest.approx(float(lost.mean()), abs=1e-5)


def test_the_same_members_at_other_roles_fail_their_test(pocket: TargetModel) -> None:
    members = [name.replace("giver", "place").replace("end", "thing") for name in GIVING]
    tested = call(pocket, "test_circuit", unit="indirect object", members=members, n=10).payload
    assert tested["sufficiency"] < 0.1
    assert tested["necessity"] > 0.8
    assert max(tested["minimality"].values()) > 0.05


def test_circuits_by_position_are_compared_by_their_whole_components(pocket: TargetModel) -> None:
    asked = {"tasks": ["months", "facts"], "n": 8, "n_random": 20}
    whole = [["L0H0", "mlp3"], ["L0H3", "mlp3"]]
    by_role = [["L0H0@end", "L0H0@a", "mlp3@end"], ["L0H3@end", "mlp3@subject"]]
    assert (
        call(pocket, "compare_circuits", members=by_role, **asked).payload
        == call(pocket, "compare_circuits", members=whole, **asked).payload
    )


def test_what_has_no_position_is_refused(pocket: TargetModel) -> None:
    with pytest.raises(ToolRefused, match="'eap' finds edges at all positions"):
        call(pocket, "find_circuit", task="facts", method="eap", positions=True)
    with pytest.raises(
        ToolRefused, match="'mlp3@giver' stands at no role of these prompts, which have subject, end, rest"
    ):
        call(pocket, "test_circuit", unit="facts", members=["mlp3@giver"])
    with pytest.raises(ToolRefused, match="'L10H0' is no node"):
        call(pocket, "test_circuit", unit="facts", members=["L10H0@end"])
    for name in ("L1H2@", "L1H2@a b", "@end", "mlp3@end@end"):
        with pytest.raises(ValidationError):
            Circuit(task="facts", members=(name,))

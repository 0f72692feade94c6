"""Path patching against edges cut by hand, and against patching the senders themselves."""

import json
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuronaut.tools.circuits import bench
from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene import path
from neuronaut.tools.intervene.path import edges_between, other_sets, path_effects
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tasks.catalogue import task_named

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
_plain = runpy.run_path(str(Path(__file__).with_name("plain_edges.py")))
all_written, by_hand, open_plain = (_plain[name] for name in ("all_written", "by_hand", "open_plain"))
CLEAN, CORRUPTED = "the cat on the old", "the dog on the old"
FAMILIES = ("gpt2", "llama", "qwen3", "gemma2")


class Bench:
    """A model through the tool and by its weights alone."""

    def __init__(self, case: Any) -> None:
        self.case, self.context = case, ToolContext(case.target, pocket_corpus())
        self.wires = Wires.of(case.target.spec)

    def ids(self, text: str) -> Tensor:
        return torch.from_numpy(self.case.target.tokenize([text]).ids).long()

    def piece(self, at: int) -> str:
        return str(self.case.target.vocabulary.pieces[at])

    def call(self, name: str, **more: Any) -> ToolResult:
        tool = find_tool(name)
        args = {
            "clean": CLEAN,
            "corrupted": CORRUPTED,
            "answer": self.piece(300),
            "wrong_answer": self.piece(301),
            **more,
        }
        return tool.run(self.context, tool.parse(json.dumps(args)))

    def path(self, *senders: str, **more: Any) -> dict[str, float]:
        found = self.call("path_patch", senders=senders, **more)
        return {one.metric: one.value for one in found.measurements}

    def by_hand(self, cut: Tensor, direction: str) -> float:
        """The effect of edges cut by hand on the difference of the logits of the answers."""
        ids = [self.ids(CLEAN), self.ids(CORRUPTED)]

        def score(logits: Tensor) -> float:
            return float(logits[0, -1, 300] - logits[0, -1, 301])

        clean, corrupted = (score(self.case.plain.run(one)) for one in ids)
        base, other = ids if direction == "noise" else ids[::-1]
        patched = score(by_hand(self.case, base, all_written(self.case, other), cut[None]))
        moved = clean - patched if direction == "noise" else patched - corrupted
        return moved / (clean - corrupted)


@pytest.fixture(scope="module")
def open_bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    @cache
    def opened(name: str) -> Bench:
        folder = make_model(name, tmp_path_factory.mktemp("models") / name)
        return Bench(open_plain(load_target(folder), folder))

    return opened


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench(str(request.param))


@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_the_effect_through_receivers_is_that_of_the_same_edges_cut_by_hand(model: Bench, direction: str) -> None:
    wires = model.wires
    shared = wires.receivers[wires.reads(2, "k")[1]]
    senders, receivers = ["embed", "L0H1", "mlp1"], ["L1H2.q", shared, "mlp2", "logits"]
    found = model.call("path_patch", senders=senders, receivers=receivers, direction=direction)
    chosen = edges_between(wires, senders, receivers)
    effect = {one.metric: one.value for one in found.measurements}
    assert effect["effect"] == pytest.approx(model.by_hand(chosen, direction), abs=1e-3)
    everything = wires.possible & chosen.any(dim=0)
    assert effect["total"] == pytest.approx(model.by_hand(everything, direction), abs=1e-3)
    logits = everything & (torch.arange(len(everything)) == wires.logits)[:, None]
    assert effect["direct"] == pytest.approx(model.by_hand(logits, direction), abs=1e-3)
    for (receiver, sender), alone in zip(found.arrays["edges"].tolist(), found.arrays["effect"], strict=True):
        single = torch.zeros_like(chosen)
        single[receiver, sender] = True
        assert alone == pytest.approx(model.by_hand(single, direction), abs=1e-3)
    assert len(found.arrays["effect"]) == int(chosen.sum())
    listed = [abs(row["effect"]) for row in found.payload["edges"]]
    assert listed == sorted(listed, reverse=True)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_through_all_receivers_it_is_the_head_patched_itself(
    open_bench: Callable[[str], Bench], family: str, direction: str
) -> None:
    model = open_bench(family)
    whole = model.call("patch", site="heads", direction=direction)
    for row in whole.payload["rows"]:
        for head, effect in enumerate(row["effect"]):
            name = f"L{row['layer']}H{head}"
            assert model.path(name, direction=direction)["effect"] == pytest.approx(effect, abs=2e-3), name


@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_the_embedding_carries_all_and_so_do_all_senders_to_the_logits(model: Bench, direction: str) -> None:
    found = model.path("embed", direction=direction)
    assert found["effect"] == pytest.approx(1.0, abs=1e-3)
    assert found["total"] == found["effect"]
    everything = model.path(*model.wires.senders, receivers=["logits"], direction=direction)
    assert everything["effect"] == pytest.approx(1.0, abs=1e-3)
    assert everything["direct"] == everything["effect"]


def test_along_no_edge_nothing_is_carried(model: Bench) -> None:
    pair = path.PromptPair.of(model.case.target, CLEAN, CORRUPTED)
    metric = path.metric_of(pair, model.piece(300), model.piece(301), "log_prob")
    for direction in ("noise", "denoise"):
        carrier = path.Carrier(metric, direction, model.wires)  # type: ignore[arg-type]
        assert float(carrier.effects(torch.zeros_like(model.wires.possible)[None])[0]) == pytest.approx(0.0, abs=1e-5)


def test_direct_effects_on_one_logit_difference_add_up_where_the_norm_stands_still(
    open_bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the scale of the last norm, the parts' direct effects are a sum; that of all is 1 with it."""
    model = open_bench("gpt2")
    target = model.case.target
    norm = target._last_norm
    monkeypatch.setattr(norm, "forward", lambda x: (x - x.mean(-1, keepdim=True)) * norm.weight)
    alone = [model.path(sender, receivers=["logits"])["effect"] for sender in model.wires.senders]
    assert sum(alone) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_an_answer_of_several_tokens_is_scored_behind_the_patched_prompt(
    open_bench: Callable[[str], Bench], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: the edge is cut in the prompt alone and the answer's tokens follow it."""
    model, answer = open_bench(family), " the cat"
    target = model.case.target
    tokens = path.metric_of(path.PromptPair.of(target, CLEAN, CORRUPTED), answer, None, "log_prob").answers[0][0]
    assert len(tokens) > 1
    monkeypatch.setattr(bench, "BYTES", 1)
    monkeypatch.setattr(path, "BYTES", 1)
    found = model.path("L0H1", "mlp1", receivers=["mlp2", "L2H0.q"], answer=answer, wrong_answer=None)["effect"]
    more = torch.tensor([tokens[:-1]])
    whole = [torch.cat([model.ids(text), more], dim=1) for text in (CLEAN, CORRUPTED)]
    n_pos = model.ids(CLEAN).shape[1]

    def score(logits: Tensor) -> float:
        log_probs = logits[0].double().log_softmax(-1)
        return float(sum(log_probs[n_pos - 1 + at, token] for at, token in enumerate(tokens)))

    clean, corrupted = (score(model.case.plain.run(ids)) for ids in whole)
    cut = edges_between(model.wires, ["L0H1", "mlp1"], ["mlp2", "L2H0.q"])[None]
    inside = (torch.arange(whole[0].shape[1]) < n_pos)[None].float()
    patched = score(by_hand(model.case, whole[0], all_written(model.case, whole[1]), cut, inside))
    assert found == pytest.approx((clean - patched) / (clean - corrupted), abs=2e-3)


def test_the_divergence_of_the_prediction_can_be_measured_instead(model: Bench) -> None:
    found = model.path("embed", metric="kl", direction="denoise")
    assert found["effect"] == pytest.approx(1.0, abs=1e-3)
    part = model.call("path_patch", senders=["L0H0"], receivers=["logits"], metric="kl", direction="denoise")
    cut = edges_between(model.wires, ["L0H0"], ["logits"])[None]
    ids = [model.ids(text) for text in (CLEAN, CORRUPTED)]
    logits = by_hand(model.case, ids[1], all_written(model.case, ids[0]), cut)[0, -1]
    clean, corrupted = (model.case.plain.run(one)[0, -1].double().log_softmax(-1) for one in ids)
    patched = logits.double().log_softmax(-1)
    apart = [float((clean.exp() * (clean - one)).sum()) for one in (corrupted, patched)]
    assert part.measurements[0].value == pytest.approx(1 - apart[1] / apart[0], abs=2e-3)


def test_nulls_are_as_many_other_senders_of_the_same_kinds_to_the_same_receivers(model: Bench) -> None:
    wires = model.wires
    chosen = edges_between(wires, ["L0H1", "L1H0", "mlp1"], ["logits", "mlp2"])
    nulls = other_sets(wires, chosen, seed=0)
    assert len(nulls) > 8
    names = [{wires.senders[at] for at in one.any(dim=0).nonzero()[:, 0].tolist()} for one in nulls]
    for one, named in zip(nulls, names, strict=True):
        assert not named & {"L0H1", "L1H0", "mlp1"}
        assert sorted(name[0] for name in named) == ["L", "L", "m"]
        assert torch.equal(one, edges_between(wires, sorted(named), ["logits", "mlp2"]))
    assert len({frozenset(named) for named in names}) == len(names)
    assert torch.equal(other_sets(wires, chosen, seed=0), nulls)
    found = model.call("path_patch", senders=["L0H1", "L1H0", "mlp1"], receivers=["logits", "mlp2"])
    expected = [model.by_hand(one, "noise") for one in nulls]
    np.testing.assert_allclose(found.arrays["null"], expected, atol=1e-3)
    effect = found.measurements[0]
    assert effect.null_percentile == pytest.approx(100 * np.mean(np.abs(expected) < abs(effect.value)))
    assert len(other_sets(wires, edges_between(wires, ["embed"], None), seed=0)) == 0


def test_what_cannot_be_patched_is_refused_in_a_sentence(open_bench: Callable[[str], Bench]) -> None:
    model = open_bench("gpt2")
    refused: list[tuple[str, dict[str, Any]]] = [
        ("'L9H0' is no part that writes", {"senders": ["L9H0"]}),
        ("'L1H0' is no part that reads", {"senders": ["embed"], "receivers": ["L1H0"]}),
        ("no edge leads from L2H0 to L1H0.q", {"senders": ["L2H0"], "receivers": ["L1H0.q"]}),
        ("same tokens", {"senders": ["embed"], "corrupted": CLEAN}),
        ("at least 1 item", {"senders": []}),
    ]
    for message, args in refused:
        with pytest.raises(ToolRefused, match=message):
            model.call("path_patch", **args)


def test_paths_of_a_task_are_those_of_each_prompt(open_bench: Callable[[str], Bench]) -> None:
    """On the embedded model: the heads that write the answer do so directly, and other heads of the layer do not."""
    target = load_target("pocket")
    prompts = task_named("indirect object").prompts(target, 8, seed=0)
    heads = [path_effects(target, prompts, [f"L4H{head}"], ["logits"]).mean() for head in range(4)]
    everything = path_effects(target, prompts, ["embed"], None)
    clean, corrupted = (
        prompts.score(target.run(ids, logits=True).logits[:, -1]) for ids in (prompts.clean, prompts.corrupted)
    )  # type: ignore[index]
    assert torch.allclose(everything, corrupted - clean, atol=1e-3)
    assert min(heads) < -1.0
    assert max(heads) > -0.5

"""Ablation against edits by hand on a second reading of the weights."""

import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.ablate import EXPLORE_TOKENS
from neuronaut.tools.intervene.answers import answer_ids

_BENCH = runpy.run_path(str(Path(__file__).with_name("plain_bench.py")))
Bench, PROMPTS, SAME_LENGTH = _BENCH["Bench"], _BENCH["PROMPTS"], _BENCH["SAME_LENGTH"]
measured, changed = _BENCH["measured"], _BENCH["changed"]
SITES = {"1.7": ("neurons", 7), "L1H2": ("heads", 2), "1.attn_out": ("attn_out", None), "1.mlp_out": ("mlp_out", None)}
OUT = {"neurons": "mlp_out", "mlp_out": "mlp_out", "heads": "attn_out", "attn_out": "attn_out"}


@pytest.fixture(scope="module")
def open_bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    @cache
    def opened(name: str) -> Any:
        return _BENCH["open_model"](name, tmp_path_factory.mktemp("models") / name)

    return opened


@pytest.fixture(params=["pocket", "llama", "gemma2"])
def bench(request: pytest.FixtureRequest, open_bench: Callable[[str], Any]) -> Any:
    return open_bench(str(request.param))


@pytest.fixture
def pocket(open_bench: Callable[[str], Any]) -> Any:
    return open_bench("pocket")


def _columns(bench: Any, text: str, positions: Any) -> list[int]:
    n = bench.ids(text).shape[1]
    if positions in ("last", "all"):
        return [n - 1] if positions == "last" else list(range(bench.bos, n))
    return [n + at if at < 0 else at + bench.bos for at in positions]


@pytest.mark.parametrize("positions", ["last", "all", [0, -1]])
@pytest.mark.parametrize("unit", SITES)
def test_total_and_direct_effect_are_those_by_hand(bench: Any, unit: str, positions: Any) -> None:
    """Answers of two tokens and of one, so that no run is shared; a constant is put in, which no padding hides."""
    name, index = SITES[unit]
    pieces = bench.context.target.vocabulary.pieces
    right, wrong = pieces[300] + pieces[310], bench.piece(320)
    answers = {answer_ids(bench.context.target, right): 1.0, (320,): -1.0}
    total, direct, own = [], [], []
    for text in PROMPTS:
        change = changed((name, 1), index, _columns(bench, text, positions), lambda _: 0.7)
        scores = np.zeros(3)
        for answer, sign in answers.items():
            ids = bench.ids(text, answer[:-1])
            runs = (
                bench.log_probs(ids),
                bench.log_probs(ids, change),
                bench.directly(ids, (OUT[name], 1), change),
            )
            at = range(ids.shape[1] - len(answer), ids.shape[1])
            scores += [sign * sum(float(run[p, t]) for p, t in zip(at, answer, strict=True)) for run in runs]
        own.append(scores[0])
        total.append(scores[0] - scores[1])
        direct.append(scores[0] - scores[2])
    found = bench.run(
        "ablate",
        unit=unit,
        prompts=PROMPTS,
        answer=right,
        wrong_answer=wrong,
        how="constant",
        value=0.7,
        positions=positions,
    )
    rows = found.payload["prompts"]
    np.testing.assert_allclose([row["logit_diff"] for row in rows], own, atol=2e-4)
    np.testing.assert_allclose([row["drop"] for row in rows], total, atol=2e-4)
    np.testing.assert_allclose([row["direct"] for row in rows], direct, atol=2e-4)
    assert measured(found, "logit_diff_drop").value == pytest.approx(np.mean(total), abs=2e-4)
    assert measured(found, "direct_logit_diff_drop").value == pytest.approx(np.mean(direct), abs=2e-4)
    assert np.abs(np.subtract(total, direct)).max() > 1e-4, "later layers answer too"


@pytest.mark.parametrize("unit", ["{last}.7", "{last}.mlp_out"])
def test_nothing_comes_between_the_last_mlp_and_the_logits(bench: Any, unit: str) -> None:
    found = bench.run(
        "ablate", unit=unit.format(last=bench.n_layers - 1), prompts=PROMPTS, answer=bench.piece(), how="zero"
    )
    for row in found.payload["prompts"]:
        assert row["direct"] == pytest.approx(row["drop"], abs=1e-4)


@pytest.mark.parametrize("unit", ["1.7", "L1H2", "1.mlp_out"])
def test_the_loss_of_texts_rises_by_what_it_does_by_hand(bench: Any, unit: str) -> None:
    name, index = SITES[unit]
    own, rises, direct = [], [], []
    for text in PROMPTS:
        ids = bench.ids(text)
        change = changed((name, 1), index, _columns(bench, text, "all"), torch.zeros_like)
        runs = (bench.log_probs(ids), bench.log_probs(ids, change), bench.directly(ids, (OUT[name], 1), change))
        losses = [-float(run[torch.arange(ids.shape[1] - 1), ids[0, 1:]].mean()) for run in runs]
        own.append(losses[0])
        rises.append(losses[1] - losses[0])
        direct.append(losses[2] - losses[0])
    texts = [text for text in PROMPTS if bench.ids(text).shape[1] > 1]
    found = bench.run("ablate", unit=unit, prompts=texts, how="zero")
    np.testing.assert_allclose([row["loss"] for row in found.payload["prompts"]], own, atol=1e-4)
    np.testing.assert_allclose([row["drop"] for row in found.payload["prompts"]], rises, atol=1e-4)
    np.testing.assert_allclose([row["direct"] for row in found.payload["prompts"]], direct, atol=1e-4)
    assert measured(found, "loss_rise").value == pytest.approx(np.mean(rises), abs=1e-4)


@pytest.mark.parametrize("unit", ["1.7", "L1H2", "1.attn_out"])
def test_the_mean_of_the_prompts_is_taken_position_by_position(pocket: Any, unit: str) -> None:
    name, index = SITES[unit]
    values = torch.stack([pocket.seen(text, name, 1) for text in SAME_LENGTH])
    mean = values.mean(dim=0)
    expected = []
    for text in SAME_LENGTH:

        def change(site: str, layer: int, x: torch.Tensor) -> torch.Tensor:
            if (site, layer) == (name, 1):
                x = x.clone()
                if index is None:
                    x[0, 1:] = mean[1:]
                else:
                    x[0, 1:, index] = mean[1:, index]
            return x

        ids = pocket.ids(text)
        expected.append(float((pocket.log_probs(ids) - pocket.log_probs(ids, change))[-1, 300]))
    found = pocket.run("ablate", unit=unit, prompts=SAME_LENGTH, answer=pocket.piece(), how="mean", positions="all")
    np.testing.assert_allclose([row["drop"] for row in found.payload["prompts"]], expected, atol=1e-4)


def _explored(bench: Any, layer: int, index: int) -> np.ndarray:
    """A neuron at all tokens of the explore text, BOS left out."""
    tokens = bench.context.sample("explore", EXPLORE_TOKENS)
    return np.concatenate([bench.seen(text, "neurons", layer)[bench.bos :, index].numpy() for text in tokens.texts])


def test_explore_text_can_give_the_mean_and_the_values(pocket: Any) -> None:
    tokens = pocket.context.sample("explore", EXPLORE_TOKENS)
    means = sum(pocket.seen(text, "neurons", 3)[1:].sum(dim=0) for text in tokens.texts[:10])
    index = int(means.argmax())
    pool = _explored(pocket, 3, index)
    args = {"unit": f"3.{index}", "prompts": PROMPTS, "answer": pocket.piece(), "source": "explore"}
    mean = pocket.run("ablate", **args, how="mean").payload["prompts"]
    np.testing.assert_allclose([row["replaced_by"] for row in mean], pool.mean(), atol=1e-4)
    many = [f"the {word}" for word in " ".join(PROMPTS).split()] * 8
    drawn = [
        row["replaced_by"]
        for row in pocket.run("ablate", **args | {"prompts": many}, how="resample").payload["prompts"]
    ]
    assert all(np.abs(pool - one).min() < 2e-5 for one in drawn)
    spread = pool.std() / len(drawn) ** 0.5
    assert abs(np.mean(drawn) - pool.mean()) < 5 * spread
    assert len(set(drawn)) > 1


def test_the_null_of_a_whole_output_is_that_of_other_layers(open_bench: Callable[[str], Any]) -> None:
    bench = open_bench("llama")
    args = {"prompts": PROMPTS, "answer": bench.piece(), "how": "zero"}
    own, *others = (measured(bench.run("ablate", unit=f"{at}.mlp_out", **args), "log_prob_drop") for at in (1, 0, 2))
    assert own.null_value == pytest.approx(np.mean([other.value for other in others]), abs=1e-6)
    assert own.null_percentile == pytest.approx(100 * np.mean([abs(one.value) < abs(own.value) for one in others]))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"how": "mean", "positions": "all"}, "take the mean from text with source 'explore'"),
        ({"positions": [2]}, "position 2 does not exist in each text: the shortest has 2 tokens"),
        ({"positions": [-3]}, "-2 to -1 from its end"),
        ({"positions": []}, "at least 1"),
        ({"positions": "first"}, "positions"),
        ({"how": "constant"}, "a value is given with how 'constant'"),
        ({"how": "zero", "value": 1.0}, "and only with it"),
        ({"how": "constant", "value": float("inf")}, "finite"),
        ({"answer": None, "wrong_answer": " the"}, "needs an answer"),
        ({"answer": None, "positions": "last", "how": "zero"}, "its loss cannot change there"),
        ({"answer": " the" * 127}, "longer than the context of pocket"),
        ({"wrong_answer": " the"}, "both ' the'"),
        ({"unit": "1.resid_post"}, "8.attn_out or 8.mlp_out"),
        ({"unit": "10.mlp_out"}, "has layers 0 to 9"),
        ({"unit": "L1H4"}, "has heads 0 to 3"),
    ],
)
def test_what_cannot_be_ablated_is_refused_before_any_forward(pocket: Any, args: dict[str, Any], message: str) -> None:
    before = pocket.context.target.forwards
    with pytest.raises(ToolRefused, match=message) as refusal:
        pocket.run("ablate", **{"unit": "1.1", "prompts": PROMPTS, "answer": " the"} | args)
    assert "\n" not in str(refusal.value)
    assert pocket.context.target.forwards == before

"""Steering against curves, directions, divergences and text by hand on a second reading of the weights."""

import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.intervene.steer import line_of
from neuronaut.tools.intervene.strength import matched

_BENCH = runpy.run_path(str(Path(__file__).with_name("plain_bench.py")))
PROMPTS, measured, changed = _BENCH["PROMPTS"], _BENCH["measured"], _BENCH["changed"]


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


def _last(bench: Any, text: str, site: tuple[str, int], index: int | None, new: Callable[[Tensor], Any]) -> Tensor:
    """(d_vocab,) after a text, a site edited at its last token."""
    ids = bench.ids(text)
    return bench.log_probs(ids, changed(site, index, [ids.shape[1] - 1], new))[-1]


def test_a_line_is_found_where_there_is_one() -> None:
    doses, slopes, intercepts = np.array([-1.0, 0.0, 2.0, 5.0]), np.array([2.0, -1.0, 0.5]), np.array([1.0, 0.0, 4.0])
    line = line_of(doses, doses[:, None] * slopes + intercepts)
    np.testing.assert_allclose(line.slopes, slopes, atol=1e-12)
    assert (line.intercept, line.r2) == (pytest.approx(5 / 3), pytest.approx(1.0))
    bent = line_of(np.array([-1.0, 0.0, 1.0]), np.array([[1.0], [0.0], [1.0]]))
    assert (bent.slopes[0], bent.r2) == (pytest.approx(0.0), pytest.approx(0.0))


def test_small_doses_answer_by_the_gradient(bench: Any) -> None:
    """The slope of a smooth function at 0 is its derivative, here by autograd through the second reading."""
    site, expected = ("neurons", bench.n_layers - 1), []
    for text in PROMPTS:
        ids, dose = bench.ids(text), torch.zeros((), dtype=torch.float32, requires_grad=True)
        with torch.enable_grad():
            logits = bench.plain.run(ids, changed(site, 5, [ids.shape[1] - 1], lambda x, dose=dose: x + dose))[0, -1]
            [gradient] = torch.autograd.grad(logits.double().log_softmax(-1)[300], dose)
        expected.append(float(gradient))
    args = {"unit": f"{site[1]}.5", "prompts": PROMPTS, "token": bench.piece(), "how": "add"}
    found = bench.run("steer", **args, doses=[-0.02, -0.01, 0.0, 0.01, 0.02])
    slopes = [row["slope"] for row in found.payload["sensitivity"]["prompts"]]
    np.testing.assert_allclose(slopes, expected, atol=2e-3 * max(1.0, np.abs(expected).max()))
    assert measured(found, "r2").value > 0.99
    assert found.payload["sensitivity"]["spread"] == pytest.approx(np.std(expected, ddof=1), abs=5e-3)


def test_a_head_is_scaled_beside_the_others_at_equal_norm(bench: Any) -> None:
    """All other heads of the layer are the null: what each writes, at the length of what the dose changes."""
    doses, layer, site = (0.0, 1.0, 3.0), 1, ("heads", 1)

    def written(text: str, head: int, factor: float) -> Tensor:
        _last(bench, text, site, head, lambda x: x * factor)
        return bench.plain.seen["attn_out", layer][0, -1] - bench.seen(text, "attn_out", layer)[-1]

    curves = [[float(_last(bench, t, site, 2, lambda x, d=d: x * d)[300]) for t in PROMPTS] for d in doses]
    nulls = []
    for other in {0, 1, 3}:
        rows = []
        for dose in doses:
            row = []
            for text in PROMPTS:
                up, own, direction = written(text, 2, 2.0), written(text, 2, dose), written(text, other, 2.0)
                amount = float(own.norm() * torch.sign(own @ up))
                push = amount * direction / direction.norm()
                row.append(float(_last(bench, text, ("attn_out", layer), None, lambda x, p=push: x + p)[300]))
            rows.append(row)
        nulls.append(float(line_of(np.array(doses), np.array(rows)).slopes.mean()))
    found = bench.run("steer", unit="L1H2", prompts=PROMPTS, token=bench.piece(), how="scale", doses=doses)
    slope = measured(found, "slope")
    assert slope.value == pytest.approx(np.polyfit(doses, curves, 1)[0].mean(), abs=1e-4)
    assert slope.null_value == pytest.approx(np.mean(nulls), abs=2e-4)
    assert slope.null_percentile == pytest.approx(100 * np.mean(np.abs(nulls) < abs(slope.value)))
    assert found.payload["null_slopes"]["random_directions"]["n"] == 16


@pytest.mark.parametrize("unit", ["1.5", "1.5-", "L1H2"])
def test_doses_are_matched_by_the_divergence_that_they_cause(bench: Any, unit: str) -> None:
    found = bench.run("steer", unit=unit, prompts=PROMPTS, token=bench.piece(), how="scale", kl=0.05)
    dose = found.payload["equal_kl"]["dose"]
    assert (dose < 0) == unit.endswith("-")
    kls, effects = [], []
    for text in PROMPTS:
        plain = bench.log_probs(bench.ids(text))[-1]
        if unit == "L1H2":
            steered = _last(bench, text, ("heads", 1), 2, lambda x: x * (1 + dose))
        else:
            steered = _last(bench, text, ("neurons", 1), 5, lambda x: x + dose)
        kls.append(float((plain.exp() * (plain - steered)).sum()))
        effects.append(float((steered - plain)[300]))
    assert np.mean(kls) == pytest.approx(0.05, rel=0.02)
    assert measured(found, "effect_at_kl").value == pytest.approx(np.mean(effects), abs=1e-4)


def test_random_directions_are_matched_too(pocket: Any) -> None:
    found = pocket.run("steer", unit="3.5", prompts=PROMPTS, token=pocket.piece(), kl=0.2, seed=4)
    stride = float(pocket.plain["h.3.mlp.c_proj.weight"][5].norm())
    made = torch.from_numpy(np.random.default_rng(4).standard_normal((16, 128))).float()
    effects = []
    for direction, strides in zip(made, found.payload["equal_kl"]["random_norms"], strict=True):
        push = direction / direction.norm() * strides * stride
        plains = [pocket.log_probs(pocket.ids(text))[-1] for text in PROMPTS]
        pushed = [_last(pocket, text, ("mlp_out", 3), None, lambda x, p=push: x + p) for text in PROMPTS]
        kls = [float((p.exp() * (p - q)).sum()) for p, q in zip(plains, pushed, strict=True)]
        assert np.mean(kls) == pytest.approx(0.2, rel=0.03)
        effects.append(np.mean([float((q - p)[300]) for p, q in zip(plains, pushed, strict=True)]))
    effect = measured(found, "effect_at_kl")
    assert effect.null_value == pytest.approx(np.mean(effects), abs=1e-3)
    assert effect.null_percentile == pytest.approx(100 * np.mean(np.abs(effects) < abs(effect.value)), abs=6.3)


def test_matched_doses_are_those_of_a_known_curve() -> None:
    """kl = c · dose² has its dose in closed form; a curve that stays below is told."""
    scale = np.array([1.0, 1e-6, 1e4, 0.0])
    found = matched(lambda numbers, doses: scale[numbers] * doses**2, 4, 0.3)
    np.testing.assert_allclose(found.doses[:3], np.sqrt(0.3 / scale[:3]), rtol=0.011)
    assert np.isnan(found.doses[3])


def test_matched_doses_are_found_on_curves_that_are_not_square() -> None:
    curves = [lambda x: 2 * x, lambda x: 5 * x**7, lambda x: 0.4 * (1 - np.exp(-x)), lambda x: 0.29 * np.tanh(x)]
    found = matched(lambda ns, ds: np.array([curves[n](d) for n, d in zip(ns, ds, strict=True)]), 4, 0.3)
    expected = [0.15, (0.3 / 5) ** (1 / 7), -np.log(0.25)]
    for dose, right, curve in zip(found.doses, expected, curves, strict=False):
        assert curve(dose) == pytest.approx(0.3, rel=0.011)
        assert dose == pytest.approx(right, rel=0.05)
    assert np.isnan(found.doses[3])


@pytest.mark.parametrize(("how", "dose"), [("set", 6.0), ("add", 6.0), ("scale", -8.0)])
@pytest.mark.parametrize("positions", ["last", "all", [0]])
def test_text_is_written_with_the_dose_in_place(bench: Any, how: str, dose: float, positions: Any) -> None:
    n_new, site, new = (
        4,
        ("neurons", 1),
        {"set": lambda x: dose, "add": lambda x: x + dose, "scale": lambda x: x * dose},
    )

    def by_hand(text: str, edited: bool) -> tuple[list[int], list[float]]:
        ids = bench.ids(text)
        n, written, watched = ids.shape[1], [], []
        for step in range(n_new):
            at = {
                "last": list(range(n - 1, n + step)),
                "all": list(range(bench.bos, n + step)),
            }.get(str(positions), [bench.bos])
            row = bench.log_probs(ids, changed(site, 5, at, new[how]) if edited else None)[-1]
            written.append(int(row.argmax()))
            watched.append(float(row[300]))
            ids = torch.cat([ids, torch.tensor([[written[-1]]])], dim=1)
        return written, watched

    found = bench.run(
        "steer",
        unit="1.5",
        prompts=PROMPTS,
        token=bench.piece(),
        how=how,
        doses=[0.0, 1.0, dose],
        generate=n_new,
        positions=positions,
    )
    plain, steered = ([by_hand(text, edited) for text in PROMPTS] for edited in (False, True))
    target = bench.context.target
    rows = found.payload["continuations"]
    assert [row["plain"] for row in rows] == [target.decode(ids) for ids, _ in plain]
    assert [row["steered"] for row in rows] == [target.decode(ids) for ids, _ in steered]
    shares = [np.mean(np.array(a) != np.array(b)) for (a, _), (b, _) in zip(plain, steered, strict=True)]
    assert measured(found, "changed_tokens").value == pytest.approx(np.mean(shares))
    for name, runs in (("plain", plain), ("steered", steered)):
        np.testing.assert_allclose(
            found.payload["watched_along"][name], np.mean([watched for _, watched in runs], axis=0), atol=1e-4
        )


def test_a_factor_of_1_changes_nothing(pocket: Any) -> None:
    args = {"unit": "3.5", "prompts": PROMPTS, "token": pocket.piece(), "how": "scale"}
    found = pocket.run("steer", **args, doses=[0.0, 2.0, 1.0], generate=3)
    own = np.mean([float(pocket.log_probs(pocket.ids(text))[-1, 300]) for text in PROMPTS])
    assert found.payload["curve"][-1]["log_prob"] == pytest.approx(own, abs=1e-4)
    changes = measured(found, "changed_tokens")
    assert (changes.value, changes.null_value) == (0.0, 0.0)
    assert all(row["nats"] == pytest.approx(0.0, abs=1e-5) for row in found.payload["next_tokens"]["raised"])


def test_next_tokens_are_those_that_the_last_dose_moves(bench: Any) -> None:
    moved = torch.stack(
        [_last(bench, t, ("neurons", 1), 5, lambda _: 4.0) - bench.log_probs(bench.ids(t))[-1] for t in PROMPTS]
    ).mean(dim=0)
    found = bench.run("steer", unit="1.5", prompts=PROMPTS, token=bench.piece()).payload["next_tokens"]
    for side, sign in (("raised", 1), ("lowered", -1)):
        best = (sign * moved).topk(5)
        np.testing.assert_allclose([sign * row["nats"] for row in found[side]], best.values, atol=1e-4)


def test_a_token_of_several_is_scored_as_their_sequence(pocket: Any) -> None:
    pieces = pocket.context.target.vocabulary.pieces
    answer = [pieces.index(piece) for piece in (" Leo", " gave", " the")]

    def score(text: str, dose: float) -> float:
        ids = pocket.ids(text, tuple(answer[:-1]))
        at = ids.shape[1] - 3
        rows = pocket.log_probs(ids, changed(("neurons", 8), 5, [at], lambda _: dose))[-3:]
        return float(sum(row[token] for row, token in zip(rows, answer, strict=True)))

    doses = [0.0, 1.0, 4.0]
    found = pocket.run("steer", unit="8.5", prompts=PROMPTS, token=" Leo gave the", doses=doses)
    expected = [np.mean([score(text, dose) for text in PROMPTS]) for dose in doses]
    np.testing.assert_allclose([row["log_prob"] for row in found.payload["curve"]], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"unit": "L1H1", "how": "add"}, "no single number to add: give how 'scale'"),
        ({"doses": [1, 1, 2]}, "three different"),
        ({"doses": [0, 1, float("inf")]}, "finite"),
        ({"kl": 0.0}, "greater than 0"),
        ({"kl": float("nan")}, "finite"),
        ({"generate": 124}, "ask for at most 123"),
        ({"positions": [4]}, "position 4 does not exist"),
        ({"token": ""}, "answer is empty"),
        ({"unit": "1.mlp_out"}, "names no unit"),
        ({"how": "multiply"}, "'set', 'scale' or 'add'"),
    ],
)
def test_what_cannot_be_steered_is_refused_before_any_forward(pocket: Any, args: dict[str, Any], message: str) -> None:
    before = pocket.context.target.forwards
    with pytest.raises(UserError, match=message):
        pocket.run("steer", **{"unit": "1.1", "prompts": PROMPTS, "token": " the"} | args)
    assert pocket.context.target.forwards == before

"""Units that stand in for each other, made so by their weights, and swaps by hand."""

import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neuronaut.tools.errors import UserError

_BENCH = runpy.run_path(str(Path(__file__).with_name("plain_bench.py")))
measured, make_model = _BENCH["measured"], _BENCH["make_model"]
READ_TWINS, WRITE_TWINS, STRANGERS = ("1.7", "1.9"), ("1.11", "1.13"), ("1.3", "1.4")


@pytest.fixture(scope="module")
def open_bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A family, or `twins`: two neurons of one input, two of one output, two heads of one input."""

    @cache
    def opened(name: str) -> Any:
        folder = tmp_path_factory.mktemp("models") / name
        if name == "twins":
            make_model("gpt2", folder)
            weights = load_file(folder / "model.safetensors")
            at = next(key for key in weights if key.endswith("h.1.mlp.c_fc.weight")).removesuffix("mlp.c_fc.weight")
            weights[at + "mlp.c_fc.weight"][:, 9] = weights[at + "mlp.c_fc.weight"][:, 7]
            weights[at + "mlp.c_fc.bias"][9] = weights[at + "mlp.c_fc.bias"][7]
            weights[at + "mlp.c_proj.weight"][13] = weights[at + "mlp.c_proj.weight"][11]
            for part in range(3):  # queries, keys and values of heads 0 and 3, of 8 components each
                first, fourth = (slice(32 * part + 8 * head, 32 * part + 8 * head + 8) for head in (0, 3))
                weights[at + "attn.c_attn.weight"][:, fourth] = weights[at + "attn.c_attn.weight"][:, first]
                weights[at + "attn.c_attn.bias"][fourth] = weights[at + "attn.c_attn.bias"][first]
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return _BENCH["open_model"](name, folder)

    return opened


@pytest.fixture
def twins(open_bench: Callable[[str], Any]) -> Any:
    return open_bench("twins")


@pytest.mark.parametrize("scale", ["raw", "statistics", "fitted"])
@pytest.mark.parametrize("pair", [READ_TWINS, ("L1H0", "L1H3")])
def test_units_of_one_input_stand_in_for_each_other(twins: Any, pair: tuple[str, str], scale: str) -> None:
    found = twins.run("swap_units", unit=pair[0], other=pair[1], scale=scale)
    share = measured(found, "interchangeability")
    assert share.value == pytest.approx(1.0, abs=1e-4)
    assert share.null_percentile == 100.0
    assert measured(found, "kl").value == pytest.approx(0.0, abs=1e-7)
    assert measured(found, "loss_rise").value == pytest.approx(0.0, abs=1e-6)


def test_units_of_one_output_may_be_exchanged_as_they_are(twins: Any) -> None:
    """Their sum is written, which an exchange leaves alone; with each other's statistics it does not stay the same."""
    raw, scaled = (
        twins.run("swap_units", unit=WRITE_TWINS[0], other=WRITE_TWINS[1], scale=scale)
        for scale in ("raw", "statistics")
    )
    assert measured(raw, "interchangeability").value == pytest.approx(1.0, abs=1e-4)
    assert raw.payload["cos_write"] == pytest.approx(1.0, abs=1e-6)
    assert measured(scaled, "interchangeability").value < 0.99


def test_strangers_do_not(twins: Any) -> None:
    values = [
        measured(twins.run("swap_units", unit=f"1.{i}", other=f"1.{i + 1}"), "interchangeability").value
        for i in range(14, 38, 3)
    ]
    assert abs(np.median(values)) < 0.5
    assert max(values) < 0.9


@pytest.mark.parametrize("family", ["llama", "gemma2", "twins"])
@pytest.mark.parametrize(("pair", "site"), [(STRANGERS, "neurons"), (("L1H1", "L2H2"), "heads")])
def test_a_swap_is_the_one_by_hand(
    open_bench: Callable[[str], Any], family: str, pair: tuple[str, str], site: str
) -> None:
    """Values of the plain run; scaled by mean and standard deviation over the first half of the documents."""
    bench = open_bench(family)
    tokens = bench.context.sample("explore", 400)
    layers, indices = ([int(part) for part in column] for column in zip(*(_place(one) for one in pair), strict=True))
    documents = np.unique(tokens.documents)
    half = set(documents[: len(documents) // 2].tolist())
    ids = [torch.from_numpy(row[row >= 0]).long()[None] for row in tokens.ids]

    def natural(row: torch.Tensor, which: int) -> torch.Tensor:
        bench.log_probs(row)
        return bench.plain.seen[site, layers[which]][0, bench.bos :, indices[which]].clone()

    known = [[natural(row, w) for row, d in zip(ids, tokens.documents, strict=True) if d in half] for w in (0, 1)]
    means, spreads = ([getattr(torch.cat(one), name)(dim=0) for one in known] for name in ("mean", "std"))
    for scale in ("raw", "statistics"):
        kls, rises = {}, {}
        for row, document in zip(ids, tokens.documents.tolist(), strict=True):
            if document in half:
                continue
            values = [natural(row, which) for which in (0, 1)]
            if scale == "statistics":
                values = [(values[w] - means[w]) / spreads[w] * spreads[1 - w] + means[1 - w] for w in (0, 1)]

            def change(name: str, layer: int, x: torch.Tensor, values: Any = values) -> torch.Tensor:
                for which in (0, 1):
                    if (name, layer) == (site, layers[which]):
                        x = x.clone()
                        x[0, bench.bos :, indices[which]] = values[1 - which]
                return x

            plain, swapped = bench.log_probs(row), bench.log_probs(row, change)
            kl = (plain.exp() * (plain - swapped)).sum(dim=-1)[bench.bos :]
            rise = (plain - swapped)[torch.arange(row.shape[1] - 1), row[0, 1:]]
            kls.setdefault(document, []).extend(kl.tolist())
            rises.setdefault(document, []).extend(rise.tolist())
        found = bench.run("swap_units", unit=pair[0], other=pair[1], scale=scale, n_tokens=400)
        for metric, by_hand in (("kl", kls), ("loss_rise", rises)):
            one = measured(found, metric)
            assert one.n == len(by_hand)
            assert one.value == pytest.approx(np.mean([np.mean(v) for v in by_hand.values()]), rel=1e-3, abs=2e-6)


def _place(unit: str) -> tuple[str, str]:
    return (unit[1], unit[3]) if unit.startswith("L") else (unit[0], unit[2:])


def test_random_pairs_write_as_much(twins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuronaut.tools.intervene import swap

    sizes: list[float] = []
    plain = swap.Swaps.damage

    def damage(self: Any, sets: Any) -> Any:
        sizes.extend(self.written(one) for one in sets)
        return plain(self, sets)

    monkeypatch.setattr(swap.Swaps, "damage", damage)
    found = twins.run("swap_units", unit=STRANGERS[0], other=STRANGERS[1])
    n = len(found.payload["kl_random_pairs"])
    assert n == 16
    np.testing.assert_allclose(sizes[-n:], sizes[0], rtol=1e-3)
    assert np.std(sizes[1:-n]) > 1e-3 * sizes[0], "strangers write what they write"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"other": "1.7"}, "a unit always stands in for itself"),
        ({"other": "L1H1"}, "give two of one kind"),
        ({"other": "1.40"}, "has neurons 0 to 39"),
        ({"other": "seven"}, "names no unit"),
        ({"scale": "rank"}, "'raw', 'statistics' or 'fitted'"),
        ({"n_tokens": 10}, "greater than or equal to 200"),
    ],
)
def test_what_cannot_be_swapped_is_refused_before_any_forward(twins: Any, args: dict[str, Any], message: str) -> None:
    before = twins.context.target.forwards
    with pytest.raises(UserError, match=message):
        twins.run("swap_units", **{"unit": "1.7", "other": "1.8"} | args)
    assert twins.context.target.forwards == before

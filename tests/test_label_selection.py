"""Which units a batch labels: layers, ranges, conditions, fair samples, null units at random places."""

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronaut.agent.label.selection import (
    NULL_BLOCK,
    all_units,
    in_order,
    layers_named,
    meeting,
    units_named,
    with_nulls,
)
from neuronaut.agent.label.where import check_where, holds_where
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.units import Unit

SPEC = SimpleNamespace(name="tiny", n_layers=3, d_mlp=10, n_heads=2, d_model=4, n_experts=0)
TARGET: Any = SimpleNamespace(spec=SPEC, dictionaries={})
COLUMNS = {
    "density": np.array([0.0, 0.005, 0.2, 0.01]),
    "max": np.array([0.0, 2.0, 3.0, -1.0]),
    "dead": np.array([True, False, False, False]),
}


@pytest.mark.parametrize(
    ("text", "found"), [("all", [0, 1, 2]), ("1", [1]), ("0-1", [0, 1]), ("2, 0", [0, 2]), ("0-2,1", [0, 1, 2])]
)
def test_layers_are_named_as_people_do(text: str, found: list[int]) -> None:
    assert layers_named(text, 3) == found


@pytest.mark.parametrize("text", ["", "3", "0-3", "x", "1-", "-1", "2-1", "0-99999999999", "0-" + "9" * 5000])
def test_layers_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--layers"):
        layers_named(text, 3)


def test_units_and_ranges_are_named_once_each() -> None:
    found = units_named(["1.2", "1.1-1.3", "0.4-", "0.0..0.1"], TARGET, "neuron")
    assert [unit.address for unit in found] == ["1.2", "1.1", "1.3", "0.4-", "0.0", "0.1"]
    assert [unit.address for unit in units_named(["L1H0-L1H1"], TARGET, "head")] == ["L1H0", "L1H1"]


@pytest.mark.parametrize("text", ["1.3-1.1", "0.1-1.2", "1.10", "0.0-0.10", "L0H0", "x", "1.2-L1H1", "0." + "9" * 5000])
def test_units_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises((UserError, ToolRefused)):
        units_named([text], TARGET, "neuron")


def test_a_sample_has_equally_many_of_each_layer_and_begins_a_larger_one() -> None:
    units = all_units(TARGET, "neuron", [0, 1, 2], None)
    assert len(units) == 30
    small, large = in_order(units, 6, 5), in_order(units, 17, 5)
    assert large[:6] == small
    assert sorted(unit.layer for unit in small) == [0, 0, 1, 1, 2, 2]
    assert sorted(in_order(units, None, 5)) == sorted(units)
    assert in_order(units, 6, 6) != small


def test_null_units_take_values_of_units_of_the_batch_and_lie_anywhere() -> None:
    units = [Unit("neuron", layer, index) for layer in range(8) for index in range(100)]
    chosen = with_nulls(units, 0.05, 3)
    nulls = [one for one in chosen if one.null_kind]
    assert len(nulls) == 40
    assert [one.unit for one in chosen if not one.null_kind] == units
    assert {one.null_kind for one in nulls} == {"hash", "smoothed", "fragile"}
    assert len({one.unit for one in nulls}) == 40
    ranks = np.array([at for at, one in enumerate(chosen) if one.null_kind]) / len(chosen)
    assert ranks.min() < 0.2
    assert ranks.max() > 0.8
    sizes = [sum(one.beside == f"null {block}" for one in nulls) for block in range(2)]
    assert sizes == [NULL_BLOCK, 40 - NULL_BLOCK]
    assert with_nulls(units, 0.0, 3) == [one for one in chosen if not one.null_kind]
    assert with_nulls([Unit("head", 0, 1)], 1.0, 3)[0].null_kind is None


@pytest.mark.parametrize("share", [0.05, 0.34, 1.0])
@pytest.mark.parametrize("n", [1, 19, 20, 21])
def test_at_least_the_share_of_null_units_is_mixed_in(share: float, n: int) -> None:
    chosen = with_nulls([Unit("neuron", 0, i) for i in range(n)], share, 0)
    assert sum(one.null_kind is not None for one in chosen) >= share * n


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("density < 0.01", [1, 1, 0, 0]),
        ("density<=0.01 and max > 1", [0, 1, 0, 0]),
        ("max > 2.5 or dead == 1", [1, 0, 1, 0]),
        ("not dead", [0, 1, 1, 1]),
        ("0.001 < density <= 0.01", [0, 1, 0, 1]),
        ("max == -1", [0, 0, 0, 1]),
        ("dead", [1, 0, 0, 0]),
        ("(density != 0) and not (max < 0 or max > 2.5)", [0, 1, 0, 0]),
    ],
)
def test_conditions_hold_where_they_say(condition: str, found: list[int]) -> None:
    assert holds_where(condition, COLUMNS).astype(int).tolist() == found
    check_where(condition)


@pytest.mark.parametrize(
    "condition",
    ["", "density", "density + 1 > 0", "__import__('os')", "density < 'x'", "max < (lambda: 1)()", "a.b < 1", "1 < 2 <",
     "density in max", "density is max", "[1] < max", "density < True", "(" * 500, "-" * 5000, "max < 1; max > 2",
     "density < " + "9" * 400],
)  # fmt: skip
def test_anything_else_is_refused_and_not_run(condition: str) -> None:
    with pytest.raises(UserError, match="--where"):
        holds_where(condition, COLUMNS)
    with pytest.raises(UserError, match="--where"):
        check_where(condition)


def test_an_unknown_column_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="density, max"):
        holds_where("sparsity < 1", {name: COLUMNS[name] for name in ("density", "max")})


@given(st.text(max_size=60))
def test_no_text_makes_a_condition_crash(text: str) -> None:
    with contextlib.suppress(UserError):
        assert holds_where(text, COLUMNS).shape == (4,)


def test_a_condition_chooses_units_of_both_signs() -> None:
    addresses = ["0.0", "0.1", "0.2", "0.3"]
    units = [Unit.parse(one) for one in ("0.1", "0.1-", "0.2", "1.1")]
    assert [u.address for u in meeting(units, "density < 0.01", COLUMNS, addresses)] == ["0.1", "0.1-"]

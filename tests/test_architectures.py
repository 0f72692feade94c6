"""The tables of architectures say what the code does."""

from pathlib import Path

from neuronaut.evals import architectures as evaluated
from neuronaut.tools.targets.architectures import CHECKED
from neuronaut.tools.targets.load import Backend

ROOT = Path(__file__).parent.parent


def test_the_table_of_an_engine_says_what_is_measured(backend: Backend) -> None:
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    families, kinds = {}, set()
    for family, one in evaluated.opened_models(ROOT / "tests", backend):
        families[family] = evaluated.errors_of(one)
        kinds.add(one.plain.config["model_type"])
    measured = evaluated.verdicts_in(_document(families, backend), backend)
    assert len(measured) == len(families)
    assert evaluated.verdicts_in(page, backend) == measured
    assert kinds == set(CHECKED)
    assert all(errors["logits"] is not None for errors in families.values())


def test_an_error_above_the_tolerance_is_no_yes() -> None:
    rows = {"a": dict.fromkeys(evaluated.COLUMNS, 1e-3), "b": dict.fromkeys(evaluated.COLUMNS, None)}
    found = evaluated.verdicts_in(_document(rows, "mlx"), "mlx")
    assert set(found["a"]) == {"no"}
    assert found["b"] == ("no",) * 8 + ("–",)
    assert evaluated.verdicts_in(_document(rows, "mlx"), "torch") == {}


def _document(rows: dict[str, dict[str, float | None]], backend: Backend) -> str:
    return f"{evaluated.begin(backend)}\n{evaluated.table_of(rows)}\n{evaluated.END}"

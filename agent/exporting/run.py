"""`neuronaut export`: from the arguments to the files and what is said of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronaut.agent.exporting.delphi import write_scores
from neuronaut.agent.exporting.neuronpedia import CREATOR, Dataset, Names, slug, write_dataset
from neuronaut.agent.exporting.validate import faults
from neuronaut.agent.view import print_json, steps_on_stderr, visible
from neuronaut.memory.export import COLUMNS, Kind, Nulls, flat_rows, n_unfinished
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.memory.tables import format_of, write_table
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.load import load_target

TOLD = 20  # faults that are printed one by one


@dataclass(frozen=True)
class There:
    """What an export to Neuronpedia is called there; `model` is the target, from which its shape and vectors come."""

    model: str = "pocket"
    model_id: str | None = None
    source_set: str | None = None
    creator: str | None = None
    method: str | None = None
    explainer: str | None = None
    vectors: bool = False
    validate: bool = False
    dictionaries: tuple[str, ...] = ()  # NAME=FOLDER or FOLDER of each


def one_run(run: str | None, of: str | None) -> str | None:
    """The run that was named, as an option or behind the kind. Refuses two."""
    if run is not None and of is not None and run != of:
        raise UserError(f"two runs are named, {of!r} and {run!r}: give one of them")
    return run or of


def export_to(
    what: str, out: Path, place: Place | None, *, run: str | None, nulls: Nulls, there: There, as_json: bool
) -> int:
    """Write the files and say what they hold; 1 where a check finds faults, else 0."""
    if what == "check":
        return _checked(out, {}, as_json=as_json)
    if what in ("labels", "claims"):
        format_of(out)
    with Notebook(place or default_place(), read_only=True) as notebook, notebook.snapshot():
        about: dict[str, Any] = {"kind": what, "out": str(out), "ledger_head": notebook.head()}
        if run is None and (open_ := n_unfinished(notebook)):
            about["unfinished_runs"] = open_
        about |= _writers()[what](notebook, out, run, nulls, there)
    if what == "neuronpedia" and there.validate:
        return _checked(out, about, as_json=as_json)
    say(about, as_json=as_json)
    return 0


def _writers() -> dict[str, Callable[[Notebook, Path, str | None, Nulls, There], dict[str, Any]]]:
    return {"labels": _table("labels"), "claims": _table("claims"), "neuronpedia": _neuronpedia, "delphi": _delphi}


def _table(kind: Kind) -> Callable[[Notebook, Path, str | None, Nulls, There], dict[str, Any]]:
    def write(notebook: Notebook, out: Path, run: str | None, nulls: Nulls, there: There) -> dict[str, Any]:
        return {"rows": write_table(out, COLUMNS, flat_rows(notebook, kind, run, nulls)), "nulls": nulls}

    return write


def _neuronpedia(notebook: Notebook, out: Path, run: str | None, nulls: Nulls, there: There) -> dict[str, Any]:
    if nulls != "without":
        raise UserError("null units have no place on Neuronpedia: leave out --nulls")
    if there.vectors and there.source_set is None:
        steps_on_stderr()("vectors", "uploads need a source set of your own there: give --source-set")
    target = load_target(there.model, dictionaries=there.dictionaries)
    names = Names(
        slug(there.model_id or target.spec.name), there.source_set and slug(there.source_set), there.creator or CREATOR,
        there.method, there.explainer,
    )  # fmt: skip
    dataset = Dataset(out, notebook, target, names, there.vectors)
    write_dataset(out, flat_rows(notebook, "labels", run), dataset)
    if not dataset.n_explanations:
        raise UserError(
            f"the notebook supports no claim about when a unit of {there.model} fires: nothing is left to export "
            f"({'; '.join(f'{n} {why}' for why, n in dataset.left_out.items()) or 'it has no labels'})"
        )
    return {
        "model_id": names.model, "explanations": dataset.n_explanations, "shortened_for_upload": dataset.n_shortened,
        "left_out": dict(dataset.left_out),
    }  # fmt: skip


def _delphi(notebook: Notebook, out: Path, run: str | None, nulls: Nulls, there: There) -> dict[str, Any]:
    written = write_scores(out, notebook, run)
    return {"latents": dict(written.latents), "modules": sorted(written.modules), "left_out": dict(written.left_out)}


def _checked(out: Path, about: dict[str, Any], *, as_json: bool) -> int:
    if not out.is_dir():
        raise UserError(f"{str(out)!r} is no folder: name one that `neuronaut export neuronpedia` wrote")
    found = faults(out)
    say({**about, "checked": str(out), "faults": found}, as_json=as_json)
    return 1 if found else 0


def say(about: dict[str, Any], *, as_json: bool) -> None:
    """Print what was written."""
    if as_json:
        print_json(about)
        return
    for name, value in about.items():
        if isinstance(value, list) and name == "faults":
            print(f"{name:<22} {len(value) or 'none'}")
            for fault in value[:TOLD]:
                print(f"  {visible(fault)}")
            if len(value) > TOLD:
                print(f"  and {len(value) - TOLD} more (--json lists them)")
            continue
        if isinstance(value, dict):
            value = "; ".join(f"{n} {why}" for why, n in value.items()) or "nothing"
        if isinstance(value, list):
            value = ", ".join(value)
        print(f"{name.replace('_', ' '):<22} {visible(str(value))}")

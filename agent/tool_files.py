"""Arrays and figures as files; nothing is written over."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuronaut.tools.errors import UserError
from neuronaut.tools.figures import Figure


def save_arrays(arrays: Mapping[str, Any], path: Path, name: str) -> None:
    """Keep the arrays of the tool `name` in one new .npz file. Refuses none."""
    import numpy as np

    if not arrays:
        raise UserError(f"{name} makes no arrays: leave out --arrays")
    if path.exists():
        raise UserError(f"{str(path)!r} is there already, and nothing is overwritten: name another file")
    try:
        with path.open("xb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise UserError(f"the arrays cannot be stored in {str(path)!r}: {error.strerror}") from error


def save_figures(figures: Sequence[Figure], folder: Path, name: str) -> None:
    """Keep the figures of the tool `name` as FIGURE.svg, and FIGURE.json for Plotly where there is one. Refuses none."""
    if not figures:
        raise UserError(f"{name} draws no figures: leave out --figures")
    files = {folder / f"{figure.name}.svg": figure.svg for figure in figures}
    files |= {
        folder / f"{figure.name}.json": json.dumps(figure.plotly) for figure in figures if figure.plotly is not None
    }
    write_figures(files, folder)


def write_figures(files: Mapping[Path, str], folder: Path) -> None:
    """Keep drawings as files of a new folder. Refuses to overwrite."""
    if there := sorted(str(file) for file in files if file.exists()):
        raise UserError(f"{there[0]!r} is there already, and nothing is overwritten: name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        raise UserError(f"the figures cannot be stored in {str(folder)!r}: {error.strerror}") from error
